"""The local side of a job: the job's own Python beside Spark's JVM in client mode, the hand-over in cluster mode."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from clusterkit.launchers.spark.conf import executors_wanted
from clusterkit.launchers.spark.jvm import SparkJvm
from clusterkit.processes import Leashed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterkit.launchers.spark.plan import SparkPlan

_TAIL_PIECES = 400
_PIECE_BYTES = 65536
_GOODBYE_S = 10.0


@dataclass(frozen=True, slots=True)
class Output:
    """Where a job's streams go.

    Parameters
    ----------
    stdout : callable, optional
        Receives each piece of standard output; None hands our own to the job, untouched.
    stderr : callable, optional
        Receives each piece of standard error; None copies it to our own.
    """

    stdout: Callable[[bytes], None] | None = None
    stderr: Callable[[bytes], None] | None = None


class Handover:
    """The submission of a job in cluster mode: the JVM gives it to YARN and ends.

    Parameters
    ----------
    plan : SparkPlan
        What it runs.
    environ : mapping of str to str
        The environment it starts from.
    """

    holds_job = False

    def __init__(self, plan: SparkPlan, *, environ: Mapping[str, str]) -> None:
        self._plan = plan
        self._jvm = SparkJvm(plan, environ=environ)

    @property
    def exit_code(self) -> int | None:
        """The JVM's exit code, None while it runs; it says nothing of the job."""
        return self._jvm.exit_code

    @property
    def application_id(self) -> str | None:
        """The YARN application it submitted, None before it has."""
        return self._jvm.application_id or (self._jvm.refused_id if self.exit_code is not None else None)

    @property
    def uploads(self) -> Mapping[str, int]:
        """The size in bytes of each file that travels, by name."""
        return {upload.path.name: upload.size_bytes for upload in self._plan.uploads}

    @property
    def uploaded(self) -> frozenset[str]:
        """The names of the files whose upload has begun."""
        return self._jvm.uploaded

    @property
    def spec(self) -> Mapping[str, Any]:
        """What was asked for, as plain values."""
        plain: dict[str, Any] = msgspec.to_builtins(self._plan.spec, enc_hook=str)
        return plain

    @property
    def image(self) -> Mapping[str, str]:
        """The environment image it runs from; empty where there is none."""
        return self._plan.image

    @property
    def executors(self) -> int:
        """How many executors it asks for, at most."""
        return executors_wanted(self._plan.conf)

    @property
    def stderr_tail(self) -> str:
        """Nothing: the job's standard error is on the cluster."""
        return ""

    @property
    def log_tail(self) -> str:
        """The last part of Spark's log."""
        return self._jvm.log_tail

    def wait(self, timeout_s: float) -> int | None:
        """Wait up to `timeout_s` seconds for the JVM's end and return its exit code, None while it runs."""
        return self._jvm.wait(timeout_s)

    def end(self) -> int:
        """End the JVM and return its exit code."""
        return self._jvm.end()


class Driver(Handover):
    """A job in client mode: its own Python, and the JVM that it finds waiting when it asks for Spark.

    Both start at once, so that the job's imports and Spark's start overlap. The job is a plain process of ours: its
    streams, its terminal and its exit code are its own.

    Parameters
    ----------
    plan : SparkPlan
        What it runs.
    environ : mapping of str to str
        The environment it starts from.
    output : Output, optional
        Where the job's streams go.
    """

    holds_job = True

    def __init__(self, plan: SparkPlan, *, environ: Mapping[str, str], output: Output | None = None) -> None:
        super().__init__(plan, environ=environ)
        output = output or Output()
        self._tail: deque[bytes] = deque(maxlen=_TAIL_PIECES)
        self._farewell: threading.Thread | None = None
        self._job = Leashed(
            plan.job_argv,
            env=_job_environment(plan, environ) | {"_CLUSTERKIT_GATEWAY_PID": str(self._jvm.pid)},
            cwd=Path.cwd(),
            stdin=subprocess.DEVNULL if sys.stdin is None or sys.stdin.isatty() else None,
            stdout=subprocess.PIPE if output.stdout else None,
            stderr=subprocess.PIPE,
        )
        self._pumps = [
            _pump(self._job.stdout, output.stdout),
            _pump(self._job.stderr, self._keeping(output.stderr or _to_stderr)),
        ]

    @property
    def exit_code(self) -> int | None:
        """The job's exit code, None while it runs."""
        return self._job.exit_code

    @property
    def stderr_tail(self) -> str:
        """The last part of the job's standard error."""
        return b"".join(self._tail).decode("utf-8", errors="replace")

    def wait(self, timeout_s: float) -> int | None:
        """Wait up to `timeout_s` seconds for the job's end and return its exit code, None while it runs."""
        code = self._job.wait(timeout_s)
        if code is not None and self._farewell is None:
            self._drain()
            self._farewell = threading.Thread(target=self._finish_jvm, args=(code,), name="clusterkit-farewell")
            self._farewell.start()
        return code

    def _finish_jvm(self, exit_code: int) -> None:
        """Let Spark's JVM end by itself, beside whatever is done with the exit code; the process ends after it has."""
        self._tell_yarn(exit_code)
        self._jvm.finish(_GOODBYE_S)

    def _tell_yarn(self, exit_code: int) -> None:
        """Have a failed job end as a failed application; a JVM that is gone or busy is left to end by itself."""
        if exit_code != 0 and self.application_id is not None:
            from clusterkit.launchers.spark import session  # noqa: PLC0415 - loads pyspark, and only after a failure

            with contextlib.suppress(Exception):
                session.stop_context(self._plan.gateway, exit_code)

    def end(self) -> int:
        """End the job and Spark's JVM, and return the job's exit code."""
        code = self._job.end()
        if self._farewell is not None:
            self._farewell.join()
        self._jvm.end()
        self._drain()
        return code

    def _keeping(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def keep(piece: bytes) -> None:
            self._tail.append(piece)
            write(piece)

        return keep

    def _drain(self) -> None:
        """Let what the job wrote last be copied before its end is reported."""
        for pump in self._pumps:
            pump.join(timeout=5)


def start(plan: SparkPlan, *, environ: Mapping[str, str], output: Output | None = None) -> Handover:
    """Start what a plan says, and return its local side."""
    if plan.spec.deploy_mode == "cluster":
        return Handover(plan, environ=environ)
    return Driver(plan, environ=environ, output=output)


def _job_environment(plan: SparkPlan, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the job's environment: it imports what was sent along, and pyspark, before what the caller's path has."""
    paths = [*map(str, plan.job_path), plan.environment.get("PYTHONPATH") or environ.get("PYTHONPATH")]
    return {**environ, **plan.environment, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _pump(stream: IO[bytes] | None, write: Callable[[bytes], None] | None) -> threading.Thread:
    """Copy a stream, as it comes, in a thread that ends with the stream."""
    pump = threading.Thread(target=_copy, args=(stream, write), name="clusterkit-output", daemon=True)
    pump.start()
    return pump


def _copy(stream: IO[bytes] | None, write: Callable[[bytes], None] | None) -> None:
    if stream is None or write is None:
        return
    with contextlib.suppress(ValueError, OSError), stream:  # closed under us when the driver is ended
        while piece := os.read(stream.fileno(), _PIECE_BYTES):
            write(piece)


def _to_stderr(piece: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.buffer.write(piece)
        sys.stderr.buffer.flush()
