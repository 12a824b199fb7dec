"""A node's cache: images made once, safe from others, whole after every kill, and bounded."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from clusterkit.environments.manifest import Layer, Manifest, StoredLayer
from clusterkit.environments.tree import PLACEHOLDER
from clusterkit.node import bootstrap, building, cache, image, locks
from clusterkit.node.errors import NodeError

UID = os.geteuid()


@dataclass
class Maker:
    """Makes layers' files in a directory, and manifests of them."""

    directory: Path
    layers: list[Layer] = field(default_factory=list)

    def layer(self, kind: str, name: str, files: dict[str, bytes], bake: dict[str, str] | None = None) -> Layer:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for path, data in sorted(files.items()):
                info = tarfile.TarInfo(path)
                if data.startswith(b"-> "):
                    info.type, info.linkname = tarfile.SYMTYPE, data[3:].decode()
                    archive.addfile(info)
                    continue
                info.size, info.mode = len(data), 0o755 if path.startswith("bin/") else 0o644
                archive.addfile(info, io.BytesIO(data))
        digest = hashlib.sha256(stream.getvalue()).hexdigest()
        packed = zstandard.compress(stream.getvalue())
        (self.directory / f"{digest}.tar.zst").write_bytes(packed)
        size = sum(len(data) for data in files.values() if not data.startswith(b"-> "))
        stored = {"zst": StoredLayer(size_bytes=len(packed), sha256=hashlib.sha256(packed).hexdigest())}
        return Layer(
            digest=digest, kind=kind, name=name, files=len(files), size_bytes=size, stored=stored, bake=bake or {}
        )

    def manifest(self, *layers: Layer) -> dict:
        made = Manifest(
            name="small",
            python="3.11.7",
            platform="linux-64",
            glibc="2.28",
            lock="0" * 64,
            layers=layers,
            environment={"CONDA_PREFIX": PLACEHOLDER, "SSL_CERT_FILE": f"{PLACEHOLDER}/ssl/cert.pem"},
            placeholder=PLACEHOLDER,
        )
        return json.loads(msgspec.json.encode(made))


INTERPRETER = {
    "bin/python3.11": b'#!/bin/sh\necho "$@"\n',
    "bin/python": b"-> python3.11",
    "lib/os.py": b"import sys\n",
}
PACKAGES = {"lib/six.py": b"1 + 1\n", "lib/pkg/data.bin": b"\0" * 5000}
PREFIX = {"bin/tool": b"#!" + PLACEHOLDER.encode() + b"/bin/python\n", "lib/x.so": PLACEHOLDER.encode() + b"/lib\0end"}
BAKE = {"bin/tool": "shebang", "lib/x.so": "binary"}
CODE = {"mine/__init__.py": b"VALUE = 1\n"}


@pytest.fixture
def maker(tmp_path):
    directory = tmp_path / "source"
    directory.mkdir()
    return Maker(directory)


@pytest.fixture
def manifest(maker):
    """Return the manifest of a small image: three layers and one of code."""
    return maker.manifest(
        maker.layer("interpreter", "python", INTERPRETER),
        maker.layer("packages", "packages", PACKAGES),
        maker.layer("prefix", "prefix", PREFIX, BAKE),
        maker.layer("code", "mine", CODE),
    )


@pytest.fixture
def prepare(tmp_path, maker):
    """Prepare an image in a cache of the test's own, and let go of it at the end."""
    held = []

    def prepared(manifest, **more):
        found = bootstrap.prepare(manifest, source=maker.directory, node_cache=tmp_path / "cache", **more)
        held.append(found)
        return found

    yield prepared
    for one in held:
        let_go(one)


def let_go(prepared) -> None:
    for lock in prepared.locks:
        lock.close()


def tree(directory: str | Path) -> dict[str, bytes | str]:
    """Return the files and links of an image, without what the cache notes there."""
    found: dict[str, bytes | str] = {}
    for path in Path(directory).rglob("*"):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = b"-> " + os.fsencode(path.readlink())
        elif path.is_file() and not name.startswith(".clusterkit/"):
            found[name] = path.read_bytes()
    return found


