"""Make the name space of an embedded cluster's HDFS, once and never again."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from clusterkit import processes
from clusterkit.embedded import probe
from clusterkit.embedded.daemons import NAMENODE
from clusterkit.embedded.layout import make_private, write_private
from clusterkit.embedded.readiness import active_namenode
from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

    from clusterkit.embedded.plan import Launch, Plan

_FORMAT_TIMEOUT_S = 120.0


def needs_format(plan: Plan) -> bool:
    """Tell whether the NameNode has no name space yet.

    Raises
    ------
    ClusterError
        If blocks exist that belonged to a name space which is gone: a new one could never reach them.
    """
    directory = plan.layout.data_of(plan.of(NAMENODE)[0].name)
    if directory.exists():
        return False
    orphans = sorted(path.parent.parent for path in plan.layout.data.glob("datanode-*/current/VERSION"))
    if orphans:
        raise ClusterError(
            f"the cluster {plan.layout.name!r} was not started: its name space is gone, its blocks are not",
            why=f"{directory} does not exist, but {orphans[0]} holds blocks that only it could name",
            mend=f"put {directory} back, or give the blocks up with "
            f"`clusterkit cluster down --name {plan.layout.name} --purge`",
            cluster=plan.layout.name,
            path=directory,
        )
    return True


def format_namenode(plan: Plan, options: tuple[str, ...] = ()) -> None:
    """Make an empty name space aside and move it to its place.

    Raises
    ------
    ClusterError
        If the NameNode refuses; nothing is left in its place.
    """
    launch = plan.of(NAMENODE)[0]
    directory = plan.layout.data_of(launch.name)
    aside = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    make_private(plan.layout.temporary_of(launch.name))
    make_private(aside.parent)
    write_private(plan.layout.jar_of(launch.name), plan.jar(launch))
    done = _run(plan, launch, (f"-Ddfs.namenode.name.dir={aside.as_uri()}", "-format", "-nonInteractive"), options)
    if done.exit_code:
        raise _refused(plan, launch, "the name space of HDFS was not made", done)
    (aside / "in_use.lock").unlink(missing_ok=True)
    aside.replace(directory)


def make_directories(plan: Plan) -> None:
    """Make the directories in HDFS that users expect: `/tmp` for everybody, `/user/NAME` for the owner."""
    namenode = active_namenode(plan)
    if namenode is None:
        return
    for path, mode in (("/tmp", "1777"), ("/user", "755"), (f"/user/{plan.site.user}", "755")):  # noqa: S108 - in HDFS
        query = f"/webhdfs/v1{path}?op=MKDIRS&permission={mode}&user.name={plan.site.user}"
        probe.status_of(plan.host, namenode.ports["http"], query, method="PUT", timeout_s=10.0)


def _run(plan: Plan, launch: Launch, arguments: tuple[str, ...], options: tuple[str, ...]) -> processes.Completed:
    return processes.run(
        [*plan.java(launch, options), launch.role.main, *arguments],
        timeout_s=_FORMAT_TIMEOUT_S,
        env=plan.environment(launch),
        cwd=plan.layout.run,
    )


def _refused(plan: Plan, launch: Launch, what: str, done: processes.Completed) -> ClusterError:
    log: Path = plan.layout.log_of(launch.name)
    return ClusterError(
        what,
        why=f"the NameNode ended with {done.exit_code}: {done.last_lines(3) or 'it said nothing'}",
        mend=f"read {log}, then run `up` again",
        cluster=plan.layout.name,
        path=log,
    )
