"""The house: imports go down only, heavy libraries have one door, and the facade costs nothing."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import clusterkit

PACKAGE = Path(clusterkit.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.name != "__main__.py"
)


def tree(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_bytes())


def test_floors_and_doors() -> None:
    """Every contract of import-linter holds: floors, rooms and doors."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_facade_loads_nothing() -> None:
    """`import clusterkit` imports none of its own modules and no library."""
    code = "import sys; before = set(sys.modules); import clusterkit; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    own = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert own == {"clusterkit"}


def test_facade_names_what_a_checker_sees() -> None:
    """The names loaded lazily are the names that type checkers are told."""
    body = tree("clusterkit").body
    checked = next(node for node in body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if node.module != "typing"
    }
    assert seen == clusterkit._HOMES
    assert sorted(["__version__", *seen]) == dir(clusterkit)


@pytest.mark.parametrize("name", clusterkit._HOMES)
def test_facade_gives_each_name(name: str) -> None:
    """A public name is what its module holds."""
    home = importlib.import_module(clusterkit._HOMES[name])
    assert getattr(clusterkit, name) is getattr(home, name)


def test_facade_refuses_other_names() -> None:
    """A name that is not public is no attribute."""
    with pytest.raises(AttributeError, match="module 'clusterkit' has no attribute 'nonsense'"):
        clusterkit.nonsense  # noqa: B018 (the access is the test)


@pytest.mark.parametrize("module", MODULES)
def test_module_says_what_it_is_for(module: str) -> None:
    """Every module begins with a docstring."""
    assert ast.get_docstring(tree(module))


@pytest.mark.parametrize("module", ["clusterkit.leash"])
def test_standard_library_only(module: str) -> None:
    """What runs under a bare interpreter imports the standard library alone."""
    names = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    assert {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names} == set()
