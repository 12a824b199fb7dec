"""Aggregated log files that Hadoop's own code wrote, read and printed; and the same files, damaged."""

from __future__ import annotations

import dataclasses
import io
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterkit.hadoop.logs import indexed, tfile
from clusterkit.hadoop.logs.byte_stream import ByteStream, modified_utf8
from clusterkit.hadoop.logs.log_file import DamagedLogError, LogFile, Selection, grep, write
from clusterkit.hadoop.logs.node_file import NodeFile, decompressed

FIXTURES = Path(__file__).parent / "fixtures" / "logs"
APPLICATION = "application_1700000000000_0007"
CONTAINER = "container_1700000000000_0007_01_{:06}"
MODIFIED = datetime(2023, 11, 14, 22, 15, 23, 456000, UTC)
FORMATS = ["tfile-none", "tfile-gz", "indexed-none", "indexed-gz"]
EVERYTHING = Selection()


@dataclasses.dataclass
class Bytes:
    """Content that is handed out in pieces of a given size, and remembers what was asked for."""

    data: bytes
    piece: int = 7
    asked: list[tuple[int, int | None]] = dataclasses.field(default_factory=list)

    def read_range(self, start, size=None):
        """Return a part, at once."""
        self.asked.append((start, size))
        return self.data[start:] if size is None else self.data[start : start + size]

    def chunks(self, start=0, size=None):
        """Yield a part, in pieces."""
        data = self.read_range(start, size)
        return (data[place : place + self.piece] for place in range(0, len(data), self.piece))


def node_file(data, name="node1.example_45454", piece=7):
    return NodeFile(f"/tmp/logs/{name}", len(data), MODIFIED, Bytes(data, piece))


def read(kind, file, selection=EVERYTHING, end=None):
    if kind.startswith("tfile"):
        return tfile.log_files(file, selection)
    return indexed.log_files(file, APPLICATION, selection, end)


@pytest.fixture
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize("kind", FORMATS)
def test_printed_as_hadoop_prints_it(kind):
    """What is printed of a file is what Hadoop's own reader prints, byte for byte."""
    file = node_file((FIXTURES / kind).read_bytes())
    out = io.BytesIO()
    count = write(read(kind, file), out)
    assert out.getvalue() == (FIXTURES / f"{kind}.printed").read_bytes()
    assert count == 17


