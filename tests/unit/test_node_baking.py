"""Baking: the prefix of an image written over the placeholder of its packed files."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterkit.environments.tree import PLACEHOLDER
from clusterkit.node.baking import bake
from clusterkit.node.errors import NodeError

P = PLACEHOLDER.encode()
PREFIX = "/var/tmp/clusterkit/ana/images/3f9a"


def test_text_is_replaced_everywhere():
    """In text each placeholder gives way to the prefix, whatever its length."""
    data = b"a=" + P + b"/etc\nb=" + P + b"\nc=1\n"
    assert bake(data, PLACEHOLDER, PREFIX, "text") == b"a=%b/etc\nb=%b\nc=1\n" % ((PREFIX.encode(),) * 2)


def test_binary_keeps_every_offset():
    """In a binary each C string is padded with NUL, so that nothing after it moves."""
    data = b"\x7fELF" + P + b"/share:" + P + b"/lib\0next\0" + P + b"\0end"
    baked = bake(data, PLACEHOLDER, PREFIX, "binary")
    own = PREFIX.encode()
    saved = len(P) - len(own)
    assert baked == b"\x7fELF%b/share:%b/lib%b\0next\0%b%b\0end" % (own, own, b"\0" * 2 * saved, own, b"\0" * saved)
    assert len(baked) == len(data)


def test_an_unterminated_string_at_the_end_is_padded_too():
    """A string that the end of the file ends keeps the file's length."""
    assert bake(b"x@@@@/b", "@@@@", "/a", "binary") == b"x/a/b\0\0"


def test_a_prefix_that_is_too_long_is_refused():
    """A binary has room for the placeholder's length and no more."""
    longer = "/" + "d" * len(PLACEHOLDER)
    with pytest.raises(NodeError) as caught:
        bake(P + b"\0", PLACEHOLDER, longer, "binary")
    assert caught.value.why == f"{longer} is 256 bytes long, and there is room for 255"


def test_a_file_without_the_placeholder_is_left_alone():
    """A binary that never mentions the prefix does not care how long the prefix is."""
    assert bake(b"#!/bin/sh\nplain\0", PLACEHOLDER, "/" + "d" * 300, "binary") == b"#!/bin/sh\nplain\0"


def test_shebang_leaves_the_body_alone():
    """Only the first line of a script changes: a zipped application follows it in binary."""
    data = b"#!" + P + b"/bin/python3.11 -E\nPK\3\4" + P
    assert bake(data, PLACEHOLDER, PREFIX, "shebang") == f"#!{PREFIX}/bin/python3.11 -E\nPK\3\4".encode() + P


@pytest.mark.parametrize("mode", ["shebang", "text"])
@pytest.mark.parametrize("folder", ["with space", "long" * 40])
def test_a_script_starts_where_no_kernel_can_read_its_first_line(tmp_path, folder, mode):
    """With white space in the prefix, or 127 bytes exceeded, the script is started by way of /bin/sh."""
    prefix = tmp_path / folder
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/python").symlink_to(sys.executable)
    script = tmp_path / "script"
    body = b"import sys\nprint(sys.argv[1:], sys.flags.ignore_environment)\n"
    script.write_bytes(bake(b"#!" + P + b"/bin/python -E\n" + body, PLACEHOLDER, str(prefix), mode))
    script.chmod(0o755)
    done = subprocess.run([script, "a b", "c"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['a b', 'c'] 1\n", "")


@pytest.mark.parametrize(
    ("line", "baked"),
    [
        (b"#!%b/bin/sh -e", b"#!/bin/sh -e"),
        (b"#!%b/bin/perl", b"#!/usr/bin/env perl"),
        (b"#!%b/bin/Rscript --vanilla", b"#!/usr/bin/env -S Rscript --vanilla"),
        (b"#! %b/bin/python", b"#!/bin/sh\n'''exec' \"/a b/bin/python\" \"$0\" \"$@\"\n' '''"),
    ],
)
def test_other_interpreters_are_found_on_the_path(line, baked):
    """An interpreter that is not Python is looked up on PATH, where the image's own stands first."""
    assert bake(line % P + b"\nrest\n", PLACEHOLDER, "/a b", "shebang") == baked + b"\nrest\n"


def test_a_prefix_that_no_script_can_quote_is_refused():
    """A quote or a dollar in a long prefix is refused, not half escaped."""
    with pytest.raises(NodeError, match="cannot be written into its scripts"):
        bake(b"#!" + P + b"/bin/python\n", PLACEHOLDER, "/a 'b", "shebang")


@given(st.lists(st.sampled_from([b"@@@@", b"\0", b"x", b"/lib", b"@@"])), st.sampled_from(["/a", "/ab", "/abc"]))
def test_binary_never_changes_a_length_or_leaves_a_placeholder(parts, prefix):
    """Whatever stands around them, strings keep their length and no placeholder survives."""
    data = b"".join(parts)
    baked = bake(data, "@@@@", prefix, "binary")
    assert len(baked) == len(data)
    assert baked.count(prefix.encode()) == data.count(b"@@@@")
    assert b"@@@@" not in baked
