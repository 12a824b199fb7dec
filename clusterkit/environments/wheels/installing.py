"""A lock, installed: exactly the wheels whose hashes it names, in a virtual environment of its Python."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from clusterkit import processes
from clusterkit.environments.wheels import installed, pip, pythons
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.environments.lock import Lock, LockedPackage


def install(lock: Lock, venv: Path, *, cache_dir: Path, said: Callable[[str, str], None] | None = None) -> None:
    """Install a lock into a new virtual environment; what was at its path is replaced.

    Parameters
    ----------
    lock : Lock
        What to install; a file with another hash is refused.
    venv : Path
        Where.
    cache_dir : Path
        Where a pip is put if there is none.
    said : callable, optional
        Told a stage and its detail.

    Raises
    ------
    SpecError
        If its Python is not on this machine.
    ImageError
        If a package cannot be had as it was locked, or not be built.
    """
    told = said or _silent
    base = pythons.find(lock.python)
    if base.platform != lock.platform:
        raise ImageError(
            f"the environment cannot be installed at {venv}",
            why=f"it was locked for {lock.platform}, and this machine is {base.platform}",
            mend="build it on a machine of that kind, or lock it here with `clusterkit env lock`",
        )
    _make(base.executable, venv)
    python = venv / "bin" / "python"
    wheels = [package for package in lock.packages if package.kind == "wheel"]
    packaged = [package for package in wheels if package.build != installed.EDITABLE]
    if packaged:
        told("installing", f"{len(packaged)} packages")
        _install(python, packaged, venv, cache_dir)
    for package in wheels:
        if package.build == installed.EDITABLE:
            told("installing", f"{package.name}, as code of its folder")
            _install_editable(python, package, cache_dir)


def _silent(_stage: str, _detail: str) -> None: ...


def _make(python: Path, venv: Path) -> None:
    shutil.rmtree(venv, ignore_errors=True)
    done = processes.run([str(python), "-I", "-m", "venv", "--without-pip", str(venv)], timeout_s=120)
    if done.exit_code != 0:
        raise ImageError(
            f"the virtual environment {venv} cannot be made",
            why=done.last_lines(3),
            mend=f"check `{python} -m venv`; on Debian it comes with the package python3-venv",
        )


def _install(python: Path, packages: list[LockedPackage], venv: Path, cache_dir: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="clusterkit-install-") as scratch:
        path = Path(scratch, "requirements.txt")
        path.write_text("".join(map(_requirement, packages)), "utf-8")
        what = f"the environment cannot be installed at {venv}"
        pip.install(python, ["--require-hashes", "-r", str(path)], what=what, cache_dir=cache_dir)


def _requirement(package: LockedPackage) -> str:
    """Return a line that means one file: by name, so that the user's own index is asked, unless a URL was required."""
    is_direct = "#sha256=" in package.url
    version = f" @ {package.url.partition('#')[0]}" if is_direct else f"=={package.version}"
    return f"{package.name}{version} --hash=sha256:{package.sha256}\n"


def _install_editable(python: Path, package: LockedPackage, cache_dir: Path) -> None:
    folder = Path(unquote(urlparse(package.url).path))
    if not folder.is_dir():
        raise ImageError(
            f"{package.name} cannot be installed",
            why=f"its folder {folder} is gone",
            mend="bring it back, or take it out of the requirements and repeat `clusterkit env lock`",
        )
    pip.install(
        python, ["-e", str(folder)], what=f"{package.name} cannot be installed from {folder}", cache_dir=cache_dir
    )
