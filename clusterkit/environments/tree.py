"""An environment as it will stand on a node: every file and link, and where its bytes are now.

A tree is a value. The readers of conda prefixes and virtual environments make one without copying anything; linking
BLAS, slimming and adding code return another one; packing reads it once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from clusterkit.environments.lock import LockedPackage

PLACEHOLDER = ("/clusterkit_image_placehold" + "_placehold" * 30)[:255]
"""What stands in a packed file where the prefix of the image shall be; a node writes the real one over it."""

Bake = Literal["text", "binary", "shebang"]
"""How the prefix stands in a file: in text of any length, in a NUL-terminated string, or in a script's first line."""


@dataclass(frozen=True, slots=True)
class File:
    """One regular file of a tree.

    Parameters
    ----------
    path : str
        Its place below the prefix, with `/` between the parts: never absolute, no `.` or `..`.
    source : Path or bytes
        Where its bytes are, or the bytes themselves; with PLACEHOLDER in the place of the prefix where `bake` is set.
    mode : int
        0o755 or 0o644.
    size_bytes : int
        How many bytes.
    package : str
        The normalised name of the package that owns it; empty where none does.
    bake : str or None
        How a node writes the prefix into it; None where it holds none.
    """

    path: str
    source: Path | bytes
    mode: int
    size_bytes: int
    package: str = ""
    bake: Bake | None = None

    def read(self) -> bytes:
        """Return its bytes, PLACEHOLDER in the place of the prefix."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


@dataclass(frozen=True, slots=True)
class Link:
    """One symbolic link of a tree; `target` is relative and stays inside."""

    path: str
    target: str
    package: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """The user's own code: one package or folder, which a node puts on the import path.

    Parameters
    ----------
    name : str
        The package's or folder's name.
    files : tuple of File
        Its files, below the directory that stands on the import path.
    """

    name: str
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole environment.

    Parameters
    ----------
    python : str
        The version of its Python, `3.11.7`.
    platform : str
        `linux-64` or `linux-aarch64`.
    files : tuple of File
        Its regular files, sorted by path.
    links : tuple of Link
        Its symbolic links, sorted by path.
    packages : tuple of LockedPackage
        What is installed in it.
    code : tuple of Code
        The user's own code, outside of the prefix: editable installs and folders that were named.
    interpreter : frozenset of str
        The names in `File.package` that make up the interpreter itself.
    environment : mapping of str to str
        Variables that a process in it needs; PLACEHOLDER stands for the prefix.
    stale : tuple of str
        The paths of this machine that must not survive in a file that is opened at run time.
    notes : tuple of str
        What the user should know of it: files that were edited, packages that wrote over each other.
    directories : tuple of str
        The paths of directories that hold nothing, and must be there.
    """

    python: str
    platform: str
    files: tuple[File, ...]
    links: tuple[Link, ...] = ()
    packages: tuple[LockedPackage, ...] = ()
    code: tuple[Code, ...] = ()
    interpreter: frozenset[str] = frozenset({"python"})
    environment: Mapping[str, str] = field(default_factory=dict)
    stale: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()

    @property
    def python_path(self) -> str:
        """Where the interpreter lies below the prefix: `bin/python3.11`."""
        return f"bin/python{self.minor}"

    @property
    def minor(self) -> str:
        """The version that byte code and extensions depend on: `3.11`."""
        return ".".join(self.python.split(".")[:2])

    @property
    def site_packages(self) -> str:
        """Where its packages lie below the prefix: `lib/python3.11/site-packages`."""
        return f"lib/python{self.minor}/site-packages"

    @property
    def size_bytes(self) -> int:
        """The bytes of all its files."""
        return sum(file.size_bytes for file in self.files)