def expected(prefix: str) -> dict[str, bytes]:
    own = os.fsencode(prefix)
    first_line = b"#!" + own + b"/bin/python\n"
    if len(first_line) > 128:
        first_line = b"#!/bin/sh\n'''exec' \"" + own + b'/bin/python" "$0" "$@"\n\' \'\'\'\n'
    baked = {"bin/tool": first_line, "lib/x.so": (own + b"/lib").ljust(len(PLACEHOLDER) + 4, b"\0") + b"\0end"}
    return {**INTERPRETER, **PACKAGES, **baked}


def test_an_image_is_made_and_found_again(tmp_path, prepare, manifest):
    """The first use makes the image; the second finds it, and says so."""
    first, second = prepare(manifest), prepare(manifest)
    base = msgspec.convert(manifest, Manifest).base
    assert (first.hit, second.hit) == (False, True)
    assert first.prefix == second.prefix == str(tmp_path / "cache" / str(UID) / "images" / base)
    assert tree(first.prefix) == expected(first.prefix)
    assert first.python == f"{first.prefix}/bin/python3.11"
    assert [tree(path) for path in first.code_paths] == [CODE]
    assert first.variables == {"CONDA_PREFIX": first.prefix, "SSL_CERT_FILE": f"{first.prefix}/ssl/cert.pem"}
    assert [(layer["name"], layer["hit"]) for layer in sorted(first.report["layers"], key=lambda one: one["name"])] == [
        ("mine", False),
        ("packages", False),
        ("prefix", False),
        ("python", False),
    ]
    assert second.report.keys() == {"image", "name", "blas", "hit", "seconds"}


def test_files_are_links_into_layers_and_baked_ones_are_not(prepare, manifest):
    """What layers share lies on disk once; what the prefix was written into is the image's own."""
    prefix = Path(prepare(manifest).prefix)
    links = {name: (prefix / name).stat().st_nlink for name in ("lib/six.py", "bin/python3.11", "bin/tool", "lib/x.so")}
    assert links == {"lib/six.py": 2, "bin/python3.11": 2, "bin/tool": 1, "lib/x.so": 1}
    assert stat.S_IMODE((prefix / "bin/tool").stat().st_mode) == 0o755


def test_files_are_copied_where_there_are_no_links(prepare, manifest, monkeypatch):
    """On a file system without hard links the image is a copy."""

    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    prepared = prepare(manifest)
    assert tree(prepared.prefix) == expected(prepared.prefix)
    assert (Path(prepared.prefix) / "lib/six.py").stat().st_nlink == 1


def test_another_image_shares_its_layers(prepare, maker, manifest):
    """An image with one layer changed unpacks that one alone."""
    prepare(manifest)
    changed = maker.layer("packages", "packages", {**PACKAGES, "lib/new.py": b"2\n"})
    other = dict(manifest, layers=[*manifest["layers"][:1], msgspec.to_builtins(changed), *manifest["layers"][2:]])
    report = prepare(other).report
    assert {layer["name"]: layer["hit"] for layer in report["layers"]} == {
        "mine": True,
        "packages": False,
        "prefix": True,
        "python": True,
    }


def test_changed_code_touches_nothing_else(prepare, maker, manifest):
    """A changed line of the user's own code unpacks that folder, and the image stays as it is."""
    first = prepare(manifest)
    code = msgspec.to_builtins(maker.layer("code", "mine", {"mine/__init__.py": b"VALUE = 2\n"}))
    second = prepare(dict(manifest, layers=[*manifest["layers"][:3], code]))
    assert (second.prefix, [layer["name"] for layer in second.report["layers"]]) == (first.prefix, ["mine"])
    assert tree(second.code_paths[0]) == {"mine/__init__.py": b"VALUE = 2\n"}
    assert tree(first.code_paths[0]) == CODE


def test_a_jdk_is_where_yarn_put_it(prepare, maker, manifest):
    """The Java layer stands beside the prefix: it is not looked for, and still counts for the image's name."""
    java = Layer(digest="f" * 64, kind="java", name="java", files=1, size_bytes=1)
    with_java = dict(manifest, layers=[*manifest["layers"], msgspec.to_builtins(java)])
    prepared = prepare(with_java)
    assert prepared.report["image"] == msgspec.convert(with_java, Manifest).base
    assert tree(prepared.prefix) == expected(prepared.prefix)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(TEXT, TEXT, max_size=4))
