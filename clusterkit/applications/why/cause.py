"""The probable cause of a failure, in the three sentences of every error."""

from __future__ import annotations

import msgspec


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """The probable cause of a failure or of a wait.

    Parameters
    ----------
    kind : str
        A word that programs can compare: `user-exception`, `memory-exceeded`, `queue-full`, ...
    what : str
        What happened, without a final full stop.
    why : str
        The cause; the job's own traceback where there is one.
    mend : str
        The next step.
    """

    kind: str
    what: str
    why: str
    mend: str
