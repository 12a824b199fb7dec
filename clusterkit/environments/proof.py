"""Prove what an environment computes with, before it becomes an image; refuse images that claim without proof."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from clusterkit import processes
from clusterkit.environments.blas.accelerating import CHANGES
from clusterkit.environments.manifest import Library, Proof
from clusterkit.errors import ImageError
from clusterkit.node import choosing, first_use, proving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from clusterkit.environments.manifest import Manifest

    Said = Callable[[str, str], None]

_TIMEOUT_S = 300
_HOSTILE = {"MKL_INTERFACE_LAYER": "GNU,ILP64", "MKL_THREADING_LAYER": "GNU"}
"""What a user's shell may have, and what no image may depend on."""


def prove(
    prefix: Path, python: str, *, blas: str | None, accelerate: Sequence[str] = (), said: Said | None = None
) -> Proof:
    """Run an environment's Python, compute, and tell what was seen.

    It is done once in an empty environment and, where MKL is in use, once more under variables that ask MKL for layers
    which do not work. With `auto`, and where NumPy's functions are accelerated, what is faster on this machine is
    chosen first; nodes do the same for themselves.

    Parameters
    ----------
    prefix : Path
        Where the environment stands; `.clusterkit` is made in it.
    python : str
        Its Python, below the prefix.
    blas : str or None
        `mkl`, `openblas`, `auto`, or None where any will do.
    accelerate : sequence of str
        The accelerations that have to be on.
    said : callable, optional
        Told a stage and its detail.

    Raises
    ------
    ImageError
        If it uses another BLAS, computes wrong numbers, or an acceleration is not on; what was mapped is named.
    """
    started = time.monotonic()
    said = said or _silent
    program, asked = str(prefix / python), blas or ""
    if os.uname().machine != "x86_64":
        asked, accelerate = asked and "openblas", ()
    choice: dict[str, Any] = {}
    try:
        if (asked == "auto" or accelerate) and _has_numpy(program):
            choice = first_use.choose(str(prefix), program, blas=asked, accelerate=list(accelerate), said=said)
    except OSError as exc:
        raise _failed(str(exc)) from exc
    seen = _seen(program, asked, accelerate, {})
    faults = seen["faults"]
    if seen["blas"] == "mkl":
        hostile = _seen(program, asked, (), _HOSTILE)
        faults = faults + [f"with {_words(_HOSTILE)} set: {fault}" for fault in hostile["faults"]]
    if faults:
        raise _failed("; ".join(faults))
    return _proof(seen, choice, time.monotonic() - started)


def check(manifest: Manifest) -> None:
    """Refuse an image that claims a BLAS nobody has seen in use.

    Raises
    ------
    ImageError
        If its proof is missing, or shows another BLAS.
    """
    claimed, proof = manifest.blas, manifest.proof
    shown = proof.blas if proof else ""
    allowed = {"auto": {"mkl", "openblas"}}.get(claimed, {claimed})
    if not claimed or shown in allowed or (proof and not shown) or manifest.platform != "linux-64":
        return
    raise ImageError(
        f"the image {manifest.name} is not used",
        why=f"it claims {claimed}, and {f'its proof shows {shown}' if proof else 'nobody has seen it in use'}",
        mend="build it again with `clusterkit env build`",
        image=manifest.id,
    )


def _seen(python: str, blas: str, accelerate: Sequence[str], variables: Mapping[str, str]) -> dict[str, Any]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    argv = [python, "-I", "-", "--blas", blas, "--accelerate", ",".join(accelerate)]
    source = choosing.source(proving.__name__)
    try:
        done = processes.run(argv, env={**environment, **variables}, timeout_s=_TIMEOUT_S, stdin=source)
    except (OSError, TimeoutError) as exc:
        raise _failed(f"its Python does not run: {exc}") from exc
    set_to = f" with {_words(variables)} set" if variables else ""
    if done.exit_code:
        raise _failed(f"the computation ended with {done.exit_code}{set_to}\n{done.last_lines()}")
    try:
        seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as exc:
        raise _failed(f"the computation printed something else{set_to}: {done.stdout[-500:]!r}") from exc
    return seen


def _has_numpy(python: str) -> bool:
    question = "from importlib.util import find_spec; raise SystemExit(find_spec('numpy') is None)"
    return processes.run([python, "-I", "-c", question], timeout_s=_TIMEOUT_S).exit_code == 0


def _proof(seen: Mapping[str, Any], choice: Mapping[str, Any], seconds: float) -> Proof:
    notes = list(seen["notes"])
    kept = choice.get("numpy_ufuncs", ())
    if kept:
        notes.append(f"NumPy's own {', '.join(kept)} are faster on this CPU, and stay")
    return Proof(
        blas=seen["blas"],
        libraries=tuple(Library(**library) for library in seen["libraries"]),
        checks=seen["checks"],
        accelerated={name: CHANGES[name] for name in seen["accelerated"]},
        cpu=seen["cpu"],
        chosen={name: round(sum(took.values()), 6) for name, took in choice.get("seconds", {}).items()},
        seconds=round(seconds, 3),
        notes=tuple(notes),
    )


def _words(variables: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in variables.items())


def _failed(why: str) -> ImageError:
    return ImageError(
        "the environment does not compute as it was asked to",
        why=why,
        mend="see what is mapped with `python -m threadpoolctl -i numpy scipy.linalg`, or leave out `blas` and "
        "`accelerate`",
    )


def _silent(_stage: str, _detail: str) -> None: ...
