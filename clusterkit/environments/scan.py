"""Find paths of this machine in what is packed: a program that opens one on a node finds nothing, or something else.

What is looked at, and why the rest is not:

- Everything that a program may open at run time is: scripts, modules, data, configuration, shared libraries.
- Byte code is not: the import system replaces the paths in it when it loads a module.
- The records of installers (`RECORD`, `INSTALLER`, `direct_url.json`, `conda-meta/`) are not: only installers read
  them, and nothing is installed into an image.
- What serves to build other software is not: static libraries, libtool and pkg-config files, headers, CMake files.
- Manuals are not.
- The interpreter's own binaries are not: CPython keeps the path it was built for, and uses it only where it does not
  find its library beside itself.
- The user's own code is not: what stands there, stands there on purpose.
- A path that every machine has, `/usr` or `/usr/local`, is nothing of this machine.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterkit.environments.tree import File

_NOT_OPENED = re.compile(
    r"""
      .* \. (?: pyc | a | la | pc | h | hh | hpp | cmake | pyi | md | rst | o )
    | (?: .*/ )? [^/]+ \. (?: dist-info | egg-info ) /
      (?: RECORD | INSTALLER | REQUESTED | direct_url\.json | SOURCES\.txt )
    | conda-meta/ .*
    | (?: .*/ )? share/ (?: man | doc | info | licenses ) / .*
    | lib/python[\d.]+ / config- [^/]* / .*
    | bin/python[\d.]* | lib/libpython[\d.]+ \.so .*
    """,
    re.VERBOSE | re.DOTALL,
)
_EVERYWHERE = frozenset({"/", "/usr", "/usr/local", "/usr/lib", "/opt", "/home", "/root", "/tmp", "/var", "/etc"})  # noqa: S108
_WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Survivor:
    """A path of this machine in a file of the image."""

    path: str
    package: str
    stale: str


class Scan:
    """A search through everything that is packed.

    Parameters
    ----------
    stale : iterable of str
        The paths that must not survive.
    """

    def __init__(self, stale: Iterable[str]) -> None:
        self._needles = _shortest({path.rstrip("/") for path in stale} - _EVERYWHERE - {""})
        self._survivors: dict[Survivor, None] = {}

    @property
    def needles(self) -> tuple[bytes, ...]:
        """What is looked for: a path that lies in another one of them is found with that one."""
        return self._needles

    @property
    def survivors(self) -> tuple[Survivor, ...]:
        """What was found so far."""
        return tuple(self._survivors)

    def search(self, file: File) -> Search | None:
        """Return what looks through one file; None for a file that no program opens at run time."""
        if not self._needles or _NOT_OPENED.fullmatch(file.path):
            return None
        return Search(self, file)

    def found(self, file: File, needle: bytes) -> None:
        """Remember that a path stands in a file."""
        self._survivors[Survivor(file.path, file.package, os.fsdecode(needle))] = None

    def check(self) -> None:
        """Refuse an image in which a path of this machine survives.

        Raises
        ------
        ImageError
            If one does, with the files, their packages and what to do.
        """
        if not self._survivors:
            return
        first = self.survivors[:_SHOWN]
        more = len(self._survivors) - len(first)
        lines = [f"{one.path}{f' of {one.package}' if one.package else ''} holds {one.stale}" for one in first]
        raise ImageError(
            "the image was not packed: files that are opened at run time name paths of this machine",
            why="\n".join(lines + ([f"and {more} more"] if more else [])),
            mend=_mend([one for one in self.survivors if one.package] or list(first)),
        )


class Search:
    """A search through one file, whose bytes come in parts."""

    __slots__ = ("_before", "_file", "_reach", "_scan")

    def __init__(self, scan: Scan, file: File) -> None:
        self._scan = scan
        self._file = file
        self._before = b""
        self._reach = 0

    def feed(self, data: bytes | bytearray, start: int, stop: int, *, last: bool) -> None:
        """Look at the next part of the file, `data[start:stop]`."""
        needles = self._scan.needles
        if self._before:
            self._look(
                self._before + data[start : min(stop, start + self._reach)], last=last and stop - start <= self._reach
            )
        for needle in needles:
            if data.find(needle, start, stop) >= 0 and _stands(needle, data, start, stop, last=last):
                self._scan.found(self._file, needle)
        if not last:
            self._reach = max(map(len, needles)) + 2  # the two bytes behind it tell whether the name goes on
            self._before = (self._before + data[max(start, stop - self._reach) : stop])[-self._reach :]

    def _look(self, joint: bytes | bytearray, *, last: bool) -> None:
        for needle in self._scan.needles:
            if _stands(needle, joint, 0, len(joint), last=last):
                self._scan.found(self._file, needle)


def _stands(needle: bytes, data: bytes | bytearray, start: int, stop: int, *, last: bool) -> bool:
    """Say whether a path stands in the data, and not only one whose name goes on: `/opt/envelope` is not `/opt/env`."""
    limit = stop if last else stop - 2
    while (found := data.find(needle, start, limit)) >= 0:
        start = found + len(needle)
        if not _goes_on(data, start, stop):
            return True
    return False


def _goes_on(data: bytes | bytearray, at: int, stop: int) -> bool:
    if at >= stop:
        return False
    return data[at] in _WORD or (data[at] == ord(".") and at + 1 < stop and data[at + 1] in _WORD)


def _shortest(paths: set[str]) -> tuple[bytes, ...]:
    kept = [path for path in paths if not any(path.startswith(f"{other}/") for other in paths)]
    return tuple(sorted(os.fsencode(path) for path in kept))


def _mend(survivors: list[Survivor]) -> str:
    packages = sorted({one.package for one in survivors if one.package})
    if not packages:
        return f"remove {survivors[0].path} from the environment, or write a relative path into it, and build again"
    return (
        f"reinstall {', '.join(packages[:_SHOWN])} from a package that can be relocated (a wheel, not a build in "
        "place), or remove the files if no program opens them, and build again"
    )
