"""Pack an environment: its layers, each written once, and the manifest that names them.

The prefix is not in the layers: files that hold it carry a placeholder, and the node writes its own path over it as it
unpacks. So an image depends neither on the path of a node's cache nor on the user, its layers are shared by all, and
the digest of what is packed can name it: were the path baked first, digest and path would depend on each other.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from clusterkit import units
from clusterkit.environments import archive, compression, layers
from clusterkit.environments.byte_code import ByteCode
from clusterkit.environments.ledger import Fingerprint, Known, Ledger
from clusterkit.environments.manifest import Layer, Manifest
from clusterkit.environments.scan import Scan
from clusterkit.environments.tree import PLACEHOLDER, File
from clusterkit.errors import ImageError
from clusterkit.node.baking import bake
from clusterkit.node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from clusterkit.environments.archive import Written
    from clusterkit.environments.compression import Format
    from clusterkit.environments.layers import Part
    from clusterkit.environments.manifest import Proof, StoredLayer
    from clusterkit.environments.tar_stream import Entry
    from clusterkit.environments.tree import Tree

    Listener = Callable[[str, str], None]

NATIVE_PREFIX = "/proc/self/cwd/clusterkit-image"
"""Where an image of the native transport lies: below the working directory of its container, under YARN's link."""

_TOLD_BYTES = 64 << 20


