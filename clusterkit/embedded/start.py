"""Start daemons and see them become ready, or say at once which one ended and why."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clusterkit import processes
from clusterkit.embedded import failure, probe
from clusterkit.embedded.daemons import NODEMANAGER
from clusterkit.embedded.layout import make_private, write_private
from clusterkit.embedded.readiness import checks
from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from clusterkit.embedded.daemons import Role
    from clusterkit.embedded.plan import Launch, Plan
    from clusterkit.processes import ProcessIdentity

Said = Callable[[str, str], None]
"""Is told what is being done: a stage, such as `starting`, and how far it is."""

_POLL_S = 0.04
_TIMEOUT_S = 120.0
PRIVATE_UMASK = 0o077
"""Nobody but the owner may read what a daemon writes."""


@dataclass(frozen=True, slots=True, eq=False)
class Starting:
    """A daemon on its way up.

    Parameters
    ----------
    launch : Launch
        What it is.
    process : ProcessIdentity
        The process.
    logs : mapping of Path to int
        How long its logs were before it was started, in bytes.
    """

    launch: Launch
    process: ProcessIdentity
    logs: Mapping[Path, int] = field(default_factory=dict)


def spawn(plan: Plan, launch: Launch, options: tuple[str, ...] = ()) -> Starting:
    """Write a daemon's configuration and start it.

    Parameters
    ----------
    plan : Plan
        The cluster.
    launch : Launch
        The daemon.
    options : tuple of str
        More options of the JVM.
    """
    lay_out(plan, launch)
    logs = failure.log_sizes(plan.layout, launch.name)
    process = processes.spawn_daemon(
        plan.argv(launch, options),
        log=plan.layout.output_of(launch.name),
        env=plan.environment(launch),
        cwd=plan.layout.run_of(launch.name),
        umask=-1 if launch.role is NODEMANAGER else PRIVATE_UMASK,  # containers inherit the NodeManager's
    )
    return Starting(launch, process, logs)


def lay_out(plan: Plan, launch: Launch) -> None:
    """Make the directories a daemon needs, and write its configuration."""
    layout = plan.layout
    for directory in (layout.temporary_of(launch.name), layout.data, layout.logs):
        make_private(directory)
    for log in (layout.log_of(launch.name), layout.output_of(launch.name)):
        log.touch(mode=0o600)
    write_private(layout.jar_of(launch.name), plan.jar(launch))
    for name in launch.plain_files:
        write_private(layout.run_of(launch.name) / name, launch.files[name].encode())


def wait_ready(plan: Plan, started: Iterable[Starting], said: Said) -> None:
    """Wait until every daemon is ready.

    Parameters
    ----------
    plan : Plan
        The cluster.
    started : iterable of Starting
        The daemons to wait for.
    said : callable
        Is told which daemons are ready.

    Raises
    ------
    ClusterError
        As soon as one of them ended, or when one is not ready in time.
    """
    everyone = tuple(started)
    stop = threading.Event()
    watches = tuple(_Watch(plan, daemon, stop) for daemon in everyone)
    deadline = time.monotonic() + _TIMEOUT_S
    told = 0
    try:
        while waiting := tuple(watch for watch in watches if watch.lacks is not None):
            check_alive(plan, everyone)
            if time.monotonic() > deadline:
                daemon = waiting[0].daemon
                raise _not_ready(plan, daemon.launch.name, str(waiting[0].lacks), daemon.logs)
            if len(waiting) != told:
                told = len(waiting)
                said("starting", _progress(watches))
            time.sleep(_POLL_S)
        check_alive(plan, everyone)
    finally:
        stop.set()


def wait_for(plan: Plan, started: Iterable[Starting], role: Role, purpose: str) -> None:
    """Wait until those of these daemons that have a role listen on one of their ports.

    Raises
    ------
    ClusterError
        As soon as one of the daemons ended, or when one does not listen in time.
    """
    everyone = tuple(started)
    ask = probe.answers_rpc if purpose in role.rpc else probe.accepts
    deadline = time.monotonic() + _TIMEOUT_S
    for daemon in everyone:
        if daemon.launch.role is role:
            while not ask(plan.host, daemon.launch.ports[purpose]):
                check_alive(plan, everyone)
                if time.monotonic() > deadline:
                    raise _not_ready(plan, daemon.launch.name, f"its {purpose} port", daemon.logs)
                time.sleep(_POLL_S)


def check_alive(plan: Plan, started: Iterable[Starting]) -> None:
    """Raise the error that tells why a daemon ended, if one did."""
    for daemon in started:
        if not daemon.process.alive:
            raise failure.died(plan.layout, daemon.launch.name, since=daemon.logs)


class _Watch:
    """Asks one daemon, in a thread of its own, until it is ready: a slow answer holds up nobody else."""

    def __init__(self, plan: Plan, daemon: Starting, stop: threading.Event) -> None:
        self.daemon = daemon
        self.lacks: str | None = "an answer"
        self._checks = checks(plan, daemon.launch, daemon.process)
        self._stop = stop
        threading.Thread(target=self._ask, name=f"watch {daemon.launch.name}", daemon=True).start()

    def _ask(self) -> None:
        for check in self._checks:
            self.lacks = check.waits_for
            while not check.passed():
                if self._stop.wait(_POLL_S):
                    return
        self.lacks = None


def _progress(watches: tuple[_Watch, ...]) -> str:
    ready = [watch.daemon.launch.name for watch in watches if watch.lacks is None]
    waiting = [watch.daemon.launch.name for watch in watches if watch.lacks is not None]
    return f"{', '.join(ready)} ready; waiting for {', '.join(waiting)}" if ready else ", ".join(waiting)


def _not_ready(plan: Plan, name: str, lacks: str, logs: Mapping[Path, int]) -> ClusterError:
    lines = failure.meaningful_lines(plan.layout, name, since=logs)
    return ClusterError(
        f"the {name} of cluster {plan.layout.name!r} was not ready after {_TIMEOUT_S:g} s",
        why="\n".join([f"it waits for {lacks}", *lines]),
        mend=f"read `clusterkit cluster logs {name} --name {plan.layout.name}`, then run `up` again",
        cluster=plan.layout.name,
        path=plan.layout.log_of(name),
    )
