"""The one error of what runs on a node: three sentences, as everywhere in clusterkit."""

from __future__ import annotations

EXIT_SURROUNDINGS = 69
"""The node, its cache or a layer is at fault, not the job (`EX_UNAVAILABLE` of sysexits.h)."""


class NodeError(Exception):
    """An image cannot be used on this node.

    Parameters
    ----------
    what : str
        What did not happen, without a final full stop.
    why : str
        The cause, as far as it is known.
    mend : str
        The next step; it names a command, a setting or a file.
    """

    exit_code = EXIT_SURROUNDINGS

    def __init__(self, what: str, *, why: str, mend: str) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what}\n  Why:  {self.why}\n  Mend: {self.mend}"
