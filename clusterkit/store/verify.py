"""Look whether what a store holds is what it says: by sizes, or byte by byte."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusterkit import units
from clusterkit.errors import StoreError
from clusterkit.store.blob import Blob, all_forms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from clusterkit.environments.manifest import Layer
    from clusterkit.hadoop.hdfs import FileStatus
    from clusterkit.store.store import Store

    Said = Callable[[str, str], None]

_BLOCK_BYTES = 1 << 20
_OTHERS_READ = 0o004
_PUT_AGAIN = "repair it with `clusterkit env verify --repair`; the next `submit` or `env build` puts it again"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Parameters
    ----------
    images : tuple of str
        The images that need it.
    path, uri : str
        Where it is, or should be.
    what : str
        What it is: `the layer mkl`.
    why : str
        What is wrong.
    mend : str
        What to do.
    owner : str
        Whose it is; empty where it is missing.
    """

    images: tuple[str, ...]
    path: str
    uri: str
    what: str
    why: str
    mend: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found.

    Parameters
    ----------
    images, files : int
        How many were looked at.
    read_bytes : int
        How many bytes were read; 0 where only sizes were compared.
    findings : tuple of Finding
        What is wrong.
    """

    images: int
    files: int
    read_bytes: int
    findings: tuple[Finding, ...]


def verify(
    store: Store, images: Iterable[str] | None = None, *, quick: bool = False, said: Said | None = None
) -> Verified:
    """Check every layer of some images, or of all that are ours to read.

    A layer is well when its bytes have the SHA-256 of the manifest, or when what they unpack to has the digest that is
    its name: two machines may have compressed the same layer differently.

    Parameters
    ----------
    store : Store
        Where to look.
    images : iterable of str, optional
        Their ids; all when absent.
    quick : bool
        Compare sizes only, which are metadata calls.
    said : callable, optional
        Is told a stage and its detail.

    Raises
    ------
    StoreError
        If one of the images named is not there.
    """
    wanted = tuple(entry.name for entry in store.images()) if images is None else tuple(images)
    findings: list[Finding] = []
    needed: dict[Blob, list[str]] = {}
    for image in wanted:
        for blob in _layers(store, image, findings, named=images is not None):
            needed.setdefault(blob, []).append(image)
    if images is None:
        needed |= {blob: [] for blob in _bare(store)}
    files = read = 0
    for blob, users in needed.items():
        checked = _Check(store, blob, tuple(users)).run(quick=quick)
        files, read = files + checked.files, read + checked.read_bytes
        findings += checked.findings
        if said is not None:
            said("verifying", f"{files} files, {units.format_bytes(read)}")
    return Verified(len(wanted), files, read, tuple(findings))


def repair(store: Store, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Delete what is broken, as far as it is ours, and return what was deleted; the next put brings it again."""
    ours = tuple(each for each in findings if each.owner and store.user in {each.owner, store.files.superuser})
    return tuple(each for each in ours if store.files.delete(each.path, recursive=True))


def _layers(store: Store, image: str, findings: list[Finding], *, named: bool) -> Iterator[Blob]:
    """Yield the files of an image; a manifest that cannot be read is a finding, unless it was asked for by name."""
    try:
        manifest = store.load(image)
    except StoreError as exc:
        status = store.status(store.layout.image(image))
        if status is None and named:
            raise
        path = store.layout.image(image)
        owner = status.owner if status else ""
        findings.append(
            Finding(
                (image,), path, f"{store.files.uri}{path}", f"the manifest of {image[:12]}", exc.why, _PUT_AGAIN, owner
            )
        )
        return
    ours = _owner(store, image) == store.user
    for layer in manifest.layers:
        if layer.kind != "code" or ours:
            yield from _expected(store, layer)


def _bare(store: Store) -> Iterator[Blob]:
    """Yield the bare interpreters for all; no manifest names them."""
    for entry in store.listed(f"{store.root}/bare"):
        if not entry.name.startswith("."):
            yield Blob.bare(entry.name.partition(".")[0], entry.size)


def _expected(store: Store, layer: Layer) -> tuple[Blob, ...]:
    """Return the files that a layer has in a store: one form of it at least must be there."""
    forms = all_forms(layer)
    there = tuple(blob for blob in forms if any(store.status(path) for path in store.places(blob)))
    return there or forms[:1]


def _owner(store: Store, image: str) -> str:
    status = store.status(store.layout.image(image))
    return status.owner if status else ""


@dataclass(frozen=True, slots=True)
class _Checked:
    files: int = 0
    read_bytes: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class _Check:
    """The check of one file, at every place where it lies."""

    store: Store
    blob: Blob
    images: tuple[str, ...]

    def run(self, *, quick: bool) -> _Checked:
        """Check it, and say what is wrong."""
        present = [status for path in self.store.places(self.blob) if (status := self.store.status(path)) is not None]
        if not present:
            return _Checked(findings=(self._finding(self.store.places(self.blob)[0], "it is missing"),))
        reasons = [(status, self._wrong(status, quick=quick)) for status in present]
        if quick and any(not why for _, why in reasons):
            reasons = []  # other bytes of the same layer at another place are no fault
        found = tuple(self._finding(status.path, why, status.owner) for status, why in reasons if why)
        return _Checked(len(present), 0 if quick else sum(status.size for status in present), found)

    def _wrong(self, status: FileStatus, *, quick: bool) -> str:
        shared = self.store.files.uri and not status.path.startswith(self.store.layout.users)
        if shared and not status.mode & _OTHERS_READ:
            return (
                f"its mode is {status.mode:o}: others cannot read it, and YARN would unpack it again for each of them"
            )
        if quick:
            whole = status.size == self.blob.size_bytes
            return "" if whole else f"it has {status.size} bytes, not {self.blob.size_bytes}"
        try:
            found = _digest(self.store.files.chunks(status.path))
            if found == self.blob.sha256:
                return ""
            unpacked = _unpacked_digest(self.store, status.path)
        except StoreError as exc:
            return f"it cannot be read: {exc.why}"
        if unpacked == self.blob.name.partition(".")[0]:
            return ""
        return f"its {status.size} bytes are not what its name says"

    def _finding(self, path: str, why: str, owner: str = "") -> Finding:
        ours = not owner or self.store.user in {owner, self.store.files.superuser}
        mend = _PUT_AGAIN if ours else f"have {owner} or the HDFS superuser run `clusterkit env verify --repair`"
        return Finding(self.images, path, f"{self.store.files.uri}{path}", self.blob.what, why, mend, owner)


def _digest(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _unpacked_digest(store: Store, path: str) -> str:
    """Return the SHA-256 of what a file unpacks to; empty where it is no whole archive."""
    import zstandard  # noqa: PLC0415 - only where a file has other bytes than expected

    raw = io.BufferedReader(_Chunks(store.files.chunks(path)))
    packed = gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else _zstd(raw)
    digest = hashlib.sha256()
    try:
        while block := packed.read(_BLOCK_BYTES):
            digest.update(block)
    except (zstandard.ZstdError, OSError, EOFError, zlib.error):
        return ""
    return digest.hexdigest()


def _zstd(raw: Any) -> Any:
    import zstandard  # noqa: PLC0415 - only where a file has other bytes than expected

    return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)


class _Chunks(io.RawIOBase):
    """Chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not self._left:
            self._left = next(self._chunks, b"")
        size = min(len(view), len(self._left))
        view[:size], self._left = self._left[:size], self._left[size:]
        return size
