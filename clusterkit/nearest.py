"""The known name that a misspelt one was most likely meant to be."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to `name`, None when none is near.

    Examples
    --------
    >>> nearest("executor.memmory", ["executor.memory", "executor.cores"])
    'executor.memory'
    """
    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return found[0] if found else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?`, or nothing when no known name is near."""
    match = nearest(name, known)
    return f"; did you mean {match}?" if match else ""
