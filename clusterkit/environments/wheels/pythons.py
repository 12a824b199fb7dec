"""The Pythons of this machine, by version."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit import processes
from clusterkit.environments import interpreter
from clusterkit.errors import ImageError, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterkit.environments.interpreter import Interpreter


def find(version: str | None) -> Interpreter:
    """Return a Python of this machine.

    Parameters
    ----------
    version : str or None
        `3.11`, `3.11.7`; the running one when None. The running one is preferred where it fits.

    Raises
    ------
    SpecError
        If the version is none, or no such Python is here.
    """
    running = Path(getattr(sys, "_base_executable", None) or sys.executable)
    if version is None:
        return interpreter.probe(running)
    if not re.fullmatch(r"3(\.\d+){1,2}", version):
        raise SpecError(
            f"there is no Python {version}",
            why="a version of Python is written 3.11 or 3.11.7",
            mend='write it so in clusterkit.toml: python = "3.11"',
            key="python",
        )
    seen: list[str] = []
    for candidate in _candidates(running, version):
        found = _probed(candidate)
        if found is None:
            continue
        if f"{found.version}.".startswith(f"{version}."):
            return found
        seen.append(found.version)
    known = f"; there are {', '.join(sorted(set(seen)))}" if seen else ""
    raise SpecError(
        f"there is no Python {version} on this machine",
        why=f"it is neither the running one, nor on PATH, nor among those of pyenv and uv{known}",
        mend=f"install it, with `uv python install {version}` or the system's packages, or change the key `python`",
        key="python",
    )


def _probed(executable: Path) -> Interpreter | None:
    try:
        return interpreter.probe(executable)
    except ImageError:
        return None  # a shim of a version that is not chosen, say


def _candidates(running: Path, version: str) -> Iterator[Path]:
    """Yield programs that may be of a version, each once."""
    seen: set[str] = set()
    for path in (running, *_on_path(version), *_of_pyenv(version), *_of_uv(version)):
        real = os.path.realpath(path)
        if real not in seen and os.access(path, os.X_OK):
            seen.add(real)
            yield path


def _on_path(version: str) -> Iterator[Path]:
    minor = ".".join(version.split(".")[:2])
    for directory in os.get_exec_path():
        for name in (f"python{minor}", "python3"):
            path = Path(directory, name)
            if path.is_file():
                yield path


def _of_pyenv(version: str) -> list[Path]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return sorted((root / "versions").glob(f"{version}*/bin/python3"), reverse=True)


def _of_uv(version: str) -> Iterator[Path]:
    uv = uv_program()
    if uv is not None:
        argv = [uv, "python", "find", "--offline", "--no-project", "--no-python-downloads", version]
        done = processes.run(argv, timeout_s=60)
        if done.exit_code == 0:
            yield Path(done.stdout.strip())


def uv_program() -> str | None:
    """Return the program uv: beside the running Python, or on PATH."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")
