"""A SparkSession in this Python whose driver JVM is planned and started as a job's is.

The one module that imports pyspark to run a session.
"""

from __future__ import annotations

import atexit
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clusterkit.errors import LaunchError
from clusterkit.launchers.spark.conf import SESSION_DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pyspark.sql import SparkSession

    from clusterkit.launchers.spark.driver import Driver

_GATEWAY_FILE = "gateway"
_START_TIMEOUT_S = 120.0


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


def gateway_variable(directory: Path) -> dict[str, str]:
    """Return what tells the driver's JVM to wait for this Python, and where to write how it is reached."""
    return {"_PYSPARK_DRIVER_CONN_INFO_PATH": str(directory / _GATEWAY_FILE), "SPARK_CONNECT_MODE": "0"}


def connect(driver: Driver, directory: Path) -> SparkSession:
    """Wait for the driver's JVM, connect to it, and return its session.

    Parameters
    ----------
    driver : Driver
        The running driver; it is ended when this Python ends.
    directory : Path
        The directory of the launch.

    Raises
    ------
    LaunchError
        If the JVM ends, or does not answer in time.
    """
    from pyspark import SparkConf, SparkContext  # noqa: PLC0415
    from pyspark.java_gateway import launch_gateway  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    atexit.register(driver.end)
    port, secret = _connection(driver, directory / _GATEWAY_FILE)
    with _in_environment({"PYSPARK_GATEWAY_PORT": port, "PYSPARK_GATEWAY_SECRET": secret}):
        gateway = launch_gateway()
    context = SparkContext(gateway=gateway, conf=SparkConf(_jvm=gateway.jvm))
    return SparkSession(context)


def _connection(driver: Driver, path: Path) -> tuple[str, str]:
    """Read the port and the secret that the JVM wrote for us alone."""
    from pyspark.serializers import UTF8Deserializer, read_int  # noqa: PLC0415

    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while not path.is_file():
        if driver.wait(0.05) is not None or time.monotonic() > deadline_s:
            driver.end()
            raise LaunchError(
                "the session's driver did not start",
                why=driver.stderr_tail.strip() or "its JVM did not open a gateway",
                mend=f"read its log: {driver.log_path}",
            )
    with path.open("rb") as stream:
        port, secret = read_int(stream), UTF8Deserializer().loads(stream)
    path.unlink()
    return str(port), str(secret)


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
