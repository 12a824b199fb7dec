from __future__ import annotations

import os
import subprocess
import sys

import pytest

from clusterkit.errors import LaunchError
from clusterkit.launchers.spark.home import find_spark


@pytest.fixture
def spark(tmp_path):
    """A directory that looks like a Spark of a version."""

    def make(version, name="spark home; é"):
        jars = tmp_path / name / "jars"
        jars.mkdir(parents=True)
        (jars / f"spark-core_2.13-{version}.jar").touch()
        return jars.parent

    return make


def test_the_version_is_read_without_importing_pyspark(spark):
    """Version and Scala come from the name of the core jar."""
    found = find_spark(spark("4.2.1"))

    assert (found.version, found.scala, found.python) == ("4.2.1", "2.13", None)


@pytest.mark.parametrize("version", ["3.5.6", "4.0.2", "5.0.0"])
def test_other_versions_are_refused_by_name(spark, version):
    """Spark before 4.1 and from 5 on is refused with the version that was found."""
    with pytest.raises(LaunchError, match=f"Spark {version} cannot be used"):
        find_spark(spark(version))


def test_a_directory_without_spark_is_refused(tmp_path):
    """A wrong spark.home says what is missing there."""
    with pytest.raises(LaunchError) as caught:
        find_spark(tmp_path)

    assert caught.value.why == f"{tmp_path} holds no jars/spark-core_*.jar"


def test_a_view_has_no_blanks_in_its_path(spark, tmp_path):
    """The view reaches the same jars under a path that Spark and YARN do not split; making it again changes nothing."""
    found = find_spark(spark("4.3.0"))

    view = found.view(tmp_path / "cache")

    assert " " not in str(view.path.relative_to(tmp_path))
    assert (view.jars / "spark-core_2.13-4.3.0.jar").samefile(found.jars / "spark-core_2.13-4.3.0.jar")
    assert found.view(tmp_path / "cache") == view


def test_spark_submit_of_a_view_hands_on_the_gateway(spark, tmp_path):
    """What pyspark runs to start Spark copies the address of the JVM that runs already, and ends with its input."""
    view = find_spark(spark("4.3.0")).view(tmp_path / "cache")
    (tmp_path / "gateway").write_bytes(b"\0\0\1\2secret")
    variables = {
        "_CLUSTERKIT_GATEWAY": str(tmp_path / "gateway"),
        "_CLUSTERKIT_GATEWAY_PID": str(os.getpid()),
        "_PYSPARK_DRIVER_CONN_INFO_PATH": str(tmp_path / "handed on"),
    }

    done = subprocess.run(
        [view.path / "bin" / "spark-submit", "pyspark-shell"],
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        timeout=20,
        check=False,
    )

    assert done.returncode == 0
    assert (tmp_path / "handed on").read_bytes() == b"\0\0\1\2secret"


def test_spark_submit_of_a_view_fails_with_its_jvm(spark, tmp_path):
    """When the JVM has died, pyspark is told at once instead of waiting for ever."""
    view = find_spark(spark("4.3.0")).view(tmp_path / "cache")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    variables = {"_CLUSTERKIT_GATEWAY": str(tmp_path / "none"), "_CLUSTERKIT_GATEWAY_PID": str(ended.pid)}

    done = subprocess.run(
        [view.path / "bin" / "spark-submit"],
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        timeout=20,
        check=False,
    )

    assert done.returncode == 1
