"""Take the prefix out of what conda wrote, and prove it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterkit.environments.conda import unbaking
from clusterkit.environments.tree import PLACEHOLDER
from clusterkit.node.baking import bake

THEIRS = ("/opt/a_placehold" + "_placehold" * 30)[:255]
PREFIXES = st.from_regex(r"(/[a-z][a-z0-9_.]{0,12}){1,4}", fullmatch=True)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def as_conda_writes(original: bytes, prefix: str, mode: str) -> bytes:
    """Replace placeholders as conda does, written down naively: text as text, a binary string by string."""
    old, new = THEIRS.encode(), prefix.encode()
    if mode == "text":
        return original.replace(old, new)
    strings = original.split(b"\0")
    written = []
    for index, string in enumerate(strings):
        text = string.replace(old, new)
        last = index == len(strings) - 1
        written.append(text + b"\0" * (len(string) - len(text)) + (b"" if last else b"\0"))
    return b"".join(written)


@st.composite
def originals(draw, *, binary: bool) -> bytes:
    piece = st.binary(max_size=8) if binary else st.sampled_from([b"a", b"\n", b"/", b":", b"x y", b"\xc3\xa9"])
    pieces = draw(st.lists(st.one_of(piece, st.just(THEIRS.encode())), max_size=9))
    data = b"".join(pieces)
    return data + b"\0" if binary else data


def readings(live: bytes, prefix: str) -> int:
    """In how many places the prefix can be read, those included that overlap or that its neighbours complete."""
    return sum(live.startswith(prefix.encode(), start) for start in range(len(live)))


@given(originals(binary=True), PREFIXES)
def test_binaries_come_back_to_the_last_byte(original, prefix):
    """Whatever strings a binary holds, its bytes are found again, unless the prefix can be read elsewhere too."""
    live = as_conda_writes(original, prefix, "binary")
    found = unbaking.unbake(live, prefix, THEIRS, "binary", sha256(original))
    assert found == original or readings(live, prefix) > original.count(THEIRS.encode())


@given(originals(binary=False), PREFIXES)
def test_texts_come_back_to_the_last_byte(original, prefix):
    """Whatever a text holds, its package's bytes are found again, unless the prefix can be read elsewhere too."""
    live = as_conda_writes(original, prefix, "text")
    found = unbaking.unbake(live, prefix, THEIRS, "text", sha256(original))
    assert found == original or readings(live, prefix) > original.count(THEIRS.encode())


@given(originals(binary=True), PREFIXES, PREFIXES)
def test_a_node_writes_what_conda_would_have_written_there(original, prefix, other):
    """Taking one prefix out and having a node write another one in is installing at that other one."""
    ours = bake(original, THEIRS, PLACEHOLDER, "binary")
    assert bake(ours, PLACEHOLDER, other, "binary") == as_conda_writes(original, other, "binary")


def test_an_edited_file_is_not_proved():
    """One byte that the package did not hold, and nothing is proved."""
    original = b"root = " + THEIRS.encode()
    live = as_conda_writes(original, "/opt/env", "text") + b"\n# mine"
    assert unbaking.unbake(live, "/opt/env", THEIRS, "text", sha256(original)) is None


def test_a_first_line_too_long_for_a_kernel():
    """Conda replaces such a line by `env`; the package's own line is found again all the same."""
    original = f"#!{THEIRS}/bin/python3.11 -s\nprint('{THEIRS}')\n".encode()
    prefix = "/" + "d" * 130
    live = f"#!/usr/bin/env python3.11 -s\nprint('{prefix}')\n".encode()
    assert unbaking.unbake(live, prefix, THEIRS, "text", sha256(original)) == original


@pytest.mark.parametrize("end", [" #'''", "\n' '''"])
def test_first_lines_for_a_shell(end):
    """A prefix with spaces makes installers start Python through a shell; the package's own line is found again."""
    original = f"#!{THEIRS}/bin/python3.11 -s\nprint('{THEIRS}')\n".encode()
    live = f"#!/bin/sh\n'''exec' \"/a b/bin/python3.11\" -s \"$0\" \"$@\"{end}\nprint('/a b')\n".encode()
    assert unbaking.unbake(live, "/a b", THEIRS, "text", sha256(original)) == original
    ours = f"#!{PLACEHOLDER}/bin/python3.11 -s\nprint('{PLACEHOLDER}')\n".encode()
    assert unbaking.as_text(live, ["/a b"]) == (ours, "text")


def test_a_binary_that_has_no_room_left_is_not_proved():
    """A string that is followed by other bytes was not written by conda."""
    assert unbaking.unbake(b"/opt/env/x\0more", "/opt/env", THEIRS, "binary", sha256(b"")) is None


def test_paths_that_only_begin_alike_are_left_alone():
    """`/opt/env2` is not inside of `/opt/env`; the longer of two prefixes counts first."""
    text = b"/opt/env /opt/env/bin -L/opt/env/lib /opt/env2/bin /data/opt/env/bin /opt/env.old"
    placed, bake_kind = unbaking.as_text(text, ["/opt/env", "/data/opt/env"])
    expected = "P P/bin -LP/lib /opt/env2/bin P/bin /opt/env.old".replace("P", PLACEHOLDER)
    assert (placed, bake_kind) == (expected.encode(), "text")


def test_how_a_text_is_baked():
    """A script whose first line alone holds the prefix is a shebang; any other text a text, or nothing."""
    line = f"#!{PLACEHOLDER}/bin/python\n".encode()
    assert unbaking.bake_of(line + b"pass\n") == "shebang"
    assert unbaking.bake_of(line + PLACEHOLDER.encode()) == "text"
    assert unbaking.bake_of(b"#!/bin/sh\n" + PLACEHOLDER.encode()) == "text"
    assert unbaking.bake_of(b"#!/bin/sh\n") is None


def test_the_prefix_in_a_first_line():
    """A script names the prefix it was made for."""
    assert unbaking.in_first_line(b"#!/old/env/bin/python3.11 -s\n/x/bin/y") == "/old/env"
    assert unbaking.in_first_line(b"#!/usr/bin/env python\n") == ""
    assert unbaking.in_first_line(b"\x7fELF") == ""
