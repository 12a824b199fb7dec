"""The indexed format of aggregated logs (`IFile`): log files one after another, and at the end an index of them.

References
----------
`org.apache.hadoop.yarn.logaggregation.filecontroller.ifile.LogAggregationIndexedFileController` of Hadoop 3.5.0.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from clusterkit.hadoop.logs import java_objects
from clusterkit.hadoop.logs.byte_stream import ByteStream
from clusterkit.hadoop.logs.log_file import LogFile
from clusterkit.hadoop.logs.node_file import decompressed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterkit.hadoop.logs.log_file import Selection
    from clusterkit.hadoop.logs.node_file import NodeFile

CHECKSUM_SUFFIX = "-checksum"
"""Ends the name of a file that says up to where a node's file, which is being appended to, is whole."""

_DIGEST_BYTES = 32
_TRAILER_BYTES = 4 + _DIGEST_BYTES


def log_files(file: NodeFile, application_id: str, selection: Selection, end: int | None) -> Iterator[LogFile]:
    """Yield the log files in an aggregated file.

    Parameters
    ----------
    file : NodeFile
        The node's file.
    application_id : str
        Whose logs they are; the file carries its digest.
    selection : Selection
        What is wanted.
    end : int or None
        Up to where the file is whole; up to its end when None.

    Raises
    ------
    DamagedLogError
        If the file is no indexed file of this application.
    """
    with file.checked():
        meta = _meta(file, application_id, file.size if end is None else end)
        for entry in _entries(meta):
            if selection.takes(entry["containerId"], entry["fileName"]):
                yield _log_file(file, entry, meta["compressName"])


def whole_until(checksum: NodeFile) -> tuple[str, int]:
    """Return the name of the file that a checksum file is about, and up to where that one is whole.

    Raises
    ------
    DamagedLogError
        If it is something else.
    """
    with checksum.checked():
        stream = ByteStream(checksum.pieces(0, checksum.size))
        name = stream.read(stream.number("i")).decode()
        return name, stream.number("q")


def _meta(file: NodeFile, application_id: str, end: int) -> dict[str, Any]:
    if end == 0 and file.size:
        return {"logMetas": [], "compressName": "none"}  # the first part is still being written
    trailer = ByteStream(iter((file.read(end - _TRAILER_BYTES, _TRAILER_BYTES),)))
    size = trailer.number("i")
    if trailer.read(_DIGEST_BYTES) != hashlib.sha256(application_id.encode()).digest():
        msg = f"it does not end with the digest of {application_id}"
        raise ValueError(msg)
    meta = java_objects.load(ByteStream(file.pieces(end - _TRAILER_BYTES - size, size)))
    return _fields(meta)


def _entries(meta: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what is known of each log file, in the order of `yarn logs`."""
    for part in meta["logMetas"]:
        for _, entries in _fields(part)["logMetas"]:
            yield from map(_fields, entries)


def _log_file(file: NodeFile, entry: Mapping[str, Any], compression: str) -> LogFile:
    def chunks() -> Iterator[bytes]:
        with file.checked():
            pieces = file.pieces(entry["startIndex"], entry["fileCompressedSize"])
            stream = ByteStream(decompressed(pieces, compression))
            left = entry["fileSize"]
            while left and not stream.ended():
                piece = stream.some(left)
                left -= len(piece)
                yield piece

    written = entry["lastModifiedTime"]
    modified = datetime.fromtimestamp(written / 1000, UTC) if written > 0 else None
    return LogFile(
        entry["containerId"], file.name, entry["fileName"], entry["fileSize"], modified, "AGGREGATED", chunks
    )


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, java_objects.JavaObject):
        return value.fields
    msg = "its index is not one of YARN's"
    raise ValueError(msg)
