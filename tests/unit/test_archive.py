"""Layers as archives: equal content gives equal bytes, and nothing half written is ever left."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import resource
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterkit.environments import archive, compression, tar_stream
from clusterkit.environments.archive import How
from clusterkit.environments.tar_stream import MTIME_S, Directory
from clusterkit.environments.tree import File, Link
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from clusterkit.environments.tar_stream import Entry

NAMES = [
    "short",
    "n" * 100,
    "n" * 101,
    "d/" * 120 + "deep",
    "é日本",
    "é" * 60,
    "a b'c\"d;e&f<g>\n\t\\",
    "-rf",
    "x" * 255,
]
TEXT = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=120)
PART = TEXT.filter(lambda part: part not in {".", ".."})


def file(path: str, data: bytes, *, mode: int = 0o644) -> File:
    return File(path=path, source=data, mode=mode, size_bytes=len(data))


def on_disk(path: Path, data: bytes, *, name: str | None = None) -> File:
    path.write_bytes(data)
    return File(path=name or path.name, source=path, mode=0o644, size_bytes=len(data), package="pkg")


def with_tarfile(entries: Iterable[Entry]) -> bytes:
    """Return the stream that the standard library writes; ours ends after two zero records, its own is padded."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.mtime = MTIME_S
            if isinstance(entry, Link):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
            elif isinstance(entry, Directory):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size, info.mode = entry.size_bytes, entry.mode
            tar.addfile(info, io.BytesIO(entry.read()) if isinstance(entry, File) else None)
    return stream.getvalue()


def unpacked(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    return zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())


