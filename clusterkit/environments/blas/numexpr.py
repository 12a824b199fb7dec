"""Compile numexpr against MKL's vector library, which its wheel does without, where there is a compiler."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit import processes
from clusterkit.environments.blas.edit import Edit

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.environments.lock import LockedPackage
    from clusterkit.environments.tree import File, Tree

    Said = Callable[[str, str], None]

_TIMEOUT_S = 900
_SITE = "[mkl]\nlibrary_dirs = {libraries}\ninclude_dirs = {headers}\nlibraries = mkl_rt\n"
_RPATH = "$ORIGIN/../../.."
_TOOLS = ("setuptools>65.5", "wheel")
_SOURCE = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation")


def with_vml(tree: Tree, *, scratch: Path, cache_dir: Path, said: Said) -> Tree:
    """Return a tree whose numexpr uses MKL's vector library; the tree as it is, and why, where none can be made.

    The compiled wheel is kept in `cache_dir`: it is made once for each version of Python, NumPy, MKL and numexpr.
    """
    versions = {package.name: package for package in tree.packages}
    package = versions.get("numexpr")
    if package is None or package.kind != "wheel":
        return tree
    kept = cache_dir / "numexpr" / f"{key(tree)}.whl"
    if not kept.is_file():
        missing = _missing(tree)
        if missing:
            said("linking", f"numexpr stays without MKL's vector library: {missing}")
            return tree
        said("compiling", f"numexpr {package.version} with MKL's vector library, once: about half a minute")
        failure = _compile(tree, versions, kept)
        if failure:
            said("linking", f"numexpr stays without MKL's vector library: {failure}")
            return tree
    said("linking", f"numexpr {package.version} to MKL's vector library")
    return _replaced(tree, kept, scratch)


def key(tree: Tree) -> str:
    """Return what names a compiled wheel: the versions of Python, MKL, numexpr and NumPy."""
    versions = {package.name: package.version for package in tree.packages}
    parts = [tree.minor, *(f"{name}={versions.get(name)}" for name in ("mkl", "numexpr", "numpy"))]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]


def _missing(tree: Tree) -> str:
    """Say what is missing to compile it here; empty where nothing is."""
    if shutil.which("g++") is None:
        return "there is no g++ here (install the package g++ and build again)"
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if tree.minor != ours:
        return f"it would be compiled for Python {ours}, and the environment has {tree.minor}"
    return ""


def _compile(tree: Tree, packages: dict[str, LockedPackage], kept: Path) -> str:
    """Make the wheel in an environment of its own and keep it; return why it failed, empty where it did not."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="numexpr-", dir=kept.parent) as name:
        work = Path(name)
        python = work / "venv" / "bin" / "python"
        mkl, numpy, wanted = packages["mkl"].version, packages["numpy"].version, packages["numexpr"].version
        tools = [f"numpy=={numpy}", f"mkl-include=={mkl}", *_TOOLS]
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
        failure = (
            _failure([sys.executable, "-m", "venv", "--without-pip", str(work / "venv")])
            or _failure([*pip, "install", "-q", *tools])
            or _failure([*pip, "download", "-q", *_SOURCE, "-d", str(work), f"numexpr=={wanted}"])
        )
        if failure:
            return failure
        source = _unpacked(work)
        _point_to_mkl(tree, source, work)
        failure = _failure([str(python), "setup.py", "-q", "bdist_wheel", "-d", str(work / "made")], cwd=source)
        made = next(iter((work / "made").glob("*.whl")), None)
        if made is None:
            return failure or "no wheel was made"
        made.replace(kept)
    return ""


def _failure(argv: list[str], *, cwd: Path | None = None) -> str:
    try:
        done = processes.run(argv, timeout_s=_TIMEOUT_S, cwd=cwd)
    except (OSError, TimeoutError) as exc:
        return str(exc)
    return done.last_lines(5) if done.exit_code else ""


def _unpacked(work: Path) -> Path:
    archive = next(work.glob("numexpr-*.tar.gz"))
    shutil.unpack_archive(archive, work / "source", filter="data")
    return next((work / "source").iterdir())


def _point_to_mkl(tree: Tree, source: Path, work: Path) -> None:
    """Tell numexpr's build where MKL is: its library by the name that linkers look for, its headers, its place."""
    libraries = work / "lib"
    libraries.mkdir()
    for file in tree.files:
        name = file.path.removeprefix("lib/")
        if name.startswith("libmkl_rt.so") and isinstance(file.source, Path):
            (libraries / name).symlink_to(file.source.resolve())
            with contextlib.suppress(FileExistsError):
                (libraries / "libmkl_rt.so").symlink_to(name)
    site = _SITE.format(libraries=libraries, headers=work / "venv" / "include")
    (source / "site.cfg").write_text(site)
    (source / "setup.cfg").open("a").write(f"\n[build_ext]\nrpath = {_RPATH}\n")


def _replaced(tree: Tree, wheel: Path, scratch: Path) -> Tree:
    """Return a tree in which a wheel's files have taken the place of those with the same names."""
    edit = Edit(tree, scratch)
    known: dict[str, File] = {file.path: file for file in tree.files}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = f"{tree.site_packages}/{name}"
            if name.endswith(".so"):
                edit.put(path, archive.read(name), package="numexpr", mode=0o755)
            elif ".dist-info/" not in name and path in known:
                edit.change(known[path], archive.read(name))
    return edit.made()
