"""The names in the dynamic symbol table of an x86-64 library, and what MKL calls the BLAS and LAPACK ones."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

PREFIX = "scipy_"
"""What the wheels of NumPy >= 2.0 and SciPy >= 1.14 put before each BLAS name, so that no other answers to it."""

_SECTION_TABLE_OFFSET, _SECTION_COUNT_OFFSET = 40, 60
_SHT_DYNSYM = 11
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")

_RETURNS_COMPLEX = re.compile(r"(?P<precision>[cz])(?P<routine>dotc|dotu|ladiv)(?P<wide>_64)?_")
_WIDE_C_NAME = re.compile(r"((?:cblas|LAPACKE)_\w+?)64_")


@dataclass(frozen=True, slots=True)
class DynamicSymbols:
    """The names that a library takes from others, and those that it offers."""

    imported: frozenset[str]
    exported: frozenset[str]

    @classmethod
    def from_elf(cls, data: bytes) -> DynamicSymbols:
        """Read the dynamic symbol table of a 64-bit little-endian ELF file; empty where there is none."""
        sections = list(_sections(data))
        symbols = next((section for section in sections if section.kind == _SHT_DYNSYM), None)
        if symbols is None:
            return cls(frozenset(), frozenset())
        strings = _bytes(data, sections[symbols.link])
        found: dict[bool, set[str]] = {True: set(), False: set()}
        for name, _, _, section, _, _ in _SYMBOL.iter_unpack(_bytes(data, symbols)):
            if name:
                found[bool(section)].add(strings[name : strings.index(b"\0", name)].decode())
        return cls(imported=frozenset(found[False]), exported=frozenset(found[True]))


@dataclass(frozen=True, slots=True)
class Forward:
    """How one name that a wheel imports is answered by MKL.

    Parameters
    ----------
    name : str
        The name as the wheel imports it: `scipy_dgemm_`.
    target : str
        MKL's name: `dgemm_`.
    how : str
        `jump`, where both are called alike. `dot` and `ladiv` return a complex number: gfortran's in registers, MKL's
        through a pointer, so they go through MKL entries that are the same everywhere.
    double : bool
        Whether the complex number has two doubles or two floats.
    wide : bool
        Whether integers have 64 bits.
    """

    name: str
    target: str
    how: Literal["jump", "dot", "ladiv"] = "jump"
    double: bool = False
    wide: bool = False


def forward(name: str, offered: Collection[str]) -> Forward | None:
    """Return how MKL answers a name, or None where it has nothing like it.

    Parameters
    ----------
    name : str
        A name with the wheels' prefix.
    offered : collection of str
        The names that MKL exports.

    Examples
    --------
    >>> forward("scipy_cblas_dgemm64_", {"cblas_dgemm_64"}).target
    'cblas_dgemm_64'
    """
    found = _forward(name)
    return found if name.startswith(PREFIX) and found.target in offered else None


def _forward(name: str) -> Forward:
    plain = name.removeprefix(PREFIX)
    complex_routine = _RETURNS_COMPLEX.fullmatch(plain)
    if complex_routine is None:
        return Forward(name, _WIDE_C_NAME.sub(r"\1_64", plain) if _WIDE_C_NAME.fullmatch(plain) else plain)
    precision, routine, wide = complex_routine["precision"], complex_routine["routine"], complex_routine["wide"] or ""
    double = precision == "z"
    if routine == "ladiv":
        return Forward(name, f"{'d' if double else 's'}ladiv{wide}_", "ladiv", double, bool(wide))
    return Forward(name, f"cblas_{precision}{routine}_sub{wide}", "dot", double, bool(wide))


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


def _sections(data: bytes) -> Iterator[_Section]:
    (table,) = struct.unpack_from("<Q", data, _SECTION_TABLE_OFFSET)
    (count,) = struct.unpack_from("<H", data, _SECTION_COUNT_OFFSET)
    for index in range(count):
        yield _Section(*_SECTION.unpack_from(data, table + _SECTION.size * index))


def _bytes(data: bytes, section: _Section) -> bytes:
    return data[section.offset : section.offset + section.size]
