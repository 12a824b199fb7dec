from __future__ import annotations

import pytest

from clusterkit.applications import exit_codes

AM_EXIT = "Application application_1_0001 failed 1 times due to AM Container for appattempt_1_0001_000001 exited with"


@pytest.mark.parametrize(
    ("final_status", "diagnostics", "code"),
    [
        ("SUCCEEDED", "", 0),
        ("SUCCEEDED", "User application exited with status 3", 0),
        ("FAILED", "User application exited with status 3", 3),
        ("FAILED", "User application exited with 7", 7),
        ("FAILED", "User application exited with status 0", 1),
        ("FAILED", f"{AM_EXIT}  exitCode: 137\nFailing this attempt.", 137),
        ("FAILED", f"{AM_EXIT}  exitCode: -104\nFailing this attempt.", 1),
        ("FAILED", f"{AM_EXIT}  exitCode: 13\nFailing this attempt.", 1),
        ("FAILED", "User class threw exception: java.io.IOException", 1),
        ("FAILED", "", 1),
        ("KILLED", "Application application_1_0001 was killed by user ada", 143),
        ("UNDEFINED", "", 1),
    ],
)
def test_exit_code_as_far_as_yarn_tells(final_status, diagnostics, code):
    """The job's own code where it is named, 143 for a killed one, else 1; Spark's own codes and YARN's are no job's."""
    assert exit_codes.from_report(final_status, diagnostics) == code
