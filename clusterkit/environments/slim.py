"""Leave out of an environment what no program opens at run time, and see that it still imports.

What goes: tests, static libraries, headers, type stubs, debug symbols, manuals, build files, and of MKL what neither
NumPy nor SciPy loads: other threading layers, cluster libraries, and the 64-bit interface, which the 32-bit one serves
too. Tests that a module imports stay, and so do headers of packages that compile on the node (CUDA, CuPy, Triton).
Copies of a library under several names become links to one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import posixpath
import re
import shutil
from collections import defaultdict
from typing import TYPE_CHECKING

from clusterkit import units
from clusterkit.environments.materialise import materialise
from clusterkit.environments.tree import PLACEHOLDER, File, Link
from clusterkit.errors import ImageError
from clusterkit.processes import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from clusterkit.environments.tree import Tree

_UNOPENED = re.compile(
    r"""
      .* \. (?: a | la | pyi | pdb | dbg | debug | o )
    | (?: share/ (?: man | doc | info | gtk-doc | pkgconfig | cmake ) | man | lib/ (?: pkgconfig | cmake ) ) / .*
    | lib/python[\d.]+ /
      (?: test | idlelib | turtledemo | lib2to3/tests | unittest/test | distutils/tests | ensurepip/_bundled
      | config-[^/]* ) / .*
    | (?: .*/ )? libmkl_
      (?: scalapack | blacs | cdft | intel_ilp64 | gf_ | tbb_thread | gnu_thread | pgi_thread | sycl ) [^/]*
    | (?: .*/ )? lib (?: omptarget | ur_ | iompstubs ) [^/]* \.so [^/]*
    """,
    re.VERBOSE | re.DOTALL,
)
_HEADER = re.compile(r"include/.*|.*\.(?:h|hh|hpp|hxx|pxd)", re.DOTALL)
_COMPILES_ON_THE_NODE = re.compile(r"cupy|numba-cuda|nvidia-|cuda|torch|triton|jax|pythran|cython|cffi|pybind11")
_IN_TESTS = re.compile(r"(lib/python[\d.]+/site-packages/(?:[^/]+/)+?(tests?))/", re.DOTALL)
_TEST_MODULE = re.compile(r"test_[^/]*\.py|[^/]*_test\.py")
_IMPORTS_TESTS = re.compile(rb"^(?:from|import)[ \t]+([\w.]*\btests?\b)", re.MULTILINE)
_SHARED = re.compile(r"(?:.*/)?lib[^/]*\.so[^/]*", re.DOTALL)
_WORTH_LINKING_BYTES = 64 << 10

_IMPORTS_TIMEOUT_S = 600
_IMPORTS = """
import importlib, os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for name in sys.argv[2:]:
    os.write(log, (name + "\\n").encode())
    try:
        importlib.import_module(name)
    except BaseException as exc:
        os.write(log, ("!" + type(exc).__name__ + ": " + str(exc).replace("\\n", " ") + "\\n").encode())
