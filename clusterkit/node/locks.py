"""File locks that end with the process that holds them, however it ends.

They are `flock` locks: each belongs to an open file, is inherited through `exec` and `fork`, and the kernel gives it
back when the last process that has the file open is gone.
"""

from __future__ import annotations

import fcntl
import os
import time

_POLL_S = 0.05
_HIGH = 200  # a descriptor that is inherited keeps clear of those that programs and shells count from 3 on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class Lock:
    """A lock that is held until it is closed.

    Parameters
    ----------
    descriptor : int
        The open file that it belongs to.
    """

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def note(self, text: str) -> None:
        """Write for those who wait what its holder is doing."""
        data = text.encode()
        os.pwrite(self.descriptor, data, 0)
        os.ftruncate(self.descriptor, len(data))

    def inherit(self) -> Lock:
        """Return the same lock on a descriptor that programs started by `exec` keep."""
        descriptor = fcntl.fcntl(self.descriptor, fcntl.F_DUPFD, _HIGH)
        self.close()
        return Lock(descriptor)

    def close(self) -> None:
        """Give it back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shared(path: str) -> Lock:
    """Wait for a lock that several may hold at once."""
    return _hold(path, fcntl.LOCK_SH, None)


def exclusive(path: str, waiting: Callable[[float, str], None] | None = None) -> Lock:
    """Wait for a lock that one alone may hold; `waiting` is told the seconds so far and what the holder noted."""
    return _hold(path, fcntl.LOCK_EX, waiting)


def exclusive_now(path: str) -> Lock | None:
    """Return a lock that one alone may hold, None when another holds it."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return Lock(descriptor)


def _hold(path: str, kind: int, waiting: Callable[[float, str], None] | None) -> Lock:
    descriptor = _open(path)
    try:
        if waiting is None:
            fcntl.flock(descriptor, kind)
        else:
            _poll(descriptor, kind, waiting)
    except BaseException:
        os.close(descriptor)
        raise
    return Lock(descriptor)


def _poll(descriptor: int, kind: int, waiting: Callable[[float, str], None]) -> None:
    started = time.monotonic()
    while True:
        try:
            return fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(time.monotonic() - started, os.pread(descriptor, 200, 0).decode(errors="replace"))
            time.sleep(_POLL_S)


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
