"""Unpack a layer without trusting it: whatever an archive says, nothing is written outside of one new directory.

Python's `tarfile` filters are not used: they judge a link by where it points when it is met, cost three times as much
for each file, and know no bounds. A layer needs a small part of tar alone (regular files, directories, relative links,
GNU long names), so everything else is refused by name.
"""

from __future__ import annotations

import os
import stat

from .errors import NodeError

_BLOCK = 512
_END = b"\0" * _BLOCK
_BUFFER_BYTES = 1 << 20
_NAME_BYTES = 4096  # PATH_MAX
_WINDOW_BYTES = 1 << 27  # what zstd allows without --long, so that a frame cannot ask for gigabytes of memory
_OPEN_MODE = 0o755
_FREE_BYTES = 256 << 20  # what an archive may grow to before its ratio counts

_KINDS = {
    b"1": "a hard link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a fifo",
    b"7": "a contiguous file",
    b"S": "a sparse file",
    b"g": "a pax header",
    b"x": "a pax header",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class Source(Protocol):
        """What compressed bytes are read from."""

        def read(self, size: int = -1, /) -> bytes:
            """Return up to `size` bytes, none at the end."""

    class Stream(Protocol):
        """What the tar stream is read from."""

        def readinto(self, buffer: memoryview, /) -> int | None:
            """Read some bytes into the buffer and return how many, 0 at the end."""


class Limits:
    """What an archive may not exceed.

    Parameters
    ----------
    entries : int
        How many files, links and directories.
    size_bytes : int
        The bytes of its files together.
    ratio : int
        How many times larger than its compressed form the tar stream may be, beyond its first 256 MiB.
    """

    __slots__ = ("entries", "ratio", "size_bytes")

    def __init__(self, entries: int, size_bytes: int, ratio: int = 1000) -> None:
        self.entries = entries
        self.size_bytes = size_bytes
        self.ratio = ratio


class Extracted:
    """What was unpacked: how many entries, and the bytes of the files."""

    __slots__ = ("entries", "size_bytes")

    def __init__(self, entries: int, size_bytes: int) -> None:
        self.entries = entries
        self.size_bytes = size_bytes


def extract(
    source: Source,
    into: str | os.PathLike[str],
    limits: Limits,
    *,
    observe: Callable[[memoryview], object] | None = None,
) -> Extracted:
    """Unpack a tar stream, zstd, gzip or plain, into a directory that does not exist yet.

    Parameters
    ----------
    source : binary file
        The archive, read to its end.
    into : path
        The directory that is made; its parent must be writable by nobody else.
    limits : Limits
        The bounds, from the manifest.
    observe : callable, optional
        Called with each piece of the uncompressed stream, in order.

    Returns
    -------
    Extracted
        What was written.

    Raises
    ------
    NodeError
        If the archive is damaged, exceeds the limits, or holds what a layer may not hold. What was written by then
        stays below `into`.
    OSError
        If the file system refuses: full, read-only.
    """
    counted = _Counted(source)
    reader = _Reader(_decompressed(counted), counted, limits, observe)
    writer = _Writer(os.fsencode(os.path.abspath(into)), limits)
    for entry in _entries(reader):
        writer.write(entry, reader)
    reader.drain()
    return Extracted(writer.entries, writer.size_bytes)


def leads_out(name: bytes, target: bytes) -> bool:
    """Say whether a link could lead out of the tree that it is in, alone or with others.

    A target is relative, and `..` stands at its front alone, no more often than the link is deep. The link's directory
    is a real one, so those lead up inside; what follows leads down, through directories or through links of which the
    same is true.

    Examples
    --------
    >>> leads_out(b"lib/libz.so", b"../lib64/libz.so"), leads_out(b"lib/libz.so", b"self/self/../libz.so")
    (False, True)
    """
    up, down = 0, False
    if target[:1] in {b"", b"/"}:
        return True
    for part in target.split(b"/"):
        if part == b"..":
            up += 1
            if down or up > name.count(b"/"):
                return True
        elif part not in {b"", b"."}:
            down = True
    return False


class _Entry:
    """One entry, its name and target checked for form: relative, no `..` in the name."""

    __slots__ = ("kind", "mode", "name", "size", "target")

    def __init__(self, kind: bytes, name: bytes, mode: int, size: int, target: bytes) -> None:
        self.kind = kind
        self.name = name
        self.mode = mode
        self.size = size
        self.target = target


class _Writer:
    """Writes entries below one directory.

    Every directory it enters it has made itself in this run, and no entry goes through a link: a set of names is
    enough to know it, because nobody else can write there.
    """

    def __init__(self, root: bytes, limits: Limits) -> None:
        os.mkdir(root, _OPEN_MODE)
        self._root = root + b"/"
        self._limits = limits
        self._directories = {b""}
        self._taken: set[bytes] = set()
        self._umask_hides = stat.S_IMODE(os.lstat(root).st_mode) != _OPEN_MODE
        self.entries = 0
        self.size_bytes = 0
        if self._umask_hides:
            os.chmod(root, _OPEN_MODE)

    def write(self, entry: _Entry, reader: _Reader) -> None:
        """Write one entry, or refuse it."""
        self._count(entry)
        name = entry.name
        parent = name.rpartition(b"/")[0]
        if parent not in self._directories:
            self._make_directory(parent)
        if name in self._taken or (entry.kind != b"5" and name in self._directories):
            raise _refused(name, "comes twice")
        if entry.kind == b"5":
            self._make_directory(name)
            return
        self._taken.add(name)
        try:
            if entry.kind == b"2":
                if leads_out(name, entry.target):
                    raise _refused(name, f"links to {_shown(entry.target)}, which may lead out of the archive")
                os.symlink(entry.target, self._root + name)
            else:
                self._write_file(entry, reader)
        except FileExistsError as exc:
            raise _refused(name, "is another entry's name on this file system") from exc

    def _count(self, entry: _Entry) -> None:
        self.entries += 1
        self.size_bytes += entry.size
        if self.entries > self._limits.entries:
            raise _too_large(f"it has more than the {self._limits.entries} entries that its manifest names")
        if self.size_bytes > self._limits.size_bytes:
            raise _too_large(f"its files have more than the {self._limits.size_bytes} bytes that its manifest names")

    def _make_directory(self, name: bytes) -> None:
        """Make a directory and those above it; one that an entry has made already is fine."""
        missing = []
        while name not in self._directories:
            if name in self._taken:
                raise _refused(name, "is a file or a link, and another entry goes through it")
            missing.append(name)
            name = name.rpartition(b"/")[0]
        for each in reversed(missing):
            try:
                os.mkdir(self._root + each, _OPEN_MODE)
            except FileExistsError as exc:
                raise _refused(each, "is another entry's name on this file system") from exc
            if self._umask_hides:
                os.chmod(self._root + each, _OPEN_MODE)
            self._directories.add(each)

    def _write_file(self, entry: _Entry, reader: _Reader) -> None:
        mode = 0o755 if entry.mode & 0o100 else 0o644
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._root + entry.name, flags, mode)
        try:
            if self._umask_hides:
                os.fchmod(descriptor, mode)
            reader.copy(entry.size, descriptor)
        finally:
            os.close(descriptor)


