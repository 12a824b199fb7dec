"""The one place where an error becomes three lines on stderr and an exit code."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TextIO

import click
from click.shell_completion import shell_complete

import clusterkit
from clusterkit import errors
from clusterkit.cli.output import coloured, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

COMPLETION_VARIABLE = "_CLUSTERKIT_COMPLETE"
"""What a shell sets when it asks for completions."""

EXIT_BROKEN_PIPE = 141
"""The reader of our output went away (128 + SIGPIPE)."""

EXTRAS = {
    "conda_pack": "conda",
    "isal": "env",
    "packaging": "env",
    "pathspec": "env",
    "pyarrow": "spark",
    "pyspark": "spark",
    "rattler": "conda",
}
"""The extra of clusterkit that brings a module."""

_KEY = r"(?<![\w.-])"
_WORD = r"(?:^(?=\w+ (?:was|is|cannot|of)\b)|(?<=\bset )|(?<=\bcorrect ))"
"""What stands before a key. One that is also a word, such as `queue`, stays a word within a sentence."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; it unwinds the stack as Ctrl-C does."""


def run(command: click.Command, argv: Sequence[str] | None) -> int:
    """Run a command; print what goes wrong and return the exit code.

    What a command returns, when it is a number, is its exit code.
    """
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # a name that is not UTF-8 is printed as it is
        with _termination():
            code = _invoke(command, sys.argv[1:] if argv is None else list(argv))
            sys.stdout.flush()
    except BaseException as exc:  # noqa: BLE001 (this is the boundary)
        return report(exc, sys.stderr)
    return code if isinstance(code, int) else 0


def _invoke(command: click.Command, argv: list[str]) -> object:
    """Do what `click.Command.main` does, without its own handling of errors and interrupts."""
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        return shell_complete(command, {}, "clusterkit", COMPLETION_VARIABLE, instruction)
    try:
        with command.make_context("clusterkit", argv) as context:
            return command.invoke(context)
    except click.exceptions.Exit as exc:
        return exc.exit_code


def report(error: BaseException, stream: TextIO) -> int:
    """Print an error for a person, and return the exit code it stands for."""
    if isinstance(error, ModuleNotFoundError):
        error = _missing_extra(error)
    match error:
        case errors.ClusterkitError():
            _write(stream, respelled(error))
            return error.exit_code
        case click.ClickException():
            return _report_usage(error, stream)
        case Terminated():
            return errors.EXIT_TERMINATED
        case click.Abort() | KeyboardInterrupt():
            return errors.EXIT_INTERRUPTED
        case BrokenPipeError() if _reader_is_gone():
            _silence_stdout()
            return EXIT_BROKEN_PIPE
        case _:
            return _report_bug(error, stream)


def respelled(error: errors.ClusterkitError) -> errors.ClusterkitError:
    """Return the error with its key written as the flag, where a flag is what the user wrote.

    Examples
    --------
    >>> wrong = errors.SpecError("name is empty", why="a name is text", mend="set name", key="name", place="--name")
    >>> print(respelled(wrong))
    --name is empty
      Why:  a name is text
      Mend: set --name
    """
    key, place = getattr(error, "key", None), getattr(error, "place", None)
    if not key or not place or not place.startswith("--"):
        return error
    word = re.compile(rf"{_KEY if re.search('[._]', key) else _WORD}{re.escape(key)}(?![\w-]|\.\w)")
    what, why, mend = (word.sub(place, text) for text in (error.what, error.why, error.mend))
    return type(error)(what, why=why.replace(f" ({place})", "", 1), mend=mend)


def _write(stream: TextIO, error: errors.ClusterkitError) -> None:
    head = click.style("Error:", fg="red", bold=True) if coloured(stream) else "Error:"
    stream.write(f"{head} {visible(str(error))}\n")
    stream.flush()


def _report_usage(error: click.ClickException, stream: TextIO) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message())
        return 0
    _write(stream, _usage(error))
    return errors.EXIT_REQUEST


def _usage(error: click.ClickException) -> errors.ClusterkitError:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "clusterkit"
    near = getattr(error, "possibilities", None)
    why = (error.message if near else error.format_message()).strip().rstrip(".")
    if near:
        why = f"{why}; did you mean {near[0]}?"
    mend = f"`{command} --help` shows what it takes"
    return errors.ClusterkitError(f"`{command}` was not understood", why=why, mend=mend)


def _missing_extra(error: ModuleNotFoundError) -> BaseException:
    """Return what to install where the module comes with an extra; the error itself where it does not."""
    extra = EXTRAS.get((error.name or "").partition(".")[0])
    if extra is None:
        return error
    return errors.ClusterkitError(
        f"this needs the extra {extra} of clusterkit",
        why=f"the Python that runs clusterkit has no module {error.name}",
        mend=f"install it: pip install 'clusterkit[{extra}]'",
    )


def _report_bug(error: BaseException, stream: TextIO) -> int:
    import traceback

    stream.write("".join(traceback.format_exception(error)))
    _write(stream, _bug(error))
    return errors.EXIT_BUG


def _bug(error: BaseException) -> errors.ClusterkitError:
    return errors.ClusterkitError(
        "this is a bug in clusterkit",
        why=f"{type(error).__name__}: {error}",
        mend=f"report the text above with these versions: {', '.join(_versions())}; `clusterkit doctor` may help",
    )


def _versions() -> Iterator[str]:
    import platform
    from importlib import metadata

    yield f"clusterkit {clusterkit.__version__}"
    yield f"Python {platform.python_version()}"
    try:
        yield f"pyspark {metadata.version('pyspark')}"
    except metadata.PackageNotFoundError:
        yield "no pyspark"
    yield f"{platform.system()} {platform.release()} {platform.machine()}"


@contextmanager
def _termination() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that what was begun is cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise Terminated


def _reader_is_gone() -> bool:
    """Whether the other end of our standard output was closed."""
    try:
        poll = select.poll()
        poll.register(1, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except OSError:
        return False


def _silence_stdout() -> None:
    """Send what is still buffered nowhere, so that Python's exit is quiet too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
