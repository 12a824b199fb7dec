"""Write the report of an application that we launched: when it is submitted, and when it has ended."""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from clusterkit.applications.report import Report, StageTime
from clusterkit.errors import ClusterkitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.applications.application import Driver
    from clusterkit.applications.report import Reports
    from clusterkit.applications.why.cause import Cause
    from clusterkit.hadoop.resource_manager import ApplicationReport

    Listener = Callable[[str, str], None]


class Recording:
    """The report of one launch, as it grows; a report that cannot be written is no reason for a job to fail.

    Parameters
    ----------
    reports : Reports
        Where it is kept.
    driver : Driver
        What was asked for, and the image it runs from.
    cluster : str
        The name of the cluster.
    """

    def __init__(self, reports: Reports, driver: Driver, cluster: str) -> None:
        self._reports = reports
        self._spec: dict[str, Any] = dict(driver.spec)
        self._image = dict(driver.image)
        self._cluster = cluster
        self._began_s = time.monotonic()
        self._stages: list[StageTime] = []
        self._opening: threading.Thread | None = None

    def listening(self, tell: Listener) -> Listener:
        """Return a listener that passes everything on, and remembers when each stage began."""

        def listen(stage: str, detail: str) -> None:
            if not self._stages or self._stages[-1].stage != stage:
                self._stages.append(StageTime(stage, round(time.monotonic() - self._began_s, 3)))
            tell(stage, detail)

        return listen

    def open(self, application_id: str) -> None:
        """Write what is known at the submission, beside whatever else we do; the process ends after it is written."""
        if self._opening is None:
            report = self._report(application_id)
            self._opening = threading.Thread(target=self._save, args=(report,), name="clusterkit-report")
            self._opening.start()

    def close(self, last: ApplicationReport, exit_code: int, cause: Cause | None, stderr: str) -> None:
        """Write how it ended.

        Parameters
        ----------
        last : ApplicationReport
            YARN's last word.
        exit_code : int
            The job's exit code.
        cause : Cause or None
            Why it failed, if it did.
        stderr : str
            The end of the driver's standard error.
        """
        if self._opening is not None:
            self._opening.join()
        told = msgspec.structs.replace(self._report(last.id), exit_code=exit_code, cause=cause, stderr=stderr)
        self._save(told.with_state(last))

    def _report(self, application_id: str) -> Report:
        return Report(
            id=application_id,
            name=str(self._spec.get("name", "")),
            queue=str(self._spec.get("queue", "default")),
            deploy_mode=str(self._spec.get("deploy_mode", "client")),
            cluster=self._cluster,
            spec=self._spec,
            image=self._image,
            stages=tuple(self._stages),
            submitted=datetime.now(UTC),
            written=datetime.now(UTC),
        )

    def _save(self, report: Report) -> None:
        with contextlib.suppress(ClusterkitError):
            self._reports.save(report)
