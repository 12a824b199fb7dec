"""What a prefix says of itself: conda's records in `conda-meta`, and the RECORD of each wheel."""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class PathEntry(msgspec.Struct, frozen=True, gc=False):
    """One file of a package, as conda installed it.

    References
    ----------
    conda CEP 34 and `paths.json` of the package format, version 1.
    """

    path: str = msgspec.field(name="_path")
    path_type: str = "hardlink"
    sha256: str = ""
    size_in_bytes: int = -1
    file_mode: str = ""
    prefix_placeholder: str = ""

    @property
    def is_made(self) -> bool:
        """Whether the installer made it: an entry point or byte code, which the package does not hold."""
        return self.path_type not in {"hardlink", "softlink", "directory"}


class _Paths(msgspec.Struct, frozen=True):
    paths: tuple[PathEntry, ...] = ()


class CondaRecord(msgspec.Struct, frozen=True):
    """One installed conda package."""

    name: str
    version: str
    build: str = ""
    subdir: str = ""
    url: str = ""
    sha256: str = ""
    files: tuple[str, ...] = ()
    paths_data: _Paths = _Paths()

    @property
    def entries(self) -> tuple[PathEntry, ...]:
        """Its files; conda before 4.4 wrote their names alone."""
        return self.paths_data.paths or tuple(PathEntry(path=path) for path in self.files)


@dataclass(frozen=True, slots=True)
class WheelRecord:
    """One distribution that pip or another installer of wheels put into a prefix.

    Parameters
    ----------
    name : str
        Its normalised name.
    version : str
        Its version.
    info : str
        Its `.dist-info` directory, below the prefix.
    files : mapping of str to str
        Its files below the prefix, each with its digest as RECORD writes it (`sha256=...`); empty where there is none.
    sha256 : str
        The digest of its RECORD.
    """

    name: str
    version: str
    info: str
    files: dict[str, str]
    sha256: str


def records(prefix: Path) -> tuple[CondaRecord, ...]:
    """Return the records of the conda packages of a prefix, by name.

    Raises
    ------
    ImageError
        If the directory is no conda environment, or a record cannot be read.
    """
    folder = prefix / "conda-meta"
    if not folder.is_dir():
        raise ImageError(
            f"{prefix} cannot be read as a conda environment",
            why=f"there is no directory {folder}",
            mend="name a conda prefix, as `conda env list` shows them",
        )
    decoder = msgspec.json.Decoder(CondaRecord)
    return tuple(_record(file, decoder) for file in sorted(folder.glob("*.json")))


def _record(file: Path, decoder: Any) -> CondaRecord:
    try:
        record: CondaRecord = decoder.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError) as exc:
        raise ImageError(
            f"{file.parent.parent} cannot be read as a conda environment",
            why=f"the record {file.name} cannot be read: {exc}",
            mend=f"install {file.name.rsplit('-', 2)[0]} again (conda install --force-reinstall), which writes it anew",
        ) from exc
    return record


def installed_wheels(prefix: Path) -> tuple[WheelRecord, ...]:
    """Return the distributions in a prefix that conda has not installed, as their RECORD describes them."""
    site = _site_packages(prefix)
    if site is None:
        return ()
    return tuple(
        _wheel(info, site, prefix) for info in sorted(site.glob("*.dist-info")) if _installer(info) not in {"conda", ""}
    )


def _site_packages(prefix: Path) -> Path | None:
    return next(iter(sorted(prefix.glob("lib/python3.*/site-packages"))), None)


def _installer(info: Path) -> str:
    try:
        return (info / "INSTALLER").read_text(encoding="utf-8").strip()
    except OSError:
        return "" if not (info / "RECORD").exists() else "unknown"


def _wheel(info: Path, site: Path, prefix: Path) -> WheelRecord:
    name, _, version = info.name.removesuffix(".dist-info").partition("-")
    record = info / "RECORD"
    content = record.read_bytes() if record.exists() else b""
    below = PurePosixPath(site.relative_to(prefix))
    files = dict(_recorded(content.decode("utf-8", "surrogateescape"), below))
    normal = re.sub(r"[-_.]+", "-", name).lower()
    return WheelRecord(normal, version, str(below / info.name), files, hashlib.sha256(content).hexdigest())


def _recorded(text: str, below: PurePosixPath) -> Iterator[tuple[str, str]]:
    for row in csv.reader(text.splitlines()):
        if len(row) >= 2 and row[0]:
            path = _joined(below, row[0])
            if path:
                yield path, row[1]


def _joined(below: PurePosixPath, path: str) -> str:
    """Return a path of RECORD below the prefix; empty where it leads out of it."""
    parts: list[str] = list(below.parts)
    for part in PurePosixPath(path).parts:
        if part == "/" or (part == ".." and not parts):
            return ""
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
