"""conda environments without conda: solved, locked and installed by rattler, read from their own records."""

from clusterkit.environments.conda.installing import drift, install
from clusterkit.environments.conda.locking import lock
from clusterkit.environments.conda.prefix import read
from clusterkit.environments.conda.request import Nodes, request

__all__ = ["Nodes", "drift", "install", "lock", "read", "request"]
