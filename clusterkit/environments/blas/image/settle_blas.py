"""Settle which BLAS NumPy and SciPy use, before any of their extension modules is loaded.

clusterkit put this file into the image, with a call of `settle` at its end: NumPy and SciPy import it as
`_distributor_init_local`, their hook for distributors. Where both libraries are carried, the extension modules need
OpenBLAS by its name; a library of that name which is loaded already, and forwards to MKL, is taken instead.
"""

import ctypes
import os

_INTEL_THREADS, _LP64 = 0, 0


def settle() -> None:
    """Load MKL's forwarder where it was chosen, and keep MKL's layers what they have to be."""
    package = os.path.dirname(os.path.abspath(__file__))
    site = os.path.dirname(package)
    prefix = os.path.dirname(os.path.dirname(os.path.dirname(site)))
    beside = os.path.join(site, os.path.basename(package) + ".libs")
    names = os.listdir(beside)
    if any("openblas" in name for name in names):
        if _chosen(prefix) != "mkl":
            return
        for name in names:
            if name.startswith("libclusterkit_mkl"):
                ctypes.CDLL(os.path.join(beside, name))
    _pin(os.path.join(prefix, "lib"))


def _pin(libraries: str) -> None:
    """Keep MKL's layers what they have to be, whatever variables say.

    With MKL_INTERFACE_LAYER=GNU or ILP64 calls fail or crash; with MKL_THREADING_LAYER=GNU every child that is forked
    after the first call hangs. SEQUENTIAL is anyone's to choose.
    """
    name = max(name for name in os.listdir(libraries) if name.startswith("libmkl_rt.so"))
    mkl = ctypes.CDLL(os.path.join(libraries, name))
    mkl.MKL_Set_Interface_Layer(_LP64)
    if os.environ.get("MKL_THREADING_LAYER", "").upper() != "SEQUENTIAL":
        mkl.MKL_Set_Threading_Layer(_INTEL_THREADS)


def _chosen(prefix: str) -> str:
    """Return what was asked for, or measured on this model of CPU; without either, what is likely for its maker."""
    named = os.environ.get("_CLUSTERKIT_BLAS", "")
    if named in {"mkl", "openblas"}:
        return named
    model, maker = _cpu()
    try:
        import json

        with open(os.path.join(prefix, ".clusterkit", "blas-choice.json"), encoding="utf-8") as file:
            return str(json.load(file)[model]["blas"])
    except (OSError, ValueError, KeyError, TypeError):
        return "mkl" if maker == "GenuineIntel" else "openblas"


def _cpu() -> "tuple[str, str]":
    found = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if not key.strip():
                    break
                found[key.strip()] = value.strip()
    except OSError:
        pass
    return found.get("model name", ""), found.get("vendor_id", "")
