"""Spark's own jars on HDFS: one archive for each version, put there once."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from clusterkit import units
from clusterkit.errors import StoreError
from clusterkit.store.blob import Blob
from clusterkit.store.hdfs import HdfsStore
from clusterkit.store.refusals import explained

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.hadoop.hdfs import Hdfs
    from clusterkit.launchers.spark.home import SparkHome

_EARLIEST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_READABLE = 0o644 << 16


class SparkArchive(msgspec.Struct, frozen=True):
    """Spark's jars as one archive on HDFS, named by what it holds.

    Parameters
    ----------
    uri : str
        Where it is, or will be.
    jars : Path
        The directory of the jars it is made from.
    """

    uri: str
    jars: Path

    @classmethod
    def of(cls, spark: SparkHome, root: str) -> SparkArchive:
        """Return the archive of a Spark below an HDFS directory."""
        listed = "".join(f"{path.name} {path.stat().st_size}\n" for path in _jars(spark.jars))
        digest = hashlib.sha256(listed.encode()).hexdigest()[:16]
        return cls(f"{root}/spark/spark-{spark.version}-{digest}.zip", spark.jars)


def put(archive: SparkArchive, hdfs: Hdfs, *, tell: Callable[[str, str], None] | None = None) -> None:
    """Put the archive on HDFS unless it is there.

    Raises
    ------
    StoreError
        If HDFS refuses it, or what is there belongs to another user.
    """
    directory, _, name = archive.uri.rpartition("/")
    root, _, kind = directory.rpartition("/")
    store = HdfsStore(hdfs, root)
    blob = Blob(name, kind, None, what="Spark's jars")
    with explained(store, "Spark's jars were not stored"):
        if hdfs.exists(archive.uri):
            _check_owner(archive, store)
            return
        with tempfile.TemporaryDirectory(prefix="clusterkit-") as scratch:
            local = Path(scratch, "spark.zip")
            _pack(archive.jars, local)
            store.put(blob, local, progress=_told(tell))
        _check_owner(archive, store)


def _check_owner(archive: SparkArchive, store: HdfsStore) -> None:
    """Refuse jars that another user put there: they would run as us. Those of the superuser are everybody's."""
    owner = store.files.status(archive.uri).owner
    if owner not in store.trusted:
        raise StoreError(
            f"Spark's jars at {archive.uri} are not used",
            why=f"they belong to {owner}, who could change them, and they would run as {store.user}",
            mend="set hdfs_root to a directory of your own, or have the HDFS superuser put them there",
            uri=archive.uri,
        )


def _told(tell: Callable[[str, str], None] | None) -> Callable[[int, int], None] | None:
    if tell is None:
        return None
    return lambda done, total: tell(
        "uploading", f"Spark's jars, once: {units.format_bytes(done)} of {units.format_bytes(total)}"
    )


def _pack(jars: Path, target: Path) -> None:
    """Pack the jars as they are: they are compressed already. Others must be able to read them on the nodes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
        for path in _jars(jars):
            entry = zipfile.ZipInfo(path.name, _EARLIEST_ZIP_DATE)
            entry.external_attr = _READABLE
            with path.open("rb") as source, packed.open(entry, "w", force_zip64=True) as sink:
                while block := source.read(1 << 20):
                    sink.write(block)


def _jars(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jar"))
