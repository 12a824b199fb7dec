from __future__ import annotations

import zipfile
from types import SimpleNamespace

import pytest

from clusterkit.errors import StoreError
from clusterkit.launchers.spark import jars
from clusterkit.launchers.spark.home import SparkHome


class FakeHdfs:
    """HDFS as far as the archive needs it: paths with their owners, modes and contents."""

    user = "me"

    def __init__(self, **owners):
        self.owners = {"/": "hdfs", **owners}
        self.modes = {}
        self.entries = []

    def exists(self, path):
        return path in self.owners

    def status(self, path):
        return SimpleNamespace(owner=self.owners[path])

    def mkdirs(self, path, *, mode):
        self.modes[path] = mode

    def put(self, local, path, *, progress=None):
        if progress:
            progress(1024, 2048)
        with zipfile.ZipFile(local) as packed:
            self.entries = [(entry.filename, oct(entry.external_attr >> 16)) for entry in packed.infolist()]
        self.owners[path] = self.user


@pytest.fixture
def archive(tmp_path):
    directory = tmp_path / "jars"
    directory.mkdir()
    for name in ("b.jar", "a.jar", "note.txt"):
        (directory / name).write_bytes(name.encode())
    return jars.SparkArchive.of(SparkHome(tmp_path, "4.3.0", "2.13", None), "hdfs://nn/clusterkit")


def test_the_jars_are_put_once_and_can_be_read_by_everybody(archive):
    """The archive holds the jars alone, readable on the nodes; the shared directory is made as all users need it."""
    hdfs, told = FakeHdfs(), []

    jars.put(archive, hdfs, tell=lambda stage, detail: told.append((stage, detail)))
    jars.put(archive, hdfs, tell=lambda stage, detail: told.append((stage, detail)))

    assert hdfs.entries == [("a.jar", "0o644"), ("b.jar", "0o644")]
    assert hdfs.modes == {"hdfs://nn/clusterkit": 0o1777}
    assert told == [("uploading", "Spark's jars, once: 1 KiB of 2 KiB")]


@pytest.mark.parametrize("owner", ["me", "hdfs"])
def test_jars_of_ones_own_and_of_the_superuser_are_used(archive, owner):
    """What we or the superuser put there is trusted."""
    jars.put(archive, FakeHdfs(**{archive.uri: owner}))


def test_jars_of_another_user_are_refused(archive):
    """Jars that somebody else put there would run as us: they are refused with their owner."""
    with pytest.raises(StoreError, match="are not used") as caught:
        jars.put(archive, FakeHdfs(**{archive.uri: "mallory"}))

    assert caught.value.why == "they belong to mallory, who could change them, and they would run as me"
