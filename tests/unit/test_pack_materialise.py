"""A tree laid out as a prefix on this machine, without touching what it was read from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from clusterkit.environments.materialise import materialise
from clusterkit.environments.tree import PLACEHOLDER, File, Link, Tree
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

TEXT = f"home = {PLACEHOLDER}/share\n".encode()
BINARY = f"\1{PLACEHOLDER}/etc\0\2".encode()
SCRIPT = f"#!{PLACEHOLDER}/bin/python\nimport x\n".encode()


def baked(path: str, data: bytes, how: str) -> File:
    return File(path, data, 0o644, len(data), "x", how)


def on_disk(path: Path, *, mode: int = 0o644) -> File:
    return File(f"lib/{path.name}", path, mode, path.stat().st_size, "x")


def tree(*files: File, links: tuple[Link, ...] = (), directories: tuple[str, ...] = ()) -> Tree:
    return Tree("3.11.7", "linux-64", files, links, directories=directories)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a file of an existing environment."""
    (tmp_path / "env").mkdir()
    path = tmp_path / "env" / "module é.py"
    path.write_text("x = 1\n")
    path.chmod(0o664)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


def test_files_are_linked_and_left_as_they_are(tmp_path: Path, source: Path) -> None:
    """A file of the environment costs no space, and keeps its mode and time."""
    materialise(tree(on_disk(source)), tmp_path / "prefix")
    assert (tmp_path / "prefix/lib" / source.name).samefile(source)
    assert oct(source.stat().st_mode)[-3:] == "664"


def test_a_file_of_another_mode_is_copied(tmp_path: Path, source: Path) -> None:
    """A link shares its mode with the environment, so what shall be executable is copied, with its time."""
    materialise(tree(on_disk(source, mode=0o755)), tmp_path / "prefix")
    copy = tmp_path / "prefix/lib" / source.name
    assert (copy.read_text(), oct(copy.stat().st_mode)[-3:], copy.stat().st_mtime) == ("x = 1\n", "755", 1_700_000_000)
    assert not copy.samefile(source)
    assert oct(source.stat().st_mode)[-3:] == "664"


def test_a_link_as_source_gives_the_file(tmp_path: Path, source: Path) -> None:
    """Where the environment holds a link to a file elsewhere, the prefix holds the file."""
    link = tmp_path / "env" / "link"
    link.symlink_to(source)
    materialise(tree(File("lib/link", link, 0o644, 6)), tmp_path / "prefix")
    assert not (tmp_path / "prefix/lib/link").is_symlink()
    assert (tmp_path / "prefix/lib/link").read_text() == "x = 1\n"


def test_files_on_another_disk_are_copied(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No link leads from one disk to another."""

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    materialise(tree(on_disk(source)), tmp_path / "prefix")
    assert (tmp_path / "prefix/lib" / source.name).read_text() == "x = 1\n"


def test_the_prefix_is_written_as_a_node_writes_it(tmp_path: Path) -> None:
    """Text, NUL-terminated strings and first lines hold the path of the prefix."""
    prefix = tmp_path / "prefix"
    materialise(tree(baked("a", TEXT, "text"), baked("b", BINARY, "binary"), baked("c", SCRIPT, "shebang")), prefix)
    assert (prefix / "a").read_text() == f"home = {prefix}/share\n"
    assert (prefix / "b").read_bytes().split(b"\0")[0] == f"\1{prefix}/etc".encode()
    assert len((prefix / "b").read_bytes()) == len(BINARY)
    assert (prefix / "c").read_text() == f"#!{prefix}/bin/python\nimport x\n"


def test_links_and_empty_directories_are_made(tmp_path: Path) -> None:
    """The prefix holds what the tree holds."""
    whole = tree(File("bin/x", b"x", 0o755, 1), links=(Link("bin/y", "x"),), directories=("var/lib",))
    materialise(whole, tmp_path / "prefix")
    assert (tmp_path / "prefix/bin/y").readlink().name == "x"
    assert (tmp_path / "prefix/bin/y").read_text() == "x"
    assert list((tmp_path / "prefix/var/lib").iterdir()) == []


def test_what_stands_there_is_kept(tmp_path: Path) -> None:
    """A directory that holds something is nobody's to write into."""
    (tmp_path / "prefix").mkdir()
    (tmp_path / "prefix/mine").write_text("mine")
    with pytest.raises(ImageError, match="was not laid out") as raised:
        materialise(tree(File("mine", b"theirs", 0o644, 6)), tmp_path / "prefix")
    assert "not empty" in raised.value.why
    assert (tmp_path / "prefix/mine").read_text() == "mine"


def test_a_missing_file_is_named(tmp_path: Path, source: Path) -> None:
    """An environment that changed since it was read cannot be laid out."""
    whole = tree(on_disk(source))
    source.unlink()
    with pytest.raises(ImageError, match="was not laid out") as raised:
        materialise(whole, tmp_path / "prefix")
    assert str(source) in raised.value.why


def test_a_prefix_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """A binary file has room for 255 bytes."""
    prefix = tmp_path / ("p" * 200) / ("q" * 200)
    with pytest.raises(ImageError, match="was not laid out"):
        materialise(tree(baked("b", BINARY, "binary")), prefix)
