"""One codec for all specifications: frozen `msgspec.Struct` values to and from JSON, TOML and YAML.

A key that a specification does not know is refused with its place and the nearest known name. Values that equal their
default are left out, so that what is written is what was asked for.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
import tomlkit
import yaml

from clusterkit.errors import SpecError
from clusterkit.nearest import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Spec = TypeVar("Spec", bound=msgspec.Struct)


def to_mapping(spec: msgspec.Struct) -> dict[str, Any]:
    """Return a specification as plain dictionaries, lists, text and numbers, without what equals its default."""
    tree: dict[str, Any] = _listed(msgspec.to_builtins(spec, enc_hook=_encoded))
    defaults = {field.encode_name: field.default for field in msgspec.structs.fields(spec)}
    return {name: value for name, value in tree.items() if value != {} or getattr(spec, name) != defaults[name]}


def to_json(spec: msgspec.Struct) -> str:
    """Return a specification as JSON text."""
    return json.dumps(to_mapping(spec), indent=2, ensure_ascii=False) + "\n"


def to_toml(spec: msgspec.Struct) -> str:
    """Return a specification as TOML text."""
    return tomlkit.dumps(to_mapping(spec))


def to_yaml(spec: msgspec.Struct) -> str:
    """Return a specification as YAML text."""
    text: str = yaml.dump(to_mapping(spec), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def from_mapping(kind: type[Spec], tree: Any, *, place: str = "") -> Spec:
    """Check plain values and return the specification.

    Parameters
    ----------
    kind : type
        The specification's class.
    tree : object
        What a parser of JSON, TOML or YAML returned.
    place : str
        The file it comes from, for messages.

    Raises
    ------
    SpecError
        If a key is unknown or missing, or a value has the wrong type; it names the place.
    """
    if not isinstance(tree, Mapping):
        raise _error(kind, "it is not a table", (), place)
    for keys, known in _unknown_keys(kind, tree):
        raise _error(kind, f"there is no key {keys[-1]}{suggestion(keys[-1], known)}", keys, place)
    try:
        return msgspec.convert(tree, kind, dec_hook=_decoded)
    except msgspec.ValidationError as exc:
        why, _, path = str(exc).partition(" - at ")
        keys = tuple(part for part in path.strip("`").removeprefix("$").split(".") if part)
        raise _error(kind, why, keys, place) from exc
    except SpecError as exc:
        if not place:
            raise
        raise exc.at(place) from exc


def from_json(kind: type[Spec], text: str, *, place: str = "") -> Spec:
    """Read JSON text; see `from_mapping`."""
    try:
        tree = json.loads(text)
    except ValueError as exc:
        raise _error(kind, f"it is not JSON: {exc}", (), place) from exc
    return from_mapping(kind, tree, place=place)


def from_toml(kind: type[Spec], text: str, *, place: str = "") -> Spec:
    """Read TOML text; see `from_mapping`."""
    try:
        tree = tomllib.loads(text)
    except ValueError as exc:
        raise _error(kind, f"it is not TOML: {exc}", (), place) from exc
    return from_mapping(kind, tree, place=place)


def from_yaml(kind: type[Spec], text: str, *, place: str = "") -> Spec:
    """Read YAML text; see `from_mapping`."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        why = " ".join(str(exc).split())
        raise _error(kind, f"it is not YAML: {why}", (), place) from exc
    return from_mapping(kind, tree, place=place)


def load(kind: type[Spec], path: Path) -> Spec:
    """Read a specification from a `.json`, `.toml`, `.yaml` or `.yml` file.

    Raises
    ------
    SpecError
        If the file cannot be read, has another suffix, or does not hold such a specification.
    """
    readers = {".json": from_json, ".toml": from_toml, ".yaml": from_yaml, ".yml": from_yaml}
    if path.suffix not in readers:
        raise _error(kind, f"its name ends in none of {', '.join(readers)}", (), str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise _error(kind, str(getattr(exc, "strerror", None) or exc), (), str(path)) from exc
    return readers[path.suffix](kind, text, place=str(path))


class _Dumper(yaml.SafeDumper):
    """Writes text with line ends or control characters in double quotes: the other styles fold some of them."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _unknown_keys(
    kind: Any, value: Any, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Iterable[str]]]:
    """Yield the names that lead to each key a specification does not know, with those it does know."""
    arms = get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield from _unknown_fields(kind, value, above)
    elif get_origin(kind) in {Annotated, Union, UnionType}:
        for arm in arms:
            yield from _unknown_keys(arm, value, above)
    elif isinstance(value, Mapping) and arms:
        for name, entry in value.items():
            yield from _unknown_keys(arms[-1], entry, (*above, str(name)))
    elif isinstance(value, list) and arms:
        for index, entry in enumerate(value):
            yield from _unknown_keys(arms[0], entry, (*above, str(index)))


def _unknown_fields(
    kind: type[msgspec.Struct], value: Any, above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Iterable[str]]]:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for name, entry in value.items() if isinstance(value, Mapping) else ():
        if name in fields:
            yield from _unknown_keys(fields[name], entry, (*above, name))
        else:
            yield (*above, str(name)), fields


def _error(kind: type, why: str, keys: tuple[str, ...], place: str) -> SpecError:
    key = ".".join(keys)
    where = ", ".join(part for part in (place, f"at {key}" if key else "") if part)
    return SpecError(
        f"{place or 'this'} is not a {kind.__name__}",
        why=why,
        mend=f"correct {place or key or 'the text'}",
        key=key or None,
        place=where or None,
    )


def _encoded(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value).__name__)


def _decoded(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is Path:
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    raise NotImplementedError(kind.__name__)


def _listed(value: Any) -> Any:
    """Make lists of tuples, which not every format's library takes."""
    if isinstance(value, dict):
        return {name: _listed(entry) for name, entry in value.items()}
    return [_listed(entry) for entry in value] if isinstance(value, (list, tuple)) else value
