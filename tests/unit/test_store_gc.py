"""Collecting garbage: what is needed stays, whoever needs it and whenever he says so; what is not goes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from clusterkit.environments.manifest import Layer, Manifest, StoredLayer
from clusterkit.errors import StoreError
from clusterkit.hadoop.hdfs import DeniedError, MissingPathError, QuotaError
from clusterkit.store import gc, names, put, sweeping, uses
from clusterkit.store.blob import Blob, blobs
from clusterkit.store.directory import DirectoryStore, LocalFiles
from clusterkit.store.hdfs import HdfsStore

DAY = 24 * 3600


class Everybodys(LocalFiles):
    """The files of this machine in the place of those of HDFS: a path belongs to who is in it, else to `owner`."""

    uri = "hdfs://nn"
    superuser = "hdfs"
    owner = "alice"
    user = ""

    def __init__(self, user="alice"):
        self.user = user

    def status(self, path):
        return self._owned(super().status(path))

    def list(self, path, *, recursive=False):
        yield from map(self._owned, super().list(path, recursive=recursive))

    def _owned(self, status):
        parts = Path(status.path).parts
        return msgspec.structs.replace(status, owner=next((u for u in ("bob", "carol") if u in parts), self.owner))


@pytest.fixture
def local(tmp_path) -> DirectoryStore:
    """Return the store where images are built."""
    return DirectoryStore(tmp_path / "local")


@pytest.fixture
def shared(tmp_path) -> HdfsStore:
    """Return alice's view of the store that all share."""
    return HdfsStore(Everybodys(), str(tmp_path / "shared"))


def of(user: str, store: HdfsStore) -> HdfsStore:
    """Return another user's view of the same store."""
    return HdfsStore(Everybodys(user), store.root)


def layer(local: DirectoryStore, name: str, *, kind: str = "packages", size: int = 100) -> Layer:
    """Put a layer where the packer would; what it is compressed to is of no account here."""
    data = name.encode().ljust(size, b".")
    digest = hashlib.sha256(data).hexdigest()
    (local.path / "layers").mkdir(parents=True, exist_ok=True)
    (local.path / "layers" / f"{digest}.tar.zst").write_bytes(data)
    return Layer(
        digest=digest,
        kind=kind,
        name=name,
        files=1,
        size_bytes=size,
        stored={"zst": StoredLayer(size_bytes=size, sha256=digest)},
    )


def manifest(*layers: Layer, name: str = "analysis") -> Manifest:
    return Manifest(name=name, python="3.11.7", platform="linux-64", glibc="2.17", lock="l", layers=layers)


@pytest.fixture
def python(local) -> Layer:
    return layer(local, "python")


@pytest.fixture
def old(local, python) -> Manifest:
    """Return an image of the interpreter, a layer of its own, and code."""
    return manifest(python, layer(local, "numpy1"), layer(local, "code1", kind="code"))


@pytest.fixture
def new(local, python) -> Manifest:
    """Return another image of the same interpreter."""
    return manifest(python, layer(local, "numpy2"))


def age(store, days: float) -> None:
    """Let everything that is in a store now be older."""
    for path in Path(store.root).rglob("*"):
        then = path.stat().st_mtime - days * DAY
        os.utime(path, (then, then))
    for path in (Path(store.root) / "names").rglob("*.json"):
        meaning = msgspec.json.decode(path.read_bytes(), type=names.Name)
        then = meaning.built - timedelta(days=days)
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(meaning, built=then)))


def files(store) -> set[str]:
    """Return the names of the layers, archives and manifests that are there."""
    root = Path(store.root)
    return {path.name for place in ("layers", "bare", "users") for path in (root / place).rglob("*") if path.is_file()}


def needs(*manifests: Manifest) -> set[str]:
    """Return the names of the files that some images need."""
    return {blob.name for each in manifests for blob in (*blobs(each, "zst"), Blob.of_manifest(each))}


def ids(store) -> set[str]:
    return {entry.name for entry in store.images()}


