"""The kinds of values a setting takes: each reads what a file or Python holds, and the text of a flag or variable.

A kind raises `ValueError` with the reason; the loader adds the key and the place.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from clusterkit import units

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""How an entry that is no local path begins: `hdfs:`, `local:`, `https:`."""


class Kind(Protocol):
    """How a value is read; `base` is the directory that relative paths start from."""

    @property
    def words(self) -> str:
        """What a person may write, in a few words."""

    def from_value(self, value: Any, base: Path) -> Any:
        """Read a value that already has a type: from TOML or from Python."""

    def from_text(self, text: str, base: Path) -> Any:
        """Read the text of an environment variable or of a flag."""


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text, or one word of a few choices."""

    choices: tuple[str, ...] = ()
    pattern: str = r"[^\x00-\x1f\x7f]+"
    words: str = "text"

    def from_value(self, value: Any, base: Path) -> str:
        """Read text as it is."""
        if not isinstance(value, str):
            raise _wrong_type(value, self.words)
        return self.from_text(value, base)

    def from_text(self, text: str, base: Path) -> str:
        """Read text as it is."""
        del base
        if self.choices and text not in self.choices:
            raise ValueError(f"{text!r} is none of {', '.join(self.choices)}")
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"{text!r} is not {self.words}")
        return text


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number of at least `minimum`."""

    minimum: int = 1
    words: str = "a whole number"

    def from_value(self, value: Any, base: Path) -> int:
        """Read a number."""
        del base
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(value, self.words)
        if value < self.minimum:
            raise ValueError(f"{value} is less than {self.minimum}")
        return value

    def from_text(self, text: str, base: Path) -> int:
        """Read decimal digits."""
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
            raise ValueError(f"{text!r} is not {self.words}")
        return self.from_value(int(text), base)


@dataclass(frozen=True, slots=True)
class Memory:
    """An amount of memory, kept in MiB."""

    words: str = "a size such as '4 GiB' or '512m' (a bare number is MiB)"

    def from_value(self, value: Any, base: Path) -> int:
        """Read a size with its unit, or a number of MiB."""
        del base
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise _wrong_type(value, self.words)
        return units.parse_memory(value)

    def from_text(self, text: str, base: Path) -> int:
        """Read a size with its unit, or a number of MiB."""
        return self.from_value(text, base)


@dataclass(frozen=True, slots=True)
class Boolean:
    """true or false, and nothing that looks like it."""

    words: str = "true or false"

    def from_value(self, value: Any, base: Path) -> bool:
        """Read a Boolean."""
        del base
        if not isinstance(value, bool):
            raise _wrong_type(value, f"{self.words}, without quotes")
        return value

    def from_text(self, text: str, base: Path) -> bool:
        """Read the word true or the word false."""
        del base
        if text not in {"true", "false"}:
            raise ValueError(f"{text!r} is not {self.words}")
        return text == "true"


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A path on this machine, kept absolute."""

    words: str = "a path"

    def from_value(self, value: Any, base: Path) -> Path:
        """Read a path; a relative one starts from `base`."""
        if not isinstance(value, (str, Path)):
            raise _wrong_type(value, self.words)
        return self.from_text(str(value), base)

    def from_text(self, text: str, base: Path) -> Path:
        """Read a path; a relative one starts from `base`."""
        if not text or "\0" in text:
            raise ValueError(f"{text!r} is not {self.words}")
        return base / Path(text).expanduser()


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of words without commas, such as Maven coordinates."""

    words: str = "a list of text"

    def from_value(self, value: Any, base: Path) -> tuple[str, ...]:
        """Read a list."""
        return tuple(self._entry(entry, base) for entry in _listed(value, self.words))

    def from_text(self, text: str, base: Path) -> tuple[str, ...]:
        """Read entries with commas between them."""
        return tuple(self._entry(entry.strip(), base) for entry in self._split(text, base))

    def _entry(self, entry: Any, base: Path) -> str:
        return Text().from_value(entry, base)

    def _split(self, text: str, base: Path) -> list[str]:
        del base
        return text.split(",")


@dataclass(frozen=True, slots=True)
class Files(Texts):
    """A list of local paths (kept absolute) and URIs, each with an `#alias` where its user wants one."""

    words: str = "a list of paths"

    def _entry(self, entry: Any, base: Path) -> str:
        if not isinstance(entry, (str, Path)):
            raise _wrong_type(entry, "a path")
        text = str(entry)
        remote = URI.match(text) and not (base / text).exists()
        return text if remote else str(LocalPath().from_text(text, base))

    def _split(self, text: str, base: Path) -> list[str]:
        """Split at commas, except where a file really has that name: it is refused by name later."""
        return [text] if "," in text and (base / text).exists() else text.split(",")


@dataclass(frozen=True, slots=True)
class Choices(Texts):
    """A list of words, each one of a few."""

    choices: tuple[str, ...] = ()

    def _entry(self, entry: Any, base: Path) -> str:
        return Text(self.choices).from_value(entry, base)


@dataclass(frozen=True, slots=True)
class Paths(Texts):
    """A list of paths on this machine, kept absolute."""

    words: str = "a list of paths"

    def _entry(self, entry: Any, base: Path) -> Path:  # type: ignore[override]
        return LocalPath().from_value(entry, base)


@dataclass(frozen=True, slots=True)
class Table:
    """Names with one text each: Spark's own configuration, environment variables."""

    words: str = "a table of names and values"

    def from_value(self, value: Any, base: Path) -> str:
        """Read one value of the table; numbers and Booleans become the text Spark reads."""
        del base
        if isinstance(value, bool):
            return "true" if value else "false"
        if not isinstance(value, (str, int, float)) or "\0" in str(value):
            raise _wrong_type(value, "text")
        return str(value)

    def from_text(self, text: str, base: Path) -> dict[str, str]:
        """Read `NAME=VALUE` words, quoted as in a shell where a value has spaces."""
        del base
        return dict(_pair(word) for word in shlex.split(text))

    def from_argument(self, value: Any) -> dict[str, Any]:
        """Read a variable's text, the `NAME=VALUE` of repeated flags, or a mapping from Python."""
        if isinstance(value, str):
            return self.from_text(value, Path())
        if isinstance(value, (list, tuple)):
            return dict(_pair(pair) for pair in value)
        if isinstance(value, Mapping):
            return dict(value)
        raise _wrong_type(value, self.words)


@dataclass(frozen=True, slots=True)
class Anything:
    """A table whose keys somebody else checks; in a file only."""

    words: str = "a table, in a file"

    def from_value(self, value: Any, base: Path) -> Any:
        """Take the value as it is."""
        del base
        return value

    def from_text(self, text: str, base: Path) -> Any:
        """Refuse: a table of tables has no spelling in one line."""
        del text, base
        raise ValueError("it is a table, which only clusterkit.toml can hold")


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise ValueError("an entry is not written NAME=VALUE")  # which may be a secret, so it is not shown
    return name, value


def _listed(value: Any, words: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise _wrong_type(value, words)
    return list(value)


def _wrong_type(value: Any, words: str) -> ValueError:
    names = {bool: "a Boolean", int: "a number", float: "a number with a fraction", str: "text", dict: "a table"}
    name = names.get(type(value), "a list" if isinstance(value, (list, tuple)) else f"a {type(value).__name__}")
    return ValueError(f"it takes {words}, and was given {name}")
