"""The store on a real HDFS: many users, killed and simultaneous writers, quotas, safe mode, sweeps beside puts."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from clusterkit.environments.manifest import Layer, Manifest, StoredLayer
from clusterkit.errors import StoreError
from clusterkit.hadoop.cluster import Cluster
from clusterkit.hadoop.hdfs import DeniedError, MissingPathError, QuotaError, SafeModeError
from clusterkit.store import gc, images, names, put, uses, verify
from clusterkit.store.blob import Blob, blobs
from clusterkit.store.directory import DirectoryStore
from clusterkit.store.hdfs import HdfsStore

SIZE = 1_000_000
UNUSED = gc.Policy(*[timedelta(seconds=-5)] * 3)
"""Nothing is kept for its age, not even what was put just now."""


@pytest.fixture
def hdfs_of(cluster, monkeypatch):
    """Return a function that connects to HDFS as a user."""

    def connect(user: str):
        monkeypatch.setenv("HADOOP_USER_NAME", user)
        found = Cluster.from_directory("mine", cluster.layout.conf).hdfs
        found.status("/")  # connects, as this user
        monkeypatch.delenv("HADOOP_USER_NAME")
        return found

    return connect


@pytest.fixture
def superuser(cluster):
    return cluster.cluster().hdfs


@pytest.fixture
def root(superuser):
    """Return a directory where all users may make a store, deleted at the end."""
    above = f"/tmp/test store {time.time_ns()}"
    superuser.mkdirs(above)
    superuser.set_mode(above, 0o1777)
    yield f"{above}/clusterkit"
    superuser.delete(above, recursive=True)


@pytest.fixture
def local(tmp_path) -> DirectoryStore:
    """Return the store where images are built."""
    return DirectoryStore(tmp_path / "local")


def layer(local: DirectoryStore, name: str, *, kind: str = "packages", size: int = SIZE) -> Layer:
    """Put a layer where the packer would, in both forms; what it is compressed to is of no account here."""
    data = (hashlib.sha256(name.encode()).digest() * (size // 32 + 1))[:size]
    digest = hashlib.sha256(data).hexdigest()
    (local.path / "layers").mkdir(parents=True, exist_ok=True)
    for form in ("zst", "gz"):
        (local.path / "layers" / f"{digest}.tar.{form}").write_bytes(data)
    stored = StoredLayer(size_bytes=size, sha256=digest)
    return Layer(digest=digest, kind=kind, name=name, files=1, size_bytes=size, stored={"zst": stored, "gz": stored})


def manifest(*layers: Layer, name: str = "analysis") -> Manifest:
    return Manifest(name=name, python="3.11.7", platform="linux-64", glibc="2.17", lock="l", layers=layers)


@pytest.fixture
def image(local) -> Manifest:
    """Return an image of three shared layers and one of the user's code."""
    shared = (layer(local, name) for name in ("python", "mkl", "numpy"))
    return manifest(*shared, layer(local, "mypackage", kind="code", size=100))


def modes(hdfs, root) -> dict[str, tuple[str, str]]:
    """Return what is in a store, with owner and mode; digests cut to 6 digits."""
    return {
        "/".join(part[:6] if len(part) > 60 else part for part in entry.path[len(root) + 1 :].split("/")): (
            entry.owner,
            oct(entry.mode),
        )
        for entry in hdfs.list(root, recursive=True)
    }


def test_two_users_share_layers_and_keep_their_code(hdfs_of, superuser, root, local, image):
    """The second user uploads his code alone; layers are everybody's to read, code nobody's but its user's."""
    alice, bob = (HdfsStore(hdfs_of(user), root) for user in ("alice", "bob"))

    first, second = (put.image(image, local, store) for store in (alice, bob))

    assert [len(first.uploaded), len(second.uploaded)] == [4, 1]
    assert [stored.public for stored in second.files] == [True, True, True, False]
    python, mkl, numpy, code = (each.digest[:6] for each in image.layers)
    shared = dict.fromkeys(("layers", "images", "users", "uses"), ("alice", "0o1777"))
    shared |= {f"layers/{digest}": ("alice", "0o644") for digest in (python, mkl, numpy)}
    shared |= {f"images/{image.id[:6]}": ("alice", "0o755")}
    shared |= {f"images/{image.id[:6]}/manifest.json": ("alice", "0o644")}
    for user in ("alice", "bob"):
        shared |= {f"users/{user}{below}": (user, "0o700") for below in ("", "/layers", "/manifests")}
        shared |= {f"users/{user}/layers/{code}": (user, "0o600")}
        shared |= {f"users/{user}/manifests/{first.manifest.blob.name[:6]}": (user, "0o600")}
        shared |= {f"uses/{user}": (user, "0o755"), f"uses/{user}/{image.id[:6]}": (user, "0o644")}
    assert modes(superuser, root) == shared
    with pytest.raises(DeniedError):
        bob.files.read(first.files[3].path)
    assert superuser.status(root).mode == 0o1777


