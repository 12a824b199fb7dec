"""The inventory of a virtual environment, or of the running interpreter, with a relocatable copy of its Python."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.environments import code, elf, interpreter
from clusterkit.environments.tree import Code, File, Link, Tree
from clusterkit.environments.wheels import installed, scripts, venvs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from clusterkit.environments.wheels.installed import Distribution
    from clusterkit.environments.wheels.venvs import Site, Venv

_TOOLS = re.compile(r"\..*|pyvenv\.cfg|lib64|src|CACHEDIR\.TAG|__pycache__")
_SETTINGS = (".json", ".cfg", ".conf", ".ini", ".toml", ".yaml", ".yml", ".sh", ".pc", ".cmake", ".desktop")
_SETTINGS_LIMIT_BYTES = 1 << 20


def read(
    path: Path | None,
    *,
    also: Sequence[Path] = (),
    without: frozenset[str] = frozenset(),
    cache_dir: Path | None = None,
    said: Callable[[str, str], None] | None = None,
) -> Tree:
    """Return a virtual environment as a tree, with its interpreter.

    Parameters
    ----------
    path : Path or None
        The virtual environment; None for the running interpreter and what is installed in it.
    also : sequence of Path
        More virtual environments of the same Python, whose packages are added where the first has none of that name.
    without : frozenset of str
        What to leave out, below its directory of packages: `pyspark/jars`.
    cache_dir : Path, optional
        Where changed programs and libraries are kept; without it their bytes are in the tree.
    said : callable, optional
        Hears what is read, and what cannot be packed as it is.

    Raises
    ------
    ImageError
        If the environment or its interpreter cannot be packed.

    References
    ----------
    PEP 376 (RECORD), PEP 405 (pyvenv.cfg), PEP 610 (direct_url.json), PEP 660 (editable installs).
    """
    venv = venvs.find(path)
    others = [venvs.find(each) for each in also]
    if said is not None:
        said("reading", str(venv.prefix))
    inventory = _Inventory(f"lib/python{venv.base.minor}/site-packages", without, said)
    for site in (*venv.sites, *(site for other in others for site in other.sites if site.is_own)):
        inventory.add(site)
    stale = tuple(dict.fromkeys(each for one in (venv, *others) for each in one.stale))
    return _tree(inventory, venv, stale, cache_dir)


def _tree(inventory: _Inventory, venv: Venv, stale: tuple[str, ...], cache_dir: Path | None) -> Tree:
    missing = _libraries(inventory, None if cache_dir is None else cache_dir / "elf")
    parts = interpreter.read(venv.base, also=missing, cache_dir=cache_dir)
    files = {file.path: file for file in parts.files} | inventory.files
    links = {link.path: link for link in parts.links} | inventory.links
    kept = _with_targets(links, files, inventory.said)
    return Tree(
        python=venv.base.version,
        platform=venv.base.platform,
        files=tuple(files[each] for each in sorted(files)),
        links=tuple(kept[each] for each in sorted(kept)),
        packages=(
            interpreter.locked(venv.base),
            *(
                each.locked(venv.base.platform)
                for each in sorted(inventory.distributions.values(), key=lambda d: d.name)
            ),
        ),
        code=tuple(inventory.code.values()),
        interpreter=frozenset({interpreter.PACKAGE}),
        stale=stale,
        notes=tuple(inventory.notes),
    )


@dataclass(slots=True)
class _Inventory:
    """What has been found so far."""

    site_packages: str
    without: frozenset[str]
    hears: Callable[[str, str], None] | None
    notes: list[str] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    code: dict[str, Code] = field(default_factory=dict)
    distributions: dict[str, Distribution] = field(default_factory=dict)
    libraries: list[Path] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)

    def said(self, stage: str, detail: str) -> None:
        """Note what cannot be packed as it is, and say it."""
        self.notes.append(detail)
        if self.hears is not None:
            self.hears(stage, detail)

    def not_beside(self, path: Path, found: elf.Elf) -> dict[str, Path]:
        """Return the libraries that a file needs and does not find by itself in this environment."""
        beside = [each for each in elf.directories(found.runpath or found.rpath, path) if self._holds(each)]
        elsewhere = {}
        for name in found.needed:
            if elf.is_the_nodes_own(name) or any((each / name).is_file() for each in beside):
                continue
            library = elf.locate(name, path, found, self.libraries)
            if library is not None:
                elsewhere[name] = library
        return elsewhere

    def _holds(self, directory: Path) -> bool:
        return any(directory.is_relative_to(each) for each in self.roots)

    def add(self, site: Site) -> None:
        """Add the packages of a directory that are not there yet."""
        found = installed.distributions(site.packages)
        new = [each for each in found if each.name not in self.distributions]
        shadowed = {_top(name) for each in found if each.name in self.distributions for name in each.files}
        shadowed -= {_top(name) for each in new for name in each.files}
        present = {
            _top(each[len(self.site_packages) + 1 :]) for each in self.files if each.startswith(self.site_packages)
        }
        editable = code.editables(site.packages, site.prefix, said=self.said)
        for each in editable.code:
            self.code.setdefault(each.name, each)
        place = _Place(site, self.site_packages, _owners(new, site, self.site_packages), editable.replaced)
        self.distributions |= {each.name: each for each in new}
        self.roots.append(site.prefix if site.is_own else site.packages)
        self._add_packages(place, shadowed | present)
        if site.is_own:
            self.libraries.append(site.prefix / "lib")
            self._add_prefix(place)
        else:
            self._add_owned(place, new)

    def _add_packages(self, place: _Place, shadowed: set[str]) -> None:
        top = place.site.packages
        with os.scandir(top) as entries:
            for entry in entries:
                if entry.name in shadowed or entry.name in place.replaced or entry.name.endswith(".egg-link"):
                    continue
                if entry.is_symlink() and self._is_code(entry, place):
                    continue
                self._add_entry(entry, entry.name, f"{self.site_packages}/", place)
        for name, data in place.replaced.items():
            if data is not None:
                path = f"{self.site_packages}/{name}"
                self.files[path] = File(path, data, 0o644, len(data), place.owner(path))

    def _is_code(self, entry: os.DirEntry[str], place: _Place) -> bool:
        """Take a package that is a link to a folder elsewhere as the user's own code."""
        target = Path(os.path.realpath(entry.path))
        if not target.is_dir() or place.holds(str(target)):
            return False
        self.said("reading", f"{entry.name} is a link to {target}: packed as code")
        self.code.setdefault(entry.name, code.package(target, entry.name))
        return True

    def _add_prefix(self, place: _Place) -> None:
        """Add what lies beside the packages: `*.data` folders of wheels and console scripts."""
        prefix = place.site.prefix
        for entry in sorted(os.scandir(prefix), key=lambda each: each.name):
            if _TOOLS.fullmatch(entry.name):
                continue
            if entry.name == "bin":
                self._add_scripts(place)
            elif entry.name == "lib":
                self._add_libraries(place)
            elif entry.is_dir() or place.owner(entry.name):
                self._add_entry(entry, None, "", place)
        for path, file in list(self.files.items()):
            if path.endswith(_SETTINGS) and not path.startswith(("lib/", "bin/")):
                self.files[path] = scripts.baked(file, str(prefix))

    def _add_libraries(self, place: _Place) -> None:
        for entry in os.scandir(place.site.prefix / "lib"):
            if re.fullmatch(r"python3\.\d+t?", entry.name):
                if entry.name != self.site_packages.split("/")[1]:
                    self.said("reading", f"{entry.path} is of another Python: left out")
            else:
                self._add_entry(entry, None, "lib/", place)

    def _add_scripts(self, place: _Place) -> None:
        for entry in os.scandir(place.site.prefix / "bin"):
            if entry.is_dir() or scripts.is_of_the_venv(entry.name):
                continue
            self._add_entry(entry, None, "bin/", place)
            path = f"bin/{entry.name}"
            if path in self.files:
                self.files[path] = scripts.relocatable(self.files[path], str(place.site.prefix))

    def _add_owned(self, place: _Place, found: Iterable[Distribution]) -> None:
        """Add what RECORDs name outside of a directory of packages whose prefix belongs to others too."""
        prefix = str(place.site.prefix)
        for name in (name for each in found for name in each.files if name.startswith("..")):
            source = os.path.normpath(place.site.packages / name)
            path = os.path.relpath(source, prefix)
            if not os.path.isfile(source) or path.startswith("../") or path in self.files or "__pycache__" in path:  # noqa: PTH113
                continue
            file = _file(path, source, os.stat(source), place.owner(path))  # noqa: PTH116
            self.files[path] = scripts.relocatable(file, prefix) if path.startswith("bin/") else file

    def _add_entry(self, entry: os.DirEntry[str], name: str | None, below: str, place: _Place) -> None:
        """Add a file, a link, or all that a directory holds; `name` is its place below the directory of packages."""
        path = below + entry.name
        if name is not None and name in self.without:
            return
        if entry.is_symlink():
            self._add_link(entry, path, place)
        elif entry.is_dir(follow_symlinks=False):
            self._add_directory(entry.path, name, f"{path}/", place)
        elif entry.is_file(follow_symlinks=False):
            if path not in self.files:
                self.files[path] = _file(path, entry.path, entry.stat(), place.owner(path))
        else:
            self.said("reading", f"{entry.path} is neither a file nor a link: left out")

    def _add_directory(self, directory: str, name: str | None, below: str, place: _Place) -> None:
        with os.scandir(directory) as entries:
            for entry in entries:
                self._add_entry(entry, None if name is None else f"{name}/{entry.name}", below, place)

    def _add_link(self, entry: os.DirEntry[str], path: str, place: _Place) -> None:
        target = os.path.normpath(os.path.join(os.path.dirname(entry.path), os.readlink(entry.path)))  # noqa: PTH115, PTH118, PTH120
        if not os.path.exists(entry.path):  # noqa: PTH110
            self.said("reading", f"{entry.path} is a link to nothing ({target}): left out")
        elif place.holds(target):
            relative = os.path.relpath(target, os.path.dirname(entry.path))  # noqa: PTH120
            self.links.setdefault(path, Link(path, relative, place.owner(path)))
        elif os.path.isdir(target):  # noqa: PTH112
            self.said("reading", f"{entry.path} leads out of the environment: {target} is packed in its place")
            self._add_outside(target, path, place)
        else:
            source = os.path.realpath(target)
            self.files[path] = _file(path, source, os.stat(source), place.owner(path))  # noqa: PTH116

    def _add_outside(self, target: str, path: str, place: _Place) -> None:
        for directory, _, names in os.walk(target):
            for name in names:
                source = os.path.join(directory, name)  # noqa: PTH118
                inner = f"{path}/{os.path.relpath(source, target)}"
                if os.path.isfile(source):  # noqa: PTH113
                    self.files[inner] = _file(inner, source, os.stat(source), place.owner(path))  # noqa: PTH116


