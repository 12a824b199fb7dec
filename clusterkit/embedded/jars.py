"""The jars of the embedded Hadoop: one content-checked cache for all clusters.

A directory in the cache holds exactly the locked jars. Every jar is hashed before it enters, and gets one fixed
modification time then; later starts compare sizes and times only, and hash again what differs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from clusterkit.embedded import download
from clusterkit.embedded.download import Progress, Report, pyspark_jars
from clusterkit.embedded.jar_lock import Jar, JarLock, sha256_of
from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clusterkit.hadoop.java import Java

__all__ = ["Jar", "JarLock", "Progress", "Report", "directory", "fetch", "install", "pyspark_jars", "staging", "unfit"]

CHECKED_MTIME_S = 315_532_800
"""The modification time of a jar whose hash was checked: 1980-01-01, the oldest that every archive format can hold."""


def directory(lock: JarLock, cache_dir: Path) -> Path:
    """Return where the jars of a lock live, whether they are there or not."""
    return cache_dir / "hadoop" / f"{lock.hadoop_version}-{lock.digest[:8]}" / "lib"


def unfit(lock: JarLock, cache_dir: Path) -> tuple[str, ...]:
    """Return the names of files that keep the cache from use: missing, changed or foreign; empty when all is well.

    A look at sizes and times, a few milliseconds; nothing is hashed.
    """
    lib = directory(lock, cache_dir)
    try:
        found = {entry.name: entry.stat() for entry in os.scandir(lib)}
    except FileNotFoundError:
        found = {}
    wrong = [
        name
        for name, jar in lock.by_file_name.items()
        if name not in found or (found[name].st_size, found[name].st_mtime) != (jar.size_bytes, CHECKED_MTIME_S)
    ]
    return (*wrong, *sorted(found.keys() - lock.by_file_name.keys()))


def fetch(
    lock: JarLock,
    cache_dir: Path,
    java: Java,
    report: Report | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Path:
    """Return the directory with exactly the locked jars; fetch those that are missing or changed.

    Parameters
    ----------
    lock : JarLock
        What the directory must hold.
    cache_dir : Path
        clusterkit's cache; several processes may fetch into it at once, one of them does the work.
    java : Java
        Runs Ivy where Maven is absent, and Maven otherwise.
    report : callable, optional
        Called with a `Progress` as jars arrive. Not called when nothing is to be fetched.
    environ : mapping of str to str, optional
        The environment of the tool; our own when absent.

    Returns
    -------
    Path
        The `lib` directory.

    Raises
    ------
    ClusterError
        If neither Maven nor pyspark is there, if the tool failed, or if a jar is not the locked one; nothing of such a
        fetch stays in the cache.
    """
    lib = directory(lock, cache_dir)
    if not unfit(lock, cache_dir):
        return lib
    with staging(lock, cache_dir) as scratch:
        wanted = _mend(lock, cache_dir)
        if wanted:
            surroundings = {**(os.environ if environ is None else environ), "JAVA_HOME": str(java.home)}
            tool = download.find_tool(java, surroundings)
            fetched = download.download(tool, wanted, scratch, environ=surroundings, report=report)
            install(lock, cache_dir, fetched, wanted, source=tool.name)
            if report is not None:
                report(_whole(wanted))
    return lib


@contextmanager
def staging(lock: JarLock, cache_dir: Path) -> Iterator[Path]:
    """Hold the cache's lock and an empty directory beside the cache, both gone at the end."""
    home = directory(lock, cache_dir).parent
    home.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(home / ".lock"):
        for left in home.glob("staging-*"):  # of a fetch that was killed
            shutil.rmtree(left)
        scratch = Path(tempfile.mkdtemp(prefix="staging-", dir=home))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch)


def install(lock: JarLock, cache_dir: Path, source_dir: Path, jars: Sequence[Jar], *, source: str) -> None:
    """Check jars and move them into the cache, all or none.

    Parameters
    ----------
    lock : JarLock
        What the cache is for.
    cache_dir : Path
        clusterkit's cache, whose lock the caller holds.
    source_dir : Path
        A directory on the same file system with the jars.
    jars : sequence of Jar
        Those to move.
    source : str
        Where they came from, for the message.

    Raises
    ------
    ClusterError
        If one is missing or is not the locked one.
    """
    for jar in jars:
        _check(jar, source_dir / jar.file_name, source)
    lib = directory(lock, cache_dir)
    lib.mkdir(exist_ok=True)
    for jar in jars:
        path = source_dir / jar.file_name
        path.chmod(0o644)
        os.utime(path, (CHECKED_MTIME_S, CHECKED_MTIME_S))
        path.replace(lib / jar.file_name)


def _mend(lock: JarLock, cache_dir: Path) -> tuple[Jar, ...]:
    """Hash what looks changed, remove what is foreign, and return the jars that have to come anew."""
    lib = directory(lock, cache_dir)
    wanted = []
    for name in unfit(lock, cache_dir):
        jar = lock.by_file_name.get(name)
        path = lib / name
        if jar is None:
            _remove(path)
        elif jar.matches(path):
            os.utime(path, (CHECKED_MTIME_S, CHECKED_MTIME_S))
        else:
            wanted.append(jar)
    return tuple(wanted)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _check(jar: Jar, path: Path, source: str) -> None:
    if not path.is_file():
        raise ClusterError(
            f"{jar.file_name} was not fetched",
            why=f"{source} ended well but did not bring {jar.coordinates}",
            mend="see that the repository it uses has this artifact, or bring the jars with "
            "`clusterkit cluster fetch --from bundle.tar`",
            path=path,
        )
    if not jar.matches(path):
        raise ClusterError(
            f"{jar.file_name} was refused",
            why=f"{source} brought {path.stat().st_size} bytes with sha256 {sha256_of(path)}; "
            f"locked are {jar.size_bytes} bytes with sha256 {jar.sha256}",
            mend=f"remove {jar.repository_path} from the local repository ({Path('~/.m2/repository')} unless the "
            "settings say otherwise) and fetch again; if it comes back, the repository serves a changed jar: "
            "tell whoever keeps it",
            path=path,
        )


def _whole(jars: Iterable[Jar]) -> Progress:
    sizes = [jar.size_bytes for jar in jars]
    return Progress(len(sizes), len(sizes), sum(sizes), sum(sizes))
