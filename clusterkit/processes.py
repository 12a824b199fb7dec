"""Processes: run one to its end, start one that stays, and end exactly those that were started.

A process is known by its pid *and* its start time, so that a reused pid is never taken for the process we started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_CLOCK_SLACK_S = 0.02
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of this machine, for as long as it lives.

    Parameters
    ----------
    pid : int
        The process id.
    started_s : float
        When it started, in seconds since the epoch, as the kernel reports it.
    """

    pid: int
    started_s: float

    @classmethod
    def from_pid(cls, pid: int) -> ProcessIdentity:
        """Return the identity of a living process.

        Raises
        ------
        ProcessLookupError
            If no process has this pid.
        """
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess as exc:
            raise ProcessLookupError(pid) from exc

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        process = self._process()
        if process is None:
            return False
        if _status(process) != psutil.STATUS_ZOMBIE:
            return True
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)  # ours: nobody else will collect it
        return False

    def signal(self, number: int) -> None:
        """Send a signal if the process still runs."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def rss_bytes(self) -> int:
        """Return the resident memory in bytes, 0 once it has ended."""
        process = self._process()
        with contextlib.suppress(psutil.NoSuchProcess):
            return process.memory_info().rss if process else 0
        return 0

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_s) <= _CLOCK_SLACK_S
        except psutil.NoSuchProcess:
            return None
        return process if same else None


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)


@dataclass(frozen=True, slots=True)
class Completed:
    """What a process that ran to its end left behind."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    def last_lines(self, count: int = 20) -> str:
        """Return the last lines it wrote, from stderr when there are any."""
        return "\n".join((self.stderr.strip() or self.stdout.strip()).splitlines()[-count:])


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> Completed:
    """Run a command to its end and return what it wrote.

    Parameters
    ----------
    argv : sequence of str
        The command and its arguments; no shell is involved.
    timeout_s : float
        Seconds after which the command is killed, > 0.
    env : mapping of str to str, optional
        The whole environment; the caller's own when absent.
    cwd : Path, optional
        The working directory.
    stdin : str, optional
        Text to write to its standard input, which is empty otherwise.

    Raises
    ------
    FileNotFoundError
        If the command does not exist.
    TimeoutError
        If it did not end in time; it was killed.
    """
    try:
        done = subprocess.run(
            list(argv),
            env=None if env is None else dict(env),
            cwd=cwd,
            input=stdin or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        msg = f"{argv[0]} did not end within {timeout_s:g} s"
        raise TimeoutError(msg) from exc
    return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)


def spawn_daemon(
    argv: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path, umask: int = -1
) -> ProcessIdentity:
    """Start a process that outlives us: its own session, no standard input, output appended to a log.

    Parameters
    ----------
    argv : sequence of str
        The command and its arguments.
    log : Path
        The file that receives its stdout and stderr; created with mode 0600.
    env : mapping of str to str
        Its whole environment.
    cwd : Path
        Its working directory.
    umask : int
        Its file mode creation mask; ours when negative.

    Returns
    -------
    ProcessIdentity
        The process that was started.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            umask=umask,
        )
    finally:
        os.close(descriptor)
    child.returncode = 0  # the identity stands for it from here on: no ResourceWarning when this handle goes
    return ProcessIdentity.from_pid(child.pid)


def end(processes: Iterable[ProcessIdentity], *, grace_s: float) -> tuple[ProcessIdentity, ...]:
    """End processes: SIGTERM to all, SIGKILL to those that are left after the grace period.

    Parameters
    ----------
    processes : iterable of ProcessIdentity
        What to end; those that have ended already are fine.
    grace_s : float
        Seconds they get between the two signals, >= 0.

    Returns
    -------
    tuple of ProcessIdentity
        Those that had to be killed.
    """
    left = tuple(process for process in processes if process.alive)
    for process in left:
        process.signal(signal.SIGTERM)
    left = _wait(left, grace_s)
    for process in left:
        process.signal(signal.SIGKILL)
    _wait(left, 5.0)
    return left


def _wait(processes: tuple[ProcessIdentity, ...], timeout_s: float) -> tuple[ProcessIdentity, ...]:
    deadline = time.monotonic() + timeout_s
    while (left := tuple(process for process in processes if process.alive)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return left


class Leashed:
    """A process group that ends when we do, however we end.

    A small supervisor (`leash.py`) stands between us and the command. It holds one end of a pipe, we hold the other:
    when ours closes, by `end` or because we were killed, it ends the whole group, SIGTERM first.

    Parameters
    ----------
    argv : sequence of str
        The command and its arguments.
    env : mapping of str to str
        Its whole environment.
    cwd : Path
        Its working directory.
    stdin, stdout, stderr : int or file object, optional
        As `subprocess.Popen` takes them; inherited when absent.
    umask : int
        Its file mode creation mask; ours when negative.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdin: int | IO[bytes] | None = None,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        umask: int = -1,
    ) -> None:
        theirs, self._ours = os.pipe()
        leash = [sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py")), str(theirs)]
        try:
            self._process = subprocess.Popen(
                [*leash, *argv],
                env=dict(env),
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(theirs,),
                process_group=0,
                umask=umask,
            )
        except BaseException:
            os.close(self._ours)
            raise
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int:
        """The supervisor's pid; it lives as long as the command does."""
        return self._process.pid

    @property
    def stdout(self) -> IO[bytes] | None:
        """The read end of its standard output, when it was started with a pipe."""
        return self._process.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        """The read end of its standard error, when it was started with a pipe."""
        return self._process.stderr

    @property
    def exit_code(self) -> int | None:
        """The command's exit code, 128 + n when signal n ended it, None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for its end and return the exit code; None when it still runs after `timeout_s` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self.exit_code

    def close_stdin(self) -> None:
        """Close the command's standard input, when it was started with a pipe."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def end(self) -> int:
        """End the group and return the command's exit code."""
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1
        self.close_stdin()
        return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
