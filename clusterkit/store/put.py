"""Put an image: what is there stays, what is missing is uploaded, the manifest comes last."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from clusterkit import units
from clusterkit.errors import StoreError
from clusterkit.hadoop.hdfs import QuotaError
from clusterkit.store import sweeping, uses
from clusterkit.store.blob import Blob, blobs
from clusterkit.store.refusals import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterkit.environments.manifest import Manifest
    from clusterkit.store.blob import Form
    from clusterkit.store.directory import DirectoryStore
    from clusterkit.store.store import Draft, Store, Stored

    Said = Callable[[str, str], None]
    Content = Callable[[Blob], Path | bytes]

UPLOADS = 3
"""How many files are uploaded at once: one alone waits for its DataNodes most of the time."""

_TRIES = 3
_SAID_EACH_S = 0.2


@dataclass(frozen=True, slots=True)
class PutReport:
    """What a put did.

    Parameters
    ----------
    image : str
        The image's id.
    files : tuple of Stored
        Every file of the image, and where it is; first the layers in their order, then what stands beside them.
    manifest : Stored
        Our own copy of the manifest, by which nodes check the layers; never another user's.
    new : bool
        Whether there was no such image before.
    seconds : float
        How long it took.
    """

    image: str
    files: tuple[Stored, ...]
    manifest: Stored
    new: bool
    seconds: float

    @property
    def uploaded(self) -> tuple[Stored, ...]:
        """The files that were not there before."""
        return tuple(stored for stored in self.files if stored.uploaded)

    @property
    def hits(self) -> tuple[Stored, ...]:
        """The files that were there."""
        return tuple(stored for stored in self.files if not stored.uploaded)

    @property
    def uploaded_bytes(self) -> int:
        """The bytes that travelled."""
        return sum(stored.blob.size_bytes or 0 for stored in self.uploaded)


def image(
    manifest: Manifest,
    source: DirectoryStore,
    target: Store,
    *,
    form: Form = "zst",
    beside: Sequence[Blob] = (),
    said: Said | None = None,
) -> PutReport:
    """Put an image with all it needs; where all of it is there already, this takes metadata calls only.

    Parameters
    ----------
    manifest : Manifest
        The image.
    source : DirectoryStore
        Where its files are.
    target : Store
        Where they shall be.
    form : str
        Which form of the layers: `zst` or `gz`.
    beside : sequence of Blob
        What else it needs: the bare interpreter.
    said : callable, optional
        Is told a stage and its detail.

    Raises
    ------
    StoreError
        If a file is missing here, or is refused there.
    """
    started = time.monotonic()
    own = Blob.of_manifest(manifest)

    def content(blob: Blob) -> Path | bytes:
        return msgspec.json.encode(manifest) if blob == own else source.file(blob)

    _announce(source, manifest.id, tuple(name for blob in blobs(manifest, form) for name in blob.names), said)
    upload = _Upload((*blobs(manifest, form), *beside, own), content, target, said)
    with explained(target, f"the environment {manifest.name} was not stored"):
        found, new = _put(manifest, upload)
    return PutReport(manifest.id, found[:-1], found[-1], new, time.monotonic() - started)


def _put(manifest: Manifest, upload: _Upload) -> tuple[tuple[Stored, ...], bool]:
    """Put files and manifest; what is new travels while we announce that we use the rest, which is looked at then."""
    target = upload.target
    with ThreadPoolExecutor(2) as pool, contextlib.ExitStack() as cleaning:
        announced = pool.submit(_announce, target, manifest.id, upload.names, upload.said)
        drafted = pool.submit(target.draft, manifest)
        cleaning.callback(_discard, target, drafted)
        upload.missing()
        announced.result()
        found = upload.missing()
        new = target.publish(drafted.result())
    return (upload.missing() if upload.done else found), new


def _discard(target: Store, drafted: Future[Draft | None]) -> None:
    if drafted.exception() is None:
        target.discard(drafted.result())


def _announce(target: Store, image: str, names: tuple[str, ...], said: Said | None) -> None:
    """Say that we use the image, until no sweep that began before may delete any of it."""
    uses.mark(target, image, names)
    while sweeping.wait_for(target, {image, *names}, said):
        uses.mark(target, image, names)


class _Upload:
    """The upload of what a store lacks.

    Parameters
    ----------
    wanted : sequence of Blob
        What it shall have.
    content : callable
        Returns where the bytes of each are.
    target : Store
        The store.
    said : callable, optional
        Is told how far it is.
    """

    def __init__(self, wanted: Sequence[Blob], content: Content, target: Store, said: Said | None) -> None:
        self.target = target
        self.said = said
        self.done: set[Blob] = set()
        self._wanted = tuple(dict.fromkeys(wanted))
        self._content = content

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that any of it may have."""
        return tuple(name for blob in self._wanted for name in blob.names)

    def missing(self) -> tuple[Stored, ...]:
        """Put what is missing until nothing is, and return where everything is."""
        for _ in range(_TRIES):
            found = self.target.has(self._wanted)
            missing = tuple(blob for blob in self._wanted if blob not in found)
            if not missing:
                return tuple(replace(found[blob], uploaded=blob in self.done) for blob in self._wanted)
            self._put(missing)
        raise StoreError(
            f"{missing[0].what} was not stored at {self.target.uri}",
            why=f"it was put {_TRIES} times, and each time somebody deleted it",
            mend="find out who deletes files there: a job that cleans up HDFS must spare this directory",
            uri=self.target.uri,
        )

    def _put(self, missing: tuple[Blob, ...]) -> None:
        """Put several files at once; near a quota one by one, since HDFS counts a whole block for each open file."""
        try:
            self._at_once(missing)
        except QuotaError:
            left = tuple(blob for blob in missing if blob not in self.done)
            if len(left) == 1:
                raise
            for blob in left:
                self._at_once((blob,))

    def _at_once(self, missing: tuple[Blob, ...]) -> None:
        """Put files at once; when one fails the others are given up."""
        local = {blob: self._content(blob) for blob in missing}
        progress = _Progress([blob for blob in missing if isinstance(local[blob], Path)], self.said)

        def put(blob: Blob) -> None:
            if self.target.put(blob, local[blob], progress=progress.of(blob)).uploaded:
                self.done.add(blob)

        with ThreadPoolExecutor(UPLOADS) as pool:
            tasks = [pool.submit(put, blob) for blob in missing]
            try:
                wait(tasks, return_when=FIRST_EXCEPTION)
            finally:
                if any(not task.done() or task.exception() for task in tasks):
                    progress.stopped.set()
                    pool.shutdown(wait=False, cancel_futures=True)
        failed = [exc for task in tasks if not task.cancelled() and (exc := task.exception()) is not None]
        for exc in sorted(failed, key=lambda exc: isinstance(exc, _StoppedError)):
            raise exc


