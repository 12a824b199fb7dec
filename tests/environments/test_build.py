from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from clusterkit.environments import build as builder
from clusterkit.environments import lock_file, sources
from clusterkit.environments.build import build
from clusterkit.errors import ImageError, SpecError
from clusterkit.specs.environment import EnvironmentSpec

if TYPE_CHECKING:
    from pathlib import Path


class Told:
    """Remembers the stages it was told of."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def __call__(self, stage: str, detail: str) -> None:
        self.stages.append(stage)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory) -> Path:
    """A cache of their own for these tests."""
    return tmp_path_factory.mktemp("a cache")


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> EnvironmentSpec:
    """An environment of one package and a package of the user's own."""
    mine = tmp_path_factory.mktemp("src") / "mine"
    mine.mkdir()
    (mine / "__init__.py").write_text("ANSWER = 42\n")
    return EnvironmentSpec(name="small", packages=("six==1.17.0",), local=(mine,))


@pytest.fixture(scope="module")
def first(spec, cache_dir):
    """The first build, and the stages it told."""
    told = Told()
    return build(spec, cache_dir=cache_dir, said=told), told.stages


def test_the_first_build_does_everything(first):
    """Locked, installed, read, proved, packed: an interpreter, packages, prefixes and the user's own code."""
    built, stages = first

    assert built.fresh
    assert {"installing", "reading", "proving", "packing"} <= set(stages)
    assert [layer.kind for layer in built.manifest.layers] == ["interpreter", "packages", "prefix", "code"]
    assert ("six", "1.17.0") in {(package.name, package.version) for package in built.manifest.packages}
    assert built.manifest.lock == built.lock.digest


def test_what_did_not_change_is_not_built_again(first, spec, cache_dir):
    """The second build is the same image, and reads nothing."""
    told = Told()

    again = build(spec, cache_dir=cache_dir, said=told)

    assert (again.fresh, again.manifest) == (False, first[0].manifest)
    assert set(told.stages) <= {"packing", "comparing"}


def test_an_edit_changes_the_layer_of_that_code_alone(first, spec, cache_dir):
    """A line of one's own: the layers of everything else stay, and the prefix on the nodes with them."""
    (spec.local[0] / "__init__.py").write_text("ANSWER = 43\n")

    edited = build(spec, cache_dir=cache_dir)

    before, after = first[0].manifest, edited.manifest
    assert not edited.fresh
    assert before.layers[:-1] == after.layers[:-1]
    assert before.layers[-1].digest != after.layers[-1].digest
    assert after.layers[-1].stored["zst"].size_bytes < 64 * 1024
    assert (before.base == after.base, before.id == after.id) == (True, False)


def test_a_driver_here_finds_the_code_where_it_lies(first, spec):
    """The directory in which a package lies stands on the import path."""
    assert first[0].import_path == (spec.local[0].parent,)


def test_a_lost_layer_is_built_again(first, spec, cache_dir):
    """A file that somebody deleted from the cache is noticed by its absence."""
    lost = cache_dir / "images" / "layers" / f"{first[0].manifest.layers[1].digest}.tar.zst"
    lost.unlink()

    again = build(spec, cache_dir=cache_dir)

    assert again.fresh
    assert lost.is_file()


def test_a_build_leaves_no_scratch_behind(first, cache_dir):
    """What was needed meanwhile is gone."""
    assert [path.name for path in (cache_dir / "images").iterdir() if path.name.startswith(".")] == []


def test_a_lock_is_kept_in_a_file_and_held_to(first, spec, cache_dir, tmp_path):
    """It reads back as it was, answers the question it was made for, and installs what it says."""
    path = tmp_path / "small.lock"
    lock_file.save(first[0].lock, path)

    lock = lock_file.load(path)
    lock_file.check_request(lock, path, sources.request(spec), spec.name)

    assert lock == first[0].lock
    assert build(spec, cache_dir=cache_dir, lock=lock).manifest.lock == lock.digest
    other = msgspec.structs.replace(spec, packages=("six==1.16.0",))
    with pytest.raises(SpecError) as caught:
        lock_file.check_request(lock, path, sources.request(other), other.name)
    assert caught.value.what == "the lock of small is out of date"


