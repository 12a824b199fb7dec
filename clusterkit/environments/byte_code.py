"""Byte code that is valid wherever its source is unpacked.

A `.pyc` usually names the time and size of its source, and no node restores times. Packed byte code names the hash of
its source instead and is not checked when it is loaded (PEP 552), which also spares the node a look at the source. So
it must belong to its source here: what does not is left out, and Python compiles that module anew.

References
----------
PEP 552, "Deterministic pycs"; the header is magic number, flags, and either time and size or SipHash-1-3 of the source.
"""

from __future__ import annotations

import _imp
import os
import re
from typing import TYPE_CHECKING

from clusterkit.environments.tar_stream import contents_on_disk

if TYPE_CHECKING:
    from clusterkit.environments.tree import File, Tree

_CACHED = re.compile(r"((?:.*/)?)__pycache__/([^/]+?)\.(cpython-\d+)(?:\.opt-[12])?\.pyc", re.DOTALL)
_IN_CACHE = re.compile(r"(?:.*/)?__pycache__/[^/]+\.pyc", re.DOTALL)
_HEADER_BYTES = 16
_TIMED, _HASHED = 0, 0b01  # flags; 0b11 is hashed, and checked at each load
_MASK = 0xFFFFFFFF


class ByteCode:
    """The byte code of a tree.

    Parameters
    ----------
    tree : Tree
        The environment.
    """

    def __init__(self, tree: Tree) -> None:
        self._tag = f"cpython-{tree.minor.replace('.', '')}"
        self._files = {file.path: file for file in tree.files}

    def source(self, file: File) -> File | None:
        """Return the source of byte code in a `__pycache__`; None for any other file, and where it is missing."""
        cached = _CACHED.fullmatch(file.path)
        return self._files.get(f"{cached[1]}{cached[2]}.py") if cached else None

    def belongs(self, file: File) -> bool:
        """Say whether a file is byte code that belongs to its source, or no byte code of a `__pycache__` at all.

        Raises
        ------
        OSError
            If it cannot be read, or its source cannot.
        """
        if not _IN_CACHE.fullmatch(file.path):
            return True
        cached, source = _CACHED.fullmatch(file.path), self.source(file)
        return (
            cached is not None
            and cached[3] == self._tag
            and source is not None
            and source.bake is None  # compiled with the prefix of this machine
            and _is_current(_head(file), source)
        )

    def contents(self, file: File) -> bytes | None:
        """Return the bytes of byte code as they are packed; None for a file that is packed as it stands on disk."""
        source = self.source(file)
        if source is None:
            return contents_on_disk(file)
        data = file.read()
        return data[:4] + _HASHED.to_bytes(4, "little") + _hash(data[:4], source) + data[_HEADER_BYTES:]


def _head(file: File) -> bytes:
    if isinstance(file.source, bytes):
        return file.source[:_HEADER_BYTES]
    descriptor = os.open(file.source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _HEADER_BYTES)
    finally:
        os.close(descriptor)


def _is_current(head: bytes, source: File) -> bool:
    if len(head) < _HEADER_BYTES:
        return False
    if int.from_bytes(head[4:8], "little") != _TIMED:
        return head[8:] == _hash(head[:4], source)
    if isinstance(source.source, bytes):
        return False
    now = source.source.stat()
    mtime, size = int.from_bytes(head[8:12], "little"), int.from_bytes(head[12:], "little")
    return (mtime, size) == (int(now.st_mtime) & _MASK, now.st_size & _MASK)


def _hash(magic: bytes, source: File) -> bytes:
    return _imp.source_hash(int.from_bytes(magic, "little"), source.read())
