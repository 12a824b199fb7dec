"""Paths of a prefix as seen from one of its files, so that they are right wherever the prefix lies."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def link(path: str, target: str, prefixes: Iterable[str]) -> str:
    """Return a symbolic link's target relative to the link; empty where it leads out of the prefix.

    Parameters
    ----------
    path : str
        The link, below the prefix.
    target : str
        Its target as it is written.
    prefixes : iterable of str
        Each path by which the prefix is known.

    Examples
    --------
    >>> link("lib/libz.so", "/opt/env/lib/libz.so.1", ["/opt/env"])
    'libz.so.1'
    >>> link("lib/libz.so", "../../lib/libz.so.1", ["/opt/env"])
    ''
    >>> link("lib/libz.so", "../share/../lib64/libz.so", ["/opt/env"])
    '../lib64/libz.so'
    """
    folder = posixpath.dirname(path)
    if target.startswith("/"):
        return _from(folder, target, prefixes)
    if re.match(r"\.\.(/|$)", posixpath.normpath(posixpath.join(folder, target))):
        return ""
    down_and_up = "/../" in target.lstrip("./") + "/"  # a node cannot tell where that leads, through other links
    return posixpath.normpath(target) if down_and_up else target


def search_path(path: str, directories: Sequence[str], prefixes: Sequence[str]) -> str:
    """Return the search path of a library with the prefix's directories relative to it; empty where it names none.

    Examples
    --------
    >>> search_path("lib/python3.11/site-packages/x.so", ["/opt/env/lib", "/usr/lib"], ["/opt/env"])
    '$ORIGIN/../..:/usr/lib'
    """
    folder = posixpath.dirname(path)
    inside = [_from(folder, directory, prefixes) for directory in directories]
    named = zip(inside, directories, strict=True)
    return ":".join(f"$ORIGIN/{known}" if known else other for known, other in named) if any(inside) else ""


def _from(folder: str, path: str, prefixes: Iterable[str]) -> str:
    for prefix in prefixes:
        if path == prefix or path.startswith(f"{prefix}/"):
            return posixpath.relpath(path[len(prefix) + 1 :] or ".", folder or ".")
    return ""