def test_image_names_are_those_of_the_manifest(environment):
    """The name that a node computes without libraries is the one that the manifest has where it is made."""
    layers = tuple(
        Layer(digest=str(number) * 64, kind=kind, name=kind, files=1, size_bytes=1)
        for number, kind in enumerate(["interpreter", "packages", "prefix", "java", "code"])
    )
    made = Manifest(
        name="x", python="3.12.1", platform="linux-64", glibc="2.17", lock="", layers=layers, environment=environment
    )
    assert image.Image(json.loads(msgspec.json.encode(made))).base == made.base


def test_the_environment_puts_the_image_first(prepare, manifest):
    """Code comes first on the import path, the image's programs first on PATH; the node's Python leaves no trace."""
    prepared = prepare(manifest)
    inherited = {"PATH": "/usr/bin", "PYTHONPATH": "/spark.zip", "PYTHONHOME": "/usr", "KEEP": "1"}
    assert prepared.environment(inherited) == {
        "KEEP": "1",
        "PATH": f"{prepared.prefix}/bin:/usr/bin",
        "PYTHONPATH": f"{prepared.code_paths[0]}:/spark.zip",
        "PYTHONNOUSERSITE": "1",
        "CONDA_PREFIX": prepared.prefix,
        "SSL_CERT_FILE": f"{prepared.prefix}/ssl/cert.pem",
    }


def proving(maker, manifest, seen: dict) -> dict:
    """Return a manifest with a proof, and a Python that prints what shall be seen of it on the node."""
    python = f"#!/bin/sh\ncat >/dev/null\necho '{json.dumps(seen)}'\n".encode()
    interpreter = msgspec.to_builtins(maker.layer("interpreter", "python", {**INTERPRETER, "bin/python3.11": python}))
    return dict(manifest, blas="mkl", proof={"blas": "mkl"}, layers=[interpreter, *manifest["layers"][1:]])


def test_an_image_is_proved_before_it_is_used(prepare, maker, manifest):
    """What the image computes with is seen once on the node, and kept beside it."""
    proved = proving(maker, manifest, {"blas": "mkl", "faults": []})
    prepared = prepare(proved)
    assert json.loads(Path(prepared.prefix, ".clusterkit/proof.json").read_text())["blas"] == "mkl"
    assert prepared.report["stages"].keys() == {"unpack", "link", "prove"}
    again = prepare(proved)
    assert (again.hit, again.report["blas"], prepared.report["blas"]) == (True, "mkl", "mkl")


def test_an_image_that_does_not_keep_its_proof_is_not_used(prepare, maker, manifest):
    """Where MKL is claimed and not seen the image is refused, for this container and for the next ones."""
    broken = proving(maker, manifest, {"blas": "openblas", "faults": ["NumPy uses openblas, and mkl was asked for"]})
    for _ in range(2):
        with pytest.raises(NodeError) as caught:
            prepare(broken)
        assert caught.value.what == "the image does not compute on this node as it did when it was built"
        assert caught.value.why == "NumPy uses openblas, and mkl was asked for"


def missing(maker, layer):
    (maker.directory / f"{layer['digest']}.tar.zst").unlink()


def truncated(maker, layer):
    path = maker.directory / f"{layer['digest']}.tar.zst"
    path.write_bytes(path.read_bytes()[:-7])


def changed(maker, layer):
    path = maker.directory / f"{layer['digest']}.tar.zst"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def exchanged(maker, layer):
    """Put an honest archive of the same size, with other contents, in the layer's place."""
    path = maker.directory / f"{layer['digest']}.tar.zst"
    other = maker.layer("packages", "other", {**PACKAGES, "lib/six.py": b"2 + 2\n"})
    data = (maker.directory / f"{other.digest}.tar.zst").read_bytes()
    path.write_bytes(data)
    layer["stored"]["zst"]["size_bytes"] = len(data)


