"""A Hadoop cluster as a client sees it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from clusterkit.hadoop.configuration import Configuration

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

    from clusterkit.hadoop.hdfs import Hdfs
    from clusterkit.hadoop.logs.application_logs import ApplicationLogs
    from clusterkit.hadoop.node_manager import NodeManager
    from clusterkit.hadoop.resource_manager import ResourceManager


class Cluster:
    """One cluster: its configuration and the services that are reached with it.

    Nothing is connected to before it is used.

    Parameters
    ----------
    name : str
        What the user calls it.
    configuration : Configuration
        Its site files.
    embedded : bool
        Whether clusterkit runs it on this machine.
    """

    def __init__(self, name: str, configuration: Configuration, *, embedded: bool = False) -> None:
        self.name = name
        self.configuration = configuration
        self.embedded = embedded

    @classmethod
    def from_directory(
        cls, name: str, conf_dir: Path, *, embedded: bool = False, environ: Mapping[str, str] | None = None
    ) -> Self:
        """Return the cluster that a Hadoop configuration directory describes.

        Raises
        ------
        ClusterError
            If the directory or one of its files cannot be read.
        """
        return cls(name, Configuration.from_directory(conf_dir, environ=environ), embedded=embedded)

    def __repr__(self) -> str:
        return f"Cluster({self.name!r}, {str(self.conf_dir)!r})"

    @property
    def conf_dir(self) -> Path | None:
        """Where its site files are; None when the configuration was not read from files."""
        return self.configuration.directory

    @cached_property
    def hdfs(self) -> Hdfs:
        """Its default file system."""
        from clusterkit.hadoop.hdfs import Hdfs  # noqa: PLC0415 - loaded when it is used

        return Hdfs(self.configuration)

    @cached_property
    def resource_manager(self) -> ResourceManager:
        """Its active ResourceManager."""
        from clusterkit.hadoop.resource_manager import ResourceManager  # noqa: PLC0415 - loaded when it is used

        return ResourceManager(self.configuration.resource_managers, self.configuration.user)

    @cached_property
    def logs(self) -> ApplicationLogs:
        """The logs of its applications."""
        from clusterkit.hadoop.logs.application_logs import ApplicationLogs  # noqa: PLC0415 - loaded when it is used

        return ApplicationLogs(self)

    def node_manager(self, http_address: str) -> NodeManager:
        """Return the NodeManager at an address that the ResourceManager gave: `host:port`, or with a scheme."""
        from clusterkit.hadoop.node_manager import NodeManager  # noqa: PLC0415 - loaded when it is used

        scheme = self.configuration.web_scheme
        url = http_address if "://" in http_address else f"{scheme}://{http_address}"
        return NodeManager(url, self.configuration.user)
