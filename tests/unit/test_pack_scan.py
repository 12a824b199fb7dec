"""No path of the machine that built an image survives in what a program opens."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterkit.environments.scan import Scan, Survivor
from clusterkit.environments.tree import File
from clusterkit.errors import ImageError

STALE = "/make/env"


def file(path: str, package: str = "pkg") -> File:
    return File(path=path, source=b"", mode=0o644, size_bytes=0, package=package)


def survivors(data: bytes, *, path: str = "lib/x.so", stale: tuple[str, ...] = (STALE,)) -> list[str]:
    scan = Scan(stale)
    search = scan.search(file(path))
    if search:
        search.feed(data, 0, len(data), last=True)
    return [one.stale for one in scan.survivors]


@pytest.mark.parametrize(
    "data",
    [
        b"/make/env",
        b"/make/env/",
        b"#!/make/env/bin/python\n",
        b"\0\1/make/env\0",
        b"PREFIX='/make/env'",
        b"-L/make/env/lib",
        b"lives in /make/env.",
        b"/make/envelope, and /make/env:/bin",
    ],
)
def test_a_path_is_found_wherever_it_stands(data: bytes) -> None:
    """In scripts, binaries, flags and prose: a program may open each."""
    assert survivors(data) == [STALE]


@pytest.mark.parametrize(
    "data", [b"", b"/make", b"/make/en", b"/make/envelope", b"/make/env-2/lib", b"/make/env_x", b"/make/env.bak/x"]
)
def test_a_longer_name_is_another_path(data: bytes) -> None:
    """A directory whose name only begins alike is none of ours."""
    assert survivors(data) == []


@pytest.mark.parametrize(
    "path",
    [
        "lib/python3.11/__pycache__/os.cpython-311.pyc",
        "lib/python3.11/site-packages/x-1.dist-info/RECORD",
        "lib/python3.11/site-packages/x-1.dist-info/direct_url.json",
        "lib/python3.11/site-packages/x-1.dist-info/INSTALLER",
        "conda-meta/x-1-0.json",
        "lib/libx.a",
        "lib/libx.la",
        "lib/pkgconfig/x.pc",
        "lib/cmake/x.cmake",
        "include/x.h",
        "share/man/man1/x.1",
        "lib/python3.11/config-3.11-x86_64-linux-gnu/Makefile",
        "bin/python3.11",
        "lib/libpython3.11.so.1.0",
    ],
)
def test_what_no_program_opens_may_keep_a_path(path: str) -> None:
    """Byte code, records, manuals and what serves to build software are not looked at."""
    assert survivors(b"/make/env", path=path) == []


@pytest.mark.parametrize(
    "path",
    [
        "bin/f2py",
        "bin/python3.11-config",
        "lib/python3.11/site-packages/x.pth",
        "lib/python3.11/site-packages/x/direct_url.json",
        "lib/python3.11/_sysconfigdata__linux_x86_64-linux-gnu.py",
        "etc/conda/activate.d/x.sh",
        "share/proj/proj.ini",
        "lib/libx.so.1",
        "a\nb/RECORD",
    ],
)
def test_what_a_program_opens_is_looked_at(path: str) -> None:
    """Scripts, modules, import hooks, configuration and libraries are."""
    assert survivors(b"/make/env", path=path) == [STALE]


def test_a_path_that_every_machine_has_is_none_of_ours() -> None:
    """An interpreter from /usr does not forbid the word."""
    assert survivors(b"/usr/bin/env /usr/local/x /", stale=("/usr", "/usr/local/", "/", "")) == []


def test_a_path_within_another_one_is_looked_for_once() -> None:
    """Where the prefix lies in the home directory, the home directory is enough."""
    assert Scan(("/make/env/lib", "/make/env/", "/make/env-2")).needles == (b"/make/env", b"/make/env-2")


@given(
    st.text("/makeen-v.x", max_size=20).map(str.encode),
    st.text("/makeen-v.x", max_size=20).map(str.encode),
    st.lists(st.integers(0, 50), max_size=6),
)
def test_parts_of_a_file_make_no_difference(before: bytes, after: bytes, cuts: list[int]) -> None:
    """However a file is cut into the blocks in which it is read, the same is found."""
    data = before + b"/make/env" + after
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    scan = Scan((STALE,))
    search = scan.search(file("x"))
    for start, stop in itertools.pairwise(places):
        block = bytearray(b"/make/env" + data[start:stop] + b"/make/env")  # a block holds other files around it
        search.feed(block, 9, 9 + stop - start, last=stop == len(data))
    assert [one.stale for one in scan.survivors] == survivors(data)


def test_the_error_names_files_packages_and_a_cure() -> None:
    """Who reads it knows where to look, and what to reinstall."""
    scan = Scan((STALE,))
    for number in range(6):
        scan.found(file(f"bin/tool{number}", "tools"), b"/make/env")
    scan.found(file("bin/mine", ""), b"/make/env")
    with pytest.raises(ImageError) as raised:
        scan.check()
    assert raised.value.why.splitlines() == [
        *(f"bin/tool{number} of tools holds /make/env" for number in range(5)),
        "and 2 more",
    ]
    assert raised.value.mend.startswith("reinstall tools from a package that can be relocated")


def test_without_a_package_the_file_itself_is_to_be_mended() -> None:
    """A file that nobody installed can only be removed or rewritten."""
    scan = Scan((STALE,))
    scan.found(file("bin/mine", ""), b"/make/env")
    assert scan.survivors == (Survivor("bin/mine", "", STALE),)
    with pytest.raises(ImageError) as raised:
        scan.check()
    assert raised.value.mend.startswith("remove bin/mine from the environment")


def test_nothing_found_is_no_error() -> None:
    """A clean image is packed."""
    Scan((STALE,)).check()
