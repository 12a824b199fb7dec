from __future__ import annotations

import json
import os
import signal

import pytest

from clusterkit import processes
from clusterkit.specs.cluster import ClusterSpec


@pytest.fixture
def checks(clusterkit_cli):
    """Return a function that runs the doctor beside a cluster: its exit code, and each check by name."""

    def run(cluster) -> tuple[int, dict[str, dict[str, str]]]:
        env = {"CLUSTERKIT_DATA_DIR": str(cluster.layout.clusters.parent), "CLUSTERKIT_CLUSTER": cluster.name}
        done = clusterkit_cli("doctor", "cluster", "--json", env=env)
        return done.returncode, {check["name"]: check for check in json.loads(done.stdout)["checks"]}

    return run


def test_a_cluster_in_order(cluster, checks):
    """On a running cluster nothing fails, and each part is looked at."""
    code, found = checks(cluster)
    assert (code, [name for name, check in found.items() if check["state"] == "fail"]) == (0, [])
    assert {"java", "spark", "hadoop jars", "class data, daemons", "class data, spark", "disk"} <= found.keys()
    assert {"resourcemanager", "nodes", "queue root.default", "clock", "file system"} <= found.keys()
    assert found["cluster default"]["what"] == "all of 4 daemons ready"


def test_safe_mode_and_a_killed_daemon(fresh_cluster, checks):
    """Safe mode, and then a killed ResourceManager, fail by name with exit code 69."""
    ill = fresh_cluster("ill")
    ill.up(ClusterSpec(name="ill"))
    admin("-safemode", "enter", environment=ill.environment())
    code, found = checks(ill)
    assert (code, found["hdfs of ill"]["what"]) == (69, "HDFS is in safe mode: nothing can be written")
    pids = {daemon.name: daemon.pid for daemon in ill.status().daemons}
    os.kill(pids["resourcemanager"], signal.SIGKILL)
    code, found = checks(ill)
    assert (code, found["cluster ill"]["state"]) == (69, "fail")
    assert "resourcemanager does not run" in found["cluster ill"]["why"]
    assert found["client of ill"]["state"] == "fail"


def admin(*args: str, environment: dict[str, str]) -> None:
    """Run Hadoop's own administration command."""
    from clusterkit import settings
    from clusterkit.embedded import jars

    lib = jars.directory(jars.JarLock.load(), settings.load().cache_dir)
    class_path = f"{environment['HADOOP_CONF_DIR']}:{lib}/*"
    argv = [f"{environment['JAVA_HOME']}/bin/java", "-cp", class_path, "org.apache.hadoop.hdfs.tools.DFSAdmin", *args]
    done = processes.run(argv, timeout_s=60)
    assert done.exit_code == 0, done.stderr
