"""Environment variables on their way into a container: what was asked for is what the process gets."""

from __future__ import annotations

import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from clusterkit.launchers.spark.conf import in_launch_script

VALUES = st.text(
    st.sampled_from(list("${}<>\"'`\\!* \n\tAx=;&|#é日"))
    | st.characters(exclude_categories=["Cs"], exclude_characters="\0")
)


def received(values: list[str]) -> list[str]:
    """Return what processes find in their environment, by way of the script that a NodeManager writes."""
    exports = "".join(f'export V{i}="{as_yarn_expands(in_launch_script(value))}"\n' for i, value in enumerate(values))
    show = "".join(f"printf '%s\\0' \"$V{i}\"\n" for i in range(len(values)))
    done = subprocess.run(
        ["/bin/bash"], input=f"#!/bin/bash\n{exports}{show}".encode(), capture_output=True, check=True
    )
    assert done.stderr == b""
    return [text.decode() for text in done.stdout.split(b"\0")[:-1]]


def as_yarn_expands(value: str) -> str:
    """Do as `ContainerLaunch.expandEnvironment` of Hadoop 3.5 does."""
    for name, meaning in (("<LOG_DIR>", "/logs"), ("<CPS>", ":"), ("<ADD_OPENS>", ""), ("{{", "$"), ("}}", "")):
        value = value.replace(name, meaning)
    return value


@given(
    st.lists(VALUES | st.sampled_from(["<LOG_DIR>", "a<CPS>b", "{{PATH}}", "{{{}}}", "$(exit 3)", "`id`"]), max_size=8)
)
@settings(max_examples=50, deadline=None)
def test_any_value_arrives(values: list[str]) -> None:
    """Quotes, dollars, braces, placeholders, line ends and other alphabets reach the process unchanged."""
    assert received(values) == values
