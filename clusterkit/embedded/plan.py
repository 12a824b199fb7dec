"""Everything one `up` will run, as a value: the daemons with their files, arguments and environment."""

from __future__ import annotations

import grp
import hashlib
import io
import os
import platform
import pwd
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterkit.embedded import marks
from clusterkit.embedded.daemons import (
    DATANODE,
    JOURNALNODE,
    NAMENODE,
    NODEMANAGER,
    RESOURCEMANAGER,
    ZKFC,
    ZOOKEEPER,
    Daemon,
    Role,
    daemons,
)
from clusterkit.hadoop import site as sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterkit.embedded.layout import Layout
    from clusterkit.embedded.state import State

_RESERVED_BYTES = 512 * 1024 * 1024
_MIN_FREE_MIB = 512
_PASSED_ON = ("HOME", "USER", "LOGNAME", "PATH", "TZ", "LANG", "LC_ALL", "LC_CTYPE")
_DATE = (1980, 1, 1, 0, 0, 0)
_PAGES = ("hdfs", "datanode", "journal", "secondary", "static")


@dataclass(frozen=True, slots=True)
class Launch:
    """One daemon, ready to be started.

    Parameters
    ----------
    daemon : Daemon
        Which one.
    ports : dict of str to int
        Its ports, by what they are for.
    files : dict of str to str
        Its configuration.
    arguments : tuple of str
        What follows the main class.
    """

    daemon: Daemon
    ports: Mapping[str, int]
    files: Mapping[str, str]
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The daemon's name."""
        return self.daemon.name

    @property
    def plain_files(self) -> tuple[str, ...]:
        """The files that it reads from a directory, and not from its jar."""
        return tuple(name for name in self.files if name.endswith(".cfg"))

    @property
    def role(self) -> Role:
        """The daemon's role."""
        return self.daemon.role


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole cluster, ready to be started: `up` does what it says, and compares it with what runs."""

    layout: Layout
    state: State
    site: sites.Site
    launches: tuple[Launch, ...]

    @property
    def host(self) -> str:
        """The address on which everything listens."""
        return self.state.spec.bind

    def launch(self, name: str) -> Launch:
        """Return the launch of the daemon with this name."""
        return next(launch for launch in self.launches if launch.name == name)

    def of(self, role: Role) -> tuple[Launch, ...]:
        """Return the launches of one role."""
        return tuple(launch for launch in self.launches if launch.role is role)

    def configuration(self, launch: Launch) -> str:
        """Return the digest of all that makes a daemon what it is; it changes when the daemon must be restarted."""
        digest = hashlib.sha256(str((self.state.java_home, self.state.lib, launch.role.heap_mib)).encode())
        for name, text in sorted(launch.files.items()):
            digest.update(f"{name}\0{text}\0".encode())
        return digest.hexdigest()[:16]

    def argv(self, launch: Launch, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command that starts a daemon.

        Parameters
        ----------
        launch : Launch
            The daemon.
        options : tuple of str
            More options of the JVM, such as an archive of classes.
        """
        return [
            *self.java(launch, options),
            *marks.marks(self.layout.root, launch.name, self.configuration(launch)),
            launch.role.main,
            *launch.arguments,
        ]

    def java(self, launch: Launch, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command as far as the main class, without the marks."""
        return [
            f"{self.state.java_home}/bin/java",
            f"-Xmx{launch.role.heap_mib}m",
            *_JVM,
            *(() if launch.role is NODEMANAGER else _NO_TLS),
            *options,
            f"-Djava.io.tmpdir={self.layout.temporary_of(launch.name)}",
            f"-XX:ErrorFile={self.layout.logs}/{launch.name}-crash-%p.log",
            f"-Dclusterkit.log={self.layout.log_of(launch.name)}",
            "-cp",
            f"{self.state.lib}/*:{self.layout.jar_of(launch.name)}",
        ]

    def environment(self, launch: Launch) -> dict[str, str]:
        """Return the environment of a daemon: only what it needs, since containers inherit from it."""
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        if not any("utf" in passed.get(name, "").lower() for name in ("LC_ALL", "LC_CTYPE", "LANG")):
            passed = {name: value for name, value in passed.items() if not name.startswith("LC_")}
            passed["LANG"] = "C.UTF-8"
        return {
            **passed,
            "JAVA_HOME": self.state.java_home,
            "HADOOP_CONF_DIR": str(self.layout.conf),
            "MALLOC_ARENA_MAX": "2",
            "SPARK_LOCAL_IP": self.state.spec.bind,
            "TMPDIR": str(self.layout.temporary_of(launch.name)),
        }

    def jar(self, launch: Launch) -> bytes:
        """Return the jar that holds a daemon's configuration; a directory would keep the JVM from its archive."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as jar:
            for name, text in launch.files.items():
                jar.writestr(zipfile.ZipInfo(name, _DATE), text)
            for page in _PAGES:
                jar.writestr(zipfile.ZipInfo(f"webapps/{page}/", _DATE), "")
                jar.writestr(zipfile.ZipInfo(f"webapps/{page}/index.html", _DATE), _INDEX.format(name=launch.name))
        return buffer.getvalue()


def plan(layout: Layout, state: State) -> Plan:
    """Work out everything that a cluster consists of."""
    described = _Description(layout, state)
    site = described.site()
    launches = tuple(described.launch(site, daemon) for daemon in daemons(state.spec))
    return Plan(layout, state, site, launches)


_JVM = (
    "-Xmn32m",  # what a start leaves behind is collected sooner, and the same memory used again
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.net.preferIPv4Stack=true",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
)

_NO_TLS = ("-Djavax.net.ssl.trustStore=NONE",)
"""Masters and DataNodes talk to each other only, in the clear: no start need read the JDK's 140 certificates."""

_INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title></head>
<body><h1>{name}</h1>
<ul><li><a href="/jmx">state (JMX)</a></li><li><a href="/conf">configuration</a></li>
<li><a href="/stacks">threads</a></li></ul></body></html>
"""


@dataclass(frozen=True, slots=True)
class _Description:
    """The site of an embedded cluster, put together from what is remembered of it."""

    layout: Layout
    state: State

    def launch(self, site: sites.Site, daemon: Daemon) -> Launch:
        ports = self.state.ports[daemon.name]
        if daemon.role is ZOOKEEPER:
            return Launch(daemon, ports, self._zookeeper(), (str(self.layout.run_of(daemon.name) / "zoo.cfg"),))
        parts: dict[Role, tuple[sites.Part, ...]] = {
            JOURNALNODE: site.journalnodes,
            NAMENODE: site.namenodes,
            ZKFC: site.failover_controllers,
            RESOURCEMANAGER: site.resource_managers,
            DATANODE: site.datanodes,
            NODEMANAGER: site.nodemanagers,
        }
        part = parts[daemon.role][daemon.number - 1]
        return Launch(daemon, ports, sites.daemon_files(site, part))

    def site(self) -> sites.Site:
        spec = self.state.spec
        account = pwd.getpwuid(os.getuid())
        return sites.Site(
            namenodes=tuple(map(self._namenode, self._of(NAMENODE))),
            datanodes=tuple(map(self._datanode, self._of(DATANODE))),
            resource_managers=tuple(map(self._resource_manager, self._of(RESOURCEMANAGER))),
            nodemanagers=tuple(map(self._nodemanager, self._of(NODEMANAGER))),
            journalnodes=tuple(map(self._journalnode, self._of(JOURNALNODE))),
            failover_controllers=tuple(map(self._failover_controller, self._of(ZKFC))),
            zookeeper=tuple(self._address(daemon, "client") for daemon in self._of(ZOOKEEPER)),
            queues=tuple(sites.Queue(name=name, share=share) for name, share in spec.queues.items()),
            user=account.pw_name,
            groups=_groups(account),
            user_home=account.pw_dir,
            replication=min(spec.nodes, 2),
            application_classpath=("$HADOOP_CONF_DIR", f"{self.state.lib}/*"),
            temporary=self.layout.run / "tmp",
        )

    def _of(self, role: Role) -> tuple[Daemon, ...]:
        return tuple(daemon for daemon in daemons(self.state.spec) if daemon.role is role)

    def _address(self, daemon: Daemon, purpose: str) -> sites.Address:
        return sites.Address(self.state.spec.bind, self.state.ports[daemon.name][purpose])

    def _namenode(self, daemon: Daemon) -> sites.NameNode:
        return sites.NameNode(
            id=f"nn{daemon.number}",
            rpc=self._address(daemon, "rpc"),
            http=self._address(daemon, "http"),
            directory=self.layout.data_of(daemon.name),
        )

    def _datanode(self, daemon: Daemon) -> sites.DataNode:
        return sites.DataNode(
            data=self._address(daemon, "data"),
            http=self._address(daemon, "http"),
            ipc=self._address(daemon, "ipc"),
            directory=self.layout.data_of(daemon.name),
            reserved_bytes=_RESERVED_BYTES,
        )

    def _journalnode(self, daemon: Daemon) -> sites.JournalNode:
        return sites.JournalNode(
            rpc=self._address(daemon, "rpc"),
            http=self._address(daemon, "http"),
            directory=self.layout.data_of(daemon.name),
        )

    def _failover_controller(self, daemon: Daemon) -> sites.FailoverController:
        return sites.FailoverController(namenode=f"nn{daemon.number}", rpc=self._address(daemon, "rpc"))

    def _resource_manager(self, daemon: Daemon) -> sites.ResourceManager:
        return sites.ResourceManager(
            id=f"rm{daemon.number}",
            client=self._address(daemon, "client"),
            scheduler=self._address(daemon, "scheduler"),
            tracker=self._address(daemon, "tracker"),
            admin=self._address(daemon, "admin"),
            web=self._address(daemon, "web"),
            state_directory=self.layout.data_of(daemon.name),
        )

    def _nodemanager(self, daemon: Daemon) -> sites.NodeManager:
        directory = self.layout.run_of(daemon.name)
        return sites.NodeManager(
            container=self._address(daemon, "container"),
            localizer=self._address(daemon, "localizer"),
            web=self._address(daemon, "web"),
            local_directory=directory / "local",
            log_directory=directory / "logs",
            recovery_directory=directory / "recovery" if _has_leveldb() else None,
            memory_mib=self.state.memory_mib,
            vcores=max(8, os.cpu_count() or 1),
            min_free_mib=_MIN_FREE_MIB,
        )

    def _zookeeper(self) -> dict[str, str]:
        (daemon,) = self._of(ZOOKEEPER)
        address = self._address(daemon, "client")
        lines = {
            "tickTime": "500",
            "dataDir": str(self.layout.data_of(daemon.name)),
            "clientPort": str(address.port),
            "clientPortAddress": address.host,
            "maxClientCnxns": "0",
            "admin.enableServer": "false",
            "autopurge.purgeInterval": "1",
            "4lw.commands.whitelist": "ruok,srvr",
        }
        return {
            "zoo.cfg": "".join(f"{key}={value}\n" for key, value in lines.items()),
            "log4j.properties": sites.daemon_log(),
        }


def _groups(account: pwd.struct_passwd) -> tuple[str, ...]:
    names = []
    for number in os.getgrouplist(account.pw_name, account.pw_gid):
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            names.append(str(number))
    return tuple(dict.fromkeys(names))


def _has_leveldb() -> bool:
    """Tell whether the NodeManager can keep its state: leveldbjni brings a native library for x86-64 only."""
    return platform.machine() == "x86_64"
