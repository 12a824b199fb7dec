"""A store: put once, never half, found again; what is broken is named."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import zstandard

from clusterkit.environments.lock import LockedPackage
from clusterkit.environments.manifest import Layer, Manifest, Proof, StoredLayer
from clusterkit.errors import ClusterError, StoreError
from clusterkit.hadoop.hdfs import DeniedError, MissingPathError, PathExistsError, QuotaError, SafeModeError
from clusterkit.store import images, names, put, refusals, uses, verify
from clusterkit.store.blob import Blob, blobs
from clusterkit.store.directory import DirectoryStore, LocalFiles
from clusterkit.store.hdfs import HdfsStore


class Everybodys(LocalFiles):
    """The files of this machine in the place of those of HDFS; `owners` says whose a path is where it is not ours."""

    uri = "hdfs://nn"
    user = "alice"
    superuser = "hdfs"

    def __init__(self):
        self.owners = {}
        self.passable = set()

    def status(self, path):
        found = super().status(path)
        others = 0o005 if path in self.passable else 0o004
        return msgspec.structs.replace(found, owner=self.owners.get(path, self.user), mode=found.mode | others)


@pytest.fixture
def local(tmp_path) -> DirectoryStore:
    """Return the store where images are built."""
    return DirectoryStore(tmp_path / "local")


@pytest.fixture
def shared(tmp_path) -> HdfsStore:
    """Return a store with the places and rules of one on HDFS, on this machine's files."""
    return HdfsStore(Everybodys(), str(tmp_path / "shared"))


def layer(local: DirectoryStore, name: str, data: bytes, *, kind: str = "packages", level: int = 3) -> Layer:
    """Put a layer where the packer would."""
    digest = hashlib.sha256(data).hexdigest()
    forms = {"zst": zstandard.compress(data, level), "gz": gzip.compress(data, mtime=0)}
    (local.path / "layers").mkdir(parents=True, exist_ok=True)
    for form, packed in forms.items():
        (local.path / "layers" / f"{digest}.tar.{form}").write_bytes(packed)
    stored = {f: StoredLayer(size_bytes=len(p), sha256=hashlib.sha256(p).hexdigest()) for f, p in forms.items()}
    return Layer(digest=digest, kind=kind, name=name, files=1, size_bytes=len(data), stored=stored)


def manifest(*layers: Layer, name: str = "analysis", **more) -> Manifest:
    return Manifest(name=name, python="3.11.7", platform="linux-64", glibc="2.17", lock="l", layers=layers, **more)


@pytest.fixture
def image(local) -> Manifest:
    """Return an image of two shared layers and one of the user's code."""
    return manifest(
        layer(local, "python", hashlib.sha512(b"python").hexdigest().encode() * 90),
        layer(local, "mkl", os.urandom(50_000), kind="binaries"),
        layer(local, "mypackage", b"print()", kind="code"),
    )


def tree(store) -> list[str]:
    """Return the names of all files of a store, digests cut to 6 digits."""
    root = store.root
    found = [entry.path for entry in store.files.list(root, recursive=True) if not entry.directory]
    return sorted(
        "/".join(part if len(part) < 60 else part[:6] for part in path[len(root) + 1 :].split("/")) for path in found
    )


def test_an_image_is_put_once(local, shared, image):
    """Layers go to all, code to its user, the manifest last; a second put finds all of it."""
    first = put.image(image, local, shared)
    second = put.image(image, local, shared)

    python, mkl, code = (each.digest[:6] for each in image.layers)
    found = tree(shared)
    assert found == sorted(
        [
            f"images/{image.id[:6]}/manifest.json",
            f"layers/{mkl}",
            f"layers/{python}",
            f"users/alice/layers/{code}",
            f"users/alice/manifests/{first.manifest.blob.name[:6]}",
            f"uses/alice/{image.id[:6]}",
        ]
    )
    assert (len(first.uploaded), len(first.hits), first.new) == (3, 0, True)
    assert (len(second.uploaded), len(second.hits), second.new, second.uploaded_bytes) == (0, 3, False, 0)
    assert [stored.uri for stored in second.files] == [stored.uri for stored in first.files]
    assert shared.load(image.id) == image