@dataclass(frozen=True, slots=True)
class _Place:
    """A directory of packages, with who owns what in it."""

    site: Site
    site_packages: str
    owners: Mapping[str, str]
    replaced: Mapping[str, bytes | None]

    def owner(self, path: str) -> str:
        """Return the package that a file belongs to; byte code and what was made later to that of its folder."""
        found = self.owners.get(path)
        if found is None and path.startswith(self.site_packages):
            found = self.owners.get(f"{self.site_packages}/{_top(path[len(self.site_packages) + 1 :])}/")
        return found or ""

    def holds(self, target: str) -> bool:
        """Say whether a path of this machine is in the tree, at the same place."""
        inside = self.site.prefix if self.site.is_own else self.site.packages
        return target.startswith(f"{inside}/")


def _owners(found: Iterable[Distribution], site: Site, site_packages: str) -> dict[str, str]:
    """Return the owner of each file by its path, and that of each folder that one package alone fills."""
    here = os.path.relpath(site.packages, site.prefix)
    owners: dict[str, str] = {}
    tops: dict[str, str | None] = {}
    for each in found:
        for name in each.files:
            if name.startswith(".."):
                owners[os.path.normpath(f"{here}/{name}")] = each.name
                continue
            owners[f"{site_packages}/{name}"] = each.name
            top = _top(name)
            tops[top] = each.name if tops.get(top, each.name) == each.name else None
    return owners | {f"{site_packages}/{top}/": name for top, name in tops.items() if name}