def test_what_is_not_used_is_swept(local, shared, old, new):
    """After a month without use an image goes with what it alone has; the plan says so, and changes nothing."""
    put.image(old, local, shared)
    put.image(new, local, shared)
    age(shared, 31)
    put.image(new, local, shared)

    planned = gc.plan(shared, ())
    assert files(shared) == needs(old, new)
    swept = gc.sweep(shared, planned)

    assert (ids(shared), files(shared)) == ({new.id}, needs(new))
    assert swept == gc.Swept(planned.garbage)
    assert sorted(each.kind for each in swept.deleted) == ["blob", "blob", "blob", "image", "use"]
    assert planned.freed_bytes == sum(each.size_bytes for each in swept.deleted)
    assert planned.kept_bytes == sum(path.stat().st_size for path in Path(shared.root).rglob("*.tar.zst")) + sum(
        path.stat().st_size for path in (Path(shared.root) / "users").rglob("*.json")
    )
    assert not list((Path(shared.root) / "sweeps").iterdir())
    assert not list((Path(shared.root) / "trash" / "alice").iterdir())
    assert gc.sweep(shared, gc.plan(shared, ())) == gc.Swept(())


@pytest.mark.parametrize("days", [29, 31])
def test_an_image_is_kept_for_a_month_after_its_last_use(local, shared, old, days):
    """Within a month nothing goes."""
    put.image(old, local, shared)
    age(shared, days)
    gc.sweep(shared, gc.plan(shared, ()))
    assert (ids(shared), files(shared)) == (({old.id}, needs(old)) if days < 30 else (set(), set()))


@pytest.mark.parametrize(("days", "kept"), [(100, True), (200, False)])
def test_what_a_name_means_is_kept_longer(local, shared, old, days, kept):
    """An image that a name means is kept for half a year after its last use."""
    put.image(old, local, shared)
    names.point(shared, "analysis", old.id)
    age(shared, days)
    gc.sweep(shared, gc.plan(shared, ()))
    assert ids(shared) == ({old.id} if kept else set())
    assert files(shared) == (needs(old) - {Blob.of_manifest(old).name} if kept else set())


@pytest.mark.parametrize("digits", [12, 64])
def test_what_a_running_application_has_is_kept(local, shared, old, digits):
    """A running application keeps its image, and what stands beside it, however old they are."""
    archive = Blob.bare("b" * 64, 4)
    (local.path / "bare").mkdir()
    (local.path / "bare" / archive.name).write_bytes(b"bare")
    put.image(old, local, shared, beside=(archive,))
    age(shared, 400)

    assert gc.plan(shared, [old.id[:digits]]).garbage == ()
    assert len(gc.plan(shared, ["0" * 12]).garbage) == 7


def test_what_is_new_has_its_grace(local, shared, python):
    """A layer that nothing needs yet is kept for a day, and what a killed upload left, too."""
    blob = Blob.of_layer(python, "zst")
    shared.put(blob, local.file(blob))
    part = Path(shared.root) / "layers" / ".0123.part"
    part.write_bytes(b"half")
    broken = Path(shared.root) / "images" / ".4567.part"
    broken.mkdir(parents=True)
    (broken / "manifest.json").write_bytes(b"{}")
    assert gc.plan(shared, ()).garbage == ()
    age(shared, 2)
    swept = gc.sweep(shared, gc.plan(shared, ()))
    assert sorted(each.kind for each in swept.deleted) == ["blob", "part", "part"]
    assert (files(shared), part.exists(), broken.exists()) == (set(), False, False)


def test_others_keep_what_they_use(local, shared, old):
    """An image that another user has put lately stays for all."""
    put.image(old, local, shared)
    age(shared, 40)
    put.image(old, local, of("bob", shared))
    planned = gc.plan(shared, ())
    assert [(each.kind, "alice" in each.path) for each in planned.garbage] == [("use", True)]


def test_a_put_is_a_use_of_what_is_here_too(local, shared, old):
    """What is put again and again stays in the store it comes from, too, though it was built long ago."""
    local.save(old)
    age(local, 400)
    put.image(old, local, shared)
    assert gc.plan(local, ()).garbage == ()
    age(local, 31)
    assert {each.key for each in gc.plan(local, ()).garbage} == {old.id, *(blob.name for blob in blobs(old, "zst"))}