def _entries(reader: _Reader) -> Iterator[_Entry]:
    """Yield the entries of a tar stream; the data of a file must be copied before the next one is asked for."""
    name = target = b""
    while (header := reader.take(_BLOCK)) != _END:
        _check_sum(header)
        kind = header[156:157]
        size = _number(header, 124, 136)
        if kind == b"L" and not name:
            name = _long_name(reader, size)
            continue
        if kind == b"K" and not target:
            target = _long_name(reader, size)
            continue
        yield _entry(header, kind, size, name or _short_name(header), target or _text(header, 157, 257))
        name = target = b""


def _entry(header: bytes, kind: bytes, size: int, name: bytes, target: bytes) -> _Entry:
    mode = _number(header, 100, 108)
    if kind == b"5":
        name = name[:-1] if name.endswith(b"/") else name
    elif kind == b"\0":
        kind = b"0"
    if kind not in {b"0", b"2", b"5"}:
        raise _refused(name, f"is {_KINDS.get(kind, 'of an unknown kind')}")
    framed = b"/" + name + b"/"
    if not name or b"//" in framed or b"/../" in framed or b"/./" in framed:
        raise _refused(name, "is no plain relative name")
    if mode & 0o7000 and kind != b"2":
        raise _refused(name, f"has the mode {mode:o}: setuid, setgid or sticky")
    if size and kind != b"0":
        raise _refused(name, "has data, and is no file")
    return _Entry(kind, name, mode, size, target)


def _short_name(header: bytes) -> bytes:
    name = _text(header, 0, 100)
    prefix = _text(header, 345, 500) if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _long_name(reader: _Reader, size: int) -> bytes:
    if not 0 < size <= _NAME_BYTES:
        raise _refused(b"././@LongLink", f"is {size} bytes long")
    data = reader.take(size)
    reader.skip(-size % _BLOCK)
    name = data[:-1] if data.endswith(b"\0") else data
    if not name or b"\0" in name:
        raise _refused(name, "holds a NUL")
    return name


def _text(header: bytes, start: int, stop: int) -> bytes:
    text, _, rest = header[start:stop].partition(b"\0")
    if rest.strip(b"\0"):
        raise _refused(text, "goes on behind a NUL")
    return text


def _number(header: bytes, start: int, stop: int) -> int:
    if header[start] == 0x80:
        return int.from_bytes(header[start + 1 : stop], "big")
    digits = header[start:stop].strip(b"\0 ")
    if digits.strip(b"01234567"):
        raise _damaged("a number of a header is none")
    return int(digits or b"0", 8)