def _looks_into_lib(path: str, found: elf.Elf) -> bool:
    """Say whether a file finds what lies in `lib/` by itself."""
    origin = os.path.dirname(path)  # noqa: PTH120
    return any(os.path.normpath(each.replace("$ORIGIN", origin)) == "lib" for each in found.runpath)


def _with_targets(links: dict[str, Link], files: dict[str, File], said: Callable[[str, str], None]) -> dict[str, Link]:
    """Return the links whose targets are in the tree."""
    there = set(files) | set(links)
    for path in [*files, *links]:
        while (path := path.rpartition("/")[0]) and path not in there:
            there.add(path)
    kept = {}
    for path, link in links.items():
        if os.path.normpath(f"{os.path.dirname(path)}/{link.target}") in there:  # noqa: PTH120
            kept[path] = link
        else:
            said("reading", f"{path} is a link to {link.target}, which is not packed: left out")
    return kept


def _top(name: str) -> str:
    return name.partition("/")[0]


def _file(path: str, source: str, status: os.stat_result, owner: str) -> File:
    return File(path, Path(source), 0o755 if status.st_mode & stat.S_IXUSR else 0o644, status.st_size, owner)


def _libraries(inventory: _Inventory, kept: Path | None) -> dict[str, Path]:
    """Return the libraries of this machine that packages need, and let those packages find them in `lib/`."""
    wanted: dict[str, Path] = {}
    for file in list(inventory.files.values()):
        if not isinstance(file.source, Path) or not elf.is_candidate(file.path, file.mode):
            continue
        found = elf.read(file.source)
        elsewhere = inventory.not_beside(file.source, found) if found and found.needed else {}
        wanted |= elsewhere
        if elsewhere and found and found.runpath and not _looks_into_lib(file.path, found):
            inventory.files[file.path] = replace(file, source=elf.asking_its_program(file.source, cache_dir=kept))
    machines = {name: path for name, path in wanted.items() if path.parent not in inventory.libraries}
    return elf.closure(machines.values(), search=inventory.libraries) | machines
