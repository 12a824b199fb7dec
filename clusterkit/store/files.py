"""What a store stands on: HDFS, or a directory of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterkit.hadoop.hdfs import FileStatus


class Files(Protocol):
    """The part of a file system that a store needs; `Hdfs` is one, `LocalFiles` another.

    Notes
    -----
    Refusals are the kinds of `StoreError` that `clusterkit.hadoop.hdfs` names.
    """

    @property
    def uri(self) -> str:
        """What stands before a path to make it a URI; empty on this machine."""
        ...

    @property
    def user(self) -> str:
        """Who we are."""
        ...

    @property
    def superuser(self) -> str:
        """Who may do everything."""
        ...

    def status(self, path: str) -> FileStatus:
        """Return what a path is."""
        ...

    def list(self, path: str, *, recursive: bool = False) -> Iterator[FileStatus]:
        """Yield what is in a directory."""
        ...

    def chunks(self, path: str) -> Iterator[bytes]:
        """Yield a file's bytes."""
        ...

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        ...

    def write(
        self, path: str, data: bytes | Iterable[bytes], *, overwrite: bool = False, mode: int = 0o644
    ) -> FileStatus:
        """Write a file aside, check its size and rename it; one that is there is an error unless asked for."""
        ...

    def share(self, path: str) -> None:
        """Make a directory where each user may put things, unless it is there."""
        ...

    def mkdirs(self, path: str, *, mode: int = 0o755) -> None:
        """Make a directory, unless it is there."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename a file or directory in one step; a target that is there is an error."""
        ...

    def delete(self, path: str, *, recursive: bool = False) -> bool:
        """Delete a file or directory and return whether there was one."""
        ...

    def touch(self, path: str) -> None:
        """Set the time a file was last changed to now."""
        ...

    def set_replication(self, path: str, copies: int) -> None:
        """Set how many copies of a file there shall be."""
        ...
