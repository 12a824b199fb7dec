"""The report of an application, kept on HDFS for whoever asks later and elsewhere: what it was, and how it went."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from clusterkit import redaction
from clusterkit.applications.why.cause import Cause
from clusterkit.errors import ClusterkitError
from clusterkit.hadoop.resource_manager import FINAL_STATES

if TYPE_CHECKING:
    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.hadoop.resource_manager import ApplicationReport

KEPT = timedelta(days=180)
"""How long a report is kept."""

_SWEEP_EACH = 25
_PRIVATE_DIRECTORY = 0o750
_PRIVATE_FILE = 0o640


class StageTime(msgspec.Struct, frozen=True):
    """When a stage of the launch or of the run began, in seconds after the command."""

    stage: str
    began_s: float


class NodeReport(msgspec.Struct, frozen=True):
    """How one container came to its image.

    Parameters
    ----------
    container, host : str
        The container's id, and its node.
    hit : bool
        Whether the image was on its node.
    seconds : float
        How long it took.
    blas : str
        The BLAS that it computes with, where the image has one.
    """

    container: str
    host: str
    hit: bool
    seconds: float
    blas: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one application.

    Parameters
    ----------
    id, name, user, queue, cluster : str
        The application, as YARN knows it, and the name of its cluster.
    deploy_mode : str
        Where its driver runs: `client` or `cluster`.
    spec : dict
        What was asked for, secrets hidden.
    image : dict
        The environment image it ran from: `id`, `name`, `lock`, `transport`, `proof`; empty where there was none.
    nodes : tuple of NodeReport
        How its containers came to the image, once their logs are there.
    stages : tuple of StageTime
        The stages, as they were seen by the command that launched it.
    state, final_status : str
        YARN's words, as far as they were known when the report was written.
    exit_code : int or None
        The job's exit code, None before its end.
    cause : Cause or None
        Why it failed, if it did.
    stderr : str
        The end of what the driver wrote on its standard error, where that passed through us; secrets hidden.
    diagnostics : str
        What YARN and the ApplicationMaster said of the end.
    submitted, finished : datetime or None
        When; aware.
    written : datetime
        When this report was written; aware.
    """

    id: str
    name: str = ""
    user: str = ""
    queue: str = ""
    cluster: str = ""
    deploy_mode: str = "client"
    spec: dict[str, Any] = msgspec.field(default_factory=dict)
    image: dict[str, str] = msgspec.field(default_factory=dict)
    nodes: tuple[NodeReport, ...] = ()
    stages: tuple[StageTime, ...] = ()
    state: str = "SUBMITTED"
    final_status: str = "UNDEFINED"
    exit_code: int | None = None
    cause: Cause | None = None
    stderr: str = ""
    diagnostics: str = ""
    submitted: datetime | None = None
    finished: datetime | None = None
    written: datetime

    @property
    def complete(self) -> bool:
        """Whether it tells the end."""
        return self.state in FINAL_STATES

    def with_state(self, last: ApplicationReport) -> Report:
        """Return the same report with what YARN says now."""
        return msgspec.structs.replace(
            self,
            name=last.name,
            user=last.user,
            queue=last.queue,
            state=last.state,
            final_status=last.final_status,
            diagnostics=last.diagnostics,
            submitted=last.submitted or self.submitted,
            finished=last.finished,
            written=datetime.now(UTC),
        )

    def redacted(self, known: frozenset[str] = frozenset()) -> Report:
        """Return the same report with secrets hidden wherever they may stand."""
        known |= redaction.secrets(self.spec)
        cause = self.cause
        if cause is not None:
            cause = msgspec.structs.replace(cause, why=redaction.text(cause.why, known))
        return msgspec.structs.replace(
            self,
            spec=redaction.document(self.spec),
            stderr=redaction.text(self.stderr, known),
            diagnostics=redaction.text(self.diagnostics, known),
            cause=cause,
        )


class Reports:
    """The reports on a cluster's HDFS, one directory for each application.

    Parameters
    ----------
    cluster : Cluster
        The cluster; its HDFS is connected to when a report is read or written.
    root : str
        The directory that clusterkit owns on it (the setting `hdfs_root`).
    """

    def __init__(self, cluster: Cluster, root: str) -> None:
        self._cluster = cluster
        self._root = root.rstrip("/")

    def path(self, application_id: str) -> str:
        """Return where an application's report is."""
        return f"{self._root}/applications/{application_id}/report.json"

    def load(self, application_id: str) -> Report | None:
        """Return an application's report; None when it has none, or one that cannot be read."""
        try:
            return msgspec.json.decode(self._cluster.hdfs.read(self.path(application_id)), type=Report)
        except (ClusterkitError, msgspec.MsgspecError):
            return None

    def save(self, report: Report) -> None:
        """Write a report, and now and then delete those that are too old.

        Raises
        ------
        StoreError
            If HDFS refuses.
        ClusterError
            If HDFS does not answer.
        """
        self._make_directories(report.id)
        document = msgspec.json.format(msgspec.json.encode(report.redacted()), indent=2)
        self._cluster.hdfs.write(self.path(report.id), document, overwrite=True, mode=_PRIVATE_FILE)
        if int(report.id.rpartition("_")[2]) % _SWEEP_EACH == 0:
            self.sweep(datetime.now(UTC) - KEPT)

    def sweep(self, oldest: datetime) -> None:
        """Delete the reports that were last written before a time, those of others excepted."""
        for entry in self._cluster.hdfs.list(f"{self._root}/applications"):
            if entry.directory and entry.modified < oldest:
                with contextlib.suppress(ClusterkitError):
                    self._cluster.hdfs.delete(entry.path, recursive=True)

    def _make_directories(self, application_id: str) -> None:
        """Make the directories that all users share, and the one of this application, unless they are there."""
        directory = f"{self._root}/applications/{application_id}"
        if self._cluster.hdfs.exists(directory):
            return
        self._cluster.hdfs.share(self._root)
        self._cluster.hdfs.share(f"{self._root}/applications")
        self._cluster.hdfs.mkdirs(directory, mode=_PRIVATE_DIRECTORY)
