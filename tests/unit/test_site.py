from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterkit.hadoop import site as sites
from clusterkit.hadoop.site import Address, Extra, Site

GOLDEN = Path(__file__).with_name("golden") / "site"


def _address(port: int) -> Address:
    return Address("127.0.0.1", port)


def _namenode(number: int) -> sites.NameNode:
    return sites.NameNode(
        id=f"nn{number}",
        rpc=_address(20000 + number),
        http=_address(20010 + number),
        directory=PurePosixPath(f"/srv/my-cluster/namenode-{number}"),
    )


def _datanode(number: int) -> sites.DataNode:
    return sites.DataNode(
        data=_address(21000 + number),
        http=_address(21010 + number),
        ipc=_address(21020 + number),
        directory=PurePosixPath(f"/srv/my-cluster/datanode-{number}"),
        reserved_bytes=1 << 29,
    )


def _resource_manager(number: int) -> sites.ResourceManager:
    return sites.ResourceManager(
        id=f"rm{number}",
        client=_address(22000 + number),
        scheduler=_address(22010 + number),
        tracker=_address(22020 + number),
        admin=_address(22030 + number),
        web=_address(22040 + number),
        state_directory=PurePosixPath(f"/srv/my-cluster/resourcemanager-{number}"),
    )


def _nodemanager(number: int) -> sites.NodeManager:
    directory = PurePosixPath(f"/srv/my-cluster/nodemanager-{number}")
    return sites.NodeManager(
        container=_address(23000 + number),
        localizer=_address(23010 + number),
        web=_address(23020 + number),
        local_directory=directory / "local",
        log_directory=directory / "logs",
        recovery_directory=directory / "recovery",
        memory_mib=5120,
        vcores=8,
        min_free_mib=512,
    )


def _site(masters: int = 1, nodes: int = 1, extra: Extra | None = None) -> Site:
    return Site(
        namenodes=tuple(_namenode(number) for number in range(1, masters + 1)),
        datanodes=tuple(_datanode(number) for number in range(1, nodes + 1)),
        resource_managers=tuple(_resource_manager(number) for number in range(1, masters + 1)),
        nodemanagers=tuple(_nodemanager(number) for number in range(1, nodes + 1)),
        queues=(sites.Queue(name="batch", share=70), sites.Queue(name="adhoc", share=30)),
        user="ada",
        groups=("ada", "analysts"),
        user_home="/home/ada",
        replication=min(nodes, 2),
        application_classpath=("$HADOOP_CONF_DIR", "/srv/lib/*"),
        temporary=PurePosixPath("/srv/my-cluster/tmp"),
        journalnodes=(_JOURNALNODE,) if masters > 1 else (),
        failover_controllers=tuple(_controller(number) for number in range(1, masters + 1)) if masters > 1 else (),
        zookeeper=(_address(25000),) if masters > 1 else (),
        extra=extra or Extra(),
    )


def _controller(number: int) -> sites.FailoverController:
    return sites.FailoverController(namenode=f"nn{number}", rpc=_address(24000 + number))


_JOURNALNODE = sites.JournalNode(
    rpc=_address(24010), http=_address(24011), directory=PurePosixPath("/srv/my-cluster/journalnode")
)
_ONE = _site()
_TWO = _site(masters=2, nodes=3)

_RENDERED = {
    "one/client": sites.client_files(_ONE),
    "one/namenode": sites.daemon_files(_ONE, _ONE.namenodes[0]),
    "one/datanode-1": sites.daemon_files(_ONE, _ONE.datanodes[0]),
    "one/resourcemanager": sites.daemon_files(_ONE, _ONE.resource_managers[0]),
    "one/nodemanager-1": sites.daemon_files(_ONE, _ONE.nodemanagers[0]),
    "two/client": sites.client_files(_TWO),
    "two/namenode-2": sites.daemon_files(_TWO, _TWO.namenodes[1]),
    "two/journalnode": sites.daemon_files(_TWO, _TWO.journalnodes[0]),
    "two/zkfc-1": sites.daemon_files(_TWO, _TWO.failover_controllers[0]),
    "two/datanode-3": sites.daemon_files(_TWO, _TWO.datanodes[2]),
    "two/resourcemanager-1": sites.daemon_files(_TWO, _TWO.resource_managers[0]),
    "two/nodemanager-2": sites.daemon_files(_TWO, _TWO.nodemanagers[1]),
}


