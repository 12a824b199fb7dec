"""The local process of a launch: the driver itself in client mode, the hand-over to YARN in cluster mode."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from clusterkit.launchers.spark import conf as spark_conf
from clusterkit.launchers.spark.plan import CONFIGURATION_JAR, PROPERTIES, job_uri, staged_name
from clusterkit.processes import Leashed
from clusterkit.specs.job import SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterkit.launchers.spark.plan import SparkPlan

_TAIL_LINES = 400
_SUBMITTED = re.compile(r"Submitted application (application_\d+_\d+)")
_UPLOADING = re.compile(r"Uploading resource (\S+) ->")
_EARLIEST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)

_LOG4J = """\
status = error
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = ${env:CLUSTERKIT_DRIVER_LOG}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{yy/MM/dd HH:mm:ss.SSS} %p %c{1}: %m%n%ex
"""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a job's streams go.

    Parameters
    ----------
    stdout : callable, optional
        Receives each piece of standard output; None hands our own to the job, untouched.
    stderr : callable, optional
        Receives each line of standard error; None copies it to our own.
    """

    stdout: Callable[[bytes], None] | None = None
    stderr: Callable[[bytes], None] | None = None


class Driver:
    """The running process of a launch.

    Use it as a context manager or call `end`: the process group never outlives us.

    Parameters
    ----------
    plan : SparkPlan
        What it runs.
    environ : mapping of str to str
        The environment it starts from.
    output : Output, optional
        Where the job's streams go.
    """

    def __init__(self, plan: SparkPlan, *, environ: Mapping[str, str], output: Output | None = None) -> None:
        output = output or Output()
        self._plan = plan
        self._log = _LogReader(plan.driver_log)
        self._tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        write_files(plan)
        self._process = Leashed(
            plan.argv,
            env=_environment(plan, environ),
            cwd=Path.cwd(),
            stdin=subprocess.DEVNULL if sys.stdin is None or sys.stdin.isatty() else None,
            stdout=subprocess.PIPE if output.stdout else None,
            stderr=subprocess.PIPE,
        )
        self._pumps = [
            threading.Thread(target=pump, args=arguments, name="clusterkit-output", daemon=True)
            for pump, arguments in (
                (_copy, (self._process.stdout, output.stdout)),
                (_copy, (self._process.stderr, self._keeping(output.stderr or _to_stderr))),
            )
        ]
        for thread in self._pumps:
            thread.start()

    @property
    def exit_code(self) -> int | None:
        """The process's exit code, None while it runs."""
        return self._process.exit_code

    @property
    def application_id(self) -> str | None:
        """The YARN application it submitted, None before it has, or when the job never asks for one."""
        return self._log.application_id

    @property
    def holds_job(self) -> bool:
        """Whether the job itself runs in it, so that its exit code is the job's."""
        return self._plan.spec.deploy_mode == "client"

    @property
    def uploads(self) -> Mapping[str, int]:
        """The size in bytes of each file that travels, by name."""
        return {upload.path.name: upload.size_bytes for upload in self._plan.uploads}

    @property
    def uploaded(self) -> frozenset[str]:
        """The names of the files whose upload has begun."""
        self._log.read()
        return frozenset(uri.rpartition("/")[2] for uri in self._log.uploads)

    @property
    def stderr_tail(self) -> str:
        """The last lines of the job's standard error."""
        return b"".join(self._tail).decode("utf-8", errors="replace")

    @property
    def log_path(self) -> Path:
        """Where Spark's log of it is."""
        return self._plan.driver_log

    @property
    def log_tail(self) -> str:
        """The last part of the driver's log."""
        return self._log.tail()

    def wait(self, timeout_s: float) -> int | None:
        """Wait up to `timeout_s` seconds for the end and return the exit code, None while it runs."""
        code = self._process.wait(timeout_s)
        if code is not None:
            self._drain()
        return code

    def end(self) -> int:
        """End the process group and return its exit code."""
        code = self._process.end()
        self._drain()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _keeping(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def keep(line: bytes) -> None:
            self._tail.append(line)
            write(line)

        return keep

    def _drain(self) -> None:
        """Let what the job wrote last be copied before its end is reported."""
        for thread in self._pumps:
            thread.join(timeout=5)


def _copy(stream: IO[bytes] | None, write: Callable[[bytes], None] | None) -> None:
    if stream is None or write is None:
        return
    with contextlib.suppress(ValueError, OSError), stream:  # closed under us when the driver is ended
        for line in stream:
            write(line)


def _to_stderr(piece: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.buffer.write(piece)
        sys.stderr.buffer.flush()


class _LogReader:
    """Reads what a driver's log has gained, and remembers the facts of a submission."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._id: str | None = None
        self.uploads: list[str] = []

    @property
    def application_id(self) -> str | None:
        self.read()
        return self._id

    def read(self) -> None:
        if self._id is not None:
            return  # nothing of a submission comes after its id
        with contextlib.suppress(FileNotFoundError):
            with self._path.open(encoding="utf-8", errors="replace") as stream:
                text = stream.read()
            self.uploads = _UPLOADING.findall(text)
            if found := _SUBMITTED.search(text):
                self._id = found[1]

    def tail(self, size_bytes: int = 65536) -> str:
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - size_bytes))
            return stream.read().decode("utf-8", errors="replace")
        return ""


def _environment(plan: SparkPlan, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's environment with the plan's variables; its PYTHONPATH stays, behind the plan's."""
    paths = [plan.environment.get("PYTHONPATH"), environ.get("PYTHONPATH")]
    merged = {**environ, **plan.environment}
    if any(paths):
        merged["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return merged


def write_files(plan: SparkPlan) -> None:
    """Write the files of a launch into its directory, readable by this user alone: they may hold secrets."""
    plan.directory.mkdir(parents=True, mode=0o700)
    _write(plan.directory / PROPERTIES, spark_conf.write_properties(plan.conf).encode())
    _write_configuration_jar(plan.directory / CONFIGURATION_JAR, plan.conf_dir)
    staged = plan.directory / staged_name(plan.spec.job)
    if plan.spec.job != SESSION and job_uri(plan.spec, plan.directory) == staged.as_uri():
        _write(staged, plan.spec.job.read_bytes())


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)


def _write_configuration_jar(path: Path, conf_dir: Path) -> None:
    """Pack the Hadoop configuration and the driver's logging: a directory on the class path rules an archive out."""
    with zipfile.ZipFile(path, "x") as jar:
        for source in sorted(conf_dir.glob("*-site.xml")):
            jar.writestr(zipfile.ZipInfo(source.name, _EARLIEST_ZIP_DATE), source.read_bytes())
        jar.writestr(zipfile.ZipInfo("log4j2.properties", _EARLIEST_ZIP_DATE), _LOG4J)
    path.chmod(0o600)
