"""Change some files of a tree: new bytes in new files, and records that tell of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from clusterkit.environments.blas import records
from clusterkit.environments.tree import File

if TYPE_CHECKING:
    from pathlib import Path

    from clusterkit.environments.tree import Tree

_IN_MEMORY_BYTES = 64 << 10


class Edit:
    """What shall be changed in a tree; the tree and the files it was read from stay as they are.

    Parameters
    ----------
    tree : Tree
        What is to be changed.
    scratch : Path
        A directory for the bytes of changed files; made when it is needed.
    """

    def __init__(self, tree: Tree, scratch: Path) -> None:
        self._tree = tree
        self._scratch = scratch
        self._files = {file.path: file for file in tree.files}
        self._changed: dict[str, File] = {}
        self._removed: dict[str, File] = {}

    def put(self, path: str, data: bytes, *, package: str, mode: int = 0o644) -> None:
        """Give a path other bytes, or make it."""
        source: Path | bytes = data
        if len(data) > _IN_MEMORY_BYTES:
            source = self._scratch / path
            source.parent.mkdir(parents=True, exist_ok=True)
            source.unlink(missing_ok=True)
            source.write_bytes(data)
            source.chmod(mode)
        self._changed[path] = File(path=path, source=source, mode=mode, size_bytes=len(data), package=package)
        self._removed.pop(path, None)

    def change(self, file: File, data: bytes) -> None:
        """Give a file of the tree other bytes."""
        self.put(file.path, data, package=file.package, mode=file.mode)

    def append(self, path: str, text: str, *, package: str) -> None:
        """Add text to a file, which may be new."""
        before = self._files[path].read() if path in self._files else b""
        self.put(path, before + text.encode(), package=package)

    def remove(self, file: File) -> None:
        """Leave a file out."""
        self._removed[file.path] = file

    def made(self) -> Tree:
        """Return the changed tree; the wheels' records tell of the changes."""
        for record in self._records():
            self.change(record, self._refreshed(record))
        kept = [file for path, file in self._files.items() if path not in self._removed and path not in self._changed]
        files = sorted([*kept, *self._changed.values()], key=lambda file: file.path)
        return dataclasses.replace(self._tree, files=tuple(files))

    def _records(self) -> list[File]:
        packages = {file.package for file in (*self._changed.values(), *self._removed.values()) if file.package}
        return [
            file
            for file in self._tree.files
            if file.package in packages and file.path.endswith(".dist-info/RECORD") and file.path not in self._removed
        ]

    def _refreshed(self, record: File) -> bytes:
        earlier = {file.path: file for file in self._tree.files if file.package == record.package and _is_edited(file)}
        changed = {path: file for path, file in self._changed.items() if file.package == record.package}
        changed = {**{path: file for path, file in earlier.items() if path not in self._removed}, **changed}
        removed = [path for path, file in self._removed.items() if file.package == record.package]
        site = record.path.rpartition("/")[0].rpartition("/")[0]
        return records.refresh(record.read(), site, changed=changed, removed=removed)


def _is_edited(file: File) -> bool:
    """Say whether a file has other bytes than its wheel installed: without a stale path, say."""
    is_installed = not isinstance(file.source, bytes) and str(file.source).endswith(file.path)
    return file.path.endswith(".so") and not is_installed
