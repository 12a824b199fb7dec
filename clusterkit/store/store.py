"""Put what is not there yet, and find what is.

Whatever is put is written aside, checked by size and SHA-256, and renamed to a name that says what it holds. Of two
that put the same at once, one is renamed and the other is dropped; both succeed. A writer that is killed leaves a file
`.<random>.part`, which counts for nothing and is swept by `gc` once it is a day old.

A layer for everybody has mode 0644 in directories that all may pass, which YARN calls PUBLIC: one copy on each node
serves every user. The user's own code is in a directory of mode 0700, PRIVATE: one copy on each node for that user.

Others can write to the shared directories too, so that a file which is there is only used if it is as long as it has to
be, and either its digest is checked on the node before it is used, or it belongs to ourselves or to HDFS's superuser.
Where the shared place is taken by something else, our own file goes to our private directory; nothing is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from clusterkit.environments.manifest import Manifest
from clusterkit.errors import ClusterkitError, StoreError
from clusterkit.hadoop.hdfs import MissingPathError, PathExistsError, QuotaError
from clusterkit.store.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from clusterkit.hadoop.hdfs import FileStatus
    from clusterkit.store.blob import Blob
    from clusterkit.store.files import Files

_CHUNK_BYTES = 4 * 1024 * 1024
_PRIVATE_DIRECTORY, _PRIVATE_FILE = 0o700, 0o600
_PUBLIC_DIRECTORY, _PUBLIC_FILE = 0o755, 0o644
_OTHERS_READ, _OTHERS_PASS = 0o004, 0o001


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob that is in a store.

    Parameters
    ----------
    blob : Blob
        Which one.
    path, uri : str
        Where it is.
    public : bool
        Whether YARN may keep one copy on a node for all users (visibility PUBLIC; otherwise PRIVATE).
    uploaded : bool
        Whether it was not there before.
    """

    blob: Blob
    path: str
    uri: str
    public: bool
    uploaded: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """A manifest that is written aside, and the directory of the image that it will be."""

    aside: str
    target: str


