"""Real environments packed: the same layers each time, only what changed anew, and the same files come out."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tarfile
from typing import TYPE_CHECKING

import conda_pack
import pytest
import zstandard

from clusterkit.environments import code, conda, pack, slim, wheels
from clusterkit.environments.materialise import materialise
from clusterkit.environments.tree import PLACEHOLDER
from clusterkit.errors import ImageError
from clusterkit.node.baking import bake

from .conftest import called

if TYPE_CHECKING:
    from pathlib import Path

    from clusterkit.environments.manifest import Layer, Manifest
    from clusterkit.environments.tree import File, Tree

    from .conftest import Made


def packed(tree: Tree, into: Path) -> Manifest:
    return pack.pack(tree, lock_digest="", name="e", blas="", proof=None, into=into)


def unpacked(manifest: Manifest, store: Path, prefix: Path) -> Path:
    """Unpack an image with the standard library, and write the prefix as a node does."""
    for layer in manifest.layers:
        if layer.kind != "code":
            extract(store, layer, prefix)
        for path, how in layer.bake.items():
            file = prefix / path
            file.write_bytes(bake(file.read_bytes(), manifest.placeholder, str(prefix), how))
    return prefix


def extract(store: Path, layer: Layer, into: Path) -> None:
    with (
        (store / "layers" / f"{layer.digest}.tar.zst").open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as stream,
        tarfile.open(fileobj=stream, mode="r|", encoding="utf-8") as tar,
    ):
        tar.extractall(into, filter="data")


def files_of(tree: Tree, prefix: Path) -> dict[str, bytes]:
    """Return what must come out: the tree's files with the prefix written into them."""
    return {file.path: as_baked(file, prefix) for file in tree.files if not file.path.endswith(".pyc")}


def as_baked(file: File, prefix: Path) -> bytes:
    return bake(file.read(), PLACEHOLDER, str(prefix), file.bake) if file.bake else file.read()


def files_below(prefix: Path) -> dict[str, bytes]:
    found = {path.relative_to(prefix).as_posix(): path for path in prefix.rglob("*") if not path.is_symlink()}
    return {name: path.read_bytes() for name, path in found.items() if path.is_file() and path.suffix != ".pyc"}


def without_records(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not name.startswith("conda-meta/")}


def digests(manifest: Manifest) -> dict[str, str]:
    return {layer.name: layer.digest for layer in manifest.layers}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def test_an_environment_of_wheels_comes_out_as_it_was(numpy_venv: Made, store: Path, tmp_path: Path) -> None:
    """Every file of the tree stands in the unpacked image, byte by byte, and its Python computes there."""
    manifest = packed(numpy_venv.tree, store)
    prefix = unpacked(manifest, store, tmp_path / "im age")
    assert files_below(prefix) == files_of(numpy_venv.tree, prefix)
    links = {link.path: link.target for link in numpy_venv.tree.links}
    assert {path: str((prefix / path).readlink()) for path in links} == links
    python = [prefix / numpy_venv.tree.python_path, "-I", "-c"]
    assert called([*python, "import numpy; print(numpy.ones(3) @ numpy.ones(3), numpy.__file__)"]) == (
        f"3.0 {prefix}/{numpy_venv.tree.site_packages}/numpy/__init__.py\n"
    )


def test_the_same_environment_has_the_same_layers(numpy_venv: Made, store: Path, tmp_path: Path) -> None:
    """Packed twice, into two stores, each layer has one name."""
    first, second = packed(numpy_venv.tree, store), packed(numpy_venv.tree, tmp_path)
    assert second.layers == first.layers
    assert [layer.kind for layer in first.layers] == ["interpreter", "binaries", "packages", "prefix", "code"]


def test_an_edited_line_ships_less_than_64_kib(numpy_venv: Made, store: Path, tmp_path: Path) -> None:
    """Of a real environment with a real project, one line more means one small layer more."""
    project = tmp_path / "project"
    shutil.copytree(numpy_venv.project, project)
    tree = dataclasses.replace(numpy_venv.tree, code=(code.folder(project / "src"),))
    before = packed(tree, store)
    module = project / "src/ck_greeting/__init__.py"
    module.write_text(module.read_text() + "EDITED = True\n")
    after = packed(dataclasses.replace(tree, code=(code.folder(project / "src"),)), store)
    changed = [layer for layer in after.layers if layer not in before.layers]
    assert [layer.kind for layer in changed] == ["code"]
    assert changed[0].stored["zst"].size_bytes < 64 << 10
    assert after.base == before.base


