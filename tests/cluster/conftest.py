"""Real clusters for tests: one for the whole run, and fresh ones for tests that break theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clusterkit import settings
from clusterkit.embedded.cluster import EmbeddedCluster
from clusterkit.hadoop.rest import Rest
from clusterkit.specs.cluster import ClusterSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from clusterkit.hadoop.cluster import Cluster

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The `clusterkit` command, run as a user would, with a data directory of its own.

    Parameters
    ----------
    data_dir : Path
        Where its clusters lie.
    """

    data_dir: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment it runs in: ours, without what would choose a cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLUSTERKIT_", "HADOOP_"))}
        cache_dir = str(settings.load().cache_dir)  # the jars are shared with the user's own clusters
        return {**kept, "CLUSTERKIT_DATA_DIR": str(self.data_dir), "CLUSTERKIT_CACHE_DIR": cache_dir}

    def __call__(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str = "",
        timeout_s: float = 180,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; nothing is asserted about how it went."""
        return subprocess.run(
            self.argv(*args),
            env={**self.environment, **(env or {})},
            cwd=cwd or self.data_dir,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def argv(self, *args: str) -> list[str]:
        """Return the whole command, for a test that starts it by itself."""
        return [sys.executable, "-m", "clusterkit", *args]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """Return a data directory for the whole run."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def clusterkit_cli(data_dir) -> CommandLine:
    """Return the command line beside the session's cluster: `clusterkit_cli("cluster", "status")`."""
    return CommandLine(data_dir)


@pytest.fixture(scope="session")
def cluster(data_dir) -> Iterator[EmbeddedCluster]:
    """Yield a running cluster of one node, called default; tests leave it as they found it."""
    shared = _embedded("default", data_dir)
    try:
        shared.up(ClusterSpec())
        yield shared
    finally:
        shared.down(purge=True)


@pytest.fixture(scope="module")
def fresh_cluster(tmp_path_factory) -> Iterator[Callable[..., EmbeddedCluster]]:
    """Make clusters that nobody else uses, `fresh_cluster("name")`: not up yet, and taken down at the end."""
    made: list[EmbeddedCluster] = []

    def make(name: str, *, data_dir: Path | None = None) -> EmbeddedCluster:
        made.append(_embedded(name, data_dir or tmp_path_factory.mktemp(name)))
        return made[-1]

    yield make
    for each in made:
        each.down(purge=True)


@pytest.fixture(scope="session")
def submit_shell() -> Callable[..., str]:
    """Return a function that runs a shell command as an application and returns its id.

    The command is its ApplicationMaster, once per attempt; since it never registers, the application fails when the
    command ends. It must not hold double quotes, dollars or backquotes.
    """

    def submit(
        cluster: Cluster,
        command: str,
        *,
        attempts: int = 1,
        memory_mib: int = 128,
        tags: tuple[str, ...] = (),
        queue: str = "default",
    ) -> str:
        rest = Rest("ResourceManager", cluster.configuration.user)
        root = f"{cluster.resource_manager.active.url}/ws/v1/cluster/apps"
        application_id = rest.call("POST", f"{root}/new-application").json()["application-id"]
        document = {
            "application-id": application_id,
            "application-name": "shell",
            "application-type": "SHELL",
            "queue": queue,
            "application-tags": {"tag": tags},
            "max-app-attempts": attempts,
            "am-container-spec": {"commands": {"command": command}},
            "resource": {"memory": memory_mib, "vCores": 1},
        }
        rest.call("POST", root, document=document)
        return str(application_id)

    return submit


def _embedded(name: str, data_dir: Path) -> EmbeddedCluster:
    found = settings.load()
    return EmbeddedCluster(name, data_dir=data_dir, cache_dir=found.cache_dir, java_home=found.java_home)
