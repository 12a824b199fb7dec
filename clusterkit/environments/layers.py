"""Split an environment into layers that change for different reasons.

A layer is what a store keeps, a wire carries and a node unpacks once. The interpreter and each large package have one
of their own, so that a new version of a package touches that layer alone; what is small shares one; files that hold the
prefix, and the user's own code, lie apart, because they differ where all else is equal.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterkit.environments import java
from clusterkit.environments.tar_stream import Directory
from clusterkit.environments.tree import File, Link
from clusterkit.errors import ImageError
from clusterkit.node.extraction import leads_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterkit.environments.manifest import LayerKind
    from clusterkit.environments.tar_stream import Entry
    from clusterkit.environments.tree import Tree

LARGE_BYTES = 32 << 20
"""From this size on a package has a layer of its own."""

LARGE_LAYERS = 14
"""How many packages have one at most: YARN fetches private files one after the other, 20 layers are enough."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one layer will hold.

    Parameters
    ----------
    kind : str
        As in `Layer.kind`.
    name : str
        As in `Layer.name`.
    entries : tuple of File, Link and Directory
        What is in it.
    """

    kind: LayerKind
    name: str
    entries: tuple[Entry, ...]

    @property
    def size_bytes(self) -> int:
        """The bytes of its files."""
        return sum(entry.size_bytes for entry in self.entries if isinstance(entry, File))

    @property
    def bake(self) -> dict[str, str]:
        """How the prefix stands in its files, by path."""
        return {entry.path: entry.bake for entry in self.entries if isinstance(entry, File) and entry.bake}


def split(tree: Tree) -> tuple[Part, ...]:
    """Return the parts of a tree, in the order they are unpacked; a part that would be empty is not there.

    Raises
    ------
    ImageError
        If two packages hold the same path, or a path leads out of the prefix.
    """
    check(entries(tree), "the environment")
    baked = tuple(file for file in tree.files if file.bake)
    by_package: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries(tree):
        if not (isinstance(entry, File) and entry.bake):
            by_package[entry.package].append(entry)
    interpreter = _take(by_package, sorted(tree.interpreter & by_package.keys()))
    jdk = _take(by_package, [java.PACKAGE] if java.PACKAGE in by_package else [])
    large = [Part("binaries", name, tuple(by_package.pop(name))) for name in _large(by_package)]
    parts = (
        Part("interpreter", "python", interpreter),
        *large,
        Part("packages", "packages", _take(by_package, sorted(by_package))),
        Part("prefix", "prefix", baked),
        Part("java", "java", jdk),
        *code(tree),
    )
    return tuple(part for part in parts if part.entries)


def code(tree: Tree) -> Iterator[Part]:
    """Yield one part for each folder of the user's own code.

    Raises
    ------
    ImageError
        If a path stands in one of them twice, or leads out of it.
    """
    for one in tree.code:
        check(one.files, one.name)
        yield Part("code", one.name, one.files)


def entries(tree: Tree) -> Iterator[Entry]:
    """Yield everything that stands below the prefix."""
    yield from tree.files
    yield from tree.links
    for path in tree.directories:
        yield Directory(path)


def check(all_entries: Iterable[Entry], what: str) -> None:
    """Refuse entries that cannot lie beside each other in one directory.

    Raises
    ------
    ImageError
        If a path is there twice, is also the directory of another one, or leads out; nodes refuse links that may.
    """
    seen: dict[str, Entry] = {}
    directories: set[str] = set()
    for entry in all_entries:
        other = seen.setdefault(entry.path, entry)
        if other is not entry:
            raise _twice(what, other, entry)
        if not _is_inside(entry.path):
            raise ImageError(
                f"{what} was not packed",
                why=f"the path {entry.path!r}{_of(entry)} leads out of it, or is not a plain one",
                mend=f"reinstall {entry.package or 'what made that file'}, and build the image again",
            )
        if isinstance(entry, Link) and leads_out(os.fsencode(entry.path), os.fsencode(entry.target)):
            raise ImageError(
                f"{what} was not packed",
                why=f"the link {entry.path!r}{_of(entry)} may lead out of it: {entry.target!r}",
                mend=f"reinstall {entry.package or 'what made that link'}, or replace the link with what it leads to",
            )
        directories.add(entry.path.rpartition("/")[0])
    for path in {parent for directory in directories for parent in _with_parents(directory)} & seen.keys():
        if not isinstance(seen[path], Directory):
            raise ImageError(
                f"{what} was not packed",
                why=f"{path!r}{_of(seen[path])} is a file, and a directory of another package",
                mend="uninstall one of the two packages, and build the image again",
            )


def _large(by_package: dict[str, list[Entry]]) -> list[str]:
    sizes = {
        name: sum(entry.size_bytes for entry in owned if isinstance(entry, File))
        for name, owned in by_package.items()
        if name
    }
    large = [name for name in sizes if sizes[name] >= LARGE_BYTES]
    return sorted(sorted(large, key=lambda name: (-sizes[name], name))[:LARGE_LAYERS])


def _take(by_package: dict[str, list[Entry]], names: list[str]) -> tuple[Entry, ...]:
    return tuple(entry for name in names for entry in by_package.pop(name))


def _is_inside(path: str) -> bool:
    return "\0" not in path and all(part not in {"", ".", ".."} for part in path.split("/"))


def _with_parents(directory: str) -> Iterator[str]:
    while directory:
        yield directory
        directory = directory.rpartition("/")[0]


def _twice(what: str, one: Entry, other: Entry) -> ImageError:
    owners = " and ".join(sorted({_owner(one), _owner(other)}))
    return ImageError(
        f"{what} was not packed",
        why=f"the path {one.path!r} is there twice, from {owners}",
        mend="uninstall one of the packages, or reinstall the one whose file shall stand, and build the image again",
    )


def _owner(entry: Entry) -> str:
    if entry.package:
        return entry.package
    source = entry.source if isinstance(entry, File) else b""
    return "no package" if isinstance(source, bytes) else os.fspath(source)


def _of(entry: Entry) -> str:
    return f" of {entry.package}" if entry.package else ""
