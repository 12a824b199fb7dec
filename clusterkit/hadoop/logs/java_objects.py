"""Objects that Java's serialization wrote, as plain Python values.

Enough of the protocol to read what YARN writes: objects, strings, enums, collections with what they write by
themselves. Nothing is ever executed: a class is only a name here.

References
----------
https://docs.oracle.com/en/java/javase/17/docs/specs/serialization/protocol.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from clusterkit.hadoop.logs.byte_stream import modified_utf8

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.hadoop.logs.byte_stream import ByteStream

_NUMBERS = {"B": "b", "S": "h", "I": "i", "J": "q", "C": "H"}
_HAS_ANNOTATIONS = 0x01
_SERIALIZABLE = 0x02
_BASE_HANDLE = 0x7E0000
_END = object()


class JavaObject(NamedTuple):
    """An object: its class, its fields, and what its class wrote beside them, by class."""

    kind: str
    fields: dict[str, Any]
    extras: dict[str, list[Any]]


class _ClassDescription(NamedTuple):
    name: str
    flags: int
    fields: tuple[tuple[str, str], ...]
    parent: _ClassDescription | None

    def lineage(self) -> list[_ClassDescription]:
        """Return the class and those above it, the uppermost first."""
        return [*(self.parent.lineage() if self.parent else ()), self]


def load(stream: ByteStream) -> Any:
    """Return the one object in a stream.

    Lists become lists, maps lists of pairs in the order Java would walk through them, enums their constant's name.

    Raises
    ------
    ValueError
        If it is no such stream, or holds what is not understood here.
    """
    if stream.read(4) != b"\xac\xed\x00\x05":
        msg = "no Java object where one was expected"
        raise ValueError(msg)
    return _simplified(_Reader(stream).value())


def java_hash(text: str) -> int:
    """Return Java's `String.hashCode` as an unsigned number.

    Examples
    --------
    >>> java_hash("stdout")
    3402570315
    """
    units = text.encode("utf-16-be", "surrogatepass")
    result = 0
    for high, low in zip(units[::2], units[1::2], strict=True):
        result = (31 * result + (high << 8 | low)) & 0xFFFFFFFF
    return result


class _Reader:
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._known: list[Any] = []

    def value(self) -> Any:
        code = self._stream.number("B")
        readers: dict[int, Callable[[], Any]] = {
            0x70: lambda: None,
            0x71: self._reference,
            0x73: self._object,
            0x74: lambda: self._string("H"),
            0x77: lambda: self._stream.read(self._stream.number("B")),
            0x78: lambda: _END,
            0x7A: lambda: self._stream.read(self._stream.number("i")),
            0x7C: lambda: self._string("q"),
            0x7E: self._enum,
        }
        if code not in readers:
            msg = f"Java's type code {code:#x} is not understood"
            raise ValueError(msg)
        return readers[code]()

    def _reference(self) -> Any:
        return self._known[self._stream.number("i") - _BASE_HANDLE]

    def _string(self, layout: str) -> str:
        text = modified_utf8(self._stream.read(self._stream.number(layout)))
        self._known.append(text)
        return text

    def _enum(self) -> str:
        self._description()
        place = self._reserve()
        name = str(self.value())
        self._known[place] = name
        return name

    def _object(self) -> JavaObject:
        description = self._description()
        if description is None:
            msg = "an object without a class"
            raise ValueError(msg)
        made = JavaObject(description.name, {}, {})
        self._known.append(made)
        for part in description.lineage():
            made.fields.update({name: self._field(kind) for name, kind in part.fields})
            if part.flags & _HAS_ANNOTATIONS:
                made.extras[part.name] = self._annotations()
        return made

    def _description(self) -> _ClassDescription | None:
        code = self._stream.number("B")
        if code == 0x70:
            return None
        if code == 0x71:
            known: _ClassDescription = self._reference()
            return known
        if code != 0x72:
            msg = f"Java's class description {code:#x} is not understood"
            raise ValueError(msg)
        name = self._stream.text()
        self._stream.skip(8)  # serialVersionUID
        place = self._reserve()
        flags = self._stream.number("B")
        if not flags & _SERIALIZABLE:
            msg = f"class {name} is written in a way of its own"
            raise ValueError(msg)
        fields = tuple(self._declared() for _ in range(self._stream.number("H")))
        self._annotations()
        description = _ClassDescription(name, flags, fields, None)
        self._known[place] = description
        description = description._replace(parent=self._description())
        self._known[place] = description
        return description

    def _declared(self) -> tuple[str, str]:
        kind = chr(self._stream.number("B"))
        name = self._stream.text()
        if kind in "L[":
            self.value()  # the type's name
        return name, kind

    def _field(self, kind: str) -> Any:
        if kind in "L[":
            return self.value()
        if kind in _NUMBERS:
            return self._stream.number(_NUMBERS[kind])
        if kind == "Z":
            return self._stream.number("b") != 0
        return self._stream.read(4 if kind == "F" else 8)

    def _annotations(self) -> list[Any]:
        values = []
        while (value := self.value()) is not _END:
            values.append(value)
        return values

    def _reserve(self) -> int:
        self._known.append(None)
        return len(self._known) - 1


def _simplified(value: Any) -> Any:
    if not isinstance(value, JavaObject):
        return value
    if value.kind == "java.util.ArrayList":
        return [_simplified(entry) for entry in value.extras[value.kind][1:]]
    if value.kind == "java.util.HashMap":
        entries = [_simplified(entry) for entry in value.extras[value.kind][1:]]
        return _walked(list(zip(entries[::2], entries[1::2], strict=True)))
    return value._replace(fields={name: _simplified(entry) for name, entry in value.fields.items()})


def _walked(pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return a HashMap's pairs in the order in which Java walks through the map it makes of them.

    Buckets of eight and more keys, which Java turns into trees, keep the order they were written in.
    """
    capacity = 16
    while capacity < int(len(pairs) / 0.75 + 1.0):
        capacity *= 2
    return sorted(pairs, key=lambda pair: _bucket(pair[0], capacity))


def _bucket(key: Any, capacity: int) -> int:
    spread = java_hash(str(key))
    return (spread ^ spread >> 16) & (capacity - 1)
