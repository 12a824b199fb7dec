from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import click.testing
import msgspec
import pytest

from clusterkit import settings as setting_layers
from clusterkit.cli import doctor as command
from clusterkit.doctor import Check, failed, worst
from clusterkit.doctor import cluster as doctor
from clusterkit.embedded import class_data, jars
from clusterkit.embedded.class_data import Archive
from clusterkit.embedded.jar_lock import JarLock
from clusterkit.embedded.status import ClusterStatus, DaemonStatus, HdfsStatus
from clusterkit.errors import ClusterError
from clusterkit.hadoop.resource_manager import Node, Queue, Resources
from clusterkit.units import GIB

UP = ClusterStatus(
    name="default",
    state="up",
    directory="/d",
    conf_dir="/d/conf",
    bind="127.0.0.1",
    security="none",
    daemons=(
        DaemonStatus(name="namenode", state="ready", pid=7, ports={}, rss_bytes=1),
        DaemonStatus(name="datanode-1", state="ready", pid=8, ports={}, rss_bytes=1),
    ),
    hdfs=HdfsStatus(
        datanodes=1, used_bytes=GIB, remaining_bytes=9 * GIB, capacity_bytes=10 * GIB, safe_mode=False, missing_blocks=0
    ),
)
NODE = Node(
    id="localhost:1",
    host="localhost",
    http_address="localhost:2",
    state="RUNNING",
    health="",
    version="3.5.0",
    containers=0,
    used=Resources(1024, 1),
    available=Resources(3072, 7),
    labels=(),
    last_heartbeat=None,
)
QUEUE = Queue(
    name="default",
    path="root.default",
    state="RUNNING",
    capacity=100.0,
    max_capacity=100.0,
    used_capacity=0.0,
    used=Resources(0, 0),
    am_limit=Resources(4096, 4),
    am_used=Resources(0, 0),
    user_am_limit=None,
    max_allocation=None,
    running=0,
    pending=0,
)
replace = msgspec.structs.replace


class TestChecks:
    """Checks as values."""

    def test_a_check_that_is_not_ok_explains_itself(self):
        """A warning without cause or next step cannot be made."""
        with pytest.raises(ValueError, match="the check x says warn without why and mend"):
            Check("x", "warn", "it is slow", "because")

    def test_worst(self):
        """The worst state counts; no check at all is fine."""
        ok, warn, fail = Check("a", "ok", "a"), Check("b", "warn", "b", "c", "d"), Check("c", "fail", "e", "f", "g")
        assert [worst([]), worst([ok]), worst([warn, ok]), worst([ok, fail, warn])] == ["ok", "ok", "warn", "fail"]

    def test_an_expected_error_is_a_failed_check(self):
        """An expected error keeps its three sentences."""
        assert failed("x", ClusterError("a", why="b", mend="c")) == Check("x", "fail", "a", "b", "c")


