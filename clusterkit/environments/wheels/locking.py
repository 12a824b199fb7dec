"""What is asked for, solved: every wheel with its version, tags and hash."""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import msgspec

from clusterkit.environments import interpreter
from clusterkit.environments.code import normalised
from clusterkit.environments.lock import Lock, LockedPackage
from clusterkit.environments.wheels import installed, pip, pylock, pythons, venvs
from clusterkit.errors import ImageError, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from clusterkit.environments.interpreter import Interpreter
    from clusterkit.specs.environment import EnvironmentSpec

    Said = Callable[[str, str], None]

INTEL = {
    "fft": ("mkl_fft", "mkl-service"),
    "random": ("mkl_random",),
    "umath": ("mkl_umath",),
    "sklearn": ("scikit-learn-intelex",),
}
"""The wheels that each acceleration needs; mkl_fft does not name mkl-service, and needs it for scipy.fft."""

IN_PLACE = frozenset({"venv", "interpreter"})
"""The kinds of sources that are read where they are, and are never written to."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of pip, and what is known without it."""

    arguments: tuple[str, ...]
    cwd: Path
    known: tuple[LockedPackage, ...] = ()


def lock(spec: EnvironmentSpec, *, cache_dir: Path, said: Said | None = None) -> Lock:
    """Solve an environment of wheels, or say what is installed in one.

    Parameters
    ----------
    spec : EnvironmentSpec
        A `requirements.txt`, a project, packages, a virtual environment, or the running interpreter.
    cache_dir : Path
        Where a pip is put if there is none.
    said : callable, optional
        Told a stage and its detail.

    Raises
    ------
    SpecError
        If its Python is not on this machine, or the source is of another kind.
    ImageError
        If it cannot be solved, or a package cannot be locked.
    """
    told = said or _silent
    if spec.kind in IN_PLACE:
        return installed_lock(spec)
    base = pythons.find(spec.python)
    what = f"the environment {spec.name} cannot be solved"
    question = _question(spec, base, told)
    told("resolving", f"{len(question.arguments)} requirements for Python {base.version}")
    found = list(question.known)
    if question.arguments:
        found = _merged(found, solved(base, question.arguments, question.cwd, pins(found), what, cache_dir))
    added = intels(spec, found, base.platform, told)
    if added:
        told("resolving", f"{', '.join(added)} for {spec.blas or 'acceleration'}")
        found = _merged(found, solved(base, added, question.cwd, pins(found), what, cache_dir))
    told("locked", f"{len(found)} packages")
    return _lock(spec, base, found)


def request(spec: EnvironmentSpec) -> str:
    """Return the digest of what is asked for: the same question has the same answer until it is asked anew."""
    texts = [path.read_text("utf-8", "replace") for path in _files(spec)]
    python = spec.python or ".".join(map(str, sys.version_info[:3]))
    source = str(spec.source.absolute()) if spec.source else ""
    asked = [spec.kind, source, texts, spec.packages, python, spec.blas or "", sorted(spec.accelerate)]
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()


def drift(wanted: Lock, found: Lock) -> list[str]:
    """Return how what is installed differs from a lock, a sentence for each package; nothing where it does not.

    Parameters
    ----------
    wanted : Lock
        What was locked.
    found : Lock
        What is installed, or what the same question is answered with today.
    """
    was = {package.name: package for package in wanted.packages if package.kind == "wheel"}
    now = {package.name: package for package in found.packages if package.kind == "wheel"}
    lines = [] if wanted.python == found.python else [f"Python {wanted.python} was locked, {found.python} is there"]
    lines += [] if wanted.platform == found.platform else [f"it was locked for {wanted.platform}, not {found.platform}"]
    return [*lines, *(line for name in sorted({*was, *now}) if (line := _difference(was.get(name), now.get(name))))]


def _difference(was: LockedPackage | None, now: LockedPackage | None) -> str:
    if was is None:
        return f"{now.name} {now.version} was not locked" if now else ""
    if now is None:
        return f"{was.name} {was.version} was locked, and is missing"
    if installed.EDITABLE in {was.build, now.build}:
        return "" if was.build == now.build else f"{was.name} was locked as {was.build}, {now.build} is there"
    return _other_version(was, now)


def _other_version(was: LockedPackage, now: LockedPackage) -> str:
    """Return how two wheels of one name differ; a build from source has the tags of where it was built."""
    if was.version != now.version:
        return f"{was.name} {was.version} was locked, {now.version} is there"
    if was.build != now.build and was.build and now.build and "sdist" not in {was.build, now.build}:
        return f"{was.name} {was.version} was locked as {was.build}, {now.build} is there"
    is_of_one_kind = bool(was.url) == bool(now.url)
    if is_of_one_kind and was.sha256 != now.sha256:
        return f"{was.name} {was.version} has another content than the one that was locked"
    return ""


def installed_lock(spec: EnvironmentSpec) -> Lock:
    """Return what is installed in an environment that is read where it is."""
    venv = venvs.find(spec.source)
    found: dict[str, LockedPackage] = {}
    for site in venv.sites:
        for each in installed.distributions(site.packages):
            found.setdefault(each.name, each.locked(venv.base.platform))
    return _lock(spec, venv.base, [interpreter.locked(venv.base), *found.values()])


def _silent(_stage: str, _detail: str) -> None: ...


def _lock(spec: EnvironmentSpec, base: Interpreter, found: Iterable[LockedPackage]) -> Lock:
    return Lock(
        kind="wheels",
        platform=base.platform,
        python=base.version,
        request="" if spec.kind in IN_PLACE else request(spec),
        packages=tuple(sorted(found, key=lambda package: package.name)),
    )