def stream_of(entries: Iterable[Entry]) -> bytes:
    """Return the tar stream itself."""
    with tempfile.TemporaryDirectory() as directory:
        written = archive.write(entries, Path(directory))
        return unpacked(Path(directory, f"{written.digest}.tar.zst"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size_bytes", [0, 1, 5 << 30, 8**11 - 1, 8**11, 1 << 40])
def test_headers_are_those_of_tarfile(name: str, size_bytes: int) -> None:
    """A header says the same, byte by byte, as the standard library's, for long names and files over 8 GiB too."""
    info = tarfile.TarInfo(name)
    info.mode, info.size, info.mtime = 0o755, size_bytes, MTIME_S
    assert tar_stream.header(os.fsencode(name), 0o755, size_bytes, b"0") == info.tobuf(tarfile.GNU_FORMAT, "utf-8")


def test_the_stream_is_that_of_tarfile(tmp_path: Path) -> None:
    """Files, links and empty directories stand in the archive as the standard library would write them, sorted."""
    large = on_disk(tmp_path / "large", os.urandom(3 * tar_stream.BLOCK_BYTES + 17))
    entries = [
        *(file(name, name.encode() * 50) for name in NAMES),
        large,
        file("empty", b""),
        file("bin/run", b"#!/bin/sh\n", mode=0o755),
        Link("to", "bin/run"),
        Link("to-far", "../" * 50 + "x"),
        Link("l" * 150, "t" * 150),
        Directory("var/empty"),
    ]
    ordered = sorted(entries, key=lambda entry: entry.path.encode())
    ours = stream_of(entries)
    assert with_tarfile(ordered).rstrip(b"\0") == ours.rstrip(b"\0")
    assert ours.endswith(bytes(1024))


def test_the_digest_is_that_of_the_stream_and_the_measures_those_of_the_files(tmp_path: Path) -> None:
    """What is written is named by its content, and its size and checksum can be verified."""
    entries = [file("a", b"12345"), Link("b", "a")]
    out = tmp_path / "out"
    written = archive.write(entries, out, How(formats=("zst", "gz")))
    kinds = ("zst", "gz")
    stored = {kind: (out / f"{written.digest}.tar.{kind}").read_bytes() for kind in kinds}
    assert written.entries == 2
    assert written.size_bytes == 5
    assert {
        kind: hashlib.sha256(unpacked(out / f"{written.digest}.tar.{kind}")).hexdigest() for kind in kinds
    } == dict.fromkeys(kinds, written.digest)
    assert {kind: (one.size_bytes, one.sha256) for kind, one in written.stored.items()} == {
        kind: (len(data), hashlib.sha256(data).hexdigest()) for kind, data in stored.items()
    }
    assert sorted(path.name for path in out.iterdir()) == [f"{written.digest}.tar.gz", f"{written.digest}.tar.zst"]


def test_a_digest_is_the_same_on_every_machine(tmp_path: Path) -> None:
    """The digest of known content is this one, for ever: the stores of this world hold layers by it."""
    entries = [
        file("bin/python3.11", b"\x7fELF", mode=0o755),
        Link("bin/python", "python3.11"),
        file("lib/é 日本", b"x" * 1000),
        Directory("var"),
    ]
    assert (
        archive.write(entries, tmp_path, How(formats=())).digest
        == "c7547d8beca2e263e2a8b94efc897ce4b3b79aafafc05cc9b3e6934d312de414"
    )


def test_threads_order_times_and_owners_change_no_byte(tmp_path: Path) -> None:
    """Two machines write the same two files, however many processors they have and whenever they were installed."""
    content = {f"file{number}": os.urandom(7) * 300_000 for number in range(4)} | {"small": b"x"}

    def write(place: Path, threads: int, *, backwards: bool) -> dict[str, bytes]:
        place.mkdir()
        entries = [on_disk(place / name, data) for name, data in sorted(content.items(), reverse=backwards)]
        for number, entry in enumerate(entries):
            os.utime(place / entry.path, (threads * 1000 + number,) * 2)
        out = place / "out"
        archive.write(entries, out, How(formats=("zst", "gz"), threads=threads))
        return {path.name: path.read_bytes() for path in out.iterdir()}

    first = write(tmp_path / "one", 1, backwards=False)
    assert len(first) == 2
    assert write(tmp_path / "two", 2, backwards=True) == first
    assert write(tmp_path / "three", 3, backwards=False) == first


@given(st.dictionaries(st.lists(PART, min_size=1, max_size=3).map("/".join), st.binary(max_size=3000), max_size=12))
@settings(max_examples=60, deadline=None)
def test_what_is_packed_comes_out_of_tarfile(content: dict[str, bytes]) -> None:
    """Any names and any bytes are read back by the standard library as they were packed."""
    stream = stream_of(file(path, data) for path, data in content.items())
    with tarfile.open(fileobj=io.BytesIO(stream), encoding="utf-8") as tar:
        read = {info.name: tar.extractfile(info).read() for info in tar.getmembers()}
    assert read == content


def test_a_name_that_is_no_utf8_is_packed_as_its_bytes(tmp_path: Path) -> None:
    """A file whose name no encoding explains keeps its name."""
    name = os.fsdecode(b"caf\xe9")
    stream = stream_of([on_disk(tmp_path / name, b"x")])
    assert stream[:4] == b"caf\xe9"


def test_gzip_tells_neither_name_nor_time(tmp_path: Path) -> None:
    """The gzip header is the same everywhere: no flags, no time."""
    written = archive.write([file("a", b"x")], tmp_path, How(formats=("gz",)))
    assert (tmp_path / f"{written.digest}.tar.gz").read_bytes()[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


def test_gzip_is_written_without_isal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the standard library compresses: another file of the same digest, without name and time."""
    entries = [file("a", b"x" * 100_000)]
    first = archive.write(entries, tmp_path / "isal", How(formats=("gz",)))
    monkeypatch.setitem(sys.modules, "isal", None)
    second = archive.write(entries, tmp_path / "gzip", How(formats=("gz",)))
    path = tmp_path / "gzip" / f"{first.digest}.tar.gz"
    assert second.digest == first.digest
    assert unpacked(path) == unpacked(tmp_path / "isal" / path.name)
    assert path.read_bytes()[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


def _vanish(path: Path) -> None:
    path.unlink()


def _grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def _shrink(path: Path) -> None:
    os.truncate(path, 1)


def _become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _become_a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (_vanish, "vanished while the environment was packed"),
        (_grow, "changed while the environment was packed"),
        (_shrink, "changed while the environment was packed"),
        (_become_a_pipe, "changed while the environment was packed"),
        (_become_a_loop, "cannot be read: Too many levels of symbolic links"),
    ],
)
def test_a_file_that_changes_meanwhile_is_named_and_nothing_is_left(
    tmp_path: Path, harm: Callable[[Path], None], why: str
) -> None:
    """Whatever happens to a file between looking and reading, the error names it and its package."""
    entries = [on_disk(tmp_path / "a", b"first"), on_disk(tmp_path / "b", b"second")]
    with pytest.raises(ImageError) as raised:
        archive.write(
            entries,
            tmp_path / "out",
            How(formats=("zst", "gz"), moved=lambda size: harm(tmp_path / "b") if size == 5 else None),
        )
    assert raised.value.what == "the file 'b' of pkg was not packed"
    assert raised.value.why == f"{str(tmp_path / 'b')!r} {why}"
    assert list((tmp_path / "out").iterdir()) == []


class _Meddling:
    """A scan that writes into each file while it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def search(self, _: File) -> _Meddling:
        return self

    def feed(self, *_: object, last: bool) -> None:
        os.utime(self._path, (1, 1))


def test_a_file_that_is_written_while_it_is_read_is_not_packed(tmp_path: Path) -> None:
    """A file of the same size with another time after reading may hold half of each state."""
    entry = on_disk(tmp_path / "a", b"x" * 100)
    with pytest.raises(ImageError, match="the file 'a' of pkg was not packed"):
        archive.write([entry], tmp_path / "out", How(scan=_Meddling(tmp_path / "a")))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Let no file grow beyond 64 KiB, as on a full disk; with another error, but at the same place."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("formats", [("zst",), ("gz",), ("zst", "gz")])
def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path, small_disk: None, formats: tuple) -> None:
    """When the layer does not fit, the error names the directory and what to do, and no part of a file stays."""
    entries = [file("noise", os.urandom(8 << 20))]
    with pytest.raises(ImageError) as raised:
        archive.write(entries, tmp_path / "out", How(formats=formats))
    assert raised.value.what == "the image was not packed"
    assert raised.value.why == f"{tmp_path / 'out'} cannot be written: File too large"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_second_file_that_cannot_be_begun_leaves_no_first_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails, no file stays aside."""

    def begin(directory: Path, kind: str, **options: int) -> compression.CompressedFile:
        if kind == "gz":
            raise ImageError("no", why="no", mend="no")
        return compression.CompressedFile(directory, kind, **options)

    monkeypatch.setattr(archive, "CompressedFile", begin)
    with pytest.raises(ImageError):
        archive.write([file("a", b"x")], tmp_path / "out", How(formats=("zst", "gz")))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Where the store's directory cannot be, the error says so."""
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ImageError, match="the image was not packed") as raised:
        archive.write([], tmp_path / "out")
    assert raised.value.why == f"{tmp_path / 'out'} cannot be written: File exists"


def test_what_killed_packs_left_is_removed_a_day_later(tmp_path: Path) -> None:
    """An old file aside is nobody's; a young one may still be written, and whole layers stay."""
    out = tmp_path / "out"
    out.mkdir()
    for name, age_s in ((".old.tar.zst.partial", 90_000), (".young.tar.zst.partial", 10), ("whole.tar.zst", 90_000)):
        (out / name).touch()
        now = (out / name).stat().st_mtime
        os.utime(out / name, (now - age_s, now - age_s))
    compression.remove_abandoned(out)
    assert sorted(path.name for path in out.iterdir()) == [".young.tar.zst.partial", "whole.tar.zst"]