class Store:
    """The home of layers and manifests; `DirectoryStore` and `HdfsStore` make one.

    Parameters
    ----------
    files : Files
        What it stands on.
    root : str
        Its directory there.
    copies : callable, optional
        Tells how many copies of a shared layer there shall be, once something was uploaded.
    """

    def __init__(self, files: Files, root: str, *, copies: Callable[[], int] | None = None) -> None:
        self.files = files
        self.root = root.rstrip("/")
        self.uri = f"{files.uri}{self.root}"
        self.user = files.user
        self.layout = Layout(self.root, self.user)
        self._copies = copies
        self._made: set[str] = set()
        self._passed: dict[str, bool] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    def locate(self, blob: Blob) -> Stored | None:
        """Return where a blob is, None where it is not; metadata calls only."""
        for path in self.places(blob):
            status = self.status(path)
            if status is not None and self._usable(blob, status):
                return self._stored(blob, status)
        return None

    def has(self, blobs: Iterable[Blob]) -> dict[Blob, Stored]:
        """Return those blobs that are there, and where; metadata calls only."""
        found = ((blob, self.locate(blob)) for blob in blobs)
        return {blob: stored for blob, stored in found if stored is not None}

    def destination(self, blob: Blob) -> str:
        """Return where a blob is, or where a put would put it; metadata calls only."""
        for path in self.places(blob):
            status = self.status(path)
            if status is None or self._usable(blob, status):
                return path
        raise self._taken(blob)

    def put(self, blob: Blob, local: Path | bytes, *, progress: Callable[[int, int], None] | None = None) -> Stored:
        """Put a blob, unless it is there.

        Parameters
        ----------
        blob : Blob
            What the file is.
        local : Path or bytes
            Where its bytes are, or the bytes themselves.
        progress : callable, optional
            Is told how many bytes were written, and how many there are.

        Returns
        -------
        Stored
            Where it is, and whether it was put by this call.

        Raises
        ------
        StoreError
            If the file is not what the blob says, or the store refuses it: for want of rights or space (`QuotaError`),
            or since HDFS is in safe mode.
        """
        for path in self.places(blob):
            status = self.status(path) or self._write(blob, local, path, progress)
            if status is None or self._usable(blob, status):
                return self._stored(blob, status or self.files.status(path), uploaded=status is None)
        raise self._taken(blob)

    def places(self, blob: Blob) -> tuple[str, ...]:
        """Return where a blob may be, the best place first."""
        own = tuple(f"{self.layout.private}/{blob.directory}/{name}" for name in blob.names)
        return own if blob.private else (f"{self.root}/{blob.directory}/{blob.name}", *own)

    def save(self, manifest: Manifest) -> bool:
        """Keep a manifest, which makes an image of layers that are there; return whether it is new.

        Raises
        ------
        StoreError
            If the store refuses it.
        """
        draft = self.draft(manifest)
        try:
            return self.publish(draft)
        finally:
            self.discard(draft)

    def draft(self, manifest: Manifest) -> Draft | None:
        """Write a manifest aside; None where it is there already."""
        target = self.layout.image(manifest.id)
        if self.status(f"{target}/manifest.json") is not None:
            return None
        self.share(self.layout.images)
        draft = Draft(f"{self.layout.images}/.{uuid4().hex}.part", target)
        self.files.mkdirs(draft.aside, mode=_PUBLIC_DIRECTORY)
        try:
            self.files.write(f"{draft.aside}/manifest.json", msgspec.json.encode(manifest), mode=_PUBLIC_FILE)
        except BaseException:
            self.discard(draft)
            raise
        return draft

    def publish(self, draft: Draft | None) -> bool:
        """Make a draft an image, and return whether it is new."""
        if draft is None:
            return False
        try:
            self.files.rename(draft.aside, draft.target)
        except PathExistsError:  # another writer was faster; the image is the same
            return False
        return True

    def discard(self, draft: Draft | None) -> None:
        """Delete what is left of a draft."""
        if draft is not None:
            with contextlib.suppress(ClusterkitError):
                self.files.delete(draft.aside, recursive=True)

    def load(self, image: str) -> Manifest:
        """Return the manifest of an image, by its whole id; `names.find` knows the id of what people type.

        Raises
        ------
        StoreError
            If there is none, or it is not what its name says.
        """
        path = self.layout.manifest(image)
        try:
            manifest = msgspec.json.decode(self.files.read(path), type=Manifest)
        except MissingPathError as exc:
            raise MissingPathError(
                f"there is no image {image[:12]} in {self.uri}",
                why=f"{path} does not exist",
                mend="see which there are with `clusterkit env ls`",
                uri=f"{self.files.uri}{path}",
            ) from exc
        except msgspec.MsgspecError as exc:
            raise self._no_manifest(path, str(exc)) from exc
        if manifest.id != image:
            raise self._no_manifest(path, f"it is the manifest of {manifest.id[:12]}")
        return manifest

    def images(self) -> tuple[FileStatus, ...]:
        """Return the directories of the images, each named by its image."""
        return tuple(entry for entry in self.listed(self.layout.images) if entry.directory and entry.name[0] != ".")

    def status(self, path: str) -> FileStatus | None:
        """Return what a path is, None where there is none."""
        try:
            return self.files.status(path)
        except MissingPathError:
            return None

    def listed(self, directory: str) -> Iterator[FileStatus]:
        """Yield what is in a directory, nothing where there is none."""
        with contextlib.suppress(MissingPathError):
            yield from self.files.list(directory)

    def share(self, directory: str) -> None:
        """Make one of the directories that all users share, and the root above it, unless they are there."""
        for path in (self.root, directory):
            if path not in self._made:
                self.files.share(path)
                self._made.add(path)

    def own(self, directory: str, *, private: bool = False) -> None:
        """Make a directory of our own in a shared one, unless it is there.

        Raises
        ------
        StoreError
            If it is there and another user's.
        """
        if directory in self._made:
            return
        self.share(str(PurePosixPath(directory).parent))
        self.files.mkdirs(directory, mode=_PRIVATE_DIRECTORY if private else _PUBLIC_DIRECTORY)
        owner = self.files.status(directory).owner
        if owner not in self.trusted:
            raise StoreError(
                f"{self.files.uri}{directory} is not used",
                why=f"it belongs to {owner}, and would hold what belongs to {self.user}",
                mend=f"have the HDFS superuser give it to its user: `hdfs dfs -chown {self.user} {directory}`",
                uri=f"{self.files.uri}{directory}",
            )
        self._made.add(directory)

    @cached_property
    def trusted(self) -> frozenset[str]:
        """Those whose files run as us without a check: ourselves and the superuser."""
        return frozenset({self.user, self.files.superuser})

    def _usable(self, blob: Blob, status: FileStatus) -> bool:
        whole = blob.size_bytes is None or status.size == blob.size_bytes
        return whole and not status.directory and (blob.checked or status.owner in self.trusted)

    def _write(
        self, blob: Blob, local: Path | bytes, path: str, progress: Callable[[int, int], None] | None
    ) -> FileStatus | None:
        """Write a file; when another writer was faster, return what is there then."""
        directory = str(PurePosixPath(path).parent)
        private = directory.startswith(f"{self.layout.private}/")
        if private:
            self.own(self.layout.private, private=True)
            self.files.mkdirs(directory, mode=_PRIVATE_DIRECTORY)
        else:
            self.share(directory)
        try:
            data = local if isinstance(local, bytes) else _checked(blob, local, progress)
            self.files.write(path, data, mode=_PRIVATE_FILE if private else _PUBLIC_FILE)
        except PathExistsError:
            return self.files.status(path)
        if not private and self._copies is not None:
            self._spread(path, self._copies())
        return None

    def _spread(self, path: str, copies: int) -> None:
        """Have more copies made of a file that all nodes read; where they do not fit the quota, it does without."""
        if copies > self.files.status(path).replication:
            with contextlib.suppress(QuotaError):
                self.files.set_replication(path, copies)

    def _stored(self, blob: Blob, status: FileStatus, *, uploaded: bool = False) -> Stored:
        shared = status.path.startswith(f"{self.root}/{blob.directory}/")
        public = shared and bool(status.mode & _OTHERS_READ) and self._passable(f"{self.root}/{blob.directory}")
        return Stored(blob, status.path, f"{self.files.uri}{status.path}", public, uploaded)

    def _passable(self, directory: str) -> bool:
        """Tell whether everybody may pass a directory and all those above it."""
        if directory not in self._passed:
            above = "/" if directory == "/" else str(PurePosixPath(directory).parent)
            self._passed[directory] = bool(self.files.status(directory).mode & _OTHERS_PASS) and (
                directory == "/" or self._passable(above)
            )
        return self._passed[directory]

    def _taken(self, blob: Blob) -> StoreError:
        last = self.places(blob)[-1]
        return StoreError(
            f"{blob.what} was not stored at {self.uri}",
            why=f"{last} is there, but is not what its name says",
            mend="delete it, then try again; `clusterkit env verify` names what else is broken",
            uri=f"{self.files.uri}{last}",
        )

    def _no_manifest(self, path: str, why: str) -> StoreError:
        return StoreError(
            f"{self.files.uri}{path} is no manifest of an image",
            why=why,
            mend="use a clusterkit as new as the one that wrote it; if it is damaged, `clusterkit env verify --repair`",
            uri=f"{self.files.uri}{path}",
        )


def _checked(blob: Blob, local: Path, progress: Callable[[int, int], None] | None) -> Iterator[bytes]:
    """Yield a file's bytes, and refuse at the end what is not the blob: nothing is renamed then."""
    try:
        total = local.stat().st_size
        digest, done = hashlib.sha256(), 0
        with local.open("rb") as source:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                yield chunk
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
    except OSError as exc:
        raise _not_it(blob, local, f"{local} cannot be read: {exc.strerror or exc}") from exc
    if blob.size_bytes not in {None, done}:
        raise _not_it(blob, local, f"{local} has {done} bytes, not {blob.size_bytes}")
    if blob.sha256 not in {"", digest.hexdigest()}:
        raise _not_it(blob, local, f"{local} has the SHA-256 {digest.hexdigest()}, not {blob.sha256}")


def _not_it(blob: Blob, local: Path, why: str) -> StoreError:
    return StoreError(
        f"{blob.what} was not stored",
        why=why,
        mend=f"delete {local}, and build the environment again: `clusterkit env build`",
        uri=str(local),
    )