def test_only_what_is_ours_is_swept(local, shared, old, new):
    """What belongs to others is named with its owner and left; the superuser sweeps all."""
    bobs = of("bob", shared)
    bobs.files.owner = "bob"
    put.image(old, local, bobs)
    age(shared, 40)

    shared.files.owner = "bob"
    planned = gc.plan(shared, ())
    assert planned.garbage == ()
    assert {(each.kind, each.owner) for each in planned.others} == {("use", "bob")}
    assert files(shared) == needs(old)

    superuser = of("hdfs", shared)
    superuser.files.owner = "hdfs"
    gc.sweep(superuser, gc.plan(superuser, ()))
    assert (ids(shared), files(shared)) == (set(), set())


def test_the_longest_unused_go_first_when_space_is_short(local, shared):
    """With a limit, images go in the order of their last use until the rest fits; named and running ones never."""
    made = [manifest(layer(local, f"layer{number}", size=1000)) for number in range(5)]
    for each in made:
        put.image(each, local, shared)
        age(shared, 2)
    names.point(shared, "analysis", made[0].id)
    age(shared, 2)
    own = sum(path.stat().st_size for path in (Path(shared.root) / "users").rglob("*.json")) // 5

    planned = gc.plan(shared, [made[1].id], gc.Policy(limit_bytes=3 * (1000 + own) + 500))
    assert [each.key for each in planned.garbage if each.kind == "image"] == [made[2].id, made[3].id]
    assert planned.over_bytes == 0
    assert gc.plan(shared, [made[1].id], gc.Policy(limit_bytes=1000)).over_bytes == 2 * (1000 + own) - 1000
    gc.sweep(shared, planned)
    assert ids(shared) == {made[0].id, made[1].id, made[4].id}


def test_what_cannot_be_read_stops_the_sweep(local, shared, old):
    """Where a manifest, name or use cannot be read, nobody knows what is needed: nothing is swept."""
    put.image(old, local, shared)
    names.point(shared, "analysis", old.id)
    (use,) = uses.uses(shared)
    for path in (shared.layout.manifest(old.id), f"{shared.layout.names_of('alice')}/analysis.json", use.path):
        kept = Path(path).read_bytes()
        Path(path).write_bytes(b"{")
        with pytest.raises(StoreError) as caught:
            gc.plan(shared, ())
        assert caught.value.uri == f"hdfs://nn{path}"
        Path(path).write_bytes(kept)
    gc.plan(shared, ())


def test_removal(local, shared, old, new):
    """One image is removed at once with what only it has, unless somebody needs it."""
    put.image(old, local, shared)
    put.image(new, local, shared)
    names.point(shared, "analysis", old.id)
    with pytest.raises(StoreError) as caught:
        gc.plan_removal(shared, old.id, ())
    assert caught.value.why == "it is what alice/analysis means"
    names.remove(shared, "analysis")
    with pytest.raises(StoreError) as caught:
        gc.plan_removal(shared, old.id, [old.id[:12]])
    assert caught.value.why == "a running application has it"
    put.image(old, local, of("bob", shared))
    with pytest.raises(StoreError) as caught:
        gc.plan_removal(shared, old.id, ())
    assert caught.value.why == "bob used it too"
    with pytest.raises(MissingPathError):
        gc.plan_removal(shared, "0" * 64, ())

    gc.sweep(shared, gc.plan_removal(shared, new.id, ()))

    assert (ids(shared), files(shared)) == ({old.id}, needs(old))


@pytest.mark.parametrize("again", ["use", "name", "put"])
def test_what_is_needed_after_the_plan_is_spared(local, shared, old, again):
    """A sweep looks again: what was used, named or put since it was planned stays, whatever the plan says."""
    put.image(old, local, shared)
    age(shared, 40)
    planned = gc.plan(shared, ())
    if again == "use":
        uses.mark(shared, old.id, [name for blob in blobs(old, "zst") for name in blob.names])
    elif again == "name":
        names.point(shared, "analysis", old.id)
    else:
        put.image(old, local, of("bob", shared))

    swept = gc.sweep(shared, planned)

    needed = needs(old) - {Blob.of_manifest(old).name}
    assert (ids(shared), needed <= files(shared)) == ({old.id}, True)
    assert {each.key for each in swept.deleted} & needed == set()


