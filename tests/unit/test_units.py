"""Sizes and durations, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterkit import units


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0b", 0), ("1k", 1024), ("1 KB", 1024), ("1KiB", 1024), ("1.5m", 1572864), ("4g", 4294967296), ("1 TiB", 2**40)],
)
def test_sizes_are_binary(text: str, size_bytes: int) -> None:
    """Every unit is a power of 1024, as Spark reads it."""
    assert units.parse_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "4", "g", "4x", "-1g", "4 g g", "1e3m", "٣x", "4g; rm -rf /", "nan g"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """A size is a number and a known unit, and nothing else; the message shows how to write one."""
    with pytest.raises(ValueError, match="is not a size: write a number and a unit"):
        units.parse_bytes(text)


@pytest.mark.parametrize(
    ("given", "size_mib"), [("4 GiB", 4096), ("512m", 512), (512, 512), ("512", 512), ("2048k", 2)]
)
def test_bare_memory_is_mebibytes(given: str | int, size_mib: int) -> None:
    """A number without a unit is MiB, as in YARN."""
    assert units.parse_memory(given) == size_mib


@pytest.mark.parametrize("text", ["0", "0g", "1k", "1023 KiB"])
def test_less_than_a_mebibyte_is_refused(text: str) -> None:
    """Memory is at least one MiB."""
    with pytest.raises(ValueError, match="less than one MiB"):
        units.parse_memory(text)


@given(st.integers(1, 2**40))
def test_memory_round_trips(size_mib: int) -> None:
    """What is printed is read back as the same amount."""
    assert units.parse_memory(units.format_memory(size_mib)) == size_mib


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1023900, "0.976 MiB"),
        (1536, "1.5 KiB"),
        (2**30, "1 GiB"),
        (2**41, "2 TiB"),
    ],
)
def test_sizes_for_people(size_bytes: int, text: str) -> None:
    """Three digits and a binary unit."""
    assert units.format_bytes(size_bytes) == text


@given(st.integers(0, 2**60))
def test_sizes_for_people_are_never_in_powers_of_ten(size_bytes: int) -> None:
    """However large, a size prints as plain digits."""
    assert "e" not in units.format_bytes(size_bytes)


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("10m", 600), ("10 min", 600), ("8 h", 28800), ("1.5d", 129600)]
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    """Every unit of time is read into seconds."""
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "h", "10 weeks", "-1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A duration is a number and a known unit; the message shows how to write one."""
    with pytest.raises(ValueError, match="is not a duration: write a number and a unit"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7300, "2 h 1 min")],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    """Seconds, minutes or hours, whichever a person would say."""
    assert units.format_duration(seconds) == text
