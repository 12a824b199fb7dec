"""Unpack the layers of an image that a node does not have yet, each once, and check that they are what was built."""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time

from . import locks
from .digests import sha256
from .errors import NodeError
from .extraction import Limits, extract
from .failures import translated

_FORMS = {"zst": "tar.zst", "gz": "tar.gz"}
_READ_BYTES = 1 << 20
_THREADS = 4  # more than this wait for the disk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, BinaryIO

    from .cache import Cache
    from .image import Layer

    Said = Callable[[str, str], None]


class Unpacked:
    """A layer that is there: whether it was there before, and how long it took."""

    __slots__ = ("hit", "layer", "seconds")

    def __init__(self, layer: Layer, *, hit: bool, seconds: float) -> None:
        self.layer = layer
        self.hit = hit
        self.seconds = seconds

    @property
    def report(self) -> dict[str, Any]:
        """What is reported of it."""
        return {
            "digest": self.layer.digest,
            "name": self.layer.name,
            "size_bytes": self.layer.size_bytes,
            "hit": self.hit,
            "seconds": round(self.seconds, 3),
        }


def unpack(cache: Cache, layers: Sequence[Layer], source: str, said: Said) -> list[Unpacked]:
    """Have every layer in the cache, several at a time, the largest first.

    Parameters
    ----------
    cache : Cache
        Where they go; the caller holds its gate.
    layers : sequence of Layer
        What must be there.
    source : str
        The directory with the layers' files.
    said : callable
        Is told the stage and its detail.

    Raises
    ------
    NodeError
        If a layer's file is missing or not what was built, or the file system refuses.
    """
    work = _Work(sorted(layers, key=lambda layer: -layer.size_bytes))
    done: list[Unpacked] = []

    def keep_on() -> None:
        while (layer := work.next()) is not None:
            try:
                done.append(_have(cache, layer, source, said))
            except BaseException as exc:  # noqa: BLE001 - raised in the thread that waits
                work.fail(exc)

    threads = [threading.Thread(target=keep_on) for _ in range(min(_THREADS, len(layers), _processors()) - 1)]
    for thread in threads:
        thread.start()
    keep_on()
    for thread in threads:
        thread.join()
    if work.failure is not None:
        raise work.failure
    return done


def kind_of(layer: Layer) -> str:
    """Return the part of the cache that a layer goes to."""
    return "code" if layer.kind == "code" else "layers"


class _Work:
    """The layers that are left to do; none once one has failed."""

    def __init__(self, layers: list[Layer]) -> None:
        self._layers = layers
        self._lock = threading.Lock()
        self.failure: BaseException | None = None

    def next(self) -> Layer | None:
        with self._lock:
            return self._layers.pop(0) if self._layers and self.failure is None else None

    def fail(self, failure: BaseException) -> None:
        with self._lock:
            self.failure = self.failure or failure


def _have(cache: Cache, layer: Layer, source: str, said: Said) -> Unpacked:
    started = time.monotonic()
    kind = kind_of(layer)
    with locks.exclusive(cache.lock(kind, layer.digest)):
        hit = _is_whole(cache, kind, layer)
        if not hit:
            said("unpacking", f"{layer.name}, {layer.size_bytes >> 20} MiB")
            _unpack(cache, kind, layer, source)
            said("unpacked", layer.name)
    return Unpacked(layer, hit=hit, seconds=time.monotonic() - started)


def _is_whole(cache: Cache, kind: str, layer: Layer) -> bool:
    """Say whether a layer is complete; one of before the last start of the machine is looked at, and marked anew."""
    if cache.is_complete(kind, layer.digest):
        return True
    path = cache.path(kind, layer.digest)
    if cache.facts(kind, layer.digest) is None or size_of(path) != layer.size_bytes:
        return False
    cache.mark(kind, layer.digest, size_bytes=layer.size_bytes)
    return True


def size_of(directory: str) -> int:
    """Return the bytes of the files below a directory, -1 where it cannot be read."""
    total = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below = size_of(entry.path)
                    if below < 0:
                        return -1
                    total += below
                elif stat.S_ISREG((found := entry.stat(follow_symlinks=False)).st_mode):
                    total += found.st_size
    except OSError:
        return -1
    return total


def _unpack(cache: Cache, kind: str, layer: Layer, source: str) -> None:
    form, path = _file(layer, source)
    place = cache.path(kind, layer.digest)
    aside = f"{place}.part"
    try:
        for leftover in (place, aside):
            if os.path.lexists(leftover):
                shutil.rmtree(leftover)
        with open(path, "rb", buffering=0) as file:
            _extract(file, layer, form, aside)
        os.rename(aside, place)
        cache.mark(kind, layer.digest, size_bytes=layer.size_bytes)
    except (OSError, NodeError) as exc:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(exc, OSError):
            raise translated(exc, f"the layer {layer.name} was not unpacked") from exc
        raise


def _extract(file: BinaryIO, layer: Layer, form: str, aside: str) -> None:
    """Unpack a file and check it; what it is comes before what is wrong inside of it."""
    hashed = _Hashed(file)
    failure: NodeError | None = None
    try:
        extract(hashed, aside, Limits(layer.entries, layer.size_bytes))
    except NodeError as exc:
        failure = exc
    if hashed.whole() != layer.stored[form]["sha256"]:
        raise _not_what_was_built(layer, f"the sha256 of {file.name} is {hashed.whole()}") from failure
    if failure is not None:
        raise failure


class _Hashed:
    """A file whose digest is taken while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    def whole(self) -> str:
        """Read what is left and return the digest of all."""
        while self.read(_READ_BYTES):
            continue
        return self._hash.hexdigest()


def _file(layer: Layer, source: str) -> tuple[str, str]:
    """Return the form and the path of a layer's file, after a look at its size."""
    for form, ending in _FORMS.items():
        path = os.path.join(source, f"{layer.digest}.{ending}")
        if form in layer.stored and os.path.isfile(path):
            size, expected = os.stat(path).st_size, layer.stored[form]["size_bytes"]
            if size != expected:
                raise _not_what_was_built(layer, f"{path} has {size} of {expected} bytes")
            return form, path
    raise NodeError(
        f"the layer {layer.name} is not on this node",
        why=f"{source} holds no {layer.digest}.tar.*",
        mend="submit again; `clusterkit env verify` tells whether the store still has the layer",
    )


def _not_what_was_built(layer: Layer, why: str) -> NodeError:
    return NodeError(
        f"the layer {layer.name} is not the one that was built",
        why=why,
        mend="run `clusterkit env verify`: it checks the store, and names what to put again",
    )


def _processors() -> int:
    return len(os.sched_getaffinity(0))
