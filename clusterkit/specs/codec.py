"""One codec for all specifications: frozen `msgspec.Struct` values to and from JSON, TOML and YAML.

A key that a specification does not know is refused with its place and the nearest known name. Values that equal their
default are left out, so that what is written is what was asked for.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec
import tomlkit
import yaml

from clusterkit.errors import SpecError
from clusterkit.nearest import suggestion

Spec = TypeVar("Spec", bound=msgspec.Struct)


def to_mapping(spec: msgspec.Struct) -> dict[str, Any]:
    """Return a specification as plain dictionaries, lists, text and numbers, without what equals its default."""
    mapping: dict[str, Any] = _pruned(msgspec.to_builtins(spec, enc_hook=_encoded))
    return mapping


def to_json(spec: msgspec.Struct) -> str:
    """Return a specification as JSON text."""
    return json.dumps(to_mapping(spec), indent=2, ensure_ascii=False) + "\n"


def to_toml(spec: msgspec.Struct) -> str:
    """Return a specification as TOML text."""
    return tomlkit.dumps(to_mapping(spec))


def to_yaml(spec: msgspec.Struct) -> str:
    """Return a specification as YAML text."""
    text: str = yaml.safe_dump(to_mapping(spec), sort_keys=False, allow_unicode=True)
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
    _check_names(kind, tree, (), place)
    try:
        return msgspec.convert(tree, kind, dec_hook=_decoded)
    except msgspec.ValidationError as exc:
        why, _, path = str(exc).partition(" - at ")
        keys = tuple(part for part in path.strip("`").removeprefix("$").split(".") if part)
        raise _error(kind, why, keys, place) from exc


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


def _check_names(kind: type[msgspec.Struct], tree: Mapping[Any, Any], above: tuple[str, ...], place: str) -> None:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for name, value in tree.items():
        if name not in fields:
            raise _error(kind, f"there is no key {name}{suggestion(str(name), fields)}", (*above, str(name)), place)
        for nested in _structs(fields[name]) if isinstance(value, Mapping) else ():
            _check_names(nested, value, (*above, name), place)


def _structs(kind: Any) -> list[type[msgspec.Struct]]:
    """Return the specification a field holds, itself or as one arm of a union."""
    arms = (kind, *get_args(kind))
    return [arm for arm in arms if isinstance(arm, type) and issubclass(arm, msgspec.Struct)]


def _error(kind: type, why: str, keys: tuple[str, ...], place: str) -> SpecError:
    noun = kind.__name__
    key = ".".join(keys)
    where = ", ".join(part for part in (place, f"at {key}" if key else "") if part)
    mend = f"correct {place or key or 'it'}"
    return SpecError(f"this is no {noun}", why=why, mend=mend, key=key or None, place=where or None)


def _encoded(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value).__name__)


def _decoded(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(kind.__name__)


def _pruned(value: Any) -> Any:
    """Leave out empty tables, which nested specifications of defaults become."""
    if not isinstance(value, dict):
        return value
    kept = {name: _pruned(entry) for name, entry in value.items()}
    return {name: entry for name, entry in kept.items() if entry != {}}