@pytest.mark.parametrize(
    ("damage", "what", "why"),
    [
        (missing, "the layer packages is not on this node", "holds no"),
        (truncated, "the layer packages is not the one that was built", "bytes"),
        (changed, "the layer packages is not the one that was built", "the sha256 of"),
        (exchanged, "the layer packages is not the one that was built", "the sha256 of"),
    ],
)
def test_a_layer_that_is_not_what_was_built_is_refused(prepare, maker, manifest, damage, what, why):
    """A missing, truncated, changed or exchanged layer file is named, nothing of it is used, and all is well after."""
    layer = manifest["layers"][1]
    path = maker.directory / f"{layer['digest']}.tar.zst"
    good, stored = path.read_bytes(), dict(layer["stored"]["zst"])
    damage(maker, layer)
    with pytest.raises(NodeError) as caught:
        prepare(manifest)
    assert (caught.value.what, why in caught.value.why) == (what, True)
    assert "clusterkit env verify" in caught.value.mend
    path.write_bytes(good)
    layer["stored"]["zst"] = stored
    prepared = prepare(manifest)
    assert (prepared.hit, tree(prepared.prefix)) == (False, expected(prepared.prefix))


def test_two_layers_with_one_path_are_refused(prepare, maker, manifest):
    """A file that two layers hold is a fault of the image, told with its path."""
    twice = msgspec.to_builtins(maker.layer("packages", "twice", {"lib/six.py": b""}))
    with pytest.raises(NodeError) as caught:
        prepare(dict(manifest, layers=[*manifest["layers"], twice]))
    assert caught.value.what == "the layer twice does not fit into its image"
    assert caught.value.why.endswith("/lib/six.py is in another layer too")


def test_a_layer_cannot_lead_another_one_astray(prepare, maker, manifest):
    """A link of one layer where another has a directory is refused, not followed."""
    link = maker.layer("packages", "link", {"door": b"-> lib"})
    through = maker.layer("packages", "through", {"door/six2.py": b"evil"})
    layers = [*manifest["layers"], msgspec.to_builtins(link), msgspec.to_builtins(through)]
    with pytest.raises(NodeError, match="the layer through does not fit into its image"):
        prepare(dict(manifest, layers=layers))


def test_what_the_cache_notes_cannot_be_packed(prepare, maker, manifest):
    """A layer that brings its own proof or marker is refused."""
    forged = msgspec.to_builtins(maker.layer("packages", "forged", {".clusterkit/complete.json": b"{}"}))
    with pytest.raises(NodeError, match="the layer forged does not fit into its image"):
        prepare(dict(manifest, layers=[*manifest["layers"], forged]))


def test_manifests_of_other_formats_are_refused(prepare, manifest):
    """A manifest of a later format, or one with a digest that is a path, is refused."""
    for wrong in (
        dict(manifest, format=2),
        dict(manifest, python="../x"),
        dict(manifest, layers=[dict(manifest["layers"][0], digest="../" * 21 + "x")]),
        {},
    ):
        with pytest.raises(NodeError, match="the manifest of the image cannot be read"):
            prepare(wrong)


def test_a_full_disk_is_told_before_it_is_filled(prepare, manifest, monkeypatch):
    """What would not fit is refused with the figures, before anything is written."""
    monkeypatch.setattr(building, "_free_bytes", lambda _: 1 << 20)
    manifest["layers"][1]["size_bytes"] = 5 << 30
    with pytest.raises(NodeError) as caught:
        prepare(manifest)
    assert caught.value.what == "the image small does not fit on this node"
    assert caught.value.why.endswith("has 1 MiB free, and 5120 MiB are needed")


def test_a_disk_that_fills_up_leaves_nothing_half(tmp_path, prepare, manifest, monkeypatch):
    """When the disk is full in the middle, the layer's files go, and three sentences come."""
    true_write = os.write

    def full(descriptor, data):
        if len(data) > 4000:
            raise OSError(28, "No space left on device")
        return true_write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(NodeError) as caught:
            prepare(manifest)
    assert (caught.value.what, caught.value.why) == ("the layer packages was not unpacked", "the file system is full")
    assert not list((tmp_path / "cache" / str(UID) / "layers").glob("*.part"))
    assert tree(prepare(manifest).prefix)


def test_a_file_system_without_programs_is_refused(prepare, manifest, monkeypatch):
    """A cache that is mounted noexec is found out by running something there, before a gigabyte is unpacked."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "posix_spawn", refuse)
    with pytest.raises(NodeError) as caught:
        prepare(manifest)
    assert caught.value.what.startswith("no program can be run from the node's cache at ")
    assert "native transport" in caught.value.mend


CHANGES = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.truncate", "os.posix_spawn"}


def is_change(event: str, arguments: tuple) -> bool:
    """Say whether an audit event changes the file system."""
    if event == "open":
        return isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in CHANGES


def killed(prepare, last: int, count: Path) -> int:
    """Run something in a child that is killed before its change number `last`; return how the child ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    changes = 0

    def hook(event, arguments):
        nonlocal changes
        if is_change(event, arguments):
            changes += 1
            if changes == last:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(hook)
        prepare()
        count.write_text(str(changes))
    finally:
        os._exit(0)