class TestMachine:
    """What a cluster needs of this machine."""

    def test_no_java(self, tmp_path):
        """A setting that names no Java fails."""
        java, check = doctor.java_found(tmp_path, {})
        assert (java, check.state, check.what) == (None, "fail", f"there is no Java at {tmp_path}")

    def test_java(self, tmp_path):
        """A supported Java is named with version and home."""
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "java").touch(0o755)
        (tmp_path / "release").write_text('JAVA_VERSION="21.0.2"\n')
        assert doctor.java_found(tmp_path, {})[1] == Check("java", "ok", f"Java 21.0.2 at {tmp_path}")

    @pytest.mark.parametrize("version", ["4.0.1", "5.0.0"])
    def test_an_unsupported_spark(self, tmp_path, version):
        """A Spark that is too old or too new fails by name."""
        (tmp_path / "jars").mkdir()
        (tmp_path / "jars" / f"spark-core_2.13-{version}.jar").touch()
        spark, check = doctor.spark_found(tmp_path)
        assert (spark, check.state, check.what) == (None, "fail", f"Spark {version} cannot be used")

    def test_spark(self, tmp_path):
        """A supported Spark is named with version and place."""
        (tmp_path / "jars").mkdir()
        (tmp_path / "jars" / "spark-core_2.13-4.2.0.jar").touch()
        assert doctor.spark_found(tmp_path)[1] == Check("spark", "ok", f"Spark 4.2.0 at {tmp_path}")

    @pytest.mark.parametrize(("free", "state"), [(6 * GIB, "ok"), (2 * GIB, "warn"), (GIB // 2, "fail")])
    def test_disk(self, tmp_path, monkeypatch, free, state):
        """Little room is a warning, hardly any a failure; a directory that is not there yet counts by its parent."""
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=free, path=path))
        assert doctor.disk_free(tmp_path / "not" / "yet").state == state


class TestJars:
    """The jars in the cache."""

    @pytest.fixture
    def lock(self):
        """Return a lock of two jars."""
        digest = hashlib.sha256(b"jar").hexdigest()
        return JarLock.from_text("9.9", f"{digest} 3 g:one:1\n{digest} 3 g:two:1\n")

    @pytest.fixture
    def lib(self, lock, tmp_path):
        """Return the cache's directory with both jars."""
        directory = jars.directory(lock, tmp_path)
        directory.mkdir(parents=True)
        for jar in lock.jars:
            (directory / jar.file_name).write_bytes(b"jar")
        return directory

    def test_not_fetched_yet(self, lock, tmp_path):
        """No jar at all is a warning: the first start fetches them."""
        check = doctor.jars_intact(lock, tmp_path)
        assert (check.state, "clusterkit cluster fetch" in check.mend) == ("warn", True)

    def test_in_order(self, lock, lib, tmp_path):
        """Jars with their locked hashes are fine."""
        check = doctor.jars_intact(lock, tmp_path)
        assert check == Check("hadoop jars", "ok", "2 jars of Hadoop 9.9, each with its locked hash")

    def test_changed_and_missing(self, lock, lib, tmp_path):
        """A changed jar of the same size, and a missing one, fail by name."""
        (lib / "one-1.jar").write_bytes(b"evi")
        (lib / "two-1.jar").unlink()
        check = doctor.jars_intact(lock, tmp_path)
        assert (check.state, check.why) == (
            "fail",
            f"in {lib}, two-1.jar is missing; one-1.jar is not the locked one",
        )


class TestArchives:
    """The class-data archives, whose absence nothing else tells."""

    @pytest.fixture
    def archive(self, tmp_path):
        """Return an archive that was not begun; its Java is one that maps nothing."""
        java = tmp_path / "java"
        java.write_text("#!/bin/sh\necho 'shared class paths mismatch' >&2\nexit 1\n")
        java.chmod(0o755)
        (tmp_path / "spark-0").mkdir()
        return Archive("spark", tmp_path / "spark-0", java, "/jars/*", ())

    def test_absent(self, archive):
        """An archive that was never built is a warning that says what it costs."""
        check = doctor.archive_mapped(archive)
        assert (check.name, check.state) == ("class data, spark", "warn")
        assert check.what == "there is no archive of classes; each job starts about 5 s later without it"

    def test_failed(self, archive):
        """A build that failed is a warning with its reason."""
        (archive.directory / "failure.json").write_text(json.dumps({"why": "the disk is full", "at": 1.0}))
        check = doctor.archive_mapped(archive)
        assert (check.state, check.why) == ("warn", "the disk is full")

    def test_not_mapped(self, archive):
        """An archive that a JVM does not map is a warning with what the JVM says."""
        archive.path.touch()
        check = doctor.archive_mapped(archive)
        assert (check.state, check.why) == ("warn", "shared class paths mismatch")

    def test_mapped(self, archive):
        """An archive that a JVM maps is fine."""
        archive.path.touch()
        archive.java.write_text("#!/bin/sh\n")
        assert doctor.archive_mapped(archive) == Check("class data, spark", "ok", f"mapped from {archive.path}")

    def test_building(self, archive, monkeypatch):
        """An archive on its way is fine."""
        monkeypatch.setattr(class_data.Archive, "state", "building")
        assert doctor.archive_mapped(archive).state == "ok"


class TestEmbedded:
    """An embedded cluster, as its status tells."""

    def test_up_and_down(self):
        """A cluster that is up, or down on purpose, is fine."""
        assert doctor.daemons_alive(UP) == Check("cluster default", "ok", "all of 2 daemons ready")
        assert doctor.daemons_alive(replace(UP, state="down")).state == "ok"

    def test_a_dead_and_a_waiting_daemon(self):
        """Each daemon that is not ready is named with what it lacks."""
        daemons = (
            replace(UP.daemons[0], state="dead", pid=None),
            replace(UP.daemons[1], state="waiting", waits_for="the NameNode"),
        )
        check = doctor.daemons_alive(replace(UP, state="broken", daemons=daemons))
        assert (check.state, check.why) == ("fail", "namenode does not run; datanode-1 waits for the NameNode")
        assert "clusterkit cluster up --name default" in check.mend

    @pytest.mark.parametrize(
        ("maps", "state", "what"),
        [
            ([True, True], "ok", "mapped by 2 daemons"),
            ([True, None], "ok", "1 daemon started before the archive was there; the next start uses it"),
            ([None, False], "warn", "1 daemon went without the archive of classes"),
        ],
    )
    def test_archives_of_running_daemons(self, monkeypatch, maps, state, what):
        """A daemon whose JVM refused its archive is a warning, one that was started without an archive is none."""
        answers = dict(zip((7, 8), maps, strict=True))
        monkeypatch.setattr(class_data, "maps_archive", answers.get)
        check = doctor.daemons_mapped(UP)
        assert (check.name, check.state, check.what) == ("class data of default", state, what)

    def test_no_daemon_maps_anything(self):
        """Where no daemon runs there is nothing to say about their archive."""
        daemons = tuple(replace(daemon, pid=None) for daemon in UP.daemons)
        assert doctor.daemons_mapped(replace(UP, daemons=daemons)) is None

    @pytest.mark.parametrize(
        ("change", "state"),
        [
            ({}, "ok"),
            ({"safe_mode": True}, "fail"),
            ({"missing_blocks": 3}, "fail"),
            ({"remaining_bytes": GIB}, "warn"),
        ],
    )
    def test_hdfs(self, change, state):
        """Safe mode and missing blocks fail, little room is a warning."""
        check = doctor.hdfs_writable(replace(UP, hdfs=replace(UP.hdfs, **change)))
        assert (check.name, check.state) == ("hdfs of default", state)

    def test_no_hdfs_to_ask(self):
        """While no NameNode answers there is nothing to say about HDFS."""
        assert doctor.hdfs_writable(replace(UP, hdfs=None)) is None


class TestClient:
    """What the ResourceManager tells."""

    def test_healthy_nodes(self):
        """Running nodes are counted with their memory."""
        assert doctor.nodes_healthy([NODE, NODE]) == Check("nodes", "ok", "2 NodeManagers running, 8 GiB in all")

    def test_an_unhealthy_node(self):
        """An unhealthy node beside a running one is a warning with the node's own words."""
        ill = replace(NODE, id="localhost:9", state="UNHEALTHY", health="1/1 local-dirs are bad: /x")
        check = doctor.nodes_healthy([NODE, ill])
        assert (check.state, check.why) == ("warn", "localhost:9 is UNHEALTHY: 1/1 local-dirs are bad: /x")

    @pytest.mark.parametrize("nodes", [[], [replace(NODE, state="LOST")]])
    def test_no_node_that_works(self, nodes):
        """Without a running node nothing can start."""
        assert doctor.nodes_healthy(nodes).state == "fail"

    def test_a_queue_with_room(self):
        """A queue whose ApplicationMasters have room is fine."""
        (check,) = doctor.applications_startable([QUEUE])
        assert check == Check(
            "queue root.default", "ok", "0 applications running, 0 waiting; 4 GiB for ApplicationMasters"
        )

    def test_the_share_of_application_masters_is_used_up(self):
        """Applications that wait because the share is taken are told with the numbers and the key."""
        full = replace(QUEUE, am_used=Resources(3584, 4), running=4, pending=2)
        (check,) = doctor.applications_startable([full])
        assert (check.state, check.what) == ("warn", "2 applications waiting for the share of ApplicationMasters")
        assert check.why == "3584 MiB of 4 GiB for ApplicationMasters are taken by 4 running applications"
        assert "maximum-am-resource-percent" in check.mend

    def test_a_share_too_small_for_spark(self):
        """A share below the smallest ApplicationMaster of Spark is told."""
        (check,) = doctor.applications_startable([replace(QUEUE, am_limit=Resources(512, 1))])
        assert (check.state, check.why) == (
            "warn",
            "it gives 512 MiB for ApplicationMasters, the smallest of Spark takes 896 MiB",
        )

    def test_a_stopped_queue(self):
        """A stopped queue is told."""
        (check,) = doctor.applications_startable([replace(QUEUE, state="STOPPED")])
        assert (check.state, check.what) == ("warn", "the queue is STOPPED")

    @pytest.mark.parametrize(("apart_s", "state"), [(0, "ok"), (-31, "warn"), (301, "fail")])
    def test_clock(self, apart_s, state):
        """Clocks that are half a minute apart are a warning, beyond what Kerberos bears a failure."""
        assert doctor.clocks_agree(1000.0 + apart_s, 1000.0).state == state

    def test_a_resource_manager_that_is_gone(self, tmp_path):
        """A configured cluster whose ResourceManager and NameNode do not answer fails, with host and port."""
        conf = tmp_path / "conf"
        conf.mkdir()
        site = "<configuration><property><name>{}</name><value>{}</value></property></configuration>"
        (conf / "yarn-site.xml").write_text(site.format("yarn.resourcemanager.webapp.address", "127.0.0.1:9"))
        (conf / "core-site.xml").write_text(site.format("fs.defaultFS", "hdfs://127.0.0.1:9"))
        settings = setting_layers.load(
            {"cache_dir": str(tmp_path), "data_dir": str(tmp_path), "java_home": str(tmp_path)}, environ={}
        )
        checks = doctor.examine(settings, {"HADOOP_CONF_DIR": str(conf)})
        gone = [check for check in checks if check.name.startswith("client")]
        assert [check.state for check in gone] == ["fail", "fail"]
        assert all("127.0.0.1" in f"{check.what} {check.why}" for check in gone)

    def test_no_cluster_at_all(self, tmp_path):
        """Where no cluster is named or runs, that is fine: a submit starts one."""
        settings = setting_layers.load({"cache_dir": str(tmp_path), "data_dir": str(tmp_path)}, environ={})
        assert doctor.examine(settings, {"PATH": ""})[-1].name == "client"

    def test_a_cluster_that_is_not_there(self, tmp_path):
        """A cluster that is named and unknown fails."""
        given = {"cache_dir": str(tmp_path), "data_dir": str(tmp_path), "cluster": "nope"}
        check = doctor.examine(setting_layers.load(given, environ={}), {"PATH": ""})[-1]
        assert (check.name, check.state, check.what) == ("client", "fail", "there is no cluster nope")


class TestCommand:
    """`clusterkit doctor cluster`."""

    CHECKS = (
        Check("java", "ok", "Java 17"),
        Check("hadoop jars", "warn", "not here", "not fetched", "fetch them\nby hand"),
    )

    @pytest.fixture
    def run(self, monkeypatch):
        """Return a function that runs the command with given checks."""

        def run(checks, *args: str):
            monkeypatch.setattr(doctor, "examine", lambda *_: checks)
            return click.testing.CliRunner().invoke(command.command, ["cluster", *args], standalone_mode=False)

        return run

    def test_for_people(self, run):
        """Each check is a line; one that is not ok has its cause and the next step below."""
        done = run(self.CHECKS)
        assert done.output == (
            "ok    java         Java 17\n"
            "warn  hadoop jars  not here\n"
            "      Why:  not fetched\n"
            "      Mend: fetch them\n"
            "            by hand\n"
        )
        assert done.return_value == 0

    def test_a_failure_is_the_exit_code(self, run):
        """A failed check ends the command with 69."""
        assert run((*self.CHECKS, Check("x", "fail", "a", "b", "c"))).return_value == 69

    def test_json(self, run):
        """The same as one JSON document."""
        assert json.loads(run(self.CHECKS, "--json").output) == {
            "state": "warn",
            "checks": [
                {"name": "java", "state": "ok", "what": "Java 17", "why": "", "mend": ""},
                {
                    "name": "hadoop jars",
                    "state": "warn",
                    "what": "not here",
                    "why": "not fetched",
                    "mend": "fetch them\nby hand",
                },
            ],
        }
