"""Logs of an application that runs, from the nodes its containers are on."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from clusterkit.hadoop.logs.log_file import MONTHS, LogFile
from clusterkit.hadoop.node_manager import LogGoneError, NodeManager

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.hadoop.logs.log_file import Selection


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container is or was: its node, and that node's web address."""

    container_id: str
    node: str
    http_address: str


class Nodes:
    """The nodes that hold an application's logs while it runs.

    Parameters
    ----------
    cluster : Cluster
        Whose.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._managers: dict[str, NodeManager] = {}

    def manager(self, place: Place) -> NodeManager:
        """Return the NodeManager of a place."""
        if place.http_address not in self._managers:
            self._managers[place.http_address] = self._cluster.node_manager(place.http_address)
        return self._managers[place.http_address]

    def places(self, application_id: str, selection: Selection) -> tuple[Place, ...]:
        """Return where the ApplicationMasters of all attempts, and the living containers, are.

        Raises
        ------
        ApplicationError
            If the ResourceManager does not know the application.
        """
        resource_manager = self._cluster.resource_manager
        found: dict[str, Place] = {}
        for attempt in resource_manager.attempts(application_id):
            if attempt.container_id and attempt.http_address:
                place = Place(attempt.container_id, attempt.node or attempt.http_address, attempt.http_address)
                found[attempt.container_id] = place
        if not selection.containers or set(selection.containers) - set(found):
            for container in resource_manager.containers(application_id):
                found.setdefault(container.id, Place(container.id, container.node, container.http_address))
        return tuple(found[key] for key in sorted(found) if selection.takes_container(key))

    def log_files(self, application_id: str, selection: Selection) -> Iterator[LogFile]:
        """Yield the log files of the containers, as long as they are at this moment.

        Raises
        ------
        ClusterError
            If a node does not answer.
        """
        for place in self.places(application_id, selection):
            manager = self.manager(place)
            for log in manager.logs(place.container_id):
                if selection.takes(place.container_id, log.name):
                    content = _Content(manager, place.container_id, log.name, log.size)
                    modified = _moment(log.modified)
                    yield LogFile(place.container_id, place.node, log.name, log.size, modified, "LOCAL", content.chunks)


@dataclass(frozen=True, slots=True)
class _Content:
    """The part of a growing file that was there when it was listed."""

    manager: NodeManager
    container_id: str
    name: str
    size: int

    def chunks(self) -> Iterator[bytes]:
        left = self.size
        with contextlib.suppress(LogGoneError):
            for chunk in self.manager.log(self.container_id, self.name) if left else ():
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    return


def _moment(text: str) -> datetime | None:
    """Read a time as a NodeManager prints it: `Wed Nov 25 03:10:54 +0000 2026`."""
    with contextlib.suppress(ValueError, IndexError):
        _, month, day, clock, zone, year = text.split()
        return datetime.strptime(f"{year} {MONTHS.index(month) + 1} {day} {clock} {zone}", "%Y %m %d %H:%M:%S %z")
    return None
