"""Link the wheels of NumPy and SciPy in a tree to MKL, or carry both libraries and choose on each node.

`mkl`: the extension modules need a small forwarder to MKL by a name that is as long as that of their OpenBLAS, which
is gone; nothing in them moves. `auto`: no module is changed; the forwarder lies beside OpenBLAS and has its SONAME, and
NumPy's and SciPy's hook for distributors loads it first where MKL was chosen.
"""

from __future__ import annotations

import importlib.resources
import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterkit.environments.blas import accelerating, numexpr
from clusterkit.environments.blas.edit import Edit
from clusterkit.environments.blas.forwarder import write
from clusterkit.environments.blas.symbols import PREFIX, DynamicSymbols, Forward, forward
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from clusterkit.environments.tree import File, Tree

    Said = Callable[[str, str], None]

_OPENBLAS, _FORWARDER = "scipy_openblas", "clusterkit_mkl"  # of one length: the names are exchanged in place
_OLDEST = {"numpy": "2.0", "scipy": "1.14"}
_MKL = re.compile(r"lib/libmkl_rt\.so\.\d+")
_THREADS = "lib/libiomp5.so"


def link(
    tree: Tree,
    blas: str | None,
    accelerate: Sequence[str] = (),
    *,
    scratch: Path,
    cache_dir: Path,
    said: Said | None = None,
) -> Tree:
    """Return a tree whose NumPy and SciPy use the BLAS that was asked for.

    Parameters
    ----------
    tree : Tree
        The environment; neither it nor the files it was read from are changed.
    blas : str or None
        `mkl`, `openblas`, `auto` (both are carried, and chosen from on each node), or None: as it is.
    accelerate : sequence of str
        What Intel's libraries shall do besides: `fft`, `random`, `umath`, `sklearn`.
    scratch : Path
        A directory for changed files; it has to stay as long as the tree is used.
    cache_dir : Path
        Where a numexpr that was compiled for MKL is kept.
    said : callable, optional
        Told a stage and its detail.

    Raises
    ------
    ImageError
        If a wheel is too old, needs a routine that MKL lacks, or a package is missing.
    """
    said = said or _silent
    if tree.platform != "linux-64":
        return _without_mkl(tree, blas, accelerate, said)
    if _is_conda(tree):
        _check_conda(tree, blas, said)
    elif _version(tree, "numpy"):
        tree = _linked(tree, blas, scratch, said)
        if blas in {"mkl", "auto"}:
            tree = numexpr.with_vml(tree, scratch=scratch, cache_dir=cache_dir, said=said)
    elif blas:
        said("linking", "there is no NumPy: nothing uses BLAS")
    return accelerating.switched_on(tree, accelerate, scratch=scratch, said=said)


def _without_mkl(tree: Tree, blas: str | None, accelerate: Sequence[str], said: Said) -> Tree:
    if blas in {"mkl", "auto"} or accelerate:
        said("linking", f"{tree.platform} keeps OpenBLAS: Intel's libraries are for x86-64 alone")
    return tree


def _is_conda(tree: Tree) -> bool:
    """Say whether NumPy comes from a conda package, which has no BLAS of its own."""
    return any(package.name == "numpy" and package.kind == "conda" for package in tree.packages)


def _check_conda(tree: Tree, blas: str | None, said: Said) -> None:
    build = next((package.build for package in tree.packages if package.name == "libblas"), "")
    said("linking", f"conda's libblas decides: {build or 'there is none'}")
    if blas in {"mkl", "openblas"} and not build.endswith(blas):
        raise ImageError(
            f"the environment is not linked to {blas}",
            why=f"conda's packages use what libblas names, and that is {build or 'not installed'}",
            mend=f"add `libblas=*=*{blas}` to the dependencies of the environment",
        )


def _version(tree: Tree, package: str) -> str:
    return next((each.version for each in tree.packages if each.name == package), "")


def _linked(tree: Tree, blas: str | None, scratch: Path, said: Said) -> Tree:
    if blas not in {"mkl", "auto"}:
        return tree
    mkl = _Mkl.of(tree)
    edit = Edit(tree, scratch)
    for name in _OLDEST:
        if _version(tree, name):
            wheel = _Wheel.of(tree, name)
            said("linking", f"{name} {wheel.version} to {'MKL' if blas == 'mkl' else 'MKL, beside OpenBLAS'}")
            wheel.link(edit, mkl, keep=blas == "auto")
    return edit.made()