def pack(  # noqa: PLR0913 - what a manifest says is known by its builder, piece by piece
    tree: Tree,
    *,
    lock_digest: str,
    name: str,
    blas: str,
    proof: Proof | None,
    into: Path,
    formats: tuple[Format, ...] = ("zst",),
    said: Listener | None = None,
) -> Manifest:
    """Pack a tree into layers and return the manifest; layers that are there already are not written again.

    Parameters
    ----------
    tree : Tree
        The environment; it is read, never written to.
    lock_digest : str
        The digest of its lock.
    name : str
        Its name.
    blas : str
        What was asked for: `mkl`, `openblas`, `auto`, or empty.
    proof : Proof or None
        What was seen when it was used.
    into : Path
        The store's directory: the files go to `layers/`, what is known of them to `fingerprints.json`.
    formats : tuple of str
        `zst` for the fast transport, `gz` for the native one.
    said : callable, optional
        Told how far it is.

    Returns
    -------
    Manifest
        The image; its `stored` measures are those of the files in `into`.

    Raises
    ------
    ImageError
        If a file cannot be read or changes meanwhile, two packages hold the same path, a path of this machine survives
        in a file that is opened at run time, or `into` cannot be written.
    """
    with _Packing(tree, into, formats, said) as packing:
        packed = packing.layers(layers.split(tree))
    return Manifest(
        name=name,
        python=tree.python,
        platform=tree.platform,
        glibc=packing.glibc,
        lock=lock_digest,
        layers=tuple(packed),
        packages=tree.packages,
        environment=dict(tree.environment),
        placeholder=PLACEHOLDER,
        blas=blas,
        proof=proof,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def native(tree: Tree, into: Path, *, prefix: str = NATIVE_PREFIX, said: Listener | None = None) -> Layer:
    """Pack a whole tree without the user's own code as one `.tar.gz`, the prefix written into it.

    It is for clusters where no file of a node's cache may be executed: YARN unpacks it for each user, and it works
    below any container's working directory. The user's code travels in layers of `pack` with the format `gz`.

    Parameters
    ----------
    tree : Tree
        The environment.
    into : Path
        The store's directory; the file is `layers/{digest}.tar.gz`.
    prefix : str
        The path that the image will have.
    said : callable, optional
        Told how far it is.

    Returns
    -------
    Layer
        Of kind `native`.

    Raises
    ------
    ImageError
        As `pack`, and if the prefix does not fit into a binary file.
    """
    whole = tuple(layers.entries(tree))
    layers.check(whole, "the environment")
    with _Packing(tree, into, ("gz",), said, prefix=prefix) as packing:
        return packing.layer(layers.Part("native", "image", whole))


class _Packing:
    """One run over the parts of a tree."""

    def __init__(
        self, tree: Tree, into: Path, formats: tuple[Format, ...], said: Listener | None, *, prefix: str | None = None
    ) -> None:
        self._byte_code = ByteCode(tree)
        self._into = into / "layers"
        self._formats = formats
        self._said = said or (lambda _stage, _detail: None)
        self._prefix = prefix
        self._scan = Scan(tree.stale)
        self._salt = repr((tree.minor, prefix, self._scan.needles))
        self._ledger = Ledger(into / "fingerprints.json", self._into)
        self._newest_glibc: tuple[int, ...] = ()
        self._lock = threading.Lock()

    @property
    def glibc(self) -> str:
        """The newest version of glibc that any file of the parts needs; empty where none needs any."""
        return ".".join(map(str, self._newest_glibc))

    def __enter__(self) -> Self:
        compression.remove_abandoned(self._into)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._ledger.save()
        if kind is None:
            self._scan.check()

    def layers(self, parts: tuple[Part, ...]) -> tuple[Layer, ...]:
        """Return the layers of all parts, several written at once: the largest first, which take the longest."""
        with ThreadPoolExecutor(compression.threads_of_this_machine()) as pool:
            order = sorted(range(len(parts)), key=lambda number: parts[number].size_bytes, reverse=True)
            found = {number: pool.submit(self.layer, parts[number]) for number in order}
            try:
                return tuple(found[number].result() for number in range(len(parts)))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def layer(self, part: Part) -> Layer:
        """Return the layer of a part, written if it is not there yet."""
        fingerprint = Fingerprint.of(part.entries, self._byte_code, self._salt)
        known = self._ledger.layer(fingerprint.whole) if fingerprint else None
        if known is None or not all(self._ledger.stored(known.digest, kind) for kind in self._formats):
            known = self._write(part, fingerprint)
        with self._lock:
            self._newest_glibc = max(self._newest_glibc, _version(known.glibc))
        return Layer(
            digest=known.digest,
            kind=part.kind,
            name=part.name,
            files=known.entries,
            size_bytes=known.size_bytes,
            stored=self._stored(known.digest),
            bake={} if self._prefix else part.bake,
        )

    def _write(self, part: Part, fingerprint: Fingerprint | None) -> Known:
        entries = self._without_strangers(part)
        survivors = self._scan.survivors
        written = self._archived(part, entries, self._ledger.expects(fingerprint.shape) if fingerprint else None)
        known = Known(
            digest=written.digest,
            entries=written.entries,
            size_bytes=written.size_bytes,
            glibc=_newest_glibc(entries),
        )
        if fingerprint and self._scan.survivors == survivors:
            self._ledger.remember(
                known, shape=fingerprint.shape, fingerprint=fingerprint.whole if fingerprint.settled else None
            )
        return known

    def _archived(self, part: Part, entries: tuple[Entry, ...], expected: str | None) -> Written:
        """Write what is missing of a layer; where it is likely to be there, learn its digest first."""
        missing = self._missing(expected) if expected else self._formats
        while True:
            written = archive.write(entries, self._into, self._how(part, missing))
            for kind, stored in written.stored.items():
                self._ledger.remember_stored(written.digest, kind, stored)
            missing = self._missing(written.digest)
            if not missing:
                return written

    def _missing(self, digest: str) -> tuple[Format, ...]:
        return tuple(kind for kind in self._formats if self._ledger.stored(digest, kind) is None)

    def _stored(self, digest: str) -> dict[str, StoredLayer]:
        found = {kind: self._ledger.stored(digest, kind) for kind in self._formats}
        return {kind: stored for kind, stored in found.items() if stored}

    def _how(self, part: Part, formats: tuple[Format, ...]) -> archive.How:
        verb = "packing" if formats else "comparing"
        return archive.How(
            formats=formats,
            contents=self._contents,
            scan=None if part.kind == "code" else self._scan,
            moved=_Progress(part, verb, self._said).moved,
        )

    def _contents(self, file: File) -> bytes | None:
        data = self._byte_code.contents(file)
        if self._prefix is None or file.bake is None:
            return data
        try:
            return bake(file.read() if data is None else data, PLACEHOLDER, self._prefix, file.bake)
        except NodeError as exc:
            raise ImageError(exc.what, why=f"{file.path}: {exc.why}", mend="send it with --transport fast") from exc

    def _without_strangers(self, part: Part) -> tuple[Entry, ...]:
        """Return the entries without byte code that belongs to no source, and say how many those were."""
        kept = tuple(entry for entry in part.entries if not isinstance(entry, File) or self._belongs(entry))
        if strangers := len(part.entries) - len(kept):
            self._said(
                "packing", f"{part.name}: {strangers} files of byte code are older than their sources and stay behind"
            )
        return kept

    def _belongs(self, file: File) -> bool:
        try:
            return self._byte_code.belongs(file)
        except OSError:
            return True  # who reads it to pack it says what is wrong with it


class _Progress:
    """Says how much of a part was read, now and then."""

    def __init__(self, part: Part, verb: str, said: Listener) -> None:
        self._name = part.name
        self._verb = verb
        self._said = said
        self._total_bytes = part.size_bytes
        self._done_bytes = 0
        self._told_bytes = 0
        said(verb, f"{part.name}, {units.format_bytes(self._total_bytes)}")

    def moved(self, size_bytes: int) -> None:
        """Take note of a file that was read."""
        self._done_bytes += size_bytes
        if self._done_bytes - self._told_bytes >= _TOLD_BYTES:
            self._told_bytes = self._done_bytes
            done, total = units.format_bytes(self._done_bytes), units.format_bytes(self._total_bytes)
            self._said(self._verb, f"{self._name}, {done} of {total}")


def _newest_glibc(entries: Iterable[Entry]) -> str:
    from clusterkit.environments import elf  # noqa: PLC0415 - only where something is packed

    version, _path = elf.newest_glibc([entry for entry in entries if isinstance(entry, File)])
    return version


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(".")) if text else ()
