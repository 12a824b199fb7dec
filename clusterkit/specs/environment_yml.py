"""conda's `environment.yml`: read with the line of each entry, so that what is wrong in it can be shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import yaml

from clusterkit.errors import SpecError
from clusterkit.nearest import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_KEYS = ("name", "channels", "dependencies", "variables", "prefix")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IS_PATH = re.compile(r"(\.{0,2}/|file:|~).*|\.{1,2}")


@dataclass(frozen=True, slots=True)
class EnvironmentYml:
    """What an `environment.yml` asks for.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        The environment's name; empty where it has none.
    channels : tuple of str
        conda channels, the first one first; `nodefaults` is left out.
    dependencies : tuple of str
        conda match specifications, as they are written.
    pip : tuple of str
        The lines of the nested `pip:` list; files it includes by `-r` are read in their place.
    variables : mapping of str to str
        Environment variables that a process in it gets.
    lines : mapping of str to int
        The line where each dependency, channel and requirement is written.
    """

    path: Path
    name: str = ""
    channels: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)

    def place(self, entry: str) -> str:
        """Return where an entry is written: `environment.yml:7`."""
        line = self.lines.get(entry)
        return f"{self.path}:{line}" if line else str(self.path)


def load(path: Path) -> EnvironmentYml:
    """Read an `environment.yml`.

    Raises
    ------
    SpecError
        If it cannot be read, holds a key that is not known, or an entry that conda would not understand or that cannot
        be packed; the error names the line.

    References
    ----------
    conda, "Creating an environment file manually"; `prefix` is written by `conda env export` and says nothing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        _refuse(path, str(getattr(exc, "strerror", None) or exc))
    return parse(text, path)


def parse(text: str, path: Path) -> EnvironmentYml:
    """Read the text of an `environment.yml` that lies at `path`; see `load`."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else None
        _refuse(path, f"it is not YAML: {exc.problem or exc.context}", line)
    except yaml.YAMLError as exc:
        _refuse(path, f"it is not YAML: {' '.join(str(exc).split())}")
    if not isinstance(root, yaml.MappingNode):
        _refuse(path, "it is not a table of name, channels and dependencies")
    return _Reader(path).environment(root)


class _Reader:
    """Reads nodes of YAML, and remembers on which line each text stands."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, int] = {}

    def environment(self, root: yaml.MappingNode) -> EnvironmentYml:
        nodes = dict(self._entries(root))
        for key, (line, _) in nodes.items():
            if key not in _KEYS:
                _refuse(self._path, f"there is no key {key}{suggestion(key, _KEYS)}", line)
        values = {key: node for key, (_, node) in nodes.items()}
        conda, pip = self._dependencies(values.get("dependencies"))
        name = self._text(values["name"], "the name") if "name" in values else ""
        channels = tuple(c for c in self._list(values.get("channels"), "channels") if c != "nodefaults")
        return EnvironmentYml(
            self._path, name, channels, conda, pip, self._variables(values.get("variables")), self._lines
        )

    def _entries(self, node: yaml.MappingNode) -> Iterator[tuple[str, tuple[int, yaml.Node]]]:
        seen = set()
        for key, value in node.value:
            name = self._text(key, "a key")
            if name in seen:
                _refuse(self._path, f"the key {name} is there twice", _line(key))
            seen.add(name)
            yield name, (_line(key), value)

    def _dependencies(self, node: yaml.Node | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        conda: list[str] = []
        pip: list[str] = []
        for entry in self._sequence(node, "dependencies"):
            if isinstance(entry, yaml.MappingNode):
                pip += self._nested(entry)
            else:
                conda.append(self._text(entry, "a dependency"))
        return tuple(conda), tuple(pip)

    def _nested(self, node: yaml.MappingNode) -> Iterator[str]:
        for key, (line, value) in self._entries(node):
            if key != "pip":
                _refuse(self._path, f"a nested list is for pip alone, not for {key}", line)
            for text in self._list(value, "pip"):
                yield from _pip_lines(text, self._path, self._lines[text])

    def _variables(self, node: yaml.Node | None) -> dict[str, str]:
        if node is None or _is_null(node):
            return {}
        if not isinstance(node, yaml.MappingNode):
            _refuse(self._path, "variables is not a table", _line(node))
        variables = {}
        for name, (line, value) in self._entries(node):
            if not _VARIABLE.fullmatch(name):
                _refuse(self._path, f"{name!r} is no name for a variable", line)
            variables[name] = self._text(value, f"the variable {name}")
        return variables

    def _list(self, node: yaml.Node | None, key: str) -> tuple[str, ...]:
        return tuple(self._text(entry, f"an entry of {key}") for entry in self._sequence(node, key))

    def _sequence(self, node: yaml.Node | None, key: str) -> Iterable[yaml.Node]:
        if node is None or _is_null(node):
            return ()
        if not isinstance(node, yaml.SequenceNode):
            _refuse(self._path, f"{key} is not a list", _line(node))
        entries: list[yaml.Node] = node.value
        return entries

    def _text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or _is_null(node) or not node.value.strip():
            _refuse(self._path, f"{what} is not text", _line(node))
        text: str = node.value.strip()
        self._lines.setdefault(text, _line(node))
        return text


def _pip_lines(text: str, path: Path, line: int) -> Iterator[str]:
    """Yield a requirement as a line of a requirements file that may lie anywhere."""
    option, value = _split_option(text)
    if option in {"-e", "--editable"}:
        _refuse(path, f"{value} is editable: code that is edited is no package", line, _local(value))
    elif option in {"-r", "--requirement"}:
        yield from _included(path.parent / value, path, line)
    elif option in {"-c", "--constraint"}:
        yield f"-c {_file(value, path, line)}"
    elif option in {"-f", "--find-links"} and (path.parent / value).is_dir():
        yield f"-f {(path.parent / value).absolute()}"
    elif not option and _IS_PATH.fullmatch(text.split(";", maxsplit=1)[0].strip()):
        yield _file(text, path, line)
    else:
        yield text


def _included(file: Path, path: Path, line: int) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        why = f"{file}, which pip shall read, cannot be read: {getattr(exc, 'strerror', None) or exc}"
        _refuse(path, why, line)
    for number, written in enumerate(re.sub(r"\\\n", " ", text).splitlines(), 1):
        requirement = re.sub(r"(^|\s)#.*", "", written).strip()
        if requirement:
            yield from _pip_lines(requirement, file, number)


def _file(text: str, path: Path, line: int) -> str:
    file = (path.parent / Path(text.removeprefix("file://")).expanduser()).absolute()
    if file.is_dir():
        _refuse(path, f"{text} is a folder, whose content has no version", line, _local(text))
    if not file.is_file():
        _refuse(path, f"{file} does not exist", line)
    return str(file)


def _local(folder: str) -> str:
    return f"take it out of the list, and name the folder in the environment's `local`: local = [{folder!r}]"


def _split_option(text: str) -> tuple[str, str]:
    if not text.startswith("-"):
        return "", text
    option, _, value = text.replace("=", " ", 1).partition(" ") if text.startswith("--") else text.partition(" ")
    if not text.startswith("--") and len(option) > len("-r"):
        option, value = option[:2], option[2:] + value
    return option, value.strip()


def _is_null(node: yaml.Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _refuse(path: Path, why: str, line: int | None = None, mend: str = "") -> NoReturn:
    place = f"{path}:{line}" if line else str(path)
    raise SpecError(
        f"{path.name} cannot be used as an environment",
        why=why,
        mend=mend or f"correct {place}",
        key="source",
        place=place,
    )
