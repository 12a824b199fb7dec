"""Health checks: each looks at one thing, and says why it is not in order and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clusterkit.errors import ClusterkitError

State = Literal["ok", "warn", "fail"]

_ORDER: tuple[State, ...] = ("ok", "warn", "fail")


class Check(msgspec.Struct, frozen=True):
    """What one check found.

    Parameters
    ----------
    name : str
        What was looked at.
    state : str
        `ok`; `warn` when it works, but worse than it could; `fail` when something will not work.
    what : str
        What was found.
    why : str
        The cause; empty when the state is `ok`.
    mend : str
        The next step; empty when the state is `ok`.

    Raises
    ------
    ValueError
        If a check that is not `ok` lacks its cause or the next step.
    """

    name: str
    state: State
    what: str
    why: str = ""
    mend: str = ""

    def __post_init__(self) -> None:
        if self.state != "ok" and not (self.why and self.mend):
            msg = f"the check {self.name} says {self.state} without why and mend"
            raise ValueError(msg)


def failed(name: str, error: ClusterkitError) -> Check:
    """Return the check that an expected error stands for."""
    return Check(name, "fail", error.what, error.why, error.mend)


def worst(checks: Iterable[Check]) -> State:
    """Return the worst state among checks, `ok` when there are none."""
    return max((check.state for check in checks), key=_ORDER.index, default="ok")
