"""A project's `uv.lock`, for one Python and platform: which wheels it means."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from clusterkit import processes
from clusterkit.environments.code import normalised
from clusterkit.environments.lock import LockedPackage
from clusterkit.environments.wheels import installed
from clusterkit.environments.wheels.pythons import uv_program
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterkit.environments.interpreter import Interpreter


def packages(project: Path, base: Interpreter) -> list[LockedPackage]:
    """Return the packages that a project's `uv.lock` names for a Python, without its development groups.

    Parameters
    ----------
    project : Path
        The directory of `pyproject.toml` and `uv.lock`; nothing is asked of the network.
    base : Interpreter
        The Python and platform.

    Raises
    ------
    ImageError
        If uv is not there or refuses the file, or a package has no wheel for this Python.

    References
    ----------
    PEP 751 (pylock.toml), as `uv export --format pylock.toml` writes it.
    """
    told = tomllib.loads(_exported(project))
    rank = {tag: index for index, tag in enumerate(_tags(base))}
    environment = _environment(base)
    return [_package(each, project, base, rank) for each in told.get("packages", ()) if _applies(each, environment)]


def _exported(project: Path) -> str:
    uv = uv_program()
    if uv is None:
        raise ImageError(
            f"the lock of {project} cannot be read",
            why="uv, which wrote uv.lock, is not installed",
            mend="install it with `pip install 'clusterkit[env]'`",
        )
    options = ["--frozen", "--offline", "--no-dev", "--no-header", "--format", "pylock.toml"]
    done = processes.run([uv, "export", *options], timeout_s=120, cwd=project)
    if done.exit_code != 0:
        raise ImageError(
            f"the lock of {project} cannot be read", why=done.last_lines(4), mend="write it anew with `uv lock`"
        )
    return done.stdout


def _applies(package: dict[str, Any], environment: dict[str, str]) -> bool:
    from packaging.markers import Marker  # noqa: PLC0415 - only where something is locked

    return "marker" not in package or Marker(package["marker"]).evaluate(environment)


def _environment(base: Interpreter) -> dict[str, str]:
    machine = "x86_64" if base.platform == "linux-64" else "aarch64"
    return {
        "python_version": base.minor,
        "python_full_version": base.version,
        "implementation_version": base.version,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": machine,
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_system": "Linux",
        "extra": "",
    }


def _tags(base: Interpreter) -> Iterator[str]:
    """Yield the tags of the wheels that a Python takes, best first."""
    from packaging import tags  # noqa: PLC0415

    version = tuple(map(int, base.minor.split(".")))
    platforms = list(tags.platform_tags())
    yield from map(str, tags.cpython_tags(version, platforms=platforms))
    yield from map(str, tags.compatible_tags(version, f"cp{base.minor.replace('.', '')}", platforms))


def _package(told: dict[str, Any], project: Path, base: Interpreter, rank: dict[str, int]) -> LockedPackage:
    name, version = normalised(told["name"]), told.get("version", "0")
    if "directory" in told:
        folder = (project / told["directory"]["path"]).resolve()
        return editable(name, told.get("version") or _version(folder), folder)
    if "vcs" in told:
        raise without_a_hash(name, told["vcs"].get("url", "a repository"))
    wheel = min(told.get("wheels", ()), key=lambda each: _rank(each, rank), default=None)
    if wheel is not None and _rank(wheel, rank) < len(rank):
        return _locked(name, version, wheel, wheel_tags(_file_name(wheel)), base.platform)
    archive = told.get("archive") or told.get("sdist")
    if archive is None:
        raise ImageError(
            f"{name} {version} cannot be installed",
            why=f"the lock names no wheel of it for Python {base.minor} on {base.platform}, and no source",
            mend=f"choose another Python with the key `python`, or another version: `uv add {name}`",
        )
    file = _file_name(archive)
    tags = wheel_tags(file) if file.endswith(".whl") else "sdist"
    return _locked(name, version, archive, tags, base.platform, is_direct="archive" in told)


def _locked(
    name: str, version: str, file: dict[str, Any], tags: str, platform: str, *, is_direct: bool = False
) -> LockedPackage:
    sha256 = file["hashes"]["sha256"]
    url = file.get("url") or Path(file["path"]).absolute().as_uri()
    return LockedPackage(
        name=name,
        version=version,
        kind="wheel",
        build=tags,
        sha256=sha256,
        subdir=installed.subdir(tags, platform),
        url=f"{url}#sha256={sha256}" if is_direct else url,
    )


def editable(name: str, version: str, folder: Path) -> LockedPackage:
    """Return the user's own project as a package of a lock: it has no hash, and is packed as code."""
    return LockedPackage(name=name, version=version, kind="wheel", build=installed.EDITABLE, url=folder.as_uri())


def without_a_hash(name: str, url: str) -> ImageError:
    """Return the refusal of a package that comes from a repository."""
    return ImageError(
        f"{name} cannot be locked",
        why=f"it comes from {url}, and what a repository gives has no hash",
        mend=f"build a wheel of it once (`pip wheel --no-deps '{name} @ ...'`) and name the file, "
        "or check it out and install it with -e: it is then packed as code",
    )


def _version(folder: Path) -> str:
    """Return the version that a project says it has; 0 where it is worked out as it is built."""
    try:
        told = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return "0"
    return str(told.get("project", {}).get("version", "0"))


def wheel_tags(file: str) -> str:
    """Return the tags of a wheel's file name: `cp311-cp311-manylinux_2_28_x86_64`."""
    return "-".join(file.removesuffix(".whl").split("-")[-3:])


def _file_name(file: dict[str, Any]) -> str:
    return str(file.get("name") or unquote(urlparse(file.get("url") or file["path"]).path).rpartition("/")[2])


def _rank(wheel: dict[str, Any], rank: dict[str, int]) -> int:
    pythons, abis, platforms = (part.split(".") for part in wheel_tags(_file_name(wheel)).split("-"))
    tags = (f"{python}-{abi}-{platform}" for python in pythons for abi in abis for platform in platforms)
    return min((rank[tag] for tag in tags if tag in rank), default=len(rank))
