"""What a slim environment leaves out, and what it must keep."""

from __future__ import annotations

import pytest

from clusterkit.environments.slim import slim
from clusterkit.environments.tree import File, Link, Tree
from clusterkit.errors import ImageError

SITE = "lib/python3.11/site-packages"
LIBRARY = b"\x7fELF" * (16 << 10)


def file(path: str, data: bytes = b"", package: str = "pkg") -> File:
    return File(path, data, 0o644, len(data), package)


def kept(*files: File, links: tuple[Link, ...] = ()) -> Tree:
    return slim(Tree("3.11.7", "linux-64", files, links))


def paths(tree: Tree) -> list[str]:
    return [one.path for one in tree.files]


@pytest.mark.parametrize(
    "path",
    [
        f"{SITE}/pkg/tests/test_x.py",
        f"{SITE}/pkg/tests/data/big.npz",
        f"{SITE}/pkg/sub/tests/__pycache__/x.cpython-311.pyc",
        f"{SITE}/pkg/x.pyi",
        f"{SITE}/pkg/include/x.h",
        "include/python3.11/Python.h",
        "lib/libx.a",
        "lib/libiomp5.dbg",
        "lib/libmkl_tbb_thread.so.3",
        "lib/libmkl_gnu_thread.so.3",
        "lib/libmkl_intel_ilp64.so.3",
        "lib/libmkl_blacs_intelmpi_lp64.so.2",
        "lib/libmkl_scalapack_lp64.so.2",
        "lib/libomptarget.so",
        "lib/libur_loader.so.0",
        "lib/python3.11/test/test_os.py",
        "lib/python3.11/idlelib/idle.py",
        "lib/python3.11/config-3.11-x86_64-linux-gnu/Makefile",
        "share/man/man1/x.1",
        "lib/pkgconfig/x.pc",
    ],
)
def test_what_no_program_opens_goes(path: str) -> None:
    """Tests, headers, stubs, static libraries, manuals, build files, and what MKL has for others."""
    assert paths(kept(file(path), file("keep"))) == ["keep"]


@pytest.mark.parametrize(
    "path",
    [
        f"{SITE}/pkg/testing/helpers.py",
        f"{SITE}/pkg/test/client.py",
        f"{SITE}/tests/__init__.py",
        f"{SITE}/pkg/tests.py",
        f"{SITE}/pkg/py.typed",
        f"{SITE}/pkg-1.dist-info/METADATA",
        "lib/libmkl_rt.so.3",
        "lib/libmkl_intel_lp64.so.3",
        "lib/libmkl_intel_thread.so.3",
        "lib/libmkl_sequential.so.3",
        "lib/libmkl_avx2.so.3",
        "lib/libmkl_vml_avx512.so.3",
        "lib/libiomp5.so",
        "lib/python3.11/unittest/case.py",
        "etc/ssl/cert.pem",
        "share/proj/proj.db",
    ],
)
def test_what_a_program_may_open_stays(path: str) -> None:
    """Modules that only sound like tests, data, and every library that NumPy or SciPy loads."""
    assert paths(kept(file(path))) == [path]


def test_a_directory_named_test_goes_when_it_holds_tests() -> None:
    """`django.test` is a module for users, `joblib.test` is not."""
    tree = kept(
        file(f"{SITE}/joblib/test/test_memory.py"),
        file(f"{SITE}/joblib/test/common.py"),
        file(f"{SITE}/django/test/client.py"),
    )
    assert paths(tree) == [f"{SITE}/django/test/client.py"]


@pytest.mark.parametrize(
    "importing",
    [
        file(f"{SITE}/numpy/testing/utils.py", b"import os\nfrom numpy.core.tests._natype import pd_NA\n"),
        file(f"{SITE}/other.py", b"import numpy.core.tests\n"),
        file(f"{SITE}/numpy/core/api.py", b"from .tests import helper\n"),
        file(f"{SITE}/numpy/sub/api.py", b"from ..core.tests.helper import x\n"),
    ],
)
def test_tests_that_a_module_imports_stay(importing: File) -> None:
    """NumPy's `testing` imports from its tests, so those stay, and only those."""
    tests = file(f"{SITE}/numpy/core/tests/helper.py")
    assert paths(kept(file(f"{SITE}/numpy/fft/tests/x.py"), tests, importing)) == [tests.path, importing.path]


def test_what_only_tests_import_goes() -> None:
    """Tests that import tests keep nothing."""
    importing = b"from pkg.tests.helper import x\n"
    tree = kept(
        file(f"{SITE}/pkg/conftest.py", importing),
        file(f"{SITE}/pkg/test_main.py", importing),
        file(f"{SITE}/pkg/tests/test_x.py", importing),
    )
    assert paths(tree) == [f"{SITE}/pkg/conftest.py", f"{SITE}/pkg/test_main.py"]


@pytest.mark.parametrize("package", ["cupy-cuda12x", "numba-cuda", "nvidia-cuda-runtime", "triton", "torch"])
def test_headers_of_what_compiles_on_the_node_stay(package: str) -> None:
    """A kernel that is compiled at run time includes them."""
    header = file(f"{SITE}/x/include/x.h", package=package)
    assert paths(kept(header)) == [header.path]


def test_copies_of_a_library_become_links() -> None:
    """A wheel holds no links, so its libraries lie there three times: the longest name keeps the bytes."""
    other = file("lib/libother.so", LIBRARY[::-1])
    tree = kept(
        file("lib/libx.so", LIBRARY),
        file("lib/libx.so.1", LIBRARY),
        file("lib/libx.so.1.2", LIBRARY),
        other,
        file("lib/sub/libx.so", LIBRARY),
    )
    assert paths(tree) == ["lib/libx.so.1.2", "lib/libother.so", "lib/sub/libx.so"]
    assert tree.links == (Link("lib/libx.so", "libx.so.1.2", "pkg"), Link("lib/libx.so.1", "libx.so.1.2", "pkg"))


def test_links_to_what_went_go_too() -> None:
    """No link of a slim environment leads nowhere, and links to files that became links stay."""
    tree = kept(
        file("lib/libx.a"),
        file("lib/liby.so", LIBRARY),
        file("lib/liby.so.1", LIBRARY),
        links=(Link("lib/gone.a", "libx.a"), Link("lib/y.so", "liby.so"), Link("lib/elsewhere", "nothing")),
    )
    assert [link.path for link in tree.links] == ["lib/elsewhere", "lib/liby.so", "lib/y.so"]


def test_it_says_what_was_left_out() -> None:
    """The user sees what slimming saved."""
    told: list[tuple[str, str]] = []
    slim(Tree("3.11.7", "linux-64", (file("x.a", b"x" * 2048),)), said=lambda *words: told.append(words))
    assert told == [("slimming", "left out 2 KiB in 1 files")]


def test_a_module_that_cannot_be_read_is_named(tmp_path) -> None:
    """An environment that changed since it was read cannot be slimmed."""
    gone = File(f"{SITE}/x.py", tmp_path / "gone.py", 0o644, 1)
    with pytest.raises(ImageError) as raised:
        kept(gone)
    assert raised.value.why == f"{SITE}/x.py cannot be read: No such file or directory"
