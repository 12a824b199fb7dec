"""Read a conda prefix in place: from its own records, without conda, without its package cache, without a copy."""

from __future__ import annotations

import dataclasses
import mmap
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clusterkit.environments import elf
from clusterkit.environments.code import editables
from clusterkit.environments.conda import activation, cleaning, inside, inventory, ownership, unbaking
from clusterkit.environments.conda.installing import UNFINISHED, this_platform
from clusterkit.environments.conda.records import installed_wheels, records, site_packages
from clusterkit.environments.lock import LockedPackage
from clusterkit.environments.tree import PLACEHOLDER, Code, File, Link, Tree
from clusterkit.errors import ImageError
from clusterkit.node import baking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from clusterkit.environments.conda.inventory import Inventory
    from clusterkit.environments.conda.ownership import Owned
    from clusterkit.environments.conda.records import CondaRecord, PathEntry, WheelRecord
    from clusterkit.environments.tree import Bake

_MARK = "conda-meta/history"
"""What programs look for to learn that they run in a conda environment (IPython, numba); our own is empty."""


def read(prefix: Path, *, without: Iterable[str] = (), said: Callable[[str, str], None] | None = None) -> Tree:
    """Read a conda environment, as it is, into a tree.

    Each file that holds the prefix is taken back to its package's original bytes, which the package's own SHA-256 in
    the record proves; a file that was edited since is taken as it is, and noted. What pip has installed belongs to its
    distributions, the last writer of a file owns it, and what was written over is noted.

    Parameters
    ----------
    prefix : Path
        The environment's directory; it is not written to.
    without : iterable of str
        Paths below its Python's site-packages that are left out: `pyspark/jars`.
    said : callable, optional
        Told of the stage, and of each note as a `warning`.

    Returns
    -------
    Tree
        Its files, links, packages and variables; `notes` has what the user should know.

    Raises
    ------
    ImageError
        If the directory is no complete conda environment with a Python, or a file of it cannot be packed; it names the
        package.
    """
    prefix = prefix.absolute()
    if said:
        said("reading", str(prefix))
    if (prefix / UNFINISHED).exists():
        raise ImageError(
            f"{prefix} cannot be packed",
            why="its installation was interrupted",
            mend="build the environment again, which finishes it: `clusterkit env build`",
        )
    tree = _Reading.of(prefix, without).tree()
    if said:
        for note in tree.notes:
            said("warning", note)
    return tree


