"""Who uses which image, and when last: what keeps the files of an image from being swept.

A use is a small file, `uses/<user>/<image>.<key>.json`, that names all files of the image; the key is a digest of these
names. It is written before anything of the image is looked for or put, and its time is set to now whenever the image is
put or launched again, which takes one metadata call. It therefore also protects layers that were there already, those
of other users among them, from the moment on in which somebody relies on them, while there is no manifest yet.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from clusterkit.errors import StoreError
from clusterkit.hadoop.hdfs import MissingPathError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterkit.store.store import Store


class Use(msgspec.Struct, frozen=True):
    """One user's use of one image.

    Parameters
    ----------
    path : str
        The file that says so.
    user, owner : str
        Whose directory it is in, and who owns the file.
    image : str
        The image.
    when : datetime
        When it was used last; aware.
    size : int
        The file's size in bytes.
    """

    path: str
    user: str
    owner: str
    image: str
    when: datetime
    size: int


def mark(store: Store, image: str, names: Iterable[str]) -> None:
    """Say that we use an image, and need the files with these names.

    Raises
    ------
    StoreError
        If the store refuses.
    """
    wanted = sorted(set(names))
    key = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:16]
    directory = store.layout.uses_of(store.user)
    path = f"{directory}/{image}.{key}.json"
    try:
        store.files.touch(path)
    except MissingPathError:
        store.own(directory)
        store.files.write(path, msgspec.json.encode({"files": wanted}), overwrite=True)


def uses(store: Store) -> Iterator[Use]:
    """Yield the uses of all users."""
    for user in store.listed(store.layout.uses):
        if user.directory:
            for entry in store.listed(user.path):
                if not entry.name.startswith("."):
                    yield Use(
                        entry.path, user.name, entry.owner, entry.name.partition(".")[0], entry.modified, entry.size
                    )


def files(store: Store, use: Use) -> frozenset[str]:
    """Return the names of the files a use needs; none if it is gone.

    Raises
    ------
    StoreError
        If it cannot be read: what it protects is not known then.
    """
    try:
        return frozenset(msgspec.json.decode(store.files.read(use.path), type=_Needed).files)
    except MissingPathError:
        return frozenset()
    except msgspec.MsgspecError as exc:
        raise StoreError(
            f"{store.files.uri}{use.path} cannot be read",
            why=str(exc),
            mend=f"have {use.owner} delete it",
            uri=f"{store.files.uri}{use.path}",
        ) from exc


class _Needed(msgspec.Struct):
    files: list[str]
