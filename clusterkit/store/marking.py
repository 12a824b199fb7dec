"""What is needed in a store: by names, uses, manifests and running applications."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clusterkit.hadoop.hdfs import MissingPathError
from clusterkit.store import names, uses
from clusterkit.store.blob import all_blobs

if TYPE_CHECKING:
    from datetime import datetime

    from clusterkit.environments.manifest import Manifest
    from clusterkit.store.store import Store
    from clusterkit.store.uses import Use


@dataclass(frozen=True, slots=True)
class Known:
    """What was read and never changes: manifests by image, and the files that uses need by their paths."""

    manifests: dict[str, Manifest] = field(default_factory=dict)
    needed: dict[str, frozenset[str]] = field(default_factory=dict)


class Marks:
    """All that says what is needed, as it was when this was made.

    Parameters
    ----------
    store : Store
        Where it is read.
    running : frozenset of str
        The images that running applications have: ids, or their beginnings.
    known : Known, optional
        What was read before and never changes.

    Attributes
    ----------
    uses : tuple of Use
        The uses of all users.
    named : tuple of Named
        The names of all users.
    images : dict of str to FileStatus
        The directories of the images, by their ids.
    """

    def __init__(self, store: Store, running: frozenset[str], *, known: Known | None = None) -> None:
        self.store = store
        self.running = running
        self.uses = tuple(uses.uses(store))  # first: who takes a use back has written a manifest before
        self.named = tuple(names.all_names(store))
        self.images = {entry.name: entry for entry in store.images()}
        self._used = _by_image(self.uses)
        self._built = _builds(self.named)
        self._known = known or Known()

    def again(self) -> Marks:
        """Read them again."""
        return Marks(self.store, self.running, known=self._known)

    def manifest(self, image: str) -> Manifest | None:
        """Return an image's manifest; None where it is gone since."""
        if image not in self._known.manifests:
            with contextlib.suppress(MissingPathError):
                self._known.manifests[image] = self.store.load(image)
        return self._known.manifests.get(image)

    def runs(self, image: str) -> bool:
        """Tell whether a running application has an image."""
        return any(image.startswith(each) for each in self.running)

    def means(self, image: str) -> frozenset[str]:
        """Return the names that mean an image now: `user/name`."""
        return frozenset(f"{each.user}/{each.name}" for each in self.named if each.meaning.image == image)

    def uses_of(self, image: str) -> frozenset[Use]:
        """Return the uses of an image."""
        return self._used.get(image, frozenset())

    def last_used(self, image: str) -> datetime:
        """Return when an image was used, named or put last."""
        used = (use.when for use in self.uses_of(image))
        return max((*used, *self._built.get(image, ()), self.images[image].modified))

    def wanted_since(self, image: str, before: Marks) -> bool:
        """Tell whether an image was used or named since other marks were read."""
        return bool(self.uses_of(image) - before.uses_of(image) or self.means(image) - before.means(image))

    def files(self, images: frozenset[str], used: frozenset[Use]) -> frozenset[str]:
        """Return the names of all files that some images and some uses need."""
        manifests = filter(None, map(self.manifest, images))
        kept = {name for manifest in manifests for blob in all_blobs(manifest) for name in blob.names}
        return frozenset(kept.union(*(self._files_of(use) for use in used)))

    def _files_of(self, use: Use) -> frozenset[str]:
        if use.path not in self._known.needed:
            found = uses.files(self.store, use)
            if not found:
                return found  # gone since; who writes it again needs the same files
            self._known.needed[use.path] = found
        return self._known.needed[use.path]


def _by_image(used: tuple[Use, ...]) -> dict[str, frozenset[Use]]:
    found: dict[str, set[Use]] = defaultdict(set)
    for use in used:
        found[use.image].add(use)
    return {image: frozenset(of_one) for image, of_one in found.items()}


def _builds(named: tuple[names.Named, ...]) -> dict[str, tuple[datetime, ...]]:
    found: dict[str, list[datetime]] = defaultdict(list)
    for each in named:
        for build in (names.Build(each.meaning.image, each.meaning.built), *each.meaning.history):
            found[build.image].append(build.built)
    return {image: tuple(times) for image, times in found.items()}