@dataclass
class _Reading:
    """One prefix while it is read."""

    prefix: Path
    platform: str
    records: Sequence[CondaRecord]
    wheels: Sequence[WheelRecord]
    inventory: Inventory
    owned: Owned
    prefixes: list[str]
    notes: list[str] = field(default_factory=list)
    edited: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, prefix: Path, without: Iterable[str]) -> _Reading:
        conda, site = records(prefix), site_packages(prefix)
        there = inventory.take(prefix, [f"{site.relative_to(prefix)}/{path}" for path in without] if site else ())
        platform = next((record.subdir for record in conda if record.subdir.startswith("linux-")), this_platform())
        wheels = installed_wheels(prefix, conda, platform)
        owned = ownership.owned(prefix, there, conda, wheels)
        prefixes = list(dict.fromkeys((str(prefix), os.path.realpath(prefix))))
        return cls(prefix, platform, conda, wheels, there, owned, prefixes, list(owned.notes))

    def tree(self) -> Tree:
        python = self._python()
        files = [*self._baked(), *self._others(), File(_MARK, b"", 0o644, 0)]
        links = [*self._links(files)]
        code, files = self._code(files)
        files = cleaning.without_traces(files, self.wheels)
        return Tree(
            python=python,
            platform=self.platform,
            files=tuple(sorted(files, key=lambda file: file.path)),
            links=tuple(sorted(links, key=lambda link: link.path)),
            packages=tuple(self._packages()),
            code=code,
            environment=activation.variables(self.prefix, self.prefixes),
            stale=tuple(self.prefixes),
            notes=(*self.notes, *_told(self.edited)),
            directories=tuple(self.inventory.directories),
        )

    def _python(self) -> str:
        found = next((record.version for record in self.records if record.name == "python"), "")
        if not found:
            raise ImageError(
                f"{self.prefix} cannot be packed",
                why="there is no Python in it",
                mend=f"add one: conda install -p {self.prefix} python",
            )
        return found

    def _packages(self) -> Iterator[LockedPackage]:
        for record in self.records:
            if record.name not in self.owned.replaced:
                yield LockedPackage(
                    name=record.name,
                    version=record.version,
                    kind="conda",
                    build=record.build,
                    sha256=record.sha256,
                    subdir=record.subdir or "noarch",
                    url=record.url,
                )
        yield from (wheel.package for wheel in self.wheels)

    def _baked(self) -> Iterator[File]:
        """Yield the files that conda wrote the prefix into; they prove by which name the prefix was known."""
        baked = {path: known for path, known in self.owned.conda.items() if self._is_baked(path, known[1])}
        candidates = list(dict.fromkeys((*self.prefixes, *self._in_first_lines(baked))))
        for path, (name, entry) in baked.items():
            data = self._bytes(path)
            original = self._original(data, entry, candidates)
            yield self._edited(path, name, data) if original is None else self._packed(path, name, entry, original)

    def _is_baked(self, path: str, entry: PathEntry) -> bool:
        return bool(entry.prefix_placeholder) and path in self.inventory.files and path not in self.owned.wheels

    def _in_first_lines(self, paths: Iterable[str]) -> Iterator[str]:
        """Yield the prefixes in the first lines of scripts: that of a prefix that was moved after it was made."""
        made = (path for path, (_, entry) in self.owned.conda.items() if entry.path_type == "unix_python_entry_point")
        for path in (*paths, *made):
            if path.startswith("bin/") and path in self.inventory.files and (found := self._first_line(path)):
                yield found

    def _first_line(self, path: str) -> str:
        with (self.prefix / path).open("rb") as stream:
            return unbaking.in_first_line(stream.read(1024))

    def _original(self, data: bytes, entry: PathEntry, candidates: Iterable[str]) -> bytes | None:
        for prefix in candidates:
            original = unbaking.unbake(data, prefix, entry.prefix_placeholder, entry.file_mode, entry.sha256)
            if original is not None:
                if prefix not in self.prefixes:
                    self.prefixes.append(prefix)
                    self.notes.append(f"the environment was made at {prefix} and moved since; its files name that path")
                return original
        return None

    def _packed(self, path: str, name: str, entry: PathEntry, original: bytes) -> File:
        if entry.file_mode == "binary":
            if len(entry.prefix_placeholder) < len(PLACEHOLDER):
                raise ImageError(
                    f"{name} cannot be packed",
                    why=f"{path} has room for a prefix of {len(entry.prefix_placeholder)} bytes: it was built by a "
                    "conda-build older than 2.0",
                    mend=f"install a newer build of {name}: conda update {name}",
                )
            data: bytes = baking.bake(original, entry.prefix_placeholder, PLACEHOLDER, "binary")
            bake: Bake | None = "binary" if os.fsencode(PLACEHOLDER) in data else None
        else:
            data = original.replace(os.fsencode(entry.prefix_placeholder), os.fsencode(PLACEHOLDER))
            bake = unbaking.bake_of(data)
        return File(path, data, self.inventory.files[path][1], len(data), name, bake)

    def _edited(self, path: str, name: str, data: bytes) -> File:
        self.edited.setdefault(name, []).append(path)
        return self._unproven(path, name, data)

    def _others(self) -> Iterator[File]:
        if self.inventory.others:
            raise ImageError(
                f"{self.prefix} cannot be packed",
                why=f"{self.inventory.others[0]} is neither a file nor a link",
                mend=f"remove {self.prefix / self.inventory.others[0]}",
            )
        for path, (size, mode) in self.inventory.files.items():
            known = None if path in self.owned.wheels else self.owned.conda.get(path)
            if known is not None and known[1].prefix_placeholder:
                continue
            name = self.owned.owner(path)
            if path.endswith(".pyc") or (known is not None and known[1].is_whole(size)):
                yield File(path, self.prefix / path, mode, size, name)
            else:
                yield self._searched(path, name, edited=known is not None and known[1].is_known)

    def _searched(self, path: str, name: str, *, edited: bool) -> File:
        """Return a file of which no record says whether it holds the prefix."""
        size, mode = self.inventory.files[path]
        if edited:
            self.edited.setdefault(name, []).append(path)
        if not _holds(self.prefix / path, size, self.prefixes):
            return File(path, self.prefix / path, mode, size, name)
        return self._unproven(path, name, self._bytes(path))

    def _unproven(self, path: str, name: str, data: bytes) -> File:
        """Return a file with the prefix taken out, as far as can be told without its package's word."""
        if b"\0" in data:
            return self._compiled(path, name, data)
        placed, bake = unbaking.as_text(data, self.prefixes)
        return File(
            path, placed if bake else self.prefix / path, self.inventory.files[path][1], len(placed), name, bake
        )

    def _code(self, files: list[File]) -> tuple[tuple[Code, ...], list[File]]:
        """Return the user's own code, and the files without what names its folders."""
        site = site_packages(self.prefix)
        if site is None:
            return (), files
        found = editables(site, self.prefix, said=lambda _stage, detail: self.notes.append(detail))
        below = str(site.relative_to(self.prefix))
        changed = {f"{below}/{name}": data for name, data in found.replaced.items()}
        kept = [file for file in files if file.path not in changed]
        for file in files:
            data = changed.get(file.path)
            if data is not None:
                kept.append(dataclasses.replace(file, source=data, size_bytes=len(data), bake=None))
        return found.code, kept

    def _links(self, files: list[File]) -> Iterator[Link]:
        """Yield the links that stay inside; what others lead to is added to the files."""
        for path, written in self.inventory.links.items():
            target = inside.link(path, written, self.prefixes)
            if target:
                yield Link(path, target, self.owned.owner(path))
                continue
            place = self.prefix / path
            if place.is_dir():
                raise ImageError(
                    f"{self.prefix} cannot be packed",
                    why=f"{path} is a link to the directory {written}, outside of the environment",
                    mend=f"copy the directory into the environment, or remove {place}",
                )
            if place.is_file():
                self.notes.append(f"{path} is a link to {written}, outside of the environment; the file is packed")
                size, mode = place.stat().st_size, 0o755 if os.access(place, os.X_OK) else 0o644
                files.append(File(path, place.resolve(), mode, size, self.owned.owner(path)))
            else:
                self.notes.append(f"{path} is a link to {written}, which does not exist; it is left out")

    def _compiled(self, path: str, name: str, data: bytes) -> File:
        """Return a binary with the prefix in it: grown into its padding, or its search path made relative.

        Where neither is possible it stays as it is, and packing refuses it if a program opens it.
        """
        mode = self.inventory.files[path][1]
        grown = unbaking.as_binary(data, self.prefixes)
        if grown is not None:
            return File(path, grown, mode, len(grown), name, "binary")
        known = elf.read(data)
        moved = inside.search_path(path, known.rpath or known.runpath, self.prefixes) if known else ""
        if not moved:
            return File(path, self.prefix / path, mode, len(data), name)
        data = elf.with_rpath(self.prefix / path, moved, force=bool(known and known.rpath))
        return File(path, data, mode, len(data), name)

    def _bytes(self, path: str) -> bytes:
        try:
            return (self.prefix / path).read_bytes()
        except OSError as exc:
            raise inventory.unreadable(exc) from exc


def _told(edited: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for name, paths in sorted(edited.items()):
        if len(paths) == 1:
            yield f"{paths[0]} of {name} was edited after it was installed; it is packed as it is"
        else:
            which = f"{len(paths)} files of {name}, such as {min(paths)},"
            yield f"{which} were edited after it was installed; they are packed as they are"


def _holds(file: Path, size: int, prefixes: Iterable[str]) -> bool:
    """Whether a file holds one of the prefixes; a large one is mapped, not read."""
    if not size:
        return False
    try:
        with file.open("rb") as stream:
            if size < 1 << 20:
                data: bytes | mmap.mmap = stream.read()
            else:
                data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            return any(data.find(os.fsencode(prefix)) >= 0 for prefix in prefixes)
    except OSError as exc:
        raise inventory.unreadable(exc) from exc
