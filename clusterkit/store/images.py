"""Which images a store holds, how large they are, and in what two of them differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterkit.store.blob import all_blobs
from clusterkit.store.marking import Marks

if TYPE_CHECKING:
    from datetime import datetime

    from clusterkit.environments.lock import LockedPackage
    from clusterkit.environments.manifest import Layer, Manifest
    from clusterkit.store.store import Store


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of a store.

    Parameters
    ----------
    id, name : str
        Its id, and the name of its environment when it was built.
    owner : str
        Who put it first.
    names : tuple of str
        The names that mean it now: `user/name`.
    last_used : datetime
        When it was used last; aware.
    own_bytes : int
        The bytes of its files that no other image has: what a sweep of it would free.
    shared_bytes : int
        The bytes of its files that others have too.
    packages : int
        How many packages are installed in it.
    blas : str
        The BLAS that was seen in use; empty where there is none.
    """

    id: str
    name: str
    owner: str
    names: tuple[str, ...]
    last_used: datetime
    own_bytes: int
    shared_bytes: int
    packages: int
    blas: str


def images(store: Store) -> tuple[StoredImage, ...]:
    """Return the images of a store, the one used last first.

    Raises
    ------
    StoreError
        If a manifest cannot be read.
    """
    marks = Marks(store, frozenset())
    manifests = [manifest for image in marks.images if (manifest := marks.manifest(image)) is not None]
    sizes = [_sizes(store, manifest) for manifest in manifests]
    shared = Counter(name for of_one in sizes for name in of_one)
    found = (_image(marks, manifest, of_one, shared) for manifest, of_one in zip(manifests, sizes, strict=True))
    return tuple(sorted(found, key=lambda each: each.last_used, reverse=True))


@dataclass(frozen=True, slots=True)
class Change:
    """A package in two images; the version and build of each, empty where it is not in it."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Difference:
    """In what one image differs from another.

    Parameters
    ----------
    packages : tuple of Change
        The packages that were added, removed or changed, by name.
    added, removed, kept : tuple of Layer
        The layers that only the second has, that only the first has, and that both have.
    """

    packages: tuple[Change, ...]
    added: tuple[Layer, ...]
    removed: tuple[Layer, ...]
    kept: tuple[Layer, ...]

    @property
    def added_bytes(self) -> int:
        """What has to travel where the first image is: the new layers in their smallest form."""
        return sum(_smallest(layer) for layer in self.added)

    @property
    def removed_bytes(self) -> int:
        """What is in the first image only."""
        return sum(_smallest(layer) for layer in self.removed)


def diff(before: Manifest, after: Manifest) -> Difference:
    """Compare two images.

    Parameters
    ----------
    before, after : Manifest
        The images.
    """
    old, new = ({layer.digest: layer for layer in manifest.layers} for manifest in (before, after))
    return Difference(
        packages=tuple(_changes(before.packages, after.packages)),
        added=tuple(layer for layer in after.layers if layer.digest not in old),
        removed=tuple(layer for layer in before.layers if layer.digest not in new),
        kept=tuple(layer for layer in after.layers if layer.digest in old),
    )


def _changes(before: tuple[LockedPackage, ...], after: tuple[LockedPackage, ...]) -> list[Change]:
    old, new = ({package.name: package for package in packages} for packages in (before, after))
    return [
        Change(name, _version(old.get(name), new.get(name)), _version(new.get(name), old.get(name)))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _version(package: LockedPackage | None, other: LockedPackage | None) -> str:
    """Return a package's version, with what tells it from another of the same version."""
    if package is None:
        return ""
    if other is None or other.version != package.version:
        return package.version
    return " ".join(filter(None, (package.version, package.build, package.sha256[:8])))


def _sizes(store: Store, manifest: Manifest) -> dict[str, int]:
    """Return the bytes of an image's files, as far as we may see them; others' code counts as its manifest says."""
    found = {blob.name: blob.size_bytes or 0 for blob in store.has(all_blobs(manifest))}
    for layer in manifest.layers:
        if not any(name.startswith(layer.digest) for name in found):
            found[layer.digest] = _smallest(layer)
    return found


def _image(marks: Marks, manifest: Manifest, sizes: dict[str, int], shared: Counter[str]) -> StoredImage:
    image = manifest.id
    own = sum(size for name, size in sizes.items() if shared[name] == 1)
    return StoredImage(
        id=image,
        name=manifest.name,
        owner=marks.images[image].owner,
        names=tuple(sorted(marks.means(image))),
        last_used=marks.last_used(image),
        own_bytes=own,
        shared_bytes=sum(sizes.values()) - own,
        packages=len(manifest.packages),
        blas=manifest.proof.blas if manifest.proof else "",
    )


def _smallest(layer: Layer) -> int:
    return min((stored.size_bytes for stored in layer.stored.values()), default=0)
