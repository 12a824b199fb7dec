"""The Python a job consists of: refused here when it would only fail on the cluster."""

from __future__ import annotations

import warnings
from importlib.util import decode_source
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.errors import SpecError
from clusterkit.nearest import nearest
from clusterkit.specs import attachments

if TYPE_CHECKING:
    from typing import NoReturn

_KINDS = {
    ".r": "an R script",
    ".jar": "a Java or Scala application",
    ".ipynb": "a notebook",
    ".scala": "Scala source",
    ".zip": "an archive",
    ".whl": "a wheel",
}


def check_job(job: Path) -> None:
    """Check that a job is a Python file that can be read and compiled.

    Raises
    ------
    SpecError
        If it is missing, is something else, or holds a syntax error; the line is shown.
    """
    failed = f"{_shown(job)} was not submitted"
    if job.name == "-":
        raise SpecError(failed, why="a job cannot be read from standard input", mend="save it to a file ending in .py")
    if attachments.is_uri(_written(job)):
        mend = "fetch it to this machine and submit the local .py file"
        raise SpecError(failed, why="a job is a file on this machine, not a URI", mend=mend)
    if not job.exists():
        _refuse_missing(job, failed)
    if job.suffix != ".py":
        why = f"it is {_kind(job)}, and clusterkit submits PySpark jobs: files whose name ends in .py"
        raise SpecError(failed, why=why, mend=f"submit the .py file that does the work of {job.name}")
    attachments.check_readable(None, job, failed)
    _compile(job, failed, None)


def check_module(entry: str) -> None:
    """Check that a local `.py` file for the import path can be compiled.

    Raises
    ------
    SpecError
        If it holds a syntax error.
    """
    path = Path(attachments.split_alias(entry)[0])
    if path.suffix == ".py" and not attachments.is_uri(entry):
        _compile(path, f"{path.name} cannot be sent with the job", "py_files")


def _refuse_missing(job: Path, failed: str) -> NoReturn:
    if not job.parent.is_dir():
        raise SpecError(failed, why=f"there is no directory {_shown(job.parent)}", mend=f"check the path {_shown(job)}")
    other = nearest(job.name, (path.name for path in job.parent.glob("*.py")))
    mend = f"submit {_shown(job.with_name(other))}" if other else f"check the path {_shown(job)}"
    raise SpecError(failed, why="the file does not exist", mend=mend)


def _kind(job: Path) -> str:
    return "a directory" if job.is_dir() else _KINDS.get(job.suffix.lower(), "no Python file by its name")


def _compile(path: Path, failed: str, key: str | None) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(decode_source(path.read_bytes()), str(path), "exec", dont_inherit=True)
    except SyntaxError as exc:
        where = f"line {exc.lineno} of {path.name}" if exc.lineno else path.name
        why = f"{exc.msg}, {where}{_marked(exc)}"
        raise SpecError(failed, why=why, mend=f"correct {_shown(path)}", key=key) from exc
    except (ValueError, RecursionError, MemoryError) as exc:
        why = f"Python cannot compile it: {str(exc) or type(exc).__name__}"
        raise SpecError(failed, why=why, mend=f"correct {_shown(path)}", key=key) from exc


def _marked(error: SyntaxError) -> str:
    """Return the line in question, and a caret under the place."""
    if not error.text:
        return ""
    line = error.text.rstrip().expandtabs(1)
    margin = len(line) - len(line.lstrip())
    caret = max((error.offset or 1) - 1 - margin, 0)
    return f"\n  {line.strip()}\n  {' ' * caret}^"


def _written(job: Path) -> str:
    """Return a path as it was given: making `hdfs://host/job.py` absolute puts directories before it."""
    text = str(job)
    return text.removeprefix(f"{Path.cwd()}/")


def _shown(path: Path) -> str:
    """Return a path for a message: short where it can be, on one line always."""
    text = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
    return text if text.isprintable() else repr(text)