class Stalling(Everybodys):
    """Runs something between two steps of a sweep: before the first or after the last thing is moved away."""

    def __init__(self):
        super().__init__()
        self.before = self.after = None

    def rename(self, source, target):
        action, self.before = self.before, None
        if action and "/trash/" in target:
            action()
        super().rename(source, target)
        action, self.after = self.after, None
        if action and "/trash/" in target:
            action()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_put_while_a_sweep_stands_still(local, shared, old, moment, monkeypatch):
    """A put between two steps of a sweep that stands still loses nothing: all is there once both are done."""
    monkeypatch.setattr(sweeping, "WAIT_S", 0.2)
    put.image(old, local, shared)
    age(shared, 40)
    stalled = HdfsStore(Stalling(), shared.root)
    setattr(stalled.files, moment, lambda: put.image(old, local, of("bob", shared)))

    swept = gc.sweep(stalled, gc.plan(stalled, ()))

    assert ids(shared) == {old.id}
    assert put.image(old, local, of("bob", shared)).uploaded == ()
    assert {each.key for each in swept.deleted if each.kind == "blob"} <= {Blob.of_manifest(old).name, code(old)}


def code(of_image: Manifest) -> str:
    return f"{of_image.code[0].digest}.tar.zst"


def test_a_put_waits_for_a_sweep(local, shared, old):
    """While a sweep may delete what a put needs, the put waits, says so, and looks only then."""
    put.image(old, local, shared)
    path = f"{shared.layout.sweeps}/bob.1.json"
    shared.share(shared.layout.sweeps)
    sweeping.announce(shared, path, [sweeping.Move("/x", "/y", f"{old.layers[0].digest}.tar.zst")])
    told = []
    waiting = threading.Event()

    def said(*words):
        told.append(words)
        if words[0] == "waiting":
            waiting.set()

    thread = threading.Thread(target=lambda: put.image(old, local, of("carol", shared), said=said))
    thread.start()
    assert waiting.wait(20)
    assert thread.is_alive()
    shared.files.delete(path)
    thread.join(20)
    assert not thread.is_alive()
    assert [words for words in told if words[0] == "waiting"] == [("waiting", f"until alice has swept {shared.uri}")]


def test_a_put_does_not_wait_for_others_sweeps(local, shared, old, monkeypatch):
    """A sweep of other things, and one that was killed long ago, keep nobody waiting."""
    monkeypatch.setattr(sweeping, "_POLL_S", 1e9)
    shared.share(shared.layout.sweeps)
    sweeping.announce(shared, f"{shared.layout.sweeps}/bob.1.json", [sweeping.Move("/x", "/y", "other")])
    forgotten = f"{shared.layout.sweeps}/bob.2.json"
    sweeping.announce(shared, forgotten, [sweeping.Move("/x", "/y", old.id)])
    os.utime(forgotten, (time.time() - DAY, time.time() - DAY))
    assert len(put.image(old, local, shared).uploaded) == 3


def test_a_killed_sweep_is_taken_back(local, shared, old, monkeypatch):
    """What a sweep that was killed had moved away is moved back by the first one that is an hour later."""
    put.image(old, local, shared)
    age(shared, 40)
    planned = gc.plan(shared, ())
    rename, moved = Everybodys.rename, []

    class Killed(BaseException):
        pass

    def dying(self, source, target):
        if len(moved) == 3:
            raise Killed
        moved.append(source)
        rename(self, source, target)

    planned = dataclasses.replace(planned, garbage=planned.garbage[:4])
    with monkeypatch.context() as patch:
        patch.setattr(Everybodys, "rename", dying)
        patch.setattr(gc, "_move_back", lambda *_: 0)
        patch.setattr(Everybodys, "delete", lambda *_, **__: True)
        with pytest.raises(Killed):
            gc.sweep(shared, planned)
    assert not any(Path(path).exists() for path in moved)
    nothing = dataclasses.replace(planned, garbage=())
    assert gc.sweep(shared, nothing) == gc.Swept(())

    age(shared, 0.1)

    assert gc.sweep(shared, nothing) == gc.Swept((), recovered=3)
    assert (ids(shared), files(shared)) == ({old.id}, needs(old))
    assert not list((Path(shared.root) / "sweeps").iterdir())
    assert not list((Path(shared.root) / "trash" / "alice").iterdir())


