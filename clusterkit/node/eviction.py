"""Keep a user's part of a node's cache within its bound: what was used longest ago goes first, what is in use stays."""

from __future__ import annotations

import contextlib
import os
import shutil

from . import locks

_LOCK_ENDING = ".use"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import Cache


class Thing:
    """An image or a folder of code: the bytes that are its own, the layers it shares, and when it was used."""

    __slots__ = ("kind", "layers", "name", "own_bytes", "used_s")

    def __init__(self, kind: str, name: str, own_bytes: int, layers: tuple[str, ...], used_s: float) -> None:
        self.kind = kind
        self.name = name
        self.own_bytes = own_bytes
        self.layers = layers
        self.used_s = used_s


def evict(cache: Cache, limit_bytes: int) -> int:
    """Remove leftovers, and what was used longest ago until the rest is within the limit; return the bytes freed.

    Nothing is done while another process makes something in the cache, and nothing goes that a process uses.
    """
    gate = locks.exclusive_now(cache.gate)
    if gate is None:
        return 0
    with gate:
        _sweep(cache)
        things, layers = _things(cache), _layers(cache)
        before = total = sum(layers.values()) + sum(thing.own_bytes for thing in things)
        for name in _unused(layers, things):
            if total > limit_bytes:
                _remove(cache, "layers", name)
                total -= layers.pop(name)
        for thing in sorted(things, key=lambda thing: thing.used_s):
            if total <= limit_bytes:
                break
            if not _evict(cache, thing):
                continue
            things.remove(thing)
            total -= thing.own_bytes
            for name in _unused(layers, things):
                _remove(cache, "layers", name)
                total -= layers.pop(name)
        return before - total


def size_bytes(cache: Cache) -> int:
    """Return the bytes of all that is complete; what layers and images share counts once."""
    return sum(_layers(cache).values()) + sum(thing.own_bytes for thing in _things(cache))


def _evict(cache: Cache, thing: Thing) -> bool:
    """Remove a thing unless a process holds it."""
    lock = locks.exclusive_now(cache.lock(thing.kind, thing.name) + _LOCK_ENDING)
    if lock is None:
        return False
    with lock:
        _remove(cache, thing.kind, thing.name)
    return True


def _remove(cache: Cache, kind: str, name: str) -> None:
    """Remove a thing, its marker first: what is left after a kill is no longer complete."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(cache.marker(kind, name))
    shutil.rmtree(cache.path(kind, name), ignore_errors=True)


def _sweep(cache: Cache) -> None:
    """Remove what no marker speaks for: killed processes left it, and none is at work now."""
    for kind in ("layers", "images", "code"):
        folder = os.path.join(cache.directory, kind)
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if name.endswith(".json"):
                continue
            if not os.path.isdir(path):
                os.unlink(path)
            elif "." in name:
                shutil.rmtree(path, ignore_errors=True)
            elif cache.facts(kind, name) is None:
                _evict(cache, Thing(kind, name, 0, (), 0.0))


def _things(cache: Cache) -> list[Thing]:
    found = []
    for kind in ("images", "code"):
        for name in os.listdir(os.path.join(cache.directory, kind)):
            if "." not in name and (facts := cache.facts(kind, name)) is not None:
                used_s = _modified_s(cache.lock(kind, name) + _LOCK_ENDING)
                found.append(Thing(kind, name, facts["size_bytes"], tuple(facts.get("layers", ())), used_s))
    return found


def _layers(cache: Cache) -> dict[str, int]:
    names = (name for name in os.listdir(os.path.join(cache.directory, "layers")) if "." not in name)
    return {name: facts["size_bytes"] for name in names if (facts := cache.facts("layers", name)) is not None}


def _unused(layers: dict[str, int], things: list[Thing]) -> list[str]:
    used = {layer for thing in things for layer in thing.layers}
    return [name for name in layers if name not in used]


def _modified_s(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
