"""Collect garbage: delete what no name, no recent use, no manifest and no running application needs.

**Marking.** An image is kept while a running application has it, while it is what somebody's name means (and was used
within `Policy.named`), and until it was not used for `Policy.unused`; with a limit of bytes, those that were not used
for the longest time are given up earlier. A layer or archive is kept while any kept image, or any use within
`Policy.unused`, needs it, and for `Policy.grace` after it was written. Of what is not kept, each user may delete what
belongs to him, and HDFS's superuser everything; an image that we may not delete keeps its layers.

**The race.** A put may find a layer there, and rely on it, while a sweep is about to delete it. Both sides say first
what they are about to do, and look only then:

======  ===================================================  ====================================================
step    put                                                  sweep
======  ===================================================  ====================================================
1       marks its use: the image, and the names of its       writes `sweeps/<sweep>.json`: what it may delete
        files
2       looks for sweeps; while one may delete any of        marks again; what was used, named or put since the
        these, waits for its end and begins anew             plan is kept
3       looks which files are there, puts those that         moves the rest to `trash/<sweep>`, within 30 s of
        are missing                                          step 1, and gives up what takes longer
4       writes the manifest                                  marks once more, and moves back what is needed now
5       looks once more whether all files are there          deletes `sweeps/<sweep>.json`, then its trash
======  ===================================================  ====================================================

Either the sweep's step 2 sees the use that the put marked in its step 1, or the put's step 2 sees the sweep: HDFS has
one order of events for both. So nothing that a put relied on is ever away, not even for a moment. Only a sweep that
stands still between two steps of its own (a stopped process) can move a thing late; its step 4 then brings it back, and
step 5 of the put replaces it. A sweep deletes what it moved away, never a path that a put may have written again.
A sweep that is killed leaves its file; an hour later the next one of the same user moves back what is in its trash.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from clusterkit import units
from clusterkit.errors import StoreError
from clusterkit.hadoop.hdfs import DeniedError, MissingPathError, PathExistsError
from clusterkit.store import sweeping
from clusterkit.store.marking import Marks
from clusterkit.store.refusals import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from clusterkit.hadoop.hdfs import FileStatus
    from clusterkit.store.store import Store
    from clusterkit.store.uses import Use

    Said = Callable[[str, str], None]

_BLOBS = ("layers", "bare", "manifests")
_PARTS = (".part", ".partial")


@dataclass(frozen=True, slots=True)
class Policy:
    """How long what is kept.

    Parameters
    ----------
    unused : timedelta
        How long an image, and what a use needs, is kept after it was used last.
    named : timedelta
        How long an image that a name means is kept after it was used last.
    grace : timedelta
        How long any file, a partial one too, is kept after it was written.
    limit_bytes : int or None
        How many bytes there may be; images that were not used for the longest time are given up until it fits.
    """

    unused: timedelta = timedelta(days=30)
    named: timedelta = timedelta(days=180)
    grace: timedelta = timedelta(days=1)
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Garbage:
    """One thing that nothing needs.

    Parameters
    ----------
    kind : str
        `image` (its manifest), `blob` (a layer or archive), `use` (one that is too old), `part` (of a killed upload).
    path : str
        Where it is.
    key : str
        Its file name, or the id of the image.
    owner : str
        Whose it is.
    size_bytes : int
        Its size.
    what : str
        What it is, for people.
    """

    kind: Literal["image", "blob", "use", "part"]
    path: str
    key: str
    owner: str
    size_bytes: int
    what: str


@dataclass(frozen=True, slots=True)
class GcPlan:
    """What a sweep would delete.

    Parameters
    ----------
    garbage : tuple of Garbage
        What would be deleted: images first, then files, then uses and parts.
    others : tuple of Garbage
        What is garbage too, but may be deleted only by its owner or the superuser.
    kept_bytes : int
        The bytes of the layers and archives that would stay.
    over_bytes : int
        By how much that is more than the limit.
    marks : Marks
        What was read to know it; a sweep sees by it what is new.
    old : frozenset of Use
        The uses that were not counted.
    """

    garbage: tuple[Garbage, ...]
    others: tuple[Garbage, ...]
    kept_bytes: int
    over_bytes: int = 0
    marks: Marks = field(kw_only=True, repr=False, compare=False)
    old: frozenset[Use] = field(kw_only=True, repr=False, compare=False)

    @property
    def freed_bytes(self) -> int:
        """How many bytes a sweep would free, before HDFS's copies."""
        return sum(each.size_bytes for each in self.garbage)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did.

    Parameters
    ----------
    deleted : tuple of Garbage
        What is gone.
    spared : tuple of Garbage
        What was needed again, was gone already, or took too long.
    recovered : int
        How many things of a killed sweep were moved back.
    """

    deleted: tuple[Garbage, ...]
    spared: tuple[Garbage, ...] = ()
    recovered: int = 0


def plan(store: Store, running: Iterable[str], policy: Policy | None = None) -> GcPlan:
    """Find what nothing needs; nothing is changed.

    Parameters
    ----------
    store : Store
        Where to look.
    running : iterable of str
        The images of running applications: ids, or their beginnings.
    policy : Policy, optional
        How long what is kept.

    Raises
    ------
    StoreError
        If a manifest, name or use cannot be read, so that nobody knows what it needs.
    """
    policy, now = policy or Policy(), datetime.now(UTC)
    marks = Marks(store, frozenset(running))
    files = tuple(_files(store, now - policy.grace))
    gone = frozenset(image for image in _ours(marks) if marks.last_used(image) < now - _kept(marks, image, policy))
    old = frozenset(use for use in marks.uses if use.when < now - policy.unused and not marks.runs(use.image))
    over = _over(marks, gone, old, files, policy)
    while over > 0 and (oldest := _oldest(marks, gone, now - policy.grace)) is not None:
        gone, old = gone | {oldest}, old | marks.uses_of(oldest)
        over = _over(marks, gone, old, files, policy)
    found = (*_garbage(marks, gone, old, files), *_parts(store, now - policy.grace))
    return _planned(marks, found, old, files, max(over, 0))


def plan_removal(store: Store, image: str, running: Iterable[str]) -> GcPlan:
    """Find what of one image nothing else needs, however recently it was used.

    Raises
    ------
    StoreError
        If a name means it, or a running application or another user has it.
    """
    store.load(image)
    marks = Marks(store, frozenset(running))
    _refuse_needed(marks, image)
    gone, old = frozenset({image}), marks.uses_of(image)
    needed = marks.files(gone, old)
    files = tuple((file, file.name in needed) for file, _ in _files(store, datetime.now(UTC)))
    return _planned(marks, tuple(_garbage(marks, gone, old, files)), old, files)


def sweep(store: Store, planned: GcPlan, *, said: Said | None = None) -> Swept:
    """Delete what a plan names, except what is needed again by now.

    Raises
    ------
    StoreError
        If the store refuses.
    """
    with explained(store, "the garbage was not collected"):
        recovered = _recover(store)
        movable = tuple(each for each in planned.garbage if each.kind != "part")
        deleted = _sweep(store, planned, movable) if movable else ()
        parts = (each for each in planned.garbage if each.kind == "part")
        deleted += tuple(each for each in parts if store.files.delete(each.path, recursive=True))
    if said is not None:
        freed = units.format_bytes(sum(each.size_bytes for each in deleted))
        said("sweeping", f"{len(deleted)} files and images, {freed}")
    return Swept(deleted, tuple(each for each in planned.garbage if each not in deleted), recovered)


def _may_delete(store: Store, owner: str) -> bool:
    return store.user in {owner, store.files.superuser}


def _ours(marks: Marks) -> list[str]:
    """Return the images that we may delete and no running application has."""
    store = marks.store
    return [image for image, entry in marks.images.items() if _may_delete(store, entry.owner) and not marks.runs(image)]


def _kept(marks: Marks, image: str, policy: Policy) -> timedelta:
    return policy.named if marks.means(image) else policy.unused


def _oldest(marks: Marks, gone: frozenset[str], newest: datetime) -> str | None:
    """Return the image that was not used for the longest time, of those that may be given up for want of space."""
    left = (image for image in _ours(marks) if image not in gone and not marks.means(image))
    return min((image for image in left if marks.last_used(image) < newest), key=marks.last_used, default=None)


def _files(store: Store, oldest: datetime) -> Iterator[tuple[FileStatus, bool]]:
    """Yield all layers and archives that we may see, and whether they are older than the grace."""
    directories = [f"{store.root}/{directory}" for directory in _BLOBS]
    for user in store.listed(store.layout.users):
        if _may_delete(store, user.owner):
            directories += [f"{user.path}/{directory}" for directory in _BLOBS]
    for directory in directories:
        for entry in store.listed(directory):
            if not entry.directory and not entry.name.startswith("."):
                yield entry, entry.modified < oldest


def _live(marks: Marks, gone: frozenset[str], old: frozenset[Use]) -> frozenset[str]:
    return marks.files(frozenset(marks.images) - gone, frozenset(marks.uses) - old)


def _over(
    marks: Marks,
    gone: frozenset[str],
    old: frozenset[Use],
    files: Sequence[tuple[FileStatus, bool]],
    policy: Policy,
) -> int:
    """Return by how many bytes what stays is more than the limit."""
    if policy.limit_bytes is None:
        return 0
    live = _live(marks, gone, old)
    return sum(file.size for file, aged in files if file.name in live or not aged) - policy.limit_bytes


def _garbage(
    marks: Marks, gone: frozenset[str], old: frozenset[Use], files: Sequence[tuple[FileStatus, bool]]
) -> Iterator[Garbage]:
    for image in sorted(gone, key=marks.last_used):
        entry, manifest = marks.images[image], marks.manifest(image)
        name = f" ({manifest.name})" if manifest else ""
        what = f"the image {image[:12]}{name}, last used on {marks.last_used(image):%Y-%m-%d}"
        yield Garbage("image", entry.path, image, entry.owner, 0, what)
    live = _live(marks, gone, old)
    for file, aged in files:
        if aged and file.name not in live:
            what = f"{file.name} of {file.modified:%Y-%m-%d}, which nothing needs"
            yield Garbage("blob", file.path, file.name, file.owner, file.size, what)
    for use in sorted(old, key=lambda use: use.when):
        what = f"that {use.user} used {use.image[:12]} on {use.when:%Y-%m-%d}"
        yield Garbage("use", use.path, use.image, use.owner, use.size, what)


def _parts(store: Store, oldest: datetime) -> Iterator[Garbage]:
    """Yield what killed uploads left."""
    places = [store.layout.images, store.layout.sweeps, *(f"{store.root}/{directory}" for directory in _BLOBS)]
    for users, below in ((store.layout.users, _BLOBS), (store.layout.names, ("",)), (store.layout.uses, ("",))):
        for user in store.listed(users):
            if _may_delete(store, user.owner):
                places += [f"{user.path}/{directory}".rstrip("/") for directory in below]
    for place in places:
        for entry in store.listed(place):
            if entry.name.startswith(".") and entry.name.endswith(_PARTS) and entry.modified < oldest:
                what = f"{entry.name}, left by an upload that was killed on {entry.modified:%Y-%m-%d}"
                yield Garbage("part", entry.path, entry.name, entry.owner, entry.size, what)


def _planned(
    marks: Marks,
    found: Sequence[Garbage],
    old: frozenset[Use],
    files: Sequence[tuple[FileStatus, bool]],
    over_bytes: int = 0,
) -> GcPlan:
    halves: dict[bool, list[Garbage]] = defaultdict(list)
    for each in found:
        halves[_may_delete(marks.store, each.owner)].append(each)
    freed = sum(each.size_bytes for each in halves[True] if each.kind == "blob")
    kept = sum(file.size for file, _ in files) - freed
    return GcPlan(tuple(halves[True]), tuple(halves[False]), kept, over_bytes, marks=marks, old=old)


def _refuse_needed(marks: Marks, image: str) -> None:
    store = marks.store
    others = sorted({use.user for use in marks.uses_of(image)} - {store.user})
    why = ""
    if marks.runs(image):
        why = "a running application has it"
    elif meant := sorted(marks.means(image)):
        why = f"it is what {' and '.join(meant)} means"
    elif others and store.user != store.files.superuser:
        why = f"{' and '.join(others)} used it too"
    if why:
        raise StoreError(
            f"the image {image[:12]} was not removed from {store.uri}",
            why=why,
            mend="leave it to `clusterkit env gc`, which sweeps it once nothing uses it",
            uri=store.uri,
        )


def _sweep(store: Store, planned: GcPlan, movable: tuple[Garbage, ...]) -> tuple[Garbage, ...]:
    """Run the five steps of the protocol, and return what is gone."""
    identity = f"{store.layout.trash.rpartition('/')[2]}.{uuid4().hex[:12]}"
    announcement, trash = f"{store.layout.sweeps}/{identity}.json", f"{store.layout.trash}/{identity}"
    moves = {each: sweeping.Move(each.path, f"{trash}/{number}", each.key) for number, each in enumerate(movable)}
    _make(store, trash)
    started = time.monotonic()
    sweeping.announce(store, announcement, moves.values())
    moved: list[Garbage] = []
    try:
        needed = _needed(planned, planned.marks.again())
        for each in movable:
            in_time = time.monotonic() - started < sweeping.MOVED_WITHIN_S
            if in_time and each not in needed and _move(store, moves[each]):
                moved.append(each)
        needed = _needed(planned, planned.marks.again())
    except BaseException:
        _move_back(store, [moves[each] for each in moved])
        store.files.delete(announcement)
        raise
    _move_back(store, [moves[each] for each in moved if each in needed])
    store.files.delete(announcement)
    store.files.delete(trash, recursive=True)
    return tuple(each for each in moved if each not in needed)


def _make(store: Store, trash: str) -> None:
    store.share(f"{store.root}/trash")
    store.own(store.layout.trash)
    store.files.mkdirs(trash)
    store.share(store.layout.sweeps)


def _needed(planned: GcPlan, marks: Marks) -> frozenset[Garbage]:
    """Return what of a plan is needed by now: used, named, or part of an image that is."""
    images = {each.key for each in planned.garbage if each.kind == "image"}
    wanted = {image for image in images if marks.runs(image) or marks.wanted_since(image, planned.marks)}
    present = (frozenset(marks.images) | wanted) - (images - wanted)
    live = marks.files(present, frozenset(marks.uses) - planned.old)
    changed = {use.path for use in frozenset(marks.uses) - planned.old}
    return frozenset(
        each
        for each in planned.garbage
        if (each.key in wanted if each.kind == "image" else each.key in live or each.path in changed)
    )


def _move(store: Store, move: sweeping.Move) -> bool:
    """Move something away; what another sweep took, or what we may not take, stays."""
    try:
        store.files.rename(move.path, move.aside)
    except (MissingPathError, DeniedError):
        return False
    return True


def _move_back(store: Store, moves: Iterable[sweeping.Move]) -> int:
    """Move things back where they were, unless somebody put them there again; return how many."""
    count = 0
    for move in moves:
        with contextlib.suppress(MissingPathError, PathExistsError):
            store.files.rename(move.aside, move.path)
            count += 1
    return count


def _recover(store: Store) -> int:
    """Move back what sweeps of ours that were killed had moved away, and return how much that was."""
    forgotten, count = datetime.now(UTC) - sweeping.FORGOTTEN, 0
    for entry in store.listed(store.layout.sweeps):
        if entry.owner == store.user and entry.modified < forgotten and entry.name.endswith(".json"):
            left = sweeping.load(store, entry.path)
            count += _move_back(store, left.moves if left else ())
            store.files.delete(entry.path)
            store.files.delete(f"{store.layout.trash}/{entry.name.removesuffix('.json')}", recursive=True)
    for entry in store.listed(store.layout.trash):
        if entry.modified < forgotten and store.status(f"{store.layout.sweeps}/{entry.name}.json") is None:
            store.files.delete(entry.path, recursive=True)
    return count
