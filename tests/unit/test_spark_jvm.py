from __future__ import annotations

import sys

import pytest

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
    ("log", "expected"),
    [
        (SUBMITTED, "application_1700000000000_0002"),
        (FAILED, "application_1700000000000_0040"),
        ("INFO SparkContext: Running Spark version 4.3.0", None),
    ],
    ids=["submitted", "failed at once", "not yet"],
)
def test_the_id_is_learnt_from_the_submission_itself(tmp_path, log, expected):
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
        assert jvm.application_id == expected
    finally:
        jvm.end()
