"""`clusterkit app logs` beside Hadoop's LogsCLI: the whole wall time until all logs of an application are printed.

Both print the same aggregated logs of an application that has ended, in turn, byte for byte the same: a small
application (`small`), and one that logged 50 MB (`large`).
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import harness

from clusterkit import settings
from clusterkit.embedded import state
from clusterkit.embedded.cluster import EmbeddedCluster
from clusterkit.hadoop.rest import Rest
from clusterkit.specs.cluster import ClusterSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 7
TARGET = 5.0
COMMANDS = {"small": "echo hello; exit 1", "large": "seq 1 6500000; exit 1"}
TIMEOUT_S = 120


def main() -> None:
    """Run the benchmark on a cluster of its own."""
    with tempfile.TemporaryDirectory(prefix="clusterkit-logs-") as directory:
        embedded = EmbeddedCluster("logs", data_dir=Path(directory), cache_dir=settings.load().cache_dir)
        try:
            embedded.up(ClusterSpec(name="logs"))
            harness.main({name: lambda name=name: beside(embedded, name) for name in COMMANDS})
        finally:
            embedded.down(purge=True)


def beside(embedded: EmbeddedCluster, name: str) -> Sequence[harness.Row]:
    """Return the row of one application."""
    application_id = _collected(embedded, COMMANDS[name])
    remembered = state.load(embedded.layout)
    assert remembered is not None
    environment = {**os.environ, "HADOOP_CONF_DIR": str(embedded.layout.conf)}
    ours = [str(harness.PYTHON), "-m", "clusterkit", "app", "logs", application_id]
    class_path = f"{embedded.layout.conf}:{remembered.lib}/*"
    java = f"{remembered.java_home}/bin/java"
    theirs = [java, "-cp", class_path, "org.apache.hadoop.yarn.client.cli.LogsCLI", "-applicationId", application_id]
    runs = harness.alternate(
        {"ours": lambda: harness.run(ours, env=environment), "LogsCLI": lambda: harness.run(theirs, env=environment)},
        rounds=ROUNDS,
    )
    harness.same_stdout(runs)
    times = {side: harness.wall(several) for side, several in runs.items()}
    cores = {side: harness.core(several) for side, several in runs.items()}
    return (
        harness.beside(f"app logs, {name}", "LogsCLI", ours=times["ours"], theirs=times["LogsCLI"], target=TARGET),
        harness.beside(
            f"app logs, {name}, work",
            "LogsCLI",
            ours=cores["ours"],
            theirs=cores["LogsCLI"],
            unit="core-s",
            target=None,
        ),
    )


def _collected(embedded: EmbeddedCluster, command: str) -> str:
    """Run a shell command as an application, and return its id when YARN has collected its logs."""
    cluster = embedded.cluster()
    rest = Rest("ResourceManager", cluster.configuration.user)
    root = f"{cluster.resource_manager.active.url}/ws/v1/cluster/apps"
    application_id = str(rest.call("POST", f"{root}/new-application").json()["application-id"])
    document = {
        "application-id": application_id,
        "max-app-attempts": 1,
        "am-container-spec": {"commands": {"command": command}},
        "resource": {"memory": 128, "vCores": 1},
    }
    rest.call("POST", root, document=document)
    deadline = time.monotonic() + TIMEOUT_S
    while cluster.resource_manager.application(application_id).log_aggregation != "SUCCEEDED":
        if time.monotonic() > deadline:
            raise SystemExit(f"the logs of {application_id} were not collected within {TIMEOUT_S} s")
        time.sleep(0.2)
    return application_id


if __name__ == "__main__":
    main()
