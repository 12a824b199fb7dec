from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from clusterkit.applications.report import KEPT, Report, Reports
from clusterkit.applications.why import Cause
from clusterkit.errors import StoreError
from clusterkit.hadoop.hdfs import FileStatus
from clusterkit.redaction import HIDDEN

NOW = datetime(2026, 11, 25, 4, 0, tzinfo=UTC)


class FakeHdfs:
    """Holds files and directories in a dictionary; directories have modes, files have bytes."""

    def __init__(self):
        self.directories = {"/": 0o755}
        self.files = {}
        self.modified = {}

    def exists(self, path):
        """Tell whether there is such a file or directory."""
        return path in self.directories or path in self.files

    def mkdirs(self, path, *, mode):
        """Make a directory."""
        self.directories[path] = mode

    def share(self, path):
        """Make a directory for all users."""
        self.directories[path] = 0o1777

    def write(self, path, data, *, overwrite, mode):
        """Write a file."""
        self.files[path] = (data, mode)

    def read(self, path):
        """Read a file."""
        if path not in self.files:
            raise StoreError("it was not opened", why="there is no such file", mend="check the path")
        return self.files[path][0]

    def list(self, path):
        """Yield the directories below one."""
        for each in sorted(self.directories):
            if each.startswith(f"{path}/"):
                yield FileStatus(each, 0, True, 0o750, "ada", "ada", self.modified.get(each, NOW), 0, 0)

    def delete(self, path, *, recursive):
        """Delete a directory."""
        del self.directories[path]


class FakeCluster:
    """A cluster that has nothing but HDFS."""

    def __init__(self):
        self.hdfs = FakeHdfs()


@pytest.fixture
def cluster():
    return FakeCluster()


def report(number: int = 1, **facts: object) -> Report:
    return msgspec.structs.replace(Report(id=f"application_1_{number:04}", written=NOW), **facts)


def test_report_is_read_back_as_it_was_written(cluster):
    """Directories are shared by all users, an application's own is private, and the report says what it said."""
    reports = Reports(cluster, "/clusterkit/")
    kept = report(cause=Cause(kind="k", what="w", why="y", mend="m"), exit_code=3, spec={"name": "job"})

    reports.save(kept)

    assert reports.load(kept.id) == kept
    assert cluster.hdfs.directories == {
        "/": 0o755,
        "/clusterkit": 0o1777,
        "/clusterkit/applications": 0o1777,
        "/clusterkit/applications/application_1_0001": 0o750,
    }
    assert cluster.hdfs.files[reports.path(kept.id)][1] == 0o640


def test_secrets_are_not_kept(cluster):
    """What is secret by its name in the specification is hidden there, and wherever it was printed."""
    reports = Reports(cluster, "/clusterkit")
    spec = {"env_vars": {"DB_PASSWORD": "hunter2000"}, "args": ["--token", "abcdef0123"]}
    stderr = "login failed for hunter2000 with abcdef0123\n"
    cause = Cause(kind="k", what="w", why="hunter2000 was refused", mend="m")

    reports.save(report(spec=spec, stderr=stderr, cause=cause))

    kept = reports.load("application_1_0001")
    assert kept == report(
        spec={"env_vars": {"DB_PASSWORD": HIDDEN}, "args": ["--token", HIDDEN]},
        stderr=f"login failed for {HIDDEN} with {HIDDEN}\n",
        cause=msgspec.structs.replace(cause, why=f"{HIDDEN} was refused"),
    )


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"id": 3}'])
def test_report_that_cannot_be_read_is_none(cluster, content):
    """A missing or damaged report is no error: there is none."""
    reports = Reports(cluster, "/clusterkit")
    if content is not None:
        cluster.hdfs.files[reports.path("application_1_0001")] = (content, 0o640)

    assert reports.load("application_1_0001") is None


def test_old_reports_are_swept_now_and_then(cluster):
    """A report in twenty-five takes those along that are older than they are kept."""
    reports = Reports(cluster, "/clusterkit")
    for number in (1, 2):
        reports.save(report(number))
    cluster.hdfs.modified["/clusterkit/applications/application_1_0001"] = datetime.now(UTC) - KEPT - timedelta(days=1)
    cluster.hdfs.modified["/clusterkit/applications/application_1_0002"] = datetime.now(UTC) - KEPT + timedelta(days=1)

    reports.save(report(24))
    assert cluster.hdfs.exists("/clusterkit/applications/application_1_0001")
    reports.save(report(25))

    assert [path.rpartition("_")[2] for path in cluster.hdfs.directories if "application_1" in path] == [
        "0002",
        "0024",
        "0025",
    ]
