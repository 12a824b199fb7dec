"""Extraction: a corpus of malicious archives, and a fuzz; no entry ever lands outside of the directory it is given."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterkit.node import extraction
from clusterkit.node.errors import NodeError
from clusterkit.node.extraction import Limits, extract

ROOMY = Limits(entries=1000, size_bytes=1 << 24)


def member(name, data=b"", **changes) -> tuple[tarfile.TarInfo, bytes]:
    """Return one entry as tarfile knows it; its mode is 0644 unless changed."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


def link(name, target, kind=tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=target)


def tar(*members, form=tarfile.GNU_FORMAT) -> bytes:
    """Write a tar that holds whatever it is given; tarfile itself checks nothing here."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def patched(archive: bytes, offset: int, data: bytes) -> bytes:
    """Write bytes into the first header and mend its sum."""
    header = bytearray(archive[:512])
    header[offset : offset + len(data)] = data
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + archive[512:]


def inventory(directory: Path) -> dict[str, tuple]:
    """Return all that lies below a directory, links not followed."""
    found = {}
    for path in sorted(directory.rglob("*")):
        mode = path.lstat().st_mode
        name = str(path.relative_to(directory))
        if stat.S_ISLNK(mode):
            found[name] = ("link", str(path.readlink()))
        elif stat.S_ISDIR(mode):
            found[name] = ("directory", oct(stat.S_IMODE(mode)))
        else:
            found[name] = ("file", oct(stat.S_IMODE(mode)), path.read_bytes())
    return found


GOOD = tar(
    member("bin/python3.11", b"\x7fELF" + b"x" * 3000, mode=0o755),
    link("bin/python", "python3.11"),
    member("empty", type=tarfile.DIRTYPE, mode=0o755),
    member("lib/" + "deep/" * 25 + "module.py", b"import this\n"),
    link("lib/here", "./deep//deep"),
    link("lib/l" + "o" * 120 + "ng", "deep/" * 30 + "end"),
    link("lib/up", "../bin"),
    member("lib/zero"),
    member("share/gr\xfc\xdfe \n;'\"", b"hello", mode=0o600),
    member("share/wide", b"hello", mode=0o777),
)


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(GOOD, id="plain"),
        pytest.param(gzip.compress(GOOD), id="gzip"),
        pytest.param(zstandard.compress(GOOD), id="zstd"),
        pytest.param(zstandard.compress(GOOD[:1024]) + zstandard.compress(GOOD[1024:]), id="zstd in two frames"),
        pytest.param(gzip.compress(GOOD[:1024]) + gzip.compress(GOOD[1024:]), id="gzip in two members"),
    ],
)
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_a_layer_is_unpacked_as_tarfile_does_it(tmp_path, packed, umask):
    """An honest archive gives the tree that the standard library makes of it, with the modes 0755 and 0644 alone."""
    before = os.umask(umask)
    try:
        extracted = extract(io.BytesIO(packed), tmp_path / "ours", ROOMY)
    finally:
        os.umask(before)
    with tarfile.open(fileobj=io.BytesIO(GOOD)) as archive:
        archive.extractall(tmp_path / "theirs", filter="tar")
    (tmp_path / "theirs" / "share" / "gr\xfc\xdfe \n;'\"").chmod(0o644)
    (tmp_path / "theirs" / "share" / "wide").chmod(0o755)
    assert inventory(tmp_path / "ours") == inventory(tmp_path / "theirs")
    assert (extracted.entries, extracted.size_bytes) == (10, 3004 + 12 + 5 + 5)


def test_ustar_prefixes_are_names(tmp_path):
    """A name that ustar splits in two is put together."""
    name = "a" * 90 + "/" + "b" * 90
    extract(io.BytesIO(tar(member(name, b"1"), form=tarfile.USTAR_FORMAT)), tmp_path / "in", ROOMY)
    assert (tmp_path / "in" / name).read_bytes() == b"1"


def test_large_files_pass_through_the_buffer(tmp_path):
    """A file larger than the buffer, and what follows it, come out whole."""
    data = os.urandom(3_000_001)
    extract(io.BytesIO(zstandard.compress(tar(member("a", data), member("b", b"after")))), tmp_path / "in", ROOMY)
    assert ((tmp_path / "in/a").read_bytes() == data, (tmp_path / "in/b").read_bytes()) == (True, b"after")


def test_the_stream_is_observed_whole(tmp_path):
    """What is handed to the observer is the tar stream, so that its digest can be taken on the way."""
    pieces = []
    extract(io.BytesIO(gzip.compress(GOOD)), tmp_path / "in", ROOMY, observe=lambda piece: pieces.append(bytes(piece)))
    assert b"".join(pieces) == GOOD


MALICIOUS = {
    "absolute name": (tar(member("/etc/passwd", b"x")), "'/etc/passwd' is no plain relative name"),
    "dot dot": (tar(member("../outside", b"x")), "'../outside' is no plain relative name"),
    "dot dot within": (tar(member("a/../../outside", b"x")), "'a/../../outside' is no plain relative name"),
    "dot dot at the end": (tar(member("a/..", type=tarfile.DIRTYPE)), "'a/..' is no plain relative name"),
    "dot": (tar(member("./a", b"x")), "'./a' is no plain relative name"),
    "empty part": (tar(member("a//b", b"x")), "'a//b' is no plain relative name"),
    "file with a slash at the end": (tar(member("a/", b"x")), "'a/' is no plain relative name"),
    "empty name": (tar(member("", b"x")), "'' is no plain relative name"),
    "the root itself": (tar(member("/", type=tarfile.DIRTYPE)), "'' is no plain relative name"),
    "ustar prefix out": (
        patched(tar(member("b", b"x"), form=tarfile.USTAR_FORMAT), 345, b"/etc"),
        "'/etc/b' is no plain relative name",
    ),
    "long name out": (
        tar(member("../" + "a" * 200, b"x")),
        f"'../{'a' * 200}' is no plain relative name",
    ),
    "absolute link": (tar(link("a", "/etc")), "'a' links to '/etc', which may lead out of the archive"),
    "empty link": (tar(link("a", "")), "'a' links to '', which may lead out of the archive"),
    "link out": (tar(link("a", "..")), "'a' links to '..', which may lead out of the archive"),
    "deep link out": (tar(link("a/b/c", "../../..")), "'a/b/c' links to '../../..', which may lead out of the archive"),
    "link down and out": (tar(link("a/b", "c/../..")), "'a/b' links to 'c/../..', which may lead out of the archive"),
    "long link out": (
        tar(link("a", "../" * 50 + "etc")),
        f"'a' links to '{'../' * 50}etc', which may lead out of the archive",
    ),
    # `self/self/..` is `self` to a reader, and the parent of the tree to the kernel
    "chain of links": (
        tar(link("self", "."), link("out", "self/self/..")),
        "'out' links to 'self/self/..', which may lead out of the archive",
    ),
    "file through a link": (
        tar(member("real/x", b"x"), link("door", "real"), member("door/y", b"y")),
        "'door' is a file or a link, and another entry goes through it",
    ),
    "directory through a link": (
        tar(link("door", "real"), member("door/y", type=tarfile.DIRTYPE)),
        "'door' is a file or a link, and another entry goes through it",
    ),
    "link through a link": (
        tar(link("door", "real"), link("door/a/b", "../..")),
        "'door' is a file or a link, and another entry goes through it",
    ),
    "file below a file": (
        tar(member("a", b"x"), member("a/b", b"y")),
        "'a' is a file or a link, and another entry goes through it",
    ),
    "file over a link": (tar(link("a", "b"), member("a", b"x")), "'a' comes twice"),
    "file over a file": (tar(member("a", b"1"), member("a", b"2")), "'a' comes twice"),
    "file over a directory": (tar(member("a/b", b"1"), member("a", b"2")), "'a' comes twice"),
    "link over a directory": (tar(member("a/b", b"1"), link("a", "c")), "'a' comes twice"),
    "directory over a link": (tar(link("a", "b"), member("a", type=tarfile.DIRTYPE)), "'a' comes twice"),
    "hard link out": (tar(link("a", "/etc/passwd", tarfile.LNKTYPE)), "'a' is a hard link"),
    "hard link within": (tar(member("a", b"1"), link("b", "a", tarfile.LNKTYPE)), "'b' is a hard link"),
    "character device": (tar(member("a", type=tarfile.CHRTYPE)), "'a' is a character device"),
    "block device": (tar(member("a", type=tarfile.BLKTYPE)), "'a' is a block device"),
    "fifo": (tar(member("a", type=tarfile.FIFOTYPE)), "'a' is a fifo"),
    "contiguous": (tar(member("a", type=tarfile.CONTTYPE)), "'a' is a contiguous file"),
    "sparse": (tar(member("a", type=tarfile.GNUTYPE_SPARSE)), "'a' is a sparse file"),
    "pax name": (
        tar(member("a", b"x", pax_headers={"path": "../x"}), form=tarfile.PAX_FORMAT),
        "'././@PaxHeader' is a pax header",
    ),
    "unknown kind": (tar(member("a", type=b"Z")), "'a' is of an unknown kind"),
    "setuid": (tar(member("a", b"x", mode=0o4755)), "'a' has the mode 4755: setuid, setgid or sticky"),
    "setgid": (tar(member("a", b"x", mode=0o2755)), "'a' has the mode 2755: setuid, setgid or sticky"),
    "sticky": (
        tar(member("a", type=tarfile.DIRTYPE, mode=0o1777)),
        "'a' has the mode 1777: setuid, setgid or sticky",
    ),
    "NUL in a name": (patched(tar(member("aXb", b"x")), 1, b"\0"), "'a' goes on behind a NUL"),
    "NUL in a target": (patched(tar(link("a", "bXc")), 158, b"\0"), "'b' goes on behind a NUL"),
    "NUL in a long name": (
        tar(member("a" * 200, b"x")).replace(b"a" * 200, b"a" * 100 + b"\0" + b"a" * 99),
        f"'{'a' * 100}\\x00{'a' * 99}' holds a NUL",
    ),
    "link with data": (tar(member("a", b"x", type=tarfile.SYMTYPE, linkname="b")), "'a' has data, and is no file"),
    "directory with data": (tar(member("a", b"x", type=tarfile.DIRTYPE)), "'a' has data, and is no file"),
    "name of a megabyte": (patched(tar(member("a" * 200, b"x")), 124, b"00004000000\0"), None),
    "two long names": (tar(member("a" * 200, b"x"))[:1024] + tar(member("b" * 200, b"x")), None),
    "size below zero": (patched(tar(member("a", b"x")), 124, b"-0000000001\0"), "a number of a header is none"),
    "size with an underscore": (patched(tar(member("a", b"x")), 124, b"1_000000000\0"), "a number of a header is none"),
    "size of 2**80": (patched(tar(member("a", b"x")), 124, b"\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None),
    "wrong sum": (b"b" + tar(member("a", b"x"))[1:], "a header has the wrong sum"),
    "no archive": (b"<html>404</html>" * 100, "a number of a header is none"),
    "empty": (b"", "it ends early"),
    "no end": (tar(member("a", b"x"))[:1024], "it ends early"),
    "cut in a file": (tar(member("a", b"x" * 2000))[:1500], "it ends early"),
    "another archive behind": (tar(member("a", b"x")) + tar(member("../b", b"x")), "there is data after its end"),
    "zeros without end": (tar(member("a", b"x")) + bytes(4 << 20), "it goes on after its end"),
    "gzip cut": (gzip.compress(GOOD)[:-9], None),
    "gzip flipped": (gzip.compress(GOOD)[:-8] + b"\0" * 8, None),
    "zstd cut": (zstandard.compress(GOOD)[:-9], None),
    "zstd of nonsense": (b"\x28\xb5\x2f\xfd" + b"\xff" * 100, None),
    "more entries": (
        tar(*(member(str(number)) for number in range(1001))),
        "it has more than the 1000 entries that its manifest names",
    ),
    "more bytes": (
        zstandard.compress(tar(member("a", bytes(1 << 24)), member("b", b"x"))),
        "its files have more than the 16777216 bytes that its manifest names",
    ),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_malicious_archive_is_refused(tmp_path, name):
    """Each known trick is refused with its reason, and nothing outside has changed."""
    archive, why = MALICIOUS[name]
    outside = before(tmp_path)
    with pytest.raises(NodeError) as caught:
        extract(io.BytesIO(archive), tmp_path / "in", ROOMY)
    assert caught.value.why.removeprefix("its entry ") == (why or caught.value.why.removeprefix("its entry "))
    assert contained(tmp_path) == outside


def before(directory: Path) -> dict[str, tuple]:
    """Put files beside the target that an escape would change."""
    (directory / "outside").write_text("untouched")
    (directory / "door").mkdir()
    return inventory(directory)


def goes_in_circles(path: Path) -> bool:
    """A link that comes back to itself leads nowhere; what realpath makes of it is no place that the system goes to."""
    try:
        path.stat()
    except OSError as exc:
        return exc.errno == errno.ELOOP
    return False


def contained(directory: Path) -> dict[str, tuple]:
    """Return what lies beside the target, after a check that nothing inside it leads out or has rights."""
    root = directory / "in"
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISLNK(mode) or stat.S_ISDIR(mode) or stat.S_ISREG(mode)
        assert stat.S_ISLNK(mode) or stat.S_IMODE(mode) in {0o644, 0o755}
        assert path.lstat().st_nlink == 1 or stat.S_ISDIR(mode)
        assert goes_in_circles(path) or f"{os.path.realpath(path)}/".startswith(f"{root}/")
    return {name: what for name, what in inventory(directory).items() if name.split("/")[0] != "in"}


def test_names_that_a_file_system_takes_for_one_are_refused(tmp_path, monkeypatch):
    """Where `README` and `readme` are one file the second is refused, never written over the first."""
    true_open = os.open

    def folded(path, flags, mode=0o777):
        return true_open(bytes(path).lower() if isinstance(path, bytes) else path, flags, mode)

    monkeypatch.setattr(extraction.os, "open", folded)
    with pytest.raises(NodeError) as caught:
        extract(io.BytesIO(tar(member("readme", b"1"), member("README", b"2"))), tmp_path / "in", ROOMY)
    assert caught.value.why == "its entry 'README' is another entry's name on this file system"
    assert (tmp_path / "in" / "readme").read_bytes() == b"1"


def test_a_bomb_is_stopped_by_its_ratio(tmp_path, monkeypatch):
    """A stream that unpacks to a thousand times its size is stopped though the manifest allows its bytes."""
    monkeypatch.setattr(extraction, "_FREE_BYTES", 1 << 20)
    bomb = zstandard.compress(tar(member("a", bytes(1 << 24))))
    with pytest.raises(NodeError) as caught:
        extract(io.BytesIO(bomb), tmp_path / "in", Limits(entries=1, size_bytes=1 << 24))
    assert caught.value.why == "it unpacks to more than 1000 times its size"


def test_a_directory_that_exists_is_not_written_into(tmp_path):
    """The target is made by the extraction: what lies there already is none of its business."""
    (tmp_path / "in").mkdir()
    with pytest.raises(FileExistsError):
        extract(io.BytesIO(GOOD), tmp_path / "in", ROOMY)
    assert inventory(tmp_path / "in") == {}


PARTS = st.sampled_from(["a", "b", "A", "..", ".", "", "door", "outside", "\xfc", "x" * 120])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, b"6"])
MEMBERS = st.builds(
    lambda name, kind, target, mode, data: member(
        name, data if kind == tarfile.REGTYPE else b"", type=kind, linkname=target, mode=mode
    ),
    NAMES,
    KINDS,
    NAMES,
    st.sampled_from([0o644, 0o755, 0o777, 0o4755]),
    st.binary(max_size=600),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(MEMBERS, max_size=6))
def test_no_entry_ever_lands_outside(members):
    """Whatever the names, links and order, what is unpacked stays inside, and links lead nowhere else."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name).resolve()
        outside = before(directory)
        try:
            extract(io.BytesIO(tar(*members)), directory / "in", ROOMY)
        except NodeError:
            pass
        else:
            files = {info.name: data for info, data in members if info.type == tarfile.REGTYPE}
            assert {path: (directory / "in" / path).read_bytes() for path in files} == files
        assert contained(directory) == outside


