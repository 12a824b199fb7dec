"""The handle of one YARN application: its state, its end, its logs, and why it failed."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from clusterkit.applications import exit_codes, following, waiting
from clusterkit.applications.recording import Recording
from clusterkit.errors import ApplicationError, ClusterError, ClusterkitError, LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterkit.applications.report import Report, Reports
    from clusterkit.applications.why import Cause, Evidence
    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.hadoop.resource_manager import ApplicationReport, Scheduler

    Listener = Callable[[str, str], None]
    """Told of each stage, and of each change inside one: the stage's name and the detail."""

_POLL_S = 0.1
_REPORT_INTERVAL_S = 0.5
_SETTLE_S = 10.0
_PATIENCE_S = 300.0


class Driver(Protocol):
    """The local process of an application, where it has one."""

    @property
    def exit_code(self) -> int | None:
        """Its exit code, None while it runs."""

    @property
    def application_id(self) -> str | None:
        """The application it submitted, None before it has."""

    @property
    def holds_job(self) -> bool:
        """Whether the job itself runs in it (client mode), so that its exit code is the job's."""

    @property
    def uploads(self) -> Mapping[str, int]:
        """The size in bytes of each file that travels, by name."""

    @property
    def uploaded(self) -> frozenset[str]:
        """The names of the files whose upload has begun."""

    @property
    def executors(self) -> int:
        """How many executors it asks for."""

    @property
    def spec(self) -> Mapping[str, Any]:
        """What was asked for, as plain values."""

    @property
    def image(self) -> Mapping[str, str]:
        """The environment image it runs from; empty where there is none."""

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
        YARN's last report; None when the job asked nothing of YARN, or when YARN no longer answers.
    """

    exit_code: int
    report: ApplicationReport | None


class Application:
    """One YARN application.

    Parameters
    ----------
    cluster : Cluster
        Where it runs.
    application_id : str, optional
        Its id, where it is known already.
    driver : Driver, optional
        The local process that submits it, or is its driver.
    tag : str, optional
        The YARN tag that only this application carries.
    reports : Reports, optional
        Where its report is kept; none is written or read without.

    Examples
    --------
    >>> application = clusterkit.submit("job.py", executor_memory="2g")  # doctest: +SKIP
    >>> application.wait().exit_code  # doctest: +SKIP
    0
    """

    def __init__(
        self,
        cluster: Cluster,
        application_id: str | None = None,
        *,
        driver: Driver | None = None,
        tag: str | None = None,
        reports: Reports | None = None,
    ) -> None:
        self.cluster = cluster
        self.tag = tag
        self._id = application_id
        self._driver = driver
        self._reports = reports
        self._recording = Recording(reports, driver, cluster.name) if driver and reports else None
        self._cause: Cause | None = None

    def __repr__(self) -> str:
        return f"<Application {self.id or 'not submitted yet'} on {self.cluster.name}>"

    @property
    def id(self) -> str | None:
        """The application's id; None before it is submitted, or when the job asks nothing of YARN."""
        if self._id is None and self._driver is not None:
            self._id = self._driver.application_id
        return self._id

    @property
    def driver(self) -> Driver | None:
        """The local process, where there is one."""
        return self._driver

    @property
    def state(self) -> str:
        """Its state, as YARN names it; `SUBMITTING` before it has an id."""
        return self.report().state if self.id else "SUBMITTING"

    def report(self) -> ApplicationReport:
        """Return what YARN says of it now.

        Raises
        ------
        ApplicationError
            If it is not submitted yet, or YARN does not know it.
        ClusterError
            If the ResourceManager does not answer.
        """
        return self.cluster.resource_manager.application(self._required_id())

    def wait_for_id(self, tell: Listener | None = None) -> str | None:
        """Wait until it is submitted and return its id; None when the job ended without asking for one.

        Parameters
        ----------
        tell : callable, optional
            Is told of the stages on the way.
        """
        driver = self._driver
        tell = self._recorded(tell)
        while self.id is None and driver is not None:
            tell(*_submitting(driver))
            if driver.wait(_POLL_S) is not None:
                break
        if self._recording is not None and self.id is not None:
            self._recording.open(self.id)
        return self.id

    def wait(self, tell: Listener | None = None, *, stdout: Callable[[bytes], None] | None = None) -> Outcome:
        """Wait for its end and return how it ended.

        Parameters
        ----------
        tell : callable, optional
            Is told of the stages: `submitting`, `uploading`, `accepted`, `running`.
        stdout : callable, optional
            Receives, in cluster mode, the driver's standard output while it runs: every byte, once, in order.

        Raises
        ------
        ClusterError
            If the ResourceManager stays silent for five minutes while nothing else tells of the application.
        """
        tell = self._recorded(tell)
        self.wait_for_id(tell)
        outcome = self._wait(tell, stdout)
        self._record(outcome)
        return outcome

    def kill(self) -> None:
        """End it: the local process first, then the application, if it was submitted.

        Raises
        ------
        ClusterError
            If the ResourceManager does not answer.
        """
        if self._driver is not None:
            self._driver.end()
        application_id = self.id or self._id_by_tag()
        if application_id is not None:
            self._id = application_id
            self.cluster.resource_manager.kill(application_id)
            self._record_kill()

    def _record_kill(self) -> None:
        """Complete the report of an application that we killed; nobody else will."""
        last = self._settled() if self._recording is not None else None
        if last is not None and self._recording is not None:
            self._recording.close(last, exit_codes.KILLED, None, self._driver.stderr_tail if self._driver else "")

    def why(self, outcome: Outcome | None = None) -> Cause:
        """Return the probable cause of its failure, or of its wait.

        Parameters
        ----------
        outcome : Outcome, optional
            How it ended, where that is known already.

        Raises
        ------
        ApplicationError
            If YARN does not know it, and nothing was kept of it.
        ClusterError
            If the ResourceManager does not answer, and nothing was kept of it.
        """
        from clusterkit.applications import why  # noqa: PLC0415 - only needed when something went wrong

        if self._cause is not None:
            return self._cause
        kept = self.kept() if outcome is None else None
        if kept is not None and kept.cause is not None:
            return kept.cause
        cause = why.explain(self._evidence(outcome, kept))
        if outcome is not None:
            self._cause = cause
        return cause

    def kept(self) -> Report | None:
        """Return its report on HDFS, brought up to date; None when it has none.

        An application that went on when its client was gone is completed here, as far as YARN and its logs tell.
        """
        if self._reports is None or self.id is None:
            return None
        report = self._reports.load(self.id)
        if report is None or report.complete:
            return self._with_nodes(report) if report else None
        with contextlib.suppress(ClusterkitError):
            last = self.report()
            report = report.with_state(last)
            if last.ended:
                report = self._completed(report, last)
                self._reports.save(report)
        return report

    def _with_nodes(self, report: Report) -> Report:
        """Return a report with what its containers told of their image, which is known once YARN has their logs."""
        from clusterkit.applications import node_reports  # noqa: PLC0415 - only for a job that had an image

        if not report.image or report.nodes or self._reports is None:
            return report
        with contextlib.suppress(ClusterkitError):
            nodes = node_reports.collect(self.cluster, report.id)
            if nodes:
                report = msgspec.structs.replace(report, nodes=nodes)
                self._reports.save(report)
        return report

    def failure(self, outcome: Outcome) -> ApplicationError:
        """Return the error that tells why it failed."""
        cause = self.why(outcome)
        return ApplicationError(
            cause.what, why=cause.why, mend=cause.mend, application_id=self.id, job_exit_code=outcome.exit_code
        )

    def failed_submission(self) -> LaunchError:
        """Return the error that tells why it was not submitted."""
        cause = self.why()
        return LaunchError(cause.what, why=cause.why, mend=cause.mend)

    def _evidence(self, outcome: Outcome | None, kept: Report | None = None) -> Evidence:
        from clusterkit.applications.why import Evidence  # noqa: PLC0415

        driver = self._driver
        report = outcome.report if outcome else None
        if report is None and self.id is not None:
            try:
                report = self.report()
            except (ClusterError, ApplicationError):
                if driver is None and kept is None:
                    raise  # nothing else tells of it
        on_cluster = kept.deploy_mode == "cluster" if kept else driver is None or not driver.holds_job
        return Evidence(
            exit_code=outcome.exit_code if outcome else kept.exit_code if kept else None,
            report=report,
            stderr=driver.stderr_tail if driver else kept.stderr if kept else "",
            driver_log=driver.log_tail if driver else "",
            deploy_mode="cluster" if on_cluster else "client",
            spec=driver.spec if driver else kept.spec if kept else {},
            container_logs=lambda: following.ends_of_logs(self.cluster, report) if report else {},
            logs_of=lambda container_id: following.ends_of_collected_logs(self.cluster, self.id or "", container_id),
            scheduler=self._scheduler,
        )

    def _scheduler(self) -> Scheduler | None:
        with contextlib.suppress(ClusterError):
            return self.cluster.resource_manager.scheduler()
        return None

    def _completed(self, report: Report, last: ApplicationReport) -> Report:
        """Return a report with what can still be found out of an end that nobody waited for."""
        from clusterkit.applications import why  # noqa: PLC0415

        on_cluster = report.deploy_mode == "cluster"
        code = exit_codes.from_report(last.final_status, last.diagnostics) if on_cluster else None
        failed = last.final_status in {"FAILED", "KILLED"}
        cause = why.explain(self._evidence(None, report)) if failed else None
        return msgspec.structs.replace(report, exit_code=code, cause=cause)

    def _recorded(self, tell: Listener | None) -> Listener:
        tell = tell or _silent
        return self._recording.listening(tell) if self._recording else tell

    def _record(self, outcome: Outcome) -> None:
        """Write the report, if YARN knows the application at all."""
        if self._recording is None or outcome.report is None:
            return
        cause = self.why(outcome) if outcome.exit_code else None
        stderr = self._driver.stderr_tail if self._driver else ""
        self._recording.close(outcome.report, outcome.exit_code, cause, stderr)

    def _wait(self, tell: Listener, stdout: Callable[[bytes], None] | None) -> Outcome:
        driver = self._driver
        stages = waiting.Stages(self.cluster, tell, executors=driver.executors if driver else None)
        if driver is not None and self.id is None:
            return Outcome(driver.wait(_POLL_S) or 0, None)
        if driver is not None and driver.holds_job:
            return self._wait_for_driver(driver, stages)
        return self._wait_for_yarn(stages, following.Follower(self.cluster, stdout) if stdout else None)

    def _wait_for_driver(self, driver: Driver, stages: waiting.Stages) -> Outcome:
        """Wait for the process that holds the job; YARN is only asked so that the user sees something."""
        asked_s = 0.0
        while (code := driver.wait(_POLL_S)) is None:
            if time.monotonic() - asked_s >= _REPORT_INTERVAL_S:
                asked_s = time.monotonic()
                try:
                    stages.report(self.report())
                except ClusterError as exc:
                    stages.unreachable(exc)
        return Outcome(code, self._settled())

    def _wait_for_yarn(self, stages: waiting.Stages, follower: following.Follower | None) -> Outcome:
        answered_s = time.monotonic()
        while True:
            try:
                report = self.report()
            except ClusterError as exc:
                if time.monotonic() - answered_s > _PATIENCE_S:
                    raise
                stages.unreachable(exc)
            else:
                answered_s = time.monotonic()
                stages.report(report)
                if report.ended:
                    break
                if follower is not None:
                    follower.follow(report)
            time.sleep(_REPORT_INTERVAL_S)
        if follower is not None:
            try:
                follower.finish(report)
            except ClusterError as exc:
                stages.incomplete(exc)
        return Outcome(exit_codes.from_report(report.final_status, report.diagnostics), report)

    def _settled(self) -> ApplicationReport | None:
        """Return YARN's last word once the driver has ended: it follows within moments."""
        deadline_s = time.monotonic() + _SETTLE_S
        report = None
        while time.monotonic() < deadline_s and (report is None or not report.ended):
            try:
                report = self.report()
            except (ClusterError, ApplicationError):
                return None
            if not report.ended:
                time.sleep(_POLL_S)
        return report

    def _required_id(self) -> str:
        if self.id is None:
            raise ApplicationError(
                "the application has no id yet",
                why="it is not submitted, or the job ended without asking YARN for anything",
                mend="wait for it: Application.wait_for_id() or Application.wait()",
            )
        return self.id

    def _id_by_tag(self) -> str | None:
        """Find a submission that was cut off between YARN's answer and our reading it."""
        if self.tag is None:
            return None
        found = self.cluster.resource_manager.applications(tags=[self.tag])
        return found[0].id if found else None


def _submitting(driver: Driver) -> tuple[str, str]:
    if driver.uploaded and driver.uploads:
        return "uploading", waiting.uploading(driver.uploaded, driver.uploads)
    return "submitting", "starting Spark"


def _silent(stage: str, detail: str) -> None:
    """Tell nobody."""