def test_a_sweep_that_fails_takes_back_what_it_moved(local, shared, old, monkeypatch):
    """When the store refuses in the middle of a sweep, all is as it was."""
    put.image(old, local, shared)
    age(shared, 40)
    before, planned, rename, moved = files(shared), gc.plan(shared, ()), Everybodys.rename, []

    def full(self, source, target):
        if "/trash/" in target and len(moved) == 3:
            raise QuotaError("x", why="full", mend="y", uri="u")
        moved.append(source)
        rename(self, source, target)

    monkeypatch.setattr(Everybodys, "rename", full)
    with pytest.raises(QuotaError) as caught:
        gc.sweep(shared, planned)
    assert caught.value.what == "the garbage was not collected at u"
    assert (ids(shared), files(shared)) == ({old.id}, before)
    assert not list((Path(shared.root) / "sweeps").iterdir())


def test_what_may_not_be_moved_is_spared(local, shared, old, monkeypatch):
    """What the file system does not let us move stays, and the rest goes."""
    put.image(old, local, shared)
    age(shared, 40)
    rename = Everybodys.rename

    def refuse(self, source, target):
        if old.layers[1].digest in source:
            raise DeniedError("x", why="sticky", mend="y", uri="u")
        rename(self, source, target)

    monkeypatch.setattr(Everybodys, "rename", refuse)
    swept = gc.sweep(shared, gc.plan(shared, ()))
    assert [each.key for each in swept.spared] == [f"{old.layers[1].digest}.tar.zst"]
    assert files(shared) == {f"{old.layers[1].digest}.tar.zst"}


def test_a_sweep_moves_nothing_late(local, shared, old, monkeypatch):
    """What a sweep could not move within its time, puts no longer wait for: it stays."""
    monkeypatch.setattr(sweeping, "MOVED_WITHIN_S", 0.0)
    put.image(old, local, shared)
    age(shared, 40)
    swept = gc.sweep(shared, gc.plan(shared, ()))
    assert (swept.deleted, ids(shared)) == ((), {old.id})


def test_puts_and_sweeps_at_once(local, shared):
    """Three users put images and give them up beside two who sweep all the time: what was put is there."""
    layers = [layer(local, f"layer{number}") for number in range(6)]
    done = threading.Event()
    with ThreadPoolExecutor(5) as pool:
        sweeps = [pool.submit(sweep_until, done, shared) for _ in range(2)]
        puts = [
            pool.submit(put_and_give_up, of(user, shared), local, layers, random.Random(user))  # noqa: S311 - no secret
            for user in ("alice", "bob", "carol")
        ]
        wait(puts)
        done.set()
    missing = [path for task in puts for path in task.result()]
    assert missing == []
    assert {kind for task in sweeps for kind in task.result()} == {"blob", "image", "use"}


def put_and_give_up(store: HdfsStore, local: DirectoryStore, layers: list[Layer], chance: random.Random) -> list[str]:
    """Put images, and let our use of each be old once it was looked at; return what was missing."""
    missing = []
    for _ in range(25):
        wanted = manifest(*chance.sample(layers, 3))
        report = put.image(wanted, local, store)
        paths = [stored.path for stored in (*report.files, report.manifest)]
        missing += [path for path in (*paths, store.layout.manifest(wanted.id)) if not Path(path).is_file()]
        for use in uses.uses(store):
            if use.user == store.user:
                make_old(Path(use.path))
    return missing


def sweep_until(done: threading.Event, shared: HdfsStore) -> set[str]:
    """Sweep as the superuser what was planned a round ago, as if manifests were old; return what kinds were deleted."""
    store, deleted = of("hdfs", shared), set()
    store.files.owner = "hdfs"
    planned = gc.plan(store, ())
    while not done.is_set():
        for path in (Path(shared.root) / "images").glob("*"):
            make_old(path)
        stale, planned = planned, gc.plan(store, (), gc.Policy(grace=timedelta(0)))
        finished = tuple(each for each in stale.garbage if each.kind != "part")
        swept = gc.sweep(store, dataclasses.replace(stale, garbage=finished))
        deleted |= {each.kind for each in swept.deleted}
    return deleted


def make_old(path: Path) -> None:
    then = time.time() - 40 * DAY
    with contextlib.suppress(FileNotFoundError):
        os.utime(path, (then, then))
