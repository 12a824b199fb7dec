"""Sizes and durations: parsed once at the edge, printed the same way everywhere.

Memory is binary, as Spark and YARN read it: `4g`, `4 GiB` and `4096` (MiB) are the same amount.
"""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")
_UNITS = {"b": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB}
_FACTORS = _UNITS | {f"{unit}{tail}": _UNITS[unit] for unit in "kmgt" for tail in ("b", "ib")}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)\s*")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_bytes(text: str) -> int:
    """Read a size with its unit and return bytes.

    Parameters
    ----------
    text : str
        A number and a unit: `b`, `k`, `m`, `g` or `t`, also as `KiB` or `KB` (both are 1024 bytes, as in Spark).

    Returns
    -------
    int
        The size in bytes, rounded down.

    Raises
    ------
    ValueError
        If there is no number, no unit, or an unknown unit.

    Examples
    --------
    >>> parse_bytes("1.5 KiB")
    1536
    """
    match = _SIZE.fullmatch(text)
    if match is None or match[2].lower() not in _FACTORS:
        msg = f"{text!r} is not a size: write a number and a unit, such as '512 MiB' or '4g'"
        raise ValueError(msg)
    return int(float(match[1]) * _FACTORS[match[2].lower()])


def parse_memory(text: str | int) -> int:
    """Read an amount of memory and return mebibytes.

    Parameters
    ----------
    text : str or int
        A size as `parse_bytes` reads it. A bare number is MiB, as in YARN.

    Returns
    -------
    int
        The amount in MiB, > 0.

    Raises
    ------
    ValueError
        If it is not a size, or less than one MiB.

    Examples
    --------
    >>> parse_memory("4 GiB"), parse_memory("512m"), parse_memory(512)
    (4096, 512, 512)
    """
    words = str(text).strip()
    size_mib = int(words) if words.isdecimal() else parse_bytes(words) // MIB
    if size_mib < 1:
        msg = f"{words!r} is less than one MiB"
        raise ValueError(msg)
    return size_mib


def format_memory(size_mib: int) -> str:
    """Return an amount of memory as `parse_memory` reads it back.

    Examples
    --------
    >>> format_memory(4096), format_memory(1500)
    ('4 GiB', '1500 MiB')
    """
    return f"{size_mib // 1024} GiB" if size_mib % 1024 == 0 and size_mib else f"{size_mib} MiB"


def format_bytes(size_bytes: float) -> str:
    """Return a size for people: three significant digits, binary unit.

    Examples
    --------
    >>> format_bytes(812), format_bytes(99 * 1024 * 1024)
    ('812 B', '99 MiB')
    """
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 999.5:  # where three digits round up to a fourth
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB" if size < 999.5 else f"{size:.0f} TiB"


def parse_duration(text: str) -> float:
    """Read a duration and return seconds.

    Raises
    ------
    ValueError
        If it is not a number with one of the units `ms`, `s`, `m` (or `min`), `h`, `d`.

    Examples
    --------
    >>> parse_duration("8 h")
    28800.0
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        msg = f"{text!r} is not a duration: write a number and a unit, such as '30s', '10m' or '8h'"
        raise ValueError(msg)
    return float(match[1]) * _SECONDS[match[2]]


def format_duration(seconds: float) -> str:
    """Return a duration for people.

    Examples
    --------
    >>> format_duration(3.14159), format_duration(200), format_duration(7300)
    ('3.1 s', '3 min 20 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
