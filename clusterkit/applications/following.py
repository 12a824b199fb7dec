"""Follow the driver's standard output where the driver runs on the cluster: every byte, once, in order."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from clusterkit.errors import ApplicationError, ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.hadoop.node_manager import NodeManager
    from clusterkit.hadoop.resource_manager import ApplicationReport

STDOUT = "stdout"
_NAMES = ("stdout", "stderr")
_POLL_S = 0.1
_EXIT_S = 10.0


class Follower:
    """Copies the driver's standard output while the application runs, and what is left when it has ended.

    An application that is tried again has several drivers; they are copied one after the other.

    Parameters
    ----------
    cluster : Cluster
        Where it runs.
    write : callable
        Receives each piece, the bytes as the job wrote them.

    Notes
    -----
    While it runs, the log is read from the driver's node; a node that does not answer is asked again, and what it did
    not give is read from HDFS at the end.
    """

    def __init__(self, cluster: Cluster, write: Callable[[bytes], None]) -> None:
        self._cluster = cluster
        self._write = write
        self._outputs: dict[str, _Output] = {}

    def follow(self, report: ApplicationReport) -> None:
        """Copy what the driver wrote since the last call.

        Parameters
        ----------
        report : ApplicationReport
            YARN's latest; it names the driver's container and node.
        """
        with contextlib.suppress(ClusterError):
            self._catch_up(report, last=False)

    def finish(self, report: ApplicationReport) -> None:
        """Copy everything that is left, once the application has ended.

        Parameters
        ----------
        report : ApplicationReport
            YARN's last.

        Raises
        ------
        ClusterError
            If a part of the output cannot be read any more.
        """
        self._catch_up(report, last=True)

    def _catch_up(self, report: ApplicationReport, *, last: bool) -> None:
        container_id, address = report.am_container_id, report.am_http_address
        if container_id and address and container_id not in self._outputs:
            self._outputs[container_id] = _Output(self._cluster, container_id, address)
        for output in self._outputs.values():
            if last or output.container_id != container_id:
                self._copy(output.rest(report.id))
            else:
                self._copy(output.added())

    def _copy(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._write(piece)


def ends_of_logs(cluster: Cluster, report: ApplicationReport, size: int = 65536) -> dict[str, str]:
    """Return the ends of the logs of the driver's container, `stdout` and `stderr`, by name.

    Parameters
    ----------
    cluster : Cluster
        Where the application runs or ran.
    report : ApplicationReport
        YARN's latest.
    size : int
        Bytes of each, > 0.
    """
    if report.am_container_id is None:
        return {}
    if report.am_http_address is not None:
        with contextlib.suppress(ClusterError):
            node = cluster.node_manager(report.am_http_address)
            found = _ends_on_node(node, report.am_container_id, size)
            if found:
                return found
    return ends_of_collected_logs(cluster, report.id, report.am_container_id, size)


def ends_of_collected_logs(
    cluster: Cluster, application_id: str, container_id: str, size: int = 65536
) -> dict[str, str]:
    """Return the ends of the logs of a container, `stdout` and `stderr`, by name; none when they cannot be read.

    Parameters
    ----------
    cluster : Cluster
        Where the application runs or ran.
    application_id, container_id : str
        The container.
    size : int
        Bytes of each, > 0.
    """
    with contextlib.suppress(ClusterError, ApplicationError):
        files = cluster.logs.files(application_id, containers=[container_id], names=_NAMES)
        return {file.name: _end(file.chunks(), size) for file in files}
    return {}


def _ends_on_node(node: NodeManager, container_id: str, size: int) -> dict[str, str]:
    logs = [log for log in node.logs(container_id) if log.name in _NAMES]
    return {
        log.name: _end(node.log(container_id, log.name, start=max(log.size - size, 0), size_hint=log.size), size)
        for log in logs
    }


def _end(pieces: Iterable[bytes], size: int) -> str:
    end = b""
    for piece in pieces:
        end = (end + piece)[-size:]
    return end.decode("utf-8", errors="replace")


class _Output:
    """The standard output of one driver, and how far it was read."""

    def __init__(self, cluster: Cluster, container_id: str, http_address: str) -> None:
        self.container_id = container_id
        self._cluster = cluster
        self._node: NodeManager = cluster.node_manager(http_address)
        self._place = 0
        self._whole = False

    def added(self) -> Iterator[bytes]:
        """Yield what the node has beyond what was read."""
        size = self._size()
        if size is not None and size > self._place:
            for piece in self._node.log(self.container_id, STDOUT, start=self._place, size_hint=size):
                self._place += len(piece)
                yield piece

    def rest(self, application_id: str) -> Iterator[bytes]:
        """Yield everything that was not read: from the node if it is still there, else from HDFS."""
        if self._whole:
            return
        with contextlib.suppress(ClusterError):
            self._wait_for_exit()
            yield from self.added()
            self._whole = self._size() == self._place
        if not self._whole:
            yield from self._collected(application_id)
            self._whole = True

    def _size(self) -> int | None:
        """Return how long the file on the node is, None when it is not there."""
        return next((log.size for log in self._node.logs(self.container_id) if log.name == STDOUT), None)

    def _wait_for_exit(self) -> None:
        """Wait until the driver's process has ended: YARN says so of the application a moment earlier."""
        deadline_s = time.monotonic() + _EXIT_S
        while (container := self._node.container(self.container_id)) and container.exit_code is None:
            if time.monotonic() > deadline_s:
                return
            time.sleep(_POLL_S)

    def _collected(self, application_id: str) -> Iterator[bytes]:
        with contextlib.suppress(ApplicationError):  # it has logs, and this one is not among them: it wrote nothing
            for file in self._cluster.logs.files(application_id, containers=[self.container_id], names=[STDOUT]):
                skip = self._place
                for chunk in file.chunks():
                    piece, skip = chunk[skip:], max(skip - len(chunk), 0)
                    self._place += len(piece)
                    yield piece
