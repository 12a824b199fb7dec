"""What lies in a user's part of a node's cache, and what of it is complete.

    layers/<digest>/            a layer as it was packed; never executed, never written to again
    images/<base>/              an image: hard links into layers, and the files that the prefix was written into
    images/<base>/.clusterkit/  complete.json, first-use.json, proof.json and the like
    code/<digest>/              a folder of the user's own code
    locks/                      files that are locked, and nothing else

A thing is complete when its marker says so, and the marker is written last. Nothing is flushed to disk: a process that
is killed loses nothing that it has written, and a machine that goes down may lose all that was not flushed yet. So a
marker holds for one boot of the machine; after the next one the sizes of what was unpacked are looked at once.
"""

from __future__ import annotations

import os
import time

from . import home, locks, small_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .image import Image
    from .locks import Lock

_FOLDERS = ("layers", "images", "code", "locks")


class Cache:
    """A user's part of a node's cache.

    Parameters
    ----------
    directory : str
        Where it lies; it belongs to this user alone.
    """

    __slots__ = ("boot", "directory")

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.boot = _boot()

    @classmethod
    def at(cls, node_cache: str) -> Cache:
        """Return this user's part of a node's cache, made where it is missing.

        Raises
        ------
        NodeError
            If it cannot be trusted, or cannot be made.
        """
        cache = cls(home.of(node_cache))
        for folder in _FOLDERS:
            try:
                os.mkdir(os.path.join(cache.directory, folder), 0o700)
            except FileExistsError:
                continue
        return cache

    def path(self, kind: str, name: str) -> str:
        """Return where a thing lies; `kind` is `layers`, `images` or `code`."""
        return f"{self.directory}/{kind}/{name}"

    def marker(self, kind: str, name: str) -> str:
        """Return the file that says that a thing is complete."""
        if kind == "images":
            return f"{self.directory}/images/{name}/.clusterkit/complete.json"
        return f"{self.directory}/{kind}/{name}.json"

    def lock(self, kind: str, name: str) -> str:
        """Return the file that is locked while a thing is made."""
        return f"{self.directory}/locks/{kind}-{name}"

    @property
    def gate(self) -> str:
        """The file that is locked, shared, while anything is made: nothing is evicted meanwhile."""
        return f"{self.directory}/locks/gate"

    def use(self, kind: str, name: str) -> Lock:
        """Hold a thing for as long as this process and its children live, and note that it was used now.

        It need not be there yet: nothing that is held is evicted.
        """
        lock = locks.shared(f"{self.directory}/locks/{kind}-{name}.use").inherit()
        os.utime(lock.descriptor)
        return lock

    def mark(self, kind: str, name: str, **facts: Any) -> None:
        """Say that a thing is complete."""
        write_json(self.marker(kind, name), {"boot": self.boot, **facts})

    def facts(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return what the marker of a thing says; None where there is none, or it is damaged."""
        try:
            with open(self.marker(kind, name), "rb") as file:
                facts = small_json.decode(file.read())
        except (OSError, ValueError):
            return None
        return facts if isinstance(facts, dict) else None

    def is_complete(self, kind: str, name: str) -> bool:
        """Say whether a thing was completed since the machine was started."""
        facts = self.facts(kind, name)
        return facts is not None and facts.get("boot") == self.boot

    def has(self, image: Image) -> bool:
        """Say whether an image is there with all of the user's code that goes with it."""
        return self.is_complete("images", image.base) and all(
            self.is_complete("code", layer.digest) for layer in image.code
        )


def write_json(path: str, value: object) -> None:
    """Write a file aside and move it into place, so that it is seen whole or not at all."""
    aside = f"{path}.{os.getpid()}.part"
    with open(aside, "w", encoding="utf-8") as file:
        file.write(small_json.encode(value))
    os.replace(aside, path)


def now() -> str:
    """Return the time as ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""  # no /proc here: the machine is taken not to have gone down
