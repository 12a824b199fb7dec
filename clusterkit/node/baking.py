"""Write the prefix of an image into a packed file, where the placeholder stands.

The node does it as it unpacks. Packed files thus depend neither on the path of a node's cache nor on the user, and the
digest of what is packed names the image: were the prefix baked before packing, the digest would depend on the path and
the path on the digest.
"""

from __future__ import annotations

import os

from .errors import NodeError

SHEBANG_LIMIT = 127
"""How many bytes of a script's first line every Linux kernel reads (`BINPRM_BUF_SIZE` - 1 before 5.1)."""

_UNQUOTABLE = frozenset(b"'\"\\$`\n\r\0")


def bake(data: bytes, placeholder: str, prefix: str, how: str) -> bytes:
    r"""Return a packed file's bytes with the prefix in the place of the placeholder.

    Parameters
    ----------
    data : bytes
        The packed file; one without the placeholder is returned as it is.
    placeholder : str
        What stands in the place of the prefix; no white space.
    prefix : str
        The absolute path that the image has on this node.
    how : str
        `text`: everywhere, whatever the lengths. `binary`: in NUL-terminated strings, which keep their length.
        `shebang`: in the first line alone, the rest may be binary.

    Raises
    ------
    NodeError
        If the prefix is too long for a binary file, or holds characters that no script's first line can.

    Examples
    --------
    >>> bake(b"dir=@@@@@@/etc\n", "@@@@@@", "/opt/env", "text")
    b'dir=/opt/env/etc\n'
    >>> bake(b"\1@@@@@@/etc\0\2", "@@@@@@", "/env", "binary")
    b'\x01/env/etc\x00\x00\x00\x02'
    """
    old, new = os.fsencode(placeholder), os.fsencode(prefix)
    if how == "binary":
        return _binary(data, old, new)
    if how == "shebang":
        first, line_end, rest = data.partition(b"\n")
        return _first_line(first, old, new) + line_end + rest
    if how != "text":
        raise ValueError(how)
    if not data.startswith(b"#!"):
        return data.replace(old, new)
    first, line_end, rest = data.partition(b"\n")
    return _first_line(first, old, new) + line_end + rest.replace(old, new)


def _binary(data: bytes, old: bytes, new: bytes) -> bytes:
    if old in data and len(new) > len(old):
        raise NodeError(
            "the image's prefix does not fit into its binary files",
            why=f"{os.fsdecode(new)} is {len(new)} bytes long, and there is room for {len(old)}",
            mend="choose a node cache with a shorter path (setting node_cache)",
        )
    parts, done = [], 0
    while (found := data.find(old, done)) >= 0:
        end = data.find(b"\0", found)
        end = len(data) if end < 0 else end
        text = data[found:end]
        parts += [data[done:found], text.replace(old, new).ljust(len(text), b"\0")]
        done = end
    return b"".join([*parts, data[done:]])


def _first_line(line: bytes, old: bytes, new: bytes) -> bytes:
    baked = line.replace(old, new)
    if baked == line or not line.startswith(b"#!") or _is_plain(baked, new):
        return baked
    program, _, arguments = line[2:].strip().partition(b" ")
    program, arguments = program.replace(old, new), arguments.strip().replace(old, new)
    if _UNQUOTABLE & set(program + arguments):
        raise NodeError(
            "the image's prefix cannot be written into its scripts",
            why=f"{os.fsdecode(new)} holds quotes, backslashes, `$` or line ends",
            mend="choose a node cache with a plain path (setting node_cache)",
        )
    return _through_shell(program, arguments)


def _is_plain(line: bytes, prefix: bytes) -> bool:
    """Say whether a kernel can read the line: not too long, and no white space in the interpreter's path."""
    return len(line) <= SHEBANG_LIMIT and not any(space in prefix for space in b" \t\n\r")


def _through_shell(program: bytes, arguments: bytes) -> bytes:
    """Return first lines that start the interpreter through /bin/sh, and mean nothing to the interpreter itself."""
    name = program.rpartition(b"/")[2]
    after = b" " + arguments if arguments else b""
    if name.startswith(b"python"):
        return b"#!/bin/sh\n'''exec' \"" + program + b'"' + after + b" \"$0\" \"$@\"\n' '''"
    if name in {b"sh", b"dash"}:
        return b"#!/bin/sh" + after  # every node has one
    return b"#!/usr/bin/env " + (b"-S " if arguments else b"") + name + after  # the image's bin comes first on PATH
