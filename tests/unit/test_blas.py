from __future__ import annotations

import base64
import ctypes
import hashlib
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from clusterkit.environments import blas, elf
from clusterkit.environments.blas import accelerating, numexpr
from clusterkit.environments.blas.edit import Edit
from clusterkit.environments.blas.forwarder import code, sysv_hash, write
from clusterkit.environments.blas.records import refresh
from clusterkit.environments.blas.symbols import DynamicSymbols, Forward, forward
from clusterkit.environments.lock import LockedPackage
from clusterkit.environments.tree import File, Tree
from clusterkit.errors import ImageError
from clusterkit.node import choosing

SITE = "lib/python3.11/site-packages"
X86 = pytest.mark.skipif(sys.platform != "linux" or struct.calcsize("P") != 8, reason="writes x86-64 code")

TARGETS = {
    "scipy_dgemm_": ("dgemm_", "jump"),
    "scipy_dgesv_64_": ("dgesv_64_", "jump"),
    "scipy_cblas_dgemm64_": ("cblas_dgemm_64", "jump"),
    "scipy_cblas_zdotc_sub64_": ("cblas_zdotc_sub_64", "jump"),
    "scipy_LAPACKE_dgesv64_": ("LAPACKE_dgesv_64", "jump"),
    "scipy_zdotc_": ("cblas_zdotc_sub", "dot"),
    "scipy_cdotu_64_": ("cblas_cdotu_sub_64", "dot"),
    "scipy_zladiv_": ("dladiv_", "ladiv"),
    "scipy_cladiv_64_": ("sladiv_64_", "ladiv"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_names_are_answered_by_mkl(name):
    """Each kind of name has its counterpart, and those that return a complex number an entry without one."""
    target, how = TARGETS[name]
    found = forward(name, {target})
    assert found is not None
    assert (found.target, found.how) == (target, how)


@pytest.mark.parametrize("name", ["dgemm_", "scipy_openblas_get_config64_", "scipy_dgemm_"])
def test_names_that_mkl_lacks_have_no_answer(name):
    """A name without the prefix, or without a counterpart, is not forwarded."""
    assert forward(name, {"dgemm_64_"}) is None


def test_hash_of_the_abi():
    """The hash is that of the System V ABI: known values of known names."""
    assert {name: sysv_hash(name) for name in ("", "exit", "printf")} == {"": 0, "exit": 0x6CF04, "printf": 0x77905A6}


def test_code_of_a_jump():
    """A routine that is called alike is one jump through its slot."""
    assert code(Forward("scipy_dgemm_", "dgemm_"), slot=0x3000, at=0x1000) == bytes.fromhex("ff25fa1f0000")


@pytest.mark.parametrize(
    ("wide", "loads"), [(False, "8b3f 8b12 458b00"), (True, "488b3f 488b12 4d8b00")], ids=["32 bits", "64 bits"]
)
def test_code_of_a_complex_dot_product(wide, loads):
    """Lengths and strides are loaded as wide as they are, the result is written to the stack and returned in xmm."""
    made = code(Forward("zdotc", "cblas_zdotc_sub", "dot", double=True, wide=wide), slot=0x2000, at=0x1000)
    start = bytes.fromhex("4883ec18 48c7042400000000 48c744240800000000" + loads + "4989e1")
    call = b"\xff\x15" + struct.pack("<i", 0x2000 - (0x1000 + len(start) + 6))
    assert made == start + call + bytes.fromhex("f20f100424 f20f104c2408 4883c418 c3")


@X86
def test_library_that_forwards_is_loaded_and_called(hostile):
    """The written library answers to its names with the routines of the library that it needs."""
    names = [("scipy_cos", "cos"), ("scipy_sqrt", "sqrt"), *((f"scipy_{n}_", "fabs") for n in range(200))]
    path = hostile / "libclusterkit_mkl.so"
    path.write_bytes(
        write([Forward(*each) for each in names], soname="libany.so", needed="libm.so.6", rpath="$ORIGIN/../lib")
    )
    library = ctypes.CDLL(str(path))
    called = []
    for name, argument in (("scipy_cos", 0.0), ("scipy_sqrt", 9.0), ("scipy_17_", -2.5), ("scipy_199_", -1.0)):
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double]
        called.append(function(argument))
    assert called == [1.0, 3.0, 2.5, 1.0]


@X86
def test_library_that_forwards_is_read_back(tmp_path):
    """Another reader of ELF files finds what was written; nothing is both written and executed."""
    path = tmp_path / "lib.so"
    path.write_bytes(write([Forward("scipy_cos", "cos")], soname="libany.so", needed="libm.so.6", rpath="$ORIGIN/lib"))
    assert elf.read(path) == elf.Elf(62, needed=("libm.so.6",), soname="libany.so", rpath=("$ORIGIN/lib",))
    headers = [struct.unpack_from("<II", path.read_bytes(), 64 + 56 * number) for number in range(4)]
    assert headers == [(1, 5), (1, 6), (2, 6), (0x6474E551, 6)]  # code is not writable, the stack not executable


def test_symbols_of_a_library():
    """A table of symbols is split into what a library takes and what it offers."""
    import _ctypes

    found = DynamicSymbols.from_elf(Path(_ctypes.__file__).read_bytes())
    assert "PyInit__ctypes" in found.exported
    assert "PyLong_FromLong" in found.imported
    assert not found.imported & found.exported


def test_record_tells_of_changes():
    """Changed and new files have their digest and size, removed ones are gone, the rest stays."""
    record = b'a.py,sha256=old,1\nb.so,sha256=old,2\n"c,d.py",sha256=kept,3\nx-1.dist-info/RECORD,,\n'
    changed = {f"{SITE}/b.so": _file("b.so", b"new"), f"{SITE}/e.so": _file("e.so", b"")}
    assert refresh(record, SITE, changed=changed, removed=[f"{SITE}/a.py"]).decode().splitlines() == [
        f"b.so,{_sha256(b'new')},3",
        '"c,d.py",sha256=kept,3',
        "x-1.dist-info/RECORD,,",
        f"e.so,{_sha256(b'')},0",
    ]


def test_edit_leaves_the_tree_and_its_files_alone(tmp_path):
    """Large changed files are written elsewhere; what the tree was read from keeps its bytes, in every hard link."""
    source = tmp_path / "original.so"
    source.write_bytes(b"before")
    (tmp_path / "cache.so").hardlink_to(source)
    tree = _tree(File("lib/x.so", source, 0o755, 6, "x"))
    edit = Edit(tree, tmp_path / "scratch")
    edit.change(tree.files[0], b"after" * 20_000)
    made = edit.made()
    assert (tree.files[0].read(), (tmp_path / "cache.so").read_bytes()) == (b"before", b"before")
    assert made.files == (File("lib/x.so", tmp_path / "scratch/lib/x.so", 0o755, 100_000, "x"),)
    assert made.files[0].read() == b"after" * 20_000


def test_tree_without_numpy_is_left_alone(tmp_path):
    """Nothing is linked where nothing uses BLAS, and that is said."""
    said = []
    tree = _tree(_file("click.py", b""))
    linked = blas.link(tree, "mkl", scratch=tmp_path, cache_dir=tmp_path, said=lambda *words: said.append(words))
    assert linked == tree
    assert said == [("linking", "there is no NumPy: nothing uses BLAS")]


def test_other_processors_keep_openblas(tmp_path):
    """On aarch64 the tree stays as it is, and that is said."""
    said = []
    tree = replace(_tree(packages=["numpy"]), platform="linux-aarch64")
    kept = blas.link(
        tree, "mkl", ("fft",), scratch=tmp_path, cache_dir=tmp_path, said=lambda *words: said.append(words)
    )
    assert kept == tree
    assert said == [("linking", "linux-aarch64 keeps OpenBLAS: Intel's libraries are for x86-64 alone")]


def test_environment_without_mkl_is_refused(tmp_path):
    """A NumPy that shall use MKL, and no package mkl: named, with the cure."""
    with pytest.raises(ImageError) as caught:
        blas.link(_tree(packages=["numpy"]), "mkl", scratch=tmp_path, cache_dir=tmp_path)
    assert caught.value.why == "the package mkl is not in the environment"
    assert "pip install mkl" in caught.value.mend


@pytest.mark.parametrize(
    ("openblas", "why"),
    [
        (
            ["libopenblas64_p-r0-1.so"],
            "numpy wheels before 2.0 bring an OpenBLAS whose names cannot be told from others",
        ),
        ([], "numpy 1.0 was not installed from a wheel that brings OpenBLAS"),
    ],
)
def test_wheels_that_cannot_be_linked_are_refused(tmp_path, openblas, why):
    """A wheel that is too old, or no wheel with OpenBLAS: named with its version, why, and the cure."""
    files = [_file(f"numpy.libs/{name}", b"", "numpy") for name in openblas]
    tree = _tree(*files, *_mkl(), packages=["numpy", "mkl"])
    with pytest.raises(ImageError) as caught:
        blas.link(tree, "mkl", scratch=tmp_path, cache_dir=tmp_path)
    assert caught.value.what == "numpy 1.0 cannot be linked to MKL"
    assert caught.value.why == why
    assert "numpy>=2.0" in caught.value.mend


@pytest.mark.parametrize("build", ["35_h59b9bed_openblas", ""])
def test_conda_environments_are_linked_by_libblas(tmp_path, build):
    """In a conda environment libblas decides; another one than was asked for is refused with the pin that cures it."""
    packages = [LockedPackage(name="numpy", version="2", kind="conda")]
    packages += [LockedPackage(name="libblas", version="3.9", kind="conda", build=build)] if build else []
    tree = replace(_tree(), packages=tuple(packages))
    with pytest.raises(ImageError) as caught:
        blas.link(tree, "mkl", scratch=tmp_path, cache_dir=tmp_path)
    assert "libblas=*=*mkl" in caught.value.mend


def test_conda_environment_with_mkl_is_left_alone(tmp_path):
    """The right libblas leaves nothing to do."""
    packages = [LockedPackage(name="numpy", version="2", kind="conda")]
    packages.append(LockedPackage(name="libblas", version="3.9", kind="conda", build="35_h5875eb1_mkl"))
    tree = replace(_tree(), packages=tuple(packages))
    assert blas.link(tree, "mkl", scratch=tmp_path, cache_dir=tmp_path) == tree


@pytest.mark.parametrize("name", accelerating.PACKAGES)
def test_acceleration_needs_its_package(tmp_path, name):
    """An acceleration whose package is missing is refused by name."""
    with pytest.raises(ImageError) as caught:
        blas.link(_tree(), None, (name,), scratch=tmp_path, cache_dir=tmp_path)
    assert accelerating.PACKAGES[name][0] in caught.value.mend


def test_accelerations_are_started_by_name_and_said(tmp_path):
    """The image's Python starts with the names that are on, and the user is told what each changes."""
    said = []
    tree = _tree(packages=["mkl-fft", "mkl-service", "mkl-random"])
    made = blas.link(
        tree, None, ("random", "fft"), scratch=tmp_path, cache_dir=tmp_path, said=lambda *words: said.append(words)
    )
    files = {file.path.rpartition("/")[2]: file.read().decode() for file in made.files}
    assert (
        files["clusterkit_accelerate.pth"]
        == "import clusterkit_accelerate; clusterkit_accelerate.watch('fft', 'random')\n"
    )
    assert [words[1].partition(":")[0] for words in said] == ["random", "fft"]


def test_python_starts_without_what_is_not_used(tmp_path):
    """The hook for accelerations imports nothing by itself."""
    made = blas.link(_tree(packages=["mkl-umath"]), None, ("umath",), scratch=tmp_path, cache_dir=tmp_path)
    hook = next(file for file in made.files if file.path.endswith(".py"))
    (tmp_path / "clusterkit_accelerate.py").write_bytes(hook.read())
    count = "before = set(sys.modules); import clusterkit_accelerate; clusterkit_accelerate.watch('umath', 'fft')"
    program = f"import sys; {count}; print(*sorted(set(sys.modules) - before))"
    shown = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["clusterkit_accelerate"]


def test_numexpr_without_a_compiler_is_said(tmp_path, monkeypatch):
    """Where nothing can be compiled numexpr stays as it is, and what to do is said."""
    monkeypatch.setenv("PATH", str(tmp_path))
    said = []
    tree = _tree(packages=["numpy", "mkl", "numexpr"])
    kept = numexpr.with_vml(tree, scratch=tmp_path, cache_dir=tmp_path, said=lambda *words: said.append(words))
    why = "there is no g++ here (install the package g++ and build again)"
    assert kept == tree
    assert said == [("linking", f"numexpr stays without MKL's vector library: {why}")]


def test_numexpr_is_compiled_once(tmp_path, monkeypatch):
    """The wheel that was compiled for the same versions is taken: its modules replace those of the tree."""
    monkeypatch.setenv("PATH", str(tmp_path))
    old = [_file("numexpr/interpreter.so", b"without", "numexpr"), _file("numexpr/__config__.py", b"old", "numexpr")]
    record = _file("numexpr-1.0.dist-info/RECORD", b"numexpr/interpreter.so,sha256=x,7\n", "numexpr")
    tree = _tree(*old, record, packages=["numpy", "mkl", "numexpr"])
    wheel = tmp_path / "numexpr" / f"{numexpr.key(tree)}.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("numexpr/interpreter.so", b"with")
        archive.writestr("numexpr/__config__.py", b"new")
        archive.writestr("numexpr-1.0.dist-info/RECORD", b"")
    made = numexpr.with_vml(tree, scratch=tmp_path, cache_dir=tmp_path, said=lambda *_: None)
    assert {file.path.removeprefix(f"{SITE}/"): file.read() for file in made.files} == {
        "numexpr/interpreter.so": b"with",
        "numexpr/__config__.py": b"new",
        "numexpr-1.0.dist-info/RECORD": (
            f"numexpr/interpreter.so,{_sha256(b'with')},4\nnumexpr/__config__.py,{_sha256(b'new')},3\n".encode()
        ),
    }


@pytest.mark.parametrize(
    ("mkl", "chosen"),
    [
        ({"gemm": 0.5, "svd": 1.0}, "mkl"),
        ({"gemm": 0.2, "svd": 1.1}, "openblas"),
        ({"gemm": 1.02, "svd": 1.02}, "openblas"),
    ],
    ids=["faster", "slower at one", "slower"],
)
def test_choice_is_never_slower_than_the_wheels(mkl, chosen):
    """MKL is chosen where it is faster on the whole and at nothing slower by more than a twentieth."""
    assert choosing.decide({"openblas": {"gemm": 1.0, "svd": 1.0}, "mkl": mkl}) == chosen


def test_choice_is_made_once_for_each_model(tmp_path):
    """What was written for this model of CPU is taken; no program is started."""
    path = tmp_path / "blas-choice.json"
    path.write_text('{"Model A": {"blas": "mkl"}}')
    assert choosing.choose("/no/python", str(path), "Model A", both=True, ufuncs=False) == {"blas": "mkl"}


def _tree(*files: File, packages: list[str] = []) -> Tree:  # noqa: B006 - it is only read
    named = tuple(LockedPackage(name=name, version="1.0", kind="wheel") for name in packages)
    return Tree(python="3.11.7", platform="linux-64", files=files, packages=named)


def _file(name: str, data: bytes, package: str = "") -> File:
    return File(f"{SITE}/{name}", data, 0o644, len(data), package)


def _mkl() -> list[File]:
    import _ctypes

    data = Path(_ctypes.__file__).read_bytes()  # any library will do
    return [File(f"lib/{name}", data, 0o755, len(data), "mkl") for name in ("libmkl_rt.so.3", "libiomp5.so")]


def _sha256(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
