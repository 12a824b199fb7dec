"""Real wheels of NumPy, SciPy and MKL, linked and used; installed once, by hard links from pip's or uv's cache."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from clusterkit.environments import blas, proof, wheels
from clusterkit.environments.materialise import materialise
from clusterkit.errors import ImageError

from .conftest import called

if TYPE_CHECKING:
    from pathlib import Path

    from clusterkit.environments.tree import Tree

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="MKL is for x86-64 alone")

PACKAGES = ("numpy", "scipy", "mkl", "threadpoolctl", "scikit-learn", "scikit-learn-intelex")
PACKAGES += ("mkl-fft", "mkl-service", "mkl-random", "mkl-umath")
ACCELERATE = ("fft", "random", "umath", "sklearn")
PYTHON = f"bin/python{sys.version_info[0]}.{sys.version_info[1]}"
HOSTILE = {"MKL_INTERFACE_LAYER": "GNU", "MKL_THREADING_LAYER": "GNU"}

USES = """
import json, os, sys
import numpy, scipy.linalg
from scipy.linalg.blas import zdotc
numpy.linalg.svd(numpy.random.default_rng(0).standard_normal((200, 200)))
names = sorted({line.rsplit("/", 1)[-1].strip() for line in open("/proc/self/maps") if "/" in line})
print(json.dumps({
    "zdotc": str(zdotc([1j, 2], [1, 3j])),
    "forwarders": len([n for n in names if n.startswith("libclusterkit_mkl")]),
    "openblas": len([n for n in names if "openblas" in n]),
}))
"""
FORKS = """
import os, signal, numpy
a = numpy.random.default_rng(0).standard_normal((400, 400))
before = (a @ a).sum()
children = []
for _ in range(3):
    pid = os.fork()
    if not pid:
        signal.alarm(30)
        os._exit(0 if numpy.isclose((a @ a).sum(), before) else 1)
    children.append(pid)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])
