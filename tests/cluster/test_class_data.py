from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from clusterkit import settings
from clusterkit.doctor import Check
from clusterkit.doctor.cluster import archive_mapped, daemons_mapped
from clusterkit.embedded import class_data, jars
from clusterkit.hadoop.java import find_java
from clusterkit.launchers.spark.home import find_spark
from clusterkit.specs.cluster import ClusterSpec

JOB = Path(__file__).with_name("jobs") / "maps.py"
BUILD_TIMEOUT_S = 280


@pytest.fixture(scope="module")
def cache_dir():
    """Return the cache that all clusters share, so that an archive is built once for all tests."""
    return settings.load().cache_dir


@pytest.fixture(scope="module")
def java():
    """Return the Java of this machine."""
    return find_java(settings.load().java_home, os.environ)


@pytest.fixture(scope="module")
def daemons(cache_dir, java):
    """Return the archive of the daemons, built."""
    lib = jars.fetch(jars.JarLock.load(), cache_dir, java)
    return built(class_data.daemon_archive(cache_dir, java, lib))


@pytest.fixture(scope="module")
def spark(cache_dir, java):
    """Return the archive of Spark's JVMs, built."""
    return built(class_data.spark_archive(cache_dir, java, find_spark().view(cache_dir).jars))


def built(archive: class_data.Archive) -> class_data.Archive:
    while not archive.ready:
        archive.build_in_background()
        assert archive.wait(BUILD_TIMEOUT_S), f"the archive is {archive.state}: {archive.failure}"
    return archive


def test_every_daemon_maps_it(daemons, fresh_cluster):
    """Each daemon of a cluster that starts once the archive is there has it mapped."""
    cluster = fresh_cluster("mapped")
    cluster.up(ClusterSpec(name="mapped"))
    running = {daemon.name: daemon.pid for daemon in cluster.status().daemons}
    mapped = {name for name, pid in running.items() if str(daemons.path) in Path(f"/proc/{pid}/maps").read_text()}
    assert mapped == {"namenode", "datanode-1", "resourcemanager", "nodemanager-1"}
    assert daemons_mapped(cluster.status()) == Check("class data of mapped", "ok", "mapped by 4 daemons")


@pytest.mark.parametrize("deploy_mode", ["client", "cluster"])
def test_every_jvm_of_spark_maps_it(spark, cluster, clusterkit_cli, deploy_mode):
    """Driver, ApplicationMaster and executor of a job have the archive mapped, and stdout is the job's alone."""
    done = clusterkit_cli("submit", "--deploy-mode", deploy_mode, str(JOB), str(spark.path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "driver True, 2 of 2 containers\n"


def test_another_class_path_is_told(daemons, tmp_path):
    """A JVM with another class path refuses the archive, and the check says so in the JVM's words."""
    shutil.copy(next(Path(daemons.class_path).parent.glob("*.jar")), tmp_path / "first.jar")
    other = replace(daemons, class_path=f"{tmp_path}/first.jar:{daemons.class_path}")
    assert (daemons.refusal(), archive_mapped(daemons).state) == (None, "ok")
    check = archive_mapped(other)
    assert (check.state, "shared class paths mismatch" in check.why) == ("warn", True)


def test_a_damaged_archive_is_told(daemons, tmp_path):
    """A JVM refuses an archive that was cut off."""
    with daemons.path.open("rb") as whole, (tmp_path / "cut.jsa").open("wb") as cut:
        cut.write(whole.read(1 << 20))
    assert daemons.refusal(tmp_path / "cut.jsa")