class _StoppedError(Exception):
    """Another upload failed."""


class _Progress:
    """How far all uploads are, told now and then.

    Parameters
    ----------
    wanted : sequence of Blob
        What is uploaded.
    said : callable, optional
        Is told.
    """

    def __init__(self, wanted: Sequence[Blob], said: Said | None) -> None:
        self.stopped = threading.Event()
        self._said = said
        self._total = sum(blob.size_bytes or 0 for blob in wanted)
        self._what = " and ".join([wanted[0].what, f"{len(wanted) - 1} more"][: len(wanted)]) if wanted else ""
        self._done: dict[Blob, int] = {}
        self._started = self._told = time.monotonic()
        self._lock = threading.Lock()

    def of(self, blob: Blob) -> Callable[[int, int], None]:
        """Return what to tell how far one file is."""

        def progress(done: int, _: int) -> None:
            if self.stopped.is_set():
                raise _StoppedError
            with self._lock:
                self._done[blob] = done
                self._tell()

        return progress

    def _tell(self) -> None:
        now, done = time.monotonic(), sum(self._done.values())
        if self._said is None or (now - self._told < _SAID_EACH_S and done < self._total):
            return
        self._told = now
        rate = units.format_bytes(done / max(now - self._started, 1e-6))
        sizes = f"{units.format_bytes(done)} of {units.format_bytes(self._total)}"
        self._said("uploading", f"{self._what}: {sizes}, {rate}/s")