@dataclass(frozen=True, slots=True)
class _Mkl:
    """The one library of MKL that programs link to, and the names it exports."""

    path: str
    names: frozenset[str]

    @classmethod
    def of(cls, tree: Tree) -> _Mkl:
        files = {file.path: file for file in tree.files}
        found = sorted((path for path in files if _MKL.fullmatch(path)), key=lambda path: int(path.rpartition(".")[2]))
        if not found or _THREADS not in {*files, *(link.path for link in tree.links)}:
            missing = "intel-openmp" if found else "mkl"
            raise ImageError(
                "NumPy cannot be linked to MKL",
                why=f"the package {missing} is not in the environment",
                mend=f"add `{missing}` to its packages (`pip install {missing}`), or leave out `blas`",
            )
        return cls(found[-1], DynamicSymbols.from_elf(files[found[-1]].read()).exported)


@dataclass(frozen=True, slots=True)
class _Wheel:
    """NumPy or SciPy as its wheel installed it.

    Parameters
    ----------
    name, version : str
        What it is.
    site : str
        Where it lies below the prefix.
    openblas : File
        The OpenBLAS it brought.
    modules : tuple of (File, bytes)
        The extension modules that need it.
    """

    name: str
    version: str
    site: str
    openblas: File
    modules: tuple[tuple[File, bytes], ...]

    @classmethod
    def of(cls, tree: Tree, name: str) -> _Wheel:
        version, site = _version(tree, name), tree.site_packages
        beside, inside = f"{site}/{name}.libs/lib", f"{site}/{name}/"
        openblas = [each for each in tree.files if each.path.startswith(beside) and "openblas" in each.path]
        if len(openblas) != 1 or not openblas[0].path.startswith(beside + _OPENBLAS):
            raise _not_linked(name, version, _why_not(name, version, [each.path for each in openblas]))
        needed = _file_name(openblas[0]).encode() + b"\0"
        candidates = [each for each in tree.files if each.path.startswith(inside) and each.path.endswith(".so")]
        read = ((each, each.read()) for each in candidates)
        return cls(name, version, site, openblas[0], tuple((each, data) for each, data in read if needed in data))

    def link(self, edit: Edit, mkl: _Mkl, *, keep: bool) -> None:
        """Add the forwarder and the hook; without `keep`, exchange the names and remove OpenBLAS."""
        old = _file_name(self.openblas)
        new = old.replace(_OPENBLAS, _FORWARDER)
        directory = posixpath.dirname(self.openblas.path)
        origin = "$ORIGIN/" + posixpath.relpath(posixpath.dirname(mkl.path), directory)
        library = write(
            self._forwards(mkl),
            soname=old if keep else new,
            needed=posixpath.basename(mkl.path),
            rpath=origin,
        )
        edit.put(f"{directory}/{new}", library, package=self.name, mode=0o755)
        edit.append(f"{self.site}/{self.name}/_distributor_init_local.py", _hook(), package=self.name)
        if not keep:
            edit.remove(self.openblas)
            for file, data in self.modules:
                edit.change(file, data.replace(old.encode() + b"\0", new.encode() + b"\0"))

    def _forwards(self, mkl: _Mkl) -> list[Forward]:
        offered = DynamicSymbols.from_elf(self.openblas.read()).exported
        imported = {name for _, data in self.modules for name in DynamicSymbols.from_elf(data).imported} & offered
        forwards = {name: forward(name, mkl.names) for name in sorted(imported)}
        missing = [name for name, found in forwards.items() if found is None]
        if missing:
            plain = ", ".join(name.removeprefix(PREFIX) for name in missing[:3])
            raise _not_linked(self.name, self.version, f"it uses {plain}, which {posixpath.basename(mkl.path)} lacks")
        return [found for found in forwards.values() if found]


def _why_not(name: str, version: str, found: Sequence[str]) -> str:
    if found:
        return f"{name} wheels before {_OLDEST[name]} bring an OpenBLAS whose names cannot be told from others"
    return f"{name} {version} was not installed from a wheel that brings OpenBLAS"


def _not_linked(name: str, version: str, why: str) -> ImageError:
    return ImageError(
        f"{name} {version} cannot be linked to MKL",
        why=why,
        mend=f"install a wheel of another version (`{name}>={_OLDEST[name]}`), or leave out `blas`",
    )


def _hook() -> str:
    module = importlib.resources.files("clusterkit.environments.blas.image").joinpath("settle_blas.py")
    return f"{module.read_text()}\n\nsettle()\n"


def _file_name(file: File) -> str:
    return posixpath.basename(file.path)


def _silent(_stage: str, _detail: str) -> None: ...
