"""The parts of the embedded cluster that need no daemon."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from clusterkit.embedded import changes, failure, intent, logs, ports, state
from clusterkit.embedded.environment import exports
from clusterkit.embedded.layout import Layout, make_private, write_private
from clusterkit.embedded.marks import Marked
from clusterkit.embedded.plan import plan
from clusterkit.errors import ClusterError, SpecError
from clusterkit.hadoop.java import Java
from clusterkit.processes import ProcessIdentity
from clusterkit.specs.cluster import ClusterSpec

JAVA = Java(Path("/opt/java"), "17.0.1", "17.0.1+1")


@pytest.fixture
def place(tmp_path) -> Layout:
    """Return where a cluster may lie."""
    return Layout(tmp_path / "clusters", "default")


def _settled(place, spec=None, remembered=None, running=()):
    return intent.settle(place, spec or ClusterSpec(), remembered, running=running, java=JAVA, lib=Path("/opt/lib"))


def _runs(planned, **started_s: float) -> list[Marked]:
    """Return marks of daemons that run as planned, by name (hyphens as underscores) and start time."""
    names = {name.replace("_", "-"): at for name, at in started_s.items()}
    return [
        Marked(name, ProcessIdentity(int(at), at), planned.configuration(planned.launch(name)))
        for name, at in names.items()
    ]


def test_nothing_runs_all_is_started(place):
    """From nothing, everything is started, the masters first."""
    found = changes.compare(plan(place, _settled(place)), [])
    assert ([launch.name for launch in found.start], found.stay, found.end, found.none) == (
        ["namenode", "resourcemanager", "datanode-1", "nodemanager-1"],
        (),
        (),
        False,
    )


def test_only_what_differs_is_ended(place):
    """Daemons of another configuration, daemons too many and second processes end; the rest stays."""
    settled = _settled(place, ClusterSpec(nodes=2))
    planned = plan(place, settled)
    running = _runs(planned, namenode=10, datanode_1=11, datanode_2=12, nodemanager_2=13)
    changed = Marked("resourcemanager", ProcessIdentity(14, 14.0), "something else")
    spare = Marked("datanode-9", ProcessIdentity(15, 15.0), "whatever")
    twin = Marked("namenode", ProcessIdentity(16, 16.0), running[0].configuration)
    found = changes.compare(planned, [twin, changed, spare, *running])
    assert found.stay == tuple(running)
    assert found.end == (changed, spare, twin)
    assert [launch.name for launch in found.start] == ["resourcemanager", "nodemanager-1"]
    assert (found.restarted, found.ended) == (("resourcemanager",), ("datanode-9", "namenode"))


def test_ports_stay(place):
    """Ports that were picked stay while they are free, and are picked anew when another program took one."""
    first = _settled(place)
    assert _settled(place, remembered=first).ports == first.ports
    taken = first.ports["namenode"]["rpc"]
    with socket.create_server(("127.0.0.1", taken)):
        again = _settled(place, remembered=first)
        held = _settled(place, remembered=first, running={"namenode"})
    assert taken not in again.ports["namenode"].values()
    assert {name: again.ports[name] for name in again.ports if name != "namenode"} == {
        name: first.ports[name] for name in first.ports if name != "namenode"
    }
    assert held.ports == first.ports


def test_ports_of_neighbours_are_left_alone(place, monkeypatch):
    """A cluster takes no port that another one remembers, though nothing may listen there now."""
    neighbour = Layout(place.clusters, "neighbour")
    remembered = _settled(neighbour)
    state.save(neighbour, remembered)
    seen: list[set[int]] = []
    monkeypatch.setattr(ports, "pick", lambda _, count, *, taken: (seen.append(set(taken)), *range(count))[1:])
    _settled(place)
    assert {port for mine in remembered.ports.values() for port in mine.values()} <= seen[0]


def test_memory_is_worked_out_again_for_other_nodes(place, monkeypatch):
    """What a node gets stays with the same nodes, and is worked out again for more of them."""
    monkeypatch.setattr(intent, "machine_memory_mib", lambda: 24 * 1024)
    one = _settled(place)
    monkeypatch.setattr(intent, "machine_memory_mib", lambda: 12 * 1024)
    assert _settled(place, remembered=one).memory_mib == one.memory_mib == 17408
    assert _settled(place, ClusterSpec(nodes=2), remembered=one).memory_mib == 3840


@pytest.mark.parametrize("name", ["with space", "quo'te", "a,b", "a:b", "${x}", "new\nline"])
def test_place_that_hadoop_cannot_work_in_is_refused(tmp_path, name):
    """A directory that Hadoop would misread is refused before anything is made in it."""
    layout = Layout(tmp_path / name, "default")
    with pytest.raises(ClusterError, match="cannot lie in") as caught:
        _settled(layout)
    assert "data_dir" in caught.value.mend
    assert not (tmp_path / name).exists()


def test_state_round_trip(place):
    """What is remembered is read back as it was, and for nobody else."""
    settled = _settled(place, ClusterSpec(nodes=3, queues={"a": 40, "b": 60}))
    assert state.load(place) is None
    state.save(place, settled)
    assert state.load(place) == settled
    assert stat.S_IMODE(place.state.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.root.stat().st_mode) == 0o700


def test_damaged_state_is_said(place):
    """A damaged file is named, with what to do about it."""
    make_private(place.root)
    place.state.write_text("{")
    with pytest.raises(ClusterError, match="cannot be read") as caught:
        state.load(place)
    assert str(place.state) in caught.value.why


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    """A write that fails half-way leaves the file as it was, and nothing beside it."""
    path = tmp_path / "file"
    write_private(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_private(path, b"new")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()} == {"file": b"old"}


_LOG = """\
2026-01-01 00:00:00,000 INFO org.apache.hadoop.X: starting
2026-01-01 00:00:01,000 WARN org.apache.hadoop.X: unlikely
2026-01-01 00:00:02,000 ERROR org.apache.hadoop.hdfs.DataNode: RECEIVED SIGNAL 15: SIGTERM
2026-01-01 00:00:03,000 ERROR org.apache.hadoop.hdfs.DataNode: Exception in secureMain
java.io.IOException: Incompatible clusterIDs in /data
\tat org.apache.hadoop.hdfs.DataNode.main(DataNode.java:1)
Caused by: java.lang.RuntimeException: deeper
/************************************************************
SHUTDOWN_MSG: Shutting down DataNode at vm/127.0.0.1
************************************************************/
"""


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            _LOG,
            [
                "DataNode: Exception in secureMain",
                "java.io.IOException: Incompatible clusterIDs in /data",
                "Caused by: java.lang.RuntimeException: deeper",
            ],
        ),
        ("2026-01-01 00:00:01,000 WARN a.B: odd\n2026-01-01 00:00:02,000 INFO a.B: fine\n", ["B: odd"]),
        ("2026-01-01 00:00:02,000 INFO a.B: one\n2026-01-01 00:00:02,000 INFO a.B: two\n", ["B: two"]),
        ("Error: Could not find or load main class a.B\n", ["Error: Could not find or load main class a.B"]),
        ("", []),
    ],
)
def test_lines_that_mean_something(place, text, lines):
    """Errors and causes are told without the noise around them; warnings, or what stands last, where there are none."""
    make_private(place.logs)
    place.log_of("datanode-1").write_text(text)
    assert failure.meaningful_lines(place, "datanode-1", since={}) == lines


def test_lines_from_before_are_not_told(place):
    """What a log held before this start is not told."""
    make_private(place.logs)
    log = place.log_of("datanode-1")
    log.write_text("2026-01-01 00:00:00,000 ERROR a.B: yesterday\n")
    before = failure.log_sizes(place, "datanode-1")
    with log.open("a") as file:
        file.write("2026-01-02 00:00:00,000 ERROR a.B: today\n")
    assert failure.meaningful_lines(place, "datanode-1", since=before) == ["B: today"]


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("java.net.BindException: Address already in use", "it picks another port"),
        ("java.io.IOException: No space left on device", "free space on the disk"),
        ("java.lang.OutOfMemoryError: Java heap space", "free memory"),
        ("java.io.IOException: Incompatible clusterIDs in /x", "down --name default --purge"),
        ("java.lang.UnsupportedClassVersionError: x", "java_home"),
        ("java.lang.IllegalStateException: x", "clusterkit cluster logs datanode-1 --name default"),
    ],
)
def test_next_step(place, line, step):
    """Each known cause of a death has its own next step, and every other one the log."""
    make_private(place.logs)
    place.output_of("datanode-1").write_text(line + "\n")
    assert step in failure.died(place, "datanode-1", since={}).mend


def test_tail_and_follow(place):
    """The last lines are those of the file, and what is added is told as it comes, across a new file of that name."""
    state.save(place, _settled(place))
    make_private(place.logs)
    log = place.log_of("namenode")
    log.write_text("".join(f"line {number} of a log\n" for number in range(9000)))
    assert logs.tail(place, "namenode", 2) == ["line 8998 of a log", "line 8999 of a log"]
    assert logs.tail(place, "namenode", 0) == []
    assert logs.tail(place, "datanode-1", 5) == []
    following = logs.follow(place, ["namenode"])
    with log.open("a") as file:
        file.write("added\n")
    assert next(following) == ("namenode", "added")
    log.rename(log.with_suffix(".1"))
    log.write_text("rolled\n")
    assert next(following) == ("namenode", "rolled")


def test_unknown_daemon_is_refused(place):
    """A name that is no daemon's is refused with the nearest one."""
    state.save(place, _settled(place))
    with pytest.raises(SpecError, match="no daemon 'namenod'") as caught:
        logs.check_name(place, "namenod")
    assert caught.value.why.endswith("did you mean namenode?")
    with pytest.raises(ClusterError, match="has no logs"):
        logs.names(Layout(place.clusters, "other"))


@pytest.mark.parametrize("value", ["/plain", "/with space", "/it's", 'a"b$c`d\\e', "two\nlines"])
def test_exports_survive_a_shell(value):
    """A POSIX shell reads back whatever a value holds."""
    import subprocess

    script = exports({"VALUE": value}, "sh") + 'printf %s "$VALUE"'
    assert subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout == value


def test_exports_for_fish():
    """Fish is given its own syntax, in which a quote and a backslash are escaped."""
    assert exports({"A": "it's", "B": "a\\b"}, "fish") == "set -gx A 'it\\'s'\nset -gx B 'a\\\\b'\n"


def test_not_enough_ports_is_said():
    """An address of no machine here is an error that names it."""
    with pytest.raises(ClusterError, match=r"free ports were found on 192\.0\.2\.1"):
        ports.pick("192.0.2.1", 3, taken=())
