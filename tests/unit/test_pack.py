"""Packing an environment: layers once, a manifest that names them, and the single archive of the native transport."""

from __future__ import annotations

import dataclasses
import io
import os
import py_compile
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from clusterkit.environments import archive, pack
from clusterkit.environments.lock import LockedPackage
from clusterkit.environments.manifest import Layer, Manifest, Proof
from clusterkit.environments.tree import PLACEHOLDER, Code, File, Link, Tree
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "{}.{}.{}".format(*sys.version_info[:3])
LONG_AGO_S = 1_700_000_000
BAKED = f"#!{PLACEHOLDER}/bin/python\n".encode()


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """Return a directory that holds an environment, all of whose files are old."""
    root = tmp_path / "env"
    for name, data in {
        "bin/python": b"interpreter",
        "lib/six.py": b"x = 1\n",
        "lib/numpy.py": b"n = 1\n",
        "lib/data\n'é\".txt": b"data",
        "shop/__init__.py": b"price = 1\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        os.utime(root / name, (LONG_AGO_S, LONG_AGO_S))
    return root


def on_disk(root: Path, name: str, package: str = "") -> File:
    return File(name, root / name, 0o644, (root / name).stat().st_size, package)


def tree(root: Path, *, stale: tuple[str, ...] = ()) -> Tree:
    names = {"bin/python": "python", "lib/six.py": "six", "lib/numpy.py": "numpy", "lib/data\n'é\".txt": ""}
    return Tree(
        python=VERSION,
        platform="linux-64",
        files=(
            *(on_disk(root, name, package) for name, package in names.items()),
            File("bin/six", BAKED, 0o755, len(BAKED), "six", "shebang"),
        ),
        links=(Link("bin/python3", "python", "python"),),
        packages=(LockedPackage(name="six", version="1", kind="wheel"),),
        code=(Code("shop", (dataclasses.replace(on_disk(root, "shop/__init__.py")),)),),
        environment={"SIX": f"{PLACEHOLDER}/six"},
        stale=stale,
    )


class Archives:
    """Counts what is really written, and in which formats."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.formats: list[tuple[str, ...]] = []
        self._write = archive.write
        monkeypatch.setattr(archive, "write", self)

    def __call__(self, entries: object, into: Path, how: archive.How) -> archive.Written:
        self.formats.append(how.formats)
        return self._write(entries, into, how)


@pytest.fixture
def archives(monkeypatch: pytest.MonkeyPatch) -> Archives:
    """Count the archives that are written."""
    return Archives(monkeypatch)


def packed(whole: Tree, into: Path, formats: tuple[str, ...] = ("zst",)) -> Manifest:
    return pack.pack(whole, lock_digest="l" * 64, name="e", blas="", proof=None, into=into, formats=formats)


def contents(into: Path, layer: Layer) -> dict[str, bytes | str]:
    """Return what is in a layer: bytes of files, targets of links."""
    data = (into / "layers" / f"{layer.digest}.tar.zst").read_bytes()
    stream = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    with tarfile.open(fileobj=io.BytesIO(stream), encoding="utf-8") as tar:
        return {one.name: one.linkname if one.issym() else tar.extractfile(one).read() for one in tar.getmembers()}


def test_an_image_holds_all_of_its_tree(env: Path, tmp_path: Path) -> None:
    """Every file and link lies in one layer, the prefix as a placeholder, and the manifest says the rest."""
    into = tmp_path / "store"
    proof = Proof(blas="mkl")
    manifest = pack.pack(tree(env), lock_digest="l" * 64, name="e", blas="mkl", proof=proof, into=into)
    assert [(one.kind, one.name, one.files, one.size_bytes, one.bake) for one in manifest.layers] == [
        ("interpreter", "python", 2, 11, {}),
        ("packages", "packages", 3, 16, {}),
        ("prefix", "prefix", 1, len(BAKED), {"bin/six": "shebang"}),
        ("code", "shop", 1, 10, {}),
    ]
    assert [contents(into, layer) for layer in manifest.layers] == [
        {"bin/python": b"interpreter", "bin/python3": "python"},
        {"lib/six.py": b"x = 1\n", "lib/numpy.py": b"n = 1\n", "lib/data\n'é\".txt": b"data"},
        {"bin/six": BAKED},
        {"shop/__init__.py": b"price = 1\n"},
    ]
    assert (manifest.python, manifest.platform, manifest.lock, manifest.blas) == (VERSION, "linux-64", "l" * 64, "mkl")
    assert (manifest.packages, manifest.proof, manifest.placeholder) == (tree(env).packages, proof, PLACEHOLDER)
    assert manifest.environment == {"SIX": f"{PLACEHOLDER}/six"}


def test_the_same_environment_is_the_same_image_elsewhere(env: Path, tmp_path: Path) -> None:
    """Another place, other times, another owner: the same layers, so they are stored once."""
    other = tmp_path / "other"
    env.rename(other)
    first = packed(tree(other), tmp_path / "one")
    other.rename(env)
    for path in env.rglob("*.py"):
        os.utime(path, (LONG_AGO_S + 5, LONG_AGO_S + 5))
    second = packed(tree(env), tmp_path / "two")
    assert (second.id, second.layers) == (first.id, first.layers)


def test_an_unchanged_environment_is_only_looked_at(env: Path, tmp_path: Path, archives: Archives) -> None:
    """The second pack reads no file, and says the same."""
    first = packed(tree(env), tmp_path / "store")
    archives.formats.clear()
    for path in env.rglob("*.py"):
        path.chmod(0o200)
    second = packed(tree(env), tmp_path / "store")
    assert archives.formats == []
    assert second.layers == first.layers


def test_an_edited_line_packs_the_users_code_alone(env: Path, tmp_path: Path, archives: Archives) -> None:
    """The digest of the prefix stays, and what is new is a small file."""
    first = packed(tree(env), tmp_path / "store")
    archives.formats.clear()
    (env / "shop/__init__.py").write_bytes(b"price = 25\n")
    second = packed(tree(env), tmp_path / "store")
    assert archives.formats == [("zst",)]
    assert second.base == first.base
    assert second.id != first.id
    assert second.code[0].stored["zst"].size_bytes < 64 << 10
    assert contents(tmp_path / "store", second.code[0]) == {"shop/__init__.py": b"price = 25\n"}


def test_a_reinstalled_package_is_compared_not_packed(env: Path, tmp_path: Path, archives: Archives) -> None:
    """New files with the old bytes are read for their digest, and nothing is compressed again."""
    first = packed(tree(env), tmp_path / "store")
    archives.formats.clear()
    data = (env / "lib/six.py").read_bytes()
    (env / "lib/six.py").unlink()
    (env / "lib/six.py").write_bytes(data)
    second = packed(tree(env), tmp_path / "store")
    assert archives.formats == [()]
    assert second.layers == first.layers


def test_a_change_of_the_same_size_is_seen(env: Path, tmp_path: Path, archives: Archives) -> None:
    """What looked like the old layer and is not is packed after all."""
    first = packed(tree(env), tmp_path / "store")
    archives.formats.clear()
    (env / "lib/six.py").write_bytes(b"x = 2\n")
    second = packed(tree(env), tmp_path / "store")
    assert archives.formats == [(), ("zst",)]
    assert contents(tmp_path / "store", second.layers[1])["lib/six.py"] == b"x = 2\n"
    assert second.base != first.base


def test_a_file_so_young_that_it_may_change_unseen_is_read_again(env: Path, tmp_path: Path, archives: Archives) -> None:
    """Two edits within one tick of the clock have one time; the second one is packed too."""
    module = env / "shop/__init__.py"
    module.write_bytes(b"price = 2\n")
    now = module.stat()
    packed(tree(env), tmp_path / "store")
    module.write_bytes(b"price = 3\n")
    os.utime(module, ns=(now.st_atime_ns, now.st_mtime_ns))
    second = packed(tree(env), tmp_path / "store")
    assert contents(tmp_path / "store", second.code[0]) == {"shop/__init__.py": b"price = 3\n"}


def test_a_lost_or_damaged_layer_is_packed_again(env: Path, tmp_path: Path) -> None:
    """What is known counts only while the file is there, whole."""
    first = packed(tree(env), tmp_path / "store")
    lost, damaged = (tmp_path / "store/layers" / f"{layer.digest}.tar.zst" for layer in first.layers[:2])
    whole = (lost.read_bytes(), damaged.read_bytes())
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert packed(tree(env), tmp_path / "store").layers == first.layers
    assert (lost.read_bytes(), damaged.read_bytes()) == whole


def test_another_format_is_added_to_what_is_there(env: Path, tmp_path: Path, archives: Archives) -> None:
    """The native transport needs gzip: only that is written, of the same digests."""
    first = packed(tree(env), tmp_path / "store")
    archives.formats.clear()
    both = packed(tree(env), tmp_path / "store", ("zst", "gz"))
    assert set(archives.formats) == {("gz",)}
    assert [layer.digest for layer in both.layers] == [layer.digest for layer in first.layers]
    assert [sorted(layer.stored) for layer in both.layers] == [["gz", "zst"]] * 4


@pytest.mark.parametrize("rubbish", [b"", b"{", b'{"format": 99}', b'{"layers": {"x": 1}}'])
def test_a_spoilt_memory_is_no_harm(env: Path, tmp_path: Path, rubbish: bytes) -> None:
    """What is not remembered is found out again."""
    first = packed(tree(env), tmp_path / "store")
    (tmp_path / "store/fingerprints.json").write_bytes(rubbish)
    assert packed(tree(env), tmp_path / "store").layers == first.layers


def test_a_path_of_this_machine_fails_the_pack(env: Path, tmp_path: Path) -> None:
    """The file, its package and a cure are named, at the second attempt as at the first."""
    (env / "lib/six.py").write_text(f"HOME = '{env}/share'\n")
    os.utime(env / "lib/six.py", (LONG_AGO_S, LONG_AGO_S))
    for _ in range(2):
        with pytest.raises(ImageError) as raised:
            packed(tree(env, stale=(str(env),)), tmp_path / "store")
        assert raised.value.why == f"lib/six.py of six holds {env}"


def test_the_users_own_code_may_name_what_it_likes(env: Path, tmp_path: Path) -> None:
    """A path in a user's module is the user's."""
    (env / "shop/__init__.py").write_text(f"HOME = '{env}'\n")
    assert packed(tree(env, stale=(str(env),)), tmp_path / "store").code[0].name == "shop"


def test_byte_code_is_packed_without_times(env: Path, tmp_path: Path) -> None:
    """Byte code of the same source gives the same layer whenever it was made; of another source it stays behind."""

    def layer(times_s: int) -> tuple[Manifest, list[str]]:
        os.utime(env / "lib/six.py", (times_s, times_s))
        cached = py_compile.compile(str(env / "lib/six.py"), dfile="six.py", doraise=True)
        whole = tree(env)
        files = (*whole.files, on_disk(env, os.path.relpath(cached, env), "six"))
        told: list[str] = []
        manifest = pack.pack(
            dataclasses.replace(whole, files=files),
            lock_digest="",
            name="e",
            blas="",
            proof=None,
            into=tmp_path / "store",
            said=lambda _, detail: told.append(detail),
        )
        return manifest, told

    first, second = layer(LONG_AGO_S)[0], layer(LONG_AGO_S + 60)[0]
    assert second.layers == first.layers
    assert first.layers[1].files == 4
    os.utime(env / "lib/six.py", (LONG_AGO_S + 90, LONG_AGO_S + 90))
    cached = on_disk(env, f"lib/__pycache__/six.{sys.implementation.cache_tag}.pyc", "six")
    stale = dataclasses.replace(tree(env), files=(*tree(env).files, cached))
    assert packed(stale, tmp_path / "store").layers[1].files == 3


def test_two_owners_of_a_path_fail_before_anything_is_written(env: Path, tmp_path: Path) -> None:
    """A tree that cannot stand on a node is not packed."""
    twice = dataclasses.replace(tree(env), links=(Link("lib/six.py", "numpy.py", "numpy"),))
    with pytest.raises(ImageError, match="the environment was not packed"):
        packed(twice, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_the_native_image_is_one_archive_with_its_prefix_written(env: Path, tmp_path: Path) -> None:
    """YARN unpacks it, nothing is written on the node, and the user's code is not in it."""
    layer = pack.native(tree(env), tmp_path / "store")
    with tarfile.open(tmp_path / f"store/layers/{layer.digest}.tar.gz", encoding="utf-8") as tar:
        script = tar.extractfile("bin/six").read()
        names = tar.getnames()
    assert script == b"#!/proc/self/cwd/clusterkit-image/bin/python\n"
    assert names == ["bin/python", "bin/python3", "bin/six", "lib/data\n'é\".txt", "lib/numpy.py", "lib/six.py"]
    assert (layer.kind, layer.files, layer.bake, sorted(layer.stored)) == ("native", 6, {}, ["gz"])


def test_the_native_image_is_remembered_by_its_prefix(env: Path, tmp_path: Path, archives: Archives) -> None:
    """The same prefix is not packed again, another one is another image."""
    first = pack.native(tree(env), tmp_path / "store")
    assert pack.native(tree(env), tmp_path / "store") == first
    assert archives.formats == [("gz",)]
    assert pack.native(tree(env), tmp_path / "store", prefix="/other").digest != first.digest


def test_a_prefix_that_does_not_fit_is_refused(env: Path, tmp_path: Path) -> None:
    """A binary file keeps its length; the error names it."""
    binary = File("lib/x.so", f"{PLACEHOLDER}/etc\0".encode(), 0o755, 260, "x", "binary")
    whole = dataclasses.replace(tree(env), files=(*tree(env).files, binary))
    with pytest.raises(ImageError) as raised:
        pack.native(whole, tmp_path / "store", prefix="/p" * 200)
    assert raised.value.why.startswith("lib/x.so: ")
    assert list((tmp_path / "store/layers").iterdir()) == []


def test_it_says_what_it_packs(env: Path, tmp_path: Path) -> None:
    """Who waits sees which layer is at work, and how much there is."""
    told: list[tuple[str, str]] = []
    whole = tree(env)
    pack.pack(
        whole,
        lock_digest="",
        name="e",
        blas="",
        proof=None,
        into=tmp_path,
        said=lambda stage, detail: told.append((stage, detail)),
    )
    assert sorted(told) == [
        ("packing", "packages, 16 B"),
        ("packing", f"prefix, {len(BAKED)} B"),
        ("packing", "python, 11 B"),
        ("packing", "shop, 10 B"),
    ]


def test_layers_of_one_name_are_all_packed(env: Path, tmp_path: Path) -> None:
    """Two folders of the user's own code may be called alike."""
    folders = tuple(Code("shop", (File("shop.py", text, 0o644, len(text)),)) for text in (b"a = 1\n", b"b = 2\n"))

    manifest = packed(dataclasses.replace(tree(env), code=folders), tmp_path)

    assert len({layer.digest for layer in manifest.layers if layer.kind == "code"}) == 2
