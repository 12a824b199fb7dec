"""One aggregated file: what one node's containers of an application logged."""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from clusterkit.hadoop.logs.log_file import DamagedLogError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

_TAIL_BYTES = 1024 * 1024
_STUMBLES = (
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    RecursionError,
    zlib.error,
)
"""What readers raise on bytes that are not what the format says."""


class Content(Protocol):
    """What can be read of a file at any place."""

    def read_range(self, start: int, size: int | None = None) -> bytes:
        """Return bytes from `start` on, `size` of them or all that follow."""

    def chunks(self, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        """Yield the same bytes as they arrive."""


@dataclass(frozen=True)
class NodeFile:
    """An aggregated file in HDFS.

    Parameters
    ----------
    path : str
        Where it is.
    size : int
        Its size in bytes, >= 0.
    modified : datetime
        When it was written.
    content : Content
        The open file.
    """

    path: str
    size: int
    modified: datetime
    content: Content = field(repr=False)

    @property
    def name(self) -> str:
        """The file's name: the node, `host_port`, with the time of collection for logs that are collected in parts."""
        return self.path.rpartition("/")[2]

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start` on; the end of the file, where the indexes are, is read only once.

        Raises
        ------
        EOFError
            If the file is not that long.
        """
        if start < 0 or size < 0 or start + size > self.size:
            raise EOFError
        tail_start = self.size - len(self._tail)
        if start >= tail_start:
            return self._tail[start - tail_start : start - tail_start + size]
        return self.content.read_range(start, size)

    def pieces(self, start: int, size: int) -> Iterator[bytes]:
        """Yield `size` bytes from `start` on as they arrive.

        Raises
        ------
        EOFError
            If the file is not that long.
        """
        if start < 0 or size < 0 or start + size > self.size:
            raise EOFError
        if start >= self.size - len(self._tail):
            return iter((self.read(start, size),))
        return self.content.chunks(start, size)

    @cached_property
    def _tail(self) -> bytes:
        size = min(self.size, _TAIL_BYTES)
        return self.content.read_range(self.size - size, size) if size else b""

    @contextlib.contextmanager
    def checked(self) -> Iterator[None]:
        """Turn what a reader stumbles over into an error that names the file.

        Raises
        ------
        DamagedLogError
            If the bytes are not what the format says.
        """
        try:
            yield
        except _STUMBLES as exc:
            raise DamagedLogError(
                f"the logs in {self.path} cannot be read",
                why="the file is empty: its node was stopped while it collected the logs"
                if self.size == 0
                else f"the file is damaged: {str(exc) or 'it ends too early'}",
                mend="the logs of the other nodes are not affected; those of this one are lost unless the node still "
                "has them in its log directories (yarn.nodemanager.log-dirs)",
            ) from exc


def decompressed(pieces: Iterator[bytes], compression: str) -> Iterator[bytes]:
    """Yield what pieces hold.

    Parameters
    ----------
    pieces : iterator of bytes
        The compressed bytes.
    compression : {"none", "gz"}
        As `yarn.nodemanager.log-aggregation.compression-type` names it; Hadoop's `gz` is zlib's format.

    Raises
    ------
    ValueError
        If the compression is another one.
    """
    if compression == "none":
        return pieces
    if compression == "gz":
        return _inflated(pieces)
    msg = f"its compression is {compression!r}, which is neither none nor gz"
    raise ValueError(msg)


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Inflate zlib streams that follow one another."""
    inflater = zlib.decompressobj()
    for piece in pieces:
        rest = piece
        while rest:
            yield inflater.decompress(rest)
            rest = inflater.unused_data
            if inflater.eof:
                inflater = zlib.decompressobj()
