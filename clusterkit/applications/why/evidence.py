"""What there is to judge a failure by."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from clusterkit.applications import tracebacks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterkit.applications.tracebacks import Traceback
    from clusterkit.hadoop.resource_manager import ApplicationReport, Scheduler

_LOGGED_ERROR = re.compile(
    r"^\d\d/\d\d/\d\d \d\d:\d\d:\d\d\S* ERROR .*(?:\n(?!\d\d/\d\d/\d\d |\s+at |\s+\.\.\. ).*)*", re.MULTILINE
)
_JVM_GONE = {"Py4JNetworkError", "Py4JError", "ConnectionRefusedError", "ConnectionResetError", "EOFError"}
"""What a job raises when the JVM beside it has ended: the reason is in the JVM's log."""


@dataclass(frozen=True)
class Evidence:
    """What an application left behind.

    Parameters
    ----------
    exit_code : int or None
        The job's exit code, None while it runs or where it is not known.
    report : ApplicationReport or None
        YARN's last report; None where there is no application, or YARN does not answer.
    stderr : str
        The end of the job's standard error, where it ran here.
    driver_log : str
        The end of Spark's log of the driver, or of the process that submitted it.
    deploy_mode : str
        `client` where the driver is a local process, `cluster` where it runs under YARN.
    spec : mapping
        What was asked for, as plain values; empty where that is not known.
    container_logs : callable
        Returns the ends of the logs of the driver's container by name (`stdout`, `stderr`); only asked when the rest
        does not tell.
    logs_of : callable
        Returns the same for another container, given its id.
    scheduler : callable
        Returns the scheduler's state, None when it does not answer; only asked when needed.
    """

    exit_code: int | None
    report: ApplicationReport | None
    stderr: str = ""
    driver_log: str = ""
    deploy_mode: str = "client"
    spec: Mapping[str, Any] = field(default_factory=dict)
    container_logs: Callable[[], Mapping[str, str]] = dict
    logs_of: Callable[[str], Mapping[str, str]] = lambda _: {}
    scheduler: Callable[[], Scheduler | None] = lambda: None

    @property
    def diagnostics(self) -> str:
        """What YARN and the ApplicationMaster wrote about the end."""
        return self.report.diagnostics if self.report else ""

    @property
    def id(self) -> str:
        """The application's id, to write into commands."""
        return self.report.id if self.report else "ID"

    @property
    def waiting(self) -> bool:
        """Whether the application was accepted and has not started."""
        return self.report is not None and self.report.state in {"NEW", "NEW_SAVING", "SUBMITTED", "ACCEPTED"}

    @cached_property
    def traceback(self) -> Traceback | None:
        """The error that ended the job, where one was printed."""
        return tracebacks.find(self.stderr) or tracebacks.find(self.output) or tracebacks.find(self._submission)

    @cached_property
    def output(self) -> str:
        """What a driver on the cluster printed; Spark mixes its standard error into its standard output there."""
        if self.deploy_mode != "cluster" or self.report is None or not self.report.ended:
            return ""
        logs = self.container_logs()
        return "\n".join(logs[name] for name in ("stderr", "stdout") if logs.get(name))

    @property
    def _submission(self) -> str:
        """What was logged of a submission that YARN never took."""
        return self.driver_log if self.report is None else ""

    @cached_property
    def words(self) -> str:
        """What tells the cause: the job's last error, and what YARN says of the end.

        Errors that Spark logged on the way are left out where the job itself printed one: it went on after them.
        """
        if self.traceback is not None and self.traceback.kind not in _JVM_GONE:
            return f"{self.traceback.words}\n{self.diagnostics}"
        log = self.driver_log.rpartition("Running Spark version ")[2]  # a job may have had a session before this one
        logged = _LOGGED_ERROR.findall(f"{log}\n{self.output}")
        return "\n".join([self.diagnostics, self.stderr, *logged])

    def asked(self, *path: str) -> Any:
        """Return a part of what was asked for, None where it was not given.

        Examples
        --------
        >>> Evidence(1, None, spec={"executor": {"memory_mib": 512}}).asked("executor", "memory_mib")
        512
        """
        value: Any = self.spec
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value
