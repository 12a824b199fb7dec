"""A store in a directory of this machine: where images are built, and kept for the next time."""

from __future__ import annotations

import contextlib
import errno
import getpass
import os
import pwd
import stat
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.errors import StoreError
from clusterkit.hadoop.hdfs import (
    CHUNK_BYTES,
    DeniedError,
    FileStatus,
    MissingPathError,
    PathExistsError,
    QuotaError,
)
from clusterkit.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterkit.store.blob import Blob

_OURS = 0o700


class DirectoryStore(Store):
    """A store in a directory, for one user: nothing in it can be read by others.

    Parameters
    ----------
    path : Path
        The directory; it is made, with mode 0700, when something is put.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(LocalFiles(), str(path.absolute()))
        self.path = path

    def file(self, blob: Blob) -> Path:
        """Return where a layer or archive is.

        Raises
        ------
        StoreError
            If it is not there, or not whole.
        """
        found = self.locate(blob)
        if found is not None:
            return Path(found.path)
        path = self.places(blob)[0]
        raise StoreError(
            f"{blob.what} cannot be read",
            why=f"{path} is not there, or not {blob.size_bytes} bytes long",
            mend="build the environment again: `clusterkit env build`",
            uri=path,
        )

    def places(self, blob: Blob) -> tuple[str, ...]:
        """Return where it may be: a directory of one user has but one place."""
        return (f"{self.root}/{blob.directory}/{blob.name}",)


class LocalFiles:
    """The files of this machine, as a store sees them: what it makes is for this user alone."""

    uri = ""
    superuser = "root"

    @property
    def user(self) -> str:
        """Who we are."""
        try:
            return getpass.getuser()
        except (KeyError, OSError):
            return str(os.getuid())

    def status(self, path: str) -> FileStatus:
        """Return what a path is."""
        with _translated(path, "was not looked at"):
            return _status(Path(path))

    def list(self, path: str, *, recursive: bool = False) -> Iterator[FileStatus]:
        """Yield what is in a directory, in the order of the names' bytes."""
        with _translated(path, "was not listed"):
            entries = sorted(Path(path).iterdir(), key=lambda entry: os.fsencode(entry.name))
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # gone since
                status = _status(entry)
                yield status
                if recursive and status.directory:
                    yield from self.list(status.path, recursive=True)

    def chunks(self, path: str) -> Iterator[bytes]:
        """Yield a file's bytes."""
        with _translated(path, "was not read"), Path(path).open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                yield chunk

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        with _translated(path, "was not read"):
            return Path(path).read_bytes()

    def write(
        self, path: str, data: bytes | Iterable[bytes], *, overwrite: bool = False, mode: int = 0o644
    ) -> FileStatus:
        """Write a file aside and rename it; one that is there is an error unless asked for."""
        if not overwrite and Path(path).exists():
            raise _exists(path, "was not written")
        aside = Path(path).with_name(f".{uuid.uuid4().hex}.part")
        try:
            with _translated(path, "was not written"):
                _write(aside, data, mode & _OURS)
                if overwrite:
                    aside.replace(path)
                else:
                    _rename(aside, Path(path))
        finally:
            aside.unlink(missing_ok=True)
        return self.status(path)

    def share(self, path: str) -> None:
        """Make a directory, unless it is there."""
        self.mkdirs(path)

    def mkdirs(self, path: str, *, mode: int = 0o755) -> None:
        """Make a directory, unless it is there; those above it that are missing are for this user alone, too."""
        with _translated(path, "was not made"):
            if not Path(path).parent.exists():
                self.mkdirs(str(Path(path).parent), mode=mode)
            Path(path).mkdir(mode=mode & _OURS, exist_ok=True)

    def rename(self, source: str, target: str) -> None:
        """Rename a file or directory in one step; a target that is there is an error."""
        with _translated(source, f"was not renamed to {target}"):
            _rename(Path(source), Path(target))

    def delete(self, path: str, *, recursive: bool = False) -> bool:
        """Delete a file or directory and return whether there was one."""
        target = Path(path)
        with _translated(path, "was not deleted"):
            if target.is_dir() and not target.is_symlink():
                for entry in target.iterdir() if recursive else ():
                    self.delete(str(entry), recursive=True)
                target.rmdir()
                return True
            try:
                target.unlink()
            except FileNotFoundError:
                return False
            return True

    def touch(self, path: str) -> None:
        """Set the time a file was last changed to now."""
        with _translated(path, "was not touched"):
            os.utime(path)

    def set_replication(self, path: str, copies: int) -> None:
        """Do nothing: a directory has one copy."""


def _write(aside: Path, data: bytes | Iterable[bytes], mode: int) -> None:
    size = 0
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
        for chunk in (data,) if isinstance(data, bytes) else data:
            size += out.write(chunk)
    if aside.stat().st_size != size:
        raise OSError(errno.EIO, f"{size} bytes were written, {aside.stat().st_size} are there")


def _rename(source: Path, target: Path) -> None:
    """Rename without ever replacing: a file by a second link, where the file system has them."""
    if source.is_dir():
        source.rename(target)
        return
    try:
        target.hardlink_to(source)
    except OSError as exc:
        if exc.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}:
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from exc
        source.rename(target)
        return
    source.unlink()


def _status(path: Path) -> FileStatus:
    found = path.lstat()
    return FileStatus(
        path=str(path),
        size=found.st_size,
        directory=stat.S_ISDIR(found.st_mode),
        mode=stat.S_IMODE(found.st_mode),
        owner=_name_of(found.st_uid),
        group=str(found.st_gid),
        modified=datetime.fromtimestamp(found.st_mtime_ns / 1e9, UTC),
        replication=1,
        block_size=found.st_blksize,
    )


def _name_of(uid: int) -> str:
    if uid == os.getuid():
        return LocalFiles().user
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _exists(path: str, failure: str) -> PathExistsError:
    return PathExistsError(
        f"{path} {failure}",
        why="the path exists already",
        mend="choose another path, or delete what is there",
        uri=path,
    )


@contextlib.contextmanager
def _translated(path: str, failure: str) -> Iterator[None]:
    """Say in the store's terms what the operating system refuses."""
    try:
        yield
    except FileNotFoundError as exc:
        raise MissingPathError(
            f"{path} {failure}", why=f"{exc.filename or path} does not exist", mend="check the path", uri=path
        ) from exc
    except FileExistsError as exc:
        raise _exists(path, failure) from exc
    except PermissionError as exc:
        raise DeniedError(
            f"{path} {failure}",
            why=f"{exc.strerror or exc}",
            mend="have its owner give you the right, or set cache_dir to a directory of your own",
            uri=path,
        ) from exc
    except OSError as exc:
        if exc.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise _exists(path, failure) from exc
        full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
        raise (QuotaError if full else StoreError)(
            f"{path} {failure}",
            why=exc.strerror or str(exc),
            mend="free space on that disk, or set cache_dir to a directory on another one"
            if full
            else "see whether the disk and the directory are well",
            uri=path,
        ) from exc