def test_putting_again_reads_and_writes_nothing(local, shared, image, monkeypatch):
    """Where all is there already, a put makes metadata calls only."""
    put.image(image, local, shared)
    for name in ("read", "chunks", "write", "mkdirs"):
        monkeypatch.setattr(Everybodys, name, lambda *_, **__: pytest.fail("no metadata call"))
    monkeypatch.setattr(DirectoryStore, "file", lambda *_: pytest.fail("the layer is there"))

    assert put.image(image, local, shared).uploaded == ()


def test_what_a_put_tells(local, shared, image):
    """Progress names what is uploaded, how much of it is there, and how fast."""
    told = []
    put.image(image, local, shared, said=lambda *words: told.append(words))
    assert {stage for stage, _ in told} == {"uploading"}
    assert told[-1][1].startswith("the layer python and 2 more: ")
    assert told[-1][1].endswith("/s")


def test_only_what_is_public_is_called_so(local, shared, image, monkeypatch):
    """A file is public when others may read it and pass every directory above; code never is."""
    monkeypatch.setattr("clusterkit.store.directory._OURS", 0o777)
    for directory in (*Path(shared.root).parents, Path(shared.root), Path(shared.root) / "layers"):
        shared.files.passable.add(str(directory))
    assert [stored.public for stored in put.image(image, local, shared).files] == [True, True, False]
    shared.files.passable.discard(str(Path(shared.root).parent))
    again = HdfsStore(shared.files, shared.root)
    assert [stored.public for stored in put.image(image, local, again).files] == [False, False, False]


def test_a_layer_that_changed_on_the_way_is_not_stored(local, shared, image):
    """What is not what the manifest says is refused after it was written aside; nothing of it stays."""
    broken = image.layers[1]
    path = local.path / "layers" / f"{broken.digest}.tar.zst"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)

    with pytest.raises(StoreError) as caught:
        put.image(image, local, shared)

    assert caught.value.what == "the layer mkl was not stored"
    assert "has the SHA-256" in caught.value.why
    assert [name for name in tree(shared) if name.startswith("images")] == []
    assert not [name for name in tree(shared) if "part" in name or broken.digest[:6] in name]


def test_a_layer_that_is_not_here_is_said(local, shared, image):
    """A layer that was swept here is named, with the way to build it again."""
    (local.path / "layers" / f"{image.layers[0].digest}.tar.zst").unlink()
    with pytest.raises(StoreError) as caught:
        put.image(image, local, shared)
    assert caught.value.what == "the layer python cannot be read"
    assert "clusterkit env build" in caught.value.mend


def test_concurrent_writers_both_succeed(local, shared, image):
    """Of many that put the same at once all succeed, and each file is there once."""
    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(lambda _: put.image(image, local, shared), range(8)))

    assert [len(report.files) for report in reports] == [3] * 8
    assert sum(report.new for report in reports) == 1
    assert sum(len(report.uploaded) for report in reports) == 3
    assert len(tree(shared)) == 6


def test_who_comes_second_drops_his_own(local, shared, image, monkeypatch):
    """A writer that finds the file when it renames takes what is there."""
    blob = blobs(image, "zst")[0]
    other = HdfsStore(Everybodys(), shared.root)

    def progress(*_):
        assert other.put(blob, local.file(blob)).uploaded

    assert not shared.put(blob, local.file(blob), progress=progress).uploaded
    assert tree(shared) == [f"layers/{blob.name[:6]}"]


def test_other_bytes_of_the_same_layer(local, shared, image, tmp_path):
    """Another machine may compress the same layer otherwise: both files are kept, and each manifest finds its own."""
    put.image(image, local, shared)
    elsewhere = DirectoryStore(tmp_path / "elsewhere")
    same = manifest(
        *(layer(elsewhere, each.name, zstd(local, each), kind=each.kind, level=-5) for each in image.layers)
    )
    assert same.id == image.id
    assert same.layers[0].stored["zst"] != image.layers[0].stored["zst"]

    report = put.image(same, elsewhere, shared)

    assert [stored.blob.what for stored in report.uploaded] == ["the layer python"]
    assert report.files[0].path == f"{shared.root}/users/alice/layers/{same.layers[0].digest}.tar.zst"
    assert [stored.path for stored in report.files] == [shared.destination(stored.blob) for stored in report.files]
    assert not report.files[0].public
    assert not put.image(image, local, shared).uploaded
    assert not put.image(same, elsewhere, shared).uploaded


