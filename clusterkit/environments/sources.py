"""Where an environment's packages are on this machine: where they were, or where a lock says they shall be."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import filelock
import msgspec

from clusterkit.environments import fingerprint
from clusterkit.environments.lock import Lock
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterkit.environments.tree import Code, Tree
    from clusterkit.specs.environment import EnvironmentSpec

    Said = Callable[[str, str], None]

IN_PLACE = frozenset({"prefix", "venv", "interpreter"})
"""The kinds of sources that are read where they are, and are never written to."""

_CONDA = frozenset({"prefix", "environment.yml"})
_SPARK_JARS = frozenset({"pyspark/jars", "pyspark/examples", "pyspark/data", "pyspark/licenses"})
_LOCK_S = 1800.0


@dataclass(frozen=True, slots=True)
class Source:
    """An environment on this machine.

    Parameters
    ----------
    spec : EnvironmentSpec
        What was asked for.
    root : Path or None
        The prefix or virtual environment; the running interpreter's own when None.
    cache_dir : Path
        Where what is made of it is kept.
    fingerprint : str
        Changes whenever what is there may have changed.
    locked : Lock or None
        What it was installed from; None where it is read in place.
    """

    spec: EnvironmentSpec
    root: Path | None
    cache_dir: Path
    fingerprint: str
    locked: Lock | None = None

    @property
    def python(self) -> Path:
        """Its Python on this machine."""
        return Path(sys.executable) if self.root is None else self.root / "bin" / "python"

    @property
    def lock(self) -> Lock:
        """What is installed in it."""
        if self.locked is not None:
            return self.locked
        return lock_of(self.spec, self.tree())

    def tree(self, said: Said | None = None) -> Tree:
        """Read it."""
        from clusterkit.environments import conda, wheels  # noqa: PLC0415 - only the kind that is needed

        prefix = Path(sys.prefix) if self.root is None else self.root
        if (prefix / "conda-meta").is_dir():
            return conda.read(prefix, without=_SPARK_JARS, said=said)
        also = wheels.beside(self.spec, cache_dir=self.cache_dir, said=said)
        return wheels.read(self.root, also=also, without=_SPARK_JARS, cache_dir=self.cache_dir, said=said)

    def code(self, local: Sequence[Path]) -> tuple[Code, ...]:
        """Return the user's own code: editable installs, and the folders that were named."""
        from clusterkit.environments import code  # noqa: PLC0415

        prefix = Path(sys.prefix) if self.root is None else self.root
        installed = [one for site in _sites(prefix) for one in code.editables(site, prefix).code]
        named = [one for path in local for one in code.local(path)]
        return tuple({tuple(str(file.source) for file in one.files): one for one in (*installed, *named)}.values())


def find(spec: EnvironmentSpec, *, cache_dir: Path, lock: Lock | None = None, said: Said | None = None) -> Source:
    """Return where an environment is; one that is described, not made, is solved and installed first.

    Parameters
    ----------
    spec : EnvironmentSpec
        What is asked for.
    cache_dir : Path
        Where environments are installed.
    lock : Lock, optional
        What shall be installed, to the byte; what was solved before, or is solved now, when absent.
    said : callable, optional
        Told a stage and its detail.

    Raises
    ------
    SpecError
        If there is no such environment, or it cannot be solved.
    ImageError
        If it cannot be installed, or is not what was locked.
    """
    if spec.kind in IN_PLACE:
        source = Source(spec, spec.source, cache_dir, _fingerprint(spec.source))
        if lock is not None:
            check(lock, source)
        return source
    lock = lock or solved(spec, cache_dir=cache_dir, said=said)
    return Source(spec, _installed(spec, lock, cache_dir, said), cache_dir, f"{spec.kind} {lock.digest}", lock)


