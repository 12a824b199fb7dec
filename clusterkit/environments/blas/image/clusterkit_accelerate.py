"""Switch Intel's accelerations on when a program imports what they accelerate.

clusterkit put this file into the image; `clusterkit_accelerate.pth` starts it with the names that are on. It runs in
every Python of the image, so it imports nothing itself and waits for NumPy, SciPy and scikit-learn.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def watch(*names: str) -> None:
    """Have the named accelerations switched on as soon as their modules are imported."""
    after: dict[str, Callable[[], None]] = {}
    for name in names:
        after.update(_after(name))
    sys.meta_path.insert(0, _Watch(after))


def _after(name: str) -> "dict[str, Callable[[], None]]":
    """Return by module what follows its import: Intel's package and, after that, its use.

    Each of Intel's packages imports what it accelerates, so that a program may ask for either first.
    """
    return {
        "fft": {"numpy.fft": _numpy_fft, "scipy.fft": _scipy_fft},
        "random": {"numpy.random": _loading("mkl_random"), "mkl_random": _random},
        "umath": {"numpy": _loading("mkl_umath"), "mkl_umath": _umath},
        "sklearn": {"sklearn": _loading("sklearnex"), "sklearnex": _sklearn},
    }[name]


class _Watch:
    """A finder that finds nothing itself, and adds what to do after a module was loaded."""

    def __init__(self, after: "dict[str, Callable[[], None]]") -> None:
        self._after = after
        self._asking: set[str] = set()

    def find_spec(self, name: str, path: "Sequence[str] | None" = None, target: "Any" = None) -> "Any":
        """Return the spec that the other finders have for a module, with what comes after."""
        if name not in self._after or name in self._asking:
            return None
        self._asking.add(name)
        try:
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)
                spec = find(name, path, target) if find else None
                if spec is not None:
                    if spec.loader is not None:
                        self._follow(spec.loader, name)
                    return spec
        finally:
            self._asking.discard(name)
        return None

    def _follow(self, loader: "Any", name: str) -> None:
        load = loader.exec_module

        def exec_module(module: "Any") -> None:
            del loader.exec_module
            load(module)
            parent, _, last = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], last, module)  # as import does a little later; NumPy asks for it at once
            action = self._after.pop(name, None)
            if action:
                action()

        loader.exec_module = exec_module


def _loading(name: str) -> "Callable[[], None]":
    return lambda: _load(name)


def _load(name: str) -> "Any":
    _pin()
    __import__(name)
    return sys.modules[name]


def _umath() -> None:
    """Use MKL's functions, but for those that NumPy was measured to do faster on this model of CPU."""
    numpy = sys.modules["numpy"]

    kept = [_loops(getattr(numpy, name)) for name in _slower() if hasattr(numpy, name)]
    saved = [list(loops) for loops in kept]
    sys.modules["mkl_umath"].patch_numpy_umath()
    for number, loops in enumerate(kept):
        loops[:] = saved[number]


def _slower() -> "Sequence[str]":
    import os

    named = os.environ.get("_CLUSTERKIT_NUMPY_UFUNCS")
    if named is not None:
        return named.split(",")
    try:
        import json

        with open(os.path.join(_prefix(), ".clusterkit", "blas-choice.json"), encoding="utf-8") as file:
            choices = json.load(file)
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            model = next(line for line in file if line.startswith("model name")).partition(":")[2].strip()
        found: list[str] = choices[model].get("numpy_ufuncs", [])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return []
    return found


def _loops(ufunc: "Any") -> "Any":
    """Return a ufunc's inner loops, an array that can be written: `functions` and `ntypes` of PyUFuncObject."""
    import ctypes

    count = ctypes.c_int.from_address(id(ufunc) + 48).value
    first = ctypes.c_void_p.from_address(id(ufunc) + 32).value or 0
    return (ctypes.c_void_p * count).from_address(first)


def _numpy_fft() -> None:
    """Have mkl_fft loaded by the first transform: it imports SciPy, which may be importing numpy.fft just now."""
    import numpy.fft

    names = ["fft", "fft2", "fftn", "hfft", "ifft", "ifft2", "ifftn", "ihfft", "rfft", "rfft2", "rfftn", "irfft"]
    plain = {name: getattr(numpy.fft, name) for name in [*names, "irfft2", "irfftn"]}

    def first(name: str) -> "Callable[..., Any]":
        def transform(*args: "Any", **kwargs: "Any") -> "Any":
            mkl_fft = _load("mkl_fft")
            if not mkl_fft.is_patched():
                vars(numpy.fft).update(plain)
                mkl_fft.patch_numpy_fft()
            return getattr(mkl_fft.interfaces.numpy_fft, name)(*args, **kwargs)

        transform.__name__, transform.__doc__ = name, plain[name].__doc__
        return transform

    vars(numpy.fft).update((name, first(name)) for name in plain)


def _scipy_fft() -> None:
    import scipy.fft

    scipy.fft.set_global_backend(_ScipyFft)


class _ScipyFft:
    """mkl_fft as a backend of scipy.fft, loaded by the first transform."""

    __ua_domain__ = "numpy.scipy.fft"

    @staticmethod
    def __ua_function__(method: "Any", args: "Any", kwargs: "Any") -> "Any":
        return _load("mkl_fft.interfaces.scipy_fft").__ua_function__(method, args, kwargs)


def _random() -> None:
    import numpy.random

    numpy_random: Any = numpy.random
    sys.modules["mkl_random"].patch_numpy_random()
    # scikit-learn takes generators of this class only, and draws from the one of NumPy's where it is given none
    numpy_random.RandomState = numpy_random.mtrand.RandomState
    mkl_seed, numpy_seed = numpy_random.seed, numpy_random.mtrand._rand.seed  # noqa: SLF001 - it has no other name

    def seed(seed: "Any" = None) -> None:
        """Seed the generators behind numpy.random's functions: MKL's, and NumPy's own, which libraries hold."""
        mkl_seed(seed)
        numpy_seed(seed)

    numpy_random.seed = seed


def _sklearn() -> None:
    sys.modules["sklearnex"].patch_sklearn(verbose=False)


def _pin() -> None:
    """Keep MKL's layers what they have to be: see `settle_blas.py`."""
    import ctypes
    import os

    libraries = os.path.join(_prefix(), "lib")
    name = max(name for name in os.listdir(libraries) if name.startswith("libmkl_rt.so"))
    mkl = ctypes.CDLL(os.path.join(libraries, name))
    mkl.MKL_Set_Interface_Layer(0)
    if os.environ.get("MKL_THREADING_LAYER", "").upper() != "SEQUENTIAL":
        mkl.MKL_Set_Threading_Layer(0)


def _prefix() -> str:
    import os

    site = os.path.dirname(os.path.abspath(__file__))  # lib/python3.11/site-packages
    return os.path.dirname(os.path.dirname(os.path.dirname(site)))
