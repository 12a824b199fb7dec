"""The handle of one YARN application: its state, its end, its logs, and why it failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.hadoop.resource_manager import ApplicationReport

    Listener = Callable[[str, str], None]
    """Told of each stage, and of each change inside one: the stage's name and the detail."""

_FAST_POLL_S = 0.1
_SLOW_POLL_S = 1.0
_SETTLE_S = 15.0
FINAL_STATES = frozenset({"FINISHED", "FAILED", "KILLED"})


class Driver(Protocol):
    """The local process of an application, where it has one."""

    @property
    def exit_code(self) -> int | None:
        """Its exit code, None while it runs."""

    @property
    def application_id(self) -> str | None:
        """The application it submitted, None before it has."""

    @property
    def stderr_tail(self) -> str:
        """The end of the job's standard error."""

    @property
    def log_tail(self) -> str:
        """The end of Spark's log."""

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end, at most `timeout_s` seconds."""

    def end(self) -> int:
        """End it, and all that it started."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an application ended.

    Parameters
    ----------
    exit_code : int
        The job's exit code; 1 where YARN knows only that it failed.
    report : ApplicationReport or None
        YARN's last report; None when the job ended without asking YARN for anything.
    """

    exit_code: int
    report: ApplicationReport | None
