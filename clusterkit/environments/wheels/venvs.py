"""Where a Python's packages lie: a virtual environment, or the running interpreter without one."""

from __future__ import annotations

import os
import site
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.environments import interpreter
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from clusterkit.environments.interpreter import Interpreter


@dataclass(frozen=True, slots=True)
class Site:
    """A directory of packages, and the prefix that their other files lie below.

    Parameters
    ----------
    packages : Path
        `site-packages`, or Debian's `dist-packages`.
    prefix : Path
        What `*.data` folders of wheels were installed to.
    is_own : bool
        Whether everything below the prefix belongs to these packages, as in a virtual environment; elsewhere only what
        their RECORDs name does.
    """

    packages: Path
    prefix: Path
    is_own: bool


@dataclass(frozen=True, slots=True)
class Venv:
    """A Python with its packages.

    Parameters
    ----------
    prefix : Path
        `sys.prefix`.
    base : Interpreter
        The interpreter behind it.
    sites : tuple of Site
        Where its packages lie; the first that holds one wins.
    """

    prefix: Path
    base: Interpreter
    sites: tuple[Site, ...]

    @property
    def stale(self) -> tuple[str, ...]:
        """The paths of this machine that must not survive in what is packed."""
        own = () if self.prefix == self.base.prefix else (str(self.prefix),)
        return tuple(dict.fromkeys((*own, *self.base.stale)))


def find(path: Path | None) -> Venv:
    """Return the virtual environment at a path, or the running interpreter with what is installed in it.

    Parameters
    ----------
    path : Path or None
        A directory that holds `pyvenv.cfg`; None for the running interpreter.

    Raises
    ------
    ImageError
        If it is no virtual environment, or its interpreter is gone.
    """
    if path is None and sys.prefix != sys.base_prefix:
        path = Path(sys.prefix)
    return _running() if path is None else _at(path.absolute())


def configuration(path: Path) -> dict[str, str]:
    """Return what a `pyvenv.cfg` says, keys in lower case.

    A value may hold any character, `=` among them.

    References
    ----------
    Python 3.13 library reference, `site`: "the file must contain lines of the form key = value".
    """
    lines = path.read_text("utf-8", "surrogateescape").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _at(prefix: Path) -> Venv:
    try:
        told = configuration(prefix / "pyvenv.cfg")
    except OSError as exc:
        raise ImageError(
            f"{prefix} is no virtual environment",
            why=f"its pyvenv.cfg cannot be read: {exc.strerror}",
            mend="name the directory that `python -m venv` or `uv venv` made",
        ) from exc
    base = interpreter.probe(_base_executable(prefix, told))
    packages = prefix / "lib" / f"python{base.minor}" / "site-packages"
    if not packages.is_dir():
        raise ImageError(
            f"the virtual environment {prefix} cannot be packed",
            why=f"its Python is {base.version} now, and it has no {packages.relative_to(prefix)}",
            mend="make it anew with `python3 -m venv`, or install the Python that it was made with",
        )
    sites = [Site(packages, prefix, is_own=True)]
    if told.get("include-system-site-packages", "").lower() == "true":
        sites += [Site(each, base.prefix, is_own=False) for each in base.sites]
    return Venv(prefix, base, tuple(sites))


def _base_executable(prefix: Path, told: dict[str, str]) -> Path:
    """Return the program that a virtual environment was made with."""
    home = Path(told.get("home", ""))
    version = told.get("version_info", told.get("version", ""))
    minor = ".".join(version.split(".")[:2])
    names = [told.get("base-executable", ""), *(str(home / each) for each in (f"python{minor}", "python3", "python"))]
    found = next(
        (Path(each) for each in [*names, told.get("executable", "")] if each and os.access(each, os.X_OK)), None
    )
    if found is None or not told.get("home"):
        raise ImageError(
            f"the virtual environment {prefix} cannot be packed",
            why=f"the Python it was made with is gone from {told.get('home') or 'an unknown place'}",
            mend="make the virtual environment anew with a Python that is there: `python3 -m venv`",
        )
    return found


def _running() -> Venv:
    """Return the running interpreter, which is in no virtual environment."""
    executable = Path(getattr(sys, "_base_executable", None) or sys.executable)
    base = interpreter.probe(executable)
    user = Path(site.getusersitepackages())
    sites = [Site(each, base.prefix, is_own=False) for each in base.sites]
    if site.ENABLE_USER_SITE and user.is_dir():
        sites.insert(0, Site(user, Path(site.getuserbase()), is_own=False))
    return Venv(base.prefix, base, tuple(sites))
