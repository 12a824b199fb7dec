"""Find the job's own traceback in what a driver wrote, without the frames of Spark, the JVM and Python's plumbing."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HEADER = "Traceback (most recent call last):"
_FRAME = re.compile(r'  File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>.+))?')
_FROM_WORKER = re.compile(r"thrown from the Python worker|Error from python worker|PythonException: Traceback")
_ERROR = re.compile(r"(?P<kind>[A-Za-z_][\w.]*)(?:: ?(?P<text>.*))?", re.DOTALL)
_JAVA = re.compile(r"(?:[a-z]\w*\.)+(?P<kind>[A-Z][\w$]*)(?:\([\w.$]+\))?: ?(?P<text>.*)", re.DOTALL)
_UNCAUGHT = re.compile(r'^Exception in thread "[^"]*" (?=(?:[a-z]\w*\.)+[A-Z])', re.MULTILINE)
_LOST_TASK = re.compile(
    r"Job aborted due to stage failure: .*?Lost task \S+ in stage \S+ \(TID \d+\) \([^)]*\): ", re.DOTALL
)
_PLUMBING = re.compile(
    r"/pyspark/|pyspark\.zip|/py4j/|py4j-[\d.]+-src\.zip|^<frozen |/importlib/|/runpy\.py|/concurrent/futures/"
)
_IN_CONTAINER = re.compile(r".*/container_(?:e\d+_)?\d+_\d+_\d+_\d+/")
_JAVA_FRAME = re.compile(r"\s+(?:at [\w.$/<>]+\(|\.\.\. \d+ more)")
_END = re.compile(
    r"\s+at [\w.$/<>]+\(|\s+\.\.\. \d+ more|Driver stacktrace:|JVM stacktrace:|Caused by: |During handling of|"
    r"The above exception|PYTHONPATH was:|\d\d/\d\d/\d\d \d\d:\d\d:\d\d|\s*Traceback \(most"
)
_NOISE = re.compile(r"\.? SQLSTATE: \w{5};?$| Diagnostics: \[.*$|\. Consider setting 'spark\..*$")
_MOST_LINES = 12
_MOST_WORDS = 400


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
    """One error, as Python or the JVM printed it.

    Parameters
    ----------
    kind : str
        The exception's class, without its package; of an error that came out of the JVM, the Java class.
    message : str
        Its message, without stack traces and other noise; several lines are kept.
    frames : tuple of Frame
        The frames of the job's own code, the outermost first; none where the JVM failed by itself.
    on_worker : bool
        Whether it happened in a Python worker on a node.
    words : str
        Everything that was printed of the error except stack frames, causes included: what rules search in.
    """

    kind: str
    message: str
    frames: tuple[Frame, ...] = ()
    on_worker: bool = False
    words: str = ""

    def __str__(self) -> str:
        error = f"{self.kind}: {self.message}" if self.message else self.kind
        return "\n".join([*(str(frame) for frame in self.frames), error])


def find(text: str) -> Traceback | None:
    """Return the error that explains the end of a job, None when there is none.

    It is the last one. Where that is Spark's word for a failure on a worker, the worker's own traceback is printed
    inside it; that one is returned, for it holds the line of the job that failed. Without any of Python, the last
    exception that ended a thread of the JVM is returned.

    Parameters
    ----------
    text : str
        What the driver wrote, or its end.
    """
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.rstrip().endswith(_HEADER)]
    for start in reversed(starts):
        found = _parse(lines, start)
        if found is not None:
            return found
    return _uncaught(text)


def java_error(text: str) -> tuple[str, str] | None:
    """Return class and message of the Java exception that a text begins with, None where there is none.

    Of a job that was aborted for a task, it is what the task failed of.

    Examples
    --------
    >>> java_error("org.apache.hadoop.security.AccessControlException: Permission denied: user=somebody")
    ('AccessControlException', 'Permission denied: user=somebody')
    """
    match = _JAVA.match(text)
    if match is None:
        return None
    task = _LOST_TASK.match(match["text"])
    if task is None:
        return match["kind"], match["text"]
    rest = match["text"][task.end() :]
    kind, mark, message = rest.partition(" (")
    if mark and kind.isidentifier():  # ExecutorLostFailure (executor 2 exited ...) Reason: ...
        return kind, message.partition("Reason: ")[2] or f"({message}"
    return java_error(rest) or (match["kind"], rest)


def _parse(lines: list[str], start: int) -> Traceback | None:
    margin = len(lines[start]) - len(lines[start].lstrip(" "))
    block = [line[margin:] if line[:margin].isspace() else line for line in lines[start + 1 :]]
    stack = list(takewhile(lambda line: line.startswith(" "), block))
    rest = block[len(stack) :]
    if not stack or not rest or _ERROR.match(rest[0]) is None:
        return None
    error = [rest[0], *takewhile(lambda line: not _END.match(line), rest[1:])]
    words = "\n".join(line for line in rest[:_MOST_WORDS] if not _JAVA_FRAME.match(line))
    kind, message = _named(error)
    return Traceback(
        kind=kind,
        message=_tidy(message),
        frames=tuple(_frames(stack)),
        on_worker=any(_FROM_WORKER.search(line) for line in lines[max(0, start - 1) : start + 1]),
        words=words,
    )


def _named(error: list[str]) -> tuple[str, str]:
    """Return class and message; of what came through Py4J those of the JVM, which stand on the line after."""
    match = _ERROR.fullmatch("\n".join(error))
    if match is None:
        return "", "\n".join(error)
    if match["kind"].endswith("Py4JJavaError") and len(error) > 1:
        found = java_error("\n".join(error[1:]).removeprefix(": "))
        if found is not None:
            return found
    kind = match["kind"]
    return (kind.rpartition(".")[2] if kind.startswith(("pyspark.", "py4j.")) else kind), match["text"] or ""


def _uncaught(text: str) -> Traceback | None:
    """Return the last exception that ended a thread of the JVM, with the causes that are printed below it."""
    uncaught = list(_UNCAUGHT.finditer(text))
    if not uncaught:
        return None
    last = uncaught[-1]
    lines = text[last.end() :].splitlines()
    error = [lines[0], *takewhile(lambda line: not _END.match(line), lines[1:])]
    found = java_error("\n".join(error))
    if found is None:
        return None
    words = "\n".join(line for line in lines[:_MOST_WORDS] if not _JAVA_FRAME.match(line))
    return Traceback(found[0], _tidy(found[1]), words=words)


def _frames(stack: list[str]) -> Iterator[Frame]:
    """Yield the frames that are the job's own; a frame's code is the line after it, carets are left out."""
    for line, after in zip(stack, [*stack[1:], ""], strict=True):
        match = _FRAME.fullmatch(line)
        if match and not _PLUMBING.search(match["file"]):
            code = "" if _FRAME.fullmatch(after) else after.strip()
            yield Frame(_IN_CONTAINER.sub("", match["file"]), int(match["line"]), match["function"] or "", code)


def _tidy(message: str) -> str:
    """Cut what explains nothing, and what is too long to be read."""
    lines = [_NOISE.sub("", line).rstrip() for line in _meant(message.strip().splitlines())]
    kept = [line for line in lines if line not in {"", "."}]
    if len(kept) > _MOST_LINES:
        kept = [*kept[:_MOST_LINES], f"... and {len(kept) - _MOST_LINES} more lines"]
    return "\n".join(textwrap.shorten(line, 600, placeholder=" ...") if len(line) > 600 else line for line in kept)


def _meant(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines up to a query plan, which Spark prints after a semicolon, or what YARN repeats of a container."""
    for line in lines:
        if re.match(r"\[\d{4}-\d\d-\d\d ", line):
            return
        yield line
        if re.search(r"SQLSTATE: \w{5};$", line):
            return
