"""Following the logs of an application: from its nodes while it runs, and what is left from HDFS when it has ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterkit.hadoop.logs.running import Nodes, Place
from clusterkit.hadoop.node_manager import LogGoneError
from clusterkit.hadoop.rest import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.hadoop.logs.log_file import LogFile, Selection
    from clusterkit.hadoop.resource_manager import ApplicationReport

OUTAGE_S = 60.0
"""Seconds for which a ResourceManager that was reached before may be away."""

_LONG_LINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogChunk:
    """What was added to a log file: whole lines, unless a line is long or was left unfinished for a while."""

    container_id: str
    node: str
    name: str
    data: bytes


@dataclass(slots=True)
class _Tail:
    """How far one log file was followed, and how long it was when it was last looked at."""

    place: int = 0
    size: int = 0


class Follower:
    """Follows the logs of one application.

    Parameters
    ----------
    cluster : Cluster
        Whose.
    application_id : str
        The application.
    selection : Selection
        What is wanted.
    collected : callable
        Yields the log files that were collected in HDFS, waiting for them where they are still under way.
    poll_s : float
        Seconds between two looks, > 0.
    """

    def __init__(
        self,
        cluster: Cluster,
        application_id: str,
        selection: Selection,
        collected: Callable[[ApplicationReport], Iterator[LogFile]],
        poll_s: float,
    ) -> None:
        self._resource_manager = cluster.resource_manager
        self._nodes = Nodes(cluster)
        self._id = application_id
        self._selection = selection
        self._collected = collected
        self._poll_s = poll_s
        self._places: dict[str, Place] = {}
        self._tails: dict[tuple[str, str], _Tail] = {}

    def chunks(self) -> Iterator[LogChunk]:
        """Yield what is added to the logs, until the application has ended and everything was yielded.

        Raises
        ------
        ApplicationError
            If the ResourceManager does not know the application.
        ClusterError
            If the ResourceManager is away for long, or the rest of the logs cannot be read.
        """
        report = self._resource_manager.application(self._id)
        while not report.ended:
            started = time.monotonic()
            yield from self._added()
            time.sleep(max(self._poll_s - (time.monotonic() - started), 0.0))
            report = self._report()
        complete = yield from self._rest_on_nodes()
        if not complete:
            yield from self._rest_in_hdfs(report)

    def _report(self) -> ApplicationReport:
        deadline = time.monotonic() + OUTAGE_S
        while True:
            try:
                return self._resource_manager.application(self._id)
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(self._poll_s)

    def _added(self) -> Iterator[LogChunk]:
        """Yield what was added on the nodes since the last look; a node that is away is asked again next time."""
        try:
            self._find_places()
        except UnreachableError:
            return
        for place in tuple(self._places.values()):
            try:
                yield from self._added_at(place, last=False)
            except UnreachableError:
                continue

    def _find_places(self) -> None:
        if self._selection.containers and set(self._selection.containers) <= set(self._places):
            return
        for place in self._nodes.places(self._id, self._selection):
            self._places.setdefault(place.container_id, place)

    def _added_at(self, place: Place, *, last: bool) -> Iterator[LogChunk]:
        for log in self._nodes.manager(place).logs(place.container_id):
            if self._selection.takes(place.container_id, log.name):
                yield from self._added_to(place, log.name, log.size, last=last)

    def _added_to(self, place: Place, name: str, size: int, *, last: bool) -> Iterator[LogChunk]:
        tail = self._tails.setdefault((place.container_id, name), _Tail())
        if size < tail.place:
            tail.place = 0  # the container began the file anew
        whole = last or size == tail.size  # a line that was not finished since the last look is shown as it is
        tail.size = size
        if size == tail.place:
            return
        manager = self._nodes.manager(place)
        try:
            for data in _lines(manager.log(place.container_id, name, start=tail.place, size_hint=size), whole=whole):
                tail.place += len(data)
                yield LogChunk(place.container_id, place.node, name, data)
        except LogGoneError:
            return

    def _rest_on_nodes(self) -> Generator[LogChunk, None, bool]:
        """Yield what is left on the nodes; return whether that is all, so that nothing has to be waited for.

        It is all when the wanted containers were named, and each has ended while its logs are still on its node.
        """
        wanted = set(self._selection.containers)
        complete = bool(wanted) and wanted <= set(self._places)
        for place in tuple(self._places.values()):
            try:
                container = self._nodes.manager(place).container(place.container_id)
                ended = container is None or container.exit_code is not None
                there = bool(self._nodes.manager(place).logs(place.container_id))
                yield from self._added_at(place, last=ended)
                complete = complete and ended and there and self._caught_up(place)
            except UnreachableError:
                complete = False
        return complete

    def _caught_up(self, place: Place) -> bool:
        """Return whether the node still has the logs, and nothing in them that was not yielded."""
        logs = self._nodes.manager(place).logs(place.container_id)
        return bool(logs) and all(
            self._tails[place.container_id, log.name].place == log.size
            for log in logs
            if self._selection.takes(place.container_id, log.name)
        )

    def _rest_in_hdfs(self, report: ApplicationReport) -> Iterator[LogChunk]:
        for file in self._collected(report):
            tail = self._tails.setdefault((file.container_id, file.name), _Tail())
            skip = tail.place if tail.place <= file.size else 0
            for chunk in file.chunks():
                data, skip = chunk[skip:], max(skip - len(chunk), 0)
                if data:
                    yield LogChunk(file.container_id, file.node, file.name, data)


def _lines(chunks: Iterator[bytes], *, whole: bool) -> Iterator[bytes]:
    """Yield data up to the last line end, and the unfinished line too when it is long or all is wanted."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        cut = rest.rfind(b"\n") + 1
        if not cut and len(rest) > _LONG_LINE_BYTES:
            cut = len(rest)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest and whole:
        yield rest
