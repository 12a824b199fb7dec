"""Tell whether a daemon is ready, and if not, what it waits for.

Ready means: the daemon answers on each of its ports, is part of the cluster *since it was started*, and all of that is
said by the very process we started. What a dying predecessor says does not count.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from clusterkit.embedded import probe
from clusterkit.embedded.daemons import (
    DATANODE,
    JOURNALNODE,
    NAMENODE,
    NODEMANAGER,
    RESOURCEMANAGER,
    ZOOKEEPER,
    Role,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.embedded.plan import Launch, Plan
    from clusterkit.processes import ProcessIdentity

_CLOCK_SLACK_S = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing a daemon must be seen to do.

    Parameters
    ----------
    waits_for : str
        What it waits for while the check does not pass.
    passed : callable
        Asks the daemon; short, and false when there is no answer.
    """

    waits_for: str
    passed: Callable[[], bool]


def checks(plan: Plan, launch: Launch, process: ProcessIdentity) -> tuple[Check, ...]:
    """Return what a daemon must pass to be ready, in the order in which a start gets there."""
    particular = _CHECKS.get(launch.role, _nothing_more)
    later = launch.role.active if len(plan.of(launch.role)) > 1 else ()
    always = tuple(purpose for purpose in launch.role.ports if purpose not in later)
    return (
        *_port_checks(plan, launch, process, always),
        *particular(plan, launch, process),
        *(_if_active(plan, launch, check) for check in _port_checks(plan, launch, process, later)),
    )


def _port_checks(plan: Plan, launch: Launch, process: ProcessIdentity, purposes: tuple[str, ...]) -> tuple[Check, ...]:
    """Check that somebody listens, that it is this process, and that it speaks what it should."""
    host, ports = plan.host, launch.ports
    held = frozenset((host, ports[purpose]) for purpose in purposes)
    return (
        *(_port_check(probe.accepts, host, ports[purpose], f"its {purpose} port") for purpose in purposes),
        Check("its ports, which another process holds", lambda: held <= probe.listening(process)),
        *(
            _port_check(probe.answers_rpc, host, ports[purpose], f"an answer on its {purpose} port")
            for purpose in purposes
            if purpose in launch.role.rpc
        ),
    )


def _port_check(ask: Callable[[str, int], bool], host: str, port: int, waits_for: str) -> Check:
    return Check(waits_for, lambda: ask(host, port))


def _if_active(plan: Plan, launch: Launch, check: Check) -> Check:
    return Check(check.waits_for, lambda: turn(plan, launch) == "standby" or check.passed())


def waits_for(plan: Plan, launch: Launch, process: ProcessIdentity) -> str | None:
    """Return what a daemon is not ready for, None when it is ready."""
    return next((check.waits_for for check in checks(plan, launch, process) if not check.passed()), None)


def _namenode(plan: Plan, launch: Launch, process: ProcessIdentity) -> tuple[Check, ...]:
    del process
    port = launch.ports["http"]
    listing = "/webhdfs/v1/?op=GETFILESTATUS"
    return (
        Check("one NameNode to become active", lambda: active_namenode(plan) is not None),
        Check("the end of safe mode", lambda: _left_safe_mode(plan, launch)),
        Check("WebHDFS", lambda: not _is_active(plan, launch) or probe.status_of(plan.host, port, listing) == 200),
    )


def _left_safe_mode(plan: Plan, launch: Launch) -> bool:
    return _namenode_info(plan, launch, "Safemode") == "" or not _is_active(plan, launch)


def _datanode(plan: Plan, launch: Launch, process: ProcessIdentity) -> tuple[Check, ...]:
    del process
    return (
        Check("the NameNode to count it", lambda: launch.ports["data"] in live_datanodes(plan)),
        Check("the NameNode to accept it", lambda: _has_registered(plan, launch)),
    )


def _has_registered(plan: Plan, launch: Launch) -> bool:
    """Tell whether the DataNode itself says that it registered since it was started, with every NameNode."""
    info = probe.attribute(plan.host, launch.ports["http"], "service=DataNode,name=DataNodeInfo", "BPServiceActorInfo")
    actors = json.loads(info or "[]")
    return bool(actors) and all(actor.get("ActorState") == "RUNNING" for actor in actors)


def _resource_manager(plan: Plan, launch: Launch, process: ProcessIdentity) -> tuple[Check, ...]:
    del process
    return (
        Check("its REST service", lambda: _manager_info(plan, launch).get("state") == "STARTED"),
        Check("one ResourceManager to become active", lambda: active_resource_manager(plan) is not None),
    )


