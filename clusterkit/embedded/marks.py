"""Find the processes of an embedded cluster, by what stands in their arguments and environment.

Each daemon carries its cluster, its name and a digest of its configuration as system properties, so that a daemon
is found even when the command that started it was killed before it could write anything down.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.processes import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator

_BORN_TRIES, _BORN_POLL_S = 10, 0.01
_KERNEL_PARENT = 2

_CLUSTER = "-Dclusterkit.cluster="
_DAEMON = "-Dclusterkit.daemon="
_CONFIGURATION = "-Dclusterkit.configuration="


@dataclass(frozen=True, slots=True)
class Marked:
    """A daemon that runs: its name, the process, and the digest of the configuration it was started with."""

    daemon: str
    process: ProcessIdentity
    configuration: str


def marks(root: Path, daemon: str, configuration: str) -> tuple[str, ...]:
    """Return the arguments that mark a daemon as one of the cluster that lies in `root`."""
    return (f"{_CLUSTER}{root}", f"{_DAEMON}{daemon}", f"{_CONFIGURATION}{configuration}")


def daemons(root: Path) -> tuple[Marked, ...]:
    """Return the daemons of a cluster that run, of this user only."""
    return tuple(mark for mark in carriers(root) if _leads_its_session(mark.process.pid) and mark.process.alive)


def carriers(root: Path) -> tuple[Marked, ...]:
    """Return every process that carries the mark of a cluster: daemons, and what does one task for them."""
    wanted = f"{_CLUSTER}{root}"
    found = []
    for pid in _own_pids():
        arguments = _arguments(pid)
        if wanted in arguments:
            with contextlib.suppress(ProcessLookupError):
                process = ProcessIdentity.from_pid(pid)
                found.append(Marked(_value(arguments, _DAEMON), process, _value(arguments, _CONFIGURATION)))
    return tuple(found)


def containers(root: Path) -> tuple[ProcessIdentity, ...]:
    """Return the processes that a cluster's containers started, however far they wandered.

    YARN tells each container its working directories in `LOCAL_DIRS`, and every descendant inherits that.
    """
    found = []
    for pid in _own_pids():
        environment = _strings(pid, "environ")
        local = _value(environment, "LOCAL_DIRS=")
        if local and _value(environment, "CONTAINER_ID=") and Path(local.split(",", 1)[0]).is_relative_to(root):
            with contextlib.suppress(ProcessLookupError):
                found.append(ProcessIdentity.from_pid(pid))
    return tuple(process for process in found if process.alive)


def _own_pids() -> Iterator[int]:
    own = os.getuid()
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == own:
                    yield int(entry.name)


def _arguments(pid: int) -> list[str]:
    """Return a process's arguments; one that was started this very moment may not show them yet."""
    for _ in range(_BORN_TRIES):
        arguments = _strings(pid, "cmdline")
        if any(arguments) or not _may_be_born(pid):
            break
        time.sleep(_BORN_POLL_S)
    return arguments


def _may_be_born(pid: int) -> bool:
    """Tell a process that has no arguments yet from a zombie and a thread of the kernel, which have none at all."""
    try:
        state, parent, *_ = Path("/proc", str(pid), "stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return False
    return state not in {"Z", "X"} and parent not in {"0", str(_KERNEL_PARENT)}


def _strings(pid: int, file: str) -> list[str]:
    try:
        return os.fsdecode(Path("/proc", str(pid), file).read_bytes()).split("\0")
    except OSError:
        return []


def _value(strings: list[str], prefix: str) -> str:
    return next((text.removeprefix(prefix) for text in strings if text.startswith(prefix)), "")


def _leads_its_session(pid: int) -> bool:
    """Tell a daemon from a child of it that has not yet replaced its arguments."""
    try:
        return os.getsid(pid) == pid
    except OSError:
        return False