def _check_sum(header: bytes) -> None:
    if sum(header) - sum(header[148:156]) + 8 * 0x20 != _number(header, 148, 156):
        raise _damaged("a header has the wrong sum")


class _Reader:
    """Reads a stream through one buffer, in blocks of tar."""

    def __init__(
        self, stream: Stream, counted: _Counted, limits: Limits, observe: Callable[[memoryview], object] | None
    ) -> None:
        self._stream = stream
        self._counted = counted
        self._limits = limits
        self._observe = observe
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._stop = 0
        self._read = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes, fewer than the buffer holds."""
        while self._stop - self._start < size:
            if not self._fill():
                raise _damaged("it ends early")
        self._start += size
        return bytes(self._buffer[self._start - size : self._start])

    def copy(self, size: int, descriptor: int) -> None:
        """Write the next bytes to a file and skip what fills their last block."""
        left = size
        while left:
            if self._start == self._stop and not self._fill():
                raise _damaged("it ends early")
            here = min(left, self._stop - self._start)
            _write(descriptor, self._buffer[self._start : self._start + here])
            self._start += here
            left -= here
        self.skip(-size % _BLOCK)

    def skip(self, size: int) -> None:
        """Skip less than a block."""
        if size:
            self.take(size)

    def drain(self) -> None:
        """Read what follows the end of the archive: zeros up to a full record, and no more."""
        found = self._stop - self._start
        while found <= _BUFFER_BYTES:
            if self._start != self._stop and self._buffer[self._start : self._stop].tobytes().strip(b"\0"):
                raise _damaged("there is data after its end")
            self._start = self._stop
            if not self._fill():
                return
            found += self._stop - self._start
        raise _damaged("it goes on after its end")

    def _fill(self) -> int:
        """Read on; what is left moves to the front when the buffer is at its end."""
        if self._start:
            self._buffer[: self._stop - self._start] = self._buffer[self._start : self._stop]
            self._start, self._stop = 0, self._stop - self._start
        count = self._stream.readinto(self._buffer[self._stop :]) or 0
        if count and self._observe:
            self._observe(self._buffer[self._stop : self._stop + count])
        self._stop += count
        self._read += count
        if self._read > _FREE_BYTES + self._limits.ratio * self._counted.size_bytes:
            raise _too_large(f"it unpacks to more than {self._limits.ratio} times its size")
        return count


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class _Counted:
    """Counts the compressed bytes, and lets the first of them be looked at."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.magic = source.read(4)
        self._ahead = self.magic
        self.size_bytes = len(self.magic)

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, none at the end."""
        if self._ahead:
            stop = len(self._ahead) if size < 0 else size
            ahead, self._ahead = self._ahead[:stop], self._ahead[stop:]
            return ahead
        data = self._source.read(size)
        self.size_bytes += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        """Read into a buffer, as a stream that is not compressed."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _decompressed(source: _Counted) -> Stream:
    if source.magic == b"\x28\xb5\x2f\xfd":
        return _zstd(source)
    if source.magic[:2] == b"\x1f\x8b":
        return _gzip(source)
    return source


def _zstd(source: _Counted) -> Stream:
    import zstandard  # noqa: PLC0415 - only where a layer is unpacked

    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
    stream = decompressor.stream_reader(
        source,  # type: ignore[arg-type]
        read_size=_BUFFER_BYTES,
        read_across_frames=True,
    )
    return _Guarded(stream, (zstandard.ZstdError,))


def _gzip(source: _Counted) -> Stream:
    import gzip  # noqa: PLC0415 - only where a layer is unpacked
    import zlib  # noqa: PLC0415

    return _Guarded(gzip.GzipFile(fileobj=source), (gzip.BadGzipFile, EOFError, zlib.error))  # type: ignore[call-overload]


class _Guarded:
    """A decompressor whose own errors say that the archive is damaged."""

    def __init__(self, stream: Stream, errors: tuple[type[Exception], ...]) -> None:
        self._stream = stream
        self._errors = errors

    def readinto(self, buffer: memoryview) -> int:
        """Read some bytes into the buffer and return how many, 0 at the end."""
        try:
            return self._stream.readinto(buffer) or 0
        except self._errors as exc:
            raise _damaged(str(exc)) from exc


def _refused(name: bytes, why: str) -> NodeError:
    return NodeError(
        "an archive was refused",
        why=f"its entry {_shown(name)} {why}",
        mend="build the image again with `clusterkit env build`, which writes no such archive",
    )


def _too_large(why: str) -> NodeError:
    return NodeError(
        "an archive was refused",
        why=why,
        mend="build the image again with `clusterkit env build`: the archive is not the one that was built",
    )


def _damaged(why: str) -> NodeError:
    return NodeError(
        "an archive is damaged",
        why=why,
        mend="check the store with `clusterkit env verify`, and build the image again if it finds fault",
    )


def _shown(name: bytes) -> str:
    return ascii(os.fsdecode(name))
