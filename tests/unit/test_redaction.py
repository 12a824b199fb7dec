from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterkit import redaction
from clusterkit.redaction import HIDDEN


@pytest.mark.parametrize(
    "name",
    [
        "spark.hadoop.fs.s3a.secret.key",
        "spark.hadoop.fs.s3a.access.key",
        "AWS_SECRET_ACCESS_KEY",
        "--password",
        "api-key",
        "TOKEN",
        "spark.executorEnv.DB_PASSWD",
    ],
)
def test_names_that_hold_secrets(name):
    """Settings, variables and options are recognised by their name, however it is written."""
    assert redaction.is_secret(name)


@pytest.mark.parametrize("name", ["spark.executor.memory", "PATH", "--executors", "spark.yarn.keytab"])
def test_names_that_do_not(name):
    """Everything else is shown."""
    assert not redaction.is_secret(name)


def test_documents_are_hidden_at_any_depth():
    """Values of secret keys, what follows a secret option, and what is assigned in an argument are hidden."""
    document = {
        "conf": {"spark.ui.password": "hunter2", "spark.master": "yarn"},
        "args": ["--token", "t0ken", "--input", "/data", "password=hunter3", {"secret": "s"}],
        "count": 3,
    }

    assert redaction.document(document) == {
        "conf": {"spark.ui.password": HIDDEN, "spark.master": "yarn"},
        "args": ["--token", HIDDEN, "--input", "/data", f"password={HIDDEN}", {"secret": HIDDEN}],
        "count": 3,
    }
    assert redaction.secrets(document) == {"hunter2", "t0ken", "hunter3", "s"}


@given(st.text(alphabet="abcxyz0189", min_size=6, max_size=20), st.text(max_size=30), st.text(max_size=30))
def test_known_secrets_leave_no_trace_in_a_text(secret, before, after):
    """A value that is known to be a secret is not in the text any more, wherever it stood."""
    assert secret not in redaction.text(f"{before}{secret}{after}{secret}", known=[secret])


def test_short_secrets_do_not_hide_words():
    """A password of one letter would hide every word that has it."""
    assert redaction.text("a plain text", known=["a"]) == "a plain text"
