"""HDFS, real: what is written is whole, and what is refused is explained."""

from __future__ import annotations

import io
import os
import signal
import socket
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clusterkit.errors import ClusterError, StoreError
from clusterkit.hadoop.cluster import Cluster
from clusterkit.hadoop.configuration import Configuration
from clusterkit.hadoop.hdfs import (
    ContentSummary,
    DeniedError,
    Hdfs,
    MissingPathError,
    PathExistsError,
)

HOSTILE = "a b'c\"d;e&f<g>%41#? é 日本"


@pytest.fixture(scope="module")
def client(cluster):
    return cluster.cluster()


@pytest.fixture
def hdfs(client):
    return client.hdfs


@pytest.fixture
def home(hdfs):
    """Return a directory of our own with a hostile name, deleted at the end."""
    directory = f"/tmp/test-hdfs-{time.time_ns()}/{HOSTILE}"
    hdfs.mkdirs(directory)
    yield directory
    hdfs.delete(directory.rpartition("/")[0], recursive=True)


def names(hdfs, directory):
    return [entry.name for entry in hdfs.list(directory)]


def test_written_is_read(hdfs, home):
    """What is written is read back, whole or in part, and listed with its size, mode and owner."""
    written = hdfs.write(f"{home}/new/file", [b"hello ", b"", b"world"], mode=0o640)
    assert (written.path, written.size, written.mode, written.directory) == (f"{home}/new/file", 11, 0o640, False)
    assert hdfs.status(f"{hdfs.uri}{home}/new/file") == written
    assert hdfs.read(written.path) == b"hello world"
    assert (hdfs.read(written.path, start=6), hdfs.read(written.path, start=4, size=3)) == (b"world", b"o w")
    assert (hdfs.read(written.path, start=11), hdfs.read(written.path, start=99)) == (b"", b"")
    assert names(hdfs, f"{home}/new") == ["file"]
    assert list(hdfs.list(written.path)) == [written]


def test_empty_file(hdfs, home):
    """A file of no bytes is written and read."""
    assert hdfs.write(f"{home}/empty", b"").size == 0
    assert (hdfs.read(f"{home}/empty"), list(hdfs.chunks(f"{home}/empty"))) == (b"", [])


def test_an_existing_path_is_not_overwritten_unasked(hdfs, home):
    """A path that exists is refused before anything is sent; asked to, it is replaced in one step."""
    hdfs.write(f"{home}/file", b"one")
    sent = []

    def content():
        sent.append(True)
        yield b"two"

    with pytest.raises(PathExistsError) as caught:
        hdfs.write(f"{home}/file", content())
    assert (caught.value.uri, sent) == (f"{hdfs.uri}{home}/file", [])
    hdfs.write(f"{home}/file", content(), overwrite=True)
    assert (hdfs.read(f"{home}/file"), names(hdfs, home)) == (b"two", ["file"])


def test_failed_write_leaves_nothing(hdfs, home):
    """When the source of a file breaks, nothing of it is left, and an older file stays as it was."""
    hdfs.write(f"{home}/file", b"old")

    def broken():
        yield b"half"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hdfs.write(f"{home}/file", broken(), overwrite=True)
    assert (hdfs.read(f"{home}/file"), names(hdfs, home)) == (b"old", ["file"])


def test_nothing_is_seen_before_it_is_whole(hdfs, home):
    """While a file is written its path does not exist."""
    seen = []

    def content():
        seen.append(hdfs.exists(f"{home}/file"))
        yield b"x"
        seen.append(hdfs.exists(f"{home}/file"))

    hdfs.write(f"{home}/file", content())
    assert (seen, hdfs.exists(f"{home}/file")) == ([False, False], True)


def test_put_and_get(hdfs, home, tmp_path):
    """A file of many blocks of bytes travels both ways unchanged, and its progress is told to the end."""
    data = bytes(range(256)) * 40_000
    (tmp_path / "source").write_bytes(data)
    told = []
    hdfs.put(tmp_path / "source", f"{home}/file", progress=lambda done, total: told.append((done, total)))
    assert told == [(4 * 1024 * 1024, len(data)), (8 * 1024 * 1024, len(data)), (len(data), len(data))]
    hdfs.get(f"{home}/file", tmp_path / HOSTILE)
    assert (tmp_path / HOSTILE).read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([HOSTILE, "source"])


