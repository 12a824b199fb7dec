"""Build one class-data archive; run as `python -m clusterkit.embedded.class_data_builder DIRECTORY`."""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import psutil

from clusterkit import units
from clusterkit.embedded.class_data import CLASSES, Archive, archives, surroundings
from clusterkit.processes import Leashed

if TYPE_CHECKING:
    from collections.abc import Sequence

NEEDED_BYTES = 700 * units.MIB
"""Free room on the disk without which no build is begun: the archive, and what is written beside it."""

KEPT = 3
"""How many archives of one kind stay: those of other Javas and other Sparks of this user."""

_UNREADABLE = ": Unsupported location"  # what Java 21 says of each class whose location has escaped characters
_DUMP_TIMEOUT_S = 1800.0


def main(argv: Sequence[str]) -> int:
    """Build the archive that a directory is for, and note there why it failed if it did."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _yield_to_others()
    archive = Archive.from_json(Path(argv[1]))
    failure = archive.directory / "failure.json"
    with filelock.FileLock(archive.directory.parent / ".lock", poll_interval=0.5):
        why = None if archive.ready else build(archive)
        if why is None:
            failure.unlink(missing_ok=True)
            prune(archive)
        else:
            failure.write_text(json.dumps({"why": why, "at": time.time()}), "utf-8")
    return 0 if why is None else 1


def build(archive: Archive) -> str | None:
    """Dump the classes aside, have a JVM map them, and put the archive in its place; return why it failed, if so."""
    free = shutil.disk_usage(archive.directory).free
    if free < NEEDED_BYTES:
        return f"the disk has {units.format_bytes(free)} left, a build needs {units.format_bytes(NEEDED_BYTES)}"
    for left in archive.directory.glob("building-*"):  # of a build that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix="building-", dir=archive.directory) as scratch:
        staged = Path(scratch, archive.path.name)
        recorded = recorded_classes(archive)
        why = _dump(archive, recorded, staged)
        if why is not None:  # lines about lambdas are the ones that another Java may not understand
            why = _dump(archive, [line for line in recorded if not line.startswith("@")], staged)
        why = why or _left_out(archive, len(recorded)) or _refused(archive, staged)
        if why is None:
            staged.replace(archive.path)
        return why


def recorded_classes(archive: Archive) -> list[str]:
    """Return the lines of the class list: those recorded for this kind, and the Java's own."""
    lines = lzma.decompress((CLASSES / f"{archive.kind}.xz").read_bytes()).decode().splitlines()
    own = archive.java.resolve().parents[1] / "lib" / "classlist"
    with contextlib.suppress(OSError):
        lines += [line for line in own.read_text("utf-8").splitlines() if not line.startswith("#")]
    return list(dict.fromkeys(lines))


def prune(archive: Archive) -> None:
    """Remove the oldest archives of this kind; a JVM that has one mapped keeps it until it ends."""
    others = [other for other in archives(archive.directory.parents[1]) if other.kind == archive.kind]
    idle = [other for other in others if other.builder is None and other.directory != archive.directory]
    for other in sorted(idle, key=lambda other: other.directory.stat().st_mtime, reverse=True)[KEPT - 1 :]:
        shutil.rmtree(other.directory, ignore_errors=True)


def _dump(archive: Archive, lines: Sequence[str], staged: Path) -> str | None:
    listed = staged.with_name("classes.lst")
    listed.write_text("\n".join(lines) + "\n", "utf-8")
    log = archive.directory / "dump.log"
    argv = [
        *(str(archive.java), "-Xshare:dump", *archive.options, f"-XX:SharedClassListFile={listed}"),
        *(f"-XX:SharedArchiveFile={staged}", "-cp", archive.class_path),
    ]
    with (
        log.open("wb") as output,
        Leashed(
            argv,
            env=surroundings(),
            cwd=staged.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as dump,
    ):
        code = dump.wait(_DUMP_TIMEOUT_S)
    told = log.read_text("utf-8", errors="replace").strip().splitlines()
    if code != 0 or not staged.is_file():
        return f"{archive.java} ended with {code}: {' / '.join(told[-3:])}"
    return None


def _left_out(archive: Archive, listed: int) -> str | None:
    lines = (archive.directory / "dump.log").read_text("utf-8", errors="replace").splitlines()
    if sum(line.endswith(_UNREADABLE) for line in lines) <= listed // 2:
        return None
    return (
        f"this Java leaves out all classes below {archive.class_path.removesuffix('/*')}: "
        "the path has a space, or another character that it does not read back"
    )


def _refused(archive: Archive, staged: Path) -> str | None:
    refusal = archive.refusal(staged)
    return None if refusal is None else f"a JVM refused the new archive: {refusal}"


def _yield_to_others() -> None:
    os.nice(19)
    with contextlib.suppress(OSError, psutil.Error):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
