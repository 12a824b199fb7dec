"""The JVM of a launch: Spark's driver in client mode, the hand-over to YARN in cluster mode."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.launchers.spark import conf as spark_conf
from clusterkit.launchers.spark.plan import CONFIGURATION_JAR, PROPERTIES, staged_job
from clusterkit.processes import Leashed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterkit.launchers.spark.plan import SparkPlan

_TAIL_BYTES = 65536
_SUBMITTED = re.compile(r"Submitted application (application_\d+_\d+)")
_REFUSED = re.compile(r"Failed to submit (application_\d+_\d+)")
_UPLOADING = re.compile(r"Uploading resource (\S+) ->")
_EARLIEST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_DRIVER_CLASSES = Path(__file__).parent / "driver_classes"

_LOG4J = """\
status = error
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = ${env:_CLUSTERKIT_DRIVER_LOG}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{yy/MM/dd HH:mm:ss.SSS} %p %c{1}: %m%n%ex
"""


class SparkJvm:
    """The running JVM of a launch; it ends with us, however we end.

    Parameters
    ----------
    plan : SparkPlan
        What it runs; the files of the launch are written first.
    environ : mapping of str to str
        The environment it starts from.
    """

    def __init__(self, plan: SparkPlan, *, environ: Mapping[str, str]) -> None:
        self._plan = plan
        self._id: str | None = None
        self._uploads: frozenset[str] = frozenset()
        write_files(plan)
        with plan.jvm_output.open("wb") as output:
            self._process = Leashed(
                plan.argv,
                env={**environ, **plan.environment},
                cwd=Path.cwd(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )

    @property
    def pid(self) -> int:
        """The pid of the process that holds its leash, and lives as long as it does."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.exit_code

    @property
    def application_id(self) -> str | None:
        """The YARN application it submitted, None before it has."""
        self._read_log()
        return self._id

    @property
    def refused_id(self) -> str | None:
        """The last YARN application that ended before its submission was confirmed; a job may go on after it."""
        refused = _REFUSED.findall(self._log())
        return refused[-1] if refused else None

    @property
    def uploaded(self) -> frozenset[str]:
        """The names of the files whose upload has begun."""
        self._read_log()
        return self._uploads

    @property
    def log_tail(self) -> str:
        """The end of Spark's log, and of what the JVM itself printed."""
        return _tail(self._plan.driver_log) + _tail(self._plan.jvm_output)

    def wait(self, timeout_s: float) -> int | None:
        """Wait up to `timeout_s` seconds for its end and return the exit code, None while it runs."""
        return self._process.wait(timeout_s)

    def finish(self, timeout_s: float) -> None:
        """Let it end by itself, as it does when its standard input closes; end it when it takes longer."""
        self._process.close_stdin()
        self._process.wait(timeout_s)
        self.end()

    def end(self) -> int:
        """End it and all that it started, and return its exit code."""
        code = self._process.end()
        self._plan.gateway.unlink(missing_ok=True)  # it holds a secret, of no use any more
        return code

    def _read_log(self) -> None:
        if self._id is not None:
            return  # nothing of a submission is written after its id
        text = self._log()
        self._uploads = frozenset(uri.rpartition("/")[2] for uri in _UPLOADING.findall(text))
        found = _SUBMITTED.search(text)
        self._id = found[1] if found else None

    def _log(self) -> str:
        try:
            return self._plan.driver_log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""


def write_files(plan: SparkPlan) -> None:
    """Write the files of a launch into its directory, readable by this user alone: they may hold secrets."""
    plan.directory.mkdir(parents=True, mode=0o700)
    _write(plan.directory / PROPERTIES, spark_conf.write_properties(plan.conf).encode())
    _write_configuration_jar(plan.directory / CONFIGURATION_JAR, plan.conf_dir)
    staged = staged_job(plan.spec, plan.directory)
    if staged is not None:
        _write(staged, plan.spec.job.read_bytes())


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)


def _write_configuration_jar(path: Path, conf_dir: Path) -> None:
    """Pack the Hadoop configuration, the logging and our classes: a directory on the path rules an archive out."""
    with zipfile.ZipFile(path, "x") as jar:
        for source in sorted(conf_dir.glob("*-site.xml")):
            jar.writestr(zipfile.ZipInfo(source.name, _EARLIEST_ZIP_DATE), source.read_bytes())
        jar.writestr(zipfile.ZipInfo("log4j2.properties", _EARLIEST_ZIP_DATE), _LOG4J)
        for source in sorted(_DRIVER_CLASSES.rglob("*.class")):
            name = source.relative_to(_DRIVER_CLASSES).as_posix()
            jar.writestr(zipfile.ZipInfo(name, _EARLIEST_ZIP_DATE), source.read_bytes())
    path.chmod(0o600)


def _tail(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - _TAIL_BYTES))
        return stream.read().decode("utf-8", errors="replace")
    return ""
