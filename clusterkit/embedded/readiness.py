"""Tell whether a daemon is ready, and if not, what it waits for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from clusterkit.embedded import probe
from clusterkit.embedded.daemons import (
    DATANODE,
    JOURNALNODE,
    NAMENODE,
    NODEMANAGER,
    RESOURCEMANAGER,
    ZKFC,
    ZOOKEEPER,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.embedded.plan import Launch, Plan
    from clusterkit.processes import ProcessIdentity

_CLOCK_SLACK_S = 1.0


class RegisteredNode(msgspec.Struct, frozen=True, rename="pascal"):
    """A NodeManager, as the ResourceManager sees it."""

    node_id: str
    state: str
    last_health_update: int
    health_report: str
    num_containers: int = 0
    used_memory_mb: int = msgspec.field(name="UsedMemoryMB", default=0)
    available_memory_mb: int = msgspec.field(name="AvailableMemoryMB", default=0)

    @property
    def last_health_update_s(self) -> float:
        """When its own report of its health was made, in seconds since the epoch."""
        return self.last_health_update / 1000


def waits_for(plan: Plan, launch: Launch, process: ProcessIdentity) -> str | None:
    """Return what a daemon is not ready for yet, None once it is ready.

    Ready means: this very process holds its ports, answers on each of them, and is part of the cluster *since it was
    started*; what a predecessor said does not count.
    """
    host = plan.host
    held = probe.listening(process)
    for purpose in launch.role.ports:
        if (host, launch.ports[purpose]) not in held:
            return f"its {purpose} port"
    for purpose in launch.role.rpc:
        if not probe.answers_rpc(host, launch.ports[purpose]):
            return f"an answer on its {purpose} port"
    return _CHECKS[launch.role.name](plan, launch, process)


def _namenode(plan: Plan, launch: Launch, process: ProcessIdentity) -> str | None:
    del process
    port = launch.ports["http"]
    info = probe.bean(plan.host, port, "service=NameNode,name=NameNodeInfo")
    if not info:
        return "its web server"
    if len(plan.of(NAMENODE)) > 1 and not any(_is_active(plan, other) for other in plan.of(NAMENODE)):
        return "one NameNode to become active"
    if not _is_active(plan, launch):
        return None
    if info.get("Safemode"):
        return "the end of safe mode"
    return None if probe.status_of(plan.host, port, "/webhdfs/v1/?op=GETFILESTATUS") == 200 else "WebHDFS"


def _datanode(plan: Plan, launch: Launch, process: ProcessIdentity) -> str | None:
    del process
    own = probe.bean(plan.host, launch.ports["http"], "service=DataNode,name=DataNodeInfo")
    actors = json.loads(own.get("BPServiceActorInfo", "[]"))
    if not any(actor.get("ActorState") == "RUNNING" for actor in actors):
        return "the NameNode"
    return None if launch.ports["data"] in live_datanodes(plan) else "the NameNode to count it"


def _resource_manager(plan: Plan, launch: Launch, process: ProcessIdentity) -> str | None:
    del process
    document = probe.json_of(plan.host, launch.ports["web"], "/ws/v1/cluster/info") or {}
    info = document.get("clusterInfo", {})
    if info.get("state") != "STARTED":
        return "its REST service"
    if len(plan.of(RESOURCEMANAGER)) > 1 and active_resource_manager(plan) is None:
        return "one ResourceManager to become active"
    return None


def _nodemanager(plan: Plan, launch: Launch, process: ProcessIdentity) -> str | None:
    if probe.status_of(plan.host, launch.ports["web"], "/ws/v1/node/info") != 200:
        return "its REST service"
    node = registered_nodes(plan).get(launch.ports["container"])
    if node is None or node.last_health_update_s < process.started_s - _CLOCK_SLACK_S:
        return "the ResourceManager to register it"
    return None if node.state == "RUNNING" else f"the ResourceManager to use it: {node.state} {node.health_report}"


def _journalnode(plan: Plan, launch: Launch, process: ProcessIdentity) -> str | None:
    del process
    return None if probe.status_of(plan.host, launch.ports["http"], "/jmx?qry=x:y=z") == 200 else "its web server"


def _zookeeper(plan: Plan, launch: Launch, process: ProcessIdentity) -> str | None:
    del process
    return None if probe.answers_zookeeper(plan.host, launch.ports["client"]) else "its client port"


def _zkfc(plan: Plan, launch: Launch, process: ProcessIdentity) -> str | None:
    del plan, launch, process
    return None


_CHECKS: dict[str, Callable[[Plan, Launch, ProcessIdentity], str | None]] = {
    NAMENODE.name: _namenode,
    DATANODE.name: _datanode,
    RESOURCEMANAGER.name: _resource_manager,
    NODEMANAGER.name: _nodemanager,
    JOURNALNODE.name: _journalnode,
    ZOOKEEPER.name: _zookeeper,
    ZKFC.name: _zkfc,
}


def active_namenode(plan: Plan) -> Launch | None:
    """Return the NameNode that serves clients now."""
    nodes = plan.of(NAMENODE)
    return nodes[0] if len(nodes) == 1 else next((node for node in nodes if _is_active(plan, node)), None)


def active_resource_manager(plan: Plan) -> Launch | None:
    """Return the ResourceManager that serves clients now."""
    nodes = plan.of(RESOURCEMANAGER)
    return nodes[0] if len(nodes) == 1 else next((node for node in nodes if _is_active_manager(plan, node)), None)


def role(plan: Plan, launch: Launch) -> str | None:
    """Return whether a NameNode or ResourceManager is the active one of two; None for every other daemon."""
    if launch.role not in {NAMENODE, RESOURCEMANAGER} or len(plan.of(launch.role)) == 1:
        return None
    active = _is_active(plan, launch) if launch.role is NAMENODE else _is_active_manager(plan, launch)
    return "active" if active else "standby"


def live_datanodes(plan: Plan) -> frozenset[int]:
    """Return the data ports of the DataNodes that the active NameNode counts as live."""
    namenode = active_namenode(plan)
    if namenode is None:
        return frozenset()
    info = probe.bean(plan.host, namenode.ports["http"], "service=NameNode,name=NameNodeInfo")
    nodes: dict[str, dict[str, str]] = json.loads(info.get("LiveNodes", "{}"))
    return frozenset(_port(node["xferaddr"]) for node in nodes.values())


def registered_nodes(plan: Plan) -> dict[int, RegisteredNode]:
    """Return what the active ResourceManager says of each NodeManager, by its container port.

    The port is the part of a node's id that tells the nodes of one machine apart.
    """
    manager = active_resource_manager(plan)
    if manager is None:
        return {}
    info = probe.bean(plan.host, manager.ports["web"], "service=ResourceManager,name=RMNMInfo")
    nodes = msgspec.json.decode(info.get("LiveNodeManagers", "[]"), type=list[RegisteredNode])
    return {_port(node.node_id): node for node in nodes}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _is_active(plan: Plan, launch: Launch) -> bool:
    if len(plan.of(NAMENODE)) == 1:
        return True
    status = probe.bean(plan.host, launch.ports["http"], "service=NameNode,name=NameNodeStatus")
    return status.get("State") == "active"


def _is_active_manager(plan: Plan, launch: Launch) -> bool:
    document = probe.json_of(plan.host, launch.ports["web"], "/ws/v1/cluster/info") or {}
    return bool(document.get("clusterInfo", {}).get("haState") == "ACTIVE")