def test_reader_is_a_file(hdfs, home):
    """An open file can be read, moved in and buffered as any other."""
    hdfs.write(f"{home}/file", b"0123456789")
    with hdfs.open(f"{home}/file") as file:
        assert (file.read(3), file.tell(), file.seek(-2, io.SEEK_END), file.read()) == (b"012", 3, 8, b"89")
        assert (file.seek(1), file.seek(1, io.SEEK_CUR), file.read_range(5, 2), file.tell()) == (1, 2, b"56", 2)
        assert io.BufferedReader(file).read(4) == b"2345"


def test_delete_rename_mode_and_summary(hdfs, home):
    """Files and directories are renamed, deleted, counted and given modes."""
    hdfs.write(f"{home}/a/one", b"1")
    hdfs.write(f"{home}/a/two", b"22")
    assert hdfs.summary(f"{home}/a") == ContentSummary(3, 2, 1, 3, None, None)
    hdfs.rename(f"{home}/a", f"{home}/b")
    hdfs.set_mode(f"{home}/b", 0o700)
    assert (hdfs.status(f"{home}/b").mode, names(hdfs, f"{home}/b")) == (0o700, ["one", "two"])
    assert [entry.name for entry in hdfs.list(home, recursive=True)] == ["b", "one", "two"]
    assert (hdfs.delete(f"{home}/b/one"), hdfs.delete(f"{home}/b/one")) == (True, False)


def test_touch_and_replication(hdfs, home):
    """A file's time is set to now, its access time is not; the number of its copies is set."""
    hdfs.write(f"{home}/file", b"x")
    before = hdfs.status(f"{home}/file")
    hdfs.touch(f"{home}/file")
    hdfs.set_replication(f"{home}/file", 2)
    after = hdfs.status(f"{home}/file")
    assert after.modified > before.modified
    assert (after.size, before.replication, after.replication) == (1, 1, 2)
    with pytest.raises(MissingPathError):
        hdfs.touch(f"{home}/none")


def test_shared_directories(hdfs, home):
    """In a shared directory everybody may write, and take away only what is his; those above it are not shared."""
    hdfs.share(f"{home}/above/shared")
    hdfs.share(f"{home}/above/shared")
    assert [hdfs.status(f"{home}/above{path}").mode for path in ("", "/shared")] == [0o755, 0o1777]
    assert hdfs.superuser == hdfs.user


def test_refusals_name_path_cause_and_mend(hdfs, home):
    """Each refusal is an error of its kind with the whole path and a next step."""
    hdfs.write(f"{home}/file", b"x")
    hdfs.write(f"{home}/dir/file", b"x")
    found = {}
    for name, kind, action in [
        ("missing", MissingPathError, lambda: hdfs.status(f"{home}/none")),
        ("missing to read", MissingPathError, lambda: hdfs.read(f"{home}/none")),
        ("missing to list", MissingPathError, lambda: list(hdfs.list(f"{home}/none"))),
        ("missing to rename", MissingPathError, lambda: hdfs.rename(f"{home}/none", f"{home}/x")),
        ("directory", StoreError, lambda: hdfs.read(home)),
        ("below a file", StoreError, lambda: hdfs.mkdirs(f"{home}/file/x")),
        ("not empty", StoreError, lambda: hdfs.delete(f"{home}/dir")),
        ("exists", PathExistsError, lambda: hdfs.rename(f"{home}/file", f"{home}/dir/file")),
    ]:
        with pytest.raises(kind) as caught:
            action()
        assert str(home) in caught.value.what
        found[name] = caught.value.why
    assert found == {
        "missing": "there is no such file or directory",
        "missing to read": "there is no such file or directory",
        "missing to list": "there is no such file or directory",
        "missing to rename": "there is no such file or directory",
        "directory": f"Path is not a file: {home}",
        "below a file": f"{home}/file (is not a directory)",
        "not empty": "the directory is not empty",
        "exists": "the path exists already",
    }


@pytest.mark.parametrize("path", ["relative/file", "", "s3a://bucket/x", "hdfs://other:1/x", "file:///etc/passwd"])
def test_path_of_another_file_system(hdfs, path):
    """A path that is relative, or on another file system, is refused before HDFS is asked."""
    with pytest.raises(StoreError, match="is no path of hdfs://"):
        hdfs.status(path)


