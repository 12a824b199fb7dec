"""What an environment's name means: for each user, which image, and which ones before."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import msgspec

from clusterkit.errors import StoreError
from clusterkit.hadoop.hdfs import MissingPathError
from clusterkit.nearest import suggestion
from clusterkit.store.layout import part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterkit.store.store import Store

KEPT = 20
"""How many earlier images of a name are remembered."""

_DIGITS = re.compile(r"[0-9a-f]{4,64}")


_Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class Build(msgspec.Struct, frozen=True):
    """An image that a name means or meant, and when it came to mean it; aware."""

    image: str
    built: _Aware


class Name(msgspec.Struct, frozen=True):
    """A name with all that it meant.

    Parameters
    ----------
    image, built : str
        The image it means now, and since when; aware.
    history : tuple of Build
        Those before, the latest first.
    """

    image: str
    built: _Aware
    history: tuple[Build, ...] = ()


class Named(msgspec.Struct, frozen=True):
    """A name, whose it is, and what it means."""

    user: str
    name: str
    meaning: Name


def point(store: Store, name: str, image: str) -> Name:
    """Have a name of ours mean an image from now on; nothing is written where it does already.

    Raises
    ------
    StoreError
        If the store refuses.
    """
    before = load(store, name)
    if before is not None and before.image == image:
        return before
    history = () if before is None else (Build(before.image, before.built), *before.history)
    after = Name(image, datetime.now(UTC).replace(microsecond=0), history[:KEPT])
    store.own(store.layout.names_of(store.user))
    store.files.write(_path(store, store.user, name), msgspec.json.encode(after), overwrite=True)
    return after


def load(store: Store, name: str, user: str | None = None) -> Name | None:
    """Return what a name means, ours or another user's; None where there is none.

    Raises
    ------
    StoreError
        If it cannot be read, or belongs neither to its user nor to the superuser.
    """
    path = _path(store, user or store.user, name)
    status = store.status(path)
    if status is None:
        return None
    if status.owner not in {user or store.user, store.files.superuser}:
        raise _broken(store, path, f"it belongs to {status.owner}")
    return _read(store, path)


def all_names(store: Store) -> Iterator[Named]:
    """Yield the names of all users, each user's in order."""
    for user in store.listed(store.layout.names):
        if user.directory:
            for entry in store.listed(user.path):
                if entry.name.endswith(".json") and (meaning := _read(store, entry.path)) is not None:
                    yield Named(user.name, entry.name.removesuffix(".json"), meaning)


def remove(store: Store, name: str) -> bool:
    """Forget a name of ours and return whether there was one; `gc` sweeps its images when nothing else keeps them."""
    return store.files.delete(_path(store, store.user, name))


def find(store: Store, reference: str) -> str:
    """Return the id of the image that people mean.

    Parameters
    ----------
    store : Store
        Where to look.
    reference : str
        A name of ours, `user/name`, an id, or the first 4 or more digits of an id.

    Raises
    ------
    StoreError
        If nothing, or more than one image, is meant.
    """
    user, slash, name = reference.rpartition("/")
    known = load(store, name, user if slash else None)
    if known is not None:
        return known.image
    found = _starting_with(store, reference) if _DIGITS.fullmatch(reference) else []
    if len(found) == 1:
        return found[0]
    if found:
        raise StoreError(
            f"{reference} is no single image in {store.uri}",
            why=f"{len(found)} begin with it: {', '.join(image[:12] for image in found[:5])}",
            mend="write more of its id; `clusterkit env ls` shows it",
            uri=store.uri,
        )
    names = [each.name if each.user == part(store.user) else f"{each.user}/{each.name}" for each in all_names(store)]
    raise MissingPathError(
        f"there is no environment {reference!r} in {store.uri}",
        why=f"it is neither a name nor the beginning of an image's id{suggestion(reference, names)}",
        mend="see which there are with `clusterkit env ls`",
        uri=store.uri,
    )


def _starting_with(store: Store, digits: str) -> list[str]:
    if len(digits) == 64:
        return [digits] if store.status(store.layout.manifest(digits)) else []
    return [entry.name for entry in store.images() if entry.name.startswith(digits)]


def _path(store: Store, user: str, name: str) -> str:
    return f"{store.layout.names_of(user)}/{part(name)}.json"


def _read(store: Store, path: str) -> Name | None:
    try:
        return msgspec.json.decode(store.files.read(path), type=Name)
    except MissingPathError:
        return None
    except msgspec.MsgspecError as exc:
        raise _broken(store, path, str(exc)) from exc


def _broken(store: Store, path: str, why: str) -> StoreError:
    uri = f"{store.files.uri}{path}"
    return StoreError(
        f"{uri} is not used", why=why, mend="have its owner delete it, and repeat `clusterkit env build`", uri=uri
    )
