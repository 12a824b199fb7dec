"""Compressed files, written aside and renamed: zstd for nodes that run our bootstrap, gzip for YARN itself.

Equal streams, handed over in equal blocks, give equal files with any number of threads: both compressors cut the
stream into jobs of their own size, whichever thread takes them. Another version of zstd, or another processor with
isal, may compress otherwise, which is why a layer is named by its stream and not by its file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

from clusterkit.environments.manifest import StoredLayer
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sized
    from pathlib import Path

Format = Literal["zst", "gz"]

_ZSTD_LEVEL = 2
_ZSTD_MATCH = 7
_ZSTD_WINDOW = range(17, 27)  # powers of two; 64 MiB of memory at most where it is unpacked
_GZIP_LEVEL = 1
_PARTIAL = ".partial"
_ABANDONED_S = 24 * 3600


class Compressor(Protocol):
    """Takes a stream block by block, and writes it to the file it was made for."""

    def write(self, block: memoryview, /) -> Any:
        """Take the next block."""

    def close(self) -> None:
        """Write what is left."""


class CompressedFile:
    """One compressed file in the making.

    Parameters
    ----------
    directory : Path
        Where it will lie; made when missing.
    kind : str
        `zst` or `gz`.
    threads : int
        How many threads compress, >= 1.
    size_bytes : int
        How large the stream will be, roughly.
    """

    def __init__(self, directory: Path, kind: Format, *, threads: int, size_bytes: int) -> None:
        self._aside = directory / f".{secrets.token_hex(8)}.tar.{kind}{_PARTIAL}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = _Measured(self._aside.open("xb"))
        except OSError as exc:
            raise self._unwritable(exc) from exc
        self._kind = kind
        self._compressor = _compressor(self._file, kind, threads, size_bytes)

    def write(self, block: memoryview) -> None:
        """Compress the next block.

        Raises
        ------
        ImageError
            If the file cannot be written: no space, a quota.
        """
        try:
            self._compressor.write(block)
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def keep(self, digest: str) -> StoredLayer:
        """Put the file in its place, `{digest}.tar.{kind}`, and return its measure."""
        try:
            self._compressor.close()
            self._file.close()
            self._aside.replace(self._aside.with_name(f"{digest}.tar.{self._kind}"))
        except OSError as exc:
            raise self._unwritable(exc) from exc
        return StoredLayer(size_bytes=self._file.size_bytes, sha256=self._file.sha256.hexdigest())

    def discard(self) -> None:
        """Leave nothing of it."""
        with contextlib.suppress(Exception):  # what went wrong before has been raised already
            self._compressor.close()
        with contextlib.suppress(OSError):
            self._file.close()
        self._aside.unlink(missing_ok=True)

    def _unwritable(self, exc: OSError) -> ImageError:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            mend = "free some space there, or set `cache_dir` to a larger disk"
        else:
            mend = "make the directory writable for you, or set `cache_dir` to another one"
        return ImageError(
            "the image was not packed", why=f"{self._aside.parent} cannot be written: {exc.strerror or exc}", mend=mend
        )


def remove_abandoned(directory: Path) -> None:
    """Remove what packs that were killed left in a directory, a day later: a younger one may still be written."""
    for aside in directory.glob(f".*{_PARTIAL}"):
        with contextlib.suppress(OSError):
            if time.time() - aside.stat().st_mtime > _ABANDONED_S:
                aside.unlink()


class _Measured:
    """A file that knows what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size_bytes = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self.sha256.update(data)
        self.size_bytes += _length(data)
        return _length(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _length(data: Sized) -> int:
    return data.nbytes if isinstance(data, memoryview) else len(data)


def _compressor(file: _Measured, kind: Format, threads: int, size_bytes: int) -> Compressor:
    return _Zstd(file, threads, size_bytes) if kind == "zst" else _gzip(file, threads)


class _Zstd:
    """Zstandard at level 2 with long-distance matching, and no match shorter than 7 bytes.

    On the libraries of a scientific environment that is as small as level 3 without it, in two thirds of the time: they
    hold the same code for several processors, far apart, and shorter matches cost more than they save.
    """

    def __init__(self, file: _Measured, threads: int, size_bytes: int) -> None:
        import zstandard  # noqa: PLC0415 - only where something is packed

        parameters = zstandard.ZstdCompressionParameters.from_level(
            _ZSTD_LEVEL,
            min_match=_ZSTD_MATCH,
            window_log=min(max(size_bytes.bit_length(), _ZSTD_WINDOW.start), _ZSTD_WINDOW[-1]),
            enable_ldm=True,
            write_checksum=True,
            threads=threads,
        )
        self._stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        self._file = file

    def write(self, block: memoryview) -> None:
        self._file.write(self._stream.compress(block))

    def close(self) -> None:
        self._file.write(self._stream.flush())


def _gzip(file: _Measured, threads: int) -> Compressor:
    """Return a gzip writer whose header holds neither name nor time: isal where it is installed, else the slow one."""
    try:
        from isal import igzip_threaded  # noqa: PLC0415 - an extra
    except ImportError:
        import gzip  # noqa: PLC0415 - the other way

        return gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0)
    compressor: Compressor = igzip_threaded.open(file, "wb", compresslevel=_GZIP_LEVEL, threads=threads)  # type: ignore[no-untyped-call]
    return compressor


def threads_of_this_machine() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
