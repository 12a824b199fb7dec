"""How long an embedded cluster of one node takes to start and to end, and what its four daemons keep of the memory.

The times are those of the whole command, `clusterkit cluster up` and `down`. `warm` starts a cluster that existed, with
the archive of classes in place; `first` starts one from nothing after the jars were fetched, without any archive.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from harness import PYTHON, Row, Run, limit, main, run

from clusterkit import settings
from clusterkit.embedded import class_data, jars, marks
from clusterkit.embedded.cluster import EmbeddedCluster
from clusterkit.hadoop.java import find_java

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROUNDS = 5
ARCHIVE_TIMEOUT_S = 600


def warm() -> Sequence[Row]:
    """Start, look at and end a cluster that exists, five times."""
    cache_dir = settings.load().cache_dir
    _wait_for_archive(cache_dir)
    with _Benched.made(cache_dir) as cluster:
        cluster.run("up")
        again = min(cluster.run("up").wall_s for _ in range(ROUNDS))
        ups, downs, memories = [], [], []
        for _ in range(ROUNDS):
            downs.append(cluster.run("down"))
            ups.append(cluster.run("up"))
            memories.append(cluster.rss_gib())
    return [
        limit("warm up", ours=statistics.median(up.wall_s for up in ups), unit="s", at_most=3.5),
        limit("up again", ours=again, unit="s", at_most=1.0),
        limit("down", ours=statistics.median(down.wall_s for down in downs), unit="s", at_most=2.5),
        limit(
            "memory of NameNode, DataNode, ResourceManager, NodeManager", ours=max(memories), unit="GiB", at_most=0.95
        ),
    ]


def first() -> Sequence[Row]:
    """Start a cluster from nothing but the jars: no data, no archive."""
    fetched = jars.directory(jars.JarLock.load(), settings.load().cache_dir).parent.parent
    with tempfile.TemporaryDirectory(prefix="clusterkit-bench-") as cache_dir:
        (Path(cache_dir) / "hadoop").symlink_to(fetched)
        with _Benched.made(Path(cache_dir)) as cluster:
            up = cluster.run("up")
    return [limit("first up after the fetch", ours=up.wall_s, unit="s", at_most=30.0)]


class _Benched:
    """A cluster of one node in a directory of its own, driven by the command line."""

    def __init__(self, data_dir: Path, cache_dir: Path) -> None:
        self._environment = {
            **os.environ,
            "CLUSTERKIT_DATA_DIR": str(data_dir),
            "CLUSTERKIT_CACHE_DIR": str(cache_dir),
        }
        self._cluster = EmbeddedCluster("default", data_dir=data_dir, cache_dir=cache_dir)

    @classmethod
    @contextmanager
    def made(cls, cache_dir: Path) -> Iterator[_Benched]:
        """Yield a cluster that does not run yet, and leave nothing of it."""
        with tempfile.TemporaryDirectory(prefix="clusterkit-bench-") as data_dir:
            made = cls(Path(data_dir), cache_dir)
            try:
                yield made
            finally:
                made.run("down", "--purge")

    def run(self, *arguments: str) -> Run:
        """Run `clusterkit cluster` with these arguments."""
        return run([str(PYTHON), "-m", "clusterkit", "cluster", *arguments], env=self._environment)

    def rss_gib(self) -> float:
        """Return the resident memory of all daemons."""
        daemons = marks.daemons(self._cluster.layout.root)
        return sum(psutil.Process(mark.process.pid).memory_info().rss for mark in daemons) / (1 << 30)


def _wait_for_archive(cache_dir: Path) -> None:
    """Have the archive of classes in place, as it is from the second start of a user's first cluster on."""
    found = settings.load()
    java = find_java(found.java_home, os.environ)
    archive = class_data.daemon_archive(cache_dir, java, jars.fetch(jars.JarLock.load(), cache_dir, java))
    archive.build_in_background()
    if not archive.wait(ARCHIVE_TIMEOUT_S):
        raise SystemExit(f"the archive of classes was not built: {archive.failure or 'in time'}")


if __name__ == "__main__":
    main({"warm": warm, "first": first})