os.write(log, b".\\n")
os._exit(0)
"""


def slim(tree: Tree, *, said: Callable[[str, str], None] | None = None) -> Tree:
    """Return a tree without what no program opens at run time.

    Parameters
    ----------
    tree : Tree
        The whole environment; it stays as it is.
    said : callable, optional
        Told how much was left out.

    Raises
    ------
    ImageError
        If a module cannot be read.
    """
    tests = _test_directories(tree)
    kept = tuple(file for file in tree.files if not _is_needless(file, tests))
    files, copies = _linked(kept)
    gone = {file.path for file in tree.files} - {file.path for file in files} - {copy.path for copy in copies}
    links = tuple(link for link in tree.links if _target(link) not in gone)
    lighter = dataclasses.replace(tree, files=files, links=tuple(sorted((*links, *copies), key=lambda link: link.path)))
    if said:
        saved = units.format_bytes(tree.size_bytes - lighter.size_bytes)
        said("slimming", f"left out {saved} in {len(tree.files) - len(files)} files")
    return lighter


def self_test(tree: Tree, prefix: Path, *, whole: Tree | None = None) -> None:
    """Import every top-level package of a slimmed tree, and refuse it if one fails that imported before.

    Parameters
    ----------
    tree : Tree
        The slimmed environment.
    prefix : Path
        Where it was laid out.
    whole : Tree, optional
        What it was before. Where an import fails, it is laid out beside the prefix for a while, and what fails there
        too is no fault of slimming. Without it every package has to import.

    Raises
    ------
    ImageError
        If a package does not import any more, with its name and what it said.
    """
    suspects = _failures(tree, prefix, tuple(_top_level(tree)))
    broken = _each_alone(tree, prefix, suspects)  # some fail only after others: setuptools after distutils
    if broken and whole:
        before = prefix.with_name(f"{prefix.name}-whole")
        try:
            materialise(whole, before)
            failed_before = _each_alone(whole, before, broken)
        finally:
            shutil.rmtree(before, ignore_errors=True)
        broken = {name: why for name, why in broken.items() if name not in failed_before}
    if broken:
        raise ImageError(
            f"the environment was not slimmed: {', '.join(broken)} no longer imports",
            why="\n".join(f"{name}: {why}" for name, why in broken.items()),
            mend="build it whole: remove `slim` from the environment's specification",
        )


def _is_needless(file: File, tests: frozenset[str]) -> bool:
    if _UNOPENED.fullmatch(file.path):
        return True
    if _HEADER.fullmatch(file.path):
        return not _COMPILES_ON_THE_NODE.match(file.package)
    inside = _IN_TESTS.match(file.path)
    return inside is not None and inside[1] in tests


def _test_directories(tree: Tree) -> frozenset[str]:
    """Return the directories of tests that no other module imports."""
    found: set[str] = set()
    modules: list[File] = []
    for file in tree.files:
        inside = _IN_TESTS.match(file.path)
        if inside is None:
            modules.append(file)
        elif inside[2] == "tests" or _TEST_MODULE.fullmatch(file.path.removeprefix(f"{inside[1]}/")):
            found.add(inside[1])
    return frozenset(found - set(_imported_tests(tree, modules)))


def _imported_tests(tree: Tree, modules: Iterable[File]) -> Iterator[str]:
    for file in modules:
        name = posixpath.basename(file.path)
        if not name.endswith(".py") or name == "conftest.py" or _TEST_MODULE.fullmatch(name):
            continue
        try:
            text = file.read()
        except OSError as exc:
            raise ImageError(
                "the environment was not slimmed",
                why=f"{file.path} cannot be read: {exc.strerror}",
                mend="make it readable for you, or remove `slim` from the environment's specification",
            ) from exc
        for imported in _IMPORTS_TESTS.findall(text):
            yield _directory(imported.decode(), file, tree)


def _directory(module: str, file: File, tree: Tree) -> str:
    """Return the directory of a module that a file imports, `numpy.tests` or `..tests`."""
    name = module.lstrip(".")
    up = len(module) - len(name)
    base = tree.site_packages
    if up:
        base = file.path
        for _ in range(up):
            base = posixpath.dirname(base)
    return f"{base}/{name.replace('.', '/')}"


def _linked(files: Sequence[File]) -> tuple[tuple[File, ...], list[Link]]:
    """Return the files without copies of a library beside it, and links in their place."""
    sized: dict[tuple[str, int], list[File]] = defaultdict(list)
    for file in files:
        if file.size_bytes >= _WORTH_LINKING_BYTES and not file.bake and _SHARED.fullmatch(file.path):
            sized[posixpath.dirname(file.path), file.size_bytes].append(file)
    equal: dict[bytes, list[File]] = defaultdict(list)
    for place, group in sized.items():
        for file in group if len(group) > 1 else ():
            equal[repr(place).encode() + hashlib.sha256(file.read()).digest()].append(file)
    copies: dict[str, Link] = {}
    for group in equal.values():
        first, *others = sorted(group, key=lambda file: (-len(file.path), file.path))
        for other in others:
            copies[other.path] = Link(other.path, posixpath.basename(first.path), other.package)
    return tuple(file for file in files if file.path not in copies), list(copies.values())


def _target(link: Link) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(link.path), link.target))


def _top_level(tree: Tree) -> Iterator[str]:
    """Yield the names that can be imported from site-packages."""
    root = f"{tree.site_packages}/"
    names = set()
    for file in tree.files:
        if not file.path.startswith(root):
            continue
        first, _, rest = file.path.removeprefix(root).partition("/")
        if rest == "__init__.py" or (not rest and first.endswith((".py", ".so"))):
            names.add(first.partition(".")[0])
    yield from sorted(name for name in names if name.isidentifier() and not name.startswith("__"))


def _failures(tree: Tree, prefix: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Return why each name does not import; one that ends the process does not hide those behind it."""
    log = prefix.with_suffix(".log")
    failures: dict[str, str] = {}
    while names:
        log.unlink(missing_ok=True)
        end = _import(tree, prefix, log, names)
        lines = log.read_text().splitlines() if log.exists() else []
        if not lines:
            return dict.fromkeys(names, end)
        begun = [line for line in lines if line != "." and not line.startswith("!")]
        failures |= {name: why[1:] for name, why in itertools.pairwise(lines) if why.startswith("!")}
        if lines[-1] == ".":
            break
        failures[begun[-1]] = end
        names = names[len(begun) :]
    return failures


def _each_alone(tree: Tree, prefix: Path, names: Iterable[str]) -> dict[str, str]:
    failures: dict[str, str] = {}
    for name in names:
        failures |= _failures(tree, prefix, (name,))
    return failures


def _import(tree: Tree, prefix: Path, log: Path, names: tuple[str, ...]) -> str:
    """Import names in one process, and tell how it ended."""
    argv = [str(prefix / tree.python_path), "-I", "-B", "-c", _IMPORTS, str(log), *names]
    try:
        done = run(argv, timeout_s=_IMPORTS_TIMEOUT_S, env=_environment(tree, prefix), cwd=prefix.parent)
    except TimeoutError as exc:
        return str(exc)
    except OSError as exc:
        return f"the interpreter does not start: {exc.strerror}"
    return f"the interpreter ended with {done.exit_code}: {done.last_lines(3)}"


def _environment(tree: Tree, prefix: Path) -> Mapping[str, str]:
    own = {name: value.replace(PLACEHOLDER, str(prefix)) for name, value in tree.environment.items()}
    return {"PATH": f"{prefix / 'bin'}:{os.defpath}", "HOME": str(prefix.parent), "LANG": "C.UTF-8"} | own
