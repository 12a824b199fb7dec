"""A lock: every package of an environment, to the byte."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec


class LockedPackage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One package.

    Parameters
    ----------
    name : str
        Its normalised name.
    version : str
        Its version.
    kind : str
        `conda`, `wheel`, or `python` for an interpreter that was copied.
    build : str
        The conda build string, or the wheel's tags (`cp311-cp311-manylinux_2_28_x86_64`).
    sha256 : str
        The digest of the package file; of the RECORD or the conda-meta record where the file is no longer known.
    subdir : str
        `linux-64`, `linux-aarch64` or `noarch`.
    url : str
        Where it came from; empty where that is not known.
    """

    name: str
    version: str
    kind: Literal["conda", "wheel", "python"]
    build: str = ""
    sha256: str = ""
    subdir: str = "noarch"
    url: str = ""


class Lock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """All packages of an environment for one platform.

    Parameters
    ----------
    kind : str
        How it is installed: `conda` or `wheels`.
    platform : str
        `linux-64` or `linux-aarch64`.
    python : str
        The version of its Python.
    request : str
        The digest of what was asked for; a lock that answers another request is out of date.
    channels : tuple of str
        The conda channels it was solved from.
    packages : tuple of LockedPackage
        What is installed, sorted by name.
    variables : mapping of str to str
        What a process in the environment gets, as its specification says.
    format : int
        The version of this format.
    """

    kind: Literal["conda", "wheels"]
    platform: str
    python: str
    request: str = ""
    channels: tuple[str, ...] = ()
    packages: tuple[LockedPackage, ...] = ()
    variables: dict[str, str] = {}
    format: int = 1

    @property
    def digest(self) -> str:
        """The SHA-256 of what is installed; where it came from is of no account."""
        known = sorted((p.name, p.version, p.kind, p.build, p.sha256, p.subdir) for p in self.packages)
        what = [self.kind, self.platform, self.python, known, *([self.variables] if self.variables else [])]
        return hashlib.sha256(msgspec.json.encode(what, order="sorted")).hexdigest()