def test_unpacked_by_yarn_unchecked(hdfs_of, root, local, image):
    """What YARN unpacks unchecked is taken from nobody else: the second user has his own."""
    alice, bob = (HdfsStore(hdfs_of(user), root) for user in ("alice", "bob"))
    assert len(put.image(image, local, alice, form="gz").uploaded) == 4
    report = put.image(image, local, bob, form="gz")
    assert [stored.path.startswith(f"{root}/users/bob/layers/") for stored in report.files] == [True] * 4
    assert put.image(image, local, bob, form="gz").uploaded == ()


def test_an_unchanged_image_is_found_by_metadata_alone(hdfs_of, root, local, image, monkeypatch):
    """The second put of an image moves no data."""
    alice = HdfsStore(hdfs_of("alice"), root)
    put.image(image, local, alice)
    for name in ("open", "write", "put", "guarded"):
        monkeypatch.setattr(type(alice.files), name, lambda *_, **__: pytest.fail("data was moved"))
    report = put.image(image, local, HdfsStore(alice.files, root))
    assert (report.uploaded, report.new) == ((), False)


def test_simultaneous_writers_both_succeed(hdfs_of, root, local, image):
    """Of several users that put the same image at once all succeed, and each file is there once."""
    stores = [HdfsStore(hdfs_of(user), root) for user in ("alice", "bob", "alice", "bob")]
    with ThreadPoolExecutor(len(stores)) as pool:
        reports = list(pool.map(lambda store: put.image(image, local, store), stores))
    assert sum(report.new for report in reports) == 1
    assert sum(len(report.uploaded) for report in reports) == 3 + 2
    assert verify.verify(stores[0]).findings == ()
    assert not [path for path in modes(stores[0].files, f"{root}/layers") if path.endswith("part")]


def test_a_killed_upload_leaves_nothing_that_counts(cluster, hdfs_of, superuser, root, local, image, tmp_path):
    """An uploader that is killed in the middle of a layer leaves a part that gc sweeps; the next one does the rest."""
    alice = HdfsStore(hdfs_of("alice"), root)
    script = tmp_path / "upload.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time
        import msgspec
        from pathlib import Path
        from clusterkit.environments.manifest import Manifest
        from clusterkit.hadoop.cluster import Cluster
        from clusterkit.store import put, store
        from clusterkit.store.directory import DirectoryStore
        from clusterkit.store.hdfs import HdfsStore

        conf, root, local, manifest, slow = sys.argv[1:]
        store._CHUNK_BYTES = 200_000
        checked = store._checked

        def slowly(blob, local, progress):
            for chunk in checked(blob, local, progress):
                yield chunk
                if blob.name.startswith(slow):
                    print("half", flush=True)
                    time.sleep(600)

        store._checked = slowly
        image = msgspec.json.decode(Path(manifest).read_bytes(), type=Manifest)
        put.image(image, DirectoryStore(Path(local)), HdfsStore(Cluster.from_directory("c", Path(conf)).hdfs, root))
        """)
    )
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(image))
    argv = [
        sys.executable,
        str(script),
        str(cluster.layout.conf),
        root,
        str(local.path),
        str(tmp_path / "manifest.json"),
    ]
    with subprocess.Popen(
        [*argv, image.layers[1].digest], stdout=subprocess.PIPE, env={**os.environ, "HADOOP_USER_NAME": "alice"}
    ) as uploader:
        assert uploader.stdout.readline() == b"half\n"
        others = (*blobs(image, "zst"), Blob.of_manifest(image))
        until(lambda: len(alice.has(others)) == 4, "all but one layer is there")
        until(lambda: any(path.endswith("manifest.json") for path in modes(superuser, root)), "the manifest waits")
        os.kill(uploader.pid, signal.SIGKILL)

    assert alice.images() == ()
    assert alice.locate(blobs(image, "zst")[1]) is None
    assert gc.plan(alice, ()).garbage == ()
    ungraceful = gc.Policy(grace=timedelta(seconds=-5))
    parts = gc.plan(alice, (), ungraceful).garbage
    assert [(part.kind, part.path.rpartition("/.")[0]) for part in parts] == [
        ("part", f"{root}/images"),
        ("part", f"{root}/layers"),
    ]
    report = put.image(image, local, alice)
    assert [stored.blob.what for stored in report.uploaded] == ["the layer mkl"]
    gc.sweep(alice, gc.plan(alice, (), ungraceful))
    assert not any(superuser.exists(part.path) for part in parts)
    assert verify.verify(alice).findings == ()


def until(condition, what: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def admin(cluster, *args: str) -> None:
    """Run Hadoop's own administration command."""
    environment = cluster.environment()
    lib = cluster.cluster().configuration.get("yarn.application.classpath").rpartition(",")[2]
    quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
    argv = [f"{environment['JAVA_HOME']}/bin/java", *quick, "-cp", f"{environment['HADOOP_CONF_DIR']}:{lib}"]
    subprocess.run(
        [*argv, "org.apache.hadoop.hdfs.tools.DFSAdmin", *args],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=60,
    )


