"""Make an image on a node: unpack what is missing, put it together, see that it works, and say that it is complete."""

from __future__ import annotations

import os
import time

from . import locks
from .assembling import assemble
from .cache import now, write_json
from .errors import NodeError
from .eviction import evict, size_bytes
from .failures import translated
from .first_use import prove
from .unpacking import unpack

_FILE_BYTES = 4096  # what a small file takes on disk beyond its bytes, at most

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .cache import Cache
    from .image import Image

    Said = Callable[[str, str], None]


def build(cache: Cache, image: Image, source: str, *, limit_bytes: int, said: Said) -> dict[str, Any]:
    """Make an image and the code that goes with it, unless another process does it first.

    Parameters
    ----------
    cache : Cache
        Where it goes; the caller uses the image already, so that it is not evicted.
    image : Image
        What to make.
    source : str
        The directory with the layers' files.
    limit_bytes : int
        The bound of the cache.
    said : callable
        Is told the stage and its detail.

    Returns
    -------
    dict
        What was done, for the report: whether it was there after all, seconds by stage, the layers.

    Raises
    ------
    NodeError
        If it cannot be made.
    """
    started = time.monotonic()
    waiting = _Waiting(said)
    with locks.exclusive(cache.lock("images", image.base), waiting) as lock:
        waited_s = round(time.monotonic() - started, 3) if waiting.was_needed else 0.0
        if cache.has(image):
            return {"hit": True, "waited_s": waited_s}
        _make_room(cache, image)  # not before: what another process is unpacking takes room, and is not missing
        lock.note("it has begun")
        with locks.shared(cache.gate):
            done = _build(cache, image, source, _noted(said, lock))
    evict(cache, limit_bytes)
    return {"hit": False, "waited_s": waited_s, **done}


def _build(cache: Cache, image: Image, source: str, said: Said) -> dict[str, Any]:
    stages: dict[str, float] = {}
    is_new = not cache.is_complete("images", image.base)
    if is_new:
        _check_executable(cache)
    started = time.monotonic()
    unpacked = unpack(cache, [*(image.layers if is_new else ()), *image.code], source, said)
    stages["unpack"] = time.monotonic() - started
    done: dict[str, Any] = {"layers": [one.report for one in unpacked]}
    if is_new:
        started = time.monotonic()
        own_bytes = assemble(cache, image, said)
        stages["link"] = time.monotonic() - started
        started = time.monotonic()
        prefix = cache.path("images", image.base)
        seen = prove(prefix, f"{prefix}/bin/{image.python}", blas=image.blas, proof=image.proof, said=said)
        stages["prove"] = time.monotonic() - started
        write_json(f"{prefix}/.clusterkit/first-use.json", {"at": now(), **done})
        said("completing", image.name)
        layers = [layer.digest for layer in image.layers]
        cache.mark("images", image.base, size_bytes=own_bytes, layers=layers, blas=seen.get("blas", ""))
    return {**done, "stages": {name: round(seconds, 3) for name, seconds in stages.items()}}


class _Waiting:
    """Says now and then that another process is at work, and what it does."""

    EVERY_S = 10.0

    def __init__(self, said: Said) -> None:
        self._said = said
        self._next_s = 0.0

    @property
    def was_needed(self) -> bool:
        return self._next_s > 0

    def __call__(self, seconds: float, note: str) -> None:
        if seconds >= self._next_s:
            self._next_s = seconds + self.EVERY_S
            self._said("waiting", f"another container of this node unpacks it: {note or 'it has begun'}")


def _noted(said: Said, lock: locks.Lock) -> Said:
    """Return a listener that also tells those who wait for the lock."""

    def both(stage: str, detail: str) -> None:
        lock.note(f"{stage} {detail}")
        said(stage, detail)

    return both


def _make_room(cache: Cache, image: Image) -> None:
    """See that what is missing will fit, and remove what is not used where it would not."""
    missing = [layer for layer in image.layers if not cache.is_complete("layers", layer.digest)]
    missing += [layer for layer in image.code if not cache.is_complete("code", layer.digest)]
    needed = sum(layer.size_bytes + layer.entries * _FILE_BYTES for layer in missing)
    free = _free_bytes(cache)
    if free < needed:
        evict(cache, max(0, size_bytes(cache) - (needed - free)))
        free = _free_bytes(cache)
    if free < needed:
        raise NodeError(
            f"the image {image.name} does not fit on this node",
            why=f"{cache.directory} has {free >> 20} MiB free, and {needed >> 20} MiB are needed",
            mend="free space there, or choose another node cache (setting node_cache)",
        )


def _free_bytes(cache: Cache) -> int:
    found = os.statvfs(cache.directory)
    return found.f_bavail * found.f_frsize


def _check_executable(cache: Cache) -> None:
    """Start a program from the cache: mount options, and security modules, are known by nothing else."""
    path = f"{cache.directory}/locks/can-execute-{os.getpid()}"
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\n")
            os.fchmod(file.fileno(), 0o700)
        try:
            os.waitpid(os.posix_spawn(path, [path], {}), 0)
        finally:
            os.unlink(path)
    except PermissionError as exc:
        raise cannot_execute(cache.directory) from exc
    except OSError as exc:
        raise translated(exc, f"the node's cache at {cache.directory} cannot be used") from exc


def cannot_execute(directory: str) -> NodeError:
    """Return the error for a file system that does not let programs be run."""
    return NodeError(
        f"no program can be run from the node's cache at {directory}",
        why="the file system is mounted noexec, or a security module forbids it",
        mend="choose another node cache (setting node_cache), or use the native transport, which needs none",
    )
