"""Every file and link below a prefix, and what belongs to the machine rather than to the environment."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_OF_THE_MACHINE = frozenset({"conda-meta", "pkgs", "envs", "conda-bld", ".conda_lock", "locks"})
"""conda's own records, and the package cache and other environments that lie inside of a base environment."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What lies below a prefix.

    Parameters
    ----------
    files : mapping of str to (int, int)
        Size and mode of each regular file by its path below the prefix.
    links : mapping of str to str
        The target of each symbolic link, as it is written.
    directories : list of str
        The directories that hold nothing.
    others : list of str
        Sockets, devices and pipes.
    """

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def __contains__(self, path: str) -> bool:
        return path in self.files or path in self.links


def take(prefix: Path, without: Iterable[str] = ()) -> Inventory:
    """Return what lies below a prefix.

    Parameters
    ----------
    prefix : Path
        The prefix.
    without : iterable of str
        Paths below it that are left out, with all that is in them.

    Raises
    ------
    ImageError
        If a directory cannot be read.
    """
    inventory, skipped = Inventory(), _OF_THE_MACHINE.union(without)
    left = [""]
    while left:
        below = left.pop()
        try:
            with os.scandir(prefix / below) as found:
                entries = list(found)
            left += [folder for entry in entries if (folder := _note(inventory, entry, below, skipped))]
        except OSError as exc:
            raise unreadable(exc) from exc
        if below and not entries:
            inventory.directories.append(below)
    return Inventory(
        dict(sorted(inventory.files.items())),
        dict(sorted(inventory.links.items())),
        sorted(inventory.directories),
        sorted(inventory.others),
    )


def unreadable(error: OSError) -> ImageError:
    """Return the error about a file that cannot be read."""
    return ImageError(
        "the conda environment cannot be read",
        why=f"{error.filename}: {error.strerror}",
        mend="give yourself the right to read it (`chmod a+rX`), or build as the user who owns it",
    )


def _note(inventory: Inventory, entry: os.DirEntry[str], below: str, skipped: frozenset[str]) -> str:
    """Add an entry; return the path of a directory to go into."""
    path = f"{below}/{entry.name}" if below else entry.name
    if path in skipped:
        return ""
    if entry.is_symlink():
        inventory.links[path] = os.readlink(entry.path)  # noqa: PTH115 - a Path for each entry costs more than reading it
    elif entry.is_dir(follow_symlinks=False):
        return path
    else:
        known = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(known.st_mode):
            inventory.files[path] = known.st_size, 0o755 if known.st_mode & 0o111 else 0o644
        else:
            inventory.others.append(path)
    return ""
