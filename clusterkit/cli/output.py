"""What a person sees: stages on stderr while something runs, tables and JSON on stdout when it is done."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import unicodedata
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Self, TextIO

import click

from clusterkit import units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

_PLAIN_INTERVAL_S = 1.0


class Progress:
    """The stages of something that takes a while, told on one stream.

    On a terminal the current stage is a live line with its elapsed time, and a finished one leaves a line with the time
    it took. Elsewhere each stage begins with a plain line that has the time since the beginning, and progress within a
    stage is told at most once a second. Standard output is never touched. Several threads may use one.

    Parameters
    ----------
    stream : text stream, optional
        Where to tell it; standard error when absent.
    clock : callable, optional
        Returns seconds from any origin, never going back.

    Examples
    --------
    >>> with Progress(sys.stdout, clock=lambda: 0.0) as progress:
    ...     progress.stage("accepted", "queue default")
    ...     progress.note("Ctrl-C kills the application")
    ...     progress.stage("warning", "the queue is full")
      0.0 s  accepted: queue default
             Ctrl-C kills the application
             warning: the queue is full
    """

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._teller: _Teller = _LiveLine(stream, clock) if is_terminal(stream) else _PlainLines(stream, clock)
        self._stage: str | None = None
        self._began_s = 0.0
        self._lock = threading.RLock()

    def stage(self, name: str, detail: str = "") -> None:
        """Begin a stage, which ends the one before; the same name again is progress within it, a `warning` a note."""
        if name == "warning":
            self.note(f"warning: {detail}")
            return
        with self._lock:
            if name == self._stage:
                self._teller.go_on(visible(detail))
                return
            self._finish(done=True)
            self._stage, self._began_s = name, self._clock()
            self._teller.begin(visible(name), visible(detail))

    def update(self, detail: str) -> None:
        """Tell how the current stage goes on; elsewhere than on a terminal at most once a second."""
        with self._lock:
            self._teller.go_on(visible(detail))

    def note(self, text: str) -> None:
        """Tell something beside the stages; it is always told."""
        with self._lock:
            self._teller.note(visible(text))

    def pass_on(self, piece: bytes, stream: BinaryIO) -> None:
        """Write what somebody else says, who shares the terminal; the live line waits until their line has ended.

        Parameters
        ----------
        piece : bytes
            Any part of their output.
        stream : binary file
            Where it goes, as it is.
        """
        with self._lock, self._teller.aside(ends=piece.endswith(b"\n")):
            stream.write(piece)
            stream.flush()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the live line away while whole lines are written to the terminal."""
        with self._lock, self._teller.aside(ends=True):
            yield

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._lock:
            self._finish(done=kind is None)
            self._teller.close()

    def _finish(self, *, done: bool) -> None:
        if self._stage is not None:
            self._teller.finish(self._clock() - self._began_s, done=done)
            self._stage = None


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can rewrite a line."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(stream: TextIO) -> bool:
    """Whether a stream is a terminal whose user wants colours (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def visible(text: str) -> str:
    r"""Show control characters instead of sending them to the terminal; line ends and tabs stay.

    Examples
    --------
    >>> print(visible("red\x1b[31m"))
    red\x1b[31m
    """
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def print_json(value: Any) -> None:
    """Print a value as one JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, stream: TextIO | None = None) -> None:
    """Print rows in aligned columns, on standard output unless told otherwise.

    Parameters
    ----------
    headers : sequence of str
        The columns' names.
    rows : sequence of sequences
        The cells; numbers stand to the right, None is a dash.
    """
    stream = sys.stdout if stream is None else stream
    head, *lines = _aligned([list(headers), *([_cell(value) for value in row] for row in rows)], _numeric(rows))
    stream.write(f"{click.style(head, bold=True) if coloured(stream) else head}\n")
    stream.writelines(f"{line}\n" for line in lines)


def _cell(value: object) -> str:
    return "-" if value is None else visible(str(value)).replace("\n", "\\n").replace("\t", "\\t")


def _numeric(rows: Sequence[Sequence[object]]) -> set[int]:
    columns = list(zip(*rows, strict=True))
    return {i for i, column in enumerate(columns) if all(isinstance(value, (int, float)) for value in column)}


