"""The error contract: every kind says what, why and mend, and carries its data wherever it goes."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clusterkit import errors
from clusterkit.settings.table import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(errors.__file__).parent

DATA = {
    errors.SettingsError: {"key": "executor.memory", "place": "clusterkit.toml:14"},
    errors.SpecError: {"key": "queue", "place": "--queue"},
    errors.ImageError: {"image": "3f9a"},
    errors.StoreError: {"uri": "hdfs:///clusterkit/layers/3f9a"},
    errors.ClusterError: {"cluster": "prod", "host": "rm1", "port": 8088, "path": Path("/etc/hadoop")},
    errors.LaunchError: {"application_id": "application_1_0001"},
    errors.ApplicationError: {"application_id": "application_1_0001", "job_exit_code": 3},
    errors.SessionError: {"session": "notebook-1"},
    errors.HostsError: {"succeeded": ("a",), "failed": ("b", "c")},
    errors.KernelError: {"kernel": "haversine"},
    errors.PushdownError: {"uri": "duckdb:///x.db"},
}
EXIT_CODES = {
    errors.SettingsError: 64,
    errors.SpecError: 64,
    errors.ImageError: 69,
    errors.StoreError: 69,
    errors.ClusterError: 69,
    errors.LaunchError: 69,
    errors.ApplicationError: 69,
    errors.SessionError: 69,
    errors.HostsError: 69,
    errors.KernelError: 64,
    errors.PushdownError: 64,
}
every_kind = pytest.mark.parametrize("kind", errors.kinds(), ids=lambda kind: kind.__name__)


def made(kind: type[errors.ClusterkitError]) -> errors.ClusterkitError:
    return kind("it was not done", why="the disk is full", mend="run `df`", **DATA[kind])


def test_every_subclass_is_a_kind() -> None:
    """The list of kinds is every public class below the base."""
    below = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ClusterkitError)
    }
    assert {kind for kind in below if not kind.__name__.startswith("_")} == {*errors.kinds(), errors.ClusterkitError}


@every_kind
def test_three_sentences_are_required(kind: type[errors.ClusterkitError]) -> None:
    """No error can be made without saying why and how to mend it."""
    with pytest.raises(TypeError, match="'why' and 'mend'"):
        kind("it was not done")  # type: ignore[call-arg]


@every_kind
def test_text_has_exactly_three_parts(kind: type[errors.ClusterkitError]) -> None:
    """An error prints as what, why and mend, with the place at the end of why."""
    place = DATA[kind].get("place")
    why = f"the disk is full ({place})" if place else "the disk is full"
    assert str(made(kind)) == f"it was not done\n  Why:  {why}\n  Mend: run `df`"


@every_kind
def test_data_stands_beside_the_text(kind: type[errors.ClusterkitError]) -> None:
    """An error carries what it is about as attributes."""
    error = made(kind)
    assert {name: getattr(error, name) for name in DATA[kind]} == DATA[kind]


@every_kind
def test_exit_code_tells_request_from_surroundings(kind: type[errors.ClusterkitError]) -> None:
    """The kind decides between 64, the request is wrong, and 69, the surroundings are."""
    assert kind.exit_code == EXIT_CODES[kind]


@every_kind
def test_error_travels_between_processes(kind: type[errors.ClusterkitError]) -> None:
    """A pickled error comes back whole."""
    error = made(kind)
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
    assert (type(back), str(back), vars(back)) == (kind, str(error), vars(error))


def test_more_than_one_line_stays_under_its_heading() -> None:
    """Further lines of a sentence are indented to stand below its first."""
    error = errors.ClusterkitError("no", why="first\nsecond\n", mend="one\ntwo")
    assert str(error) == "no\n  Why:  first\n        second\n  Mend: one\n        two"


def test_place_is_added_once() -> None:
    """A place that is learnt later completes the error; one that is known stays."""
    error = errors.SpecError("no", why="too small", mend="more", key="queue")
    placed = error.at("clusterkit.toml:3")
    assert (placed.why, placed.place, placed.key) == ("too small (clusterkit.toml:3)", "clusterkit.toml:3", "queue")
    assert placed.at("--queue") is placed


def test_place_stands_on_the_first_line() -> None:
    """What a cause shows below its first line stays as it is."""
    error = errors.SpecError("no", why="unclosed\n  f(\n   ^", mend="close it", place="py_files=")
    assert error.why == "unclosed (py_files=)\n  f(\n   ^"


def raised_errors() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield every place in the package that makes an error, with its sentences; X stands for what is filled in."""
    names = {kind.__name__ for kind in errors.kinds()} | {"ClusterkitError"}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", None)) in names:
                given = {keyword.arg or "": sentence(keyword.value) for keyword in node.keywords}
                given["what"] = sentence(node.args[0]) if node.args else ""
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", given


def sentence(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr():
            return "".join(part.value if isinstance(part, ast.Constant) else "{X}" for part in node.values)
        case _:
            return "{X}"


NAMED = re.compile(
    r"`[^`]+`|--[a-z]|\{X\}|\w\(\)|\b[A-Z]+_[A-Z_]+\b|\.(py|toml|xml|jar|tar)\b|/\w"
    + "".join(rf"|\b{re.escape(setting.key)}\b" for setting in TABLE)
)


@pytest.mark.parametrize(("place", "given"), [pytest.param(*each, id=each[0]) for each in raised_errors()])
def test_every_error_is_three_useful_sentences(place: str, given: dict[str, str]) -> None:
    """Wherever an error is made, all three parts say something, and the mend names a command, a key or a file."""
    parts = [given[name] for name in ("what", "why", "mend")]
    assert all(part.strip() and not part.endswith(".") for part in parts)
    assert NAMED.search(given["mend"]), given["mend"]
