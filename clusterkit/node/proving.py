"""See what an image really computes with: run under the image's Python, here after a build and on each node once.

`python proving.py --blas mkl --accelerate fft,random` prints one JSON document: the libraries that are mapped, which
BLAS NumPy calls, computations beside their right answers, what is accelerated, and under `faults` everything that is
not as it was asked for. NumPy and what stands on it are imported in functions: an image may be without.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Errors = dict[str, float]

_APIS = [
    ("mkl", re.compile(r"libclusterkit_mkl|libmkl_rt\.so")),
    ("openblas", re.compile(r"lib(scipy_)?openblas")),
    ("blis", re.compile(r"lib(flame|blis)")),
    ("netlib", re.compile(r"lib(c?blas|lapack|refblas)\.so\.[0-9.]+$")),
    ("openmp", re.compile(r"lib(iomp5|gomp|omp)\b")),
]
_FORWARDER = "libclusterkit_mkl"
_MKL_KERNELS = re.compile(r"libmkl_(avx\w*|def|mc\d?)\.so")
_OPENMP = re.compile(r"lib(iomp5|gomp|omp)")
_DOUBLE, _SINGLE = 1e-11, 1e-4
_IN_SINGLE = ("sgemm", "snrm2", "slange", "cvdot", "cdot", "cladiv")


def main(arguments: Sequence[str]) -> None:
    """Print what was seen, as JSON."""
    options = dict(zip(arguments[::2], arguments[1::2]))  # noqa: B905 - Python 3.9 knows no strict
    accelerate = [name for name in options.get("--accelerate", "").split(",") if name]
    json.dump(prove(options.get("--blas", ""), accelerate), sys.stdout)


def prove(asked: str, accelerate: Sequence[str]) -> dict[str, Any]:
    """Use NumPy, SciPy and what accelerates them, and return what was seen.

    Parameters
    ----------
    asked : str
        `mkl`, `openblas`, `auto`, or empty where any will do.
    accelerate : sequence of str
        Which accelerations have to be on.
    """
    started = time.monotonic()
    seen: dict[str, Any] = {"blas": "", "checks": {}, "accelerated": [], "notes": [], "faults": [], "cpu": cpu_model()}
    if _has("numpy"):
        errors = {**_numpy_errors(), **(_scipy_errors() if _has("scipy") else {})}
        seen["checks"] = {name: f"{error:.1e}" for name, error in errors.items()}
        seen["faults"] += _wrong(errors)
        seen["blas"] = blas_in_use(_mapped())
        seen["faults"] += _wrong_blas(seen["blas"], asked, _mapped())
        for name in accelerate:
            seen["faults"] += _accelerated(name, seen)
        seen["notes"] += _notes(asked, seen["blas"])
    seen["libraries"] = _libraries(_mapped())
    seen["seconds"] = round(time.monotonic() - started, 3)
    return seen


def cpu_model() -> str:
    """Return the model of this machine's first CPU; empty where the kernel does not tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
                if not line.strip():
                    break
    except OSError:
        pass
    return ""


def blas_in_use(paths: Iterable[str]) -> str:
    """Return the BLAS that NumPy and SciPy call, told by the libraries that are mapped.

    The forwarder of an image is mapped where MKL answers; an OpenBLAS beside it means that one of the two packages does
    not use what the other does: `mkl+openblas`.
    """
    found = {_api(path) for path in paths}
    own: list[str] = [api for api in ("openblas", "blis") if api in found]
    if any(os.path.basename(path).startswith(_FORWARDER) for path in paths) or ("mkl" in found and not own):
        own = ["mkl", *own]
    return "+".join(own) or ("netlib" if "netlib" in found else "")  # conda's libblas.so.3 stands before any of them


def _has(module: str) -> bool:
    from importlib.util import find_spec  # noqa: PLC0415 - most images have it, and most starts need it not

    return find_spec(module) is not None


