"""What a running Spark application says of itself: its executors and how far its stages are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Rest(Protocol):
    """The part of the REST client that is needed here."""

    def json(self, url: str, **parameters: str) -> Any:
        """Return the decoded JSON document at a URL."""


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

    def __str__(self) -> str:
        executors = f"{self.executors} executor{'' if self.executors == 1 else 's'}"
        if not self.stages:
            return executors
        stages = f"{self.stages} stage{'' if self.stages == 1 else 's'}"
        return f"{executors}, {stages}, task {self.tasks_done}/{self.tasks_total}"


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
