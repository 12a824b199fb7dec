"""Causes of a wait: which limit keeps an application from starting."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from clusterkit import units
from clusterkit.applications import waiting
from clusterkit.applications.why.cause import Cause
from clusterkit.hadoop.resource_manager import Resources

if TYPE_CHECKING:
    from clusterkit.applications.why.evidence import Evidence
    from clusterkit.hadoop.resource_manager import Queue

_AMOUNT = r"<memory:(?P<memory>\d+), vCores:(?P<vcores>\d+)"


def explain(evidence: Evidence) -> Cause | None:
    """Recognise the limit that keeps an accepted application from starting."""
    report = evidence.report
    if report is None or not evidence.waiting:
        return None
    scheduler = evidence.scheduler()
    queue = scheduler.queue(report.queue) if scheduler else None
    others = [each.name for each in scheduler.queues if queue and each.name != queue.name] if scheduler else []
    word = waiting.limit(report.diagnostics)
    if word in {"am-share", "user-am-share"}:
        return _am_share(evidence, word, others)
    if word == "no-nodes":
        return _no_nodes(evidence)
    if word is not None:
        return _queue_full(evidence, queue, word, others)
    return Cause(
        kind="starting",
        what=f"{report.id} is about to start",
        why=f"{waiting.waits_for(report.diagnostics)}; no limit of the queue {report.queue} keeps it back",
        mend=f"wait, or watch it: `clusterkit app status {report.id}`",
    )


def _am_share(evidence: Evidence, word: str, others: list[str]) -> Cause:
    report = evidence.report
    assert report is not None  # noqa: S101 - `explain` has seen to it
    of_user = word == "user-am-share"
    limit = _amount("User AM Resource Limit of the queue" if of_user else "Queue Resource Limit for AM", evidence)
    used = _amount("Queue AM Resource Usage", evidence)
    asked = _amount("AM Resource Request", evidence)
    return Cause(
        kind=word,
        what=f"{report.id} waits: the share of the queue {report.queue} for ApplicationMasters is used up",
        why=f"those of {'its user' if of_user else 'the queue'} may use {_shown(limit)}; the running ones use "
        f"{_shown(used)}, and this one needs {_shown(asked)}",
        mend=_wait_or(report.queue, others)
        + ", or have yarn.scheduler.capacity.maximum-am-resource-percent raised in capacity-scheduler.xml",
    )


def _queue_full(evidence: Evidence, queue: Queue | None, word: str, others: list[str]) -> Cause:
    report = evidence.report
    assert report is not None  # noqa: S101 - `explain` has seen to it
    whole = _amount("Partition Resource", evidence)
    scheduler = evidence.scheduler()
    used = sum(each.used.memory_mib for each in scheduler.queues) if scheduler else None
    facts = []
    if whole and used is not None:
        facts.append(
            f"applications hold {units.format_memory(used)} of the cluster's {units.format_memory(whole.memory_mib)}"
        )
    if queue is not None:
        facts.append(f"the queue uses {queue.used_capacity:g} % of the cluster, and may use {queue.max_capacity:g} %")
    if word in {"user-share", "parallel-limit"}:
        facts.insert(0, waiting.waits_for(report.diagnostics).removeprefix("waits: "))
    full = queue is not None and queue.used_capacity >= queue.max_capacity - 1
    reason = "its queue is full" if full else "no node has room for its first container"
    return Cause(
        kind="queue-full",
        what=f"{report.id} waits in the queue {report.queue}: {reason}",
        why="; ".join(facts) or report.diagnostics.partition("  Details")[0].strip(),
        mend=(_wait_or(report.queue, others) if full else _wait_or(None, [])) + ", or ask for less memory",
    )


def _no_nodes(evidence: Evidence) -> Cause:
    report = evidence.report
    assert report is not None  # noqa: S101 - `explain` has seen to it
    return Cause(
        kind="no-nodes",
        what=f"{report.id} waits: the cluster has no node that runs",
        why="the ResourceManager knows of no NodeManager",
        mend="start one: `clusterkit cluster up` mends a cluster of this machine, `clusterkit cluster status` shows it",
    )


def _wait_or(queue: str | None, others: list[str]) -> str:
    of_queue = f" --queue {queue.rpartition('.')[2]}" if queue else ""
    listed = f"wait until one of `clusterkit app ls --all --state RUNNING{of_queue}` has ended"
    return f"{listed}, use another queue (--queue {others[0]})" if others else listed


def _amount(label: str, evidence: Evidence) -> Resources | None:
    found = re.search(rf"{label} = {_AMOUNT}", evidence.diagnostics)
    return Resources(int(found["memory"]), int(found["vcores"])) if found else None


def _shown(amount: Resources | None) -> str:
    return f"{units.format_memory(amount.memory_mib)} and {amount.vcores} vcores" if amount else "an unknown amount"
