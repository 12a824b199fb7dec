"""Make the name space of an embedded cluster's HDFS, once and never again."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from clusterkit import processes
from clusterkit.embedded import failure, marks, probe, start
from clusterkit.embedded.daemons import JOURNALNODE, NAMENODE, ZKFC, ZOOKEEPER
from clusterkit.embedded.readiness import active_namenode
from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from clusterkit.embedded.plan import Launch, Plan

NEEDED_BY = frozenset({NAMENODE, ZKFC})
"""The daemons that cannot be started before there is a name space."""

_TIMEOUT_S = 120.0
_MAKER = "name-space"
_HAD_ALREADY = 2


def needs_format(plan: Plan) -> bool:
    """Tell whether there is no name space yet.

    Raises
    ------
    ClusterError
        If blocks exist that belonged to a name space which is gone: a new one could never reach them.
    """
    first, *others = (plan.layout.data_of(launch.name) for launch in plan.of(NAMENODE))
    gone = first if not first.exists() else next((other for other in others if not other.exists()), None)
    if gone is None:
        return False
    blocks = next(plan.layout.data.glob("datanode-*/current/VERSION"), None)
    if gone is first and blocks is None:
        return True
    raise ClusterError(
        f"the cluster {plan.layout.name!r} was not started: a part of its name space is gone",
        why=f"{gone} does not exist, though the cluster holds data; a new name space would make them unreachable",
        mend=f"put {gone} back, or give the data up with `clusterkit cluster down --name {plan.layout.name} --purge`",
        cluster=plan.layout.name,
        path=gone,
    )


def make(plan: Plan, started: Iterable[start.Starting], options: tuple[str, ...]) -> None:
    """Make an empty name space aside, and move it to its place when all is well.

    Parameters
    ----------
    plan : Plan
        The cluster.
    started : iterable of Starting
        The daemons that were started; those that keep the shared edits of two NameNodes must be among them.
    options : tuple of str
        More options of the JVM.

    Raises
    ------
    ClusterError
        If a NameNode refuses. Nothing is in the name space's place then.
    """
    first, *others = plan.of(NAMENODE)
    aside = _aside(plan, first)
    left = (mark.process for mark in marks.carriers(plan.layout.root) if mark.daemon == _MAKER)
    processes.end(left, grace_s=0.0)  # by an `up` that was killed
    shutil.rmtree(aside, ignore_errors=True)
    if others:
        keepers = tuple(daemon for daemon in started if daemon.launch.role in {JOURNALNODE, ZOOKEEPER})
        start.wait_ready(plan, keepers, _silent)
        controller = plan.of(ZKFC)[0]
        _run(plan, controller, ("-formatZK", "-nonInteractive"), options, allowed=(0, _HAD_ALREADY))
    _run(plan, first, (f"-Ddfs.namenode.name.dir=file://{aside}", "-format", "-nonInteractive"), options)
    (aside / "in_use.lock").unlink(missing_ok=True)
    for other in others:
        _copy(aside, plan, other)
    aside.replace(plan.layout.data_of(first.name))


def make_directories(plan: Plan) -> None:
    """Make the directories in HDFS that users expect: `/tmp` for everybody, `/user/NAME` for the owner."""
    namenode = active_namenode(plan)
    if namenode is None:
        return
    for path, mode in (("/tmp", "1777"), ("/user", "755"), (f"/user/{plan.site.user}", "755")):  # noqa: S108 - in HDFS
        query = f"/webhdfs/v1{path}?op=MKDIRS&permission={mode}&user.name={plan.site.user}"
        probe.send(plan.host, namenode.ports["http"], query, method="PUT", timeout_s=10.0)


def _aside(plan: Plan, launch: Launch) -> Path:
    directory = plan.layout.data_of(launch.name)
    return directory.with_name(f".{directory.name}.new")


def _copy(made: Path, plan: Plan, launch: Launch) -> None:
    """Give the second NameNode the same name space; nothing has been written to it yet."""
    aside = _aside(plan, launch)
    directory = plan.layout.data_of(launch.name)
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(made, aside)
    aside.replace(directory)


def _run(
    plan: Plan, launch: Launch, arguments: tuple[str, ...], options: tuple[str, ...], *, allowed: tuple[int, ...] = (0,)
) -> None:
    """Run a daemon's program for one task; it ends with us, and is found should even that fail."""
    start.lay_out(plan, launch)
    log = plan.layout.output_of(launch.name)
    argv = [*plan.java(launch, options), *marks.marks(plan.layout.root, _MAKER, ""), launch.role.main, *arguments]
    with log.open("ab") as output:
        task = processes.Leashed(
            argv,
            env=plan.environment(launch),
            cwd=plan.layout.run_of(launch.name),
            stdout=output,
            stderr=output,
            umask=start.PRIVATE_UMASK,
        )
    with task:
        code = task.wait(_TIMEOUT_S)
    if code not in allowed:
        raise _refused(plan, launch, code)


def _refused(plan: Plan, launch: Launch, code: int | None) -> ClusterError:
    ended = f"it ended with {code}" if code is not None else f"it did not end within {_TIMEOUT_S:g} s"
    lines = failure.meaningful_lines(plan.layout, launch.name, since={})
    return ClusterError(
        f"the name space of cluster {plan.layout.name!r} was not made",
        why="\n".join([f"the {launch.name} was to make it, and {ended}", *lines]),
        mend=f"read {plan.layout.log_of(launch.name)}, then run `up` again",
        cluster=plan.layout.name,
        path=plan.layout.log_of(launch.name),
    )


def _silent(stage: str, detail: str) -> None:
    del stage, detail