def _mapped() -> list[str]:
    """Return the files of this process's libraries, in the order of their addresses."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        paths = [line.rstrip("\n").split(None, 5)[5] for line in file if line.count("/")]
    return list(dict.fromkeys(path for path in paths if ".so" in os.path.basename(path)))


def _api(path: str) -> str:
    name = os.path.basename(path)
    return next((api for api, pattern in _APIS if pattern.match(name)), "")


def _libraries(paths: Iterable[str]) -> list[dict[str, str]]:
    known = [(path, _api(path)) for path in paths]
    return [
        {
            "api": api,
            "version": _version(api, path),
            "path": _below_prefix(path),
            "threading": _layer(path),
        }
        for path, api in known
        if api and not os.path.basename(path).startswith(_FORWARDER)
    ]


def _below_prefix(path: str) -> str:
    return os.path.relpath(path, sys.prefix) if path.startswith(f"{sys.prefix}/") else path


def _version(api: str, path: str) -> str:
    import ctypes  # noqa: PLC0415 - the bare interpreter imports this module too, and has none

    library = ctypes.CDLL(path)
    if api == "mkl":
        text = ctypes.create_string_buffer(200)
        library.mkl_get_version_string(text, 200)
        found = re.search(r"Version (\S+)", text.value.decode())
        return found.group(1) if found else ""
    if api == "openblas":
        names = (f"{prefix}openblas_get_config{suffix}" for suffix in ("", "64_") for prefix in ("scipy_", ""))
        config = next(filter(None, (getattr(library, name, None) for name in names)), None)
        if config:
            config.restype = ctypes.c_char_p
            words: list[str] = config().decode().split()
            return words[1]
    return ""


def _layer(path: str) -> str:
    """Return the threading layer of MKL, told by the library that it loaded."""
    if "libmkl_rt" not in path:
        return ""
    layers = re.findall(r"libmkl_(intel_thread|gnu_thread|tbb_thread|sequential)\.so", "\n".join(_mapped()))
    return "+".join(dict.fromkeys(layer.replace("_thread", "") for layer in layers))


def _wrong(errors: Errors) -> list[str]:
    return [
        f"{name} is wrong: its relative error is {error:.1e}"
        for name, error in errors.items()
        if not error <= (_SINGLE if name.startswith(_IN_SINGLE) else _DOUBLE)
    ]


def _wrong_blas(blas: str, asked: str, paths: Sequence[str]) -> list[str]:
    names = sorted({os.path.basename(path) for path in paths if _api(path) not in {"", "openmp"}})
    wanted = {"auto": {"mkl", "openblas"}, "": {blas}}.get(asked, {asked})
    if blas not in wanted:
        return [f"NumPy uses {blas or 'no BLAS that is known'}; mapped: {', '.join(names) or 'none'}"]
    if blas == "mkl" and not any(_MKL_KERNELS.match(os.path.basename(path)) for path in paths):
        return ["MKL is mapped, but none of its kernels was loaded by a multiplication"]
    disagreeing = _threadpoolctl() - {blas} if blas else set()
    if disagreeing - ({"mkl"} if blas == "openblas" else set()):
        return [f"NumPy uses {blas}, and threadpoolctl sees {', '.join(sorted(disagreeing))} besides"]
    if blas == "mkl" and "gnu" in "".join(_layer(path) for path in paths):
        return ["MKL runs on GNU's OpenMP: every child that is forked after its first use hangs"]
    return []


def _threadpoolctl() -> set[str]:
    """Return the BLAS libraries that threadpoolctl sees, where it is installed: a second opinion."""
    if not _has("threadpoolctl"):
        return set()
    import threadpoolctl  # noqa: PLC0415 - most images have it, not all

    return {each["internal_api"] for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"}


def _numpy_errors() -> Errors:
    """Return the relative errors of NumPy's linear algebra, against sums and products known without it."""
    import numpy as np  # noqa: PLC0415

    n = 60
    i, j = np.indices((n, n))
    a = ((7 * i + 3 * j) % 11 - 5).astype(float)
    b = ((5 * i + 2 * j) % 13 - 6).astype(float)
    product = np.array([[sum(int(x) * int(y) for x, y in zip(row, column)) for column in b.T] for row in a])  # noqa: B905
    values = np.arange(n, 0, -1.0)
    left, right = _reflection(n, 1), _reflection(n, 2)
    known = left * values @ right
    u, s, vt = np.linalg.svd(known)
    positive = left * values @ left.T
    lower = np.linalg.cholesky(positive)
    z, w = _complex(np, n)
    exact = _products(z, w)
    return {
        "gemm": _distance(a @ b, product),
        "sgemm": _distance(a.astype("f4") @ b.astype("f4"), product),
        "svd": max(_distance(s, values), _distance(u * s @ vt, known)),
        "eigh": _distance(np.linalg.eigh(positive)[0], values[::-1]),
        "cholesky": max(_distance(lower @ lower.T, positive), _distance(np.triu(lower, 1), 0 * lower)),
        "solve": _distance(np.linalg.solve(positive, positive @ values), values),
        "zvdot": _distance(np.vdot(z, w), exact[0]),
        "cvdot": _distance(np.vdot(z.astype("c8"), w.astype("c8")), exact[0]),
        "zdot strided": _distance(np.dot(z[::3], w[::3]), _products(z[::3], w[::3])[1]),
    }


