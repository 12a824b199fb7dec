"""The causes clusterkit knows, each a rule that reads the evidence; the first that recognises its own wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterkit.applications.why import asking, code, data, memory, processes, waiting
from clusterkit.applications.why.cause import Cause

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.applications.why.evidence import Evidence

    Rule = Callable[[Evidence], Cause | None]

RULES: tuple[Rule, ...] = (
    waiting.explain,
    memory.container_killed,
    memory.heap_exhausted,
    asking.unknown_queue,
    asking.too_large,
    data.safe_mode,
    data.permission_denied,
    data.file_missing,
    code.python_missing,
    code.module_missing,
    processes.executor_lost,
    processes.worker_crashed,
    processes.resource_manager_gone,
    processes.driver_killed,
    processes.master_failed,
    code.user_exception,
    processes.killed,
    code.exit_code,
)
"""What is unmistakable comes first, what is always true last."""


def explain(evidence: Evidence) -> Cause:
    """Return the probable cause.

    Parameters
    ----------
    evidence : Evidence
        What the application left behind.
    """
    for rule in RULES:
        cause = rule(evidence)
        if cause is not None:
            return cause
    return _unknown(evidence)


def _unknown(evidence: Evidence) -> Cause:
    report = evidence.report
    if report is not None and not report.ended:
        return Cause(
            kind="running",
            what=f"{report.id} has not failed",
            why=f"it is {report.state.lower()} in the queue {report.queue}",
            mend=f"see how far it is: `clusterkit app status {report.id}`",
        )
    if report is not None and report.final_status == "SUCCEEDED" and evidence.exit_code in {0, None}:
        return Cause(
            kind="succeeded",
            what=f"{report.id} did not fail",
            why="YARN reports that it succeeded",
            mend=f"read what it wrote: `clusterkit app logs {report.id}`",
        )
    return Cause(
        kind="unknown",
        what="the job failed",
        why=evidence.diagnostics.strip() or "neither YARN nor Spark wrote a reason",
        mend=f"read its logs: `clusterkit app logs {evidence.id}`",
    )