def test_a_kill_at_any_step_is_made_good(tmp_path, maker, manifest, monkeypatch):
    """Killed before any change it makes on disk, the next process makes the same image, and no rest stays."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # one thread, one order

    def prepare(node_cache: Path):
        return bootstrap.prepare(manifest, source=maker.directory, node_cache=node_cache)

    assert killed(lambda: prepare(tmp_path / "whole"), 0, tmp_path / "count") == 0
    changes = int((tmp_path / "count").read_text())
    assert changes > 50
    for last in range(1, changes + 1):
        node_cache = tmp_path / f"cache{last}"
        assert killed(lambda place=node_cache: prepare(place), last, tmp_path / "count") == -signal.SIGKILL
        prepared = prepare(node_cache)
        assert tree(prepared.prefix) == expected(prepared.prefix), last
        assert [tree(path) for path in prepared.code_paths] == [CODE], last
        let_go(prepared)
        own = node_cache / str(UID)
        assert not [name for folder in ("layers", "images", "code") for name in (own / folder).glob("*.part*")], last


def test_after_a_restart_sizes_are_looked_at(prepare, manifest, monkeypatch):
    """What a machine that went down has lost is found by its size, and unpacked again; the rest is kept."""
    first = prepare(manifest)
    let_go(first)
    layers = Path(first.prefix).parent.parent / "layers"
    lost = layers / manifest["layers"][1]["digest"] / "lib/six.py"
    lost.write_bytes(b"")
    monkeypatch.setattr(cache, "_boot", lambda: "another")
    second = prepare(manifest)
    assert {layer["name"]: layer["hit"] for layer in second.report["layers"]} == {
        "mine": True,
        "packages": False,
        "prefix": True,
        "python": True,
    }
    assert tree(second.prefix) == expected(second.prefix)
    assert prepare(manifest).hit


def test_only_one_does_the_work(prepare, manifest):
    """Of four that want an image at once one unpacks it, and the others wait and say what for."""
    said, found = [], []
    barrier = threading.Barrier(4)

    def run():
        barrier.wait()
        found.append(prepare(manifest, said=lambda stage, detail: said.append((stage, detail))))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.hit for one in found) == [False, True, True, True]
    assert len({one.prefix for one in found}) == 1
    assert sorted(detail for stage, detail in said if stage == "unpacked") == ["mine", "packages", "prefix", "python"]


def test_who_waits_says_what_for(prepare, manifest):
    """A process that waits tells what the one at work is doing."""
    first = prepare(manifest)
    let_go(first)
    Path(first.prefix, ".clusterkit/complete.json").unlink()
    own = Path(first.prefix).parent.parent
    holder = locks.exclusive(str(own / "locks" / f"images-{Path(first.prefix).name}"))
    holder.note("unpacking numpy, 40 MiB")
    said = []

    def tell(stage, detail):
        said.append((stage, detail))
        holder.close()

    assert prepare(manifest, said=tell).hit is False
    assert said[0] == ("waiting", "another container of this node unpacks it: unpacking numpy, 40 MiB")


def images(tmp_path) -> set[str]:
    own = tmp_path / "cache" / str(UID)
    return {f"{kind}/{path.name[:8]}" for kind in ("images", "layers", "code") for path in (own / kind).glob("?" * 64)}


def other(maker, manifest, number) -> dict:
    layer = maker.layer("packages", "packages", {**PACKAGES, f"lib/{number}.bin": bytes([number]) * 100_000})
    code = maker.layer("code", "mine", {"mine/__init__.py": b"VALUE = %d\n" % number})
    layers = [manifest["layers"][0], layer, manifest["layers"][2], code]
    return dict(manifest, layers=[msgspec.to_builtins(one) for one in layers])


def test_what_was_used_longest_ago_goes_first(tmp_path, prepare, maker, manifest):
    """Beyond the bound the image that was unused for longest goes, with the layers that no other one has."""
    manifests = [other(maker, manifest, number) for number in (1, 2, 3)]
    for number, one in enumerate(manifests):
        prepared = prepare(one)
        for lock in prepared.locks:
            os.utime(lock.descriptor, (1000 + number, 1000 + number))
        let_go(prepared)
    last = other(maker, manifest, 4)
    held = prepare(last, limit_bytes=230_000)
    kept = [manifests[2], last]
    bases = {f"images/{msgspec.convert(one, Manifest).base[:8]}" for one in kept}
    layers = {f"layers/{layer['digest'][:8]}" for one in kept for layer in one["layers"][:3]}
    code = {f"code/{one['layers'][3]['digest'][:8]}" for one in (*manifests[1:], last)}  # the bound is kept by then
    assert images(tmp_path) == bases | layers | code
    assert tree(held.prefix).keys() == {*expected(held.prefix), "lib/4.bin"}


def test_what_a_process_uses_is_never_evicted(tmp_path, prepare, maker, manifest):
    """A process keeps its image by a lock that it inherits through exec, though the bound is exceeded."""
    prepared = prepare(manifest)
    descriptors = [lock.descriptor for lock in prepared.locks]
    with subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"],
        pass_fds=descriptors,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"up\n"
        let_go(prepared)
        let_go(prepare(other(maker, manifest, 1), limit_bytes=1))
        assert tree(prepared.prefix) == expected(prepared.prefix)
        assert [tree(path) for path in prepared.code_paths] == [CODE]
        process.communicate(b"\n")
    let_go(prepare(other(maker, manifest, 2), limit_bytes=1))
    assert not Path(prepared.prefix).exists()
    assert not Path(prepared.code_paths[0]).exists()


def test_leftovers_are_swept(tmp_path, prepare, maker, manifest):
    """What killed processes left is removed by the next one that makes something."""
    let_go(prepare(manifest))
    own = tmp_path / "cache" / str(UID)
    (own / "layers" / ("a" * 64)).mkdir()
    (own / "layers" / f"{'b' * 64}.part").mkdir()
    (own / "images" / f"{'c' * 64}.old").mkdir()
    (own / "code" / f"{'d' * 64}.json.77.part").touch()
    let_go(prepare(other(maker, manifest, 1)))
    assert not [name for name in images(tmp_path) if name[-8:] in {"a" * 8, "b" * 8, "c" * 8}]
    assert not [path for kind in ("layers", "images", "code") for path in (own / kind).glob("*.part")]


def test_nothing_is_evicted_while_another_builds(tmp_path, prepare, maker, manifest):
    """A bound that is exceeded waits until no process is making an image from shared layers."""
    let_go(prepare(manifest))
    gate = locks.shared(str(tmp_path / "cache" / str(UID) / "locks" / "gate"))
    let_go(prepare(other(maker, manifest, 1), limit_bytes=1))
    assert len([name for name in images(tmp_path) if name.startswith("images/")]) == 2
    gate.close()
    let_go(prepare(other(maker, manifest, 2), limit_bytes=1))
    assert len([name for name in images(tmp_path) if name.startswith("images/")]) == 1


def test_the_plain_command_prints_the_report(tmp_path, maker, manifest):
    """`python -m clusterkit.node.bootstrap` prepares an image on any machine, and prints where it is."""
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    argv = [sys.executable, "-m", "clusterkit.node.bootstrap", "--manifest", tmp_path / "manifest.json"]
    argv += ["--source", maker.directory, "--node-cache", tmp_path / "cache"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert (told["hit"], tree(told["prefix"])) == (False, expected(told["prefix"]))
    argv[4] = tmp_path / "none.json"
    failed = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stderr.splitlines()) == (
        69,
        [
            "Error: the manifest of the image cannot be read",
            f"  Why:  {tmp_path}/none.json: No such file or directory",
            "  Mend: submit again with the clusterkit that built the image; `clusterkit env show` must read it",
        ],
    )


def test_the_last_use_is_noted(prepare, manifest):
    """Each use is noted, so that what is used stays."""
    first = prepare(manifest)
    for lock in first.locks:
        os.utime(lock.descriptor, (1, 1))
    second = prepare(manifest)
    assert all(abs(os.fstat(lock.descriptor).st_mtime - time.time()) < 60 for lock in second.locks)
