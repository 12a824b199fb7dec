from __future__ import annotations

import zipfile
from pathlib import Path

import msgspec
import pytest

from clusterkit.errors import StoreError
from clusterkit.launchers.spark import jars
from clusterkit.launchers.spark.home import SparkHome
from clusterkit.store.directory import LocalFiles


class Files(LocalFiles):
    """The files of this machine in the place of HDFS's; `owner` is whose all of them are."""

    user = "me"
    superuser = "hdfs"
    owner = "me"

    def exists(self, path):
        return Path(path).exists()

    def status(self, path):
        return msgspec.structs.replace(super().status(path), owner=self.owner)


@pytest.fixture
def archive(tmp_path):
    directory = tmp_path / "jars"
    directory.mkdir()
    for name in ("b.jar", "a.jar", "note.txt"):
        (directory / name).write_bytes(name.encode())
    return jars.SparkArchive.of(SparkHome(tmp_path, "4.3.0", "2.13", None), str(tmp_path / "root"))


def test_the_jars_are_put_once_and_can_be_read_by_everybody(archive):
    """The archive holds the jars alone, readable on the nodes; the second time nothing is uploaded."""
    told = []

    jars.put(archive, Files(), tell=lambda stage, detail: told.append((stage, detail)))
    jars.put(archive, Files(), tell=lambda stage, detail: told.append((stage, detail)))

    with zipfile.ZipFile(archive.uri) as packed:
        entries = [(entry.filename, oct(entry.external_attr >> 16)) for entry in packed.infolist()]
    assert entries == [("a.jar", "0o644"), ("b.jar", "0o644")]
    size = Path(archive.uri).stat().st_size
    assert told == [("uploading", f"Spark's jars, once: {size} B of {size} B")]


@pytest.mark.parametrize("owner", ["me", "hdfs"])
def test_jars_of_ones_own_and_of_the_superuser_are_used(archive, owner, monkeypatch):
    """What we or the superuser put there is trusted."""
    jars.put(archive, Files())
    monkeypatch.setattr(Files, "owner", owner)
    jars.put(archive, Files())


def test_jars_of_another_user_are_refused(archive, monkeypatch):
    """Jars that somebody else put there would run as us: they are refused with their owner."""
    jars.put(archive, Files())
    monkeypatch.setattr(Files, "owner", "mallory")

    with pytest.raises(StoreError, match="are not used") as caught:
        jars.put(archive, Files())

    assert caught.value.why == "they belong to mallory, who could change them, and they would run as me"
