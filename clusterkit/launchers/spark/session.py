"""A SparkSession in this Python whose driver JVM is planned and started as a job's is.

The one module that imports pyspark to run a session.
"""

from __future__ import annotations

import atexit
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clusterkit.errors import LaunchError
from clusterkit.launchers.spark.conf import SESSION_DEFAULTS
from clusterkit.launchers.spark.jvm import SparkJvm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pyspark.sql import SparkSession

    from clusterkit.launchers.spark.plan import SparkPlan

_START_TIMEOUT_S = 120.0
_POLL_S = 0.02


def inside_job(environ: Mapping[str, str]) -> bool:
    """Whether this Python is the driver of a job, whose JVM is there already."""
    return "PYSPARK_GATEWAY_PORT" in environ


def session_of_job(name: str | None) -> SparkSession:
    """Return the session of the job that this Python is the driver of, with clusterkit's session defaults."""
    from pyspark.sql import SparkSession  # noqa: PLC0415 - slow, and only needed here

    builder = SparkSession.builder if name is None else SparkSession.builder.appName(name)
    session = builder.getOrCreate()
    for key, value in SESSION_DEFAULTS.items():
        if session.conf.get(key, None) is None and session.conf.isModifiable(key):
            session.conf.set(key, value)
    return session


def active() -> SparkSession | None:
    """Return the session that runs in this Python already, None when none does."""
    from pyspark.sql import SparkSession  # noqa: PLC0415

    return SparkSession.getActiveSession()


def start(plan: SparkPlan, *, environ: Mapping[str, str]) -> SparkSession:
    """Start the driver's JVM, connect to it, and return its session; the JVM ends with this Python.

    Parameters
    ----------
    plan : SparkPlan
        The plan of the session.
    environ : mapping of str to str
        The environment the JVM starts from.

    Raises
    ------
    LaunchError
        If the JVM ends, or does not answer in time.
    """
    from pyspark import SparkConf, SparkContext  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    jvm = SparkJvm(plan, environ=environ)
    atexit.register(jvm.end)
    _await_gateway(jvm, plan)
    gateway = _gateway(plan.gateway)
    plan.gateway.unlink()
    context = SparkContext(gateway=gateway, conf=SparkConf(_jvm=gateway.jvm))
    return SparkSession(context)


def stop_context(gateway: Path, exit_code: int) -> None:
    """Stop the SparkContext of a job that failed, so that YARN learns of the failure.

    Left to itself the JVM would stop it as if all had gone well, and YARN would report a success.

    Parameters
    ----------
    gateway : Path
        Where the job's JVM wrote how it is reached.
    exit_code : int
        The job's exit code.
    """
    if not gateway.is_file():
        return
    connection = _gateway(gateway)
    try:
        companion = getattr(getattr(connection.jvm.org.apache.spark, "SparkContext$"), "MODULE$")
        context = companion.getActive()
        if context.isDefined():
            context.get().stop(exit_code)
    finally:
        connection.shutdown_callback_server()
        connection.close()


def _await_gateway(jvm: SparkJvm, plan: SparkPlan) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while not plan.gateway.is_file():
        if jvm.wait(_POLL_S) is not None or time.monotonic() > deadline_s:
            jvm.end()
            raise LaunchError(
                "the session's driver did not start",
                why=jvm.log_tail.strip()[-2000:] or "its JVM did not open a gateway",
                mend=f"read its log: {plan.driver_log}",
            )


def _gateway(path: Path) -> Any:
    """Connect to the JVM that wrote its port and its secret to a file, for us alone to read."""
    from pyspark.java_gateway import launch_gateway  # noqa: PLC0415
    from pyspark.serializers import UTF8Deserializer, read_int  # noqa: PLC0415

    with path.open("rb") as stream:
        port, secret = read_int(stream), UTF8Deserializer().loads(stream)
    with _in_environment({"PYSPARK_GATEWAY_PORT": str(port), "PYSPARK_GATEWAY_SECRET": str(secret)}):
        return launch_gateway()


@contextmanager
def _in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a moment: pyspark reads a gateway's address from nowhere else."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
