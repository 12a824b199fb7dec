"""Bundles: the lock and its jars in one tar, for machines without a network."""

from __future__ import annotations

import shutil
import tarfile
from io import BytesIO
from typing import TYPE_CHECKING

from clusterkit.embedded import jars
from clusterkit.embedded.jars import Progress, Report
from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from clusterkit.embedded.jar_lock import Jar, JarLock

_LOCK_LIMIT = 1 << 20
_MAKE_MEND = "make the bundle again with `clusterkit cluster fetch --to bundle.tar` and the same version of clusterkit"


def bundle_to(lock: JarLock, cache_dir: Path, path: Path) -> None:
    """Write the cached jars and their lock into a tar; the same lock gives the same bytes.

    Parameters
    ----------
    lock : JarLock
        The lock; its jars must have been fetched.
    cache_dir : Path
        clusterkit's cache.
    path : Path
        The tar to write: aside first, then renamed.

    Raises
    ------
    ClusterError
        If the cache lacks a jar or holds a changed one, or the file cannot be written.
    """
    lib = jars.directory(lock, cache_dir)
    aside = path.with_name(f".{path.name}.part")
    try:
        with tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as tar:
            content = lock.text.encode()
            tar.addfile(_member(_lock_name(lock), len(content)), BytesIO(content))
            for jar in lock.jars:
                _add(tar, jar, lib / jar.file_name)
        aside.replace(path)
    except OSError as exc:
        raise ClusterError(
            f"the bundle {path} was not written",
            why=f"{exc.strerror or exc}: {exc.filename or path}",
            mend="name a file in a directory that may be written, on a disk with room for "
            f"{lock.size_bytes // 1_000_000} MB",
            path=path,
        ) from exc
    finally:
        aside.unlink(missing_ok=True)


def bundle_from(lock: JarLock, cache_dir: Path, path: Path, report: Report | None = None) -> Path:
    """Fill the cache from a bundle and return the directory with exactly the locked jars.

    Nothing leaves the tar but regular files whose names are locked, no further than their locked size; each is hashed
    before it enters the cache.

    Parameters
    ----------
    lock : JarLock
        What clusterkit needs; the bundle must have been made for it.
    cache_dir : Path
        clusterkit's cache.
    path : Path
        The bundle.
    report : callable, optional
        Called with a `Progress` after each jar.

    Raises
    ------
    ClusterError
        If the file is no bundle, was made for another lock, lacks a jar, or holds a changed or foreign one.
    """
    try:
        with jars.staging(lock, cache_dir) as scratch, tarfile.open(path, "r:") as tar:
            _unpack(tar, lock, scratch, path, report)
            jars.install(lock, cache_dir, scratch, lock.jars, source=f"the bundle {path}")
    except tarfile.TarError as exc:
        raise _refused(path, f"it cannot be read as a tar: {exc}") from exc
    except OSError as exc:
        raise ClusterError(
            f"the bundle {path} was not read",
            why=f"{exc.strerror or exc}: {exc.filename or path}",
            mend=f"check {path}, its permissions, and the room in {cache_dir}",
            path=path,
        ) from exc
    return jars.directory(lock, cache_dir)


def _lock_name(lock: JarLock) -> str:
    return f"hadoop-{lock.hadoop_version}.lock"


def _member(name: str, size_bytes: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size_bytes, 0o644, jars.CHECKED_MTIME_S
    return member


def _add(tar: tarfile.TarFile, jar: Jar, path: Path) -> None:
    if not jar.matches(path):
        raise ClusterError(
            "the bundle was not written",
            why=f"{jar.file_name} in the cache is {'changed' if path.exists() else 'missing'}",
            mend="run `clusterkit cluster fetch` first",
            path=path,
        )
    with path.open("rb") as file:
        tar.addfile(_member(f"lib/{jar.file_name}", jar.size_bytes), file)


def _unpack(tar: tarfile.TarFile, lock: JarLock, scratch: Path, path: Path, report: Report | None) -> None:
    left = {f"lib/{jar.file_name}": jar for jar in lock.jars}
    first = tar.next()
    if first is None or first.name != _lock_name(lock) or not first.isfile() or first.size > _LOCK_LIMIT:
        raise _refused(path, f"it does not begin with {_lock_name(lock)}, as a bundle does")
    with _open(tar, first) as file:
        theirs = file.read()
    if theirs != lock.text.encode():
        raise _refused(path, "it was made for other jars than this version of clusterkit needs")
    while (member := tar.next()) is not None:
        jar = left.pop(member.name, None)
        if jar is None or not member.isfile():
            raise _refused(path, f"it holds {member.name!r}, which no bundle does, or holds it twice")
        if member.size != jar.size_bytes:
            raise _refused(path, f"{jar.file_name} in it has {member.size} bytes, locked are {jar.size_bytes}")
        with _open(tar, member) as source, (scratch / jar.file_name).open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        if report is not None:
            report(_progress(lock, tuple(left.values())))
    if left:
        raise _refused(path, f"it lacks {', '.join(jar.file_name for jar in left.values())}")


def _open(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    if file is None:
        raise tarfile.ReadError(f"{member.name} has no content")
    return file


def _progress(lock: JarLock, left: tuple[Jar, ...]) -> Progress:
    left_bytes = sum(jar.size_bytes for jar in left)
    return Progress(len(lock.jars) - len(left), len(lock.jars), lock.size_bytes - left_bytes, lock.size_bytes)


def _refused(path: Path, why: str) -> ClusterError:
    return ClusterError(f"the bundle {path} was refused", why=why, mend=_MAKE_MEND, path=path)
