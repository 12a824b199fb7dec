"""Find the job's own traceback in what a driver wrote, without the frames of Spark, the JVM and Python's plumbing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = "Traceback (most recent call last):"
_FRAME = re.compile(r'  File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>.+))?')
_WORKER = "thrown from the Python worker"
_ERROR = re.compile(r"(?P<kind>[A-Za-z_][\w.]*)(?:: ?(?P<text>.*))?")
_PLUMBING = re.compile(
    r"/pyspark/|pyspark\.zip|/py4j/|py4j-[\d.]+-src\.zip|^<frozen |/importlib/|/runpy\.py|/concurrent/futures/"
)
_AFTER_ERROR = re.compile(
    r"\s+at [\w.$]+[\w.$<>/]*\(|\s*SQLSTATE: |JVM stacktrace|During handling of|The above exception|"
    r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d|Traceback \(most"
)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of the job's own code."""

    file: str
    line: int
    function: str
    code: str

    def __str__(self) -> str:
        place = f'File "{self.file}", line {self.line}' + (f", in {self.function}" if self.function else "")
        return f"{place}\n  {self.code}" if self.code else place


@dataclass(frozen=True, slots=True)
class Traceback:
    """One Python traceback.

    Parameters
    ----------
    kind : str
        The exception's class, as it was printed.
    message : str
        Its message; several lines are kept.
    frames : tuple of Frame
        The frames of the job's own code, the outermost first.
    on_worker : bool
        Whether it happened in a Python worker on a node.
    """

    kind: str
    message: str
    frames: tuple[Frame, ...]
    on_worker: bool

    def __str__(self) -> str:
        error = f"{self.kind}: {self.message}" if self.message else self.kind
        return "\n".join([*(str(frame) for frame in self.frames), error])


def find(text: str) -> Traceback | None:
    """Return the traceback that explains the end of a job, None when there is none.

    A failure on a worker is printed inside the driver's own traceback, below Spark's; then the worker's is returned,
    for it holds the line of the job that failed. Otherwise the last one is.

    Parameters
    ----------
    text : str
        What the driver wrote on its standard error, or its tail.
    """
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if _HEADER in line]
    found = [_parse(lines[start + 1 :], on_worker=_from_worker(lines, start)) for start in starts]
    tracebacks = [traceback for traceback in found if traceback is not None]
    workers = [traceback for traceback in tracebacks if traceback.on_worker]
    return next(reversed(workers or tracebacks), None)


def _from_worker(lines: list[str], start: int) -> bool:
    """Spark announces a worker's traceback on the same line or on the one before."""
    return any(_WORKER in line for line in lines[max(0, start - 1) : start + 1])


def _parse(lines: list[str], *, on_worker: bool) -> Traceback | None:
    stack = list(takewhile(lambda line: line.startswith(" "), lines))
    error = list(takewhile(lambda line: not _AFTER_ERROR.match(line), lines[len(stack) :]))
    match = _ERROR.fullmatch(error[0]) if error else None
    if match is None or not stack:
        return None
    message = "\n".join([match["text"] or "", *error[1:]]).strip()
    kind = match["kind"].rpartition(".")[2] if match["kind"].startswith("pyspark.") else match["kind"]
    return Traceback(kind, message, tuple(_frames(stack)), on_worker)


def _frames(stack: list[str]) -> Iterator[Frame]:
    """Yield the frames that are the job's own; a frame's code is the line after it, carets are left out."""
    for line, after in zip(stack, [*stack[1:], ""], strict=True):
        match = _FRAME.fullmatch(line)
        if match and not _PLUMBING.search(match["file"]):
            code = "" if _FRAME.fullmatch(after) else after.strip()
            yield Frame(match["file"], int(match["line"]), match["function"] or "", code)