def test_permission_denied(client, home, monkeypatch):
    """Without the right to write, the refusal names who asked, for what, and whose it is."""
    monkeypatch.setenv("HADOOP_USER_NAME", "mallory")
    stranger = Cluster.from_directory("mine", client.conf_dir).hdfs
    with pytest.raises(DeniedError) as caught:
        stranger.write(f"{home}/file", b"x")
    assert "user=mallory, access=WRITE" in caught.value.why


def test_parquet_through_arrow(hdfs, home):
    """Pyarrow writes Parquet to HDFS and reads it back."""
    table = pa.table({"n": range(100_000), "s": [f"é{n}" for n in range(100_000)]})
    file_system = hdfs.arrow_filesystem()
    pq.write_table(table, f"{home}/table.parquet", filesystem=file_system)
    assert pq.read_table(f"{home}/table.parquet", filesystem=file_system).equals(table)


def test_many_threads_share_it(hdfs, home):
    """One client may be used from several threads at once."""
    failures = []

    def work(number):
        try:
            hdfs.write(f"{home}/{number}", b"%d" % number * 1000)
            assert hdfs.read(f"{home}/{number}") == b"%d" % number * 1000
        except BaseException as exc:  # noqa: BLE001 - told below
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failures, len(names(hdfs, home))) == ([], 8)


def of(uri, **more):
    return Hdfs(Configuration.from_mapping({"fs.defaultFS": uri, **more}))


def test_nothing_listens():
    """Where nothing listens, host and port are named within 5 s."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(ClusterError) as caught:
        of(f"hdfs://127.0.0.1:{port}").status("/")
    assert time.monotonic() - started < 5
    assert (caught.value.host, caught.value.port, caught.value.what) == (
        "127.0.0.1",
        port,
        f"HDFS at 127.0.0.1:{port} does not answer",
    )


def test_accepted_but_never_answered():
    """Where a connection is accepted and nothing is ever answered, that is said within 5 s."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        with pytest.raises(ClusterError) as caught:
            of(f"hdfs://127.0.0.1:{server.getsockname()[1]}").status("/")
    assert time.monotonic() - started < 5
    assert caught.value.why == "it accepted the connection, but did not answer in time"


def test_unknown_host():
    """A host that is not known is named within 5 s."""
    started = time.monotonic()
    with pytest.raises(ClusterError) as caught:
        of("hdfs://namenode.invalid:8020").status("/")
    assert time.monotonic() - started < 5
    assert (caught.value.host, caught.value.port) == ("namenode.invalid", 8020)


def test_one_of_a_pair_is_dead(hdfs, client):
    """Of two NameNodes the living one is asked, whichever is named first."""
    living = client.configuration.namenodes[0]
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = server.getsockname()[1]
    pair = {"dfs.nameservices": "ns", "dfs.namenode.rpc-address.ns.a": f"127.0.0.1:{dead}"}
    pair["dfs.namenode.rpc-address.ns.b"] = f"{living.host}:{living.port}"
    for order in ("a,b", "b,a"):
        assert of("hdfs://ns", **pair, **{"dfs.ha.namenodes.ns": order}).status("/").directory


def test_none_of_a_pair_answers():
    """When neither of a pair can be reached, both are named within 5 s."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as server:
            ports.append(server.getsockname()[1])
    pair = {"dfs.nameservices": "ns", "dfs.ha.namenodes.ns": "a,b"}
    pair |= {f"dfs.namenode.rpc-address.ns.{name}": f"127.0.0.1:{port}" for name, port in zip("ab", ports, strict=True)}
    started = time.monotonic()
    with pytest.raises(ClusterError) as caught:
        of("hdfs://ns", **pair).status("/")
    assert time.monotonic() - started < 5
    assert caught.value.what == f"HDFS at 127.0.0.1:{ports[0]} and 127.0.0.1:{ports[1]} does not answer"


def test_interrupted_call_ends_at_once():
    """Ctrl-C ends a call that waits for HDFS."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        hdfs = of(f"hdfs://127.0.0.1:{server.getsockname()[1]}")
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            hdfs.status("/")
        assert time.monotonic() - started < 2
