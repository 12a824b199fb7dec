"""Causes of failure: more memory was used than was asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from clusterkit import units
from clusterkit.applications.why.cause import Cause

if TYPE_CHECKING:
    from clusterkit.applications.why.evidence import Evidence

_AMOUNT = r"[\d.,]+ ?[KMGT]?i?B"
_USED = re.compile(rf"(?P<used>{_AMOUNT}) of (?P<limit>{_AMOUNT}) physical memory used")
_BEYOND = re.compile(
    r"exceeding (?:physical )?memory limits|beyond (?:the '?PHYSICAL'? |physical )memory limit", re.IGNORECASE
)
_HEAP = re.compile(
    r"java\.lang\.OutOfMemoryError: "
    r"(?P<what>Java heap space|GC overhead limit exceeded|Requested array size exceeds VM limit)"
)
_ENDED_ITSELF = re.compile(r"(?P<container>container_(?:e\d+_)?\d+_\d+_\d+_\d+) on host: \S+ Exit status: (?:143|52)\b")
"""Spark starts executors on YARN with `-XX:OnOutOfMemoryError='kill %p'`; 52 is its own code for the same."""

_EXECUTOR_HEAP = re.compile(r"Lost task .*|Lost executor|executor \d+ exited")
_LEAST_OVERHEAD_MIB = 384
_OVERHEAD_FACTOR = 0.1
_DEFAULT_HEAP_MIB = 1024
_ROOM = 1.25
_STEP_MIB = 128


def container_killed(evidence: Evidence) -> Cause | None:
    """Recognise a container that the NodeManager killed for its memory.

    References
    ----------
    Hadoop 3.5.0, `ContainersMonitorImpl` (exit status -104) and Spark 4, `YarnAllocator`: both write what was used, of
    how much.
    """
    words = evidence.words
    used = _USED.search(words)
    if used is None or not _BEYOND.search(words):
        return None
    role = "driver" if "AM Container for" in words and evidence.deploy_mode == "cluster" else "executor"
    if "AM Container for" in words and role != "driver":
        role = "ApplicationMaster"
    used_mib, limit_mib = _mib(used["used"]), _mib(used["limit"])
    allowed = units.format_memory(limit_mib)
    heap_mib = _heap_mib(role, limit_mib, evidence)
    return Cause(
        kind="memory-exceeded",
        what=f"the {role} was killed for using more memory than it asked for",
        why=f"its container used {units.format_bytes(used_mib * units.MIB)}, and may use {allowed}: "
        f"{units.format_memory(heap_mib)} of heap and {units.format_memory(limit_mib - heap_mib)} for everything else, "
        "which is where Python's memory counts",
        mend=_more(role, used_mib, heap_mib, evidence),
    )


def heap_exhausted(evidence: Evidence) -> Cause | None:
    """Recognise a JVM whose heap was too small."""
    found = _HEAP.search(evidence.words) or _in_lost_executor(evidence)
    if found is None:
        return None
    in_executor = _EXECUTOR_HEAP.search(evidence.words) is not None
    role = "executor" if in_executor else "driver"
    asked = evidence.asked("executor", "memory_mib") if in_executor else evidence.asked("driver_memory_mib")
    heap_mib = asked or _DEFAULT_HEAP_MIB
    wanted = "write or aggregate the result instead of collecting it" if role == "driver" else "use more partitions"
    return Cause(
        kind="heap-exhausted",
        what=f"the JVM of the {role} ran out of memory",
        why=_joined(f"its heap of {units.format_memory(heap_mib)} is full: {found['what']}", evidence),
        mend=f"give it more: --{role}-memory {2 * heap_mib}m; or {wanted}",
    )


def _in_lost_executor(evidence: Evidence) -> re.Match[str] | None:
    """Look into the log of an executor that ended itself, as Spark's do when their heap is full."""
    lost = _ENDED_ITSELF.search(evidence.words)
    return _HEAP.search("\n".join(evidence.logs_of(lost["container"]).values())) if lost else None


def _more(role: str, used_mib: int, heap_mib: int, evidence: Evidence) -> str:
    overhead_mib = _rounded(used_mib * _ROOM) - heap_mib
    prefix = {"executor": "spark.executor", "driver": "spark.driver", "ApplicationMaster": "spark.yarn.am"}[role]
    most_mib = _most_mib(evidence)
    if most_mib is not None and heap_mib + overhead_mib > most_mib:
        return (
            f"a container has at most {units.format_memory(most_mib)} here: let it hold less at a time, with more "
            f"partitions, smaller batches (spark.sql.execution.arrow.maxRecordsPerBatch) or --executor-cores 1"
        )
    return f"give it at least --conf {prefix}.memoryOverhead={overhead_mib}m, or let it hold less at a time"


def _heap_mib(role: str, limit_mib: int, evidence: Evidence) -> int:
    """Return the heap inside a container: what was asked for, or what Spark's own overhead leaves of it."""
    asked = {
        "executor": evidence.asked("executor", "memory_mib"),
        "driver": evidence.asked("driver_memory_mib"),
        "ApplicationMaster": None,
    }[role]
    if asked is not None and asked < limit_mib:
        return int(asked)
    return max(limit_mib - _LEAST_OVERHEAD_MIB, 1) if limit_mib < 4224 else int(limit_mib / (1 + _OVERHEAD_FACTOR))


def _most_mib(evidence: Evidence) -> int | None:
    scheduler = evidence.scheduler()
    return scheduler.max_allocation.memory_mib if scheduler and scheduler.max_allocation else None


def _mib(amount: str) -> int:
    """Read an amount as Hadoop and Spark write it: `1.5 GB` are binary units."""
    return units.parse_bytes(amount.replace(",", ".")) // units.MIB


def _rounded(size_mib: float) -> int:
    return -(-int(size_mib) // _STEP_MIB) * _STEP_MIB


def _joined(first: str, evidence: Evidence) -> str:
    """Add the line of the job that it happened in, where that is known."""
    frames = evidence.traceback.frames if evidence.traceback else ()
    return "\n".join([first, *(str(frame) for frame in frames[-1:])])
