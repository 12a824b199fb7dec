"""The TFile format of aggregated logs, YARN's default: one record per container, its log files one after another.

References
----------
`org.apache.hadoop.io.file.tfile.TFile` and `org.apache.hadoop.yarn.logaggregation.AggregatedLogFormat` of Hadoop 3.5.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from clusterkit.hadoop.logs.byte_stream import ByteStream
from clusterkit.hadoop.logs.log_file import LogFile
from clusterkit.hadoop.logs.node_file import decompressed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterkit.hadoop.logs.log_file import Selection
    from clusterkit.hadoop.logs.node_file import NodeFile

_MAGIC = bytes.fromhex("d111d36891b5d7b639df414092bae150")
_TRAILER_BYTES = 8 + 4 + len(_MAGIC)
_RESERVED = frozenset({"APPLICATION_ACL", "APPLICATION_OWNER", "VERSION"})


class _Region(NamedTuple):
    """Where a block is, and how its bytes are compressed."""

    start: int
    size: int
    compression: str


class _Block(NamedTuple):
    """A data block and how many records it holds."""

    region: _Region
    records: int


def log_files(file: NodeFile, selection: Selection) -> Iterator[LogFile]:
    """Yield the log files in an aggregated file.

    Raises
    ------
    DamagedLogError
        If the file is no TFile.
    """
    with file.checked():
        for container_id, value in _records(file):
            if container_id not in _RESERVED and selection.takes_container(container_id):
                yield from _of_container(file, container_id, value, selection)
            value.skip_rest()


def _of_container(file: NodeFile, container_id: str, value: ByteStream, selection: Selection) -> Iterator[LogFile]:
    while not value.ended():
        name, size = value.text(), int(value.text())
        content = _Content(file, value, size)
        if selection.takes(container_id, name):
            yield LogFile(container_id, file.name, name, size, file.modified, "AGGREGATED", content.chunks)
        content.finish()


class _Content:
    """The bytes of one log file within a record; what was not read of it is left out."""

    def __init__(self, file: NodeFile, value: ByteStream, size: int) -> None:
        self._file = file
        self._value = value
        self._left = size

    def chunks(self) -> Iterator[bytes]:
        with self._file.checked():
            while self._left and not self._value.ended():  # a log that shrank while it was collected is shorter
                piece = self._value.some(self._left)
                self._left -= len(piece)
                yield piece

    def finish(self) -> None:
        for _ in self.chunks():
            pass


def _records(file: NodeFile) -> Iterator[tuple[str, ByteStream]]:
    """Yield key and value of each record; the value has to be read before the next record is asked for."""
    for block in _blocks(file):
        stream = _opened(file, block.region)
        for _ in range(block.records):
            key = ByteStream(stream.pieces(stream.vlong())).text()
            value = ByteStream(_chunked(stream))
            yield key, value
            value.skip_rest()


def _chunked(stream: ByteStream) -> Iterator[bytes]:
    """Yield a value that is written in chunks, each after its length, which is negative for all but the last."""
    last = False
    while not last:
        size = stream.vlong()
        last = size >= 0
        yield from stream.pieces(abs(size))


def _blocks(file: NodeFile) -> list[_Block]:
    trailer = ByteStream(iter((file.read(file.size - _TRAILER_BYTES, _TRAILER_BYTES),)))
    index_start, major = trailer.number("q"), trailer.number("H")
    trailer.skip(2)
    if trailer.read(len(_MAGIC)) != _MAGIC or major != 1:
        msg = "it is no TFile of version 1"
        raise ValueError(msg)
    metas = _metas(file, index_start)
    regions = _data_regions(_opened(file, metas["BCFile.index"]))
    return _with_counts(regions, _opened(file, metas["TFile.index"]))


def _metas(file: NodeFile, start: int) -> dict[str, _Region]:
    """Return where the meta blocks are, by name."""
    stream = ByteStream(file.pieces(start, file.size - _TRAILER_BYTES - start))
    metas: dict[str, _Region] = {}
    for _ in range(stream.vlong()):
        name, compression = _string(stream), _string(stream)
        metas[name.removeprefix("data:")] = _region(stream, compression)
    return metas


def _data_regions(stream: ByteStream) -> list[_Region]:
    compression = _string(stream)
    return [_region(stream, compression) for _ in range(stream.vlong())]


def _with_counts(regions: list[_Region], stream: ByteStream) -> list[_Block]:
    """Join the data blocks with their numbers of records, which stand beside each block's last key."""
    if not regions:
        return []
    stream.skip(stream.vlong())  # the first key
    blocks = []
    for region in regions:
        entry = ByteStream(stream.pieces(stream.vlong()))
        entry.skip(entry.vlong())  # the block's last key
        blocks.append(_Block(region, entry.vlong()))
        entry.skip_rest()
    return blocks


def _region(stream: ByteStream, compression: str) -> _Region:
    start, size, _ = stream.vlong(), stream.vlong(), stream.vlong()
    return _Region(start, size, compression)


def _opened(file: NodeFile, region: _Region) -> ByteStream:
    return ByteStream(decompressed(file.pieces(region.start, region.size), region.compression))


def _string(stream: ByteStream) -> str:
    return stream.read(stream.vlong()).decode()
