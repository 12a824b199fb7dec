"""Before an image is used on a node for the first time: choose its BLAS there, and see what it really computes with."""

from __future__ import annotations

import json
import os
import subprocess

from . import choosing, proving
from .errors import NodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Said = Callable[[str, str], None]

_TIMEOUT_S = 300


def prove(prefix: str, python: str, *, blas: str, proof: Mapping[str, Any] | None, said: Said) -> dict[str, Any]:
    """Choose where there is a choice, prove, and keep both beside the image as `blas-choice.json` and `proof.json`.

    Parameters
    ----------
    prefix : str
        Where the image stands; `.clusterkit` in it is made where it is missing.
    python : str
        The image's Python.
    blas : str
        What the image claims: `mkl`, `openblas`, `auto`, or empty.
    proof : mapping or None
        The proof of its build; nothing is done for an image without NumPy.
    said : callable
        Told a stage and its detail.

    Returns
    -------
    dict
        What was seen; empty where there was nothing to see.

    Raises
    ------
    NodeError
        If the image does not keep here what its manifest says.
    """
    if not proof or not proof.get("blas"):
        return {}
    accelerate = sorted(proof.get("accelerated", {}))
    try:
        os.makedirs(f"{prefix}/.clusterkit", exist_ok=True)
        choice = choose(prefix, python, blas=blas, accelerate=accelerate, said=said)
        said("proving", f"the image computes with {choice.get('blas', blas) or 'its BLAS'}")
        seen = _seen(python, blas, accelerate)
        with open(f"{prefix}/.clusterkit/proof.json", "w", encoding="utf-8") as file:
            json.dump({**seen, "chosen": choice.get("seconds", {})}, file)
    except (OSError, ValueError, subprocess.TimeoutExpired) as exc:
        raise _failed(str(exc)) from exc
    if seen["faults"]:
        raise _failed("; ".join(seen["faults"]))
    return seen


def choose(prefix: str, python: str, *, blas: str, accelerate: list[str], said: Said) -> dict[str, Any]:
    """Return what was chosen for an image on this model of CPU; empty where it leaves no choice."""
    both, ufuncs = blas == "auto" and _carries_both(prefix, python), "umath" in accelerate
    if not (both or ufuncs):
        return {}
    said("choosing", "timing what the image carries on this CPU")
    os.makedirs(f"{prefix}/.clusterkit", exist_ok=True)
    path = f"{prefix}/.clusterkit/blas-choice.json"
    return choosing.choose(python, path, proving.cpu_model(), both=both, ufuncs=ufuncs)


def _carries_both(prefix: str, python: str) -> bool:
    """Say whether MKL's forwarder lies beside OpenBLAS: where conda's libblas decides, there is nothing to choose."""
    try:
        names = os.listdir(f"{prefix}/lib/{os.path.basename(python)}/site-packages/numpy.libs")
    except FileNotFoundError:
        return False
    return {"libscipy_openblas", "libclusterkit_mkl"} <= {name.partition("-")[0].replace("64_", "") for name in names}


def _seen(python: str, blas: str, accelerate: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-I", "-", "--blas", blas, "--accelerate", ",".join(accelerate)],
        input=choosing.source(proving.__name__),
        env={name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise OSError(done.stderr.strip()[-2000:] or f"the proof ended with {done.returncode}")
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _failed(why: str) -> NodeError:
    return NodeError(
        "the image does not compute on this node as it did when it was built",
        why=why,
        mend="compare `clusterkit env show` with the node, or build the image with blas `openblas`",
    )
