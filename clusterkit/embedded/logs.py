"""Read what the daemons of an embedded cluster wrote: their logs, and what their JVMs printed."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING

from clusterkit.embedded import state as states
from clusterkit.embedded.daemons import daemons
from clusterkit.errors import ClusterError, SpecError
from clusterkit.nearest import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from clusterkit.embedded.layout import Layout

_POLL_S = 0.2
_BLOCK_BYTES = 1 << 16


def names(layout: Layout) -> tuple[str, ...]:
    """Return the daemons of a cluster, in the order in which they are started.

    Raises
    ------
    ClusterError
        If there is no such cluster.
    """
    remembered = states.load(layout)
    if remembered is None:
        raise ClusterError(
            f"the cluster {layout.name!r} has no logs",
            why=f"there is no such cluster: nothing lies in {layout.root}",
            mend=f"start it with `clusterkit cluster up --name {layout.name}`",
            cluster=layout.name,
        )
    return tuple(daemon.name for daemon in daemons(remembered.spec))


def check_name(layout: Layout, daemon: str) -> None:
    """Refuse a name that is no daemon's.

    Raises
    ------
    SpecError
        If the cluster has no such daemon.
    """
    known = names(layout)
    if daemon not in known:
        raise SpecError(
            f"the cluster {layout.name!r} has no daemon {daemon!r}",
            why=f"its daemons are {', '.join(known)}{suggestion(daemon, known)}",
            mend="name one of them, or none to see the logs of all",
            key="daemon",
        )


def tail(layout: Layout, daemon: str, count: int) -> list[str]:
    """Return the last lines of a daemon's log, after the last that its JVM printed."""
    printed = _last_lines(layout.output_of(daemon), count)
    return [*printed, *_last_lines(layout.log_of(daemon), count)][-count:] if count else []


def follow(layout: Layout, chosen: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return the lines that daemons write from now on, each with the daemon's name; it never ends by itself."""
    files = [(daemon, path) for daemon in chosen for path in (layout.log_of(daemon), layout.output_of(daemon))]
    return _lines([_Growing(daemon, path) for daemon, path in files])


def _lines(growing: Sequence[_Growing]) -> Iterator[tuple[str, str]]:
    while True:
        found = [(file.daemon, line) for file in growing for line in file.lines()]
        yield from found
        if not found:
            time.sleep(_POLL_S)


class _Growing:
    """A file that is being appended to, and perhaps replaced by a new one of the same name."""

    def __init__(self, daemon: str, path: Path) -> None:
        self.daemon = daemon
        self._path = path
        self._inode, self._offset = self._seen()
        self._rest = b""

    def lines(self) -> list[str]:
        """Return the whole lines that were added since the last call."""
        inode, size_bytes = self._seen()
        if inode != self._inode or size_bytes < self._offset:
            self._inode, self._offset, self._rest = inode, 0, b""
        if size_bytes == self._offset:
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            added = file.read()
        self._offset += len(added)
        *whole, self._rest = (self._rest + added).split(b"\n")
        return [line.decode("utf-8", errors="replace") for line in whole]

    def _seen(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_size


def _last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a file; only its end is read."""
    try:
        with path.open("rb") as file:
            start = file.seek(0, os.SEEK_END)
            blocks: deque[bytes] = deque()
            while start and sum(block.count(b"\n") for block in blocks) <= count:
                size_bytes = min(_BLOCK_BYTES, start)
                start = file.seek(start - size_bytes)
                blocks.appendleft(file.read(size_bytes))
    except FileNotFoundError:
        return []
    text = b"".join(blocks).decode("utf-8", errors="replace")
    return text.splitlines()[-count:]
