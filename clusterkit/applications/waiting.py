"""Wait for an application, and tell what it waits for."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from clusterkit import units
from clusterkit.applications import spark_ui

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterkit.applications.spark_ui import SparkProgress
    from clusterkit.errors import ClusterError
    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.hadoop.resource_manager import ApplicationReport

    Listener = Callable[[str, str], None]

_UI_INTERVAL_S = 1.0
_UI_PATIENCE_S = 8.0  # the first question costs the driver a second of class loading: a short job is spared it
_LIMITS = (
    (
        re.compile(r"User's AM resource limit exceeded"),
        "user-am-share",
        "waits: your share for ApplicationMasters is used up",
    ),
    (
        re.compile(r"AM resource limit exceeded"),
        "am-share",
        "waits: the queue's share for ApplicationMasters is used up",
    ),
    (re.compile(r"cluster resource is empty"), "no-nodes", "waits: the cluster has no nodes"),
    (
        re.compile(r"max[- ]parallel", re.IGNORECASE),
        "parallel-limit",
        "waits: as many applications run as the queue allows",
    ),
    (
        re.compile(r"User capacity has reached|user limit", re.IGNORECASE),
        "user-share",
        "waits: your share of the queue is used up",
    ),
    (
        re.compile(r"waiting for resources to be assigned|not yet activated|Skipping AM assignment"),
        "no-room",
        "waits for room on a node",
    ),
)
"""What the CapacityScheduler says, the word for it, and the same for a person; the first that fits is taken."""


class Stages:
    """Tells a listener the stages of one application, from YARN's reports and Spark's own account.

    Parameters
    ----------
    cluster : Cluster
        Where it runs.
    tell : callable
        Receives a stage's name and its detail.
    executors : int, optional
        How many executors were asked for.
    """

    def __init__(self, cluster: Cluster, tell: Listener, *, executors: int | None = None) -> None:
        self._tell = tell
        self._executors = executors
        self._ui = spark_ui.SparkUi(cluster.configuration.user)
        self._asked_s = 0.0
        self._running_s = 0.0

    def report(self, report: ApplicationReport) -> None:
        """Tell the stage that a report shows."""
        if report.state == "RUNNING":
            self._tell("running", self._running(report))
        elif not report.ended:
            self._tell("accepted", f"queue {report.queue.removeprefix('root.')}, {waits_for(report.diagnostics)}")

    def unreachable(self, error: ClusterError) -> None:
        """Tell that the ResourceManager does not answer; the application may well go on."""
        self._tell("waiting", f"for the ResourceManager: {error.why}")

    def incomplete(self, error: ClusterError) -> None:
        """Tell that a part of the driver's output could not be read."""
        self._tell("output", f"the end of the driver's standard output is missing: {error.why}")

    def _running(self, report: ApplicationReport) -> str:
        progress = self._progress(report)
        return progress.to_text(self._executors) if progress else report.tracking_url or "no tracking URL yet"

    def _progress(self, report: ApplicationReport) -> SparkProgress | None:
        now_s = time.monotonic()
        self._running_s = self._running_s or now_s
        if now_s - self._running_s < _UI_PATIENCE_S:
            return None
        if report.type == "SPARK" and report.tracking_url and now_s - self._asked_s >= _UI_INTERVAL_S:
            self._asked_s = now_s
            self._ui.refresh(report.tracking_url, report.id)
        return self._ui.progress


def limit(diagnostics: str) -> str | None:
    """Return the word for the limit that keeps an accepted application from starting, None when nothing does.

    Parameters
    ----------
    diagnostics : str
        What the CapacityScheduler says of it.

    Returns
    -------
    str or None
        `am-share`, `user-am-share`, `user-share`, `parallel-limit`, `no-nodes` or `no-room`.
    """
    return next((word for pattern, word, _ in _LIMITS if pattern.search(diagnostics)), None)


def waits_for(diagnostics: str) -> str:
    """Return, in a few words, what an accepted application waits for.

    Parameters
    ----------
    diagnostics : str
        What the CapacityScheduler says of it.

    Examples
    --------
    >>> waits_for("Application is added to the scheduler and is not yet activated. "
    ...           "Queue's AM resource limit exceeded.  Details : AM Partition = <DEFAULT_PARTITION>;")
    "waits: the queue's share for ApplicationMasters is used up"
    """
    known = (text for pattern, _, text in _LIMITS if pattern.search(diagnostics))
    return next(known, "waits for its ApplicationMaster to start")


def uploading(names: frozenset[str], sizes: Mapping[str, int]) -> str:
    """Return how much of the job's files is on its way: begun and whole size.

    Parameters
    ----------
    names : frozenset of str
        The names of the files whose upload has begun.
    sizes : mapping of str to int
        The size in bytes of each file that travels, by name.
    """
    begun = sum(size for name, size in sizes.items() if name in names)
    return f"{units.format_bytes(begun)} of {units.format_bytes(sum(sizes.values()))}"
