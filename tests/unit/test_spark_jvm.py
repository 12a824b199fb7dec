from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from clusterkit.launchers.spark import jvm as spark_jvm
from clusterkit.launchers.spark.home import find_spark
from clusterkit.launchers.spark.jvm import SparkJvm
from clusterkit.launchers.spark.plan import SparkPlan
from clusterkit.specs.job import JobSpec

SUBMITTED = "26/11/25 05:28:34.954 INFO YarnClientImpl: Submitted application application_1700000000000_0002"
FAILED = (
    "26/11/25 05:43:35.001 ERROR SparkContext: Error initializing SparkContext.\n"
    "org.apache.hadoop.yarn.exceptions.YarnException: Failed to submit application_1700000000000_0040 to YARN : "
    "Application application_1700000000000_0040 failed 1 times"
)


@pytest.mark.parametrize(
    ("log", "submitted", "refused"),
    [
        (SUBMITTED, "application_1700000000000_0002", None),
        (FAILED, None, "application_1700000000000_0040"),
        (f"{FAILED}\n{SUBMITTED}", "application_1700000000000_0002", "application_1700000000000_0040"),
        ("INFO SparkContext: Running Spark version 4.3.0", None, None),
    ],
    ids=["submitted", "failed at once", "tried again", "not yet"],
)
def test_the_id_is_learnt_from_the_submission_itself(tmp_path, log, submitted, refused):
    """The driver's log names the application, also one that fails before its submission is confirmed."""
    plan = SparkPlan(
        spec=JobSpec(job=tmp_path / "job.py", name="job"),
        cluster="here",
        tag="clusterkit-1",
        directory=tmp_path / "launch",
        conf={},
        argv=(sys.executable, "-c", ""),
        job_argv=(),
        job_path=(),
        environment={},
        conf_dir=tmp_path,
    )
    jvm = SparkJvm(plan, environ={})
    try:
        plan.driver_log.write_text(log)
        assert (jvm.application_id, jvm.refused_id) == (submitted, refused)
    finally:
        jvm.end()


CLASSES = Path(spark_jvm.__file__).parent / "driver_classes"
JAVAC = shutil.which("javac")


@pytest.mark.skipif(JAVAC is None, reason="this Java has no compiler")
def test_the_classes_are_what_their_sources_compile_to(tmp_path):
    """Each committed class differs from its freshly compiled source in nothing: no code of unknown origin."""
    sources = sorted(map(str, CLASSES.rglob("*.java")))
    options = ["--release", "17", "-g:none", "-proc:none", "-cp", f"{find_spark().jars}/*", "-d", str(tmp_path)]
    subprocess.run([str(JAVAC), *options, *sources], check=True, timeout=60)

    compiled = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.class")}
    assert compiled == {path.relative_to(CLASSES): path.read_bytes() for path in CLASSES.rglob("*.class")}
    assert compiled


def test_the_classes_are_on_the_drivers_class_path(tmp_path):
    """They travel in the jar that holds the configuration."""
    spark_jvm._write_configuration_jar(tmp_path / "configuration.jar", tmp_path)

    with zipfile.ZipFile(tmp_path / "configuration.jar") as jar:
        assert "clusterkit/FilterBeforePages.class" in jar.namelist()
