"""Keep the RECORD of a wheel true: the name, digest and size of each of its files."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import posixpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from clusterkit.environments.tree import File


def refresh(record: bytes, site: str, *, changed: Mapping[str, File], removed: Collection[str]) -> bytes:
    """Return a RECORD with changed, added and removed files.

    Parameters
    ----------
    record : bytes
        What it was.
    site : str
        The directory that its paths start from, below the prefix: `lib/python3.11/site-packages`.
    changed : mapping of str to File
        Files that have other bytes now, or are new, by their path below the prefix.
    removed : collection of str
        The paths below the prefix of files that are gone.
    """
    rows = {row[0]: row for row in csv.reader(io.StringIO(record.decode()))}
    for path in removed:
        rows.pop(posixpath.relpath(path, site), None)
    for path, file in changed.items():
        name = posixpath.relpath(path, site)
        rows[name] = [name, f"sha256={_digest(file.read())}", str(file.size_bytes)]
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows.values())
    return written.getvalue().encode()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