def solved(spec: EnvironmentSpec, *, cache_dir: Path, again: bool = False, said: Said | None = None) -> Lock:
    """Return the lock of an environment that is described; the same question is solved once.

    Parameters
    ----------
    spec : EnvironmentSpec
        What is asked for.
    cache_dir : Path
        Where answers are kept.
    again : bool
        Solve it again: there may be newer packages.
    said : callable, optional
        Told a stage and its detail.
    """
    if spec.kind in IN_PLACE:
        return Source(spec, spec.source, cache_dir, "").lock
    room = _room(spec)
    kept = cache_dir / "locks" / f"{room.request(spec)}.json"
    if kept.is_file() and not again:
        return msgspec.json.decode(kept.read_bytes(), type=Lock)
    lock = room.lock(spec, cache_dir=cache_dir, said=said)
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = kept.with_suffix(f".{os.getpid()}.part")
    aside.write_bytes(msgspec.json.encode(lock))
    aside.replace(kept)
    return lock


def request(spec: EnvironmentSpec) -> str:
    """Return the digest of what is asked for; empty where packages are taken as they are."""
    return "" if spec.kind in IN_PLACE else _room(spec).request(spec)


def lock_of(spec: EnvironmentSpec, tree: Tree) -> Lock:
    """Return the lock of an environment that was read in place."""
    return Lock(
        kind="conda" if spec.kind in _CONDA else "wheels",
        platform=tree.platform,
        python=tree.python,
        packages=tree.packages,
    )


def check(lock: Lock, source: Source) -> None:
    """Refuse an environment that is not what its lock says.

    Raises
    ------
    ImageError
        If a package is missing, was added, or is another version or build; all of them are named.
    """
    from clusterkit.environments import wheels  # noqa: PLC0415

    differences = wheels.drift(lock, source.lock)
    if differences:
        shown = "\n".join(differences[:10]) + (f"\nand {len(differences) - 10} more" if len(differences) > 10 else "")
        raise ImageError(
            f"the environment {source.spec.name} is not what its lock says",
            why=shown,
            mend="bring it back to that, or lock what there is now: `clusterkit env lock`",
        )


class _Room(Protocol):
    """What makes one kind of environment: `conda` and `wheels` are two."""

    def request(self, spec: EnvironmentSpec) -> str: ...
    def lock(self, spec: EnvironmentSpec, *, cache_dir: Path, said: Said | None) -> Lock: ...
    def install(self, lock: Lock, venv: Path, /, *, cache_dir: Path, said: Said | None) -> None: ...


def _room(spec: EnvironmentSpec) -> _Room:
    from clusterkit.environments import conda, wheels  # noqa: PLC0415 - only the kind that is needed is loaded whole

    return conda if spec.kind in _CONDA else wheels


def _installed(spec: EnvironmentSpec, lock: Lock, cache_dir: Path, said: Said | None) -> Path:
    """Install a lock where all of its environments lie, once, and return the place."""
    root = cache_dir / "environments" / f"{lock.kind}-{lock.digest[:16]}"
    root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    complete = root.with_suffix(".complete")
    with filelock.FileLock(root.with_suffix(".lock"), timeout=_LOCK_S):
        if not complete.is_file():
            _room(spec).install(lock, root, cache_dir=cache_dir, said=said)
            complete.touch()
    return root


def _fingerprint(root: Path | None) -> str:
    prefix = Path(sys.prefix) if root is None else root
    program = (prefix / "bin" / "python").resolve()
    found = fingerprint.of(prefix if _is_own(prefix) else Path(*_sites(prefix)[:1]), program)
    return hashlib.sha256(f"{root} {found}".encode()).hexdigest()


def _is_own(prefix: Path) -> bool:
    """Whether all below a prefix belongs to one environment: /usr does not."""
    return (prefix / "pyvenv.cfg").is_file() or (prefix / "conda-meta").is_dir()


def _sites(prefix: Path) -> list[Path]:
    """Return the directories of an environment's packages."""
    return [site for pattern in ("site-packages", "dist-packages") for site in prefix.glob(f"lib/python3*/{pattern}")]
