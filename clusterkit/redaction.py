"""Hide secrets in what is printed or kept: by the name they go by, and by their value where it is known."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

HIDDEN = "*********"
"""Stands where a secret was."""

_NAME = r"[\w.-]*(?:secret|password|passwd|token|credential|access[._-]?key|api[._-]?key)[\w.-]*"
_SECRET = re.compile(_NAME, re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?P<name>{_NAME})=(?P<value>[^\s,;&]+)", re.IGNORECASE)
_LEAST_LENGTH = 6


def is_secret(name: str) -> bool:
    """Return whether a setting, a variable or an option of this name holds a secret.

    Examples
    --------
    >>> is_secret("AWS_SECRET_ACCESS_KEY"), is_secret("spark.executor.memory")
    (True, False)
    """
    return _SECRET.fullmatch(name) is not None


def mapping(values: Mapping[str, str]) -> dict[str, str]:
    """Return the same keys, the values of secrets hidden.

    Examples
    --------
    >>> mapping({"spark.ui.password": "x", "spark.master": "yarn"})
    {'spark.ui.password': '*********', 'spark.master': 'yarn'}
    """
    return {key: HIDDEN if is_secret(key) else value for key, value in values.items()}


def document(value: Any) -> Any:
    """Return plain values of any depth, mappings and lists, with the values of secrets hidden.

    In a list of arguments, the one after `--password` is hidden, and so is what follows `--password=`.
    """
    if isinstance(value, dict):
        return {key: HIDDEN if _hides(key, part) else document(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        hidden = frozenset(_after_flags(value))
        return [HIDDEN if isinstance(part, str) and part in hidden else document(part) for part in value]
    return text(value) if isinstance(value, str) else value


def secrets(value: Any) -> frozenset[str]:
    """Return the secrets in plain values of any depth: what `document` hides, for `text` to look for."""
    if isinstance(value, dict):
        named = frozenset(part for key, part in value.items() if _hides(key, part))
        return named.union(*map(secrets, value.values()))
    if isinstance(value, list | tuple):
        return frozenset(_after_flags(value)).union(*map(secrets, value))
    return frozenset(match["value"] for match in _ASSIGNED.finditer(value)) if isinstance(value, str) else frozenset()


def text(content: str, known: Iterable[str] = ()) -> str:
    """Return a text without secrets: neither the known ones, nor what follows a secret's name and `=`.

    Parameters
    ----------
    content : str
        The text.
    known : iterable of str
        Values to hide; those shorter than six characters would hide ordinary words, and are left.

    Examples
    --------
    >>> text("password=abc, then longsecret", known=["longsecret"])
    'password=*********, then *********'
    """
    for value in sorted(known, key=len, reverse=True):
        if len(value) >= _LEAST_LENGTH:
            content = content.replace(value, HIDDEN)
    return _ASSIGNED.sub(lambda match: f"{match['name']}={HIDDEN}", content)


def _hides(key: Any, part: Any) -> bool:
    return isinstance(key, str) and isinstance(part, str) and is_secret(key)


def _after_flags(arguments: Sequence[Any]) -> Iterator[str]:
    """Yield the arguments that follow an option whose name is that of a secret."""
    for flag, value in itertools.pairwise(arguments):
        if isinstance(flag, str) and isinstance(value, str) and flag.startswith("-") and is_secret(flag):
            yield value
