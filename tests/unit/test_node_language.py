"""What runs on nodes: the syntax of Python 3.9, the standard library, and nothing of clusterkit but itself."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import clusterkit.node

SOURCES = sorted(Path(clusterkit.node.__file__).parent.glob("*.py"))
IN_THE_IMAGE = {"proving.py", "choosing.py"}  # run by the image's Python, for what is installed there


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_it_is_python_3_9_and_stands_alone(source):
    """Each module is parsed as Python 3.9, and imports its neighbours by relative names, or the standard library."""
    tree = ast.parse(source.read_text(), feature_version=(3, 9))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0}
    allowed = sys.stdlib_module_names | {"zstandard", "_sha2", "_sha256"}
    assert {name.partition(".")[0] for name in names} <= allowed or source.name in IN_THE_IMAGE
    assert "clusterkit" not in {name.partition(".")[0] for name in names}
    assert all(node.level <= 1 for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
