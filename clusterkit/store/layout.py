"""Where things are in a store."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a store, seen by one user.

    Parameters
    ----------
    root : str
        The store's directory.
    user : str
        Who we are.
    """

    root: str
    user: str

    @property
    def images(self) -> str:
        """Where the manifests are, a directory for each."""
        return f"{self.root}/images"

    @property
    def names(self) -> str:
        """Where the names of environments are, a directory for each user."""
        return f"{self.root}/names"

    @property
    def uses(self) -> str:
        """Where it says who uses which image, a directory for each user."""
        return f"{self.root}/uses"

    @property
    def users(self) -> str:
        """Where private things are, a directory for each user."""
        return f"{self.root}/users"

    @property
    def sweeps(self) -> str:
        """Where collections of garbage say what they are about to delete, a file for each."""
        return f"{self.root}/sweeps"

    @property
    def trash(self) -> str:
        """Where our own collections of garbage move things before they delete them."""
        return f"{self.root}/trash/{part(self.user)}"

    @property
    def private(self) -> str:
        """Our own private directory."""
        return f"{self.users}/{part(self.user)}"

    def image(self, image: str) -> str:
        """Return the directory of an image."""
        return f"{self.images}/{image}"

    def manifest(self, image: str) -> str:
        """Return the manifest of an image."""
        return f"{self.images}/{image}/manifest.json"

    def names_of(self, user: str) -> str:
        """Return where a user's names are."""
        return f"{self.names}/{part(user)}"

    def uses_of(self, user: str) -> str:
        """Return where a user's uses are."""
        return f"{self.uses}/{part(user)}"


def part(name: str) -> str:
    """Return a user's or environment's name as one part of a path, whatever it holds.

    Examples
    --------
    >>> part("alice"), part("a/b"), part("..")
    ('alice', 'a%2Fb', '%2E.')
    """
    quoted = quote(name, safe="")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted
