"""One typed schema from which every site file of a cluster is rendered, for its daemons and for its clients.

A `Site` says what a cluster consists of. `client_files` and `daemon_files` turn it into the text of core-site.xml,
hdfs-site.xml, yarn-site.xml, capacity-scheduler.xml and log4j.properties. A property that the schema does not know
goes through `Site.extra`, which names the file it belongs to and wins over what was rendered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import PurePath

NAMESERVICE = "clusterkit"
"""The logical name of an HDFS that has two NameNodes."""

_XML_FORBIDDEN = {code: None for code in range(32) if chr(code) not in "\t\n\r"} | {0xFFFE: None, 0xFFFF: None}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NameNode:
    """One NameNode: its id within the HDFS, its addresses, where it keeps the name space."""

    id: str
    rpc: Address
    http: Address
    directory: PurePath


@dataclass(frozen=True, slots=True, kw_only=True)
class DataNode:
    """One DataNode: its addresses, where it keeps the blocks, how much it leaves free."""

    data: Address
    http: Address
    ipc: Address
    directory: PurePath
    reserved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalNode:
    """One JournalNode, which keeps the edits that two NameNodes share."""

    rpc: Address
    http: Address
    directory: PurePath


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverController:
    """The process that watches one NameNode and makes it the active one when it is its turn."""

    namenode: str
    rpc: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceManager:
    """One ResourceManager: its id, its addresses, where it keeps its applications (unless ZooKeeper does)."""

    id: str
    client: Address
    scheduler: Address
    tracker: Address
    admin: Address
    web: Address
    state_directory: PurePath


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeManager:
    """One NodeManager: its addresses, its directories, and what it may give to containers."""

    container: Address
    localizer: Address
    web: Address
    local_directory: PurePath
    log_directory: PurePath
    recovery_directory: PurePath | None
    memory_mib: int
    vcores: int
    min_free_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One leaf queue below root, with its share of the cluster in percent."""

    name: str
    share: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """Properties that the schema does not know, by the file they belong to. They win over rendered ones."""

    core: Mapping[str, str] = field(default_factory=dict)
    hdfs: Mapping[str, str] = field(default_factory=dict)
    yarn: Mapping[str, str] = field(default_factory=dict)
    capacity_scheduler: Mapping[str, str] = field(default_factory=dict)
    log4j: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A whole cluster, as its configuration files describe it.

    Parameters
    ----------
    namenodes, resource_managers : tuple
        One each, or two that stand in for each other.
    datanodes, nodemanagers, journalnodes, failover_controllers : tuple
        All there are. JournalNodes and failover controllers exist only beside two NameNodes.
    zookeeper : tuple of Address
        Where ZooKeeper listens; needed by two NameNodes or two ResourceManagers.
    zookeeper_root : str
        The node of ZooKeeper under which this cluster keeps what is its own.
    queues : tuple of Queue
        The leaf queues; their shares add up to 100.
    user : str
        The account that runs the daemons, and its groups: looked up once, so that no daemon forks to ask.
    replication : int
        How many DataNodes keep a block.
    application_classpath : tuple of str
        Where containers that bring no Hadoop find its jars.
    temporary : PurePath
        A directory for what daemons write down for a while.
    extra : Extra
        Properties that the schema does not know.
    """

    namenodes: tuple[NameNode, ...]
    datanodes: tuple[DataNode, ...]
    resource_managers: tuple[ResourceManager, ...]
    nodemanagers: tuple[NodeManager, ...]
    queues: tuple[Queue, ...]
    user: str
    groups: tuple[str, ...]
    user_home: str
    replication: int
    application_classpath: tuple[str, ...]
    temporary: PurePath
    journalnodes: tuple[JournalNode, ...] = ()
    failover_controllers: tuple[FailoverController, ...] = ()
    zookeeper: tuple[Address, ...] = ()
    zookeeper_root: str = "/clusterkit"
    extra: Extra = field(default_factory=Extra)

    @property
    def default_fs(self) -> str:
        """The URI of the file system that a path without a scheme means."""
        return f"hdfs://{self.namenodes[0].rpc}" if len(self.namenodes) == 1 else f"hdfs://{NAMESERVICE}"


Part = NameNode | DataNode | JournalNode | FailoverController | ResourceManager | NodeManager
"""A daemon, as the schema describes it."""


def client_files(site: Site) -> dict[str, str]:
    """Render the directory that `HADOOP_CONF_DIR` names, for Spark, hdfs-native and Hadoop's own commands.

    Returns
    -------
    dict of str to str
        The text of each file, by its name.
    """
    yarn = [*_yarn_common(site), *_yarn_client()]
    return {
        "core-site.xml": _xml(_core(site), site.extra.core),
        "hdfs-site.xml": _xml([*_hdfs_common(site), *_hdfs_client(site)], site.extra.hdfs),
        "yarn-site.xml": _xml(yarn, site.extra.yarn),
        "log4j.properties": _properties(_CLIENT_LOG, site.extra.log4j),
    }


def daemon_files(site: Site, daemon: Part) -> dict[str, str]:
    """Render what one daemon reads.

    A daemon is told only what concerns it, so that a change to another one leaves its files as they are.

    Returns
    -------
    dict of str to str
        The text of each file, by its name.
    """
    files = {"core-site.xml": _xml([*_core(site), *_core_daemon(site)], site.extra.core)}
    if isinstance(daemon, ResourceManager | NodeManager):
        files["yarn-site.xml"] = _xml([*_yarn_common(site), *_yarn_daemon(site, daemon)], site.extra.yarn)
        files["hdfs-site.xml"] = _xml([*_hdfs_common(site), _LOG_REPLICATION], site.extra.hdfs)
    else:
        files["hdfs-site.xml"] = _xml([*_hdfs_common(site), *_hdfs_daemon(site, daemon)], site.extra.hdfs)
    if isinstance(daemon, ResourceManager):
        files["capacity-scheduler.xml"] = _xml(_capacity_scheduler(site), site.extra.capacity_scheduler)
    files["log4j.properties"] = _properties(_DAEMON_LOG, site.extra.log4j)
    return files


def daemon_log(extra: Mapping[str, str] | None = None) -> str:
    """Render log4j.properties for a daemon that has no other file of Hadoop's."""
    return _properties(_DAEMON_LOG, extra or {})


@dataclass(frozen=True, slots=True)
class _Property:
    key: str
    value: str
    reason: str = ""


def _core(site: Site) -> list[_Property]:
    return [_Property("fs.defaultFS", site.default_fs)]


def _core_daemon(site: Site) -> list[_Property]:
    groups = ",".join(site.groups)
    rendered = [
        _Property("hadoop.tmp.dir", str(site.temporary)),
        _Property(
            "hadoop.user.group.static.mapping.overrides",
            f"dr.who=;{site.user}={groups}",
            "the groups of the one account that all daemons run as, so that no daemon forks `id` to learn them",
        ),
        _Property("hadoop.http.staticuser.user", site.user, "web pages show what the owner of the cluster may see"),
        _Property("ipc.client.connect.retry.interval", "100", "daemons start together and look for each other often"),
        _Property("ipc.client.connect.max.retries", "300", "for 30 s, as 10 tries a second apart would be too few"),
        _Property("ipc.client.connect.max.retries.on.timeouts", "3"),
        _Property("ipc.ping.interval", "10000", "a peer that died without a word is noticed"),
    ]
    if site.zookeeper:
        rendered += [
            _Property("ha.zookeeper.quorum", _listed(site.zookeeper)),
            _Property("ha.zookeeper.parent-znode", f"{site.zookeeper_root}/hdfs"),
            _Property("ha.zookeeper.session-timeout.ms", "4000", "a dead active NameNode is replaced within seconds"),
            _Property("ha.health-monitor.check-interval.ms", "500"),
            _Property("ha.health-monitor.connect-retry-interval.ms", "200"),
            _Property("ha.health-monitor.sleep-after-disconnect.ms", "200"),
            _Property("ha.failover-controller.graceful-fence.connection.retries", "1"),
            _Property("ha.failover-controller.graceful-fence.rpc-timeout.ms", "2000"),
        ]
    return rendered


def _hdfs_common(site: Site) -> list[_Property]:
    if len(site.namenodes) == 1:
        only = site.namenodes[0]
        return [
            _Property("dfs.namenode.rpc-address", str(only.rpc)),
            _Property("dfs.namenode.http-address", str(only.http)),
        ]
    prefix = f"dfs.namenode.{{}}.{NAMESERVICE}.{{}}"
    return [
        _Property("dfs.nameservices", NAMESERVICE),
        _Property(f"dfs.ha.namenodes.{NAMESERVICE}", ",".join(node.id for node in site.namenodes)),
        *(_Property(prefix.format("rpc-address", node.id), str(node.rpc)) for node in site.namenodes),
        *(_Property(prefix.format("http-address", node.id), str(node.http)) for node in site.namenodes),
        _Property(
            f"dfs.client.failover.proxy.provider.{NAMESERVICE}",
            "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider",
        ),
        _Property("dfs.client.failover.sleep.base.millis", "100"),
        _Property(
            "dfs.client.failover.sleep.max.millis", "1000", "clients find the new active NameNode within a second"
        ),
    ]


def _hdfs_client(site: Site) -> list[_Property]:
    return [
        _Property("dfs.replication", str(site.replication), "a block cannot have more replicas than DataNodes"),
        _Property("dfs.client.block.write.replace-datanode-on-failure.policy", "NEVER", "there is no spare DataNode"),
    ]


_LOG_REPLICATION = _Property(
    "dfs.replication",
    "1",
    "for the logs of applications; the number of DataNodes would have every container end with a change of it",
)


def _hdfs_daemon(site: Site, daemon: NameNode | DataNode | JournalNode | FailoverController) -> list[_Property]:
    if isinstance(daemon, NameNode):
        return [*_namenode(site, daemon), *_shared_edits(site, daemon.id)]
    if isinstance(daemon, DataNode):
        return _datanode(site, daemon)
    if isinstance(daemon, JournalNode):
        return [
            _Property("dfs.journalnode.rpc-address", str(daemon.rpc)),
            _Property("dfs.journalnode.http-address", str(daemon.http)),
            _Property("dfs.journalnode.edits.dir", str(daemon.directory)),
            _Property("dfs.journalnode.enable.sync", "false", "it is the only one, and has nobody to catch up with"),
        ]
    return [
        *_shared_edits(site, daemon.namenode),
        _Property("dfs.ha.zkfc.port", str(daemon.rpc.port)),
    ]


def _namenode(site: Site, node: NameNode) -> list[_Property]:
    return [
        _Property("dfs.namenode.name.dir", _uri(node.directory)),
        _Property("dfs.replication", str(site.replication), "a block cannot have more replicas than DataNodes"),
        _Property("dfs.replication.max", "512"),
        _Property(
            "dfs.namenode.safemode.extension", "0", "a restarted NameNode with blocks would refuse writes for 30 s"
        ),
        _Property("dfs.namenode.safemode.recheck.interval", "100"),
        _Property("dfs.namenode.handler.count", "8"),
        _Property(
            "dfs.namenode.heartbeat.recheck-interval", "5000", "with the heartbeat: a DataNode is dead after 20 s"
        ),
        _Property("dfs.heartbeat.interval", "1"),
        _Property(
            "dfs.namenode.datanode.registration.ip-hostname-check",
            "false",
            "the addresses of one machine need no reverse lookup",
        ),
        _Property("dfs.namenode.secondary.http-address", f"{node.http.host}:0"),
        _Property("dfs.namenode.checkpoint.period", "3600s"),
        _Property("dfs.namenode.avoid.read.stale.datanode", "true"),
    ]


def _datanode(site: Site, node: DataNode) -> list[_Property]:
    return [
        _Property("dfs.datanode.data.dir", _uri(node.directory)),
        _Property("dfs.datanode.address", str(node.data)),
        _Property("dfs.datanode.http.address", str(node.http)),
        _Property("dfs.datanode.ipc.address", str(node.ipc)),
        _Property("dfs.datanode.hostname", node.data.host),
        _Property("dfs.datanode.data.dir.perm", "700"),
        _Property("dfs.datanode.du.reserved", str(node.reserved_bytes), "the disk belongs to other programs as well"),
        _Property("dfs.datanode.handler.count", "4"),
        _Property("dfs.replication", str(site.replication), "files that come in through WebHDFS"),
        _Property("dfs.heartbeat.interval", "1"),
    ]


def _shared_edits(site: Site, namenode: str) -> list[_Property]:
    if len(site.namenodes) == 1:
        return []
    journal = ";".join(str(node.rpc) for node in site.journalnodes)
    ports = [
        _Property(f"dfs.ha.zkfc.port.{NAMESERVICE}.{controller.namenode}", str(controller.rpc.port))
        for controller in site.failover_controllers
    ]
    return [
        _Property("dfs.ha.namenode.id", namenode),
        _Property("dfs.namenode.shared.edits.dir", f"qjournal://{journal}/{NAMESERVICE}"),
        _Property("dfs.ha.automatic-failover.enabled", "true"),
        _Property(
            "dfs.ha.fencing.methods",
            "shell(/bin/true)",
            "the JournalNodes let one NameNode write, so the other needs no killing",
        ),
        *ports,
        _Property("dfs.ha.tail-edits.in-progress", "true", "the standby follows at once, and takes over sooner"),
        _Property("dfs.ha.tail-edits.period", "200ms"),
        _Property("dfs.ha.tail-edits.period.backoff-max", "1s"),
        _Property("dfs.ha.log-roll.period", "60s"),
    ]


def _yarn_common(site: Site) -> list[_Property]:
    rendered = [
        _Property(
            "yarn.timeline-service.enabled", "false", "there is no timeline server, and clients would wait for it"
        ),
        _Property("yarn.application.classpath", ",".join(site.application_classpath)),
        _Property("yarn.log-aggregation-enable", "true", "the logs of a finished application are read from HDFS"),
        _Property("yarn.nodemanager.remote-app-log-dir", "/yarn/logs"),
        _Property("yarn.log-aggregation.file-formats", "TFile"),
        _Property(
            "yarn.log-aggregation.file-controller.TFile.class",
            "org.apache.hadoop.yarn.logaggregation.filecontroller.tfile.LogAggregationTFileController",
        ),
        _Property("yarn.acl.enable", "false", "the cluster checks no identity, so there is nothing to decide on"),
    ]
    if len(site.resource_managers) == 1:
        return [*rendered, *_addresses(site.resource_managers[0], "")]
    return [
        *rendered,
        _Property("yarn.resourcemanager.ha.enabled", "true"),
        _Property("yarn.resourcemanager.cluster-id", NAMESERVICE),
        _Property("yarn.resourcemanager.ha.rm-ids", ",".join(node.id for node in site.resource_managers)),
        *(line for node in site.resource_managers for line in _addresses(node, f".{node.id}")),
        _Property("yarn.client.failover-sleep-base-ms", "100"),
        _Property("yarn.client.failover-sleep-max-ms", "1000", "clients find the new active one within a second"),
    ]


def _addresses(node: ResourceManager, suffix: str) -> list[_Property]:
    return [
        _Property(f"yarn.resourcemanager.hostname{suffix}", node.client.host),
        _Property(f"yarn.resourcemanager.address{suffix}", str(node.client)),
        _Property(f"yarn.resourcemanager.scheduler.address{suffix}", str(node.scheduler)),
        _Property(f"yarn.resourcemanager.resource-tracker.address{suffix}", str(node.tracker)),
        _Property(f"yarn.resourcemanager.admin.address{suffix}", str(node.admin)),
        _Property(f"yarn.resourcemanager.webapp.address{suffix}", str(node.web)),
    ]


def _yarn_client() -> list[_Property]:
    return [
        _Property("yarn.resourcemanager.connect.retry-interval.ms", "500"),
        _Property(
            "yarn.resourcemanager.connect.max-wait.ms", "30000", "a cluster that is down is no reason to wait 15 min"
        ),
    ]


def _yarn_daemon(site: Site, daemon: ResourceManager | NodeManager) -> list[_Property]:
    fast = _Property("yarn.resourcemanager.connect.retry-interval.ms", "100", "daemons start together")
    if isinstance(daemon, ResourceManager):
        return [*_resource_manager(site, daemon), fast]
    return [*_nodemanager(site, daemon), fast]


def _resource_manager(site: Site, node: ResourceManager) -> list[_Property]:
    return [
        _Property(
            "yarn.resourcemanager.scheduler.class",
            "org.apache.hadoop.yarn.server.resourcemanager.scheduler.capacity.CapacityScheduler",
        ),
        _Property("yarn.scheduler.minimum-allocation-mb", "128", "1 GiB a container would leave room for few"),
        _Property("yarn.scheduler.maximum-allocation-mb", str(max(n.memory_mib for n in site.nodemanagers))),
        _Property("yarn.scheduler.maximum-allocation-vcores", str(max(n.vcores for n in site.nodemanagers))),
        _Property(
            "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms", "200", "containers start five times sooner"
        ),
        _Property(
            "yarn.nm.liveness-monitor.expiry-interval-ms", "30000", "a dead node is given up after 30 s, not 10 min"
        ),
        _Property("yarn.am.liveness-monitor.expiry-interval-ms", "120000"),
        _Property("yarn.resourcemanager.client.thread-count", "8"),
        _Property("yarn.resourcemanager.scheduler.client.thread-count", "8"),
        _Property("yarn.resourcemanager.resource-tracker.client.thread-count", "8"),
        _Property("yarn.resourcemanager.amlauncher.thread-count", "8"),
        _Property("yarn.resourcemanager.delegation-token-renewer.thread-count", "2"),
        _Property("yarn.resourcemanager.max-completed-applications", "500"),
        _Property("yarn.resourcemanager.state-store.max-completed-applications", "200"),
        _Property(
            "yarn.resourcemanager.recovery.enabled", "true", "applications outlive a ResourceManager that was killed"
        ),
        _Property("yarn.resourcemanager.work-preserving-recovery.scheduling-wait-ms", "1000"),
        _Property("yarn.webapp.ui2.enable", "false"),
        _Property("fs.permissions.umask-mode", "077", "the keys that it stores are for nobody else"),
        *_state_store(site, node),
    ]


def _state_store(site: Site, node: ResourceManager) -> list[_Property]:
    package = "org.apache.hadoop.yarn.server.resourcemanager.recovery"
    if len(site.resource_managers) == 1:
        return [
            _Property("yarn.resourcemanager.store.class", f"{package}.FileSystemRMStateStore"),
            _Property("yarn.resourcemanager.fs.state-store.uri", f"file://{node.state_directory}"),
        ]
    return [
        _Property("yarn.resourcemanager.ha.id", node.id),
        _Property("yarn.resourcemanager.zk-address", _listed(site.zookeeper)),
        _Property("yarn.resourcemanager.zk-timeout-ms", "4000", "a dead active one is replaced within seconds"),
        _Property("yarn.resourcemanager.store.class", f"{package}.ZKRMStateStore"),
        _Property("yarn.resourcemanager.zk-state-store.parent-path", f"{site.zookeeper_root}/rmstore"),
        _Property("yarn.resourcemanager.ha.automatic-failover.enabled", "true"),
        _Property("yarn.resourcemanager.ha.automatic-failover.embedded", "true"),
        _Property(
            "yarn.resourcemanager.ha.automatic-failover.zk-base-path", f"{site.zookeeper_root}/rm-leader-election"
        ),
    ]


_ENV_WHITELIST = (
    "JAVA_HOME",
    "HADOOP_COMMON_HOME",
    "HADOOP_HDFS_HOME",
    "HADOOP_CONF_DIR",
    "CLASSPATH_PREPEND_DISTCACHE",
    "HADOOP_YARN_HOME",
    "HADOOP_HOME",
    "PATH",
    "LANG",
    "TZ",
)
"""The default of Hadoop 3.5.0 (yarn-default.xml)."""


def _nodemanager(site: Site, node: NodeManager) -> list[_Property]:
    return [
        _Property("yarn.nodemanager.hostname", node.container.host),
        _Property("yarn.nodemanager.address", str(node.container)),
        _Property("yarn.nodemanager.localizer.address", str(node.localizer)),
        _Property("yarn.nodemanager.webapp.address", str(node.web)),
        _Property("yarn.nodemanager.local-dirs", str(node.local_directory)),
        _Property("yarn.nodemanager.log-dirs", str(node.log_directory)),
        _Property("yarn.nodemanager.resource.memory-mb", str(node.memory_mib)),
        _Property("yarn.nodemanager.resource.cpu-vcores", str(node.vcores)),
        _Property(
            "yarn.nodemanager.container-executor.class",
            "org.apache.hadoop.yarn.server.nodemanager.DefaultContainerExecutor",
            "containers run as the account that runs the cluster",
        ),
        _Property("yarn.nodemanager.vmem-check-enabled", "false", "a JVM reserves far more than it uses"),
        _Property(
            "yarn.nodemanager.pmem-check-enabled", "true", "a container that uses more than it asked for is killed"
        ),
        _Property(
            "yarn.nodemanager.resource.memory.enforced",
            "false",
            "its default hands that check over to cgroups, which are not in use: nothing would be killed at all",
        ),
        _Property("yarn.nodemanager.resource-monitor.interval-ms", "1000", "and is killed soon"),
        _Property(
            "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage",
            "100",
            "a disk that is 90 % full is usual on a small machine; what counts is the space that is left",
        ),
        _Property("yarn.nodemanager.disk-health-checker.min-free-space-per-disk-mb", str(node.min_free_mib)),
        _Property("yarn.nodemanager.delete.debug-delay-sec", "0"),
        _Property("yarn.nodemanager.log-aggregation.roll-monitoring-interval-seconds", "-1"),
        _Property("yarn.log-aggregation.retain-seconds", "604800"),
        _Property("yarn.nodemanager.container-manager.thread-count", "8"),
        _Property("yarn.nodemanager.user-home-dir", site.user_home),
        _Property("yarn.nodemanager.admin-env", "", "it is appended to what a container sets, which breaks numbers"),
        _Property(
            "yarn.nodemanager.env-whitelist",
            ",".join((*_ENV_WHITELIST, "MALLOC_ARENA_MAX", "SPARK_LOCAL_IP")),
            "containers inherit these from the NodeManager where they do not set them",
        ),
        *_recovery(node),
    ]


def _recovery(node: NodeManager) -> list[_Property]:
    if node.recovery_directory is None:
        return []
    return [
        _Property("yarn.nodemanager.recovery.enabled", "true", "containers outlive a NodeManager that was killed"),
        _Property("yarn.nodemanager.recovery.dir", str(node.recovery_directory)),
        _Property("yarn.nodemanager.recovery.supervised", "false", "containers end with a NodeManager that is stopped"),
    ]


