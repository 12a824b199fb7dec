"""What is about to be swept: a sweep says so beforehand, and a put waits for it.

See `clusterkit.store.gc` for why this closes the race between the two.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from clusterkit.hadoop.hdfs import MissingPathError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from clusterkit.hadoop.hdfs import FileStatus
    from clusterkit.store.store import Store

MOVED_WITHIN_S = 30.0
"""Within this time after it said so a sweep has moved away what it may delete; it gives up the rest."""

WAIT_S = 2 * MOVED_WITHIN_S
"""How long a put waits for a sweep that does not say that it ended: it was killed."""

FORGOTTEN = timedelta(hours=1)
"""A sweep that began so long ago was killed."""

_POLL_S = 0.05


class Move(msgspec.Struct, frozen=True):
    """Something that a sweep may delete, and where it is moved before."""

    path: str
    aside: str
    key: str


class Sweeping(msgspec.Struct, frozen=True):
    """All that a sweep may delete; `key` of each is the file's name, or the image's id."""

    moves: tuple[Move, ...]

    @property
    def keys(self) -> frozenset[str]:
        """What may be deleted."""
        return frozenset(move.key for move in self.moves)


def announce(store: Store, path: str, moves: Iterable[Move]) -> None:
    """Say what a sweep may delete."""
    store.files.write(path, msgspec.json.encode(Sweeping(tuple(moves))))


def load(store: Store, path: str) -> Sweeping | None:
    """Return what a sweep may delete; None if it has ended.

    Raises
    ------
    StoreError
        If it cannot be read.
    """
    try:
        return msgspec.json.decode(store.files.read(path), type=Sweeping)
    except MissingPathError:
        return None


def wait_for(store: Store, keys: AbstractSet[str], said: Callable[[str, str], None] | None = None) -> bool:
    """Wait until no sweep may delete what has one of these keys; return whether there was one."""
    return any(_wait_for(store, entry, keys, said) for entry in _running(store))


def _running(store: Store) -> list[FileStatus]:
    oldest = datetime.now(UTC) - FORGOTTEN
    return [
        entry
        for entry in store.listed(store.layout.sweeps)
        if entry.name.endswith(".json") and not entry.name.startswith(".") and entry.modified > oldest
    ]


def _wait_for(store: Store, entry: FileStatus, keys: AbstractSet[str], said: Callable[[str, str], None] | None) -> bool:
    sweep = load(store, entry.path)
    if sweep is None or not sweep.keys & keys:
        return False
    if said is not None:
        said("waiting", f"until {entry.owner} has swept {store.uri}")
    deadline = time.monotonic() + WAIT_S
    while store.status(entry.path) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return store.status(entry.path) is None
