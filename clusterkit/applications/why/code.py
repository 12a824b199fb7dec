"""Causes of failure: the job's own code, and the Python it runs in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from clusterkit.applications.why.cause import Cause

if TYPE_CHECKING:
    from clusterkit.applications.tracebacks import Traceback
    from clusterkit.applications.why.evidence import Evidence

_NO_PROGRAM = re.compile(r'Cannot run program "(?P<program>[^"]+)"(?: \(in directory "[^"]*"\))?: (?P<reason>[^\n]*)')
_TASK_HOST = re.compile(r"Lost task \S+ in stage \S+ \(TID \d+\) \((?P<host>\S+) executor \S+\)")
_NO_MODULE = re.compile(r"No module named '?(?P<module>[\w.]+)'?")
_USER_CLASS = re.compile(r"User class threw exception: (?P<text>[^\n]+)")
_USER_EXIT = re.compile(r"User application exited with (?:status )?(?P<code>\d+)")


def python_missing(evidence: Evidence) -> Cause | None:
    """Recognise a Python that a node does not have."""
    found = _NO_PROGRAM.search(evidence.words)
    if found is None:
        return None
    program = found["program"]
    host = _TASK_HOST.search(evidence.words)
    forbidden = "error=13" in found["reason"]
    return Cause(
        kind="python-missing",
        what=f"a node cannot run the Python {program}",
        why=f"{_place(host, evidence)}: "
        + ("the file is there, and may not be run" if forbidden else "there is no such file")
        + f" ({found['reason'].strip()})",
        mend="name a Python that every node has: --conf spark.pyspark.python=PATH; "
        "a job must not set PYSPARK_PYTHON or sc.pythonExec to one that only this machine has",
    )


def module_missing(evidence: Evidence) -> Cause | None:
    """Recognise a module that cannot be imported, on a node or in the driver."""
    traceback = evidence.traceback
    if traceback is None or traceback.kind not in {"ModuleNotFoundError", "ImportError"}:
        return None
    found = _NO_MODULE.search(traceback.message)
    if found is None:
        return None
    module = found["module"]
    top = module.partition(".")[0]
    on_cluster = evidence.deploy_mode == "cluster"
    where = "on a node" if traceback.on_worker else "on the node of the driver" if on_cluster else "in the driver"
    environment = evidence.asked("env")
    if environment is not None:
        mend = (
            f"add {top} to the packages of the environment {environment}, or code of your own to its `local`; or send "
            f"it along: --py-files {top}.py"
        )
    elif traceback.on_worker or on_cluster:
        mend = (
            f"send it along, --py-files {top}.py (a package: as a .zip), or have it in the Python of the nodes "
            "(--conf spark.pyspark.python=PATH)"
        )
    else:
        mend = f"install it where clusterkit runs, or send it along: --py-files {top}.py"
    return Cause(kind="import-error", what=f"the module {module} is missing {where}", why=_shown(traceback), mend=mend)


def user_exception(evidence: Evidence) -> Cause | None:
    """Recognise an exception of the job's own."""
    traceback = evidence.traceback
    if traceback is not None:
        place = "in a Python worker on a node" if traceback.on_worker else "in the driver"
        return Cause(
            kind="user-exception",
            what=f"the job raised {traceback.kind} {place}",
            why=_shown(traceback),
            mend=_correct(traceback),
        )
    found = _USER_CLASS.search(evidence.diagnostics)
    if found is None:
        return None
    return Cause(
        kind="user-exception",
        what="the job's driver raised an exception",
        why=found["text"],
        mend=f"correct the job; its output: `clusterkit app logs {evidence.id}`",
    )


def exit_code(evidence: Evidence) -> Cause | None:
    """Recognise a job that ended itself with an exit code."""
    found = _USER_EXIT.search(evidence.diagnostics) or _USER_EXIT.search(evidence.output)
    code = int(found["code"]) if found else evidence.exit_code
    if not code or (evidence.deploy_mode == "cluster" and found is None):
        return None
    if code in {129, 130, 137, 143}:
        return Cause(
            kind="killed",
            what=f"the job's process was ended by signal {code - 128}",
            why=f"it ended with exit code {code}, and printed no exception",
            mend="submit it again, unless it was ended on purpose",
        )
    return Cause(
        kind="exit-code",
        what=f"the job ended with exit code {code}",
        why=f"its driver called sys.exit({code}), or something like it; it raised no exception",
        mend=f"see in the job what {code} stands for, and in what it wrote how it came to it"
        + (f": `clusterkit app logs {evidence.id}`" if evidence.deploy_mode == "cluster" else ""),
    )


def _shown(traceback: Traceback) -> str:
    return str(traceback)


def _correct(traceback: Traceback) -> str:
    if not traceback.frames:
        return "the error comes from Spark: look for its message in Spark's documentation, or in the driver's log"
    frame = traceback.frames[-1]
    return f"correct the job at {frame.file}:{frame.line}; the lines above are its own"


def _place(host: re.Match[str] | None, evidence: Evidence) -> str:
    if host:
        return f"on {host['host']}"
    return "on the driver's node" if evidence.deploy_mode == "cluster" else "where it was started"
