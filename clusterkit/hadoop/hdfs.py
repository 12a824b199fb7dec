"""HDFS, through hdfs-native: no JVM, every failure an error that says what to do, nothing that waits for ever.

This is the only module that knows hdfs-native.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import queue
import re
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar, cast

import hdfs_native
import msgspec

from clusterkit.errors import ClusterError, ClusterkitError, StoreError
from clusterkit.hadoop.rest import addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from clusterkit.hadoop.configuration import Configuration, Endpoint

CONNECT_S = 1.5
"""Seconds for a NameNode to accept a connection."""

SILENCE_S = 2.5
"""Seconds after which a call that is not answered makes us look whether the NameNode is there at all."""

PROBE_S = 2.0
"""Seconds for a NameNode to answer a small question while a call of ours takes long."""

FAILOVER_S = 30.0
"""Seconds for one NameNode of a pair to become active."""

_SEE_DATANODES = "see which DataNodes live, whether their disks are full, and what their logs say"

STALL_S = 90.0
"""Seconds for the DataNodes to take or give one piece of a file."""

CHUNK_BYTES = 4 * 1024 * 1024
"""How much is read or written at once."""

_PAGE = 1000
_SHARED = 0o1777
_PACKETS = 16  # of 64 KiB: one guarded call for each would cost more than the reading
_T = TypeVar("_T")
_NO_QUOTA = 2**64 - 1
_AS_IT_IS = 2**64 - 1  # -1 to the NameNode; many keep no access times, and refuse to set one
_RPC_ERROR = r'(?s)RPCError\("([\w.$]+)", "(.*)"\)'


class FileStatus(msgspec.Struct, frozen=True):
    """A file or directory: absolute path, size in bytes, mode bits, owner, when it was last changed."""

    path: str
    size: int
    directory: bool
    mode: int
    owner: str
    group: str
    modified: datetime
    replication: int
    block_size: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name


class ContentSummary(msgspec.Struct, frozen=True):
    """What lies under a path: bytes, files, directories; quotas are None where there are none."""

    size: int
    files: int
    directories: int
    space_used: int
    name_quota: int | None
    space_quota: int | None


class MissingPathError(StoreError):
    """A path does not exist."""


class PathExistsError(StoreError):
    """A path exists already."""


class DeniedError(StoreError):
    """HDFS refuses for want of rights."""


class SafeModeError(StoreError):
    """The NameNode is in safe mode, which allows reading only."""


class QuotaError(StoreError):
    """A quota is used up."""


class Hdfs:
    """The default file system of a cluster.

    Parameters
    ----------
    configuration : Configuration
        The cluster's; a nameservice with several NameNodes is understood.

    Notes
    -----
    Paths are absolute (`/a/b`) or whole URIs of this file system. Every method raises `StoreError` where HDFS
    refuses, with the kinds above, and `ClusterError` where no NameNode answers.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.uri = configuration.default_fs
        self.user = configuration.user
        self._namenodes = configuration.namenodes
        self._settings = configuration.expanded() | _patience(len(self._namenodes))
        self._connected: hdfs_native.Client | None = None
        self._lock = threading.Lock()

    def status(self, path: str) -> FileStatus:
        """Return what a path is."""
        return _status(self._call(path, "was not looked at", lambda hdfs, p: hdfs.get_file_info(p)))

    def exists(self, path: str) -> bool:
        """Return whether a path exists."""
        try:
            self.status(path)
        except MissingPathError:
            return False
        return True

    def list(self, path: str, *, recursive: bool = False) -> Iterator[FileStatus]:
        """Yield what is in a directory, in the order of the names' bytes; of a file, the file itself."""
        entries = self._call(path, "was not listed", lambda hdfs, p: iter(hdfs.list_status(p, recursive)))
        while page := self._call(path, "was not listed", lambda *_: tuple(itertools.islice(entries, _PAGE))):
            yield from map(_status, page)

    def mkdirs(self, path: str, *, mode: int = 0o755) -> None:
        """Make a directory and those above it; one that exists is left as it is."""
        self._call(path, "was not made", lambda hdfs, p: hdfs.mkdirs(p, mode, create_parent=True))

    def share(self, path: str) -> None:
        """Make a directory where each user may put things and nobody can take another's away, unless it is there."""
        if self.exists(path):
            return
        parent = str(PurePosixPath(self._bare(path)).parent)
        if not self.exists(parent):
            self.mkdirs(parent)  # a NameNode would give them the mode of the last one
        self.mkdirs(path, mode=_SHARED)

    def open(self, path: str) -> HdfsReader:
        """Open a file for reading at any place."""
        return HdfsReader(self, path, self._call(path, "was not opened", lambda hdfs, p: hdfs.read(p)))

    def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        """Return a file's bytes from `start` on, `size` of them or all that follow."""
        return self.open(path).read_range(start, size)

    def chunks(self, path: str, *, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        """Yield a file's bytes from `start` on, `size` of them or all that follow, as they arrive."""
        return self.open(path).chunks(start, size)

    def write(
        self, path: str, data: bytes | Iterable[bytes], *, overwrite: bool = False, mode: int = 0o644
    ) -> FileStatus:
        """Write a file: aside first, then checked and renamed, so that no reader ever sees a part of it.

        Parameters
        ----------
        path : str
            Where it shall be; directories above it are made.
        data : bytes or iterable of bytes
            The content.
        overwrite : bool
            Replace a file that is there; otherwise that is an error.
        mode : int
            The file's mode bits.

        Raises
        ------
        PathExistsError
            If the path exists and `overwrite` is false.
        """
        if not overwrite and self.exists(path):
            uri = self._shown(path)
            raise PathExistsError(
                f"{uri} was not written",
                why="the path exists already",
                mend="choose another path, or ask to overwrite it",
                uri=uri,
            )
        aside = str(PurePosixPath(self._bare(path)).with_name(f".{uuid.uuid4().hex}.part"))
        try:
            size = self._write_aside(path, aside, (data,) if isinstance(data, bytes) else data, mode)
            self._check(path, aside, size)
            self.rename(aside, path, overwrite=overwrite)
        except BaseException:
            with contextlib.suppress(StoreError, ClusterError):
                self.delete(aside)
            raise
        return self.status(path)

    def put(
        self,
        local: Path,
        path: str,
        *,
        overwrite: bool = False,
        mode: int = 0o644,
        progress: Callable[[int, int], None] | None = None,
    ) -> FileStatus:
        """Copy a local file to HDFS; `progress` is told the bytes written and the whole size."""
        total = local.stat().st_size
        return self.write(path, _told(_file_chunks(local), total, progress), overwrite=overwrite, mode=mode)

    def get(self, path: str, local: Path, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Copy a file of HDFS to a local one, which is replaced once the copy is whole."""
        total = self.status(path).size
        aside = local.with_name(f".{local.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with aside.open("xb") as out:
                for chunk in _told(self.chunks(path), total, progress):
                    out.write(chunk)
            aside.replace(local)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    def delete(self, path: str, *, recursive: bool = False) -> bool:
        """Delete a file or directory and return whether there was one."""
        return bool(self._call(path, "was not deleted", lambda hdfs, p: hdfs.delete(p, recursive)))

    def rename(self, source: str, target: str, *, overwrite: bool = False) -> None:
        """Rename a file or directory in one step; the directory of the target must exist."""
        bare = self._bare(target)
        self._call(source, f"was not renamed to {target}", lambda hdfs, p: hdfs.rename(p, bare, overwrite))

    def set_mode(self, path: str, mode: int) -> None:
        """Set the mode bits."""
        self._call(path, "was not given its mode", lambda hdfs, p: hdfs.set_permission(p, mode))

    def set_owner(self, path: str, *, owner: str | None = None, group: str | None = None) -> None:
        """Set owner, group, or both; only HDFS's superuser may."""
        self._call(path, "was not given its owner", lambda hdfs, p: hdfs.set_owner(p, owner, group))

    def set_replication(self, path: str, copies: int) -> None:
        """Set how many DataNodes shall hold a file; they copy it among themselves in the background."""
        self._call(path, "was not given more copies", lambda hdfs, p: hdfs.set_replication(p, copies))

    def touch(self, path: str) -> None:
        """Set the time a file was last changed to now, by our clock."""
        now_ms = int(time.time() * 1000)
        self._call(path, "was not touched", lambda hdfs, p: hdfs.set_times(p, now_ms, _AS_IT_IS))

    @functools.cached_property
    def superuser(self) -> str:
        """Who owns the root directory: he may do everything."""
        return self.status("/").owner

    def summary(self, path: str) -> ContentSummary:
        """Return what lies under a path, and its quotas."""
        raw = self._call(path, "was not counted", lambda hdfs, p: hdfs.get_content_summary(p))
        return ContentSummary(
            size=raw.length,
            files=raw.file_count,
            directories=raw.directory_count,
            space_used=raw.space_consumed,
            name_quota=None if raw.quota == _NO_QUOTA else raw.quota,
            space_quota=None if raw.space_quota == _NO_QUOTA else raw.space_quota,
        )

    def arrow_filesystem(self) -> Any:
        """Return this file system for pyarrow: `pyarrow.parquet.write_table(table, path, filesystem=...)`."""
        from hdfs_native.fsspec import HdfsFileSystem  # noqa: PLC0415 - pyarrow and fsspec are loaded when wanted
        from pyarrow.fs import FSSpecHandler, PyFileSystem  # noqa: PLC0415

        self.status("/")
        authority = self.uri.removeprefix("hdfs://")
        host, _, port = authority.partition(":")
        inner = HdfsFileSystem(host, int(port) if port else None, skip_instance_cache=True, **self._settings)
        return PyFileSystem(FSSpecHandler(inner))

    def guarded(self, path: str, failure: str, action: Callable[[], _T]) -> _T:
        """Move data of an open file: run one read or write within limits, and translate what it raises."""

        def look_after(waited_s: float) -> None:
            self._look_after(waited_s)
            if waited_s > STALL_S:
                raise self._without_data(path, failure, f"moved no data for {STALL_S:g} s")

        try:
            return _bounded(action, look_after)
        except ClusterkitError:
            raise
        except (FileNotFoundError, FileExistsError) as exc:  # the NameNode's word: somebody deleted it meanwhile
            raise self._translated(path, failure, exc) from exc
        except OSError as exc:
            if not any(_accepts(namenode) for namenode in self._namenodes):
                raise self._unreachable(str(exc)) from exc
            raise self._without_data(path, failure, f"do not answer ({exc})") from exc
        except Exception as exc:
            raise self._translated(path, failure, exc) from exc

    def _write_aside(self, path: str, aside: str, data: Iterable[bytes], mode: int) -> int:
        """Write a file beside its path and return its size; when that fails the file is left open, to be deleted."""
        failure = "was not written"
        options = hdfs_native.WriteOptions(permission=mode, create_parent=True)
        writer = self._call(path, failure, lambda hdfs, _: hdfs.create(aside, options))
        size = 0
        for piece in _pieces(data):
            self.guarded(path, failure, functools.partial(writer.write, piece))
            size += len(piece)
        self.guarded(path, failure, writer.close)
        return size

    def _check(self, path: str, aside: str, size: int) -> None:
        stored = self.status(aside).size
        if stored != size:
            raise StoreError(
                f"{self._shown(path)} was not written",
                why=f"{size} bytes were sent, HDFS holds {stored}",
                mend="try again; the DataNodes' logs say more (`clusterkit cluster logs`)",
                uri=self._shown(path),
            )

    def _call(self, path: str, failure: str, action: Callable[[hdfs_native.Client, str], _T]) -> _T:
        """Run one call of hdfs-native within limits, and translate what it raises."""
        bare = self._bare(path)
        try:
            return _bounded(lambda: action(self._client, bare), self._look_after)
        except ClusterkitError:
            raise
        except Exception as exc:
            raise self._translated(path, failure, exc) from exc

    @property
    def _client(self) -> hdfs_native.Client:
        with self._lock:
            if self._connected is None:
                self._connected = hdfs_native.Client(self.uri, self._in_reach())
            return self._connected

    def _in_reach(self) -> dict[str, str]:
        """Return the settings with the NameNodes that accept connections first: hdfs-native asks them in order."""
        if len(self._namenodes) == 1:
            return self._settings
        service = self.uri.removeprefix("hdfs://")
        ranked = sorted(self._namenodes, key=lambda namenode: not _accepts(namenode))
        return self._settings | {f"dfs.ha.namenodes.{service}": ",".join(str(namenode.id) for namenode in ranked)}

    def _look_after(self, waited_s: float) -> None:
        """Raise if a call that takes long cannot be expected to end."""
        if not any(_accepts(namenode) for namenode in self._namenodes):
            raise self._unreachable(f"no connection within {CONNECT_S:g} s")
        patience_s = 0.0 if len(self._namenodes) == 1 else FAILOVER_S
        if waited_s > patience_s and not self._answers():
            raise self._unreachable(
                "it accepted the connection, but did not answer in time"
                if len(self._namenodes) == 1
                else f"none of {_addresses(self._namenodes)} was active within {FAILOVER_S:g} s"
            )

    def _without_data(self, path: str, failure: str, what: str) -> StoreError:
        return StoreError(
            f"{self._shown(path)} {failure}",
            why=f"the DataNodes that hold it {what}",
            mend=_SEE_DATANODES,
            uri=self._shown(path),
        )

    def _answers(self) -> bool:
        probe = hdfs_native.Client(self.uri, self._settings)

        def give_up(_: float) -> None:
            raise TimeoutError

        try:
            _bounded(lambda: probe.get_file_info("/"), give_up, PROBE_S)
        except (OSError, RuntimeError):
            return False
        return True

    def _bare(self, path: str) -> str:
        """Return the path without scheme and authority.

        Raises
        ------
        StoreError
            If it is relative, or on another file system.
        """
        bare = path.removeprefix(self.uri).removeprefix("hdfs://") if path.startswith("hdfs:") else path
        if path.startswith("hdfs:/") and not path.startswith("hdfs://"):
            bare = path.removeprefix("hdfs:")
        if bare.startswith("/") or (path == self.uri and not bare):
            return bare or "/"
        raise StoreError(
            f"{path!r} is no path of {self.uri}",
            why="it is on another file system" if "://" in path else "it is relative, and nothing says to what",
            mend=f"write it from the root on: /dir/file or {self.uri}/dir/file",
            uri=path,
        )

    def _shown(self, path: str) -> str:
        return f"{self.uri}{self._bare(path)}"

    def _unreachable(self, why: str) -> ClusterError:
        first = self._namenodes[0]
        return ClusterError(
            f"HDFS at {_addresses(self._namenodes)} does not answer",
            why=why,
            mend="see whether the NameNode runs (`clusterkit cluster status` for a cluster of this machine), and check "
            "fs.defaultFS in core-site.xml",
            host=first.host,
            port=first.port,
        )

    def _translated(self, path: str, failure: str, exc: Exception) -> ClusterError | StoreError:
        """Say in our terms what hdfs-native raised."""
        java, message = _remote(exc)
        uri = self._shown(path)
        for row in _TABLE:
            if java in row.java or isinstance(exc, row.raised) or (row.pattern and re.search(row.pattern, message)):
                return row.kind(f"{uri} {failure}", why=row.why or message, mend=row.mend, uri=uri)
        if isinstance(exc, OSError):
            return self._unreachable(message)
        return StoreError(
            f"{uri} {failure}",
            why=message,
            mend="the NameNode's log says more (`clusterkit cluster logs`)",
            uri=uri,
        )


class HdfsReader(io.RawIOBase):
    """A file of HDFS, open for reading: a binary file object that also reads at a place without moving."""

    def __init__(self, hdfs: Hdfs, path: str, inner: hdfs_native.FileReader) -> None:
        super().__init__()
        self._hdfs = hdfs
        self._path = path
        self._inner = inner
        self._place = 0

    def __len__(self) -> int:
        return len(self._inner)

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def tell(self) -> int:
        """Return the place the next `read` starts at."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the place the next `read` starts at, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: len(self)}[whence]
        self._place = max(base + offset, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the current place on and return how many bytes there were."""
        view = memoryview(buffer).cast("B")
        data = self.read_range(self._place, len(view))
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Return everything from the current place on."""
        data = self.read_range(self._place, None)
        self._place += len(data)
        return data

    def read_range(self, start: int, size: int | None = None) -> bytes:
        """Return bytes from `start` on, `size` of them or all that follow; the place does not move."""
        length = self._length(start, size)
        if not length:
            return b""
        return self._hdfs.guarded(self._path, "was not read", lambda: self._inner.read_range(start, length))

    def chunks(self, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        """Yield bytes from `start` on, `size` of them or all that follow, as they arrive."""
        length = self._length(start, size)
        stream = iter(self._inner.read_range_stream(start, length)) if length else iter(())
        while chunk := self._packets(stream):
            yield chunk

    def _packets(self, stream: Iterator[bytes]) -> bytes:
        some = functools.partial(itertools.islice, stream, _PACKETS)
        return self._hdfs.guarded(self._path, "was not read", lambda: b"".join(some()))

    def _length(self, start: int, size: int | None) -> int:
        left = max(len(self) - start, 0)
        return left if size is None else min(size, left)


class _Row(msgspec.Struct, frozen=True):
    """How one refusal is recognised, and what we make of it; `why` is what HDFS said where it is empty."""

    kind: type[StoreError]
    mend: str
    java: frozenset[str] = frozenset()
    raised: tuple[type[Exception], ...] = ()
    pattern: str = ""
    why: str = ""


_TABLE = (
    _Row(
        StoreError,
        "choose a path that is a file",
        pattern=r"is not a file",
    ),
    _Row(
        MissingPathError,
        "check the path",
        java=frozenset({"FileNotFoundException"}),
        raised=(FileNotFoundError,),
        why="there is no such file or directory",
    ),
    _Row(
        PathExistsError,
        "choose another path, or ask to overwrite it",
        java=frozenset({"FileAlreadyExistsException"}),
        raised=(FileExistsError,),
        why="the path exists already",
    ),
    _Row(
        DeniedError,
        "ask its owner for the right, or use a path of your own",
        java=frozenset({"AccessControlException", "AuthorizationException"}),
    ),
    _Row(
        SafeModeError,
        "wait until the NameNode leaves safe mode; when it stays in it, see which DataNodes are missing",
        java=frozenset({"SafeModeException"}),
    ),
    _Row(
        QuotaError,
        "delete what is not needed, or have the quota raised",
        java=frozenset({"DSQuotaExceededException", "NSQuotaExceededException", "QuotaByStorageTypeExceededException"}),
    ),
    _Row(
        StoreError,
        "choose a path whose parents are directories",
        java=frozenset({"ParentNotDirectoryException"}),
    ),
    _Row(
        StoreError,
        "delete it with what is in it, or empty it first",
        java=frozenset({"PathIsNotEmptyDirectoryException"}),
        why="the directory is not empty",
    ),
    _Row(
        StoreError,
        "use a cluster without Kerberos until clusterkit's secured mode arrives",
        pattern=r"(?i)GSSAPI|Kerberos|SIMPLE authentication is not enabled|SASL",
    ),
    _Row(
        StoreError,
        _SEE_DATANODES,
        pattern=r"(?i)could only be written to|DataTransfer|data ?node|BlocksNotFound",
    ),
)
"""The one table of this door; the first row that fits is taken."""


def _remote(exc: Exception) -> tuple[str, str]:
    """Return the Java class, without its package, and the first line of the message of what hdfs-native raised."""
    text = str(exc)
    match = re.match(_RPC_ERROR, text)
    java, message = (match[1].rpartition(".")[2], match[2]) if match else ("", text)
    first = re.split(r"\\n|\n", message, maxsplit=1)[0].strip().replace('\\"', '"')
    return java, _short(first) or type(exc).__name__


def _short(message: str) -> str:
    """Name the DataNodes in a message that holds everything that is known of them."""
    datanodes = [f"{host}:{port}" for host, port in re.findall(r'ip_addr: "([^"]+)".*?xfer_port: (\d+)', message)]
    return f"all DataNodes that hold it failed ({', '.join(datanodes)})" if datanodes else message


def _patience(namenodes: int) -> dict[str, str]:
    """Return how often hdfs-native asks again: it never stops by itself with its own defaults.

    Tries are about a second apart at most; a pair gets the time that a failover takes.
    """
    return {
        "dfs.client.failover.max.attempts": "2" if namenodes == 1 else str(int(FAILOVER_S)),
        "dfs.client.failover.sleep.base.millis": "200",
        "dfs.client.failover.sleep.max.millis": "1000",
    }


def _bounded(action: Callable[[], _T], look_after: Callable[[float], None], silence_s: float = SILENCE_S) -> _T:
    """Run a call that cannot be interrupted; whenever it was silent for a while, let `look_after` end the wait."""
    results: queue.SimpleQueue[tuple[_T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put((action(), None))
        except BaseException as exc:  # noqa: BLE001 - handed to the caller's thread, whatever it is
            results.put((None, exc))

    started = time.monotonic()
    threading.Thread(target=work, daemon=True).start()
    while True:
        try:
            result, failure = results.get(timeout=silence_s)
        except queue.Empty:
            look_after(time.monotonic() - started)
            continue
        if failure is not None:
            raise failure
        return cast("_T", result)


def _accepts(namenode: Endpoint) -> bool:
    deadline = time.monotonic() + CONNECT_S
    with contextlib.suppress(OSError):
        for address in addresses(namenode.host, namenode.port, CONNECT_S):
            socket.create_connection((address, namenode.port), max(deadline - time.monotonic(), 0.01)).close()
            return True
    return False


def _addresses(namenodes: Iterable[Endpoint]) -> str:
    return " and ".join(f"{namenode.host}:{namenode.port}" for namenode in namenodes)


def _status(raw: hdfs_native.FileStatus) -> FileStatus:
    return FileStatus(
        path=raw.path,
        size=raw.length,
        directory=raw.isdir,
        mode=raw.permission,
        owner=raw.owner,
        group=raw.group,
        modified=datetime.fromtimestamp(raw.modification_time / 1000, UTC),
        replication=raw.replication or 0,
        block_size=raw.blocksize or 0,
    )


def _pieces(data: Iterable[bytes]) -> Iterator[bytes]:
    """Yield data in pieces that are small enough for one guarded write; hdfs-native copies a view byte by byte."""
    for chunk in data:
        for start in range(0, len(chunk), CHUNK_BYTES):
            yield chunk if len(chunk) <= CHUNK_BYTES else bytes(chunk[start : start + CHUNK_BYTES])


def _file_chunks(local: Path) -> Iterator[bytes]:
    with local.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            yield chunk


def _told(chunks: Iterable[bytes], total: int, progress: Callable[[int, int], None] | None) -> Iterator[bytes]:
    """Pass chunks on, and tell `progress` after each how far it is."""
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        if progress is not None:
            progress(done, total)
