"""Write an environment as conda-pack does, for clusters that have no clusterkit.

conda-pack's own library writes the archive; what goes into it comes from a tree. Packed by conda-pack alone, an
environment is silently wrong in three cases, because conda-pack takes managed files from the package cache:

- the cache was cleaned: prefixes in binaries stay those of this machine, and `conda-unpack` says nothing;
- the prefix was baked for another path as it was installed: placeholders come back;
- a package has no `info/link.json`: its files are taken for deleted.

A tree has its files from the prefix itself, proved by the packages' digests, so that none of them can happen here.

References
----------
conda-pack 0.9, `conda_pack.core`; Cloudera Manager Extensibility, "The parcel format".
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clusterkit.environments.tree import PLACEHOLDER, File
from clusterkit.errors import ImageError, SpecError
from clusterkit.node import baking
from clusterkit.node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterkit.environments.lock import LockedPackage
    from clusterkit.environments.tree import Tree

Format = Literal["tar.gz", "tar", "zip"]

_OF_CONDA_PACK = {"bin/activate", "bin/deactivate", "bin/activate.fish", "bin/conda-unpack"}
_PYTHON_LINE = re.compile(rb"#![ \t]*" + re.escape(os.fsencode(PLACEHOLDER)) + rb"/bin/(python[\d.]*)[ \t]*([^\n]*)")
_PARCEL_NAME = re.compile(r"[A-Za-z0-9_.]+")


@dataclass(frozen=True, slots=True)
class Parcel:
    """What Cloudera Manager has to know of a parcel.

    Parameters
    ----------
    name : str
        Its name, without dashes.
    version : str
        Its version, without dashes; today's date when absent.
    distro : str
        The nodes' distribution: `el8`, `sles15`, `jammy`.
    root : str
        The directory where the cluster's parcels are unpacked; it is written into the files.
    """

    name: str
    version: str = ""
    distro: str = "el8"
    root: str = "/opt/cloudera/parcels"

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", self.version or datetime.now(UTC).strftime("%Y.%m.%d"))
        for key, value in (("name", self.name), ("version", self.version), ("distro", self.distro)):
            if not _PARCEL_NAME.fullmatch(value):
                raise SpecError(
                    f"{value!r} cannot be the {key} of a parcel",
                    why="Cloudera Manager splits the file's name at its dashes, and takes letters, digits, '_' and '.'",
                    mend=f"name it {re.sub(r'[^A-Za-z0-9_.]+', '_', value) or 'environment'}",
                    key=key,
                )

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}-{self.version}-{self.distro}.parcel"

    @property
    def prefix(self) -> str:
        """Where it lies on a node."""
        return f"{self.root.rstrip('/')}/{self.name}-{self.version}"


def conda_pack(
    tree: Tree,
    path: Path,
    *,
    format: Format = "tar.gz",  # noqa: A002 - conda-pack's own word
    destination: str = "",
    said: Callable[[str, str], None] | None = None,
) -> Path:
    """Write an environment as an archive that `conda-unpack`, in it, finishes where it was unpacked.

    Python's console scripts work before that and without a PATH: they look for the Python beside themselves.

    Parameters
    ----------
    tree : Tree
        The environment.
    path : Path
        The archive; written aside and renamed.
    format : str
        `tar.gz`, `tar` or `zip`.
    destination : str
        The path the environment will have; it is then written into the files, and there is no `conda-unpack`.
    said : callable, optional
        Told of the stage.

    Raises
    ------
    ImageError
        If a file cannot be read or written, or `destination` is longer than a binary has room for.
    """
    return _write(tree, path, {"format": format, "dest_prefix": destination or None}, destination, said)


def parcel(tree: Tree, directory: Path, parcel: Parcel, *, said: Callable[[str, str], None] | None = None) -> Path:
    """Write an environment as a Cloudera parcel, and return its path; see `conda_pack`.

    Raises
    ------
    ImageError
        As `conda_pack` does.
    """
    options = {
        "format": "parcel",
        "parcel_root": parcel.root,
        "parcel_name": parcel.name,
        "parcel_version": parcel.version,
        "parcel_distro": parcel.distro,
    }
    return _write(tree, directory / parcel.file, options, parcel.prefix, said)


def _write(
    tree: Tree, path: Path, options: dict[str, Any], destination: str, said: Callable[[str, str], None] | None
) -> Path:
    import conda_pack.core  # noqa: PLC0415 - only for those who export

    if said:
        said("writing", str(path))
    path = path.absolute()
    with _translated(path), tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        staged = _Staged(Path(scratch), destination)
        files = [conda_pack.core.File(*entry) for entry in staged.entries(tree)]
        aside = Path(scratch, "archive")
        conda_pack.core.CondaEnv(scratch, files).pack(str(aside), n_threads=-1, **options)
        aside.chmod(0o644)
        aside.replace(path)
    return path


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    import conda_pack.core  # noqa: PLC0415

    try:
        yield
    except NodeError as exc:
        raise ImageError(f"{path.name} was not written", why=exc.why, mend="choose a shorter, plain --prefix") from exc
    except (OSError, conda_pack.core.CondaPackException) as exc:
        why = f"{exc.filename}: {exc.strerror}" if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise ImageError(
            f"{path.name} was not written", why=why, mend=f"check {path.parent} and the room on its disk"
        ) from exc


@dataclass(frozen=True, slots=True)
class _Staged:
    """What conda-pack reads: files as they are where they hold no prefix, copies with it prepared where they do."""

    scratch: Path
    destination: str

    def entries(self, tree: Tree) -> Iterator[tuple[str, str, bool, str | None, str | None]]:
        """Yield source, target, whether it is conda's, mode and placeholder, as `conda_pack.core.File` takes them."""
        code = (
            File(f"{tree.site_packages}/{f.path}", f.source, f.mode, f.size_bytes) for c in tree.code for f in c.files
        )
        for file in (*tree.files, *code):
            if file.path not in _OF_CONDA_PACK and not file.path.startswith("conda-meta/"):
                yield self._file(file)
        for link in tree.links:
            place = self._place(link.path)
            place.symlink_to(link.target)
            yield str(place), link.path, True, None, None
        yield from self._records(tree)

    def _file(self, file: File) -> tuple[str, str, bool, str | None, str | None]:
        if file.bake is None and isinstance(file.source, Path):
            return str(file.source), file.path, True, None, None
        data, bake = file.read(), file.bake
        if bake is not None and self.destination:
            data, bake = baking.bake(data, PLACEHOLDER, self.destination, bake), None
        elif bake == "shebang" and (line := _PYTHON_LINE.match(data)):
            data, bake = _beside(line[1], line[2]) + data[line.end() :], None
        place = self._place(file.path)
        place.write_bytes(data)
        place.chmod(file.mode)
        if bake is None:
            return str(place), file.path, True, None, None
        return str(place), file.path, True, "binary" if bake == "binary" else "text", PLACEHOLDER

    def _records(self, tree: Tree) -> Iterator[tuple[str, str, bool, str | None, str | None]]:
        """Yield a record for each package: `conda list` and the parcel's description are made from them."""
        files: dict[str, list[str]] = {}
        owners = [(file.package, file.path) for file in tree.files] + [(link.package, link.path) for link in tree.links]
        for owner, path in owners:
            files.setdefault(owner, []).append(path)
        for package in tree.packages:
            path = f"conda-meta/{package.name}-{package.version}-{_build(package)}.json"
            place = self._place(path)
            place.write_text(json.dumps(_record(package, files.get(package.name, []))), encoding="utf-8")
            yield str(place), path, True, None, None
        history = self._place("conda-meta/history")
        history.touch()
        os.utime(history, (0, 0))
        yield str(history), "conda-meta/history", True, None, None

    def _place(self, path: str) -> Path:
        place = self.scratch / path
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


def _build(package: LockedPackage) -> str:
    return package.build if package.kind == "conda" and package.build else "0"


def _record(package: LockedPackage, files: list[str]) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": package.version,
        "build": _build(package),
        "build_number": 0,
        "channel": package.url.rpartition("/")[0] if package.kind == "conda" else "pypi",
        "subdir": package.subdir,
        "url": package.url,
        "sha256": package.sha256,
        "depends": [],
        "files": sorted(files),
    }


def _beside(python: bytes, arguments: bytes) -> bytes:
    """Return first lines that start the Python beside a script, wherever both lie."""
    after = b" " + arguments.strip() if arguments.strip() else b""
    return b'#!/bin/sh\n\'\'\'exec\' "$(dirname -- "$(realpath -- "$0")")"/' + python + after + b" \"$0\" \"$@\"\n' '''"
