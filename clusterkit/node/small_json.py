"""JSON without the `json` package, whose regular expressions take longer to import than all else a start does.

The C functions behind that package do the work; where an interpreter has none, the package itself does.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Strict:
    """What the scanner asks about its task: plain JSON."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012 - asked for by some versions, used by none of them

    @staticmethod
    def parse_constant(name: str) -> None:
        """Refuse NaN and infinities."""
        raise ValueError(f"{name} is no JSON")


def decode(data: bytes) -> Any:
    """Return the value of a JSON document.

    Raises
    ------
    ValueError
        If it is none.
    """
    text = data.decode().strip(" \t\n\r")
    try:
        from _json import make_scanner  # noqa: PLC0415 - an interpreter may be without
    except ImportError:
        import json  # noqa: PLC0415

        return json.loads(text)
    try:
        value, end = make_scanner(_Strict())(text, 0)  # type: ignore[arg-type]
    except StopIteration as exc:
        raise ValueError(f"there is no value at character {exc.value}") from None
    if end != len(text):
        raise ValueError(f"there is something behind the value, at character {end}")
    return value


def encode(value: Any, *, ordered: bool = False) -> str:
    """Return a value of strings, numbers, booleans, None, lists and dictionaries as JSON without white space.

    `ordered` sorts the keys.
    """
    try:
        from _json import encode_basestring as text  # noqa: PLC0415 - an interpreter may be without
    except ImportError:
        import json  # noqa: PLC0415

        return json.dumps(value, separators=(",", ":"), sort_keys=ordered, ensure_ascii=False)
    if isinstance(value, str):
        return str(text(value))
    if isinstance(value, dict):
        items = sorted(value.items()) if ordered else value.items()
        return "{" + ",".join(f"{text(key)}:{encode(each, ordered=ordered)}" for key, each in items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(encode(each, ordered=ordered) for each in value) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value)