def test_a_full_quota_is_named(cluster, hdfs_of, root, local, image):
    """Where a quota is full, path, quota, need and the ways out are said; what was there is unharmed."""
    spacious, small = (HdfsStore(hdfs_of("alice"), f"{root}/{name}") for name in ("space", "names"))
    first = manifest(image.layers[3])
    for store in (spacious, small):
        put.image(first, local, store)
    admin(cluster, "-setSpaceQuota", "1m", spacious.root)
    admin(cluster, "-setQuota", "17", small.root)
    errors = []
    for store in (spacious, small):
        with pytest.raises(QuotaError) as caught:
            put.image(image, local, store)
        errors.append(caught.value)
        assert caught.value.what.startswith(f"the environment analysis was not stored at {store.uri}/")
        assert [entry.name for entry in store.images()] == [first.id]
        assert [path for path in modes(store.files, store.root) if path.endswith(".part")] == []
    assert errors[0].why.startswith(f"the space quota of {spacious.root}, 1 MiB with all copies, is full: ")
    assert errors[1].why == f"the quota of {small.root}, 17 files and directories, is full"
    free = "free space with `clusterkit env gc --dry-run`, or have the quota raised"
    assert [error.mend for error in errors] == [
        f"{free} (hdfs dfsadmin -setSpaceQuota SIZE {spacious.root})",
        f"{free} (hdfs dfsadmin -setQuota N {small.root})",
    ]


def test_safe_mode_is_said(cluster, hdfs_of, root, local, image):
    """In safe mode nothing is stored, and that is why."""
    alice = HdfsStore(hdfs_of("alice"), root)
    admin(cluster, "-safemode", "enter")
    try:
        with pytest.raises(SafeModeError) as caught:
            put.image(image, local, alice)
    finally:
        admin(cluster, "-safemode", "leave")
    assert caught.value.what.startswith("the environment analysis was not stored at hdfs://")
    assert "safe mode" in caught.value.why


def test_a_root_that_cannot_be_made(hdfs_of, root, local, image):
    """Who may not make the store's root is told what the administrator has to run, and what to set without him."""
    nowhere = f"/not-mine-{time.time_ns()}"
    alice = HdfsStore(hdfs_of("alice"), nowhere)
    with pytest.raises(DeniedError) as caught:
        put.image(image, local, alice)
    assert 'user=alice, access=WRITE, inode="/"' in caught.value.why
    assert caught.value.mend == (
        f"have the HDFS superuser run once: hdfs dfs -mkdir -p {nowhere} && hdfs dfs -chmod 1777 {nowhere}; "
        "or set hdfs_root to a directory of your own, such as /user/alice/clusterkit"
    )


def test_names_sizes_and_removal(hdfs_of, root, local, image):
    """Images are listed with their sizes and names, found by name of ours and of others, and removed by their owner."""
    alice, bob = (HdfsStore(hdfs_of(user), root) for user in ("alice", "bob"))
    other = manifest(image.layers[0], layer(local, "scipy"), name="other")
    put.image(image, local, alice)
    put.image(other, local, bob)
    names.point(alice, "analysis", image.id)

    assert [names.find(bob, each) for each in ("alice/analysis", other.id[:8])] == [image.id, other.id]
    assert {each.id: (each.owner, each.own_bytes, each.shared_bytes, each.names) for each in images.images(bob)} == {
        image.id: ("alice", 2 * SIZE + 100, SIZE, ("alice/analysis",)),
        other.id: ("bob", SIZE, SIZE, ()),
    }
    gc.sweep(bob, gc.plan_removal(bob, other.id, ()))
    assert [entry.name for entry in alice.images()] == [image.id]
    assert verify.verify(alice).findings == ()
    with pytest.raises(StoreError, match="was not removed"):
        gc.plan_removal(alice, image.id, ())


