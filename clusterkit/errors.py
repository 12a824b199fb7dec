"""The errors clusterkit raises: each says what happened, why, and how to mend it.

Every expected failure is a `ClusterkitError`. The command line prints it as three lines and exits with the
kind's `exit_code`; the library raises the same object, so that nothing has to be parsed out of a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

EXIT_REQUEST = 64
"""The request is wrong: usage, a specification, a setting (`EX_USAGE` of sysexits.h)."""

EXIT_SURROUNDINGS = 69
"""The surroundings are wrong: cluster, store, image, host, launch (`EX_UNAVAILABLE`)."""

EXIT_BUG = 70
"""A bug in clusterkit (`EX_SOFTWARE`)."""

EXIT_INTERRUPTED = 130
"""Ended by SIGINT (128 + 2)."""

EXIT_TERMINATED = 143
"""Ended by SIGTERM (128 + 15)."""


class ClusterkitError(Exception):
    """An expected failure, in three sentences.

    Parameters
    ----------
    what : str
        What did not happen, in the user's words, without a final full stop.
    why : str
        The cause, as far as it is known.
    mend : str
        The next step. It names a command, a setting or a file.

    Examples
    --------
    >>> print(ClusterkitError("job.py was not submitted", why="the file does not exist", mend="check the path"))
    job.py was not submitted
      Why:  the file does not exist
      Mend: check the path
    """

    exit_code: ClassVar[int] = EXIT_SURROUNDINGS

    def __init__(self, what: str, *, why: str, mend: str) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.mend = mend

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes whole: the sentences and the data are the state."""
        return _empty, (type(self), self.what), self.__dict__

    def __str__(self) -> str:
        return f"{self.what}\n  Why:  {_indented(self.why)}\n  Mend: {_indented(self.mend)}"


def _empty(kind: type[ClusterkitError], what: str) -> ClusterkitError:
    return kind.__new__(kind, what)


def _indented(text: str) -> str:
    return text.rstrip().replace("\n", "\n        ")


class _PlacedError(ClusterkitError):
    """An error about one key of a request, with the place where it stands.

    Parameters
    ----------
    key : str or None
        The dotted name of the wrong key (`executor.memory`).
    place : str or None
        Where it was written: `clusterkit.toml:14`, `--executor-memory`, `at services.worker.memory`.
    """

    exit_code = EXIT_REQUEST

    def __init__(self, what: str, *, why: str, mend: str, key: str | None = None, place: str | None = None) -> None:
        first, line_end, rest = why.partition("\n")
        super().__init__(what, why=why if place is None else f"{first} ({place}){line_end}{rest}", mend=mend)
        self.key = key
        self.place = place

    def at(self, place: str) -> Self:
        """Return the same error with the place where its key was written, if it has none yet."""
        if self.place is not None:
            return self
        return type(self)(self.what, why=self.why, mend=self.mend, key=self.key, place=place)


class SettingsError(_PlacedError):
    """A setting is unknown, or its value cannot be read."""


class SpecError(_PlacedError):
    """What the user asks for is not possible or not well formed."""


class ImageError(ClusterkitError):
    """An environment image cannot be built, proved or used."""

    def __init__(self, what: str, *, why: str, mend: str, image: str | None = None) -> None:
        super().__init__(what, why=why, mend=mend)
        self.image = image


class StoreError(ClusterkitError):
    """The content-addressed store refused a read or a write."""

    def __init__(self, what: str, *, why: str, mend: str, uri: str | None = None) -> None:
        super().__init__(what, why=why, mend=mend)
        self.uri = uri


class ClusterError(ClusterkitError):
    """A cluster, or one of its services, cannot be reached, started or used."""

    def __init__(
        self,
        what: str,
        *,
        why: str,
        mend: str,
        cluster: str | None = None,
        host: str | None = None,
        port: int | None = None,
        path: Path | None = None,
    ) -> None:
        super().__init__(what, why=why, mend=mend)
        self.cluster = cluster
        self.host = host
        self.port = port
        self.path = path


class LaunchError(ClusterkitError):
    """An application was not accepted, or its launcher could not be started."""

    def __init__(self, what: str, *, why: str, mend: str, application_id: str | None = None) -> None:
        super().__init__(what, why=why, mend=mend)
        self.application_id = application_id


class ApplicationError(ClusterkitError):
    """An application does not exist, or ended in failure."""

    def __init__(
        self, what: str, *, why: str, mend: str, application_id: str | None = None, job_exit_code: int | None = None
    ) -> None:
        super().__init__(what, why=why, mend=mend)
        self.application_id = application_id
        self.job_exit_code = job_exit_code


class SessionError(ClusterkitError):
    """A session cannot be reached, attached or kept."""

    def __init__(self, what: str, *, why: str, mend: str, session: str | None = None) -> None:
        super().__init__(what, why=why, mend=mend)
        self.session = session


class HostsError(ClusterkitError):
    """An action failed on some hosts."""

    def __init__(
        self, what: str, *, why: str, mend: str, succeeded: Sequence[str] = (), failed: Sequence[str] = ()
    ) -> None:
        super().__init__(what, why=why, mend=mend)
        self.succeeded = tuple(succeeded)
        self.failed = tuple(failed)


class KernelError(ClusterkitError):
    """A function cannot be compiled, or was called with data it cannot take."""

    exit_code = EXIT_REQUEST

    def __init__(self, what: str, *, why: str, mend: str, kernel: str | None = None) -> None:
        super().__init__(what, why=why, mend=mend)
        self.kernel = kernel


class PushdownError(ClusterkitError):
    """A store cannot be opened, or cannot run an expression."""

    exit_code = EXIT_REQUEST

    def __init__(self, what: str, *, why: str, mend: str, uri: str | None = None) -> None:
        super().__init__(what, why=why, mend=mend)
        self.uri = uri


def kinds() -> tuple[type[ClusterkitError], ...]:
    """Return every kind of error a caller may have to tell apart."""
    return (
        SettingsError,
        SpecError,
        ImageError,
        StoreError,
        ClusterError,
        LaunchError,
        ApplicationError,
        SessionError,
        HostsError,
        KernelError,
        PushdownError,
    )