def _capacity_scheduler(site: Site) -> list[_Property]:
    prefix = "yarn.scheduler.capacity"
    rendered = [
        _Property(
            f"{prefix}.resource-calculator",
            "org.apache.hadoop.yarn.util.resource.DominantResourceCalculator",
            "vcores count as well as memory",
        ),
        _Property(
            f"{prefix}.maximum-am-resource-percent",
            "0.5",
            "a tenth of a small queue would not hold one ApplicationMaster",
        ),
        _Property(f"{prefix}.maximum-applications", "1000"),
        _Property(f"{prefix}.node-locality-delay", "0", "every node is this machine"),
        _Property(f"{prefix}.rack-locality-additional-delay", "-1"),
        _Property(f"{prefix}.root.queues", ",".join(queue.name for queue in site.queues)),
    ]
    for queue in site.queues:
        rendered += [
            _Property(f"{prefix}.root.{queue.name}.capacity", str(queue.share)),
            _Property(f"{prefix}.root.{queue.name}.maximum-capacity", "100"),
            _Property(
                f"{prefix}.root.{queue.name}.user-limit-factor",
                str(-(-100 // queue.share)),
                "one user may fill the cluster when it is idle",
            ),
            _Property(f"{prefix}.root.{queue.name}.state", "RUNNING"),
        ]
    return rendered


_LAYOUT = "%d{ISO8601} %p %c: %m%n"

_DAEMON_LOG = {
    "log4j.rootLogger": "INFO, file",
    "log4j.appender.file": "org.apache.log4j.RollingFileAppender",
    "log4j.appender.file.File": "${clusterkit.log}",
    "log4j.appender.file.MaxFileSize": "20MB",
    "log4j.appender.file.MaxBackupIndex": "2",
    "log4j.appender.file.layout": "org.apache.log4j.PatternLayout",
    "log4j.appender.file.layout.ConversionPattern": _LAYOUT,
    "log4j.logger.org.apache.hadoop.util.NativeCodeLoader": "ERROR",
    "log4j.logger.http.requests": "WARN",
    "log4j.logger.org.apache.hadoop.ipc.Client": "WARN",
}

_CLIENT_LOG = {
    "log4j.rootLogger": "WARN, console",
    "log4j.appender.console": "org.apache.log4j.ConsoleAppender",
    "log4j.appender.console.target": "System.err",
    "log4j.appender.console.layout": "org.apache.log4j.PatternLayout",
    "log4j.appender.console.layout.ConversionPattern": _LAYOUT,
    "log4j.logger.org.apache.hadoop.util.NativeCodeLoader": "ERROR",
}


def _xml(properties: list[_Property], extra: Mapping[str, str]) -> str:
    known = {line.key: line for line in properties if line.key not in extra}
    lines = [*known.values(), *(_Property(key, value) for key, value in extra.items())]
    body = "".join(_element(line) for line in lines)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<configuration>\n{body}</configuration>\n'


def _element(line: _Property) -> str:
    reason = f"    <description>{_text(line.reason)}</description>\n" if line.reason else ""
    return (
        "  <property>\n"
        f"    <name>{_text(line.key)}</name>\n"
        f"    <value>{_text(line.value)}</value>\n"
        f"{reason}"
        "  </property>\n"
    )


def _text(value: str) -> str:
    """Escape for XML, and for nothing else; characters that XML cannot carry are left out."""
    return escape(value.translate(_XML_FORBIDDEN), {"\r": "&#13;"})


def _properties(lines: Mapping[str, str], extra: Mapping[str, str]) -> str:
    return "".join(f"{key}={_property_text(value)}\n" for key, value in {**lines, **extra}.items())


def _property_text(value: str) -> str:
    """Escape as java.util.Properties reads it back: backslashes, line ends, and all that is not Latin-1."""
    simple = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    units = simple.encode("utf-16-be")
    codes = (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    return "".join(chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)


def _uri(path: PurePath) -> str:
    """Return a directory as HDFS takes it: letters beyond ASCII as they are, since a DataNode formats with `%`."""
    return f"file://{path}"


def _listed(addresses: tuple[Address, ...]) -> str:
    return ",".join(str(address) for address in addresses)
