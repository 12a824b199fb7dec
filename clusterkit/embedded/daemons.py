"""The daemons an embedded cluster consists of: what each is, and how it is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clusterkit.specs.cluster import ClusterSpec


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of daemon.

    Parameters
    ----------
    name : str
        What people call it.
    main : str
        Its main class.
    heap_mib : int
        The heap it may grow to.
    rss_mib : int
        What it takes of the machine's memory, for the budget.
    rpc, web : tuple of str
        The ports on which it answers Hadoop's RPC, and HTTP, by what they are for.
    other : tuple of str
        Its other ports.
    active : tuple of str
        Those of its ports that only the active one of two listens on.
    """

    name: str
    main: str
    heap_mib: int
    rss_mib: int
    rpc: tuple[str, ...] = ()
    web: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    active: tuple[str, ...] = ()

    @property
    def ports(self) -> tuple[str, ...]:
        """Everything it listens on."""
        return (*self.rpc, *self.web, *self.other)


_HDFS = "org.apache.hadoop.hdfs"
_YARN = "org.apache.hadoop.yarn.server"

ZOOKEEPER = Role("zookeeper", "org.apache.zookeeper.server.quorum.QuorumPeerMain", 96, 110, other=("client",))
JOURNALNODE = Role("journalnode", f"{_HDFS}.qjournal.server.JournalNode", 128, 170, rpc=("rpc",), web=("http",))
NAMENODE = Role("namenode", f"{_HDFS}.server.namenode.NameNode", 256, 235, rpc=("rpc",), web=("http",))
ZKFC = Role("zkfc", f"{_HDFS}.tools.DFSZKFailoverController", 96, 130, rpc=("rpc",))
DATANODE = Role("datanode", f"{_HDFS}.server.datanode.DataNode", 256, 200, rpc=("ipc",), web=("http",), other=("data",))
RESOURCEMANAGER = Role(
    "resourcemanager",
    f"{_YARN}.resourcemanager.ResourceManager",
    256,
    270,
    rpc=("client", "scheduler", "tracker", "admin"),
    web=("web",),
    active=("client", "scheduler", "tracker"),
)
NODEMANAGER = Role(
    "nodemanager", f"{_YARN}.nodemanager.NodeManager", 256, 225, rpc=("container", "localizer"), web=("web",)
)


@dataclass(frozen=True, slots=True)
class Daemon:
    """One daemon of a cluster: its role, and which of its kind it is (from 1)."""

    role: Role
    number: int
    alone: bool

    @property
    def name(self) -> str:
        """The name in `status`, `logs` and messages."""
        return self.role.name if self.alone else f"{self.role.name}-{self.number}"


def daemons(spec: ClusterSpec) -> tuple[Daemon, ...]:
    """Return the daemons of a cluster in the order in which they are started.

    Examples
    --------
    >>> from clusterkit.specs.cluster import ClusterSpec
    >>> [daemon.name for daemon in daemons(ClusterSpec())]
    ['namenode', 'resourcemanager', 'datanode-1', 'nodemanager-1']
    """
    masters = 2 if spec.ha else 1
    counts = [
        (ZOOKEEPER, int(spec.ha), True),
        (JOURNALNODE, int(spec.ha), True),
        (NAMENODE, masters, not spec.ha),
        (ZKFC, 2 if spec.ha else 0, False),
        (RESOURCEMANAGER, masters, not spec.ha),
        (DATANODE, spec.nodes, False),
        (NODEMANAGER, spec.nodes, False),
    ]
    return tuple(Daemon(role, number, alone) for role, count, alone in counts for number in range(1, count + 1))