@pytest.mark.parametrize("part", _RENDERED)
def test_rendered_files_are_the_golden_ones(part):
    """Every file of every kind of daemon, and of clients, is what stands beside this test, to the byte."""
    expected = {path.name: path.read_text("utf-8") for path in (GOLDEN / part).iterdir()}
    assert _RENDERED[part] == expected


def test_only_what_changes_is_rendered_anew():
    """Another queue changes the ResourceManager's files alone; another node does not touch the nodes there are."""
    queued = dataclasses.replace(_ONE, queues=(sites.Queue(name="all", share=100),))
    changed = {
        name
        for name, part in {
            "namenode": _ONE.namenodes[0],
            "datanode": _ONE.datanodes[0],
            "resourcemanager": _ONE.resource_managers[0],
            "nodemanager": _ONE.nodemanagers[0],
        }.items()
        if sites.daemon_files(queued, part) != sites.daemon_files(_ONE, part)
    }
    assert changed == {"resourcemanager"}
    larger = _site(nodes=2)
    assert sites.daemon_files(larger, larger.nodemanagers[0]) == sites.daemon_files(_ONE, _ONE.nodemanagers[0])
    assert sites.daemon_files(larger, larger.resource_managers[0]) == sites.daemon_files(
        _ONE, _ONE.resource_managers[0]
    )


def test_unknown_properties_pass_through_and_win():
    """What the schema does not know is rendered in the file it names, and wins over what the schema says."""
    extra = Extra(
        core={"io.file.buffer.size": "65536"},
        hdfs={"dfs.replication": "1"},
        yarn={"yarn.acl.enable": "true"},
        capacity_scheduler={"yarn.scheduler.capacity.root.batch.priority": "5"},
        log4j={"log4j.logger.org.example": "DEBUG"},
    )
    site = _site(nodes=2, extra=extra)
    files = sites.daemon_files(site, site.resource_managers[0])
    assert _properties(files["core-site.xml"])["io.file.buffer.size"] == "65536"
    assert _properties(files["hdfs-site.xml"])["dfs.replication"] == "1"
    assert _properties(files["yarn-site.xml"])["yarn.acl.enable"] == "true"
    assert _properties(files["capacity-scheduler.xml"])["yarn.scheduler.capacity.root.batch.priority"] == "5"
    assert files["log4j.properties"].splitlines()[-1] == "log4j.logger.org.example=DEBUG"


_xml_text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r")).map(
    lambda text: "".join(char for char in text if char in "\t\n" or (ord(char) >= 32 and ord(char) not in _NOT_XML))
)
_NOT_XML = {0xFFFE, 0xFFFF}


@given(_xml_text)
def test_hostile_values_survive_xml(value):
    """Whatever a value holds, an XML parser reads the same back, and nothing else appears."""
    site = _site(extra=Extra(core={"some.key": value}))
    text = sites.client_files(site)["core-site.xml"]
    assert _properties(text) == {"fs.defaultFS": "hdfs://127.0.0.1:20001", "some.key": value}


def test_characters_that_xml_cannot_carry_are_left_out():
    """A control character does not make the file unreadable."""
    site = _site(extra=Extra(core={"some.key": "a\0b\x1b]c\ufffe"}))
    assert _properties(sites.client_files(site)["core-site.xml"])["some.key"] == "ab]c"


def test_hostile_values_survive_a_properties_file():
    """Backslashes, line ends and characters beyond ASCII are written as java.util.Properties reads them back."""
    site = _site(extra=Extra(log4j={"x": "a\\b\nc é 😀"}))
    text = sites.client_files(site)["log4j.properties"]
    assert text.splitlines()[-1] == r"x=a\\b\nc \u00e9 \ud83d\ude00"


def _properties(text: str) -> dict[str, str]:
    root = ET.fromstring(text)  # noqa: S314 - our own file
    return {line.findtext("name", ""): line.findtext("value", "") for line in root}