def _aligned(table: list[list[str]], right: set[int]) -> Iterator[str]:
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (_padded(cell, widths[i], right=i in right) for i, cell in enumerate(row))
        yield "  ".join(cells).rstrip()


def _padded(cell: str, width: int, *, right: bool) -> str:
    space = " " * (width - _width(cell))
    return f"{space}{cell}" if right else f"{cell}{space}"


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


class _Teller(Protocol):
    """How stages are told on one kind of stream."""

    def begin(self, name: str, detail: str) -> None: ...
    def go_on(self, detail: str) -> None: ...
    def finish(self, took_s: float, *, done: bool) -> None: ...
    def note(self, text: str) -> None: ...
    def aside(self, *, ends: bool) -> AbstractContextManager[None]: ...
    def close(self) -> None: ...


class _PlainLines:
    """One line a stage, and one a second at most within it."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock
        self._began_s = self._told_s = clock()
        self._name, self._detail, self._told = "", "", ""

    def begin(self, name: str, detail: str) -> None:
        self._name, self._detail = name, detail
        self._tell()

    def go_on(self, detail: str) -> None:
        self._detail = detail
        if self._clock() - self._told_s >= _PLAIN_INTERVAL_S:
            self._tell_news()

    def finish(self, took_s: float, *, done: bool) -> None:
        del took_s, done
        self._tell_news()

    def note(self, text: str) -> None:
        for line in text.splitlines():
            self._write(f"{'':7}  {line}")

    def aside(self, *, ends: bool) -> AbstractContextManager[None]:
        del ends
        return nullcontext()

    def close(self) -> None:
        pass

    def _tell_news(self) -> None:
        if self._detail != self._told:
            self._tell()

    def _tell(self) -> None:
        self._told, self._told_s = self._detail, self._clock()
        elapsed = units.format_duration(self._told_s - self._began_s)
        self._write(f"{elapsed:>7}  {_joined(self._name, self._detail)}")

    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


class _LiveLine:
    """One line that changes, by rich; what is finished stays above it."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._clock = clock
        self._name, self._detail, self._began_s = "", "", clock()
        self._running = False
        self._open = False
        self._console = Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=self._console,
            get_renderable=self._rendered,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def begin(self, name: str, detail: str) -> None:
        self._name, self._detail, self._began_s = name, detail, self._clock()
        self._running = True
        self._end_line()
        self._live.start(refresh=True)

    def go_on(self, detail: str) -> None:
        self._detail = detail

    def finish(self, took_s: float, *, done: bool) -> None:
        self._running = False
        self._live.stop()
        self._end_line()
        mark, style = ("✓", "green") if done else ("✗", "red")
        self._console.print(self._line(mark, style, took_s, whole=True), soft_wrap=True)

    def note(self, text: str) -> None:
        self._end_line()
        self._console.print(text, style="dim", soft_wrap=True)

    @contextmanager
    def aside(self, *, ends: bool) -> Iterator[None]:
        self._live.stop()
        try:
            yield
        finally:
            self._open = not ends
            if self._running and ends:
                self._live.start(refresh=True)

    def close(self) -> None:
        self._live.stop()
        self._end_line()

    def _end_line(self) -> None:
        """End a line that somebody else began, so that ours is not written behind it."""
        if self._open:
            self._console.file.write("\n")
            self._open = False

    def _rendered(self) -> Any:
        return self._line("…", "cyan", self._clock() - self._began_s, whole=False)

    def _line(self, mark: str, style: str, elapsed_s: float, *, whole: bool) -> Any:
        """Return the stage's line; the live one is cut at the terminal's edge, one that stays is whole."""
        from rich.text import Text

        elapsed = (f"{units.format_duration(elapsed_s):>7}  ", "dim")
        text = _joined(self._name, self._detail)
        return Text.assemble((f"{mark} ", style), elapsed, text, no_wrap=not whole, overflow="ellipsis")


def _joined(name: str, detail: str) -> str:
    return f"{name}: {detail}" if detail else name
