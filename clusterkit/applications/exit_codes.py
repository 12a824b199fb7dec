"""The exit code of a job whose process ran on the cluster, as far as YARN tells it."""

from __future__ import annotations

import re

_USER_EXIT = re.compile(r"User application exited with (?:status )?(\d+)")
_AM_EXIT = re.compile(r"AM Container for \S+ exited with\s+exitCode: (-?\d+)")

KILLED = 143
"""What stands for the exit code of an application that was killed (128 + SIGTERM)."""

_SPARK_SPECIFIC = range(10, 17)


def from_report(final_status: str, diagnostics: str) -> int:
    """Return the job's exit code; 1 where YARN knows only that it failed.

    Parameters
    ----------
    final_status : str
        The final status of the application: `SUCCEEDED`, `FAILED`, `KILLED` or `UNDEFINED`.
    diagnostics : str
        What the application and YARN wrote about its end.

    Returns
    -------
    int
        0 when it succeeded; 143 when it was killed; the code of the job's process where the diagnostics name it; 1
        otherwise.

    References
    ----------
    Spark 4, `ApplicationMaster`: the codes 10 to 16 are Spark's own, and say nothing of the job.

    Examples
    --------
    >>> from_report("FAILED", "User application exited with status 3")
    3
    """
    if final_status == "SUCCEEDED":
        return 0
    if final_status == "KILLED":
        return KILLED
    if match := _USER_EXIT.search(diagnostics):
        return int(match[1]) or 1
    if (match := _AM_EXIT.search(diagnostics)) and int(match[1]) > 0 and int(match[1]) not in _SPARK_SPECIFIC:
        return int(match[1])
    return 1