def zstd(local, of) -> bytes:
    return zstandard.decompress((local.path / "layers" / f"{of.digest}.tar.zst").read_bytes())


@pytest.mark.parametrize("form", ["zst", "gz"])
@pytest.mark.parametrize("owner", ["hdfs", "mallory"])
def test_files_of_others(local, shared, image, form, owner):
    """What a node checks may be another's; what YARN unpacks unchecked must be ours or the superuser's."""
    blob = blobs(image, form)[0]
    put.image(image, local, shared, form=form)
    shared.files.owners[f"{shared.root}/layers/{blob.name}"] = owner

    found = put.image(image, local, shared, form=form)

    own = form == "gz" and owner == "mallory"
    assert [stored.blob for stored in found.uploaded] == ([blob] if own else [])
    assert found.files[0].path.startswith(f"{shared.root}/{'users/alice/' if own else ''}layers/")


def test_directories_of_others(local, shared, image):
    """A directory that bears our name but belongs to another is not used."""
    shared.share(shared.layout.users)
    shared.files.mkdirs(f"{shared.root}/users/alice")
    shared.files.owners[f"{shared.root}/users/alice"] = "mallory"
    with pytest.raises(StoreError) as caught:
        put.image(image, local, shared)
    assert caught.value.why == "it belongs to mallory, and would hold what belongs to alice"
    assert caught.value.uri == f"hdfs://nn{shared.root}/users/alice"


def test_a_bare_archive_goes_beside_the_layers(local, shared, image):
    """What else an image needs is put with it, found again, and kept by its use."""
    archive = Blob.bare("b" * 64, 4)
    (local.path / "bare").mkdir()
    (local.path / "bare" / archive.name).write_bytes(b"bare")

    first = put.image(image, local, shared, beside=(archive,))

    assert (first.files[-1].blob, first.files[-1].path) == (archive, f"{shared.root}/bare/{archive.name}")
    assert put.image(image, local, shared, beside=(archive,)).uploaded == ()
    (use,) = uses.uses(shared)
    assert archive.name in uses.files(shared, use)


def test_the_first_failure_is_told_and_ends_the_other_uploads(local, shared, image, monkeypatch):
    """When one upload fails, the others stop, leave nothing, and its error is the one that is raised."""
    started, refused, write = threading.Barrier(3, timeout=20), threading.Event(), Everybodys.write

    def refuse(self, path, data, **how):
        if "/layers/" not in path:
            return write(self, path, data, **how)
        started.wait()
        if image.layers[1].digest in path:
            refused.set()
            raise DeniedError("x", why="user=alice may not", mend="y")
        return write(self, path, after(refused, data), **how)

    monkeypatch.setattr("clusterkit.store.store._CHUNK_BYTES", 1)
    monkeypatch.setattr(Everybodys, "write", refuse)
    with pytest.raises(DeniedError) as caught:
        put.image(image, local, shared)
    assert caught.value.what.startswith("the environment analysis was not stored at")
    assert not [name for name in tree(shared) if "part" in name or name.startswith("images")]


def after(event, data):
    """Yield data, all but the first piece once an event has come."""
    for chunk in data:
        yield chunk
        assert event.wait(20)


