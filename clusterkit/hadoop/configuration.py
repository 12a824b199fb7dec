"""A cluster's configuration as its clients read it: the `*-site.xml` files of one directory.

Only what clusterkit needs of Hadoop's own `*-default.xml` is repeated here, in `DEFAULTS`; every other key that a
cluster does not set is absent.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import msgspec

from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

SITE_FILES = ("core-site.xml", "hdfs-site.xml", "yarn-site.xml")
"""The files that are read, in Hadoop's order: a later one overrides an earlier one, unless that one said `final`."""

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "hadoop.tmp.dir": "/tmp/hadoop-${user.name}",  # noqa: S108 - Hadoop's own default, quoted
        "yarn.log-aggregation-enable": "false",
        "yarn.log-aggregation.file-formats": "TFile",
        "yarn.log-aggregation.file-controller.TFile.class": (
            "org.apache.hadoop.yarn.logaggregation.filecontroller.tfile.LogAggregationTFileController"
        ),
        "yarn.log-aggregation.retain-seconds": "-1",
        "yarn.nodemanager.remote-app-log-dir": "/tmp/logs",  # noqa: S108 - Hadoop's own default, quoted
        "yarn.nodemanager.remote-app-log-dir-include-older": "true",
        "yarn.nodemanager.remote-app-log-dir-suffix": "logs",
        "yarn.http.policy": "HTTP_ONLY",
    }
)
"""The values of core-default.xml and yarn-default.xml (Hadoop 3.5.0) that clients depend on."""

RESOURCE_MANAGER_WEB_PORT = 8088
RESOURCE_MANAGER_WEB_TLS_PORT = 8090
NAMENODE_PORT = 8020

_RENAMED = {"fs.default.name": "fs.defaultFS", "dfs.federation.nameservices": "dfs.nameservices"}
_VARIABLE = re.compile(r"\$\{([^}$\s]+)\}")
_MAX_EXPANSIONS = 20
_XINCLUDE = "{http://www.w3.org/2001/XInclude}include"


