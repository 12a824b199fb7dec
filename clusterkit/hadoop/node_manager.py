"""A NodeManager through REST: the containers of one node and their log files while the application runs.

References
----------
https://hadoop.apache.org/docs/r3.5.0/hadoop-yarn/hadoop-yarn-site/NodeManagerRest.html
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from clusterkit.errors import ClusterError
from clusterkit.hadoop.rest import RemoteError, Rest

if TYPE_CHECKING:
    from collections.abc import Iterator

_RUNNING = -1000  # ContainerExitStatus.INVALID
_MARGIN_BYTES = 64 * 1024
_HEADER_LIMIT_BYTES = 64 * 1024
_LENGTH = re.compile(rb"^LogLength:(\d+)$", re.MULTILINE)
_CONTENTS = b"\nLogContents:\n"


class NodeContainer(msgspec.Struct, frozen=True):
    """A container on its node; `exit_code` is None while it runs."""

    id: str
    state: str
    exit_code: int | None
    diagnostics: str
    user: str
    memory_mib: int
    vcores: int
    log_files: tuple[str, ...]


class LocalLog(msgspec.Struct, frozen=True):
    """A log file in a container's log directory; `modified` as the node prints it."""

    name: str
    size: int
    modified: str


class NodeManager:
    """One node's NodeManager.

    Parameters
    ----------
    url : str
        Its web address, `http://host:port`.
    user : str
        Who we are where there is no Kerberos.

    Notes
    -----
    Every method raises `ClusterError` when the node does not answer or refuses.
    """

    def __init__(self, url: str, user: str) -> None:
        self.url = url.rstrip("/")
        self._rest = Rest("NodeManager", user)

    def info(self) -> dict[str, Any]:
        """Return what the node says of itself, undigested."""
        return dict(self._rest.get(f"{self.url}/ws/v1/node/info").json()["nodeInfo"])

    def containers(self) -> tuple[NodeContainer, ...]:
        """Return the containers on the node, those that ended within its memory too."""
        raw = self._rest.get(f"{self.url}/ws/v1/node/containers").json()
        return tuple(_container(entry) for entry in _list((raw.get("containers") or {}).get("container")))

    def container(self, container_id: str) -> NodeContainer | None:
        """Return one container, None once the node has forgotten it."""
        answer = self._find(f"containers/{container_id}")
        return None if answer is None else _container(answer["container"])

    def application_state(self, application_id: str) -> str | None:
        """Return an application's state on the node (`RUNNING`, `FINISHED`, ...), None once it is forgotten."""
        answer = self._find(f"apps/{application_id}")
        return None if answer is None else str(answer["app"]["state"])

    def logs(self, container_id: str) -> tuple[LocalLog, ...]:
        """Return the log files of a container that are still on the node, by name; none once they have left it."""
        answer = self._find(f"containers/{container_id}/logs")
        found = [
            LocalLog(raw["fileName"], int(raw["fileSize"]), raw.get("lastModifiedTime", ""))
            for entry in _infos(answer or {})
            if entry.get("logAggregationType", "LOCAL") == "LOCAL"
            for raw in _list(entry.get("containerLogInfo"))
        ]
        return tuple(sorted(found, key=lambda log: log.name))

    def log(self, container_id: str, name: str, *, start: int = 0, size_hint: int = 0) -> Iterator[bytes]:
        """Yield what a log file holds from an offset on, in chunks.

        Parameters
        ----------
        container_id : str
            The container.
        name : str
            The file's name.
        start : int
            Bytes to leave out at the beginning, >= 0.
        size_hint : int
            The size the file is known to have at least; the nearer, the less is sent in vain.

        Raises
        ------
        LogGoneError
            At the first chunk, if the file is not on the node (any more).
        """
        url = f"{self.url}/ws/v1/node/containers/{container_id}/logs/{quote(name, safe='')}"
        tail = None if start == 0 else max(size_hint - start, 0) + _MARGIN_BYTES
        while True:
            params = {} if tail is None else {"size": str(-tail)}
            try:
                with self._rest.stream(url, params) as body:
                    size, contents = _contents(body)
                    first = 0 if tail is None else max(size - tail, 0)
                    if first <= start:
                        yield from _part(contents, start - first, max(size - start, 0))
                        return
            except RemoteError as exc:
                raise (_gone(container_id, name) if _forgotten(exc) else exc) from exc
            except _NoLogError:
                raise _gone(container_id, name) from None
            tail = size - start + _MARGIN_BYTES  # it grew by more than the margin since its size was known

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._rest.close()

    def _find(self, path: str) -> Any | None:
        try:
            return self._rest.get(f"{self.url}/ws/v1/node/{path}").json()
        except RemoteError as exc:
            if _forgotten(exc):
                return None
            raise


class LogGoneError(ClusterError):
    """A log file is not on its node: not yet, or not any more."""


class _NoLogError(Exception):
    """The answer is something else than a log file."""


def _gone(container_id: str, name: str) -> LogGoneError:
    return LogGoneError(
        f"{name} of {container_id} is not on its node",
        why="the container has not written it yet, or its logs were moved to HDFS",
        mend="read the logs of the application again when it has ended",
    )


def _forgotten(exc: RemoteError) -> bool:
    """Whether the node no longer has it; for a log directory that left it says 404 inside a 500 or 503."""
    says = exc.message or exc.why
    return exc.status == 404 or (exc.status >= 500 and ("404 Not Found" in says or "was aggregated" in says))


def _contents(body: Iterator[bytes]) -> tuple[int, Iterator[bytes]]:
    """Return a log file's size, and the rest of the answer after the header that the node puts before the contents."""
    head = b""
    for chunk in body:
        head += chunk
        header, found, rest = head.partition(_CONTENTS)
        if found and (lengths := _LENGTH.findall(header)):  # the last one: the name before it may look like another
            return int(lengths[-1]), itertools.chain((rest,), body)
        if len(head) > _HEADER_LIMIT_BYTES:
            break
    raise _NoLogError


def _part(chunks: Iterator[bytes], skip: int, size: int) -> Iterator[bytes]:
    """Yield `size` bytes after the first `skip`."""
    for chunk in chunks:
        if size <= 0:
            return
        piece = chunk[skip : skip + size]
        skip = max(skip - len(chunk), 0)
        size -= len(piece)
        if piece:
            yield piece


def _infos(answer: Any) -> list[Any]:
    """Return the log lists of an answer; versions differ in how they wrap them."""
    if isinstance(answer, list):
        return answer
    inner = answer.get("containerLogsInfoes", answer)
    return _list(inner.get("containerLogsInfo"))


def _list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _container(raw: Any) -> NodeContainer:
    return NodeContainer(
        id=raw["id"],
        state=raw["state"],
        exit_code=None if raw.get("exitCode", _RUNNING) == _RUNNING else int(raw["exitCode"]),
        diagnostics=raw.get("diagnostics", ""),
        user=raw.get("user", ""),
        memory_mib=int(raw.get("totalMemoryNeededMB", 0)),
        vcores=int(raw.get("totalVCoresNeeded", 0)),
        log_files=tuple(sorted(raw.get("containerLogFiles") or ())),
    )
