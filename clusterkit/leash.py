"""Run a command in a process group of its own, and end the group when the other end of a pipe closes.

Started by `clusterkit.processes.Leashed` as `python -I -S leash.py FD COMMAND...`; the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time

GRACE_S = 8.0


def main(argv: list[str]) -> int:
    """Run the command and return its exit code, 128 + n when signal n ended it."""
    lease = int(argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(argv[2:], process_group=0)
    signal.signal(signal.SIGTERM, lambda *_: _signal(child.pid, signal.SIGTERM))
    if not _ended_first(child, lease):
        _signal(child.pid, signal.SIGTERM)
        _wait(child, GRACE_S)
    _signal(child.pid, signal.SIGKILL)
    code = child.wait()
    return code if code >= 0 else 128 - code


def _ended_first(child: subprocess.Popen[bytes], lease: int) -> bool:
    """Wait for whichever comes first: the command's end (true), or the end of the lease (false)."""
    with selectors.DefaultSelector() as selector:
        selector.register(lease, selectors.EVENT_READ)
        pidfd = os.pidfd_open(child.pid)
        selector.register(pidfd, selectors.EVENT_READ)
        ready = {key.fd for key, _ in selector.select()}
    os.close(pidfd)
    return pidfd in ready


def _wait(child: subprocess.Popen[bytes], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
