"""Ask the cluster, before anything is sent, whether it can take the job at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterkit import units
from clusterkit.errors import SpecError
from clusterkit.nearest import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterkit.hadoop.resource_manager import Queue, ResourceManager, Scheduler
    from clusterkit.launchers.spark.plan import SparkPlan

_LEAST_OVERHEAD_MIB = 384
_OVERHEAD_FACTOR = 0.1


def check(plan: SparkPlan, resource_manager: ResourceManager) -> None:
    """Refuse a plan that YARN would refuse, or would never serve.

    Raises
    ------
    SpecError
        If the queue does not exist or is stopped, or if a container asks for more than any node may give.
    ClusterError
        If the ResourceManager does not answer.
    """
    scheduler = resource_manager.scheduler()
    queue = _queue(plan, scheduler)
    for container in containers(plan.spec.deploy_mode, plan.conf):
        _check_fits(container, scheduler, queue, plan.cluster)


class ContainerRequest:
    """One kind of container a job asks for.

    Parameters
    ----------
    role : str
        `executor`, `driver` or `ApplicationMaster`.
    memory_key, cores_key : str
        The settings, or Spark keys, that decide its size.
    heap_mib, overhead_mib : int
        The JVM's heap, and what comes on top of it.
    vcores : int
        Its vcores.
    """

    def __init__(self, role: str, memory_key: str, cores_key: str, conf: Mapping[str, str]) -> None:
        prefix = _PREFIXES[role]
        self.role, self.memory_key, self.cores_key = role, memory_key, cores_key
        self.heap_mib = units.parse_memory(conf.get(f"{prefix}.memory", _HEAPS[role]))
        self.overhead_mib = _overhead_mib(conf, prefix, self.heap_mib)
        self.vcores = int(conf.get(f"{prefix}.cores", "1"))

    @property
    def memory_mib(self) -> int:
        """The container's whole memory in MiB."""
        return self.heap_mib + self.overhead_mib


_PREFIXES = {"executor": "spark.executor", "driver": "spark.driver", "ApplicationMaster": "spark.yarn.am"}
_HEAPS = {"executor": "1g", "driver": "1g", "ApplicationMaster": "512m"}


def containers(deploy_mode: str, conf: Mapping[str, str]) -> Iterator[ContainerRequest]:
    """Yield the kinds of container that a configuration asks for.

    References
    ----------
    Spark 4, Running Spark on YARN: `memoryOverhead` is a tenth of the heap, at least 384 MiB, unless it is set.
    """
    yield ContainerRequest("executor", "executor.memory", "executor.cores", conf)
    if deploy_mode == "cluster":
        yield ContainerRequest("driver", "driver.memory", "spark.driver.cores", conf)
    else:
        yield ContainerRequest("ApplicationMaster", "spark.yarn.am.memory", "spark.yarn.am.cores", conf)


def _overhead_mib(conf: Mapping[str, str], prefix: str, heap_mib: int) -> int:
    given = conf.get(f"{prefix}.memoryOverhead")
    if given is not None:
        overhead_mib = units.parse_memory(given)
    else:
        factor = float(conf.get(f"{prefix}.memoryOverheadFactor", _OVERHEAD_FACTOR))
        overhead_mib = max(_LEAST_OVERHEAD_MIB, int(heap_mib * factor))
    for_python = conf.get("spark.executor.pyspark.memory") if prefix == "spark.executor" else None
    return overhead_mib + (units.parse_memory(for_python) if for_python else 0)


def _queue(plan: SparkPlan, scheduler: Scheduler) -> Queue:
    name = plan.conf.get("spark.yarn.queue", "default")
    queue = scheduler.queue(name)
    if queue is None:
        known = [each.name for each in scheduler.queues]
        raise SpecError(
            f"the queue {name} does not exist",
            why=f"the cluster {plan.cluster} has {', '.join(known)}{suggestion(name, known)}",
            mend=f"set queue to one of them: --queue {known[0]}",
            key="queue",
        )
    if queue.state != "RUNNING":
        raise SpecError(
            f"the queue {name} takes no applications",
            why=f"its state is {queue.state}",
            mend="set queue to another one, or ask the administrator to start it",
            key="queue",
        )
    return queue


def _check_fits(container: ContainerRequest, scheduler: Scheduler, queue: Queue, cluster: str) -> None:
    limits = [limit for limit in (queue.max_allocation, scheduler.max_allocation) if limit is not None]
    if not limits:
        return
    most_mib = min(limit.memory_mib for limit in limits)
    most_vcores = min(limit.vcores for limit in limits)
    if container.memory_mib > most_mib:
        raise SpecError(
            f"the {container.role} asks for more memory than the cluster {cluster} gives one container",
            why=f"{container.memory_key} of {units.format_memory(container.heap_mib)} and "
            f"{units.format_memory(container.overhead_mib)} of overhead make "
            f"{units.format_memory(container.memory_mib)}; the most is {units.format_memory(most_mib)}",
            mend=f"set {container.memory_key} to at most {_largest_heap_mib(most_mib)}m",
            key=container.memory_key,
        )
    if container.vcores > most_vcores:
        raise SpecError(
            f"the {container.role} asks for more vcores than the cluster {cluster} gives one container",
            why=f"{container.cores_key} is {container.vcores}; the most is {most_vcores}",
            mend=f"set {container.cores_key} to at most {most_vcores}",
            key=container.cores_key,
        )


def _largest_heap_mib(container_mib: int) -> int:
    """Return the largest heap whose container, overhead included, is no larger than this."""
    return min(container_mib - _LEAST_OVERHEAD_MIB, int(container_mib / (1 + _OVERHEAD_FACTOR)))
