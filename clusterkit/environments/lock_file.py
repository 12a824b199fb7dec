"""A lock in a file that people keep beside their code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.environments.lock import Lock
from clusterkit.errors import SpecError
from clusterkit.specs import codec

if TYPE_CHECKING:
    from clusterkit.specs.environment import EnvironmentSpec

_HEAD = "# Written by `clusterkit env lock`; `clusterkit env build --locked` holds to it.\n"


def place(spec: EnvironmentSpec) -> Path:
    """Return where the lock of an environment is kept: `NAME.lock` beside its source, else in the working directory."""
    source = spec.source
    if source is None:
        return Path.cwd() / f"{spec.name}.lock"
    return (source if spec.kind == "project" and source.is_dir() else source.parent) / f"{spec.name}.lock"


def save(lock: Lock, path: Path) -> None:
    """Write a lock, as TOML.

    Raises
    ------
    SpecError
        If it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_text(_HEAD + codec.to_toml(lock), encoding="utf-8")
        aside.replace(path)
    except OSError as exc:
        raise SpecError(
            f"{path} was not written", why=exc.strerror or str(exc), mend="name another place: --output FILE"
        ) from exc


def load(path: Path) -> Lock:
    """Read a lock.

    Raises
    ------
    SpecError
        If there is none, or it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise SpecError(
            f"the lock {path} cannot be read",
            why=exc.strerror or str(exc),
            mend="write it with `clusterkit env lock`, or name another: --lock FILE",
        ) from exc
    return codec.from_toml(Lock, text, place=str(path))


def check_request(lock: Lock, path: Path, request: str, name: str) -> None:
    """Refuse a lock that answers another question than the one that is asked now.

    Raises
    ------
    SpecError
        If what was asked for has changed since.
    """
    if lock.request != request:
        raise SpecError(
            f"the lock of {name} is out of date",
            why=f"what is asked for has changed since {path} was written",
            mend="lock it again: `clusterkit env lock`",
        )