@pytest.mark.parametrize("kind", FORMATS)
def test_selection(kind):
    """Only the wanted containers and names are yielded, whole, and what is between them is left out."""
    file = node_file((FIXTURES / kind).read_bytes())
    selection = Selection((CONTAINER.format(1), CONTAINER.format(2)), ("na me*", "bytes"))
    found = {(log.container_id, log.name): b"".join(log.chunks()) for log in read(kind, file, selection)}
    assert found == {
        (CONTAINER.format(1), "na meü😀"): b"unfinished",
        (CONTAINER.format(2), "bytes"): b"\xff\xfe\0\r\n\xc3",
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_contents_need_not_be_read(kind):
    """The list of log files with their sizes is the same when none of them is read."""
    file = node_file((FIXTURES / kind).read_bytes())
    listed = [(log.container_id, log.name, log.size) for log in read(kind, file)]
    whole = [(log.container_id, log.name, len(b"".join(log.chunks()))) for log in read(kind, file)]
    assert listed == whole
    assert len(listed) == 17


@pytest.mark.parametrize("kind", FORMATS)
@given(data=st.data())
def test_damage_is_named(kind, data):
    """A file with any byte changed, or cut anywhere, is read or refused with its name: nothing else happens."""
    raw = bytearray((FIXTURES / kind).read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[place] ^= data.draw(st.integers(1, 255))
    else:
        del raw[place:]
    try:
        write(read(kind, node_file(bytes(raw))), io.BytesIO())
    except DamagedLogError as exc:
        assert "/tmp/logs/node1.example_45454" in exc.what  # noqa: PT017 - either is right


@pytest.mark.parametrize("kind", ["tfile", "indexed"])
def test_empty_file_says_why(kind):
    """A file of no bytes is refused with the usual cause."""
    with pytest.raises(DamagedLogError) as caught:
        list(read(kind, node_file(b"")))
    assert (caught.value.what, caught.value.why) == (
        "the logs in /tmp/logs/node1.example_45454 cannot be read",
        "the file is empty: its node was stopped while it collected the logs",
    )


def test_other_application_is_refused():
    """An indexed file that carries another application's digest is not taken for this one's."""
    file = node_file((FIXTURES / "indexed-none").read_bytes())
    with pytest.raises(DamagedLogError, match="cannot be read") as caught:
        list(indexed.log_files(file, "application_1700000000000_0008", EVERYTHING, None))
    assert caught.value.why == (
        "the file is damaged: it does not end with the digest of application_1700000000000_0008"
    )


def test_part_that_is_being_appended_is_left_out():
    """With a checksum file, an indexed file is read up to where that one says it is whole."""
    raw = (FIXTURES / "indexed-none").read_bytes()
    name = b"node1.example_45454_1700000123456"
    checksum = node_file(len(name).to_bytes(4, "big") + name + len(raw).to_bytes(8, "big"))
    assert indexed.whole_until(checksum) == (name.decode(), len(raw))
    appended = node_file(raw + b"\nhalf of the next part", name.decode())
    whole = [log.name for log in indexed.log_files(node_file(raw), APPLICATION, EVERYTHING, None)]
    assert [log.name for log in indexed.log_files(appended, APPLICATION, EVERYTHING, len(raw))] == whole
    assert list(indexed.log_files(appended, APPLICATION, EVERYTHING, 0)) == []


def test_unknown_compression_is_named():
    """A compression that is not known is refused by its name."""
    with pytest.raises(ValueError, match="'lzo'"):
        decompressed(iter(()), "lzo")


def test_large_file_is_not_held():
    """Of a large file only its end is read at once; log files are read where they are, in pieces."""
    raw = (FIXTURES / "indexed-none").read_bytes()
    padding = b"\0" * (3 * 1024 * 1024)
    content = Bytes(padding + raw, piece=65536)
    file = NodeFile("/tmp/logs/n", len(content.data), MODIFIED, content)
    assert file.read(len(padding), 4) == raw[:4]
    assert b"".join(file.pieces(0, 100)) == bytes(100)
    assert content.asked == [(len(content.data) - 1024 * 1024, 1024 * 1024), (0, 100)]


def test_grep_tells_log_and_line():
    """A match carries the log's container, node and name, and the line with its number, whatever its bytes are."""
    log = LogFile("c1", "n1", "stdout", 9, None, "LOCAL", lambda: iter((b"a\nb\xff", b"b\nab", b"\nlast b")))
    assert [(match.name, match.line, match.text) for match in grep([log], "^b|b$")] == [
        ("stdout", 2, b"b\xffb"),
        ("stdout", 3, b"ab"),
        ("stdout", 4, b"last b"),
    ]


def test_write_goes_on_after_damage():
    """The logs after one that cannot be read are printed, and then its error is raised."""

    def broken():
        yield b"one"
        raise DamagedLogError("the logs in /x cannot be read", why="cut", mend="none")

    logs = [
        LogFile("c1", "n1", "stdout", 9, None, "AGGREGATED", broken),
        LogFile("c1", "n1", "stderr", 3, None, "AGGREGATED", lambda: iter((b"two",))),
    ]
    out = io.BytesIO()
    with pytest.raises(DamagedLogError, match="/x"):
        write(logs, out)
    assert b"LogContents:\ntwo\nEnd of LogType:stderr" in out.getvalue()


@given(st.text(max_size=50))
def test_modified_utf8(text):
    """Java's encoding of any text is read back, NUL and characters beyond the first plane included."""
    units = text.encode("utf-16-be")
    encoded = b"".join(
        chr(unit).encode("utf-8", "surrogatepass") if unit else b"\xc0\x80"
        for unit in (int.from_bytes(units[place : place + 2], "big") for place in range(0, len(units), 2))
    )
    assert modified_utf8(encoded) == text


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("00", 0),
        ("7f", 127),
        ("cc80", 128),
        ("e0", -32),
        ("cbdf", -33),
        ("dfff", 5119),
        ("a81400", 5120),
        ("b800", -5120),
        ("a7ebff", -5121),
        ("b7ffff", 1048575),
        ("90100000", 1048576),
        ("980000", -1048576),
        ("8fefffff", -1048577),
        ("97ffffff", 134217727),
        ("8308000000", 134217728),
        ("83f7ffffff", -134217729),
        ("837fffffff", 2147483647),
        ("840080000000", 2147483648),
        ("85008000000000", 549755813888),
        ("8600800000000000", 140737488355328),
        ("870080000000000000", 36028797018963968),
        ("877fffffffffffffff", 9223372036854775807),
        ("878000000000000000", -9223372036854775808),
    ],
)
def test_variable_length_numbers(encoded, value):
    """Numbers of every length are read as TFile writes them."""
    assert ByteStream(iter((bytes.fromhex(encoded),))).vlong() == value