class Endpoint(msgspec.Struct, frozen=True):
    """One daemon of a service that may have several.

    Parameters
    ----------
    id : str or None
        Its identity in a high-availability pair (`rm1`), None where there is only one.
    host : str
        The name or address a client connects to.
    port : int
        The port a client connects to.
    scheme : str
        `http`, `https` or `hdfs`.
    """

    id: str | None
    host: str
    port: int
    scheme: str

    @property
    def url(self) -> str:
        """The base address, without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Configuration(msgspec.Struct, frozen=True):
    """The properties of one cluster.

    Parameters
    ----------
    properties : mapping of str to str
        Keys and values as they are written, before `${...}` is expanded.
    variables : mapping of str to str
        What the system properties (`user.name`) and `env.NAME` expand to.
    directory : Path or None
        Where they were read; None when they were not read from files.
    """

    properties: Mapping[str, str]
    variables: Mapping[str, str]
    directory: Path | None = None

    def __repr__(self) -> str:
        return f"Configuration({len(self.properties)} properties, directory={str(self.directory)!r})"

    @classmethod
    def from_directory(cls, directory: Path, *, environ: Mapping[str, str] | None = None) -> Configuration:
        """Read the site files of a directory.

        Parameters
        ----------
        directory : Path
            A Hadoop configuration directory, as `HADOOP_CONF_DIR` names it.
        environ : mapping of str to str, optional
            The environment for `${env.NAME}` and the user's identity; the process's own when absent.

        Raises
        ------
        ClusterError
            If there is no such directory, none of the files is in it, or one cannot be read; `path` says which.

        References
        ----------
        https://hadoop.apache.org/docs/r3.5.0/api/org/apache/hadoop/conf/Configuration.html

        """
        if not directory.is_dir():
            raise ClusterError(
                f"the cluster's configuration was not read: {directory} is no directory",
                why="HADOOP_CONF_DIR, or conf_dir in the settings, names a directory that does not exist",
                mend="correct the path, or unset HADOOP_CONF_DIR to use a cluster that clusterkit runs",
                path=directory,
            )
        files = [path for name in SITE_FILES if (path := directory / name).is_file()]
        if not files:
            raise ClusterError(
                f"the cluster's configuration was not read: {directory} holds no core-site.xml",
                why="a Hadoop configuration directory holds core-site.xml, hdfs-site.xml and yarn-site.xml",
                mend=f"copy them from a node of the cluster (usually /etc/hadoop/conf) to {directory}",
                path=directory,
            )
        return cls(_merged(files), _variables(environ), directory)

    @classmethod
    def from_mapping(cls, properties: Mapping[str, str], *, environ: Mapping[str, str] | None = None) -> Configuration:
        """Make a configuration of properties that are already at hand.

        Examples
        --------
        >>> Configuration.from_mapping({"a": "${b}/c", "b": "/x"}).get("a")
        '/x/c'
        """
        renamed = {_RENAMED.get(key, key): value for key, value in properties.items()}
        return cls(MappingProxyType(renamed), _variables(environ))

    def get(self, key: str, default: str | None = None) -> str | None:
        """Return a value with `${...}` expanded and blanks stripped, or the default where it is not set."""
        value = self.properties.get(key, DEFAULTS.get(key))
        return default if value is None else self._expanded(value).strip()

    def flag(self, key: str) -> bool:
        """Return whether a value is `true`; anything else, and absence, is false."""
        return (self.get(key) or "").lower() == "true"

    def words(self, key: str) -> tuple[str, ...]:
        """Return the words of a comma-separated value."""
        return tuple(word for part in (self.get(key) or "").split(",") if (word := part.strip()))

    def expanded(self) -> dict[str, str]:
        """Return every property that is set, expanded."""
        return {key: self._expanded(value) for key, value in self.properties.items()}

    @property
    def user(self) -> str:
        """Who a cluster without Kerberos takes us for: `HADOOP_USER_NAME`, else the operating system's user."""
        return self.variables.get("env.HADOOP_USER_NAME") or self.variables["user.name"]

    @property
    def kerberos(self) -> bool:
        """Whether the cluster wants Kerberos."""
        return (self.get("hadoop.security.authentication") or "simple").lower() == "kerberos"

    @property
    def default_fs(self) -> str:
        """The file system that paths without a scheme belong to: `hdfs://host:port` or `hdfs://nameservice`.

        Raises
        ------
        ClusterError
            If none is set, or it is not HDFS.
        """
        uri = self.get("fs.defaultFS") or ""
        if uri.startswith("hdfs://") and urlsplit(uri).hostname:
            return uri.rstrip("/")
        raise ClusterError(
            "the cluster's HDFS is not known",
            why=f"fs.defaultFS is {uri!r}, not hdfs://host:port" if uri else "fs.defaultFS is not set",
            mend=f"set fs.defaultFS in {self.place('core-site.xml')}",
            path=self.directory,
        )

    @property
    def namenodes(self) -> tuple[Endpoint, ...]:
        """Where the NameNodes of the default file system answer RPC.

        Raises
        ------
        ClusterError
            If the default file system is not HDFS, or an address of its nameservice is missing.
        """
        parts = urlsplit(self.default_fs)
        service = parts.hostname or ""
        ids = self.words(f"dfs.ha.namenodes.{service}")
        if not ids and not self.get(f"dfs.namenode.rpc-address.{service}"):
            return (Endpoint(None, service, parts.port or NAMENODE_PORT, "hdfs"),)
        if not ids:
            return (self._endpoint(None, f"dfs.namenode.rpc-address.{service}", "hdfs", NAMENODE_PORT),)
        key = f"dfs.namenode.rpc-address.{service}"
        return tuple(self._endpoint(name, f"{key}.{name}", "hdfs", NAMENODE_PORT) for name in ids)

    @property
    def resource_managers(self) -> tuple[Endpoint, ...]:
        """Where the ResourceManagers answer REST, in the order of `yarn.resourcemanager.ha.rm-ids`.

        Raises
        ------
        ClusterError
            If none is configured.
        """
        if not self.flag("yarn.resourcemanager.ha.enabled"):
            return (self._resource_manager(None),)
        return tuple(self._resource_manager(name) for name in self.words("yarn.resourcemanager.ha.rm-ids"))

    @property
    def web_scheme(self) -> str:
        """`https` where YARN's web services speak TLS only, else `http`."""
        return "https" if (self.get("yarn.http.policy") or "").upper() == "HTTPS_ONLY" else "http"

    def place(self, file: str) -> str:
        """Return the path of a site file for a message."""
        return str(self.directory / file) if self.directory else file

    def _resource_manager(self, name: str | None) -> Endpoint:
        tail = f".{name}" if name else ""
        secure = self.web_scheme == "https"
        port = RESOURCE_MANAGER_WEB_TLS_PORT if secure else RESOURCE_MANAGER_WEB_PORT
        key = f"yarn.resourcemanager.webapp.{'https.' if secure else ''}address{tail}"
        if self.get(key):
            return self._endpoint(name, key, self.web_scheme, port)
        return self._endpoint(name, f"yarn.resourcemanager.hostname{tail}", self.web_scheme, port)

    def _endpoint(self, name: str | None, key: str, scheme: str, default_port: int) -> Endpoint:
        address = self.get(key) or ""
        try:
            parts = urlsplit(f"//{address}")
            host, port = parts.hostname, parts.port or default_port
        except ValueError:
            host, port = None, default_port
        if not host:
            raise ClusterError(
                "an address of the cluster is not known",
                why=f"{key} is {address!r}, not host:port" if address else f"{key} is not set",
                mend=f"set {key} in {self.place('hdfs-site.xml' if scheme == 'hdfs' else 'yarn-site.xml')}",
                path=self.directory,
            )
        return Endpoint(name, "127.0.0.1" if host == "0.0.0.0" else host, port, scheme)  # noqa: S104 - read, not bound

    def _expanded(self, value: str) -> str:
        for _ in range(_MAX_EXPANSIONS):
            match = next((m for m in _VARIABLE.finditer(value) if self._variable(m[1]) is not None), None)
            if match is None:
                return value
            value = f"{value[: match.start()]}{self._variable(match[1])}{value[match.end() :]}"
        return value

    def _variable(self, name: str) -> str | None:
        if name.startswith("env."):
            return _environment_variable(name, self.variables)
        return self.variables.get(name, self.properties.get(name, DEFAULTS.get(name)))


