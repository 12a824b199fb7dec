"""Say why a daemon ended: the lines of its log that mean something, and one next step."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from clusterkit.embedded.layout import Layout

_TAIL_BYTES = 64 * 1024
_LINES = 4
_STAMPED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (TRACE|DEBUG|INFO|WARN|ERROR|FATAL) (\S+): (.*)")
_NOISE = ("SHUTDOWN_MSG", "/****", "RECEIVED SIGNAL", "Exiting with status", "ExpiredTokenRemover")
_JVM = re.compile(r"(Error|Exception|Exception in thread .*|Could not .*|OpenJDK .*(warning|error).*|# .*)")
_CAUSE = re.compile(r"(Caused by: )?[\w.$]+(Exception|Error)\b.*")

_STEPS = (
    (r"BindException|Address already in use", "run the same command again: it picks another port"),
    (r"No space left on device", "free space on the disk that holds {root}"),
    (
        r"insufficient memory|Cannot allocate memory|Could not reserve enough|OutOfMemoryError|unable to create native",
        "free memory, or take down another cluster with `clusterkit cluster down --name NAME`",
    ),
    (r"Permission denied|AccessDenied", 'give this user back what lies in {root}: chown -R "$(id -un)" {root}'),
    (
        r"Incompatible (clusterIDs|namespaceID)|InconsistentFSState",
        "run `clusterkit cluster down --name {name} --purge` if the data may go, then `up`",
    ),
    (
        r"UnsupportedClassVersionError|Unrecognized (VM )?option|Could not create the Java Virtual Machine",
        "set java_home to a Java 17 or 21",
    ),
)


def died(layout: Layout, daemon: str, *, since: Mapping[Path, int]) -> ClusterError:
    """Return the error that says that a daemon ended while it was started.

    Parameters
    ----------
    layout : Layout
        Where its logs lie.
    daemon : str
        Its name.
    since : mapping of Path to int
        How long each of its logs was, in bytes, before it was started.
    """
    lines = meaningful_lines(layout, daemon, since=since)
    return ClusterError(
        f"the {daemon} of cluster {layout.name!r} ended while it was starting",
        why="\n".join(lines) or "it wrote nothing to its log; it was probably killed",
        mend=_next_step(layout, daemon, "\n".join(lines)),
        cluster=layout.name,
        path=layout.log_of(daemon),
    )


def log_sizes(layout: Layout, daemon: str) -> dict[Path, int]:
    """Return how long a daemon's logs are now, in bytes."""
    return {path: path.stat().st_size if path.exists() else 0 for path in _logs(layout, daemon)}


def meaningful_lines(layout: Layout, daemon: str, *, since: Mapping[Path, int]) -> list[str]:
    """Return the last lines of a daemon's logs that tell something about a failure, the oldest first."""
    found: list[str] = []
    for path in _logs(layout, daemon):
        found += _telling(_tail(path, since.get(path, 0)))
    return list(dict.fromkeys(found))[-_LINES:]


def _logs(layout: Layout, daemon: str) -> tuple[Path, Path]:
    return layout.log_of(daemon), layout.output_of(daemon)


def _tail(path: Path, start: int) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - _TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _telling(lines: list[str]) -> list[str]:
    """Keep errors and causes; fall back on warnings, then on whatever stands last."""
    kept: dict[str, list[str]] = {"error": [], "warning": [], "other": []}
    for line in lines:
        stamped = _STAMPED.fullmatch(line)
        if any(noise in line for noise in _NOISE) or not line.strip() or line.startswith(("\t", " ")):
            continue
        text = f"{stamped[2].rpartition('.')[2]}: {stamped[3]}" if stamped else line
        if (stamped and stamped[1] in {"ERROR", "FATAL"}) or (not stamped and (_CAUSE.match(line) or _JVM.match(line))):
            kept["error"].append(text)
        elif stamped and stamped[1] == "WARN":
            kept["warning"].append(text)
        else:
            kept["other"].append(text)
    return kept["error"] or kept["warning"] or kept["other"][-1:]


def _next_step(layout: Layout, daemon: str, text: str) -> str:
    for pattern, step in _STEPS:
        if re.search(pattern, text):
            return step.format(root=layout.root, name=layout.name)
    return f"read `clusterkit cluster logs {daemon} --name {layout.name} -n 200`, then run `up` again"
