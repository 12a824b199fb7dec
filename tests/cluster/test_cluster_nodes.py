from __future__ import annotations

import pytest

from clusterkit.embedded import marks
from clusterkit.errors import ClusterError
from clusterkit.specs.cluster import ClusterSpec


@pytest.fixture(scope="module")
def wide(fresh_cluster, data_dir, cluster):
    """Return a cluster of two nodes beside the one that all tests share."""
    made = fresh_cluster("wide", data_dir=data_dir)
    made.up(ClusterSpec(name="wide", nodes=2, memory_mib=1024))
    return made


def test_clusters_stand_side_by_side(wide, cluster):
    """Two clusters share neither process nor port, and each knows its own nodes only."""
    assert {mark.daemon for mark in marks.daemons(wide.layout.root)} == {
        "namenode",
        "resourcemanager",
        *("datanode-1", "datanode-2"),
        *("nodemanager-1", "nodemanager-2"),
    }
    statuses = [each.status() for each in (wide, cluster)]
    ports = [{port for daemon in status.daemons for port in daemon.ports.values()} for status in statuses]
    assert ports[0] & ports[1] == set()
    assert [(status.state, len(status.nodes), status.hdfs.datanodes) for status in statuses] == [
        ("up", 2, 2),
        ("up", 1, 1),
    ]
    assert [node.memory_mib for node in statuses[0].nodes] == [1024, 1024]


def test_node_that_holds_blocks_is_not_taken_away(wide):
    """A smaller cluster is refused while the node that would go holds blocks; nothing is restarted."""
    wide.cluster().hdfs.write("/twice", b"on both nodes")
    before = marks.daemons(wide.layout.root)
    with pytest.raises(ClusterError, match="was not made smaller") as caught:
        wide.up(ClusterSpec(name="wide", nodes=1))
    assert "datanode-2" in caught.value.why
    assert marks.daemons(wide.layout.root) == before


def test_empty_node_is_taken_away(wide):
    """Without blocks on it the second node goes, and the first stays what it was."""
    wide.cluster().hdfs.delete("/twice", recursive=True)
    _wait_until_deleted(wide)
    before = {mark.daemon: mark.process for mark in marks.daemons(wide.layout.root)}
    changes = wide.up(ClusterSpec(name="wide", nodes=1, memory_mib=1024))
    assert set(changes.ended) == {"datanode-2", "nodemanager-2"}
    after = {mark.daemon: mark.process for mark in marks.daemons(wide.layout.root)}
    assert set(after) == {"namenode", "resourcemanager", "datanode-1", "nodemanager-1"}
    assert after["nodemanager-1"] == before["nodemanager-1"]


def _wait_until_deleted(cluster) -> None:
    import time

    deadline = time.monotonic() + 60
    while list(cluster.layout.data.glob("datanode-2/current/BP-*/current/finalized/**/blk_*")):
        assert time.monotonic() < deadline, "the blocks were not deleted"
        time.sleep(0.2)