def _environment_variable(name: str, variables: Mapping[str, str]) -> str | None:
    """Expand `env.NAME`, `env.NAME:-default` (unset or empty) and `env.NAME-default` (unset)."""
    key, colon_dash, default = name.partition(":-")
    if colon_dash:
        return variables.get(key) or default
    key, dash, default = name.partition("-")
    return variables.get(key, default if dash else None)


def _variables(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    environment = os.environ if environ is None else environ
    system = {"user.name": _os_user(), "user.home": str(Path.home()), "java.io.tmpdir": "/tmp"}  # noqa: S108 - Java's
    return MappingProxyType(system | {f"env.{key}": value for key, value in environment.items()})


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _merged(files: list[Path]) -> Mapping[str, str]:
    values: dict[str, str] = {}
    finals: set[str] = set()
    for file in files:
        for key, value, final in _properties(file):
            if key in finals:
                continue
            if value is not None:
                values[key] = value
            if final:
                finals.add(key)
    return MappingProxyType(values)


def _properties(file: Path, within: tuple[Path, ...] = ()) -> Iterator[tuple[str, str | None, bool]]:
    """Yield key, value (None where the element is missing) and `final` of each property of a file."""
    for element in _root(file):
        if element.tag == _XINCLUDE:
            included = file.parent / element.get("href", "")
            if included not in within:
                yield from _properties(included, (*within, file))
        elif element.tag == "property":
            key = (element.findtext("name") or element.get("name") or "").strip()
            value = element.findtext("value", element.get("value"))
            final = (element.findtext("final") or element.get("final") or "").strip() == "true"
            if key:
                yield _RENAMED.get(key, key), value, final


def _root(file: Path) -> ET.Element:
    try:
        root = ET.parse(file).getroot()  # noqa: S314 - the user's own configuration; expat bounds entity expansion
    except (ET.ParseError, OSError) as exc:
        raise ClusterError(
            f"{file} was not read",
            why=str(exc.strerror if isinstance(exc, OSError) else f"it is not well-formed XML: {exc}"),
            mend="correct the file, or copy it again from a node of the cluster",
            path=file,
        ) from exc
    if root.tag == "configuration":
        return root
    raise ClusterError(
        f"{file} was not read",
        why=f"its outermost element is <{root.tag}>, not <configuration>",
        mend=f"replace {file} with a Hadoop configuration file",
        path=file,
    )