def test_another_numpy_changes_the_layer_of_numpy(tmp_path: Path) -> None:
    """An upgrade re-ships that package, and neither the interpreter nor the other packages."""
    venv = tmp_path / "venv"
    called([sys.executable, "-m", "venv", "--without-pip", venv])
    manifests = []
    for numpy in ("numpy==2.3.4", "numpy==2.3.5"):
        called([sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "-q", "six", numpy])
        manifests.append(packed(wheels.read(venv, cache_dir=tmp_path / "cache"), tmp_path / "store"))
    first, second = map(digests, manifests)
    assert {name for name in first if first[name] != second[name]} == {"numpy"}
    prefix = unpacked(manifests[1], tmp_path / "store", tmp_path / "image")
    site = prefix / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    (site / "six.py").write_text("raise SystemExit('compiled anew')\n")
    python = [prefix / "bin/python", "-I", "-c"]
    assert called([*python, "import six; print(six.PY3)"]) == "True\n"  # its byte code is valid whatever the times


def test_a_conda_prefix_comes_out_as_conda_pack_writes_it(conda_prefix: Path, tmp_path: Path) -> None:
    """For one destination, ours and conda-pack's files are the same, but for what each adds for itself."""
    prefix = tmp_path / "image"
    tree = conda.read(conda_prefix)
    ours = files_below(unpacked(packed(tree, tmp_path / "store"), tmp_path / "store", prefix))
    archive = tmp_path / "theirs.tar"
    conda_pack.pack(prefix=str(conda_prefix), output=str(archive), dest_prefix=str(prefix))
    theirs = tmp_path / "theirs"
    with tarfile.open(archive) as tar:
        tar.extractall(theirs, filter="data")
    mine, their_own = (without_records(files) for files in (ours, files_below(theirs)))
    added = {"bin/activate", "bin/activate.fish", "bin/deactivate"}
    assert mine == {name: data for name, data in their_own.items() if name not in added}


def test_the_native_image_runs_below_its_link(conda_prefix: Path, tmp_path: Path) -> None:
    """Its prefix is the link in the working directory: scripts start there, and binaries find their data."""
    layer = pack.native(conda.read(conda_prefix), tmp_path / "store")
    container, elsewhere = tmp_path / "container", tmp_path / "filecache"
    container.mkdir()
    with tarfile.open(tmp_path / "store/layers" / f"{layer.digest}.tar.gz", encoding="utf-8") as tar:
        tar.extractall(elsewhere, filter="data")
    (container / "clusterkit-image").symlink_to(elsewhere)
    programs = {"bin/ckconf": "conf\n", "bin/hello": "hello from the prefix\n"}
    there = {name: words for name, words in programs.items() if (elsewhere / name).exists()}
    assert {name: called([container / "clusterkit-image" / name], cwd=container) for name in there} == there
    assert "bin/ckconf" in there


def test_a_laid_out_environment_computes(numpy_venv: Made, tmp_path: Path) -> None:
    """Hard links to the environment's files make a prefix that runs, and slim leaves what imports need."""
    lighter = slim.slim(numpy_venv.tree)
    materialise(lighter, tmp_path / "prefix")
    slim.self_test(lighter, tmp_path / "prefix", whole=numpy_venv.tree)
    assert lighter.size_bytes < numpy_venv.tree.size_bytes
    python = tmp_path / "prefix" / lighter.python_path
    assert called([python, "-I", "-c", "import numpy.testing, sys; print(sys.prefix)"]) == f"{tmp_path / 'prefix'}\n"


def test_a_slim_environment_that_lost_a_module_is_refused(numpy_venv: Made, tmp_path: Path) -> None:
    """The package that no longer imports is named; one that never imported is not."""
    never = dataclasses.replace(
        numpy_venv.tree.files[-1], path=f"{numpy_venv.tree.site_packages}/never.py", source=b"1/0\n", size_bytes=4
    )
    whole = dataclasses.replace(numpy_venv.tree, files=(*numpy_venv.tree.files, never))
    broken = dataclasses.replace(
        whole, files=tuple(one for one in whole.files if not one.path.endswith("numpy/version.py"))
    )
    materialise(broken, tmp_path / "prefix")
    with pytest.raises(ImageError) as raised:
        slim.self_test(broken, tmp_path / "prefix", whole=whole)
    assert raised.value.what == "the environment was not slimmed: numpy no longer imports"
    assert raised.value.why.startswith("numpy: ImportError: ")