def test_a_sweep_takes_what_is_ours_and_unused(hdfs_of, superuser, root, local, image):
    """A user sweeps his own garbage, running applications and others' uses keep theirs, the superuser sweeps all."""
    alice, bob = (HdfsStore(hdfs_of(user), root) for user in ("alice", "bob"))
    other = manifest(image.layers[0], layer(local, "scipy"), name="other")
    put.image(image, local, alice)
    put.image(other, local, bob)
    assert gc.plan(alice, ()).garbage == ()
    assert gc.plan(alice, [image.id[:12], other.id[:12]], UNUSED).garbage == ()
    planned = gc.plan(alice, [other.id[:12]], UNUSED)
    gc.sweep(alice, planned)
    left = {path for path in modes(superuser, root) if path.startswith("layers/")}
    assert left == {f"layers/{each.digest[:6]}" for each in other.layers}
    assert put.image(other, local, bob).uploaded == ()

    owner = HdfsStore(superuser, root)
    gc.sweep(owner, gc.plan(owner, (), UNUSED))
    assert not {path for path in modes(superuser, root) if path.startswith(("layers/", "images/"))}


def test_puts_beside_sweeps(hdfs_of, superuser, root, local):
    """Two users put images and give them up while a sweep goes on: whatever was put is there, and readable."""
    layers = [layer(local, f"layer{number}", size=1000) for number in range(5)]
    stores = [HdfsStore(hdfs_of(user), root) for user in ("alice", "bob")]
    swept = HdfsStore(superuser, root)

    def work(store: HdfsStore) -> list[str]:
        missing, chance = [], random.Random(store.user)  # noqa: S311 - no secret
        for _ in range(8):
            report = put.image(manifest(*chance.sample(layers, 3)), local, store)
            missing += [stored.path for stored in report.files if not superuser.exists(stored.path)]
            assert store.load(report.image).id == report.image
            for use in uses.uses(store):
                if use.user == store.user:
                    make_old(superuser, use.path)
        return missing

    def plan() -> gc.GcPlan:
        for image in swept.images():
            make_old(superuser, image.path)
        found = gc.plan(swept, (), gc.Policy(grace=timedelta(seconds=-5)))
        return dataclasses.replace(found, garbage=tuple(each for each in found.garbage if each.kind != "part"))

    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(work, store) for store in stores]
        planned, kinds = plan(), set()
        while not all(task.done() for task in tasks):
            stale, planned = planned, plan()
            kinds |= {each.kind for each in gc.sweep(swept, stale).deleted}
    assert [task.result() for task in tasks] == [[], []]
    assert kinds | {each.kind for each in gc.sweep(swept, plan()).deleted} == {"image", "blob", "use"}
    assert swept.images() == ()


def make_old(hdfs, path: str) -> None:
    """Let a file be forty days old, if it is still there."""
    then_ms = int((time.time() - 40 * 24 * 3600) * 1000)
    with contextlib.suppress(MissingPathError):
        hdfs._call(path, "was not made old", lambda client, bare: client.set_times(bare, then_ms, then_ms))


def test_every_byte_is_verified(hdfs_of, superuser, root, local, image):
    """A layer that was damaged on HDFS is named, and put again once it was taken away."""
    alice = HdfsStore(hdfs_of("alice"), root)
    report = put.image(image, local, alice)
    damaged = report.files[1].path
    alice.files.write(damaged, b"x" * SIZE, overwrite=True)

    assert verify.verify(alice, quick=True).findings == ()
    (found,) = verify.verify(alice).findings

    assert (found.what, found.uri, found.images) == ("the layer mkl", f"{alice.files.uri}{damaged}", (image.id,))
    assert verify.repair(alice, [found]) == (found,)
    assert [stored.path for stored in put.image(image, local, alice).uploaded] == [damaged]
    assert verify.verify(alice).findings == ()


def test_more_copies_for_more_nodes(hdfs_of, root, local, image):
    """Shared layers are to have a copy on each node, code is not."""
    alice = HdfsStore(hdfs_of("alice"), root, nodes=lambda: 3)
    report = put.image(image, local, alice)
    assert [alice.files.status(stored.path).replication for stored in report.files] == [3, 3, 3, 1]
    blob = Blob.bare("0" * 64, 4)
    Path(local.path / "bare").mkdir()
    (local.path / "bare" / blob.name).write_bytes(b"bare")
    assert alice.files.status(alice.put(blob, local.file(blob)).path).replication == 3
