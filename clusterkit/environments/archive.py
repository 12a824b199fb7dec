"""Write a layer: one pass over its files makes the tar stream, its digest, and the compressed forms of it."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from clusterkit.environments.compression import CompressedFile, Format, threads_of_this_machine
from clusterkit.environments.tar_stream import TarStream, contents_on_disk
from clusterkit.environments.tree import File

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from clusterkit.environments.manifest import StoredLayer
    from clusterkit.environments.scan import Scan
    from clusterkit.environments.tar_stream import Entry

_AHEAD = 8  # blocks that are read before the slowest taker had them


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Parameters
    ----------
    digest : str
        The SHA-256 of the uncompressed tar stream.
    entries : int
        How many entries it has.
    size_bytes : int
        The bytes of its files, unpacked.
    stored : mapping of str to StoredLayer
        Each compressed file by its format.
    """

    digest: str
    entries: int
    size_bytes: int
    stored: Mapping[Format, StoredLayer]


@dataclass(frozen=True, slots=True)
class How:
    """How a layer is written.

    Parameters
    ----------
    formats : tuple of str
        The compressed forms, `zst` and `gz`; none to learn the digest alone.
    contents : callable
        Returns the bytes of a file that are not packed as they stand on disk, or None.
    scan : Scan or None
        Looks at all that is packed.
    threads : int
        How many threads compress; as many as this machine has processors when absent. It never changes a byte.
    moved : callable
        Told the bytes of each file, once it was read.
    """

    formats: tuple[Format, ...] = ("zst",)
    contents: Callable[[File], bytes | None] = contents_on_disk
    scan: Scan | None = None
    threads: int = field(default_factory=threads_of_this_machine)
    moved: Callable[[int], None] = lambda _: None


def write(entries: Iterable[Entry], into: Path, how: How | None = None) -> Written:
    r"""Write entries as `{digest}.tar.zst`, `{digest}.tar.gz`, or both, in one pass.

    The same entries give the same files, byte by byte, whatever the order they come in, the number of threads, and the
    times and owners of what is read. The files stand in their place when they are whole, and not before.

    Parameters
    ----------
    entries : iterable of File, Link and Directory
        What the archive holds, each path once.
    into : Path
        The directory for the files; made when missing.
    how : How, optional
        The formats and the rest.

    Returns
    -------
    Written
        The digest and the measures.

    Raises
    ------
    ImageError
        If a file cannot be read or changes meanwhile, or the directory cannot be written; nothing is left then.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> hello = File(path="hello", source=b"hello\n", mode=0o644, size_bytes=6)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     write([hello], Path(directory)).digest[:8], len(list(Path(directory).iterdir()))
    ('ad8d36bb', 1)
    """
    how = how or How()
    ordered = sorted(entries, key=lambda entry: os.fsencode(entry.path))
    expected_bytes = sum(512 + entry.size_bytes if isinstance(entry, File) else 512 for entry in ordered)
    outputs: dict[Format, CompressedFile] = {}
    digest = hashlib.sha256()
    try:
        for kind in how.formats:
            outputs[kind] = CompressedFile(into, kind, threads=how.threads, size_bytes=expected_bytes)
        with _Lanes([digest.update, *(output.write for output in outputs.values())]) as lanes:
            stream = TarStream(lanes.feed, how.contents, how.scan)
            size_bytes = 0
            for entry in ordered:
                moved = stream.add(entry)
                size_bytes += moved
                how.moved(moved)
            stream.close()
        name = digest.hexdigest()
        stored = {kind: output.keep(name) for kind, output in outputs.items()}
    except BaseException:
        for output in outputs.values():
            output.discard()
        raise
    return Written(name, len(ordered), size_bytes, stored)


class _Lanes:
    """Hands every block to every taker, each in a thread of its own, in order and only a few blocks ahead."""

    def __init__(self, takers: Sequence[Callable[[memoryview], None]]) -> None:
        self._takers = [(ThreadPoolExecutor(1), taker) for taker in takers]
        self._pending: deque[list[Future[None]]] = deque()

    def feed(self, block: memoryview) -> None:
        """Hand on a block, and raise what a taker raised at an earlier one."""
        self._pending.append([thread.submit(taker, block) for thread, taker in self._takers])
        if len(self._pending) > _AHEAD:
            self._await_one()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            while self._pending and kind is None:
                self._await_one()
        finally:
            for thread, _taker in self._takers:
                thread.shutdown(cancel_futures=True)

    def _await_one(self) -> None:
        for future in self._pending.popleft():
            future.result()
