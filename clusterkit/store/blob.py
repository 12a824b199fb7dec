"""A blob: one file of an image, as a store keeps it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from clusterkit.environments.manifest import Layer, Manifest

Form = Literal["zst", "gz"]
"""How a layer is compressed: `zst` is unpacked by clusterkit on the node, `gz` by YARN."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One file that is never changed: a layer in one form, a bare interpreter, Spark's jars.

    Parameters
    ----------
    name : str
        Its file name, which says what it holds: `<digest>.tar.zst`.
    directory : str
        The store's directory for its kind: `layers`, `bare`, `spark`.
    size_bytes : int or None
        How many bytes; None where that is not known before it is made.
    sha256 : str
        The digest of its bytes; empty where that is not known.
    what : str
        What it is, for people: `the layer mkl`.
    private : bool
        Whether it is the user's own code, which nobody else may read.
    checked : bool
        Whether a node checks its digest before it is used. One that YARN unpacks unchecked is taken from nobody but
        ourselves and the superuser.
    """

    name: str
    directory: str
    size_bytes: int | None
    sha256: str = ""
    what: str = ""
    private: bool = False
    checked: bool = False

    @classmethod
    def of_layer(cls, layer: Layer, form: Form) -> Blob:
        """Return a layer's file in one form; the layer must have it."""
        stored = layer.stored[form]
        return cls(
            name=f"{layer.digest}.tar.{form}",
            directory="layers",
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            what=f"the layer {layer.name}",
            private=layer.kind == "code",
            checked=form == "zst",
        )

    @classmethod
    def bare(cls, digest: str, size_bytes: int) -> Blob:
        """Return the archive of a bare interpreter."""
        return cls(f"{digest}.tar.gz", "bare", size_bytes, what="the bare interpreter")

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> Blob:
        """Return our own copy of a manifest, by which a node checks the layers: it must be nobody else's."""
        data = msgspec.json.encode(manifest)
        digest = hashlib.sha256(data).hexdigest()
        return cls(f"{digest}.json", "manifests", len(data), digest, f"the manifest of {manifest.name}", private=True)

    @property
    def spare_name(self) -> str | None:
        """Its name where the first one is taken by other bytes: the digest of the file, not of what it holds."""
        spare = f"{self.sha256}.{self.name.partition('.')[2]}"
        return spare if self.sha256 and spare != self.name else None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it may have in a store."""
        return (self.name, self.spare_name) if self.spare_name else (self.name,)


def blobs(manifest: Manifest, form: Form) -> tuple[Blob, ...]:
    """Return the files of an image in one form, in the order of its layers; a layer without it in the one it has."""
    return tuple(Blob.of_layer(layer, form if form in layer.stored else _forms(layer)[0]) for layer in manifest.layers)


def all_blobs(manifest: Manifest) -> tuple[Blob, ...]:
    """Return the files of an image in every form that its layers have."""
    return tuple(blob for layer in manifest.layers for blob in all_forms(layer))


def all_forms(layer: Layer) -> tuple[Blob, ...]:
    """Return the files of a layer in every form that it has."""
    return tuple(Blob.of_layer(layer, form) for form in _forms(layer))


def _forms(layer: Layer) -> tuple[Form, ...]:
    return tuple(form for form in ("zst", "gz") if form in layer.stored)
