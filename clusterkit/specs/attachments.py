"""The files that travel with a job: local paths and URIs, each perhaps with an `#alias`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from clusterkit.errors import SpecError
from clusterkit.settings.kinds import URI

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALIAS = re.compile(r"[\w][\w.-]*")
_HADOOP = frozenset("*?[]{}\\:")
_SHELL = frozenset('"$`')
_SUFFIXES = {
    "py_files": (".py", ".zip", ".egg", ".jar"),
    "archives": (".tar.gz", ".tgz", ".tar", ".zip", ".jar"),
}


def is_uri(entry: str) -> bool:
    """Whether an entry is a URI rather than a path on this machine.

    Examples
    --------
    >>> is_uri("hdfs:///data/x.csv"), is_uri("/data/x.csv")
    (True, False)
    """
    return URI.match(entry) is not None


def split_alias(entry: str) -> tuple[str, str | None]:
    """Split `path#alias` into the path and the alias; a file whose own name holds the `#` has none.

    Examples
    --------
    >>> split_alias("/data/env.tar.gz#environment")
    ('/data/env.tar.gz', 'environment')
    """
    path, hash_sign, alias = entry.rpartition("#")
    if not hash_sign or (not is_uri(entry) and Path(entry).exists()):
        return entry, None
    return path, alias


def link_name(entry: str) -> str:
    """Return the name an entry has in the working directory of a container."""
    path, alias = split_alias(entry)
    return alias if alias is not None else path.rstrip("/").rpartition("/")[2]


def to_uri(entry: str) -> str:
    """Return an entry as the URI that Spark reads without guessing: local paths percent-encoded, the alias kept.

    Examples
    --------
    >>> to_uri("/data/my file.csv#f.csv"), to_uri("hdfs:///x")
    ('file:///data/my%20file.csv#f.csv', 'hdfs:///x')
    """
    if is_uri(entry):
        return entry
    path, alias = split_alias(entry)
    return f"file://{quote(path)}" + (f"#{alias}" if alias is not None else "")


def check(entries: Mapping[str, tuple[str, ...]]) -> None:
    """Check every file that travels with a job.

    Parameters
    ----------
    entries : mapping of str to tuple of str
        The entries of `py_files`, `files`, `jars` and `archives`.

    Raises
    ------
    SpecError
        If one is missing or cannot be sent, or if two would have the same name in the container.
    """
    taken: dict[str, str] = {}
    for key, group in entries.items():
        for entry in group:
            _check_entry(key, entry)
            name = link_name(entry)
            if taken.setdefault(name, entry) != entry:
                raise SpecError(
                    f"{entry} cannot be sent with the job",
                    why=f"{taken[name]} has the same name in the container, and Spark would drop one of them",
                    mend=f"give one of them another name in {key}: {entry}#other-name",
                    key=key,
                )


def check_readable(key: str | None, path: Path, failed: str | None = None) -> None:
    """Check that a path is a file this user can read.

    Raises
    ------
    SpecError
        If it is not.
    """
    failed = failed or f"{key} cannot be used"
    if not path.exists():
        raise SpecError(failed, why=f"there is no file {path}", mend=f"check the path {path}", key=key)
    if not path.is_file():
        raise SpecError(failed, why=f"{path} is no file", mend=f"name a file instead of {path}", key=key)
    if not os.access(path, os.R_OK):
        raise SpecError(failed, why=f"this user may not read {path}", mend=f"run `chmod u+r {path}`", key=key)


def _check_entry(key: str, entry: str) -> None:
    failed = f"{entry!r} cannot be sent with the job"
    if "," in entry:
        why = "Spark takes these files as one list with commas, so a comma cannot stand in a name"
        raise SpecError(failed, why=why, mend=f"rename it without a comma, and correct {key}", key=key)
    _, alias = split_alias(entry)
    if alias is not None and not _ALIAS.fullmatch(alias):
        why = f"its alias {alias!r} is not one plain name"
        raise SpecError(failed, why=why, mend=f"write letters, digits, '.', '-' or '_' after the # in {key}", key=key)
    _check_suffix(key, entry, failed)
    if not is_uri(entry):
        _check_local(key, entry, failed)


def _check_suffix(key: str, entry: str, failed: str) -> None:
    suffixes = _SUFFIXES.get(key, ("",))
    path = split_alias(entry)[0]
    if not path.endswith(suffixes):
        why = f"{key} takes names that end in {', '.join(suffixes)}, and others would be copied without effect"
        raise SpecError(failed, why=why, mend=f"pack or rename it, or send it with files instead of {key}", key=key)


def _check_local(key: str, entry: str, failed: str) -> None:
    path = split_alias(entry)[0]
    if not path.isprintable() or not _encodable(path):
        why = "its path holds control characters, or bytes that are not UTF-8"
        raise SpecError(failed, why=why, mend=f"rename it, and correct {key}", key=key)
    check_readable(key, Path(path), failed)
    if found := _HADOOP & set(path):
        why = f"Hadoop gives {' '.join(sorted(found))} in a path a meaning of its own"
        raise SpecError(failed, why=why, mend=f"rename it, and correct {key}", key=key)
    if found := _SHELL & set(link_name(entry)):
        why = f"YARN's launch script cannot carry {' '.join(sorted(found))} in a file's name"
        raise SpecError(failed, why=why, mend=f"rename it, or give it another name in {key}: PATH#name", key=key)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
