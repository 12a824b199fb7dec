"""ELF files, written here byte by byte, and those of this machine."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from clusterkit.environments import elf
from clusterkit.environments.tree import File


def written(
    needed=(), *, machine: int = 62, rpath: str = "", runpath: str = "", soname: str = "", versions=()
) -> bytes:
    """Make the smallest shared library: a header, two segments, the dynamic section, strings, needed versions."""
    strings = bytearray(b"\0")

    def at(text: str) -> int:
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text) - 1

    entries = [(1, at(name)) for name in needed]
    entries += [(tag, at(text)) for tag, text in ((14, soname), (15, rpath), (29, runpath)) if text]
    names = [at(version) for version in versions]
    library = at("libc.so.6")
    aux = b"".join(
        struct.pack("<IHHII", 0, 0, 0, name, 16 if index + 1 < len(names) else 0) for index, name in enumerate(names)
    )
    verneed = struct.pack("<HHIII", 1, len(names), library, 16, 0) + aux
    start = 64 + 2 * 56
    size = 16 * (len(entries) + (4 if versions else 2))
    place_strings, place_versions = start + size, start + size + len(strings)
    entries.append((5, place_strings))
    if versions:
        entries += [(0x6FFFFFFE, place_versions), (0x6FFFFFFF, 1)]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in [*entries, (0, 0)])
    total = place_versions + len(verneed)
    header = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, total, total, 4096)
    where = struct.pack("<IIQQQQQQ", 2, 6, start, start, start, len(dynamic), len(dynamic), 8)
    return header + load + where + dynamic + bytes(strings) + verneed


def test_all_that_the_loader_reads_is_read():
    """Names, search paths and the newest glibc come out as they were written."""
    data = written(
        ["libm.so.6", "libfoo.so.1"],
        soname="libbar.so.2",
        rpath="$ORIGIN/../lib:/opt/x",
        versions=["GLIBC_2.4", "GLIBC_2.34", "GLIBC_2.5.1", "GLIBC_PRIVATE", "GCC_3.0"],
    )
    assert elf.read(data) == elf.Elf(
        machine=62,
        needed=("libm.so.6", "libfoo.so.1"),
        soname="libbar.so.2",
        rpath=("$ORIGIN/../lib", "/opt/x"),
        glibc=34,
    )


@pytest.mark.parametrize(
    "data", [b"", b"#!/bin/sh\n", b"\x7fELF\1\1".ljust(200, b"\0"), b"\x7fELF\2\2".ljust(200, b"\0")]
)
def test_anything_else_is_no_elf_file(data, tmp_path):
    """An empty file, a script, 32 bits and big endian need nothing."""
    path = tmp_path / "file.so"
    path.write_bytes(data)
    assert (elf.read(data), elf.read(path), elf.needed(path), elf.architecture(path)) == (None, None, (), "")


def test_relative_relocations_ask_for_the_glibc_that_brought_them():
    """GLIBC_ABI_DT_RELR is no number, and an older glibc refuses the file all the same."""
    assert elf.read(written(versions=["GLIBC_2.17", "GLIBC_ABI_DT_RELR"])).glibc == 36


def test_the_newest_glibc_is_found_with_its_file(tmp_path):
    """2.9 is older than 2.34, and scripts are not opened."""
    old, new = tmp_path / "old.so", tmp_path / "new.so.1"
    old.write_bytes(written(versions=["GLIBC_2.9"]))
    new.write_bytes(written(versions=["GLIBC_2.34"]))
    files = [
        File("lib/old.so", old, 0o755, 1),
        File("lib/new.so.1", new, 0o644, 1),
        File("lib/never.py", tmp_path / "is not there", 0o755, 1),
        File("bin/mine", written(versions=["GLIBC_2.28"]), 0o755, 1),
    ]
    assert elf.newest_glibc(files) == ("2.34", "lib/new.so.1")
    assert elf.newest_glibc([files[2]]) == ("", "")


def test_a_runpath_becomes_an_rpath_and_nothing_else_changes():
    """The program's search path then holds for the library too."""
    data = written(["libfoo.so"], runpath="$ORIGIN/x")
    changed = elf.without_runpath(data)
    assert elf.read(changed) == elf.Elf(machine=62, needed=("libfoo.so",), rpath=("$ORIGIN/x",))
    assert len(changed) == len(data)
    assert elf.without_runpath(changed) == changed


def test_libraries_are_found_as_the_loader_finds_them(tmp_path, monkeypatch):
    """By the file's own path, with $ORIGIN resolved, passing over another machine's library of the same name."""
    monkeypatch.setattr(elf, "_system_libraries", dict)
    (tmp_path / "own").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "own" / "libfoo.so").write_bytes(written(machine=183))
    (tmp_path / "other" / "libfoo.so").write_bytes(written(["libbaz.so", "libc.so.6"]))
    (tmp_path / "other" / "libbaz.so").write_bytes(written())
    program = tmp_path / "program"
    program.write_bytes(written(["libfoo.so", "libgone.so", "libc.so.6"], rpath="$ORIGIN/own:${ORIGIN}/other"))
    assert elf.closure([program]) == {
        "libbaz.so": tmp_path / "other" / "libbaz.so",
        "libfoo.so": tmp_path / "other" / "libfoo.so",
    }


def test_what_a_node_brings_itself_is_not_taken_along():
    """Glibc's own and the drivers of GPUs stay; compilers' run-time libraries do not."""
    own = ["ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libnss_files.so.2", "libcuda.so.1", "libnvidia-ml.so.1"]
    other = ["libstdc++.so.6", "libgcc_s.so.1", "libmkl_rt.so.3", "libcrypt.so.1", "libcudart.so.12", "libmvec2.so"]
    assert [name for name in [*own, *other] if elf.is_the_nodes_own(name)] == own


def test_this_python_is_for_this_machine():
    """The architecture is read from the file."""
    assert elf.architecture(Path(sys.executable).resolve()) in {"linux-64", "linux-aarch64"}


@pytest.mark.parametrize(
    ("path", "mode", "expected"),
    [
        ("lib/libfoo.so", 0o644, True),
        ("lib/libfoo.so.1.2", 0o644, True),
        ("bin/tool", 0o755, True),
        ("bin/tool.py", 0o755, False),
        ("lib/foo.sock", 0o644, False),
        ("lib/data", 0o644, False),
    ],
)
def test_names_and_modes_tell_what_may_be_an_elf_file(path, mode, expected):
    """Nothing else is opened to look for one."""
    assert elf.is_candidate(path, mode) is expected