def _nodemanager(plan: Plan, launch: Launch, process: ProcessIdentity) -> tuple[Check, ...]:
    web = launch.ports["web"]
    return (
        Check("its REST service", lambda: probe.status_of(plan.host, web, "/ws/v1/node/info") == 200),
        Check("the ResourceManager to register it", lambda: _is_registered(plan, launch, process)),
    )


def _is_registered(plan: Plan, launch: Launch, process: ProcessIdentity) -> bool:
    """Tell whether what the ResourceManager knows was said by this process, and not by one before it."""
    node = registered_nodes(plan).get(launch.ports["container"])
    return (
        node is not None and node.state == "RUNNING" and node.last_health_update_s > process.started_s - _CLOCK_SLACK_S
    )


def _journalnode(plan: Plan, launch: Launch, process: ProcessIdentity) -> tuple[Check, ...]:
    del process
    return (
        Check("its web server", lambda: probe.status_of(plan.host, launch.ports["http"], "/jmx?qry=none:n=n") == 200),
    )


def _zookeeper(plan: Plan, launch: Launch, process: ProcessIdentity) -> tuple[Check, ...]:
    del process
    return (Check("its service", lambda: probe.answers_zookeeper(plan.host, launch.ports["client"])),)


def _nothing_more(plan: Plan, launch: Launch, process: ProcessIdentity) -> tuple[Check, ...]:
    del plan, launch, process
    return ()


_CHECKS: dict[Role, Callable[[Plan, Launch, ProcessIdentity], tuple[Check, ...]]] = {
    NAMENODE: _namenode,
    DATANODE: _datanode,
    RESOURCEMANAGER: _resource_manager,
    NODEMANAGER: _nodemanager,
    JOURNALNODE: _journalnode,
    ZOOKEEPER: _zookeeper,
}


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
        """When it last made a report of its health, in seconds since the epoch."""
        return self.last_health_update / 1000


def active_namenode(plan: Plan) -> Launch | None:
    """Return the NameNode that serves clients now."""
    nodes = plan.of(NAMENODE)
    return nodes[0] if len(nodes) == 1 else next((node for node in nodes if _is_active(plan, node)), None)


def active_resource_manager(plan: Plan) -> Launch | None:
    """Return the ResourceManager that serves clients now."""
    nodes = plan.of(RESOURCEMANAGER)
    return nodes[0] if len(nodes) == 1 else next((node for node in nodes if _is_active_manager(plan, node)), None)


def turn(plan: Plan, launch: Launch) -> str | None:
    """Return whether a NameNode or ResourceManager is the active one of two; None for every other daemon."""
    if launch.role not in {NAMENODE, RESOURCEMANAGER} or len(plan.of(launch.role)) == 1:
        return None
    active = _is_active(plan, launch) if launch.role is NAMENODE else _is_active_manager(plan, launch)
    return "active" if active else "standby"


def live_datanodes(plan: Plan) -> frozenset[int]:
    """Return the data ports of the DataNodes that the active NameNode counts as live."""
    namenode = active_namenode(plan)
    listed = _namenode_info(plan, namenode, "LiveNodes") if namenode else None
    nodes: dict[str, dict[str, str]] = json.loads(listed or "{}")
    return frozenset(_port(node["xferaddr"]) for node in nodes.values())


def registered_nodes(plan: Plan) -> dict[int, RegisteredNode]:
    """Return what the active ResourceManager says of each NodeManager, by its container port.

    The port is the part of a node's id that tells the nodes of one machine apart.
    """
    manager = active_resource_manager(plan)
    if manager is None:
        return {}
    name = "service=ResourceManager,name=RMNMInfo"
    listed = probe.attribute(plan.host, manager.ports["web"], name, "LiveNodeManagers")
    nodes = msgspec.json.decode(listed or "[]", type=list[RegisteredNode])
    return {_port(node.node_id): node for node in nodes}


def _namenode_info(plan: Plan, launch: Launch, key: str) -> Any:
    return probe.attribute(plan.host, launch.ports["http"], "service=NameNode,name=NameNodeInfo", key)


def _manager_info(plan: Plan, launch: Launch) -> probe.Bean:
    document = probe.json_of(plan.host, launch.ports["web"], "/ws/v1/cluster/info") or {}
    info: probe.Bean = document.get("clusterInfo", {})
    return info


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _is_active(plan: Plan, launch: Launch) -> bool:
    if len(plan.of(NAMENODE)) == 1:
        return True
    state = probe.attribute(plan.host, launch.ports["http"], "service=NameNode,name=NameNodeStatus", "State")
    return bool(state == "active")


def _is_active_manager(plan: Plan, launch: Launch) -> bool:
    return bool(_manager_info(plan, launch).get("haState") == "ACTIVE")
