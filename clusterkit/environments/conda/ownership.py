"""Which package a file belongs to: the one that wrote it last."""

from __future__ import annotations

import base64
import hashlib
import posixpath
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from clusterkit.environments.conda.inventory import Inventory
    from clusterkit.environments.conda.records import CondaRecord, PathEntry, WheelRecord

_INFO = re.compile(r".*/site-packages/([^/]+)\.dist-info/METADATA")
_BYTE_CODE = re.compile(r"(.*?)__pycache__/([^/]+?)\.[^/.]+(?:\.opt-[12])?\.pyc")


@dataclass(frozen=True, slots=True)
class Owned:
    """Who owns the files of a prefix.

    Parameters
    ----------
    conda : mapping of str to (str, PathEntry)
        The files that are a conda package's: its name and what the record says of the file.
    wheels : mapping of str to str
        The files that are a wheel's: its name.
    replaced : frozenset of str
        The conda packages in whose place pip has put another version.
    notes : tuple of str
        Which packages wrote over each other.
    """

    conda: dict[str, tuple[str, PathEntry]] = field(default_factory=dict)
    wheels: dict[str, str] = field(default_factory=dict)
    replaced: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def owner(self, path: str) -> str:
        """Return the package of a file; that of its source for byte code; empty where there is none."""
        if path in self.wheels:
            return self.wheels[path]
        if path in self.conda:
            return self.conda[path][0]
        source = source_of(path)
        return self.owner(source) if source else ""


def source_of(path: str) -> str:
    """Return the module that byte code in a `__pycache__` is made from; empty for any other path."""
    found = _BYTE_CODE.fullmatch(path)
    return f"{found[1]}{found[2]}.py" if found else ""


def owned(prefix: Path, inventory: Inventory, records: Sequence[CondaRecord], wheels: Sequence[WheelRecord]) -> Owned:
    """Return who owns the files of a prefix.

    Raises
    ------
    ImageError
        If a file is missing that a conda package has installed and pip has not replaced.
    """
    replaced = {record.name: wheel for record in records if (wheel := _replacement(record, wheels)) is not None}
    conda, clashes = _of_conda(prefix, records)
    missing = [
        (name, path)
        for path, (name, _) in conda.items()
        if path not in inventory and name not in replaced and not _is_made_anew(path) and not (prefix / path).exists()
    ]
    if missing:
        raise _incomplete(missing, prefix)
    written, overlaps = _of_wheels(prefix, inventory, wheels, conda)
    notes = (*_told(replaced), *_counted(clashes), *_counted(overlaps, set(replaced)))
    return Owned(conda, written, frozenset(replaced), tuple(notes))


def _replacement(record: CondaRecord, wheels: Iterable[WheelRecord]) -> WheelRecord | None:
    """Return the wheel that pip put in a conda package's place: pip removes the files it finds of the same name."""
    info = next((found[1] for entry in record.entries if (found := _INFO.fullmatch(entry.path))), "")
    name = re.sub(r"[-_.]+", "-", info.partition("-")[0]).lower()
    return next((wheel for wheel in wheels if name and wheel.name == name), None)


def _of_conda(
    prefix: Path, records: Iterable[CondaRecord]
) -> tuple[dict[str, tuple[str, PathEntry]], Counter[tuple[str, str]]]:
    found: dict[str, tuple[str, PathEntry]] = {}
    clashes: Counter[tuple[str, str]] = Counter()
    for record in records:
        for entry in record.entries:
            if entry.path_type == "directory":
                continue
            before = found.get(entry.path)
            if before is not None and before[1].sha256 != entry.sha256:
                keep = _is_original(prefix, before[1])
                clashes[(before[0], record.name) if keep else (record.name, before[0])] += 1
                if keep:
                    continue
            found[entry.path] = record.name, entry
    return found, clashes


def _of_wheels(
    prefix: Path,
    inventory: Inventory,
    wheels: Iterable[WheelRecord],
    conda: dict[str, tuple[str, PathEntry]],
) -> tuple[dict[str, str], Counter[tuple[str, str]]]:
    written: dict[str, str] = {}
    overlaps: Counter[tuple[str, str]] = Counter()
    for wheel in wheels:
        for path, digest in wheel.files.items():
            if path not in inventory:
                continue
            before = written.get(path, conda[path][0] if path in conda else "")
            if before and path in conda and path not in written and _is_original(prefix, conda[path][1]):
                if not _is_recorded(prefix, path, digest):
                    overlaps[before, wheel.name] += 1
                continue
            if before and before != wheel.name:
                if path in written and not _is_recorded(prefix, path, digest):
                    continue
                overlaps[wheel.name, before] += 1
            written[path] = wheel.name
    return written, overlaps


def _is_original(prefix: Path, entry: PathEntry) -> bool:
    """Whether a file that holds no prefix is still the one that a conda package brought."""
    if entry.prefix_placeholder or entry.is_made:
        return False
    try:
        return hashlib.sha256((prefix / entry.path).read_bytes()).hexdigest() == entry.sha256
    except OSError:
        return False


def _is_recorded(prefix: Path, path: str, digest: str) -> bool:
    kind, _, value = digest.partition("=")
    if kind != "sha256":
        return False
    found = hashlib.sha256((prefix / path).read_bytes()).digest()
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode() == value


def _is_made_anew(path: str) -> bool:
    return path.endswith(".pyc")


def _incomplete(missing: Sequence[tuple[str, str]], prefix: Path) -> ImageError:
    names = sorted({name for name, _ in missing})
    shown = "; ".join(f"{path} of {name}" for name, path in sorted(missing)[:3])
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return ImageError(
        f"the environment {posixpath.basename(str(prefix))} is not complete",
        why=f"files that conda installed are not there any more: {shown}{more}",
        mend=f"install them again: conda install -p {prefix} --force-reinstall {' '.join(names[:8])}",
    )


def _told(replaced: dict[str, WheelRecord]) -> Iterator[str]:
    for name, wheel in replaced.items():
        yield f"pip has put {wheel.name} {wheel.version} in the place of conda's {name}; that is what is packed"


def _counted(overlaps: Counter[tuple[str, str]], told: Iterable[str] = ()) -> Iterator[str]:
    for (later, earlier), count in sorted(overlaps.items()):
        if earlier not in told:
            files = "1 file" if count == 1 else f"{count} files"
            yield f"{later} has written over {files} of {earlier}; what was written last is packed"
