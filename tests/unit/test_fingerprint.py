from __future__ import annotations

import os

import pytest

from clusterkit.environments import fingerprint


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "é tree"
    (root / "a" / "__pycache__").mkdir(parents=True)
    (root / "a" / "m.py").write_text("x = 1\n")
    (root / "link").symlink_to("a/m.py")
    return root


def edit(root):
    (root / "a" / "m.py").write_text("x = 22\n")


def touch(root):
    os.utime(root / "a" / "m.py", ns=(1, 1))


def add(root):
    (root / "new.py").touch()


def remove(root):
    (root / "a" / "m.py").unlink()


def relink(root):
    (root / "link").unlink()
    (root / "link").symlink_to("elsewhere")


def make_executable(root):
    (root / "a" / "m.py").chmod(0o755)


@pytest.mark.parametrize("change", [edit, touch, add, remove, relink, make_executable])
def test_every_change_is_seen(tree, change):
    """Content, time, mode, links, what comes and what goes."""
    before = fingerprint.of(tree)

    change(tree)

    assert fingerprint.of(tree) != before


def test_nothing_else_is(tree):
    """The same tree has the same digest, also when Python has written its byte code."""
    before = fingerprint.of(tree)

    (tree / "a" / "__pycache__" / "m.cpython-311.pyc").write_bytes(b"code")

    assert fingerprint.of(tree) == before


def test_files_and_missing_roots(tree, tmp_path):
    """A root may be a file, and one that is gone is something else than one that is there."""
    file = tree / "a" / "m.py"
    there, gone = fingerprint.of(file), fingerprint.of(tmp_path / "gone")

    touch(tree)

    assert len({there, gone, fingerprint.of(file)}) == 3
