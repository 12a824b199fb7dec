"""What there is to judge a failure by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.hadoop.resource_manager import ApplicationReport, Scheduler


@dataclass(frozen=True, slots=True)
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
        The end of Spark's log of the driver, where it ran here.
    container_logs : callable
        Returns the ends of the containers' logs by `CONTAINER/NAME`; only asked when the rest does not tell.
    scheduler : callable
        Returns the scheduler's state; only asked when needed.
    """

    exit_code: int | None
    report: ApplicationReport | None
    stderr: str = ""
    driver_log: str = ""
    container_logs: Callable[[], dict[str, str]] = dict
    scheduler: Callable[[], Scheduler | None] = lambda: None

    @property
    def diagnostics(self) -> str:
        """What YARN and the ApplicationMaster wrote about the end."""
        return self.report.diagnostics if self.report else ""