def _scipy_errors() -> Errors:
    """Return the relative errors of the routines that return a complex number, and of single precision's norms."""
    import numpy as np  # noqa: PLC0415
    from scipy.linalg import blas, lapack  # noqa: PLC0415

    z, w = _complex(np, 60)
    c, d = z.astype("c8"), w.astype("c8")
    conjugated, plain = _products(z, w)
    strided = _products(z[: 20 * 3 : 3], w[1 : 20 * 2 : 2])
    errors = {
        "zdotc": _distance(blas.zdotc(z, w), conjugated),
        "zdotu": _distance(blas.zdotu(z, w), plain),
        "cdotc": _distance(blas.cdotc(c, d), conjugated),
        "cdotu": _distance(blas.cdotu(c, d), plain),
        "zdotc strided": _distance(blas.zdotc(z, w, n=20, incx=3, offy=1, incy=2), strided[0]),
        "cdotu strided": _distance(blas.cdotu(c, d, n=20, incx=3, offy=1, incy=2), strided[1]),
        "snrm2": _distance(blas.snrm2(np.full(400, 3.0, "f4")), 60.0),
        "slange": _distance(lapack.slange("1", np.ones((40, 30), "f4")), 40.0),
    }
    for name in ("zladiv", "cladiv"):
        errors[name] = _distance(_divided(name, 3 - 4j, 1 + 2j), (3 - 4j) / (1 + 2j))
    return errors


def _divided(name: str, x: complex, y: complex) -> complex:
    """Call LAPACK's complex division the way compiled code calls it: by its address."""
    import ctypes  # noqa: PLC0415

    from scipy.linalg import cython_lapack  # noqa: PLC0415

    real = ctypes.c_double if name.startswith("z") else ctypes.c_float

    class Pair(ctypes.Structure):
        _fields_ = (("real", real), ("imag", real))

    capsule = ctypes.py_object(cython_lapack.__pyx_capi__[name])
    signature, address = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    signature.restype, signature.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    divide = ctypes.CFUNCTYPE(Pair, ctypes.POINTER(Pair), ctypes.POINTER(Pair))(address(capsule, signature(capsule)))
    found = divide(ctypes.byref(Pair(x.real, x.imag)), ctypes.byref(Pair(y.real, y.imag)))
    return complex(found.real, found.imag)


def _complex(np: Any, n: int) -> tuple[Any, Any]:
    i = np.arange(n)
    return ((3 * i) % 7 - 2) + 1j * ((5 * i) % 11 - 3), ((2 * i) % 5 + 1) - 1j * ((7 * i) % 13 - 5)


def _products(z: Any, w: Any) -> tuple[complex, complex]:
    """Return sum(conj(z) w) and sum(z w), summed by Python: small integers, so exactly."""
    pairs = list(zip(z.tolist(), w.tolist()))  # noqa: B905
    return sum(x.conjugate() * y for x, y in pairs), sum(x * y for x, y in pairs)


