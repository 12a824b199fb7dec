"""What is needed in a store: by names, uses, manifests and running applications."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from clusterkit.hadoop.hdfs import MissingPathError
from clusterkit.store import names, uses
from clusterkit.store.blob import all_blobs

if TYPE_CHECKING:
    from clusterkit.environments.manifest import Manifest
    from clusterkit.hadoop.hdfs import FileStatus
    from clusterkit.store.store import Store
    from clusterkit.store.uses import Use


@dataclass(frozen=True, slots=True)
class Marks:
    """All that says what is needed, as it was when it was read.

    Parameters
    ----------
    store : Store
        Where it was read.
    running : frozenset of str
        The images that running applications have: ids, or their beginnings.
    uses : tuple of Use
        The uses of all users.
    named : tuple of Named
        The names of all users.
    images : dict of str to FileStatus
        The directories of the images, by their ids.
    """

    store: Store
    running: frozenset[str]
    uses: tuple[Use, ...]
    named: tuple[names.Named, ...]
    images: dict[str, FileStatus]
    _manifests: dict[str, Manifest] = field(default_factory=dict, repr=False, compare=False)
    _needed: dict[str, frozenset[str]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, store: Store, running: frozenset[str]) -> Marks:
        """Read them."""
        return cls(store, running, *_read(store))

    def again(self) -> Marks:
        """Read them again, without what never changes."""
        return Marks(self.store, self.running, *_read(self.store), self._manifests, self._needed)

    def manifest(self, image: str) -> Manifest | None:
        """Return an image's manifest; None where it is gone since."""
        if image not in self._manifests:
            with contextlib.suppress(MissingPathError):
                self._manifests[image] = self.store.load(image)
        return self._manifests.get(image)

    def runs(self, image: str) -> bool:
        """Tell whether a running application has an image."""
        return any(image.startswith(each) for each in self.running)

    def means(self, image: str) -> frozenset[str]:
        """Return the names that mean an image now: `user/name`."""
        return frozenset(f"{each.user}/{each.name}" for each in self.named if each.meaning.image == image)

    def uses_of(self, image: str) -> frozenset[Use]:
        """Return the uses of an image."""
        return frozenset(use for use in self.uses if use.image == image)

    def last_used(self, image: str) -> datetime:
        """Return when an image was used, named or put last."""
        times = [use.when for use in self.uses_of(image)]
        for each in self.named:
            builds = (names.Build(each.meaning.image, each.meaning.built), *each.meaning.history)
            times += [datetime.fromisoformat(build.built) for build in builds if build.image == image]
        return max((*times, self.images[image].modified))

    def wanted_since(self, image: str, before: Marks) -> bool:
        """Tell whether an image was used or named since other marks were read."""
        return bool(self.uses_of(image) - before.uses_of(image) or self.means(image) - before.means(image))

    def files(self, images: frozenset[str], used: frozenset[Use]) -> frozenset[str]:
        """Return the names of all files that some images and some uses need."""
        manifests = filter(None, map(self.manifest, images))
        kept = {name for manifest in manifests for blob in all_blobs(manifest) for name in blob.names}
        return frozenset(kept.union(*(self._files_of(use) for use in used)))

    def _files_of(self, use: Use) -> frozenset[str]:
        if use.path not in self._needed:
            self._needed[use.path] = uses.files(self.store, use)
        return self._needed[use.path]


def _read(store: Store) -> tuple[tuple[Use, ...], tuple[names.Named, ...], dict[str, FileStatus]]:
    used = tuple(uses.uses(store))  # first: who takes a use back has written a manifest before
    return used, tuple(names.all_names(store)), {entry.name: entry for entry in store.images()}
