"""What a running Spark application says of itself: its executors and how far its stages are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from clusterkit.hadoop.rest import Rest


@dataclass(frozen=True, slots=True)
class SparkProgress:
    """How far a Spark application is.

    Parameters
    ----------
    executors : int
        Executors that registered and live.
    tasks_done, tasks_total : int
        Tasks of the running stages.
    stages : int
        Stages that run.
    """

    executors: int
    tasks_done: int
    tasks_total: int
    stages: int

    def to_text(self, wanted: int | None = None) -> str:
        """Return it in a few words.

        Parameters
        ----------
        wanted : int, optional
            How many executors were asked for.

        Examples
        --------
        >>> SparkProgress(executors=1, tasks_done=5, tasks_total=34, stages=1).to_text(wanted=2)
        'executors 1/2, 1 stage running, tasks 5/34'
        """
        executors = f"executors {self.executors}" + ("" if wanted is None else f"/{wanted}")
        if not self.stages:
            return executors
        stages = f"{self.stages} stage{'' if self.stages == 1 else 's'} running"
        return f"{executors}, {stages}, tasks {self.tasks_done}/{self.tasks_total}"


def from_documents(executors: list[dict[str, Any]], stages: list[dict[str, Any]]) -> SparkProgress:
    """Return the progress that the two documents of Spark's REST interface describe.

    References
    ----------
    Spark 4, Monitoring and Instrumentation, REST API: `/executors` and `/stages?status=active`.
    """
    living = [item for item in executors if item.get("isActive") and item.get("id") != "driver"]
    return SparkProgress(
        executors=len(living),
        tasks_done=sum(int(stage.get("numCompleteTasks", 0)) for stage in stages),
        tasks_total=sum(int(stage.get("numTasks", 0)) for stage in stages),
        stages=len(stages),
    )


class SparkUi:
    """Asks the driver of a running application, through the address that YARN gives out; silence is no error.

    An application that is busy, or whose address this machine may not reach, simply shows no progress.

    Parameters
    ----------
    user : str
        Who we are for YARN's web proxy, which asks where there is no Kerberos.
    """

    def __init__(self, user: str) -> None:
        self.progress: SparkProgress | None = None
        self._user = user
        self._rest: Rest | None = None

    def refresh(self, tracking_url: str, application_id: str) -> None:
        """Ask once, and keep the answer in `progress`."""
        from clusterkit.hadoop.rest import Rest  # noqa: PLC0415 - waits without progress need no HTTP

        self._rest = self._rest or Rest("Spark", self._user)
        root = f"{tracking_url.rstrip('/')}/api/v1/applications/{application_id}"
        try:
            executors = self._rest.get(f"{root}/executors").json()
            stages = self._rest.get(f"{root}/stages", {"status": "active"}).json()
        except (ClusterError, ValueError):
            return
        if isinstance(executors, list) and isinstance(stages, list):
            self.progress = from_documents(executors, stages)
