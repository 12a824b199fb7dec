"""Take the prefix out of the files of a live environment: the opposite of what conda does as it installs.

For a file that conda wrote the prefix into, its package's own SHA-256 proves that the original bytes were found again,
to the last one. Neither the package nor a cache of packages is needed for it.

References
----------
conda, `conda/core/portability.py` (24.x), and rattler, `link_file`: a text has every placeholder replaced, and a first
line that no kernel could read, because it is too long or has spaces, is replaced by `#!/usr/bin/env` (conda) or by two
lines for /bin/sh (rattler, pip); a binary keeps its length, because the string
that holds the placeholder is filled up with NULs.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

from clusterkit.environments.tree import PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clusterkit.environments.tree import Bake

_ENV_LINE = re.compile(rb"#!/usr/bin/env (\S+)")
_SHELL_LINES = re.compile(
    rb"#!/bin/sh\n'''exec' \"?(/[^\"\n]*)/bin/([^\"/\s]+)\"?(?: ([^\n]*?))? \"\$0\" \"\$@\"(?: #'''|\n' ''')(?=\n)"
)
_INTERPRETER_LINE = re.compile(rb"#!\s*(/[^\n]*)/bin/[^/\s]+")
_IN_PLACE = os.fsencode(PLACEHOLDER)


def unbake(data: bytes, prefix: str, placeholder: str, mode: str, sha256: str) -> bytes | None:
    r"""Return the bytes that a package held, None where the file is not what conda made of them.

    Parameters
    ----------
    data : bytes
        The file as it is in the prefix.
    prefix : str
        What conda wrote into it.
    placeholder : str
        What the package holds in its place.
    mode : str
        `text` or `binary`.
    sha256 : str
        The digest of the package's file.

    Examples
    --------
    >>> sha256 = hashlib.sha256(b"root = /placeholder/etc").hexdigest()
    >>> unbake(b"root = /opt/env/etc", "/opt/env", "/placeholder", "text", sha256)
    b'root = /placeholder/etc'
    """
    old, new = os.fsencode(prefix), os.fsencode(placeholder)
    for original in _texts(data, old, new) if mode == "text" else _binaries(data, old, new):
        if hashlib.sha256(original).hexdigest() == sha256:
            return original
    return None


def as_text(data: bytes, prefixes: Iterable[str]) -> tuple[bytes, Bake | None]:
    """Return a text with PLACEHOLDER in the place of any of the prefixes, and how it is baked; None if it holds none.

    A longer path that merely begins like a prefix (`/opt/env2`) is left alone. First lines that start the interpreter
    through a shell, as installers write them where the prefix is long or has spaces, become one again.
    """
    prefixes = tuple(prefixes)
    found = _SHELL_LINES.match(data)
    if found and os.fsdecode(found[1]) in prefixes:
        data = _plain(found, found[1]) + data[found.end() :]
    for prefix in sorted(prefixes, key=len, reverse=True):
        data = re.sub(re.escape(os.fsencode(prefix)) + rb"(?![\w.+-])", _IN_PLACE.replace(b"\\", b"\\\\"), data)
    return data, bake_of(data)


def as_binary(data: bytes, prefixes: Iterable[str]) -> bytes | None:
    """Return a binary with PLACEHOLDER in the place of a prefix; None where a string has no room for it."""
    for prefix in prefixes:
        for grown in _binaries(data, os.fsencode(prefix), _IN_PLACE):
            if grown != data and len(grown) == len(data):
                return grown
    return None


def bake_of(data: bytes) -> Bake | None:
    """Return how a text that holds PLACEHOLDER is baked."""
    count = data.count(_IN_PLACE)
    if not count:
        return None
    return "shebang" if count == 1 and data.startswith(b"#!") and _IN_PLACE in data.partition(b"\n")[0] else "text"


def in_first_line(data: bytes) -> str:
    """Return the prefix of the interpreter in a script's first line, empty where there is none or it is `/usr`."""
    found = _INTERPRETER_LINE.match(data)
    return os.fsdecode(found[1]) if found and found[1] != b"/usr" else ""


def _texts(data: bytes, old: bytes, new: bytes) -> Iterator[bytes]:
    yield data.replace(old, new)
    line, lines = _ENV_LINE.match(data), _SHELL_LINES.match(data)
    if line:
        yield b"#!" + new + b"/bin/" + line[1] + data[line.end() :].replace(old, new)
    if lines and lines[1] == old:
        yield _plain(lines, new) + data[lines.end() :].replace(old, new)


def _plain(lines: re.Match[bytes], prefix: bytes) -> bytes:
    """Return the one first line that stands for lines that start an interpreter through a shell."""
    return b"#!" + prefix + b"/bin/" + lines[2] + (b" " + lines[3] if lines[3] else b"")


def _binaries(data: bytes, old: bytes, new: bytes) -> Iterator[bytes]:
    grown, parts, done = len(new) - len(old), [], 0
    while (found := data.find(old, done)) >= 0:
        end = data.find(b"\0", found)
        end = len(data) if end < 0 else end
        text = data[found:end]
        padding = grown * text.count(old)
        if padding < 0 or data[end : end + padding].strip(b"\0"):
            return
        parts += [data[done:found], text.replace(old, new)]
        done = end + padding
    yield b"".join([*parts, data[done:]])
