"""Whether a directory is still what it was, told without reading a file: names, sizes and times."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PASSED_OVER = {"__pycache__", ".git"}


def of(*roots: Path) -> str:
    """Return a digest that changes when a file below one of the roots is added, removed or written.

    Byte code is passed over: running a program writes it, and changes nothing by that.

    Parameters
    ----------
    *roots : Path
        Directories, and single files.

    Returns
    -------
    str
        64 hexadecimal digits. 16,000 files take about 0.2 s.
    """
    seen = hashlib.sha256()
    for root in roots:
        seen.update(f"{root}\0".encode(errors="surrogateescape"))
        for line in sorted(_lines(str(root), "")):
            seen.update(line.encode(errors="surrogateescape"))
    return seen.hexdigest()


def _lines(path: str, name: str) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                below = f"{name}/{entry.name}"
                if entry.is_symlink():
                    yield f"{below}\0{os.readlink(entry.path)}\n"  # noqa: PTH115 - a string, as everywhere here, for speed
                elif not entry.is_dir():
                    yield f"{below}\0{_stat(entry.stat())}\n"
                elif entry.name not in _PASSED_OVER:
                    yield from _lines(entry.path, below)
    except NotADirectoryError:
        yield f"{name}\0{_stat(os.stat(path))}\n"  # noqa: PTH116
    except FileNotFoundError:
        yield f"{name}\0gone\n"


def _stat(found: os.stat_result) -> str:
    return f"{found.st_size} {found.st_mtime_ns} {found.st_mode:o}"
