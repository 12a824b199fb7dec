"""Small JSON: what nodes read and write without the json package is what that package reads and writes."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterkit.node import small_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_it_reads_what_json_writes(value):
    """Any document of the json package is read as that package reads it, indented or not."""
    for indent in (None, 1):
        assert small_json.decode(json.dumps(value, indent=indent).encode()) == value
        assert small_json.decode(json.dumps(value, indent=indent, ensure_ascii=False).encode()) == value


@given(VALUES)
def test_it_writes_what_json_writes(value):
    """Any value is written as the json package writes it without white space."""
    plain = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    assert small_json.encode(value) == plain
    ordered = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    assert small_json.encode(value, ordered=True) == ordered


@pytest.mark.parametrize("wrong", [b"", b"{", b"[1,]", b"{'a': 1}", b"1 2", b"nul", b"NaN", b"-Infinity", b"\xff"])
def test_what_is_no_json_is_refused(wrong):
    """Half a document, two of them, and what is no JSON are refused."""
    with pytest.raises(ValueError, match=r".+"):
        small_json.decode(wrong)


def test_an_interpreter_without_the_c_functions_uses_the_package(monkeypatch):
    """Where there are no C functions, the package does the same."""
    monkeypatch.setitem(sys.modules, "_json", None)
    value = {"b": [1, 2.5, None, True], "a": "\xfc\n"}
    assert small_json.decode(json.dumps(value).encode()) == value
    assert small_json.encode(value, ordered=True) == '{"a":"\xfc\\n","b":[1,2.5,null,true]}'
