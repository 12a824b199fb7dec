"""What an embedded cluster is like now, as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clusterkit.embedded import marks, probe, readiness
from clusterkit.embedded import state as states
from clusterkit.embedded.daemons import DATANODE, JOURNALNODE, NAMENODE, NODEMANAGER, RESOURCEMANAGER
from clusterkit.embedded.plan import plan as make_plan

if TYPE_CHECKING:
    from clusterkit.embedded.layout import Layout
    from clusterkit.embedded.marks import Marked
    from clusterkit.embedded.plan import Launch, Plan

SECURITY = "no authentication: any user of this machine can use the cluster, read its data, and run programs as you"


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One daemon: whether it runs, what it lacks, where it listens, and the memory it takes."""

    name: str
    state: str
    pid: int | None
    ports: dict[str, int]
    rss_bytes: int
    waits_for: str | None = None
    turn: str | None = None


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One NodeManager, as the ResourceManager sees it."""

    id: str
    state: str
    containers: int
    used_memory_mib: int
    memory_mib: int


class HdfsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The file system, as the active NameNode sees it."""

    datanodes: int
    used_bytes: int
    remaining_bytes: int
    capacity_bytes: int
    safe_mode: bool
    missing_blocks: int


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One queue: its share and what is used of it, in percent."""

    name: str
    share: float
    used: float
    applications: int


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A whole cluster.

    Parameters
    ----------
    state : str
        `up` when every daemon is ready, `broken` when some are not, `down` when none runs.
    """

    name: str
    state: str
    directory: str
    conf_dir: str
    bind: str
    security: str
    daemons: tuple[DaemonStatus, ...] = ()
    nodes: tuple[NodeStatus, ...] = ()
    hdfs: HdfsStatus | None = None
    queues: tuple[QueueStatus, ...] = ()


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page for a browser: whose it is, and where."""

    daemon: str
    url: str


_PAGES = {
    NAMENODE: "/index.html",
    JOURNALNODE: "/index.html",
    DATANODE: "/index.html",
    RESOURCEMANAGER: "/cluster",
    NODEMANAGER: "/node",
}


def pages(layout: Layout) -> tuple[Page, ...]:
    """Return the pages of the daemons that run."""
    remembered = states.load(layout)
    if remembered is None:
        return ()
    planned = make_plan(layout, remembered)
    running = {mark.daemon for mark in marks.daemons(layout.root)}
    return tuple(
        Page(daemon=launch.name, url=f"http://{planned.host}:{launch.ports[launch.role.web[0]]}{_PAGES[launch.role]}")
        for launch in planned.launches
        if launch.role in _PAGES and launch.name in running
    )


def look(layout: Layout) -> ClusterStatus | None:
    """Return the status of a cluster, None when there is no such cluster."""
    remembered = states.load(layout)
    if remembered is None:
        return None
    planned = make_plan(layout, remembered)
    running = {mark.daemon: mark for mark in marks.daemons(layout.root)}
    daemons = tuple(_daemon(planned, launch, running.get(launch.name)) for launch in planned.launches)
    status = ClusterStatus(
        name=layout.name,
        state=_state(daemons, running=bool(running)),
        directory=str(layout.root),
        conf_dir=str(layout.conf),
        bind=remembered.spec.bind,
        security=SECURITY,
        daemons=daemons,
    )
    if not running:
        return status
    return msgspec.structs.replace(status, nodes=_nodes(planned), hdfs=_hdfs(planned), queues=_queues(planned))


def _state(daemons: tuple[DaemonStatus, ...], *, running: bool) -> str:
    if not running:
        return "down"
    return "up" if all(daemon.state == "ready" for daemon in daemons) else "broken"


def _daemon(planned: Plan, launch: Launch, mark: Marked | None) -> DaemonStatus:
    if mark is None:
        state = "dead" if planned.state.wanted else "down"
        return DaemonStatus(name=launch.name, state=state, pid=None, ports=dict(launch.ports), rss_bytes=0)
    lacks = readiness.waits_for(planned, launch, mark.process)
    return DaemonStatus(
        name=launch.name,
        state="ready" if lacks is None else "waiting",
        pid=mark.process.pid,
        ports=dict(launch.ports),
        rss_bytes=mark.process.rss_bytes(),
        waits_for=lacks,
        turn=readiness.turn(planned, launch),
    )


def _nodes(planned: Plan) -> tuple[NodeStatus, ...]:
    return tuple(
        NodeStatus(
            id=node.node_id,
            state=node.state,
            containers=node.num_containers,
            used_memory_mib=node.used_memory_mb,
            memory_mib=node.used_memory_mb + node.available_memory_mb,
        )
        for node in readiness.registered_nodes(planned).values()
    )


def _hdfs(planned: Plan) -> HdfsStatus | None:
    namenode = readiness.active_namenode(planned)
    if namenode is None:
        return None
    port = namenode.ports["http"]
    info = probe.bean(planned.host, port, "service=NameNode,name=NameNodeInfo")
    if not info:
        return None
    return HdfsStatus(
        datanodes=len(readiness.live_datanodes(planned)),
        used_bytes=int(info["Used"]),
        remaining_bytes=int(info["Free"]),
        capacity_bytes=int(info["Total"]),
        safe_mode=bool(info["Safemode"]),
        missing_blocks=int(info["NumberOfMissingBlocks"]),
    )


def _queues(planned: Plan) -> tuple[QueueStatus, ...]:
    manager = readiness.active_resource_manager(planned)
    if manager is None:
        return ()
    document = probe.json_of(planned.host, manager.ports["web"], "/ws/v1/cluster/scheduler") or {}
    info = document.get("scheduler", {}).get("schedulerInfo", {})
    return tuple(
        QueueStatus(
            name=queue["queueName"],
            share=round(queue["absoluteCapacity"], 1),
            used=round(queue["absoluteUsedCapacity"], 1),
            applications=queue["numApplications"],
        )
        for queue in info.get("queues", {}).get("queue", [])
    )
