"""The logs of a cluster's applications, wherever they are at the moment."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from clusterkit.errors import ApplicationError, ClusterError
from clusterkit.hadoop.logs import aggregated
from clusterkit.hadoop.logs.log_file import Selection
from clusterkit.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.hadoop.logs.follow import LogChunk
    from clusterkit.hadoop.logs.log_file import LogFile
    from clusterkit.hadoop.resource_manager import ApplicationReport

PATIENCE_S = 20.0
"""Seconds to wait for the nodes to collect the logs of an application that has just ended."""

_SETTLED = frozenset({"SUCCEEDED", "FAILED", "TIME_OUT", "DISABLED"})
_RECENT = timedelta(minutes=2)
_POLL_S = 0.2


class NoLogsError(ClusterError):
    """An application has no logs that can be read now; why says which way."""


class ApplicationLogs:
    """The logs of a cluster's applications.

    Parameters
    ----------
    cluster : Cluster
        Whose.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def files(
        self,
        application_id: str,
        *,
        containers: Collection[str] = (),
        names: Collection[str] = (),
        patience_s: float = PATIENCE_S,
    ) -> Iterator[LogFile]:
        """Yield the log files of an application, in the order of `yarn logs`.

        Parameters
        ----------
        application_id : str
            The application: a running one is read from its nodes, one that has ended from HDFS.
        containers : collection of str
            Container ids; all when empty.
        names : collection of str
            File names, or patterns such as `std*`; all when empty.
        patience_s : float
            Seconds to wait until the logs of an application that has just ended were collected, >= 0.

        Raises
        ------
        ApplicationError
            If the application is not known and has left no logs, or none of the containers or names is among them.
        NoLogsError
            If there is nothing to read: why says whether it is too early, too late, or never was collected.
        DamagedLogError
            At the end, if some could not be read.
        ClusterError
            If the cluster does not answer, or we may not read the logs.
        """
        selection = Selection(tuple(containers), tuple(names))
        report = self._report(application_id)
        nothing = True
        for file in (
            self._running(report, selection)
            if report and not report.ended
            else self._ended(application_id, report, selection, patience_s)
        ):
            nothing = False
            yield file
        if nothing:
            raise self._nothing(application_id, report, selection)

    def follow(
        self,
        application_id: str,
        *,
        containers: Collection[str] = (),
        names: Collection[str] = (),
        poll_s: float = 0.3,
        patience_s: float = PATIENCE_S,
    ) -> Iterator[LogChunk]:
        """Yield what is added to the logs of an application until it has ended; nothing is lost or repeated.

        Parameters
        ----------
        application_id : str
            The application; of one that has ended everything is yielded at once.
        containers, names : collection of str
            As in `files`. When containers are named, the end does not wait for the logs to be collected.
        poll_s : float
            Seconds between two looks, > 0.
        patience_s : float
            As in `files`.

        Raises
        ------
        ApplicationError
            If the application is not known.
        ClusterError
            If the ResourceManager is away for long, or the rest of the logs cannot be read.
        """
        from clusterkit.hadoop.logs.follow import Follower  # noqa: PLC0415 - only who follows needs it

        selection = Selection(tuple(containers), tuple(names))

        def collected(report: ApplicationReport) -> Iterator[LogFile]:
            return self._ended(application_id, report, selection, patience_s)

        return Follower(self._cluster, application_id, selection, collected, poll_s).chunks()

    def _report(self, application_id: str) -> ApplicationReport | None:
        """Return what the ResourceManager says, None when it has forgotten the application but its logs are there."""
        try:
            return self._cluster.resource_manager.application(application_id)
        except ApplicationError:
            if not self._owner(application_id):
                raise
        return None

    def _owner(self, application_id: str) -> str | None:
        number = application_id.rpartition("_")[2]
        if not number.isdecimal():
            return None
        return aggregated.owner(self._cluster.hdfs, self._cluster.configuration, application_id)

    def _running(self, report: ApplicationReport, selection: Selection) -> Iterator[LogFile]:
        from clusterkit.hadoop.logs.running import Nodes  # noqa: PLC0415 - not needed once it has ended

        return Nodes(self._cluster).log_files(report.id, selection)

    def _ended(
        self, application_id: str, report: ApplicationReport | None, selection: Selection, patience_s: float
    ) -> Iterator[LogFile]:
        if report is not None:
            report = self._settled(report, patience_s)
        user = report.user if report else self._owner(application_id) or self._cluster.configuration.user
        configuration = self._cluster.configuration
        files = aggregated.log_files(self._cluster.hdfs, configuration, user, application_id, selection)
        if files is None:
            raise self._none_collected(application_id, report)
        yield from files

    def _settled(self, report: ApplicationReport, patience_s: float) -> ApplicationReport:
        """Wait until the nodes have collected the logs, if that can be expected at all."""
        deadline = time.monotonic() + patience_s
        while report.log_aggregation not in _SETTLED and _just_ended(report) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            report = self._cluster.resource_manager.application(report.id)
        return report

    def _none_collected(self, application_id: str, report: ApplicationReport | None) -> NoLogsError:
        why, mend = self._reason(report)
        return NoLogsError(f"there are no logs of {application_id} in HDFS", why=why, mend=mend)

    def _reason(self, report: ApplicationReport | None) -> tuple[str, str]:
        configuration = self._cluster.configuration
        if report and report.log_aggregation == "DISABLED":
            return (
                "log aggregation is disabled on the cluster (yarn.log-aggregation-enable is false)",
                "have it enabled in the cluster's yarn-site.xml; what was logged may still be on the nodes' own disks",
            )
        if report and report.am_container_id is None and not report.allocated.memory_mib and not report.launched:
            return "it ended before it got a container, so nothing was ever logged", f"see why it ended: {_why(report)}"
        kept = int(configuration.get("yarn.log-aggregation.retain-seconds") or -1)
        if report and kept > 0 and report.finished and report.finished + timedelta(seconds=kept) < datetime.now(UTC):
            return (
                f"they are deleted after {format_duration(kept)} (yarn.log-aggregation.retain-seconds)",
                "run the application again, or have logs kept longer",
            )
        if report and report.log_aggregation not in _SETTLED:
            return (
                "the nodes have not collected them yet",
                f"try again in a moment: `clusterkit app logs {report.id}`",
            )
        return (
            "they were deleted, or the nodes could not write them",
            "see whether the directory yarn.nodemanager.remote-app-log-dir has mode 1777, and the NodeManagers' logs",
        )

    def _nothing(
        self, application_id: str, report: ApplicationReport | None, selection: Selection
    ) -> ClusterError | ApplicationError:
        """Say why no log file was yielded."""
        if selection.containers or selection.names:
            return self._not_among(application_id, report, selection)
        if report and not report.ended:
            return NoLogsError(
                f"{application_id} has no logs yet",
                why=f"it is {report.state} in queue {report.queue}: {report.diagnostics.strip() or 'no container yet'}",
                mend=f"follow it until it has: `clusterkit app logs --follow {application_id}`",
            )
        return NoLogsError(
            f"the logs of {application_id} are empty",
            why="the collected files hold no log file",
            mend="see the NodeManagers' logs",
        )

    def _not_among(
        self, application_id: str, report: ApplicationReport | None, selection: Selection
    ) -> ApplicationError:
        known = list(
            self._running(report, Selection())
            if report and not report.ended
            else self._ended(application_id, report, Selection(), 0.0)
        )
        containers = sorted({file.container_id for file in known})
        names = sorted({file.name for file in known if selection.takes_container(file.container_id)})
        wanted = ", ".join(selection.names or selection.containers)
        return ApplicationError(
            f"there is no log of {wanted} in {application_id}",
            why=f"it has logs named {', '.join(names)}"
            if names
            else f"it has logs of {', '.join(containers) or 'none'}",
            mend=f"choose one of these; `clusterkit app logs {application_id}` shows all of them",
            application_id=application_id,
        )


def _just_ended(report: ApplicationReport) -> bool:
    return report.finished is None or datetime.now(UTC) - report.finished < _RECENT


def _why(report: ApplicationReport) -> str:
    return f"`clusterkit app why {report.id}`"