"""
ACCELERATED = {
    "fft": "import numpy as np, mkl_fft; np.fft.rfft([1.0, 2, 3]); print(mkl_fft.is_patched())",
    "random": "import numpy as np, mkl_random; np.random.rand(); print(mkl_random.is_patched())",
    "umath": "import numpy as np, mkl_umath; np.sin(1); print(mkl_umath.is_patched())",
    "sklearn": "import sklearn.ensemble as e; print('sklearnex' in e.RandomForestClassifier.__module__)",
}
FIRST = ["mkl_umath", "mkl_fft", "mkl_random", "scipy.fft", "numpy.fft", "mkl_fft.interfaces.scipy_fft"]


@dataclass(frozen=True)
class Image:
    """A linked tree, and where it stands."""

    tree: Tree
    prefix: Path

    def run(self, program: str, **variables: str) -> str:
        environment = {"PATH": os.defpath, "OMP_NUM_THREADS": "2", **variables}
        return called([self.prefix / PYTHON, "-I", "-c", program], env=environment, timeout=120).strip()


@pytest.fixture(scope="session")
def blas_venv(tmp_path_factory) -> Path:
    """A virtual environment with everything, as a user makes it."""
    venv = tmp_path_factory.mktemp("blas") / "venv"
    called([sys.executable, "-m", "uv", "venv", "-q", "--python", sys.executable, venv])
    called([sys.executable, "-m", "uv", "pip", "install", "-q", "--python", venv / "bin" / "python", *PACKAGES])
    return venv


@pytest.fixture(scope="session")
def stock(blas_venv, elf_cache) -> Tree:
    """The tree as it was installed."""
    return wheels.read(blas_venv, cache_dir=elf_cache)


@pytest.fixture(scope="session")
def mkl(stock, tmp_path_factory) -> Image:
    """MKL alone, nothing accelerated."""
    return _linked(stock, "mkl", (), tmp_path_factory.mktemp("mkl image"))


@pytest.fixture(scope="session")
def auto(stock, tmp_path_factory) -> Image:
    """Both libraries and all accelerations."""
    return _linked(stock, "auto", ACCELERATE, tmp_path_factory.mktemp("auto image"))


def test_mkl_is_used_and_proved(mkl):
    """NumPy and SciPy call MKL and no OpenBLAS is there; complex products, divisions and all else are right."""
    found = proof.prove(mkl.prefix, PYTHON, blas="mkl")
    assert found.blas == "mkl"
    assert {library.api for library in found.libraries} == {"mkl", "openmp"}
    assert [library.threading for library in found.libraries if library.api == "mkl"] == ["intel"]
    assert {"gemm", "svd", "zdotc", "zdotu", "cdotc", "cdotu strided", "zladiv", "cladiv"} <= found.checks.keys()
    assert not [file.path for file in mkl.tree.files if "openblas" in file.path.rpartition("/")[2]]


def test_environment_is_not_touched(mkl, auto, blas_venv, stock):
    """What was linked is elsewhere: the installed wheels still are what their records say, and use OpenBLAS."""
    for name in ("numpy", "scipy"):
        assert _untrue(_record(_as_installed(stock, blas_venv), name)) == []
    shown = called([blas_venv / "bin" / "python", "-I", "-c", USES])
    assert json.loads(shown) == {"zdotc": "5j", "forwarders": 0, "openblas": 2}


@pytest.mark.parametrize("which", ["mkl", "auto"])
def test_records_are_true(which, request):
    """Each file that the RECORD of a linked wheel names is there, with this digest and size."""
    image = request.getfixturevalue(which)
    for name in ("numpy", "scipy"):
        rows = _record(image.tree, name)
        assert _untrue(rows) == []
        assert [row for row in rows if "libclusterkit_mkl" in row[0]]


def test_modules_keep_their_size(mkl, stock):
    """No module moves by a byte: one name in it is exchanged for another."""
    sizes = {file.path: file.size_bytes for file in stock.files if file.path.endswith(".so")}
    changed = [file for file in mkl.tree.files if file.package in {"numpy", "scipy"} and file.path in sizes]
    assert changed
    assert [file.path for file in changed if file.size_bytes != sizes[file.path]] == []


@pytest.mark.parametrize("variables", [{}, HOSTILE], ids=["clean", "hostile"])
def test_variables_of_a_shell_break_nothing(mkl, variables):
    """MKL_INTERFACE_LAYER=GNU, which is fatal to MKL otherwise, changes nothing."""
    assert json.loads(mkl.run(USES, **variables)) == {"zdotc": "5j", "forwarders": 2, "openblas": 0}


@pytest.mark.parametrize("variables", [{}, HOSTILE], ids=["clean", "hostile"])
def test_children_compute_after_a_fork(mkl, variables):
    """Processes forked after MKL was used do not hang, as they do with GNU's threads."""
    assert mkl.run(FORKS, **variables) == "[0, 0, 0]"


@pytest.mark.parametrize(
    ("choice", "seen"),
    [
        ("mkl", {"zdotc": "5j", "forwarders": 2, "openblas": 0}),
        ("openblas", {"zdotc": "5j", "forwarders": 0, "openblas": 2}),
    ],
)
def test_each_process_may_have_its_own(auto, choice, seen):
    """An image with both uses the one that is chosen, and has the other one not even mapped."""
    assert json.loads(auto.run(USES, _CLUSTERKIT_BLAS=choice, **HOSTILE)) == seen


def test_choice_is_made_and_proved(auto):
    """`auto` times both, uses what it chose, and tells the seconds; everything that shall be accelerated is."""
    found = proof.prove(auto.prefix, PYTHON, blas="auto", accelerate=ACCELERATE)
    (choice,) = json.loads((auto.prefix / ".clusterkit" / "blas-choice.json").read_text()).values()
    assert found.blas == choice["blas"]
    assert found.chosen.keys() == {"mkl", "openblas"}
    assert found.accelerated.keys() == set(ACCELERATE)
    assert json.loads(auto.run(USES))["openblas"] == (2 if choice["blas"] == "openblas" else 0)