def _question(spec: EnvironmentSpec, base: Interpreter, said: Said) -> _Question:
    source = spec.source
    if spec.kind == "packages":
        return _Question(spec.packages, Path.cwd())
    if source is None or spec.kind not in {"requirements", "project"}:
        raise SpecError(
            f"the environment {spec.name} is not made of wheels",
            why=f"its source is of the kind {spec.kind}",
            mend="name a requirements.txt, a pyproject.toml, or a virtual environment as its source",
            key="source",
        )
    if spec.kind == "requirements":
        return _Question(("-r", str(source.absolute()), *spec.packages), source.absolute().parent)
    project = (source if source.is_dir() else source.parent).absolute()
    if (project / "uv.lock").is_file():
        return _Question(spec.packages, project, tuple(pylock.packages(project, base)))
    return _of_project(project, spec, said)


def _of_project(project: Path, spec: EnvironmentSpec, said: Said) -> _Question:
    """Return the requirements of a project without a lock: read where they are written, built where they are not."""
    path = project / "pyproject.toml"
    try:
        told = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as exc:
        raise SpecError(
            f"{path} cannot be read", why=str(exc), mend="check the file: `pip install -e .` reads it too", key="source"
        ) from exc
    metadata = told.get("project", {})
    dynamic = set(metadata.get("dynamic", ()))
    if "name" not in metadata or dynamic & {"dependencies", "version"}:
        return _Question(("-e", str(project), *spec.packages), project)
    own = pylock.editable(normalised(metadata["name"]), metadata.get("version", "0"), project)
    if "build-system" not in told and not (project / "setup.py").is_file():
        said("resolving", f"{path} has no [build-system]: modules of {own.name} are packed only if `local` names them")
        return _Question((*metadata.get("dependencies", ()), *spec.packages), project)
    return _Question((*metadata.get("dependencies", ()), *spec.packages), project, (own,))


def solved(
    base: Interpreter, arguments: Sequence[str], cwd: Path, pinned: str, what: str, cache_dir: Path
) -> list[LockedPackage]:
    """Return what pip would install, with the versions that are pinned."""
    with tempfile.TemporaryDirectory(prefix="clusterkit-lock-") as scratch:
        constraints = Path(scratch, "constraints.txt")
        constraints.write_text(pinned, "utf-8")
        options = ["-c", str(constraints)] if pinned else []
        found = pip.report(base.executable, [*options, *arguments], cwd=cwd, what=what, cache_dir=cache_dir)
    return [_reported(each, base.platform) for each in found]


def _reported(told: dict[str, Any], platform: str) -> LockedPackage:
    """Return a package of pip's report."""
    name, version = normalised(told["metadata"]["name"]), told["metadata"]["version"]
    info = told["download_info"]
    path = Path(unquote(urlparse(info["url"]).path))
    if "dir_info" in info:
        return pylock.editable(name, version, path)
    if "vcs_info" in info:
        raise pylock.without_a_hash(name, info["url"])
    hashes = info.get("archive_info", {}).get("hashes", {})
    if "sha256" not in hashes:
        raise ImageError(
            f"{name} {version} cannot be locked",
            why=f"the index gives no sha256 of {path.name}",
            mend="download it (`pip download`) into a folder that pip's `find-links` names, or use an index that does",
        )
    tags = pylock.wheel_tags(path.name) if path.suffix == ".whl" else "sdist"
    return LockedPackage(
        name=name,
        version=version,
        kind="wheel",
        build=tags,
        sha256=hashes["sha256"],
        subdir=installed.subdir(tags, platform),
        url=f"{info['url']}#sha256={hashes['sha256']}" if told.get("is_direct") else info["url"],
    )


def _merged(first: Iterable[LockedPackage], second: Iterable[LockedPackage]) -> list[LockedPackage]:
    return list({package.name: package for package in (*second, *first)}.values())


def pins(found: Iterable[LockedPackage]) -> str:
    """Return constraints that keep packages at the versions they have."""
    wheels = (each for each in found if each.kind == "wheel" and each.build != installed.EDITABLE)
    return "".join(f"{each.name}=={each.version}\n" for each in wheels)


def intels(spec: EnvironmentSpec, found: Sequence[LockedPackage], platform: str, said: Said) -> list[str]:
    """Return the wheels of Intel's that are asked for and not there yet."""
    wanted = ["mkl"] if spec.blas in {"mkl", "auto"} else []
    wanted += [wheel for each in spec.accelerate for wheel in INTEL[each]]
    there = {package.name for package in found}
    if not wanted:
        return []
    if platform != "linux-64":
        said("resolving", f"{platform} keeps OpenBLAS: Intel's libraries are for x86-64 alone")
        return []
    if "numpy" not in there:
        said("resolving", "without NumPy there is nothing for MKL to do: it is not added")
        return []
    return [each for each in wanted if normalised(each) not in there]


def _files(spec: EnvironmentSpec) -> list[Path]:
    """Return the files that the answer depends on: also those that a requirements.txt includes."""
    source = spec.source
    if source is None or spec.kind not in {"requirements", "project"}:
        return []
    if spec.kind == "project":
        project = source if source.is_dir() else source.parent
        return [path for path in (project / "pyproject.toml", project / "uv.lock") if path.is_file()]
    found: dict[Path, None] = {}
    queue = [source.absolute()]
    while queue:
        path = queue.pop()
        if path in found or not path.is_file():
            continue
        found[path] = None
        included = re.findall(
            r"^\s*(?:-r|-c|--requirement|--constraint)[ =]*(\S+)", path.read_text("utf-8", "replace"), re.MULTILINE
        )
        queue += [path.parent / each for each in included]
    return list(found)
