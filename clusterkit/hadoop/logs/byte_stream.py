"""Reading exact amounts from bytes that arrive in pieces."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class ByteStream:
    """A stream that is read in exact amounts, whatever the size of the pieces it arrives in.

    Parameters
    ----------
    pieces : iterator of bytes
        The content, in order.

    Notes
    -----
    Every method raises `EOFError` when the content ends too early, `ValueError` when asked for less than nothing.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._place = 0

    def ended(self) -> bool:
        """Return whether everything was read."""
        while self._place == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return True
            self._piece, self._place = piece, 0
        return False

    def some(self, limit: int) -> bytes:
        """Return at least one and at most `limit` bytes, as many as are at hand.

        Raises
        ------
        ValueError
            If the limit is less than one: a length that was read is not one.
        """
        if limit < 1:
            msg = f"a length of {limit}"
            raise ValueError(msg)
        if self.ended():
            raise EOFError
        taken = self._piece[self._place : self._place + limit]
        self._place += len(taken)
        return taken

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes in pieces."""
        while size:
            piece = self.some(size)
            size -= len(piece)
            yield piece

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> None:
        """Leave out the next `size` bytes."""
        for _ in self.pieces(size):
            pass

    def skip_rest(self) -> None:
        """Leave out everything that follows."""
        self._piece, self._place = b"", 0
        for _ in self._pieces:
            pass

    def number(self, layout: str) -> int:
        """Return a big-endian number of a `struct` layout: `b`, `H`, `i`, `q`."""
        return int(struct.unpack(f">{layout}", self.read(struct.calcsize(layout)))[0])

    def vlong(self) -> int:
        """Return a number in the variable-length encoding of TFile.

        References
        ----------
        https://hadoop.apache.org/docs/r3.5.0/api/org/apache/hadoop/io/file/tfile/Utils.html#readVLong-java.io.DataInput-
        """
        first = self.number("b")
        if first >= -32:
            return first
        if first >= -72:
            return ((first + 52) << 8) | self.number("B")
        if first >= -104:
            return ((first + 88) << 16) | self.number("H")
        if first >= -120:
            return ((first + 112) << 24) | int.from_bytes(self.read(3), "big")
        return int.from_bytes(self.read(first + 129), "big", signed=True)

    def text(self) -> str:
        """Return a string as Java's `DataOutput.writeUTF` writes it.

        References
        ----------
        https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/io/DataInput.html#modified-utf-8
        """
        return modified_utf8(self.read(self.number("H")))


def modified_utf8(raw: bytes) -> str:
    r"""Decode Java's modified UTF-8: NUL in two bytes, characters beyond U+FFFF as two surrogates.

    Examples
    --------
    >>> modified_utf8(bytes.fromhex("c080eda0bdedb88061"))
    '\x00😀a'

    Raises
    ------
    UnicodeDecodeError
        If it is something else.
    """
    text = raw.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
