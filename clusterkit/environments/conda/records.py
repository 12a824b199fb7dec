"""What a prefix says of itself: conda's records in `conda-meta`, and the RECORD of each wheel."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from clusterkit.environments import code
from clusterkit.environments.wheels import installed
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from clusterkit.environments.lock import LockedPackage


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

    @property
    def is_known(self) -> bool:
        """Whether the record says what the file holds."""
        return bool(self.sha256) and not self.is_made

    def is_whole(self, size_bytes: int) -> bool:
        """Whether a file of this size is, as far as its size can tell, what the package brought: free of any prefix."""
        return self.is_known and self.size_in_bytes in {size_bytes, -1}


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
    package : LockedPackage
        Its name, version and digest.
    info : str
        Its `.dist-info` directory, below the prefix.
    files : mapping of str to str
        Its files below the prefix, each with its digest as RECORD writes it (`sha256=...`); empty where there is none.
    """

    package: LockedPackage
    info: str
    files: dict[str, str]

    @property
    def name(self) -> str:
        """Its normalised name."""
        return self.package.name

    @property
    def version(self) -> str:
        """Its version."""
        return self.package.version


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


def _record(file: Path, decoder: msgspec.json.Decoder[CondaRecord]) -> CondaRecord:
    try:
        return _decoded(file.read_bytes(), decoder)
    except (OSError, msgspec.DecodeError) as exc:
        raise ImageError(
            f"{file.parent.parent} cannot be read as a conda environment",
            why=f"the record {file.name} cannot be read: {exc}",
            mend=f"install {file.name.rsplit('-', 2)[0]} again (conda install --force-reinstall), which writes it anew",
        ) from exc


def _decoded(data: bytes, decoder: msgspec.json.Decoder[CondaRecord]) -> CondaRecord:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        return msgspec.convert(_without_nulls(msgspec.json.decode(data)), CondaRecord)


def _without_nulls(value: Any) -> Any:
    """Return a record without the fields of which its writer knew nothing."""
    if isinstance(value, dict):
        return {name: _without_nulls(entry) for name, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value


def installed_wheels(prefix: Path, conda: Sequence[CondaRecord], platform: str) -> tuple[WheelRecord, ...]:
    """Return the distributions in a prefix that conda has not installed, as their RECORD describes them.

    Parameters
    ----------
    prefix : Path
        The prefix.
    conda : sequence of CondaRecord
        What conda has installed.
    platform : str
        `linux-64` or `linux-aarch64`.
    """
    site = site_packages(prefix)
    if site is None:
        return ()
    brought = {e.path: e for record in conda for e in record.entries if e.path.endswith(("/METADATA", "/INSTALLER"))}
    infos = [info for info in sorted(site.glob("*.dist-info")) if not _is_condas(info, prefix, brought)]
    known = {(each.name, each.version): each for each in installed.distributions(site)} if infos else {}
    below = PurePosixPath(site.relative_to(prefix))
    found = []
    for info in infos:
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        each = known.get((code.normalised(name), version))
        if each is not None:
            found.append(WheelRecord(each.locked(platform), str(below / info.name), dict(_recorded(info, below))))
    return tuple(found)


def site_packages(prefix: Path) -> Path | None:
    """Return where the Python packages of a prefix lie; None where there are none."""
    return next(iter(sorted(prefix.glob("lib/python3.*/site-packages"))), None)


def _is_condas(info: Path, prefix: Path, brought: Mapping[str, PathEntry]) -> bool:
    """Whether a `.dist-info` came with a conda package: pip leaves its own INSTALLER in the one it puts there."""
    if not (info / "METADATA").is_file():
        return True
    below = str(info.relative_to(prefix))
    entry, installer = brought.get(f"{below}/INSTALLER"), info / "INSTALLER"
    if entry is None:
        return f"{below}/METADATA" in brought
    return installer.is_file() and hashlib.sha256(installer.read_bytes()).hexdigest() == entry.sha256


def _recorded(info: Path, below: PurePosixPath) -> Iterator[tuple[str, str]]:
    record = info / "RECORD"
    text = record.read_text("utf-8", "surrogateescape") if record.is_file() else ""
    for row in csv.reader(text.splitlines()):
        if len(row) >= 2 and row[0]:
            path = joined(below, row[0])
            if path:
                yield path, row[1]


def joined(below: PurePosixPath, path: str) -> str:
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
