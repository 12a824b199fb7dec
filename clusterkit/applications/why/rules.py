"""The causes clusterkit knows, each a rule that reads the evidence; the first that recognises its own wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterkit.applications import tracebacks
from clusterkit.applications.why.cause import Cause

if TYPE_CHECKING:
    from clusterkit.applications.why.evidence import Evidence


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


def _user_exception(evidence: Evidence) -> Cause | None:
    traceback = tracebacks.find(evidence.stderr)
    if traceback is None:
        return None
    place = "in a Python worker on a node" if traceback.on_worker else "in the driver"
    return Cause(
        kind="user-exception",
        what=f"the job raised {traceback.kind} {place}",
        why=str(traceback),
        mend="correct the job; the lines above are its own",
    )


def _unknown(evidence: Evidence) -> Cause:
    return Cause(
        kind="unknown",
        what="the job failed",
        why=evidence.diagnostics.strip() or f"its process ended with {evidence.exit_code} and wrote no reason",
        mend="read its logs: `clusterkit app logs`",
    )


RULES = (_user_exception,)
