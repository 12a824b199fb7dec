"""A deterministic tar stream, in blocks of one size.

The stream depends on nothing but names, kinds, modes and bytes: owner 0 without a name, one time for all, GNU format.
Its headers are those that `tarfile` writes, made six times faster; files are read straight into the blocks.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterkit.environments.tree import File, Link
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.environments.scan import Scan, Search

BLOCK_BYTES = 1 << 20
"""How much of the stream is handed on at once."""

MTIME_S = 315_619_200
"""The time of every entry, 2 January 1980: the earliest day that zip files can hold in every time zone."""

_RECORD_BYTES = 512
_NAME_BYTES = 100
_OCTAL_LIMIT = 8**11  # bytes; a larger size is written in binary, as GNU tar does
_FILE, _LINK, _DIRECTORY, _LONG_NAME, _LONG_TARGET = b"0", b"2", b"5", b"L", b"K"


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that holds nothing; any other is there with what it holds."""

    path: str
    package: str = ""


Entry = File | Link | Directory


def contents_on_disk(file: File) -> bytes | None:
    """Return the bytes of a file that is not on disk; None for one whose bytes are to be read from there."""
    return file.source if isinstance(file.source, bytes) else None


class TarStream:
    """Entries in, blocks of a tar stream out.

    Parameters
    ----------
    hand_on : callable
        Takes each block when it is full, and the last one as it is.
    contents : callable
        Returns the bytes of a file that do not stand on disk as they shall be packed, or None.
    scan : Scan or None
        Looks at all that is packed.
    """

    def __init__(
        self,
        hand_on: Callable[[memoryview], None],
        contents: Callable[[File], bytes | None] = contents_on_disk,
        scan: Scan | None = None,
    ) -> None:
        self._hand_on = hand_on
        self._contents = contents
        self._scan = scan
        self._begin_block()

    def add(self, entry: Entry) -> int:
        """Append an entry and return the bytes of its content.

        Raises
        ------
        ImageError
            If its file cannot be read, or is not what it was when the tree was read.
        """
        if isinstance(entry, Link):
            self._put(header(os.fsencode(entry.path), 0o777, 0, _LINK, os.fsencode(entry.target)))
            return 0
        if isinstance(entry, Directory):
            self._put(header(os.fsencode(entry.path) + b"/", 0o755, 0, _DIRECTORY))
            return 0
        try:
            data = self._contents(entry)
            return self._add_from_disk(entry) if data is None else self._add_bytes(entry, data)
        except OSError as exc:
            raise _unreadable(entry, exc) from exc

    def close(self) -> None:
        """Append the end of the archive and hand on what is left."""
        self._put(bytes(2 * _RECORD_BYTES))
        if self._filled:
            self._hand_on(self._view[: self._filled])

    def _add_bytes(self, file: File, data: bytes) -> int:
        search = self._search(file)
        if search:
            search.feed(data, 0, len(data), last=True)
        self._put(header(os.fsencode(file.path), file.mode, len(data), _FILE))
        self._put(data)
        self._pad(len(data))
        return len(data)

    def _add_from_disk(self, file: File) -> int:
        descriptor = os.open(
            file.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        )  # nonblocking: a pipe must not hang
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode) or before.st_size != file.size_bytes:
                raise _changed(file)
            self._put(header(os.fsencode(file.path), file.mode, file.size_bytes, _FILE))
            self._read(descriptor, file)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _changed(file)
        self._pad(file.size_bytes)
        return file.size_bytes

    def _read(self, descriptor: int, file: File) -> None:
        left, search = file.size_bytes, self._search(file)
        while left:
            start = self._filled
            got = os.readv(descriptor, [self._view[start : min(start + left, BLOCK_BYTES)]])
            if not got:
                raise _changed(file)
            left -= got
            if search:
                search.feed(self._block, start, start + got, last=not left)
            self._advance(got)

    def _search(self, file: File) -> Search | None:
        return self._scan.search(file) if self._scan else None

    def _pad(self, size_bytes: int) -> None:
        self._put(bytes(-size_bytes % _RECORD_BYTES))

    def _put(self, data: bytes) -> None:
        done, size_bytes = 0, len(data)
        while done < size_bytes:
            start = self._filled
            part = min(size_bytes - done, BLOCK_BYTES - start)
            self._view[start : start + part] = data[done : done + part] if part < size_bytes else data
            done += part
            self._advance(part)

    def _advance(self, size_bytes: int) -> None:
        self._filled += size_bytes
        if self._filled == BLOCK_BYTES:
            self._hand_on(self._view)
            self._begin_block()

    def _begin_block(self) -> None:
        self._block = bytearray(BLOCK_BYTES)
        self._view = memoryview(self._block)
        self._filled = 0


def header(path: bytes, mode: int, size_bytes: int, kind: bytes, target: bytes = b"") -> bytes:
    """Return the header of an entry, with what carries a name or target of more than 100 bytes before it."""
    long = b""
    if len(target) > _NAME_BYTES:
        long += _long(target, _LONG_TARGET)
    if len(path) > _NAME_BYTES:
        long += _long(path, _LONG_NAME)
    return long + _record(path, mode, size_bytes, kind, target, b"%011o\0" % MTIME_S)


def _long(name: bytes, kind: bytes) -> bytes:
    text = name + b"\0"
    return (
        _record(b"././@LongLink", 0, len(text), kind, b"", b"00000000000\0") + text + bytes(-len(text) % _RECORD_BYTES)
    )


def _record(path: bytes, mode: int, size_bytes: int, kind: bytes, target: bytes, mtime: bytes) -> bytes:
    size = b"%011o\0" % size_bytes if size_bytes < _OCTAL_LIMIT else b"\x80" + size_bytes.to_bytes(11, "big")
    before = path[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0") + b"%07o\0" % mode + b"0000000\0" * 2 + size + mtime
    after = kind + target[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0") + b"ustar  \0"
    checksum = sum(before) + sum(after) + 8 * ord(" ")
    return (before + b"%06o\0 " % checksum + after).ljust(_RECORD_BYTES, b"\0")


def _changed(file: File) -> ImageError:
    return ImageError(
        f"the file {file.path!r}{_of(file)} was not packed",
        why=f"{_place(file)} changed while the environment was packed",
        mend="let no other program install into the environment, and repeat `clusterkit env build`",
    )


def _unreadable(file: File, exc: OSError) -> ImageError:
    if isinstance(exc, FileNotFoundError):
        why, mend = "vanished while the environment was packed", "build the image again"
    else:
        why, mend = (
            f"cannot be read: {exc.strerror}",
            "make it readable for you (`chmod u+r`), and build the image again",
        )
    return ImageError(f"the file {file.path!r}{_of(file)} was not packed", why=f"{_place(file)} {why}", mend=mend)


def _of(file: File) -> str:
    return f" of {file.package}" if file.package else ""


def _place(file: File) -> str:
    return f"what should be in {file.path!r}" if isinstance(file.source, bytes) else repr(os.fspath(file.source))