@pytest.mark.parametrize("name", ACCELERATE)
def test_accelerations_are_on(auto, name):
    """A program that knows nothing of it has each acceleration on."""
    assert auto.run(ACCELERATED[name]) == "True"


@pytest.mark.parametrize("module", FIRST)
def test_accelerations_stand_any_order_of_imports(auto, module):
    """Whichever module comes first, all is on in the end, and transforms are right."""
    program = f"""
import {module}
import numpy as np, scipy.fft, mkl_umath, mkl_random
x = np.arange(8.0)
assert np.allclose(np.fft.ifft(np.fft.fft(x)), x) and np.allclose(scipy.fft.ifft(scipy.fft.fft(x)), x)
np.random.rand()
import mkl_fft
print(mkl_fft.is_patched(), mkl_random.is_patched(), mkl_umath.is_patched())
"""
    assert auto.run(program) == "True True True"


def test_seeds_hold_for_libraries_that_draw_from_numpy(auto):
    """scikit-learn takes NumPy's generators, and one seed fixes what it and numpy.random draw."""
    program = """
import numpy as np
from sklearn.utils import check_random_state
def draws():
    np.random.seed(3)
    return np.random.rand(), check_random_state(None).rand()
first = draws()
check_random_state(np.random.RandomState(0))
print(first == draws())
"""
    assert auto.run(program) == "True"


def test_functions_that_numpy_does_faster_stay(auto):
    """A function that was measured to be slower with MKL keeps NumPy's loops, bit for bit."""
    program = "import numpy as np; print(np.exp(np.linspace(0, 5, 4001)).tobytes().hex())"
    plain = auto.run(program, _CLUSTERKIT_NUMPY_UFUNCS="exp")
    stock = called([auto.prefix / PYTHON, "-I", "-S", "-c", _without_hooks(auto.prefix) + program]).strip()
    assert plain == stock


def test_proof_refuses_what_is_not_mkl(blas_venv):
    """An environment that was not linked fails the proof of MKL, and what is mapped is named."""
    with pytest.raises(ImageError) as caught:
        proof.prove(blas_venv, "bin/python", blas="mkl")
    assert "NumPy uses openblas; mapped: libscipy_openblas" in caught.value.why


def _linked(tree: Tree, which: str, accelerate: tuple[str, ...], where: Path) -> Image:
    linked = blas.link(tree, which, accelerate, scratch=where / "changed", cache_dir=where)
    materialise(linked, where / "prefix")
    return Image(linked, where / "prefix")


def _record(tree: Tree, name: str) -> list[list[str]]:
    """Return the rows of a wheel's RECORD, each with its file's real digest and size, as a checker of its own."""
    site = f"{tree.site_packages}/"
    files = {file.path.removeprefix(site): file for file in tree.files if file.path.startswith(site)}
    record = next(file for file in tree.files if file.package == name and file.path.endswith(".dist-info/RECORD"))
    rows = []
    for path, digest, size in csv.reader(record.read().decode().splitlines()):
        if digest and not path.startswith("../"):
            data = files[path].read() if path in files else None
            real = [_sha256(data), str(len(data))] if data is not None else ["missing", ""]
            rows.append([path, digest, size, *real])
    return rows


def _as_installed(tree: Tree, venv: Path) -> Tree:
    """Return the tree with the bytes that are in the environment now."""
    installed = [file for file in tree.files if (venv / file.path).is_file()]
    return replace(tree, files=tuple(replace(file, source=venv / file.path) for file in installed))


def _untrue(rows: list[list[str]]) -> list[str]:
    assert len(rows) > 100
    return [path for path, digest, size, real, length in rows if (digest, size) != (real, length)]


def _sha256(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _without_hooks(prefix: Path) -> str:
    site = prefix / "lib" / PYTHON.removeprefix("bin/") / "site-packages"
    return f"import sys; sys.path.append({str(site)!r}); "
