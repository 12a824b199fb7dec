from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from clusterkit.embedded import marks
from clusterkit.errors import ClusterError, ClusterkitError
from clusterkit.specs.cluster import ClusterSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.embedded.cluster import EmbeddedCluster

FAILOVER_S = 30.0


@pytest.fixture(scope="module")
def pair(fresh_cluster) -> EmbeddedCluster:
    """Return a running cluster with two NameNodes and two ResourceManagers."""
    cluster = fresh_cluster("pair")
    cluster.up(ClusterSpec(name="pair", ha=True))
    return cluster


def _kill_active(cluster: EmbeddedCluster, kind: str) -> str:
    """Kill -9 the one of two daemons that serves clients, and return its name."""
    active = next(
        daemon for daemon in cluster.status().daemons if daemon.name.startswith(kind) and daemon.turn == "active"
    )
    os.kill(active.pid, signal.SIGKILL)
    return active.name


def _within(timeout_s: float, attempt: Callable[[], object]) -> object:
    """Repeat what fails while nobody serves, until it works or the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return attempt()
        except ClusterkitError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_clients_survive_a_kill_of_the_active_ones(pair):
    """After kill -9 of the active NameNode and the active ResourceManager clients reach the others, and `up` mends."""
    client = pair.cluster()
    client.hdfs.write("/before", b"written to the first")
    dead = {_kill_active(pair, "namenode"), _kill_active(pair, "resourcemanager")}
    assert _within(FAILOVER_S, lambda: client.hdfs.read("/before")) == b"written to the first"
    _within(FAILOVER_S, lambda: client.hdfs.write("/after", b"written to the second"))
    assert _within(FAILOVER_S, lambda: client.resource_manager.info().ha_state) == "ACTIVE"
    assert {daemon.name for daemon in pair.status().daemons if daemon.state == "dead"} == dead
    changes = pair.up()
    assert {launch.name for launch in changes.start} == dead
    assert pair.status().state == "up"
    assert client.hdfs.read("/after") == b"written to the second"


def test_one_cannot_be_made_of_two(pair):
    """A cluster with two NameNodes is not turned into one with one, which could cost data."""
    before = marks.daemons(pair.layout.root)
    with pytest.raises(ClusterError, match="was not changed") as caught:
        pair.up(ClusterSpec(name="pair"))
    assert "two NameNodes" in caught.value.why
    assert marks.daemons(pair.layout.root) == before


def test_down_ends_all_of_it(pair):
    """`down` ends ZooKeeper, JournalNode and failover controllers as well, and what was written is there afterwards."""
    assert len(pair.down()) == 10
    assert marks.daemons(pair.layout.root) == ()
    assert (pair.layout.data_of("namenode-2") / "current" / "VERSION").exists()
