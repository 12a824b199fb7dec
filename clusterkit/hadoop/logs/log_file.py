"""One log file of a container, and the form it is printed in."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, Literal

import msgspec

from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""The names of the months as Java prints them in English."""

_STARS = 50


class DamagedLogError(ClusterError):
    """A collected log file cannot be read (whole)."""


class LogFile(msgspec.Struct, frozen=True, eq=False):
    """One log file of a container.

    Parameters
    ----------
    container_id : str
        Whose.
    node : str
        Where it ran: the name of the aggregated file (`host_port`), or `host:port` while it runs.
    name : str
        The file's name: `stdout`.
    size : int
        Its size in bytes.
    modified : datetime or None
        When it was last written (TFile keeps only when the node's logs were collected); aware, None if unknown.
    source : {"AGGREGATED", "LOCAL"}
        Read from HDFS, or from the node.
    open : callable
        Yields the content.
    """

    container_id: str
    node: str
    name: str
    size: int
    modified: datetime | None
    source: Literal["AGGREGATED", "LOCAL"]
    open: Callable[[], Iterator[bytes]]

    def chunks(self) -> Iterator[bytes]:
        """Yield the content as it arrives; once, and before the next log file is asked for."""
        return self.open()

    def lines(self) -> Iterator[bytes]:
        """Yield the content line by line, without the line ends."""
        rest = b""
        for chunk in self.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        if rest:
            yield rest


class Selection(msgspec.Struct, frozen=True):
    """Which log files are wanted.

    Parameters
    ----------
    containers : tuple of str
        Container ids; all when empty.
    names : tuple of str
        File names, or patterns such as `std*`; all when empty.
    """

    containers: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def takes_container(self, container_id: str) -> bool:
        """Return whether logs of this container are wanted."""
        return not self.containers or container_id in self.containers

    def takes(self, container_id: str, name: str) -> bool:
        """Return whether this log file is wanted."""
        named = not self.names or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names)
        return named and self.takes_container(container_id)


class Match(msgspec.Struct, frozen=True):
    """A line that a pattern was found in; `line` counts from 1."""

    container_id: str
    node: str
    name: str
    line: int
    text: bytes


def write(files: Iterable[LogFile], out: BinaryIO) -> int:
    """Print log files as `yarn logs` does, and return how many there were.

    Parameters
    ----------
    files : iterable of LogFile
        What to print, in order.
    out : binary file
        Where to.

    Raises
    ------
    DamagedLogError
        At the end, if a log file could not be read to its end; the others were printed.
    """
    count = 0
    damaged: list[DamagedLogError] = []
    for file in files:
        count += 1
        out.write(header(file))
        try:
            out.writelines(file.chunks())
        except DamagedLogError as exc:
            damaged.append(exc)
        out.write(footer(file))
        out.flush()
    if damaged:
        raise damaged[0]
    return count


def header(file: LogFile) -> bytes:
    """Return what `yarn logs` prints before a log's content."""
    title = f"Container: {file.container_id} on {file.node}"
    return (
        f"{title}\nLogAggregationType: {file.source}\n{'=' * _length(title)}\n"
        f"LogType:{file.name}\nLogLastModifiedTime:{_time(file.modified)}\nLogLength:{file.size}\nLogContents:\n"
    ).encode(errors="replace")


def footer(file: LogFile) -> bytes:
    """Return what `yarn logs` prints after a log's content."""
    end = f"End of LogType:{file.name}"
    return f"\n{end}\n{'*' * (_length(end) + _STARS)}\n\n".encode(errors="replace")


def grep(files: Iterable[LogFile], pattern: str) -> Iterator[Match]:
    """Yield the lines of log files that a regular expression is found in.

    Raises
    ------
    re.error
        If the pattern is no regular expression.
    """
    expression = re.compile(pattern.encode())
    for file in files:
        for number, line in enumerate(file.lines(), 1):
            if expression.search(line):
                yield Match(file.container_id, file.node, file.name, number, line)


def _length(text: str) -> int:
    """Return a text's length as Java counts it: in units of UTF-16."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _time(moment: datetime | None) -> str:
    """Return a time of this machine's zone as Java's `EEE MMM dd HH:mm:ss Z yyyy` prints it in English."""
    if moment is None:
        return "N/A"
    local = moment.astimezone()
    return f"{_DAYS[local.weekday()]} {MONTHS[local.month - 1]} {local:%d %H:%M:%S %z %Y}"