SAFE = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)
TARGETS = st.lists(st.sampled_from(["..", "a", "b", "."]), min_size=1, max_size=4).map("/".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(SAFE, TARGETS, max_size=6), st.permutations(range(6)))
def test_links_never_lead_out_together(links, order):
    """Links that are refused one by one leave a set of which no chain leads out."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name).resolve()
        outside = before(directory)
        members = [link(path, target) for path, target in links.items()]
        kept = [members[index] for index in order if index < len(members)]
        with contextlib.suppress(NodeError):
            extract(io.BytesIO(tar(*kept)), directory / "in", ROOMY)
        assert contained(directory) == outside


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=8), st.booleans())
def test_damage_is_refused_or_harmless(changes, mend):
    """Bytes changed anywhere, header sums mended or not, never lead to another exception or to a file outside."""
    data = bytearray(GOOD)
    for offset, value in changes:
        data[offset] = value
        block = offset - offset % 512
        if mend:
            header = data[block : block + 512]
            header[148:156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(header)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name).resolve()
        outside = before(directory)
        try:
            extract(io.BytesIO(bytes(data)), directory / "in", ROOMY)
        except NodeError:
            pass
        except OSError as refusal:
            if refusal.errno != errno.ENAMETOOLONG:
                raise
        assert contained(directory) == outside
