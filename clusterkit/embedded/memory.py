"""How much memory the nodes of an embedded cluster may give to containers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.embedded.daemons import daemons
from clusterkit.specs.cluster import MIN_MEMORY_MIB
from clusterkit.units import MIB

if TYPE_CHECKING:
    from clusterkit.specs.cluster import ClusterSpec

_SHARE = 0.75
_STEP_MIB = 256
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def node_memory_mib(spec: ClusterSpec, machine_mib: int) -> int:
    """Return what each node gives to containers, when the user does not say.

    Three quarters of the machine, less what the daemons take, are divided among the nodes. The last quarter is for
    the driver of a job in client mode, and for everything else that runs here.

    Examples
    --------
    >>> from clusterkit.specs.cluster import ClusterSpec
    >>> node_memory_mib(ClusterSpec(), 24 * 1024), node_memory_mib(ClusterSpec(), 8 * 1024)
    (17408, 5120)
    """
    if spec.memory_mib is not None:
        return spec.memory_mib
    taken = sum(daemon.role.rss_mib for daemon in daemons(spec))
    each = int((machine_mib * _SHARE - taken) / spec.nodes)
    return max(each // _STEP_MIB * _STEP_MIB, MIN_MEMORY_MIB)


def machine_memory_mib() -> int:
    """Return the memory of this machine, or of the control group that holds us where that is less."""
    import psutil  # noqa: PLC0415 - only when the amount is not given

    limits = (limit.read_text("ascii").strip() for limit in _LIMITS if limit.is_file())
    amounts = [int(limit) for limit in limits if limit.isdecimal()]
    return min([psutil.virtual_memory().total, *amounts]) // MIB
