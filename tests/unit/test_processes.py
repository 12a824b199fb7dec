"""Processes: run to the end, left running, ended; and the leash that ends a group with its owner."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from clusterkit import processes
from clusterkit.processes import Leashed, ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PYTHON = sys.executable
SLEEPER = "import time; print('ready', flush=True); time.sleep(120)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"


def until(condition: Callable[[], object], what: str, timeout_s: float = 20) -> None:
    """Wait for a condition, and say what did not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(0.01)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[str], ProcessIdentity]]:
    """Return a function that starts Python code as a daemon and waits until it prints."""
    identities: list[ProcessIdentity] = []

    def start(code: str) -> ProcessIdentity:
        log = tmp_path / f"{len(identities)}.log"
        identity = processes.spawn_daemon([PYTHON, "-c", code], log=log, env={}, cwd=tmp_path)
        identities.append(identity)
        until(log.read_text, "output of the process")
        return identity

    yield start
    for identity in identities:
        identity.signal(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(identity.pid, 0)


def test_run_returns_what_a_command_leaves(tmp_path: Path) -> None:
    """Exit code, both streams, arguments, environment, directory and standard input are what was asked for."""
    code = (
        "import os, sys; print(sys.argv[1:], os.getcwd(), sorted(os.environ), sys.stdin.read());"
        "print('oops', file=sys.stderr); sys.exit(3)"
    )
    argv = [PYTHON, "-I", "-c", code, "a b", "$(x);'\n"]
    done = processes.run(argv, timeout_s=30, env={"LC_ALL": "C.UTF-8", "A": "1"}, cwd=tmp_path, stdin="text")
    assert (done.argv, done.exit_code, done.stderr) == (tuple(argv), 3, "oops\n")
    assert done.stdout == f"{['a b', '$(x);' + chr(39) + chr(10)]} {tmp_path} ['A', 'LC_ALL'] text\n"


def test_run_survives_bytes_that_are_no_text() -> None:
    """Output that is not UTF-8 is kept as far as it can be read."""
    done = processes.run([PYTHON, "-c", "import os; os.write(1, b'a\\xffb')"], timeout_s=30)
    assert done.stdout == "a\ufffdb"


def test_run_kills_what_does_not_end() -> None:
    """A command that takes too long is killed and named."""
    with pytest.raises(TimeoutError, match=r"sleep did not end within 0.1 s"):
        processes.run(["sleep", "60"], timeout_s=0.1)


def test_run_tells_a_missing_command() -> None:
    """A command that does not exist is told from one that fails."""
    with pytest.raises(FileNotFoundError):
        processes.run(["/no/such/command"], timeout_s=1)


def test_last_lines_prefer_stderr() -> None:
    """The last lines are those of stderr, or of stdout when stderr is empty."""
    both = processes.Completed(("x",), 1, "out\n", "one\ntwo\nthree\n")
    assert both.last_lines(2) == "two\nthree"
    assert processes.Completed(("x",), 1, "out\n", "\n").last_lines() == "out"


def test_daemon_stands_alone(started: Callable[[str], ProcessIdentity], tmp_path: Path) -> None:
    """A daemon has a session of its own and a log that only its user reads."""
    identity = started(SLEEPER)
    assert os.getsid(identity.pid) == identity.pid
    assert (tmp_path / "0.log").read_text() == "ready\n"
    assert (tmp_path / "0.log").stat().st_mode & 0o777 == 0o600
    assert identity.rss_bytes() > 1024 * 1024


def test_daemon_appends_to_its_log(tmp_path: Path) -> None:
    """What an earlier run wrote stays."""
    log = tmp_path / "log"
    log.write_text("before\n")
    identity = processes.spawn_daemon(["/bin/echo", "after"], log=log, env={}, cwd=tmp_path)
    until(lambda: not identity.alive, "the end of echo")
    assert log.read_text() == "before\nafter\n"


def test_daemon_has_the_mask_it_was_given(tmp_path: Path) -> None:
    """What a daemon writes is as private as it was told to be."""
    made = tmp_path / "made"
    identity = processes.spawn_daemon(
        ["/bin/touch", str(made)], log=tmp_path / "log", env={}, cwd=tmp_path, umask=0o077
    )
    until(lambda: not identity.alive, "the end of touch")
    assert made.stat().st_mode & 0o777 == 0o600


def test_zombie_does_not_live(started: Callable[[str], ProcessIdentity]) -> None:
    """A process that ended is not alive, though nobody has collected it yet."""
    identity = started("print('x')")
    until(lambda: not identity.alive, "the end of the process")
    assert identity.rss_bytes() == 0
    assert not psutil.pid_exists(identity.pid)


def test_reused_pid_is_another_process(started: Callable[[str], ProcessIdentity]) -> None:
    """A process with the pid but not the start time of ours is neither alive nor signalled."""
    other = started(SLEEPER)
    ours = ProcessIdentity(other.pid, other.started_s - 60)
    ours.signal(signal.SIGKILL)
    assert processes.end([ours], grace_s=0) == ()
    assert (ours.alive, ours.rss_bytes(), other.alive) == (False, 0, True)


def test_identity_of_nobody() -> None:
    """A pid that nobody has gives no identity."""
    done = subprocess.Popen(["/bin/true"])
    done.wait()
    with pytest.raises(ProcessLookupError):
        ProcessIdentity.from_pid(done.pid)


def test_end_asks_before_it_kills(started: Callable[[str], ProcessIdentity]) -> None:
    """Only what ignores SIGTERM is killed, and it is named."""
    polite, stubborn = started(SLEEPER), started(STUBBORN)
    assert processes.end([polite, stubborn], grace_s=0.5) == (stubborn,)
    assert (polite.alive, stubborn.alive) == (False, False)
    assert processes.end([polite, stubborn], grace_s=0.5) == ()


def test_leashed_returns_the_exit_code(tmp_path: Path) -> None:
    """The command's exit code and output come through."""
    argv = [PYTHON, "-c", "import sys; print(sys.stdin.read().upper()); sys.exit(3)"]
    source = tmp_path / "in"
    source.write_text("abc")
    with (
        source.open("rb") as stdin,
        Leashed(argv, env={}, cwd=tmp_path, stdin=stdin, stdout=subprocess.PIPE) as leashed,
    ):
        assert leashed.stdout is not None
        assert leashed.stdout.read() == b"ABC\n"
        assert leashed.wait(20) == 3


def test_leashed_ends_when_its_input_does(tmp_path: Path) -> None:
    """Closing the standard input of a command that reads to the end lets it end by itself."""
    with Leashed(["/bin/cat"], env={}, cwd=tmp_path, stdin=subprocess.PIPE) as leashed:
        assert ProcessIdentity.from_pid(leashed.pid).alive
        leashed.close_stdin()
        assert leashed.wait(20) == 0


def test_leashed_tells_the_signal(tmp_path: Path) -> None:
    """A command that a signal ended has 128 and the signal's number."""
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with Leashed([PYTHON, "-c", code], env={}, cwd=tmp_path) as leashed:
        assert leashed.wait(20) == 137


FAMILY = (
    "import subprocess, sys, time;"
    f"child = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]);"
    "print(child.pid, flush=True); time.sleep(120)"
)


def test_leashed_ends_the_whole_group(tmp_path: Path) -> None:
    """Ending the leash ends the command and its children, also one that ignores SIGTERM."""
    with Leashed([PYTHON, "-c", FAMILY], env={}, cwd=tmp_path, stdout=subprocess.PIPE) as leashed:
        assert leashed.stdout is not None
        lines = {leashed.stdout.readline(), leashed.stdout.readline()}
        grandchild = ProcessIdentity.from_pid(next(int(line) for line in lines if line.strip().isdigit()))
        assert leashed.wait(0) is None
        assert leashed.end() == 143
    until(lambda: not grandchild.alive, "the end of the grandchild")


def test_leash_outlives_its_owner_by_nothing(tmp_path: Path) -> None:
    """When the owner is killed with SIGKILL, the group it held ends."""
    owner_code = (
        "import pathlib, sys, time; from clusterkit.processes import Leashed;"
        f"leashed = Leashed([sys.executable, '-c', {FAMILY!r}], env={{}}, cwd=pathlib.Path('/'));"
        "time.sleep(120)"
    )
    owner = subprocess.Popen([PYTHON, "-c", owner_code], stdout=subprocess.PIPE, cwd=tmp_path)
    assert owner.stdout is not None
    lines = {owner.stdout.readline(), owner.stdout.readline()}
    group = [ProcessIdentity.from_pid(int(line)) for line in lines if line.strip().isdigit()]
    group += [ProcessIdentity.from_pid(child.pid) for child in psutil.Process(owner.pid).children(recursive=True)]
    owner.kill()
    owner.wait()
    owner.stdout.close()
    until(lambda: not any(process.alive for process in group), "the end of the group")
    assert len(group) == 4


def test_leash_of_a_missing_command(tmp_path: Path) -> None:
    """A command that does not exist ends the leash with a failure, at once."""
    with Leashed(["/no/such/command"], env={}, cwd=tmp_path, stderr=subprocess.DEVNULL) as leashed:
        assert leashed.wait(20) == 1
