"""Intel's wheels for an environment that is read where it is, and is never written to: installed beside it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import msgspec

from clusterkit.environments.lock import Lock
from clusterkit.environments.wheels import installing, locking, venvs

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.environments.lock import LockedPackage
    from clusterkit.specs.environment import EnvironmentSpec

_LOCK_S = 1800.0


def beside(
    spec: EnvironmentSpec, *, cache_dir: Path, said: Callable[[str, str], None] | None = None
) -> tuple[Path, ...]:
    """Return virtual environments with what `blas` and `accelerate` need and an environment lacks.

    Parameters
    ----------
    spec : EnvironmentSpec
        A virtual environment or the running interpreter; other sources get these packages as they are installed.
    cache_dir : Path
        Where they are installed, once for the same answer.
    said : callable, optional
        Told a stage and its detail.

    Returns
    -------
    tuple of Path
        One for `read(..., also=...)`, or none where nothing is missing.

    Raises
    ------
    ImageError
        If they do not go with what is installed, or cannot be had.
    """
    if spec.kind not in locking.IN_PLACE:
        return ()
    there = locking.installed_lock(spec)
    missing = locking.intels(spec, there.packages, there.platform, said or _silent)
    if not missing:
        return ()
    asked = hashlib.sha256(msgspec.json.encode([missing, there.digest])).hexdigest()
    kept = cache_dir / "locks" / f"beside-{asked}.json"
    lock = _kept(kept) or _solved(spec, there, missing, kept, cache_dir, said)
    root = cache_dir / "environments" / f"beside-{lock.digest[:16]}"
    root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    complete = root.with_suffix(".complete")
    with filelock.FileLock(root.with_suffix(".lock"), timeout=_LOCK_S):
        if not complete.is_file():
            installing.install(lock, root, cache_dir=cache_dir, said=said)
            complete.touch()
    return (root,)


def _silent(_stage: str, _detail: str) -> None: ...


def _kept(path: Path) -> Lock | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Lock)
    except (OSError, msgspec.MsgspecError):
        return None


def _solved(
    spec: EnvironmentSpec,
    there: Lock,
    missing: list[str],
    kept: Path,
    cache_dir: Path,
    said: Callable[[str, str], None] | None,
) -> Lock:
    """Ask for what is missing, with everything that is installed as it is."""
    (said or _silent)("resolving", f"{', '.join(missing)} beside {spec.source or 'the running interpreter'}")
    base = venvs.find(spec.source).base
    names = {package.name for package in there.packages}
    found: list[LockedPackage] = locking.solved(
        base,
        missing,
        Path.cwd(),
        locking.pins(there.packages),
        f"{', '.join(missing)} cannot be added to the environment {spec.name}",
        cache_dir,
    )
    lock = Lock(
        kind="wheels",
        platform=base.platform,
        python=base.version,
        request=kept.stem,
        packages=tuple(sorted((each for each in found if each.name not in names), key=lambda each: each.name)),
    )
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = kept.with_suffix(f".{os.getpid()}.part")
    aside.write_bytes(msgspec.json.encode(lock))
    aside.replace(kept)
    return lock
