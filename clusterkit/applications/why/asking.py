"""Causes of failure: the cluster has not what was asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from clusterkit import units
from clusterkit.applications.why.cause import Cause
from clusterkit.nearest import nearest, suggestion

if TYPE_CHECKING:
    from clusterkit.applications.why.evidence import Evidence

_QUEUE = re.compile(r"unknown queue:? (?P<queue>[\w.\-]+)|queue (?P<other>[\w.\-]+) (?:does not exist|doesn't exist)")
_SPARK_MEMORY = re.compile(
    r"Required (?P<role>executor|AM) memory \((?P<heap>\d+)(?: MB)?\).*?"
    r"above the max threshold \((?P<most>\d+) MB\) of this cluster",
    re.DOTALL,
)
_YARN = re.compile(
    r"Requested resource=<memory:(?P<memory>\d+), vCores:(?P<vcores>\d+)[^>]*>, "
    r"maximum allowed allocation=<memory:(?P<most>\d+), vCores:(?P<most_vcores>\d+)"
)
_LEAST_OVERHEAD_MIB = 384
_OVERHEAD_FACTOR = 0.1


def unknown_queue(evidence: Evidence) -> Cause | None:
    """Recognise a queue that YARN does not have."""
    found = _QUEUE.search(evidence.words)
    if found is None:
        return None
    queue = found["queue"] or found["other"]
    scheduler = evidence.scheduler()
    known = [each.name for each in scheduler.queues] if scheduler else []
    return Cause(
        kind="unknown-queue",
        what=f"the queue {queue} does not exist",
        why=f"the cluster has {', '.join(known)}{suggestion(queue, known)}"
        if known
        else "the ResourceManager refused the application for it",
        mend=f"name one that exists: --queue {nearest(queue, known) or known[0]}"
        if known
        else "ask the administrator for your queue, and name it with --queue",
    )


def too_large(evidence: Evidence) -> Cause | None:
    """Recognise a container that is larger than any node may give."""
    return _too_large_for_spark(evidence) or _too_large_for_yarn(evidence)


def _too_large_for_spark(evidence: Evidence) -> Cause | None:
    found = _SPARK_MEMORY.search(evidence.words)
    if found is None:
        return None
    role = "executor" if found["role"] == "executor" else "driver"
    if role == "driver" and evidence.deploy_mode == "client":
        role = "ApplicationMaster"
    setting = {"executor": "--executor-memory", "driver": "--driver-memory"}.get(role, "--conf spark.yarn.am.memory=")
    most_mib = int(found["most"])
    mark = "" if setting.endswith("=") else " "
    return Cause(
        kind="too-large",
        what=f"the {role} asks for more memory than the cluster gives one container",
        why=f"its heap of {units.format_memory(int(found['heap']))} and what comes on top of it do not fit: "
        f"a container has at most {units.format_memory(most_mib)}",
        mend=f"ask for at most {setting}{mark}{_largest_heap_mib(most_mib)}m",
    )


def _too_large_for_yarn(evidence: Evidence) -> Cause | None:
    found = _YARN.search(evidence.words)
    if found is None:
        return None
    memory, most = int(found["memory"]), int(found["most"])
    vcores, most_vcores = int(found["vcores"]), int(found["most_vcores"])
    if memory > most:
        what, why = "memory", f"it is {units.format_memory(memory)}; the most is {units.format_memory(most)}"
        mend = f"ask for at most --executor-memory {_largest_heap_mib(most)}m"
    else:
        what, why = "vcores", f"it is {vcores}; the most is {most_vcores}"
        mend = f"ask for at most --executor-cores {most_vcores}"
    return Cause(
        kind="too-large",
        what=f"a container of the job asks for more {what} than the cluster gives one",
        why=why,
        mend=mend,
    )


def _largest_heap_mib(container_mib: int) -> int:
    """Return the largest heap whose container, overhead included, is no larger than this."""
    return min(container_mib - _LEAST_OVERHEAD_MIB, int(container_mib / (1 + _OVERHEAD_FACTOR)))