def test_an_environment_in_place_that_drifted_is_refused_by_name(first, cache_dir):
    """A virtual environment with another version than the lock's is not used, and the package is named."""
    venv = first[0].python.parents[1]
    in_place = EnvironmentSpec(name="here", source=venv)
    lock = build(in_place, cache_dir=cache_dir).lock
    packages = tuple(
        msgspec.structs.replace(each, version="1.16.0") if each.name == "six" else each for each in lock.packages
    )

    with pytest.raises(ImageError) as caught:
        build(in_place, cache_dir=cache_dir, lock=msgspec.structs.replace(lock, packages=packages))

    assert "six 1.16.0 was locked, 1.17.0 is there" in caught.value.why


def test_a_slim_image_still_imports(spec, cache_dir):
    """What no program opens stays behind, and every package was imported after that."""
    whole = build(spec, cache_dir=cache_dir).manifest
    slim = build(msgspec.structs.replace(spec, slim=True), cache_dir=cache_dir).manifest

    assert sum(layer.size_bytes for layer in slim.layers) < sum(layer.size_bytes for layer in whole.layers)


def test_a_failed_proof_leaves_no_image(spec, cache_dir, monkeypatch):
    """An environment that does not compute right is not packed."""

    def fail(*_: object, **__: object) -> None:
        raise ImageError("the environment does not compute right", why="gemm is wrong", mend="see `env show`")

    monkeypatch.setattr("clusterkit.environments.proof.prove", fail)
    before = sorted((cache_dir / "images" / "layers").iterdir())

    with pytest.raises(ImageError):
        build(EnvironmentSpec(name="other", packages=("six==1.16.0",)), cache_dir=cache_dir)

    assert sorted((cache_dir / "images" / "layers").iterdir()) == before


def test_java_is_a_layer_that_yarn_unpacks(spec, cache_dir, tmp_path):
    """A JDK travels as .tar.gz; without one the request is refused."""
    home = tmp_path / "jdk"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").write_text("#!/bin/sh\n")
    (home / "bin" / "java").chmod(0o755)
    (home / "release").write_text('JAVA_VERSION="17.0.15"\n')
    with_java = msgspec.structs.replace(spec, java=True)

    layer = build(with_java, cache_dir=cache_dir, java_home=home).manifest.layers[-2]

    assert (layer.kind, set(layer.stored)) == ("java", {"gz"})
    with pytest.raises(SpecError):
        build(with_java, cache_dir=cache_dir)


def test_the_native_image_is_one_archive_and_the_code(spec, cache_dir):
    """Everything but the user's own code in one .tar.gz, with the prefix written."""
    layers = build(spec, cache_dir=cache_dir, native=True).manifest.layers

    assert [(layer.kind, set(layer.stored)) for layer in layers] == [("native", {"gz"}), ("code", {"gz"})]


def test_linked_trees_are_gone_after_use(spec, cache_dir):
    """What an export needs lies in a directory that is removed."""
    source = sources.find(spec, cache_dir=cache_dir)

    with builder.linked(spec, source, cache_dir=cache_dir) as found:
        scratch = found.scratch
        assert scratch.is_dir()

    assert not scratch.exists()


def test_several_builds_at_once_all_succeed(cache_dir):
    """Commands that start together find or make the same image; none takes away what another is writing."""
    program = (
        "import sys, pathlib, msgspec\n"
        "from clusterkit.environments.build import build\n"
        "from clusterkit.specs.environment import EnvironmentSpec\n"
        "spec = EnvironmentSpec(name='small', packages=('six==1.16.0',))\n"
        "print(build(spec, cache_dir=pathlib.Path(sys.argv[1])).manifest.base)\n"
    )
    argv = [sys.executable, "-c", program, str(cache_dir)]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]

    ended = [(*process.communicate(timeout=120), process.returncode) for process in running]

    assert [code for _, _, code in ended] == [0, 0, 0], [stderr for _, stderr, _ in ended]
    assert len({stdout for stdout, _, _ in ended}) == 1
