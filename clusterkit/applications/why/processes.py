"""Causes of failure: a process, a node or a daemon went away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from clusterkit.applications.why.cause import Cause

if TYPE_CHECKING:
    from clusterkit.applications.why.evidence import Evidence

_LOST = re.compile(
    r"(?:ExecutorLostFailure \(|Lost )executor (?P<executor>\d+)(?: on (?P<host>[\w.\-]+))?.*?"
    r"(?:Reason: |: )(?P<reason>[^\n]*)",
    re.DOTALL,
)
_CONTAINER = re.compile(r"container_(?:e\d+_)?\d+_\d+_\d+_\d+")
_HOST = re.compile(r"on host:? (?P<host>[\w.\-]+)")
_STATUS = re.compile(r"[Ee]xit (?:status|code)(?: is)?:? (?P<status>-?\d+)|exited with\s+exitCode: (?P<am>-?\d+)")
_LOST_NODE = re.compile(
    r"lost\*? node|released on a \*lost\* node|Container marked as failed.*-100|heartbeat", re.IGNORECASE
)
_CRASHED = re.compile(r"Python worker exited unexpectedly")
_RM_GONE = re.compile(
    r"Failed to contact YARN|Connecting to ResourceManager|ApplicationClientProtocol|ApplicationMasterProtocol|"
    r"ResourceManager.*(?:not|Connection)",
)
_REFUSED = re.compile(
    r"Call From \S+ to (?P<address>\S+:\d+) failed on (?P<what>[^:;]+)(?:: (?P<exception>[\w.]+): (?P<reason>[^;\n]+))?"
)
_AM_EXIT = re.compile(r"AM Container for \S+ exited with\s+exitCode: (?P<status>-?\d+)")
_SIGNALS = {129: "SIGHUP", 130: "SIGINT", 134: "SIGABRT", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}
_KILLED = re.compile(r"(?:Application|application) \S* ?(?:was )?killed by user (?P<user>\S+)(?: at (?P<host>\S+))?")
_DIAGNOSED = re.compile(
    r'Exception in thread "[^"]*" (.+)|^(/bin/bash: .+|Error: .+)|^Error occurred during initialization of VM\n(.+)',
    re.MULTILINE,
)


def executor_lost(evidence: Evidence) -> Cause | None:
    """Recognise an executor whose process or node went away."""
    found = _LOST.search(evidence.words)
    if found is None:
        return None
    executor, reason = found["executor"], found["reason"]
    container = _CONTAINER.search(reason)
    host = _HOST.search(reason)
    where = (host["host"] if host else found["host"] or "its node").rstrip(".")
    status = _STATUS.search(reason)
    code = int(status["status"]) if status and status["status"] else None
    logs = f"`clusterkit app logs {evidence.id}" + (f" --container {container[0]}`" if container else "`")
    if _LOST_NODE.search(reason):
        return Cause(
            kind="executor-lost",
            what=f"executor {executor} was lost with its node {where}",
            why=reason.strip().rstrip("."),
            mend="see with `clusterkit cluster status`, or on the ResourceManager's page, whether it is back, and "
            "submit the job again",
        )
    signal = _SIGNALS.get(code or 0)
    return Cause(
        kind="executor-lost",
        what=f"executor {executor} was lost: its process on {where} "
        + (f"was ended by {signal}" if signal else f"ended with {code}" if code is not None else "went away"),
        why=_why(code, reason),
        mend=f"read its last words: {logs}"
        + ("; `dmesg` on the node says whether the kernel ended it for want of memory" if code == 137 else ""),
    )


def worker_crashed(evidence: Evidence) -> Cause | None:
    """Recognise a Python worker that ended without an exception."""
    if not _CRASHED.search(evidence.words):
        return None
    frames = evidence.traceback.frames if evidence.traceback else ()
    return Cause(
        kind="worker-crashed",
        what="a Python worker on a node ended without an exception",
        why="\n".join(["it crashed in compiled code, or was killed", *(str(frame) for frame in frames[-1:])]),
        mend="submit it with --conf spark.python.worker.faulthandler.enabled=true to see the line it crashed in",
    )


def resource_manager_gone(evidence: Evidence) -> Cause | None:
    """Recognise a ResourceManager that went away under a job."""
    refused = _REFUSED.search(evidence.words)
    if not _RM_GONE.search(evidence.words) and not (refused and evidence.report is None):
        return None
    if refused is None and evidence.report is not None:
        return None
    address = f" at {refused['address']}" if refused else ""
    return Cause(
        kind="resource-manager-gone",
        what=f"the ResourceManager{address} does not answer",
        why=(refused["reason"] or refused["what"]).strip() if refused else "Spark lost the connection to YARN",
        mend="see whether it runs, `clusterkit cluster status` for a cluster of this machine (`clusterkit cluster up` "
        "starts it again), and submit the job again",
    )


def driver_killed(evidence: Evidence) -> Cause | None:
    """Recognise a driver on the cluster, or an ApplicationMaster, that was ended by a signal."""
    found = _AM_EXIT.search(evidence.diagnostics)
    code = int(found["status"]) if found else 0
    if code not in _SIGNALS:
        return None
    role = "driver" if evidence.deploy_mode == "cluster" else "ApplicationMaster"
    node = evidence.report.am_node if evidence.report else None
    host = f" on {node.partition(':')[0]}" if node else ""
    return Cause(
        kind="driver-killed",
        what=f"the process of the {role}{host} was ended by {_SIGNALS[code]}",
        why=f"its container exited with {code}, and YARN did not kill it for its memory: a person, a program or the "
        "node's kernel did it",
        mend=f"read its last words: `clusterkit app logs {evidence.id}`"
        + ("; `dmesg` on the node says whether the kernel ended it for want of memory" if code == 137 else ""),
    )


def killed(evidence: Evidence) -> Cause | None:
    """Recognise an application that somebody ended."""
    report = evidence.report
    if report is None or report.state != "KILLED":
        return None
    found = _KILLED.search(report.diagnostics)
    by = f"{found['user']}" + (f" at {found['host']}" if found["host"] else "") if found else ""
    return Cause(
        kind="killed",
        what=f"{report.id} was killed",
        why=f"by {by.rstrip('.')}" if by else report.diagnostics.strip() or "YARN does not say by whom",
        mend="submit it again, unless it was ended on purpose",
    )


def master_failed(evidence: Evidence) -> Cause | None:
    """Recognise a container of the ApplicationMaster that did not come up."""
    words = evidence.traceback.words if evidence.traceback else f"{evidence.diagnostics}\n{evidence.output}"
    found = _AM_EXIT.search(words)
    if found is None or "User application exited" in words:
        return None
    said = _DIAGNOSED.search(words) or _DIAGNOSED.search("\n".join(evidence.container_logs().values()))
    text = next(filter(None, said.groups())) if said else ""
    return Cause(
        kind="master-failed",
        what="the application's first container did not start",
        why=text or f"it exited with {found['status']}, and left no message in its standard error",
        mend=f"read its logs: `clusterkit app logs {evidence.id}`",
    )


def _why(code: int | None, reason: str) -> str:
    if code in _SIGNALS:
        return (
            f"exit status {code}: YARN did not kill it for its memory; a person, a program or the node's kernel did it"
        )
    return reason.strip().rstrip(".") or "Spark does not say why"
