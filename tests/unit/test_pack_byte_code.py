"""Packed byte code is valid wherever its source is unpacked, and belongs to it."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

from clusterkit.environments.byte_code import ByteCode
from clusterkit.environments.tree import File, Tree

VERSION = "{}.{}.{}".format(*sys.version_info[:3])
CACHED = importlib.util.cache_from_source("pkg/mod.py")


def on_disk(root: Path, path: str, bake: str | None = None) -> File:
    return File(path, root / path, 0o644, (root / path).stat().st_size, "pkg", bake)


def compiled(root: Path, text: str = "x = 1\n", mode: PycInvalidationMode = PycInvalidationMode.TIMESTAMP) -> Tree:
    """Return a tree with a module and its byte code."""
    (root / "pkg").mkdir()
    (root / "pkg/mod.py").write_text(text)
    py_compile.compile(str(root / "pkg/mod.py"), doraise=True, invalidation_mode=mode)
    return Tree(VERSION, "linux-64", (on_disk(root, CACHED), on_disk(root, "pkg/mod.py")))


def unchecked(root: Path, source: Path) -> bytes:
    """Return what Python itself writes as unchecked, hash-based byte code."""
    written = root / "reference.pyc"
    py_compile.compile(str(source), str(written), invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    return written.read_bytes()


@pytest.mark.parametrize("mode", list(PycInvalidationMode))
def test_byte_code_is_packed_as_python_writes_it_unchecked(tmp_path: Path, mode: PycInvalidationMode) -> None:
    """Whatever it was compiled as, its packed form is that of PEP 552 for the hash of its source."""
    tree = compiled(tmp_path, mode=mode)
    byte_code = ByteCode(tree)
    assert byte_code.belongs(tree.files[0])
    assert byte_code.contents(tree.files[0]) == unchecked(tmp_path, tmp_path / "pkg/mod.py")


def test_other_files_are_packed_as_they_are(tmp_path: Path) -> None:
    """Sources are left alone, and so is byte code that is the module itself."""
    tree = compiled(tmp_path)
    byte_code = ByteCode(tree)
    lone = File("pkg/lone.pyc", b"sourceless", 0o644, 10)
    assert byte_code.belongs(tree.files[1])
    assert byte_code.contents(tree.files[1]) is None
    assert byte_code.belongs(lone)
    assert byte_code.contents(lone) == b"sourceless"


def _touch(source: Path) -> None:
    os.utime(source, (1, 1))


def _grow(source: Path) -> None:
    times = source.stat()
    source.write_text("x = 12\n")
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("harm", [_touch, _grow])
def test_byte_code_of_an_older_source_stays_behind(tmp_path: Path, harm) -> None:
    """Unchecked byte code would run instead of the newer source, so it must not be there."""
    tree = compiled(tmp_path)
    harm(tmp_path / "pkg/mod.py")
    assert not ByteCode(tree).belongs(tree.files[0])


def test_hashed_byte_code_of_another_source_stays_behind(tmp_path: Path) -> None:
    """The hash tells too, whatever the times."""
    tree = compiled(tmp_path, mode=PycInvalidationMode.CHECKED_HASH)
    (tmp_path / "pkg/mod.py").write_text("x = 2\n")
    assert not ByteCode(tree).belongs(tree.files[0])


def test_byte_code_of_a_source_with_the_prefix_stays_behind(tmp_path: Path) -> None:
    """It was compiled with the path of this machine as a constant."""
    tree = compiled(tmp_path)
    baked = Tree(VERSION, "linux-64", (tree.files[0], on_disk(tmp_path, "pkg/mod.py", "text")))
    assert not ByteCode(baked).belongs(tree.files[0])


def test_byte_code_of_a_rewritten_source_stays_behind(tmp_path: Path) -> None:
    """A source that is given as bytes has no time that could be compared."""
    tree = compiled(tmp_path)
    rewritten = Tree(VERSION, "linux-64", (tree.files[0], File("pkg/mod.py", b"x = 1\n", 0o644, 6)))
    assert not ByteCode(rewritten).belongs(tree.files[0])


@pytest.mark.parametrize(
    "path",
    ["pkg/__pycache__/gone.{tag}.pyc", "pkg/__pycache__/mod.cpython-27.pyc", "__pycache__/mod.{tag}-pytest-9.pyc"],
)
def test_strangers_stay_behind(tmp_path: Path, path: str) -> None:
    """Byte code without a source, of another Python, or of another tool serves nobody."""
    tree = compiled(tmp_path)
    stranger = File(path.format(tag=sys.implementation.cache_tag), b"x" * 20, 0o644, 20)
    assert not ByteCode(tree).belongs(stranger)


def test_optimised_byte_code_has_the_same_source(tmp_path: Path) -> None:
    """`-O` makes files of its own, from the same source."""
    tree = compiled(tmp_path)
    optimised = Path(py_compile.compile(str(tmp_path / "pkg/mod.py"), optimize=1)).relative_to(tmp_path)
    assert ByteCode(tree).belongs(on_disk(tmp_path, str(optimised)))


def test_truncated_byte_code_stays_behind(tmp_path: Path) -> None:
    """What an interrupted compilation left is no byte code."""
    tree = compiled(tmp_path)
    (tmp_path / CACHED).write_bytes(b"short")
    assert not ByteCode(tree).belongs(tree.files[0])
