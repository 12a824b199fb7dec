"""What is installed in a directory of packages: each distribution, its hash, and the files it owns."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from dataclasses import dataclass
from email.parser import HeaderParser
from typing import TYPE_CHECKING

from clusterkit.environments.code import normalised
from clusterkit.environments.lock import LockedPackage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_INSTALLERS = re.compile(r"/(INSTALLER|REQUESTED|RECORD|direct_url\.json|uv_cache\.json)$|__pycache__/")
EDITABLE = "editable"
"""`LockedPackage.build` of the user's own code, which has no hash: it is packed as code."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """One installed distribution.

    Parameters
    ----------
    name, version : str
        Its normalised name, and its version.
    tags : str
        The tags of its wheel; empty where they are not known.
    sha256 : str
        The digest of its archive where that is known, else of what its RECORD says of the files from the wheel, which
        is the same wherever and by whatever the wheel was installed.
    url : str
        Where the archive came from, where that is known; the folder of an editable install.
    files : tuple of str
        What it owns: paths relative to the directory of packages.
    """

    name: str
    version: str
    tags: str
    sha256: str
    url: str
    files: tuple[str, ...]

    def locked(self, platform: str) -> LockedPackage:
        """Return it as a package of a lock for a platform."""
        return LockedPackage(
            name=self.name,
            version=self.version,
            kind="wheel",
            build=self.tags,
            sha256=self.sha256,
            subdir=subdir(self.tags, platform),
            url=self.url,
        )


def subdir(tags: str, platform: str) -> str:
    """Return `noarch` for a wheel of any platform, else the platform."""
    return "noarch" if tags.endswith("-any") or tags == EDITABLE else platform


def distributions(packages: Path) -> list[Distribution]:
    """Return the distributions of a directory of packages, sorted by name."""
    with os.scandir(packages) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith((".dist-info", ".egg-info")))
    found = (_distribution(packages / name) for name in names)
    return sorted((each for each in found if each), key=lambda each: each.name)


def _distribution(path: Path) -> Distribution | None:
    if path.suffix == ".egg-info":
        return _egg(path)
    metadata = path / "METADATA"
    if not metadata.is_file():
        return None  # what an interrupted uninstall left
    name, version = _headers(metadata)
    rows = list(_rows(path / "RECORD"))
    url, sha256, is_editable = _origin(path / "direct_url.json")
    return Distribution(
        name=name,
        version=version,
        tags=EDITABLE if is_editable else _tags(path / "WHEEL"),
        sha256="" if is_editable else sha256 or _digest(rows, path),
        url=url,
        files=tuple(row[0] for row in rows),
    )


def _egg(path: Path) -> Distribution | None:
    metadata = path / "PKG-INFO" if path.is_dir() else path
    if not metadata.is_file():
        return None
    name, version = _headers(metadata)
    listed = path / "installed-files.txt"
    top = path / "top_level.txt"
    if listed.is_file():
        owned = [os.path.normpath(f"{path.name}/{line}") for line in listed.read_text("utf-8").splitlines() if line]
    else:
        owned = [each for each in top.read_text("utf-8").split() if each] if top.is_file() else [name]
    digest = hashlib.sha256(metadata.read_bytes()).hexdigest()
    return Distribution(name, version, "", digest, "", (path.name, *owned))


def _headers(metadata: Path) -> tuple[str, str]:
    """Return the normalised name and the version of a METADATA file."""
    text = metadata.read_text("utf-8", "replace")
    headers = HeaderParser().parsestr(text.partition("\n\n")[0] + "\n\n")
    return normalised(headers["Name"] or "unknown"), headers["Version"] or "0"


def _rows(record: Path) -> Iterator[tuple[str, str]]:
    """Yield (path, hash) of a RECORD; nothing where there is none."""
    if not record.is_file():
        return
    text = record.read_text("utf-8", "surrogateescape")
    for row in csv.reader(text.splitlines()):
        if row:
            yield row[0], row[1] if len(row) > 1 else ""


def _digest(rows: list[tuple[str, str]], path: Path) -> str:
    """Return the digest of what the wheel brought: not of what its installer added, nor of scripts that hold a path."""
    lines = sorted(f"{name},{digest}" for name, digest in rows if digest and not _is_the_installers(name))
    if not lines:
        return hashlib.sha256((path / "METADATA").read_bytes()).hexdigest()
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _is_the_installers(name: str) -> bool:
    return name.startswith(("../", "/")) or _INSTALLERS.search(name) is not None


def _origin(path: Path) -> tuple[str, str, bool]:
    """Return (URL, sha256 of the archive, whether it is editable) of a direct_url.json (PEP 610)."""
    if not path.is_file():
        return "", "", False
    told = json.loads(path.read_text("utf-8"))
    archive = told.get("archive_info", {})
    legacy = archive.get("hash", "").removeprefix("sha256=") if archive.get("hash", "").startswith("sha256=") else ""
    digest = archive.get("hashes", {}).get("sha256", legacy)
    is_editable = bool(told.get("dir_info", {}).get("editable"))
    return (told["url"] if digest or is_editable else ""), digest, is_editable


def _tags(wheel: Path) -> str:
    """Return the tags of a WHEEL file in one line: `py2.py3-none-any`."""
    if not wheel.is_file():
        return ""
    tags = [
        line.partition(":")[2].strip().split("-")
        for line in wheel.read_text("utf-8").splitlines()
        if line[:4] == "Tag:"
    ]
    parts = [sorted({tag[index] for tag in tags if len(tag) == 3}) for index in range(3)]
    return "-".join(".".join(part) for part in parts) if tags else ""
