"""The files settings are read from: which there are, what each holds, and on which line."""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from clusterkit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE_NAME = "clusterkit.toml"
SYSTEM_FILE = Path("/etc/clusterkit") / FILE_NAME


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """One file of settings, read.

    Parameters
    ----------
    layer : str
        `system file`, `user file` or `project file`.
    path : Path
        The file.
    name : str
        Its path as a person in the working directory would write it.
    tree : mapping
        What it holds.
    lines : mapping of tuple to int
        The line on which each key stands.
    """

    layer: str
    path: Path
    name: str
    tree: Mapping[str, Any]
    lines: Mapping[tuple[str, ...], int]

    def place(self, keys: tuple[str, ...]) -> str:
        """Return `clusterkit.toml:14` for a key, by the nearest table that has a line of its own."""
        above = (keys[:size] for size in range(len(keys), 0, -1))
        return f"{self.name}:{next((self.lines[part] for part in above if part in self.lines), 1)}"

    def leaves(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Yield each value with the names that lead to it; an empty table is a value."""
        return walk(self.tree)


def load(directory: Path) -> Iterator[SettingsFile]:
    """Read the files that apply in a directory, the least important first."""
    user = platformdirs.user_config_path("clusterkit") / FILE_NAME
    project = next((path for above in (directory, *directory.parents) if (path := above / FILE_NAME).is_file()), user)
    for layer, path in (("system file", SYSTEM_FILE), ("user file", user), ("project file", project)):
        if path.is_file() and not (layer == "project file" and path == user):
            yield _read(layer, path, _spelled(path, directory))


def walk(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each value of a tree of tables with the names that lead to it."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from walk(value, (*above, name))
        else:
            yield (*above, name), value


def _read(layer: str, path: Path, name: str) -> SettingsFile:
    failed = f"{name} was not read"
    try:
        if _planted(path):
            why = "anybody may write to its directory, and it belongs neither to you nor to root"
            raise SettingsError(failed, why=why, mend=f"remove {path}, or work in another directory", place=name)
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text)
    except OSError as exc:
        why = exc.strerror or str(exc)
        raise SettingsError(failed, why=why, mend=f"make {path} readable, or remove it", place=name) from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(failed, why="it is not UTF-8 text", mend=f"save {path} as UTF-8", place=name) from exc
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(failed, why=f"it is not TOML: {exc}", mend=f"correct {path}", place=name) from exc
    return SettingsFile(layer, path, name, tree, _lines(text))


def _planted(path: Path) -> bool:
    """Whether somebody else can have put the file there for us to find: settings name programs that we run."""
    return bool(path.parent.stat().st_mode & stat.S_IWOTH) and path.stat().st_uid not in {0, os.geteuid()}


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line of each key: a statement is the shortest run of lines that is TOML by itself."""
    found: dict[tuple[str, ...], int] = {}
    header: tuple[str, ...] = ()
    statement, first = "", 1
    for number, line in enumerate(text.split("\n"), start=1):
        statement, first = (f"{statement}\n{line}", first) if statement else (line, number)
        try:
            keys = [keys for keys, _ in walk(tomllib.loads(statement))]
        except tomllib.TOMLDecodeError:
            continue
        if statement.lstrip().startswith("["):
            header, keys = keys[0], [()]
        found |= {(*header, *below): first for below in keys if header or below}
        statement = ""
    return found


def _spelled(path: Path, directory: Path) -> str:
    """Return the path as a person in `directory` would write it."""
    above = path.parent in (directory, *directory.parents)
    return os.path.relpath(path, directory) if above else str(path)
