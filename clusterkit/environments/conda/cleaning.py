"""What must not travel: what was derived from files with this machine's prefix in them."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from clusterkit.environments.conda.ownership import source_of
from clusterkit.environments.conda.records import joined

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterkit.environments.conda.records import WheelRecord
    from clusterkit.environments.tree import File


def without_traces(files: Iterable[File], wheels: Iterable[WheelRecord]) -> list[File]:
    """Return files where nothing depends on where the prefix lay.

    Left out is the byte code of modules that hold the prefix: its constants would bring this machine's back. A RECORD
    loses the digests of scripts that hold it, as the format allows.
    """
    files = list(files)
    baked = {file.path for file in files if file.bake}
    records = {f"{wheel.info}/RECORD" for wheel in wheels if not baked.isdisjoint(wheel.files)}
    kept = (file for file in files if not file.path.endswith(".pyc") or source_of(file.path) not in baked)
    return [_undigested(file, baked) if file.path in records else file for file in kept]


def _undigested(record: File, baked: set[str]) -> File:
    site = PurePosixPath(record.path).parent.parent
    rows = csv.reader(record.read().decode("utf-8", "surrogateescape").splitlines())
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [row[0], "", ""] if row and joined(site, row[0]) in baked else row for row in rows
    )
    data = text.getvalue().encode("utf-8", "surrogateescape")
    return dataclasses.replace(record, source=data, size_bytes=len(data))
