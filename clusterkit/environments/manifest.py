"""The manifest of an image: its layers by digest, what is in it, and the proof of what it claims."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from clusterkit.environments.lock import LockedPackage

LayerKind = Literal["interpreter", "binaries", "packages", "prefix", "code", "java", "native"]


class StoredLayer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A layer as a file: `{digest}.tar.zst` or `{digest}.tar.gz`."""

    size_bytes: int
    sha256: str


class Layer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A deterministic archive of a part of an image.

    Parameters
    ----------
    digest : str
        The SHA-256 of the uncompressed tar stream, 64 hexadecimal digits: the layer's name.
    kind : str
        `interpreter`, `binaries` (one large package), `packages` (the others), `prefix` (the files a node writes its
        prefix into), `code` (the user's own), `java`, `native` (a whole image with its prefix
        written, for the native transport).
    name : str
        What is in it, for people: `mkl`, `packages`, `mypackage`.
    files : int
        How many entries.
    size_bytes : int
        The bytes of its files, unpacked.
    stored : mapping of str to StoredLayer
        The compressed forms that exist: `zst` (fast transport), `gz` (native transport).
    bake : mapping of str to str
        How the prefix stands in its files, by path; in a `prefix` layer alone.
    """

    digest: str
    kind: LayerKind
    name: str
    files: int
    size_bytes: int
    stored: dict[str, StoredLayer] = {}
    bake: dict[str, str] = {}


class Library(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A numerical library that a process really mapped, as threadpoolctl and `/proc/self/maps` show it."""

    api: str
    version: str
    path: str
    threading: str = ""


class Proof(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What was seen when the image was used, not what its list of packages says.

    Parameters
    ----------
    blas : str
        The BLAS in use: `mkl`, `openblas`, or empty where NumPy is not there.
    libraries : tuple of Library
        Every BLAS and OpenMP library that was mapped.
    checks : mapping of str to str
        Each computation with its largest relative error, or `right`: `gemm`, `svd`, `zdotc` and their like.
    accelerated : mapping of str to str
        What each acceleration that is on changes.
    cpu : str
        The CPU model it was seen on.
    chosen : mapping of str to float
        With `auto`: the seconds that each candidate took.
    seconds : float
        How long the proof took.
    notes : tuple of str
        What the user should know: numexpr without VML, two OpenMP runtimes.
    """

    blas: str
    libraries: tuple[Library, ...] = ()
    checks: dict[str, str] = {}
    accelerated: dict[str, str] = {}
    cpu: str = ""
    chosen: dict[str, float] = {}
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An image.

    Parameters
    ----------
    name : str
        The environment's name when it was built.
    python, platform, glibc : str
        The Python version, the platform, and the newest glibc symbol version that any of its files needs.
    lock : str
        The digest of its lock.
    blas : str
        What was asked for: `mkl`, `openblas`, `auto`, or empty.
    layers : tuple of Layer
        In the order they are unpacked; those of kind `code` stand beside the prefix.
    packages : tuple of LockedPackage
        What is installed in it.
    environment : mapping of str to str
        Variables that a process in it needs; the placeholder stands for the prefix.
    placeholder : str
        What a node writes its prefix over.
    proof : Proof or None
        What was seen when it was used.
    created : str
        When it was built, ISO 8601, UTC.
    format : int
        The version of this format.
    """

    name: str
    python: str
    platform: str
    glibc: str
    lock: str
    layers: tuple[Layer, ...]
    packages: tuple[LockedPackage, ...] = ()
    environment: dict[str, str] = {}
    placeholder: str = ""
    blas: str = ""
    proof: Proof | None = None
    created: str = ""
    format: int = 1

    @property
    def base(self) -> str:
        """The digest of everything but the user's own code: the name of the directory on a node."""
        return _digest([[layer.digest for layer in self.layers if layer.kind != "code"], self.environment])

    @property
    def id(self) -> str:
        """The image's name: the digest of its lock and of its layers."""
        return _digest([self.lock, [layer.digest for layer in self.layers], self.environment, self.blas])

    @property
    def code(self) -> tuple[Layer, ...]:
        """The layers of the user's own code."""
        return tuple(layer for layer in self.layers if layer.kind == "code")


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
