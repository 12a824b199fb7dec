from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from clusterkit.applications.following import Follower, ends_of_logs
from clusterkit.errors import ApplicationError, ClusterError

FIRST, SECOND = "container_1_0001_01_000001", "container_1_0001_02_000001"


@dataclass
class FakeNode:
    """A NodeManager: the standard output of containers, until it is collected."""

    written: dict[str, bytes] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    away: bool = False

    def logs(self, container_id):
        """List the log files of a container."""
        self._answer()
        found = self.written.get(container_id)
        return () if found is None else (SimpleNamespace(name="stdout", size=len(found)),)

    def log(self, container_id, name, *, start=0, size_hint=0):
        """Yield a log file from an offset on, in small pieces."""
        self._answer()
        data = self.written[container_id][start:]
        for place in range(0, len(data), 3):
            yield data[place : place + 3]

    def container(self, container_id):
        """Return what the node knows of a container."""
        self._answer()
        known = container_id in self.written
        return SimpleNamespace(exit_code=self.exits.get(container_id)) if known else None

    def _answer(self):
        if self.away:
            raise ClusterError("the node is away", why="no answer", mend="wait")


@dataclass
class FakeCluster:
    """A cluster of one node, and the logs that were collected from it."""

    node: FakeNode
    collected: dict[str, bytes] = field(default_factory=dict)

    @property
    def logs(self):
        """Stand for the collected logs as well."""
        return self

    def node_manager(self, address):
        """Return the only node."""
        return self.node

    def files(self, application_id, *, containers, names):
        """Yield what was collected of a container."""
        (container_id,) = containers
        if container_id not in self.collected:
            raise ApplicationError("there is no log of stdout", why="none", mend="none")
        data = self.collected[container_id]
        yield SimpleNamespace(name="stdout", chunks=lambda: iter([data[:4], data[4:]]))


def report(container_id: str | None = FIRST):
    return SimpleNamespace(id="application_1_0001", am_container_id=container_id, am_http_address="node:8042")


@pytest.fixture
def node():
    return FakeNode({FIRST: b""})


def test_output_is_copied_as_it_grows(node):
    """Each look copies what came since the last one; bytes are not touched, and a last line needs no end."""
    copied: list[bytes] = []
    follower = Follower(FakeCluster(node), copied.append)

    seen = []
    for addition in (b"one\n", b"", b"caf\xe9 ", b"no end"):
        node.written[FIRST] += addition
        follower.follow(report())
        seen.append(b"".join(copied))
    node.exits[FIRST] = 3
    follower.finish(report())

    assert seen == [b"one\n", b"one\n", b"one\ncaf\xe9 ", b"one\ncaf\xe9 no end"]
    assert b"".join(copied) == b"one\ncaf\xe9 no end"


def test_rest_comes_from_hdfs_once_it_left_the_node(node):
    """What was read on the node is not read again, what was not is not lost."""
    copied: list[bytes] = []
    cluster = FakeCluster(node, {FIRST: b"one\ntwo\nthree\n"})
    follower = Follower(cluster, copied.append)
    node.written[FIRST] = b"one\ntw"
    follower.follow(report())

    node.written.clear()
    follower.finish(report())
    follower.finish(report())

    assert b"".join(copied) == b"one\ntwo\nthree\n"


def test_node_that_is_away(node):
    """A node that does not answer is no error while the application runs; the end comes from HDFS."""
    copied: list[bytes] = []
    follower = Follower(FakeCluster(node, {FIRST: b"all of it"}), copied.append)
    node.away = True

    follower.follow(report())
    assert copied == []
    follower.finish(report())

    assert b"".join(copied) == b"all of it"


def test_second_attempt_follows_the_first(node):
    """The output of an attempt that failed is whole before that of the next one begins."""
    copied: list[bytes] = []
    follower = Follower(FakeCluster(node), copied.append)
    node.written[FIRST] = b"first "
    follower.follow(report())

    node.written |= {FIRST: b"first attempt\n", SECOND: b"second "}
    node.exits[FIRST] = 1
    follower.follow(report(SECOND))
    node.written[SECOND] = b"second attempt\n"
    node.exits[SECOND] = 0
    follower.finish(report(SECOND))

    assert b"".join(copied) == b"first attempt\nsecond attempt\n"


def test_application_that_never_started(node):
    """Without a driver there is nothing to copy."""
    copied: list[bytes] = []
    follower = Follower(FakeCluster(node), copied.append)

    follower.follow(report(None))
    follower.finish(report(None))

    assert copied == []


def test_output_that_is_lost_is_said():
    """When neither node nor HDFS has the end, an error says so instead of silence."""

    class Gone(FakeCluster):
        def files(self, application_id, *, containers, names):
            raise ClusterError("there are no logs in HDFS", why="they were deleted", mend="run it again")

    with pytest.raises(ClusterError, match="no logs in HDFS"):
        Follower(Gone(FakeNode()), [].append).finish(report())


def test_ends_of_logs(node):
    """The end of a log is read from the node, and from HDFS once it is there."""
    node.written[FIRST] = b"0123456789"
    cluster = FakeCluster(node, {FIRST: b"from HDFS"})

    assert ends_of_logs(cluster, report(), size=4) == {"stdout": "6789"}
    node.written.clear()
    assert ends_of_logs(cluster, report(), size=4) == {"stdout": "HDFS"}
    assert ends_of_logs(cluster, report(None)) == {}
