"""A relocatable copy of a Python, from layouts that differ."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest

from clusterkit.environments import interpreter
from clusterkit.environments.interpreter import Interpreter
from clusterkit.environments.tree import PLACEHOLDER, Link
from clusterkit.errors import ImageError

PYENV = Interpreter(
    executable=Path("/opt/python/bin/python3.11"),
    version="3.11.7",
    minor="3.11",
    platform="linux-64",
    prefix=Path("/opt/python"),
    stdlib=Path("/opt/python/lib/python3.11"),
    extensions=Path("/opt/python/lib/python3.11/lib-dynload"),
    platlibdir="lib",
    site_name="lib/python3.11/site-packages",
    sites=(),
)
PROGRAMS = [Link("bin/python", "python3.11", "python"), Link("bin/python3", "python3.11", "python")]


@pytest.mark.parametrize(
    ("changes", "links"),
    [
        ({}, []),
        ({"platlibdir": "lib64"}, [Link("lib64", "lib", "python")]),  # Red Hat and its kin
        (
            {"site_name": "lib/python3.11/dist-packages"},
            [Link("lib/python3.11/dist-packages", "site-packages", "python")],
        ),
        (
            {"site_name": "lib/python3/dist-packages"},
            [Link("lib/python3/dist-packages", "../python3.11/site-packages", "python")],
        ),
    ],
)
def test_a_distributions_own_places_are_links_to_the_usual_ones(changes, links):
    """Its Python looks there, and finds what lies in lib/python3.11/site-packages."""
    assert list(interpreter._links(dataclasses.replace(PYENV, **changes))) == PROGRAMS + links


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["local/lib/python3.11/dist-packages", "lib/python3/dist-packages", "lib/python3.11/dist-packages"],
         "lib/python3.11/dist-packages"),
        (["local/lib/python3.11/dist-packages", "lib/python3/dist-packages"], "lib/python3/dist-packages"),
    ],
)  # fmt: skip
def test_the_place_beside_the_standard_library_is_preferred(names, expected):
    """Where it has none, the last one that it looks into."""
    assert interpreter._nearest(names, "3.11") == expected


def test_the_prefix_it_was_built_for_gives_way_to_the_placeholder(tmp_path):
    """Everywhere, but not in a path that only begins alike."""
    path = tmp_path / "_sysconfigdata__linux.py"
    path.write_text("x = {'prefix': '/opt/python', 'LIBDIR': '/opt/python/lib', 'y': '/opt/python-old', 'n': 1}\n")
    file = interpreter._with_placeholder("lib/x.py", path, PYENV)
    expected = f"x = {{'prefix': '{PLACEHOLDER}', 'LIBDIR': '{PLACEHOLDER}/lib', 'y': '/opt/python-old', 'n': 1}}\n"
    assert (file.read().decode(), file.bake) == (expected, "text")


def test_a_python_that_was_built_for_another_place_than_its_own_is_understood(tmp_path):
    """As python-build-standalone is: /install stands in it, wherever it is installed."""
    path = tmp_path / "_sysconfigdata.py"
    path.write_text("x = {'prefix': '/install', 'LIBDIR': '/install/lib', 'other': '/opt/python/x'}\n")
    file = interpreter._with_placeholder("lib/x.py", path, PYENV)
    expected = f"x = {{'prefix': '{PLACEHOLDER}', 'LIBDIR': '{PLACEHOLDER}/lib', 'other': '{PLACEHOLDER}/x'}}\n"
    assert file.read().decode() == expected


def test_of_a_prefix_that_all_programs_share_only_its_own_paths_change(tmp_path):
    """Debian's is /usr: its compiler and its tools stay where they are."""
    path = tmp_path / "_sysconfigdata.py"
    path.write_text("x = {'prefix': '/usr', 'a': '/usr/lib/python3.11/b', 'CC': '/usr/bin/gcc', 'L': '/usr/lib/x86'}\n")
    debian = dataclasses.replace(PYENV, prefix=Path("/usr"))
    file = interpreter._with_placeholder("lib/x.py", path, debian)
    assert file.read().decode() == (
        f"x = {{'prefix': '{PLACEHOLDER}', 'a': '{PLACEHOLDER}/lib/python3.11/b', 'CC': '/usr/bin/gcc', "
        "'L': '/usr/lib/x86'}\n"
    )
    assert debian.stale == ()


def test_debians_schemes_become_the_usual_ones(tmp_path):
    """So that `sysconfig` names the directory that the packages are in."""
    path = tmp_path / "sysconfig.py"
    path.write_text(
        "'purelib': '{base}/local/lib/python{py_version_short}/dist-packages',\n"
        "'platlib': '{platbase}/lib/python3/dist-packages',\n'data': '{base}/local',\n'scripts': '{base}/local/bin',\n"
    )
    assert interpreter._with_usual_places("x", path).read().decode() == (
        "'purelib': '{base}/lib/python{py_version_short}/site-packages',\n"
        "'platlib': '{platbase}/lib/python{py_version_short}/site-packages',\n"
        "'data': '{base}',\n'scripts': '{base}/bin',\n"
    )


STANDARD = {
    "os.py": True,
    "json/__init__.py": True,
    "json/__pycache__/__init__.cpython-311.pyc": True,
    "json/__pycache__/__init__.cpython-311.opt-1.pyc": False,
    "site-packages/numpy/__init__.py": False,
    "test/test_os.py": False,
    "unittest/mock.py": True,
    "tkinter/__init__.py": False,
    "idlelib/idle.py": False,
    "config-3.11-x86_64-linux-gnu/libpython3.11.a": False,
    "sitecustomize.py": False,
    "EXTERNALLY-MANAGED": False,
    "_sysconfigdata__linux.py": True,
    "__pycache__/_sysconfigdata__linux.cpython-311.pyc": False,
    "__pycache__/os.cpython-311.pyc": True,
}


def test_the_standard_library_is_whole_but_for_what_a_node_never_opens(tmp_path):
    """No packages, tests, IDLE or Tk; nor byte code of files whose text changes with the prefix."""
    for name in STANDARD:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    base = dataclasses.replace(PYENV, stdlib=tmp_path, extensions=tmp_path / "none")
    found = {
        file.path.removeprefix("lib/python3.11/") for file in interpreter._standard_library(base, "lib/python3.11")
    }
    assert found == {name for name, is_packed in STANDARD.items() if is_packed}


def test_what_is_no_cpython_is_refused():
    """A free-threaded build has another ABI, and its packages lie elsewhere."""
    told = {"implementation": "cpython", "threaded": True, "bits": 64}
    with pytest.raises(ImageError) as caught:
        interpreter._check(Path("/opt/python3.13t"), told)
    assert caught.value.why == "it is free-threaded, and clusterkit packs CPython of 64 bits with its usual ABI"


def test_a_program_that_is_no_python_is_refused_by_name(tmp_path):
    """Neither one that is missing nor one that says something else is taken for an interpreter."""
    for text in ("", "#!/bin/sh\necho hello\n", "#!/bin/sh\nexit 3\n"):
        program = tmp_path / f"python{len(text)}"
        if text:
            program.write_text(text)
            program.chmod(0o755)
        with pytest.raises(ImageError, match="cannot be packed"):
            interpreter.probe(program)


def test_the_running_python_is_known_for_what_it_is():
    """Its version, its prefix and where its packages go."""
    found = interpreter.probe(Path(os.path.realpath(sys.executable)))
    assert (found.version, found.prefix) == (".".join(map(str, sys.version_info[:3])), Path(sys.base_prefix))
    assert interpreter.locked(found).kind == "python"
