"""Remember what was packed from which files, so that what did not change is known by its times and sizes alone."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from clusterkit.environments.manifest import StoredLayer
from clusterkit.environments.tree import File, Link

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from clusterkit.environments.byte_code import ByteCode
    from clusterkit.environments.tar_stream import Entry

_Value = TypeVar("_Value")

_FORMAT = 1
_KEPT = 2000
_SETTLED_NS = 2_000_000_000  # a file that is younger may change again without a new time or size


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that was packed before: its digest and measures, and the newest glibc that its files need."""

    digest: str
    entries: int
    size_bytes: int
    glibc: str = ""


class _Page(msgspec.Struct, kw_only=True):
    format: int = _FORMAT
    layers: dict[str, Known] = {}
    shapes: dict[str, str] = {}
    stored: dict[str, StoredLayer] = {}


class Ledger:
    """What is known about the layers in a directory; it may be lost at any time, and is then found out again.

    Parameters
    ----------
    path : Path
        The file that keeps it, `fingerprints.json`.
    layers : Path
        The directory of the layers' files.
    """

    def __init__(self, path: Path, layers: Path) -> None:
        self._path = path
        self._layers = layers
        self._page = _read(path)
        self._lock = threading.Lock()

    def layer(self, fingerprint: str) -> Known | None:
        """Return the layer that was made of files with this fingerprint, if one was."""
        return self._page.layers.get(fingerprint)

    def expects(self, shape: str) -> str | None:
        """Return the digest of the last layer with these names and sizes: most likely its bytes are the same."""
        return self._page.shapes.get(shape)

    def stored(self, digest: str, kind: str) -> StoredLayer | None:
        """Return the measure of a layer's file, if it is there with the size it had."""
        name = f"{digest}.tar.{kind}"
        known = self._page.stored.get(name)
        with contextlib.suppress(OSError):
            if known and (self._layers / name).stat().st_size == known.size_bytes:
                return known
        return None

    def remember(self, known: Known, *, shape: str, fingerprint: str | None) -> None:
        """Remember a layer; without a fingerprint if its files may change again unseen."""
        with self._lock:
            if fingerprint:
                _put(self._page.layers, fingerprint, known)
            _put(self._page.shapes, shape, known.digest)

    def remember_stored(self, digest: str, kind: str, stored: StoredLayer) -> None:
        """Remember the measure of a layer's file."""
        with self._lock:
            _put(self._page.stored, f"{digest}.tar.{kind}", stored)

    def save(self) -> None:
        """Write it down; what cannot be written is found out again the next time."""
        aside = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.partial")
        with contextlib.suppress(OSError):
            aside.write_bytes(msgspec.json.encode(self._page))
            aside.replace(self._path)
        aside.unlink(missing_ok=True)


class Fingerprint:
    """The fingerprint of some entries: equal ones mean equal bytes, as far as times, sizes and inodes tell.

    Parameters
    ----------
    entries : iterable of File, Link and Directory
        What will be packed.
    byte_code : ByteCode
        Knows the sources of byte code: it is packed only while it belongs to its source.
    salt : str
        What else decides about the bytes.
    """

    def __init__(self, entries: Iterable[Entry], byte_code: ByteCode, salt: str) -> None:
        self._byte_code = byte_code
        self._shape = hashlib.sha256(salt.encode())
        self._times = hashlib.sha256()
        self._newest_ns = 0
        for entry in entries:
            self._add(entry)

    @classmethod
    def of(cls, entries: Iterable[Entry], byte_code: ByteCode, salt: str = "") -> Self | None:
        """Return the fingerprint of entries, or None if one of them cannot be looked at."""
        try:
            return cls(entries, byte_code, salt)
        except OSError:
            return None

    @property
    def shape(self) -> str:
        """The digest of names, kinds, modes and sizes."""
        return self._shape.hexdigest()

    @property
    def whole(self) -> str:
        """The digest of the shape, and of times and inodes."""
        return hashlib.sha256(self._shape.digest() + self._times.digest()).hexdigest()

    @property
    def settled(self) -> bool:
        """Whether any change from now on would show: no file is so young that it may change within one tick."""
        return time.time_ns() - self._newest_ns > _SETTLED_NS

    def _add(self, entry: Entry) -> None:
        if not isinstance(entry, File):
            target = entry.target if isinstance(entry, Link) else ""
            self._shape.update(_line(entry.path, type(entry).__name__, target))
            return
        self._shape.update(_line(entry.path, entry.mode, entry.bake, entry.size_bytes))
        self._look_at(entry)
        source = self._byte_code.source(entry)
        if source:
            self._look_at(source)

    def _look_at(self, file: File) -> None:
        if isinstance(file.source, bytes):
            self._times.update(hashlib.sha256(file.source).digest())
            return
        now = file.source.stat()
        self._newest_ns = max(self._newest_ns, now.st_mtime_ns)
        self._times.update(_line(now.st_mtime_ns, now.st_size, now.st_ino, now.st_dev))


def _line(*values: object) -> bytes:
    return repr(values).encode()  # unambiguous, whatever a name holds


def _put(table: dict[str, _Value], key: str, value: _Value) -> None:
    table.pop(key, None)
    table[key] = value
    while len(table) > _KEPT:
        del table[next(iter(table))]


def _read(path: Path) -> _Page:
    try:
        page = msgspec.json.decode(path.read_bytes(), type=_Page)
    except (OSError, msgspec.MsgspecError):
        return _Page()
    return page if page.format == _FORMAT else _Page()
