"""Switch Intel's accelerations on in an image: at interpreter start, without importing what nobody uses."""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

from clusterkit.environments.blas.edit import Edit
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from clusterkit.environments.tree import Tree

    Said = Callable[[str, str], None]

PACKAGES = {
    "fft": ("mkl-fft", "mkl-service"),
    "random": ("mkl-random",),
    "umath": ("mkl-umath",),
    "sklearn": ("scikit-learn-intelex",),
}
"""The packages that each acceleration needs; mkl-fft does not name mkl-service, and needs it for scipy.fft."""

CHANGES = {
    "fft": "numpy.fft and scipy.fft compute with MKL: the last bits may differ",
    "random": "numpy.random's functions draw with MKL: other random numbers for the same seed; "
    "default_rng and RandomState are not changed",
    "umath": "NumPy's sin, exp, log and their like compute with MKL's vector library: the last bit may differ",
    "sklearn": "scikit-learn's main estimators compute with oneDAL: other random draws, results alike but not equal",
}
"""What each acceleration changes in a program's results."""

_START = "clusterkit_accelerate"


def switched_on(tree: Tree, accelerate: Sequence[str], *, scratch: Path, said: Said) -> Tree:
    """Return a tree whose Python switches accelerations on when it imports what they accelerate.

    Raises
    ------
    ImageError
        If a package that one of them needs is missing.
    """
    if not accelerate:
        return tree
    installed = {package.name.replace("_", "-") for package in tree.packages}  # conda writes mkl_fft
    for name in accelerate:
        missing = [package for package in PACKAGES[name] if package not in installed]
        if missing:
            raise ImageError(
                f"the acceleration {name} cannot be switched on",
                why=f"the package {missing[0]} is not in the environment",
                mend=f"add `{missing[0]}` to its packages, or leave {name} out of `accelerate`",
            )
        said("accelerating", f"{name}: {CHANGES[name]}")
    edit = Edit(tree, scratch)
    names = ", ".join(repr(name) for name in sorted(accelerate))
    source = importlib.resources.files("clusterkit.environments.blas.image").joinpath(f"{_START}.py").read_bytes()
    edit.put(f"{tree.site_packages}/{_START}.py", source, package="")
    line = f"import {_START}; {_START}.watch({names})\n"
    edit.put(f"{tree.site_packages}/{_START}.pth", line.encode(), package="")
    return edit.made()