def _reflection(n: int, step: int) -> Any:
    """Return an orthogonal matrix: a reflection, written without linear algebra."""
    import numpy as np  # noqa: PLC0415

    v = (np.arange(n) * step) % 7 + 1.0
    return np.eye(n) - 2 * np.multiply.outer(v, v) / (v * v).sum()


def _distance(found: Any, right: Any) -> float:
    """Return the largest error beside the largest value; infinite for anything that is no number."""
    import numpy as np  # noqa: PLC0415

    found, right = np.asarray(found), np.asarray(right)
    scale = float(np.abs(right).max()) or 1.0
    error = float(np.abs(found - right).max()) / scale if found.shape == right.shape else float("inf")
    return error if error == error else float("inf")  # noqa: PLR0124 - NaN


def _accelerated(name: str, seen: dict[str, Any]) -> list[str]:
    try:
        is_on = _ACCELERATED[name]()
    except Exception as exc:  # noqa: BLE001 - whatever it is, the user has to know
        return [f"the acceleration {name} fails: {type(exc).__name__}: {exc}"]
    if not is_on:
        return [f"the acceleration {name} is not on"]
    seen["accelerated"].append(name)
    return []


def _fft_is_on() -> bool:
    import mkl_fft  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    signal = np.arange(12.0)
    turn = np.exp(-2j * np.pi * np.outer(np.arange(12), np.arange(12)) / 12)
    right = _distance(np.fft.fft(signal), (turn * signal).sum(axis=1)) < _DOUBLE
    if right and _has("scipy"):
        import scipy.fft  # noqa: PLC0415

        right = _distance(scipy.fft.ifft(scipy.fft.fft(signal)), signal) < _DOUBLE
    return right and bool(mkl_fft.is_patched())


def _random_is_on() -> bool:
    import mkl_random  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    draws = []
    for _ in range(2):
        np.random.seed(7)  # noqa: NPY002 - the old functions are those that are accelerated
        draws.append(np.random.standard_normal(2000))  # noqa: NPY002
    first, again = draws
    fair = abs(first.mean()) < 0.1 and abs(first.std() - 1) < 0.1
    return bool(mkl_random.is_patched() and (first == again).all() and fair)


def _umath_is_on() -> bool:
    import mkl_umath  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    half = np.full(100, 0.5)
    return bool(mkl_umath.is_patched()) and _distance(np.sin(half) ** 2 + np.cos(half) ** 2, np.ones(100)) < 1e-14


def _sklearn_is_on() -> bool:
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    points = [[k % 10, k // 10] for k in range(100)]
    sides = [int(x > 4) for x, _ in points]
    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(points, sides)
    theirs = type(forest).__module__.startswith(("sklearnex", "daal4py"))
    return theirs and bool(forest.score(points, sides) == 1.0)


_ACCELERATED: dict[str, Callable[[], bool]] = {
    "fft": _fft_is_on,
    "random": _random_is_on,
    "umath": _umath_is_on,
    "sklearn": _sklearn_is_on,
}


def _openmp_runtimes(paths: Iterable[str]) -> list[str]:
    found = (_OPENMP.match(os.path.basename(path)) for path in paths)
    return list(dict.fromkeys(each.group() for each in found if each))


def _notes(asked: str, blas: str) -> list[str]:
    notes = []
    if _has("numexpr"):
        import numexpr  # noqa: PLC0415

        if numexpr.use_vml:
            notes.append(f"numexpr computes with MKL's vector library ({numexpr.get_vml_version()})")
        elif asked in {"mkl", "auto"}:
            notes.append("numexpr computes without MKL's vector library: its wheel has none, and none was compiled")
    runtimes = _openmp_runtimes(_mapped())
    if len(runtimes) > 1:
        notes.append(f"{' and '.join(runtimes)} run OpenMP side by side, each with threads of its own")
    if blas == "openblas" and any("libmkl_rt" in path for path in _mapped()):
        notes.append("MKL is mapped for the accelerations alone: NumPy's and SciPy's linear algebra calls OpenBLAS")
    return notes


if __name__ == "__main__":
    main(sys.argv[1:])
