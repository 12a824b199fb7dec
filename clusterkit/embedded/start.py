"""Start daemons and see them become ready, or say at once which one ended and why."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterkit import processes
from clusterkit.embedded import failure
from clusterkit.embedded.daemons import NODEMANAGER
from clusterkit.embedded.layout import make_private, write_private
from clusterkit.embedded.readiness import waits_for
from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from clusterkit.embedded.plan import Launch, Plan
    from clusterkit.processes import ProcessIdentity

Said = Callable[[str, str], None]
"""Is told what is being done: a stage, such as `starting`, and how far it is."""

_POLL_S = 0.05
_TIMEOUT_S = 120.0
_PRIVATE_UMASK = 0o077


@dataclass(frozen=True, slots=True, eq=False)
class Starting:
    """A daemon on its way up: the process, and how long its logs were before."""

    launch: Launch
    process: ProcessIdentity
    logs: dict[Path, int]


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
    layout = plan.layout
    for directory in (layout.temporary_of(launch.name), layout.data_of(launch.name).parent, layout.logs):
        make_private(directory)
    write_private(layout.jar_of(launch.name), plan.jar(launch))
    for name in launch.arguments:
        if name.endswith(".cfg"):
            write_private(layout.run / launch.name / "zoo.cfg", launch.files["zoo.cfg"].encode())
    logs = failure.log_sizes(layout, launch.name)
    process = processes.spawn_daemon(
        plan.argv(launch, options),
        log=layout.output_of(launch.name),
        env=plan.environment(launch),
        cwd=layout.run / launch.name,
        umask=-1 if launch.role is NODEMANAGER else _PRIVATE_UMASK,  # containers inherit the NodeManager's
    )
    return Starting(launch, process, logs)


def wait_ready(plan: Plan, started: Iterable[Starting], said: Said) -> None:
    """Wait until every daemon is ready.

    Parameters
    ----------
    plan : Plan
        The cluster.
    started : iterable of Starting
        The daemons to wait for, those that others need first.
    said : callable
        Is told which daemon became ready.

    Raises
    ------
    ClusterError
        As soon as one of them ended, or when one is not ready in time.
    """
    waiting = dict.fromkeys(started, "an answer")
    everyone = tuple(waiting)
    deadline = time.monotonic() + _TIMEOUT_S
    while waiting:
        for daemon in tuple(waiting):
            check_alive(plan, everyone)
            lacks = waits_for(plan, daemon.launch, daemon.process)
            if lacks is None:
                del waiting[daemon]
                said("starting", _progress(everyone, waiting))
            else:
                waiting[daemon] = lacks
        if waiting and time.monotonic() > deadline:
            raise _not_ready(plan, waiting)
        if waiting:
            time.sleep(_POLL_S)


def _progress(everyone: tuple[Starting, ...], waiting: dict[Starting, str]) -> str:
    ready = ", ".join(daemon.launch.name for daemon in everyone if daemon not in waiting)
    return f"{ready} ready, {len(waiting)} to come" if waiting else f"{ready} ready"


def check_alive(plan: Plan, started: Iterable[Starting]) -> None:
    """Raise the error that tells why a daemon ended, if one did."""
    for daemon in started:
        if not daemon.process.alive:
            raise failure.died(plan.layout, daemon.launch.name, since=daemon.logs)


def _not_ready(plan: Plan, waiting: dict[Starting, str]) -> ClusterError:
    daemon, lacks = next(iter(waiting.items()))
    name = daemon.launch.name
    lines = failure.meaningful_lines(plan.layout, name, since=daemon.logs)
    return ClusterError(
        f"the {name} of cluster {plan.layout.name!r} was not ready after {_TIMEOUT_S:g} s",
        why="\n".join([f"it waits for {lacks}", *lines]),
        mend=f"read `clusterkit cluster logs {name} --name {plan.layout.name}`, then run `up` again",
        cluster=plan.layout.name,
        path=plan.layout.log_of(name),
    )
