"""Have an image on this node: unpacked once for all containers of a user, whoever comes first."""

from __future__ import annotations

import os
import sys
import time

from .cache import Cache
from .image import Image

LIMIT_BYTES = 20 << 30
"""How much a user's part of a node's cache may hold when nothing else is said."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .locks import Lock

    Said = Callable[[str, str], None]


class Prepared:
    """An image that is ready to run, for as long as this process and those it becomes or starts are there.

    Parameters
    ----------
    prefix : str
        Where it lies.
    python : str
        Its interpreter.
    code_paths : list of str
        The user's own code, in the order in which it stands on the import path.
    variables : dict of str to str
        What a process in it needs in its environment.
    hit : bool
        Whether everything was there before.
    seconds : float
        How long it took.
    report : dict
        All of it, and what was done, as it is reported.
    locks : list of Lock
        What keeps it from being evicted; inherited by other programs.
    """

    __slots__ = ("code_paths", "hit", "locks", "prefix", "python", "report", "seconds", "variables")

    def __init__(self, image: Image, prefix: str, code_paths: list[str], report: dict[str, Any]) -> None:
        self.prefix = prefix
        self.python = f"{prefix}/bin/{image.python}"
        self.code_paths = code_paths
        self.variables = image.variables(prefix)
        self.hit: bool = report["hit"]
        self.seconds: float = report["seconds"]
        self.report = report
        self.locks: list[Lock] = []

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the environment in which its interpreter is started."""
        environment = {**inherited, **self.variables, "PYTHONNOUSERSITE": "1"}
        environment.pop("PYTHONHOME", None)
        environment["PATH"] = _path(f"{self.prefix}/bin", inherited.get("PATH", os.defpath))
        python_path = _path(*self.code_paths, inherited.get("PYTHONPATH", ""))
        if python_path:
            environment["PYTHONPATH"] = python_path
        return environment


def prepare(
    manifest: Mapping[str, Any],
    *,
    source: str | os.PathLike[str],
    node_cache: str | os.PathLike[str],
    limit_bytes: int = LIMIT_BYTES,
    said: Said | None = None,
) -> Prepared:
    """Return an image ready to run, made from its layers unless it is there already.

    Parameters
    ----------
    manifest : mapping
        The manifest, as it is decoded from JSON.
    source : path
        The directory with the layers' files.
    node_cache : path
        The node's cache; this user's part of it is made where it is missing.
    limit_bytes : int
        What that part may hold; more is removed, longest unused first, never what is in use.
    said : callable, optional
        Is told the stage and its detail, when there is something to do.

    Raises
    ------
    NodeError
        If the image cannot be used here: a layer is missing or wrong, the cache cannot be trusted, is full or does not
        allow programs to be run, or the image does not keep what its proof says.
    """
    started = time.monotonic()
    image = Image(manifest)
    cache = Cache.at(os.fspath(node_cache))
    held = [cache.use("images", image.base), *(cache.use("code", layer.digest) for layer in image.code)]
    done: dict[str, Any] = {"hit": True}
    if not cache.has(image):
        from .building import build  # noqa: PLC0415 - not loaded where the image is there, which is nearly always

        done = build(cache, image, os.fspath(source), limit_bytes=limit_bytes, said=said or _silent)
    report = {
        "image": image.base,
        "name": image.name,
        "blas": (cache.facts("images", image.base) or {}).get("blas", ""),
        **done,
        "seconds": round(time.monotonic() - started, 4),
    }
    code_paths = [cache.path("code", layer.digest) for layer in image.code]
    prepared = Prepared(image, cache.path("images", image.base), code_paths, report)
    prepared.locks = held
    return prepared


def _silent(stage: str, detail: str) -> None:
    """Say nothing."""


def _path(*parts: str) -> str:
    return os.pathsep.join(part for part in parts if part)


if __name__ == "__main__":
    from .command import main

    sys.exit(main(sys.argv[1:]))