def test_an_interrupted_put_leaves_no_parts(local, shared, image, monkeypatch):
    """Ctrl-C ends the uploads at their next piece and leaves what is whole, which the next put finds."""
    monkeypatch.setattr("clusterkit.store.store._CHUNK_BYTES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(put, "wait", raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            put.image(image, local, shared)
    assert [name for name in tree(shared) if "part" in name or name.startswith("images")] == []
    assert put.image(image, local, shared).new


def test_near_a_quota_files_go_one_by_one(local, shared, image, monkeypatch):
    """HDFS counts a whole block for each open file: what does not fit at once may fit one after the other."""
    together, write, tries = threading.Barrier(3, timeout=20), Everybodys.write, []

    def first_refused(self, path, data, **how):
        tries.append(path)
        if "/layers/" in path and tries.count(path) == 1:
            together.wait()
            raise QuotaError("x", why="full", mend="y", uri=path)
        return write(self, path, data, **how)

    monkeypatch.setattr(Everybodys, "write", first_refused)
    report = put.image(image, local, shared)
    assert (len(report.uploaded), report.new) == (3, True)
    assert [tries.count(stored.path) for stored in report.files] == [2, 2, 2]


def test_who_deletes_all_the_time_is_told(local, shared, image, monkeypatch):
    """Where files vanish as fast as they are put, a put gives up and says so."""
    put_one = HdfsStore.put

    def vanishing(self, blob, path, **how):
        stored = put_one(self, blob, path, **how)
        self.files.delete(stored.path)
        return stored

    monkeypatch.setattr(HdfsStore, "put", vanishing)
    with pytest.raises(StoreError) as caught:
        put.image(image, local, shared)
    assert caught.value.why == "it was put 3 times, and each time somebody deleted it"


def test_a_manifest_is_read_as_what_it_is(local, shared, image):
    """A manifest that is missing, damaged, or of another image is refused with its place."""
    local.save(image)
    path = local.path / "images" / image.id / "manifest.json"
    assert (local.load(image.id), local.save(image)) == (image, False)
    with pytest.raises(MissingPathError) as caught:
        local.load("0" * 64)
    assert caught.value.what == f"there is no image 000000000000 in {local.uri}"
    for damage in (b"{", b'{"name": 3}', msgspec.json.encode(manifest(name="other"))):
        path.write_bytes(damage)
        with pytest.raises(StoreError, match="is no manifest of an image") as caught:
            local.load(image.id)
        assert caught.value.uri == str(path)


def test_names(local, shared, image):
    """A name means the image it was pointed to last, remembers those before, and is written only when it changes."""
    other = manifest(image.layers[0])
    assert names.load(shared, "analysis") is None
    first = names.point(shared, "analysis", image.id)
    assert names.point(shared, "analysis", image.id) == first
    second = names.point(shared, "analysis", other.id)
    assert (second.image, second.history) == (other.id, (names.Build(image.id, first.built),))
    assert list(names.all_names(shared)) == [names.Named("alice", "analysis", second)]
    assert (names.remove(shared, "analysis"), names.remove(shared, "analysis")) == (True, False)


def test_only_our_own_names_count(shared, image):
    """A name in our directory that another wrote is refused."""
    names.point(shared, "analysis", image.id)
    path = f"{shared.root}/names/alice/analysis.json"
    shared.files.owners[path] = "mallory"
    with pytest.raises(StoreError) as caught:
        names.load(shared, "analysis")
    assert (caught.value.why, caught.value.uri) == ("it belongs to mallory", f"hdfs://nn{path}")


def test_find(local, shared, image):
    """People mean an image by a name, another's name, or the beginning of its id."""
    put.image(image, local, shared)
    names.point(shared, "analysis", image.id)
    for reference in ("analysis", "alice/analysis", image.id, image.id[:12], image.id[:4]):
        assert names.find(shared, reference) == image.id
    with pytest.raises(MissingPathError) as caught:
        names.find(shared, "analysys")
    assert caught.value.why.endswith("; did you mean analysis?")
    with pytest.raises(MissingPathError):
        names.find(shared, "bob/analysis")
    for digits in ("ab" * 32, "ab" * 31 + "cd"):
        shared.files.mkdirs(f"{shared.root}/images/{digits}")
    with pytest.raises(StoreError, match="is no single image"):
        names.find(shared, "abab")


@pytest.mark.parametrize("name", ["../../etc/passwd", ".hidden", "a/b", "%2E", "é 日本"])
def test_hostile_users_and_names_stay_in_their_place(tmp_path, name):
    """Whatever a user is called, and calls an environment, is one part of a path."""
    files = Everybodys()
    files.user = name
    store = HdfsStore(files, str(tmp_path / "shared"))
    names.point(store, name, "1" * 64)
    (only,) = [path for path in (tmp_path / "shared").rglob("*") if path.is_file()]
    assert only.parent.parent == tmp_path / "shared" / "names"
    assert not only.name.startswith(".")
    assert names.load(store, name).image == "1" * 64


def test_sizes_are_told_apart(local, shared, image):
    """An image's own bytes are those no other image has."""
    other = manifest(image.layers[0], layer(local, "scipy", b"scipy" * 100), proof=Proof(blas="mkl"))
    put.image(image, local, shared)
    put.image(other, local, shared)
    names.point(shared, "analysis", other.id)

    found = {each.id: each for each in images.images(shared)}

    python, mkl, code = (each.stored["zst"].size_bytes for each in image.layers)
    scipy = other.layers[1].stored["zst"].size_bytes
    assert {key: (each.own_bytes, each.shared_bytes, each.names, each.blas) for key, each in found.items()} == {
        image.id: (mkl + code, python, (), ""),
        other.id: (scipy, python, ("alice/analysis",), "mkl"),
    }


def test_diff(local):
    """Two images differ by their packages and layers, and by the bytes that travel."""

    def package(name, version, build=""):
        return LockedPackage(name=name, version=version, kind="wheel", build=build)

    python, old, new = (layer(local, name, name.encode() * 100) for name in ("python", "old", "new"))
    before = manifest(python, old, packages=(package("numpy", "1"), package("six", "1"), package("mkl", "1", "a")))
    after = manifest(python, new, packages=(package("numpy", "2"), package("click", "8"), package("mkl", "1", "b")))

    found = images.diff(before, after)

    assert found.packages == (
        images.Change("click", "", "8"),
        images.Change("mkl", "1 a", "1 b"),
        images.Change("numpy", "1", "2"),
        images.Change("six", "1", ""),
    )
    assert (found.added, found.removed, found.kept) == ((new,), (old,), (python,))
    assert found.added_bytes == min(each.size_bytes for each in new.stored.values())


def test_verify_names_what_is_broken(local, shared, image):
    """Every byte is looked at, or the sizes alone; what is wrong is named with the images that need it."""
    put.image(image, local, shared)
    well = verify.verify(shared)
    size = sum(each.stored["zst"].size_bytes for each in image.layers)
    assert (well.images, well.files, well.read_bytes, well.findings) == (1, 3, size, ())

    python, mkl, code = (shared.locate(blob).path for blob in blobs(image, "zst"))
    flip(python)
    os.truncate(mkl, 7)
    shared.files.delete(code)

    deep, quick = verify.verify(shared, [image.id]), verify.verify(shared, quick=True)

    size = image.layers[0].stored["zst"].size_bytes
    assert [(found.what, found.why, found.images) for found in deep.findings] == [
        ("the layer python", f"its {size} bytes are not what its name says", (image.id,)),
        ("the layer mkl", "its 7 bytes are not what its name says", (image.id,)),
        ("the layer mypackage", "it is missing", (image.id,)),
    ]
    assert [(found.what, found.path) for found in quick.findings] == [
        ("the layer mkl", mkl),
        ("the layer mypackage", code),
    ]
    assert quick.read_bytes == 0
    assert {found.path for found in verify.repair(shared, deep.findings)} == {python, mkl}
    assert len(put.image(image, local, shared).uploaded) == 3
    assert verify.verify(shared).findings == ()


def flip(path: str) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(path).write_bytes(data)


def test_verify_takes_other_bytes_of_the_same_layer(local, shared, image):
    """A layer that is compressed otherwise than the manifest says is well when it unpacks to its digest."""
    put.image(image, local, shared)
    for form in ("zst", "gz"):
        blob = blobs(image, form)[0]
        path = f"{shared.root}/layers/{blob.name}"
        data = zstd(local, image.layers[0])
        again = zstandard.compress(data, -5) if form == "zst" else gzip.compress(data, 1, mtime=1)
        assert hashlib.sha256(again).hexdigest() != blob.sha256
        Path(path).write_bytes(again)
    assert verify.verify(shared, [image.id]).findings == ()


def test_verify_names_what_others_cannot_read(local, shared, image, monkeypatch):
    """A shared layer that not everybody may read is a finding; code must be like that."""
    found = put.image(image, local, shared).files
    status = Everybodys.status
    private = {found[0].path, found[2].path}
    monkeypatch.setattr(
        Everybodys,
        "status",
        lambda self, path: msgspec.structs.replace(status(self, path), mode=0o600 if path in private else 0o644),
    )
    for quick in (True, False):
        (only,) = verify.verify(shared, quick=quick).findings
        assert (only.path, only.why.partition(":")[0]) == (found[0].path, "its mode is 600")


def test_verify_looks_at_bare_interpreters(local, shared, image):
    """A bare interpreter is what its name says when it unpacks to that digest."""
    data = b"interpreter" * 1000
    digest = hashlib.sha256(data).hexdigest()
    (local.path / "bare").mkdir(parents=True)
    (local.path / "bare" / f"{digest}.tar.gz").write_bytes(gzip.compress(data))
    blob = Blob.bare(digest, len(gzip.compress(data)))
    path = put.image(image, local, shared, beside=(blob,)).files[-1].path
    assert verify.verify(shared).findings == ()
    with Path(path).open("ab") as file:
        file.write(b"and more")
    (found,) = verify.verify(shared).findings
    assert (found.what, found.path) == ("the bare interpreter", path)


def test_verify_names_a_damaged_manifest(local, shared, image):
    """A manifest that cannot be read is a finding; an image that was asked for and is not there is an error."""
    put.image(image, local, shared)
    os.truncate(shared.layout.manifest(image.id), 9)
    (found,) = verify.verify(shared).findings
    assert (found.what, found.path) == (f"the manifest of {image.id[:12]}", shared.layout.image(image.id))
    assert verify.repair(shared, [found]) == (found,)
    with pytest.raises(MissingPathError):
        verify.verify(shared, [image.id])


def test_verify_leaves_the_code_of_others_alone(local, shared, image):
    """Others' code cannot be read, and is not missing; what is broken and another's names him."""
    put.image(image, local, shared)
    python = shared.locate(blobs(image, "zst")[0]).path
    flip(python)
    shared.files.owners |= {python: "bob", shared.layout.image(image.id): "bob"}
    shared.files.delete(shared.locate(blobs(image, "zst")[2]).path)

    (found,) = verify.verify(shared).findings

    assert (found.owner, found.mend) == ("bob", "have bob or the HDFS superuser run `clusterkit env verify --repair`")
    assert verify.repair(shared, [found]) == ()


SPACE = (
    "The DiskSpace quota of /a b is exceeded: quota = 1048576 B = 1 MB but diskspace consumed = 134217728 B = 128 MB"
)
NAMES = "The NameSpace quota (directories and files) of directory /a is exceeded: quota=3 file count=4"
FREE = "free space with `clusterkit env gc --dry-run`, or have the quota raised"
ONCE = "have the HDFS superuser run once: hdfs dfs -mkdir -p {root} && hdfs dfs -chmod 1777 {root}; "
OWN = "or set hdfs_root to a directory of your own, such as /user/alice/clusterkit"


@pytest.mark.parametrize(
    ("kind", "said", "why", "mend"),
    [
        (
            QuotaError,
            SPACE,
            "the space quota of /a b, 1 MiB with all copies, is full: 128 MiB would be used",
            f"{FREE} (hdfs dfsadmin -setSpaceQuota SIZE /a b)",
        ),
        (
            QuotaError,
            NAMES,
            "the quota of /a, 3 files and directories, is full",
            f"{FREE} (hdfs dfsadmin -setQuota N /a)",
        ),
        (QuotaError, "something new", "something new", FREE),
        (DeniedError, "user=alice may not", "user=alice may not", ONCE + OWN),
        (SafeModeError, "it is in safe mode", "it is in safe mode", "the file system's own advice"),
    ],
)
def test_refusals_say_what_to_do(shared, kind, said, why, mend):
    """A refusal names what was not stored, the limit or right, and who can change it."""
    with pytest.raises(kind) as caught, refusals.explained(shared, "the environment was not stored"):
        raise kind("x", why=said, mend="the file system's own advice", uri="u")
    assert (caught.value.what, caught.value.why) == ("the environment was not stored at u", why)
    assert caught.value.mend == mend.format(root=shared.root)


def test_other_failures_stay_as_they_are(shared):
    """What is no refusal of the store passes through."""
    with pytest.raises(ClusterError, match="HDFS is gone"), refusals.explained(shared, "x"):
        raise ClusterError("HDFS is gone", why="w", mend="m")


def test_a_directory_store_is_for_its_user_alone(local, image):
    """Everything that a directory store makes has no rights for others."""
    store = DirectoryStore(local.path.parent / "mine")
    put.image(image, local, store)
    modes = {oct(path.stat().st_mode & 0o077) for path in (store.path, *store.path.rglob("*"))}
    assert modes == {"0o0"}
    assert tree(store)[1:4] == sorted(f"layers/{each.digest[:6]}" for each in image.layers)


def test_local_files_refuse_in_the_terms_of_a_store(tmp_path, monkeypatch):
    """Missing, existing, forbidden and full are the same errors as on HDFS."""
    files = LocalFiles()
    missing = str(tmp_path / "none")
    for action in (
        files.status,
        files.read,
        files.touch,
        lambda path: list(files.list(path)),
        lambda path: list(files.chunks(path)),
    ):
        with pytest.raises(MissingPathError):
            action(missing)
    files.write(str(tmp_path / "a"), b"1")
    files.write(str(tmp_path / "b"), b"2")
    files.mkdirs(str(tmp_path / "d" / "e"))
    files.mkdirs(str(tmp_path / "f" / "g"))
    with pytest.raises(PathExistsError):
        files.write(str(tmp_path / "a"), b"3")
    with pytest.raises(PathExistsError):
        files.rename(str(tmp_path / "a"), str(tmp_path / "b"))
    with pytest.raises(PathExistsError):
        files.rename(str(tmp_path / "d"), str(tmp_path / "f"))
    assert (files.read(str(tmp_path / "b")), files.delete(missing)) == (b"2", False)
    for number, kind in ((errno.EACCES, DeniedError), (errno.ENOSPC, QuotaError), (errno.EIO, StoreError)):
        monkeypatch.setattr(os, "utime", raising(OSError(number, os.strerror(number))))
        with pytest.raises(kind) as caught:
            files.touch(str(tmp_path / "a"))
        assert caught.value.why == os.strerror(number)


def raising(exc):
    def action(*_, **__):
        raise exc

    return action


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    """Where there are no hard links, files are renamed, and still never replaced."""
    monkeypatch.setattr("pathlib.Path.hardlink_to", raising(OSError(errno.EPERM, "no")))
    files = LocalFiles()
    files.write(str(tmp_path / "a"), b"1")
    files.write(str(tmp_path / "b"), b"2")
    with pytest.raises(PathExistsError):
        files.rename(str(tmp_path / "a"), str(tmp_path / "b"))
    files.rename(str(tmp_path / "a"), str(tmp_path / "c"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["b", "c"]


def test_copies_for_all_nodes(local, tmp_path, image):
    """A shared layer gets a copy on each node, ten at most; code and small clusters keep HDFS's own number."""

    class Counting(Everybodys):
        def __init__(self):
            super().__init__()
            self.copies = {}

        def set_replication(self, path, copies):
            self.copies[path] = copies

    found = {}
    for nodes in (1, 4, 200):
        store = HdfsStore(Counting(), str(tmp_path / f"of-{nodes}"), nodes=lambda nodes=nodes: nodes)
        put.image(image, local, store)
        found[nodes] = sorted(store.files.copies.values())
    assert found == {1: [], 4: [4, 4], 200: [10, 10]}
