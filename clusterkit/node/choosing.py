"""Choose between MKL and OpenBLAS for an image on this node, by timing both: once for each model of CPU.

`mkl` is chosen where it is faster on the whole and nowhere noticeably slower; an image with both is then never slower
than the wheels are as they come. Where NumPy's functions are accelerated, each of them is timed as well, and those that
NumPy does faster on this CPU stay NumPy's. This file is also the script that times one candidate.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

CANDIDATES = ("openblas", "mkl")
LEAST = 0.95
"""How fast MKL has to be at the kind of work it does worst, beside OpenBLAS."""

_TIMEOUT_S = 60
_UFUNCS = (
    *("sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh"),
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "cbrt", "sqrt", "square", "absolute"),
    *("add", "subtract", "multiply", "divide", "floor", "ceil", "trunc", "rint", "fmax", "fmin"),
)
_TWO_ARGUMENTS = {"add", "subtract", "multiply", "divide", "fmax", "fmin"}


def choose(python: str, path: str, cpu: str, *, both: bool, ufuncs: bool) -> dict[str, Any]:
    """Time what there is to choose from, unless that was done on this model of CPU, and write the choice.

    Parameters
    ----------
    python : str
        The image's Python.
    path : str
        `{prefix}/.clusterkit/blas-choice.json`; its directory exists.
    cpu : str
        The model of this node's CPU.
    both : bool
        Whether the image carries both libraries.
    ufuncs : bool
        Whether the image accelerates NumPy's functions.

    Returns
    -------
    dict
        `blas`; `seconds` of each candidate by kind of work; `numpy_ufuncs`, those that NumPy does faster.

    Raises
    ------
    OSError
        If a candidate cannot be timed, or the choice cannot be written.
    """
    known = _read(path)
    choice: dict[str, Any] = known.get(cpu, {})
    if choice:
        return choice
    if both:
        seconds = {name: _timed(python, "blas", name) for name in CANDIDATES}
        choice = {"blas": decide(seconds), "seconds": seconds}
    if ufuncs:
        choice["numpy_ufuncs"] = [name for name, ratio in _timed(python, "ufuncs", "").items() if ratio < 1]
    _write(path, {**known, cpu: choice})
    return choice


def decide(seconds: Mapping[str, Mapping[str, float]]) -> str:
    """Return the candidate to use, by the seconds that each took for each kind of work.

    Examples
    --------
    >>> decide({"openblas": {"gemm": 1.0, "svd": 1.0}, "mkl": {"gemm": 0.8, "svd": 1.0}})
    'mkl'
    >>> decide({"openblas": {"gemm": 1.0, "svd": 1.0}, "mkl": {"gemm": 0.5, "svd": 1.2}})
    'openblas'
    """
    ratios = [seconds["openblas"][kind] / seconds["mkl"][kind] for kind in seconds["openblas"]]
    gain = math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))
    return "mkl" if gain >= 1 and min(ratios) >= LEAST else "openblas"


def _timed(python: str, what: str, candidate: str) -> dict[str, float]:
    """Return what one candidate took, on one thread: as Spark's Python workers run."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [python, "-I", "-S", "-", what],
        input=source(__name__),
        env={"PATH": os.environ.get("PATH", os.defpath), **threads, "_CLUSTERKIT_BLAS": candidate or CANDIDATES[0]},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise OSError(f"{candidate or 'mkl_umath'} was not timed: {done.stderr.strip()[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def source(module: str) -> str:
    """Return the text of a module of this package, for another Python to run: it may lie in a zip file."""
    loader: Any = sys.modules[module].__spec__.loader  # type: ignore[union-attr]
    return str(loader.get_source(module))


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: str, choices: dict[str, Any]) -> None:
    aside = f"{path}.{os.getpid()}"
    with open(aside, "w", encoding="utf-8") as file:
        json.dump(choices, file)
    os.replace(aside, path)


def _measure() -> dict[str, float]:
    """Return the seconds of each kind of work, in this process."""
    import numpy as np  # noqa: PLC0415 - in the image's Python alone

    draw = np.random.default_rng(0).standard_normal
    a, b, c, tall = draw((500, 500)), draw((180, 180)), draw((48, 48)), draw((20000, 40))
    symmetric, positive = b + b.T, b @ b.T + 180 * np.eye(180)
    return {
        "gemm": _best(lambda: a @ a),
        "gram": _best(lambda: tall.T @ tall),
        "svd": _best(lambda: np.linalg.svd(b)),
        "eigh": _best(lambda: np.linalg.eigh(symmetric)),
        "cholesky": _best(lambda: [np.linalg.cholesky(positive) for _ in range(10)]),
        "solve": _best(lambda: np.linalg.solve(positive, b)),
        "small products": _best(lambda: [c @ c for _ in range(200)]),
    }


def _measure_ufuncs() -> dict[str, float]:
    """Return by function how many times faster MKL is than NumPy, in this process."""
    import mkl_umath  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    x = np.linspace(0.05, 0.95, 20000)
    plain = {name: getattr(np, name) for name in _UFUNCS}
    with_mkl = {name: getattr(mkl_umath, name) for name in _UFUNCS}
    return {name: _best(_call(plain[name], name, x)) / _best(_call(with_mkl[name], name, x)) for name in _UFUNCS}


def _call(function: Any, name: str, x: Any) -> Callable[[], object]:
    arguments = [x, x[::-1].copy()] if name in _TWO_ARGUMENTS else [x + 1 if name == "arccosh" else x]
    out = x.copy()
    return lambda: function(*arguments, out=out)


def _best(work: Callable[[], object], *, limit_s: float = 0.03, least: int = 3) -> float:
    """Return the smallest CPU time of some work, after once without timing."""
    work()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < least or time.perf_counter() - started < limit_s:
        before = time.process_time()
        work()
        times.append(time.process_time() - before)
    return max(min(times), 1e-9)


if __name__ == "__main__":
    sys.path.append(f"{sys.prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
    json.dump(_measure_ufuncs() if sys.argv[1] == "ufuncs" else _measure(), sys.stdout)
