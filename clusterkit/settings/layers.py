"""The layers of settings, each read into leaves: a value, its path in the tree, and where it was written."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusterkit.errors import SettingsError
from clusterkit.nearest import suggestion
from clusterkit.settings import files, kinds
from clusterkit.settings.table import BY_KEY, BY_KEYWORD, BY_VARIABLE, SPARK_KEYS, TABLE, Setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from.

    Parameters
    ----------
    layer : str
        `flag`, `keyword`, `environment`, `project file`, `user file`, `system file` or `default`.
    place : str
        `--executor-memory`, `executor_memory=`, `CLUSTERKIT_EXECUTOR_MEMORY`, `clusterkit.toml:14`; empty: default.
    """

    layer: str
    place: str = ""

    def __str__(self) -> str:
        return f"flag {self.place}" if self.layer == "flag" else self.place or self.layer


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value that a layer sets, at its path in the tree of settings."""

    setting: Setting
    path: tuple[str, ...]
    value: Any
    origin: Origin

    @property
    def key(self) -> str:
        """The dotted key, with the user's own names in it."""
        return ".".join(self.path)


def from_files(directory: Path) -> Iterator[Leaf]:
    """Read the files, the least important first."""
    for file in files.load(directory):
        for keys, value in file.leaves():
            origin = Origin(file.layer, file.place(keys))
            setting = _in_file(keys, value, origin)
            if setting is not None:
                names = keys[: len(setting.path)]
                yield from _leaves(setting, names, keys[len(names) :], value, origin, file.path.parent)


def from_environment(environ: Mapping[str, str], base: Path) -> Iterator[Leaf]:
    """Read the `CLUSTERKIT_` variables; an empty one is not set."""
    for variable in sorted(environ):
        if variable.startswith("CLUSTERKIT_") and environ[variable]:
            origin = Origin("environment", variable)
            setting = _known(variable, BY_VARIABLE, "environment variable", origin)
            yield from _argument(setting, environ[variable], origin, base)


def from_keywords(keywords: Mapping[str, object], base: Path) -> Iterator[Leaf]:
    """Read keyword arguments from Python; None was not given."""
    for keyword, value in keywords.items():
        if value is not None:
            origin = Origin("keyword", f"{keyword}=")
            setting = _known(keyword, BY_KEYWORD, "keyword argument", origin)
            yield from _argument(setting, value, origin, base)


def from_flags(flags: Mapping[str, object], base: Path) -> Iterator[Leaf]:
    """Read the flags of a command line, by dotted key; None and empty lists were not given."""
    for key, value in flags.items():
        if value is not None and value != ():
            setting = _known(key, BY_KEY, "setting", Origin("flag", key))
            yield from _argument(setting, value, Origin("flag", setting.flag), base)


def _in_file(keys: tuple[str, ...], value: Any, origin: Origin) -> Setting | None:
    """Return the setting that a file's keys belong to; None for an empty table that may stand there."""
    dotted = ".".join(keys)
    setting = next((each for each in TABLE if _matches(each.path, keys[: len(each.path)])), None)
    if setting is not None:
        below = keys[len(setting.path) :]
        if bool(below) != setting.open and value != {}:
            given = f"a table{suggestion(dotted, _candidates(keys))}" if below else "one value"
            raise _refusal(dotted, f"it takes {setting.kind.words}, and was given {given}", origin)
        return setting if below or not setting.open else None
    inside = [".".join((*keys, *each.path[len(keys) :])) for each in TABLE if _matches(each.path[: len(keys)], keys)]
    if not inside:
        raise _unknown(dotted, _candidates(keys), "setting", origin)
    if value != {}:
        raise _refusal(dotted, f"it is a table, which holds {', '.join(inside)}", origin)
    return None


def _matches(pattern: tuple[str, ...], keys: tuple[str, ...]) -> bool:
    return len(pattern) == len(keys) and all(part in ("*", key) for part, key in zip(pattern, keys, strict=True))


def _candidates(keys: tuple[str, ...]) -> Iterator[str]:
    """Yield every key that could be meant, with the user's own names where names are the user's."""
    for setting in TABLE:
        parts = [keys[i] if part == "*" and i < len(keys) else part for i, part in enumerate(setting.path)]
        yield ".".join((*parts, *keys[len(parts) :]) if setting.open else parts)
        yield ".".join(parts[: len(keys)])


def _argument(setting: Setting, value: Any, origin: Origin, base: Path) -> Iterator[Leaf]:
    """Read a flag, a keyword argument or a variable."""
    kind = setting.kind
    with _refused(setting.key, origin):
        if isinstance(kind, kinds.Table):
            value = kind.from_argument(value)
        elif isinstance(value, str):
            value = kind.from_text(value, base)
        elif origin.layer == "flag" and isinstance(kind, kinds.Texts):
            value = [entry for text in value for entry in kind.from_text(text, base)]
    entries: Iterable[tuple[tuple[str, ...], Any]] = [((), value)]
    if isinstance(kind, kinds.Table):
        entries = (((name,), entry) for name, entry in value.items())
    for below, entry in entries:
        yield from _leaves(setting, setting.path, below, entry, origin, base)


def _leaves(
    setting: Setting, names: tuple[str, ...], below: tuple[str, ...], value: Any, origin: Origin, base: Path
) -> Iterator[Leaf]:
    if isinstance(setting.kind, kinds.Table) and below:
        below = (".".join(below),)
        _check_spark_key(setting, below[0], origin)
    with _refused(".".join((*names, *below)), origin):
        value = setting.kind.from_value(value, base)
    yield Leaf(setting, (*names, *below), value, origin)


def _check_spark_key(setting: Setting, name: str, origin: Origin) -> None:
    if setting.key != "spark.conf":
        return
    if name in SPARK_KEYS:
        owner = BY_KEY[SPARK_KEYS[name]]
        raise SettingsError(
            f"{name} cannot be set in spark.conf",
            why=f"the setting {owner.key} owns it",
            mend=f"set {owner.key} in clusterkit.toml, or use {owner.flag}",
            key=f"spark.conf.{name}",
            place=origin.place,
        )
    if not name.startswith("spark."):
        raise SettingsError(
            f"{name} cannot be set in spark.conf",
            why="Spark ignores every property that does not begin with `spark.`",
            mend=f"correct {origin.place}; a Hadoop property is written spark.hadoop.{name}",
            key=f"spark.conf.{name}",
            place=origin.place,
        )


def _known(name: str, known: Mapping[str, Setting], noun: str, origin: Origin) -> Setting:
    if name not in known:
        raise _unknown(name, known, noun, origin)
    return known[name]


def _unknown(name: str, known: Iterable[str], noun: str, origin: Origin) -> SettingsError:
    return SettingsError(
        f"there is no {noun} {name}",
        why=f"clusterkit does not know it{suggestion(name, known)}",
        mend=f"correct {origin.place}; `clusterkit config show` lists every setting",
        key=name,
        place=origin.place,
    )


def _refusal(key: str, why: str, origin: Origin) -> SettingsError:
    return SettingsError(
        f"{key} was not accepted", why=why, mend=f"correct {origin.place}", key=key, place=origin.place
    )


@contextmanager
def _refused(key: str, origin: Origin) -> Iterator[None]:
    """Turn a kind's `ValueError` into an error that names the key and the place."""
    try:
        yield
    except ValueError as exc:
        raise _refusal(key, str(exc), origin) from exc
