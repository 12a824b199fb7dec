"""Make a real prefix of a tree on this machine, to prove it or to export it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import TYPE_CHECKING

from clusterkit.environments import layers
from clusterkit.environments.tar_stream import Directory
from clusterkit.environments.tree import PLACEHOLDER, File, Link
from clusterkit.errors import ImageError
from clusterkit.node.baking import bake
from clusterkit.node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from clusterkit.environments.tar_stream import Entry
    from clusterkit.environments.tree import Tree

_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES})


def materialise(tree: Tree, prefix: Path) -> None:
    """Make a tree stand at a prefix, by hard links to the files it was read from.

    A file is copied where it cannot be linked (another disk, another owner) and where its mode differs; files that hold
    the prefix are written, as a node would write them. What was read stays as it is. Still, nobody may write into files
    of the prefix in place: they are those of the environment it was read from. The user's own code is not part of it.

    Parameters
    ----------
    tree : Tree
        The environment.
    prefix : Path
        Where it shall stand: an absolute path that does not exist yet, or an empty directory.

    Raises
    ------
    ImageError
        If something stands there, or a file cannot be read or written.
    """
    entries = tuple(layers.entries(tree))
    layers.check(entries, "the environment")
    try:
        _make_directories(prefix, entries)
        for entry in entries:
            if isinstance(entry, File):
                _place(entry, prefix)
            elif isinstance(entry, Link):
                (prefix / entry.path).symlink_to(entry.target)
    except NodeError as exc:
        raise ImageError(f"the environment was not laid out at {prefix}", why=exc.why, mend=_ELSEWHERE) from exc
    except OSError as exc:
        raise ImageError(f"the environment was not laid out at {prefix}", why=str(exc), mend=_ELSEWHERE) from exc


_ELSEWHERE = "make room there and the files of the environment readable, or set `cache_dir` to another directory"


def _make_directories(prefix: Path, entries: Iterable[Entry]) -> None:
    prefix.mkdir(parents=True, exist_ok=True)
    if next(prefix.iterdir(), None) is not None:
        raise FileExistsError(errno.EEXIST, "the directory is not empty", str(prefix))
    paths = {entry.path if isinstance(entry, Directory) else entry.path.rpartition("/")[0] for entry in entries}
    for path in sorted(paths):
        (prefix / path).mkdir(parents=True, exist_ok=True)


def _place(file: File, prefix: Path) -> None:
    path = prefix / file.path
    if file.bake:
        _write(path, bake(file.read(), PLACEHOLDER, str(prefix), file.bake), file.mode)
    elif isinstance(file.source, bytes):
        _write(path, file.source, file.mode)
    elif not _linked(file, file.source, path):
        shutil.copyfile(file.source, path)
        path.chmod(file.mode)
        _keep_time(file.source, path)


def _linked(file: File, source: Path, path: Path) -> bool:
    """Link a file if a link is what the tree describes, and say whether it was done."""
    real = source.resolve() if source.is_symlink() else source
    if bool(real.stat().st_mode & 0o100) != bool(file.mode & 0o100):
        return False
    try:
        os.link(real, path)
    except OSError as exc:
        if exc.errno in _NO_LINKS:
            return False
        raise
    return True


def _write(path: Path, data: bytes, mode: int) -> None:
    path.write_bytes(data)
    path.chmod(mode)


def _keep_time(source: Path, path: Path) -> None:
    """Give a copy the time of what it was copied from: byte code names it."""
    times = source.stat()
    with contextlib.suppress(PermissionError):
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
