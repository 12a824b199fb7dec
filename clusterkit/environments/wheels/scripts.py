"""Console scripts that start the Python beside them, wherever they lie."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from clusterkit.environments.tree import PLACEHOLDER

if TYPE_CHECKING:
    from clusterkit.environments.tree import File

_VENV = re.compile(r"python[\d.]*t?(-config)?|[Aa]ctivate(\.\w+)?|deactivate(\.\w+)?|activate_this\.py|pydoc\.bat")
_PYTHON = re.compile(rb"#![ \t]*(?:\S*/)?(?:env[ \t]+(?:-S[ \t]*)?)?(?:\S*/)?(python[\d.]*)(?:[ \t]+(\S.*))?")
_THROUGH_SHELL = re.compile(rb"""#!/bin/sh\n'''exec' ["']?(/.+?)/(python[\d.]*)["']?[ \t]*(.*?)"\$0" "\$@"\n' '''\n""")
_LIMIT_BYTES = 1 << 20


def is_of_the_venv(name: str) -> bool:
    """Say whether a file of `bin` belongs to the virtual environment itself, not to what is installed in it."""
    return _VENV.fullmatch(name) is not None


def relocatable(file: File, prefix: str) -> File:
    """Return a script that starts the Python beside it, and with the placeholder where it holds the prefix.

    Parameters
    ----------
    file : File
        A file of `bin`; programs are left as they are.
    prefix : str
        The prefix of the environment on this machine.
    """
    if file.size_bytes > _LIMIT_BYTES:
        return file
    data = file.read()
    if not data.startswith(b"#!"):
        return file
    changed = _beside(data)
    if changed != data:
        file = replace(file, source=changed, size_bytes=len(changed))
    return baked(file, prefix)


def baked(file: File, prefix: str) -> File:
    """Return a text file with the placeholder in the place of the prefix."""
    if file.size_bytes > _LIMIT_BYTES:
        return file
    data = file.read()
    pattern = re.escape(prefix.encode()) + rb"(?![\w.-])"
    if prefix.encode() not in data or b"\0" in data or not re.search(pattern, data):
        return file
    changed = re.sub(pattern, PLACEHOLDER.encode(), data)
    return replace(file, source=changed, size_bytes=len(changed), bake="text")


def _beside(data: bytes) -> bytes:
    """Return a script whose first lines start the Python that lies in the script's own directory."""
    through_shell = _THROUGH_SHELL.match(data)
    if through_shell:
        return _first_lines(through_shell[2], through_shell[3].strip()) + data[through_shell.end() :]
    first, _, rest = data.partition(b"\n")
    direct = _PYTHON.fullmatch(first.rstrip())
    return _first_lines(direct[1], direct[2] or b"") + rest if direct else data


def _first_lines(python: bytes, arguments: bytes) -> bytes:
    """Return lines that /bin/sh runs and Python takes for a string."""
    name = b"python" if re.fullmatch(rb"python3?", python) else python
    after = arguments + b" " if arguments else b""
    start = b'"$(dirname -- "$(realpath -- "$0")")"/' + name
    return b"#!/bin/sh\n'''exec' " + start + b" " + after + b"\"$0\" \"$@\"\n' '''\n"
