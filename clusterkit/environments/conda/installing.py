"""Install a locked conda environment, to the byte."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from clusterkit import processes
from clusterkit.environments.conda import inventory, pip
from clusterkit.environments.conda.failures import drifted, installed
from clusterkit.environments.conda.ownership import source_of
from clusterkit.environments.conda.records import installed_wheels, records
from clusterkit.environments.conda.running import client, finished
from clusterkit.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clusterkit.environments.lock import Lock, LockedPackage

_LONGEST_PREFIX = 255
_COMPILING_S = 900.0
UNFINISHED = "conda-meta/clusterkit-unfinished"
"""The file that lies in a prefix while it is being installed."""


def install(lock: Lock, prefix: Path, *, cache_dir: Path, said: Callable[[str, str], None] | None = None) -> None:
    """Install a lock into a prefix; one that holds it already is left as it is, one that was left unfinished is redone.

    Parameters
    ----------
    lock : Lock
        What is installed.
    prefix : Path
        Where; nothing, or what an earlier call made.
    cache_dir : Path
        Where packages are kept; files of the prefix are hard links into it.
    said : callable, optional
        Told of each stage.

    Raises
    ------
    ImageError
        If a package is not the one that was locked, cannot be fetched, or the prefix holds something else.
    """
    prefix = prefix.absolute()
    if not _prepared(lock, prefix):
        return
    lay_out(lock, prefix, cache_dir=cache_dir, said=said)
    wheels = [package for package in lock.packages if package.kind == "wheel"]
    if wheels:
        pip.install(prefix, wheels)
    _compile(prefix)
    if lock.variables:
        _remember(prefix, lock)
    _check_installed(lock, prefix)
    (prefix / UNFINISHED).unlink()


def lay_out(lock: Lock, prefix: Path, *, cache_dir: Path, said: Callable[[str, str], None] | None = None) -> None:
    """Put the conda packages of a lock into a prefix, and nothing more; see `install`."""
    _check_local(lock.packages)
    if said:
        said("installing", f"{len(lock.packages)} packages")
    with installed(lock):
        finished(_install(lock, prefix, cache_dir, said))


def drift(lock: Lock, prefix: Path) -> tuple[str, ...]:
    """Return in what a prefix differs from a lock, a sentence for each package; nothing where it is the same.

    Raises
    ------
    ImageError
        If the prefix is no conda environment.
    """
    conda = records(prefix)
    there = {record.name: (record.version, record.build, record.sha256) for record in conda}
    wheels = {wheel.name: wheel.version for wheel in installed_wheels(prefix, conda, lock.platform)}
    found = []
    for package in lock.packages:
        wanted = (package.version, package.build, package.sha256)
        if package.kind == "wheel" and wheels.get(package.name) != package.version:
            found.append(_differs(package, wheels.get(package.name, "")))
        elif package.kind == "conda" and there.get(package.name, ("", "", "")) != wanted:
            found.append(_differs(package, " ".join(there.get(package.name, ()))))
    locked = {package.name for package in lock.packages}
    found += [
        f"{name} {version} is installed, and not in the lock"
        for name, (version, *_) in there.items()
        if name not in locked
    ]
    return tuple(found)


def this_platform() -> str:
    """Return conda's name of this machine: `linux-64`, `linux-aarch64`."""
    machine = os.uname().machine
    return "linux-64" if machine == "x86_64" else f"linux-{machine}"


def _prepared(lock: Lock, prefix: Path) -> bool:
    """Make an empty prefix; say False where there is nothing left to do."""
    if len(os.fsencode(prefix)) > _LONGEST_PREFIX:
        raise ImageError(
            "the environment was not installed",
            why=f"{prefix} is longer than the {_LONGEST_PREFIX} bytes that conda packages leave for a prefix",
            mend="choose a shorter cache directory (setting cache_dir)",
        )
    if (prefix / UNFINISHED).exists():
        shutil.rmtree(prefix)
    elif (prefix / "conda-meta").is_dir() and not drift(lock, prefix):
        return False
    elif prefix.exists() and any(prefix.iterdir()):
        raise ImageError(
            "the environment was not installed",
            why=f"{prefix} holds something else",
            mend=f"remove {prefix}, or choose another directory",
        )
    (prefix / UNFINISHED).parent.mkdir(parents=True)
    (prefix / UNFINISHED).touch()
    return True


async def _install(lock: Lock, prefix: Path, cache_dir: Path, said: Callable[[str, str], None] | None) -> None:
    import rattler  # noqa: PLC0415 - 20 MB of Rust, for those who install

    packages = [_record(package) for package in lock.packages if package.kind == "conda"]
    await rattler.install(
        packages,
        target_prefix=prefix,
        cache_dir=(cache_dir / "conda" / "packages").absolute(),
        execute_link_scripts=True,  # as conda does: the certificates, fonts and data of some packages are made by them
        show_progress=False,
        client=client(),
        reporter=_reporter(said) if said else None,
    )


def _record(package: LockedPackage) -> Any:
    import rattler  # noqa: PLC0415
    from rattler.package import BuildString  # noqa: PLC0415

    channel, _, file = package.url.rpartition("/")
    described = rattler.PackageRecord(
        package.name,
        package.version,
        BuildString.new_unchecked(package.build),
        _build_number(package.build),
        package.subdir,
        sha256=bytes.fromhex(package.sha256),
    )
    return rattler.RepoDataRecord(described, file, package.url, channel.removesuffix(package.subdir))


def _build_number(build: str) -> int:
    number = build.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0


def _compile(prefix: Path) -> None:
    """Compile what no package brings byte code for: on a node nobody may write beside it, and each start would compile.

    rattler leaves it out, and pip would name this prefix in it. Byte code that does so no more, and does not ask for
    its source's time, is right wherever it is unpacked.
    """
    there = inventory.take(prefix).files
    compiled = {source_of(path) for path in there if path.endswith(".pyc")}
    sources = [
        path for path in there if path.endswith(".py") and path.startswith("lib/python") and path not in compiled
    ]
    python, names = str(prefix / "bin" / "python"), "".join(f"{prefix / path}\n" for path in sources)
    argv = [python, "-I", "-B", "-m", "compileall", "-q", "-j", "0", "-s", str(prefix), "-p", "/"]
    argv += ["--invalidation-mode", "unchecked-hash", "-i", "-"]
    if sources and Path(python).exists():
        processes.run(argv, timeout_s=_COMPILING_S, stdin=names)  # what is no Python of this version is not compiled


def _reporter(said: Callable[[str, str], None]) -> Any:
    from rattler.install.installer import InstallerReporter  # noqa: PLC0415

    def fetching(_: object, operation: int, package_name: str) -> int:
        said("fetching", package_name)
        return operation

    return type("Reporter", (InstallerReporter,), {"on_populate_cache_start": fetching})()


def _check_local(packages: Iterable[LockedPackage]) -> None:
    """Check the packages of `file://` channels: rattler checks what it downloads, and these as they are it installs."""
    for package in packages:
        if package.kind != "conda" or not package.url.startswith("file:"):
            continue
        file = Path(unquote(urlsplit(package.url).path))
        try:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as exc:
            raise ImageError(
                f"{package.name} was not installed",
                why=f"{file} cannot be read: {exc.strerror}",
                mend="bring the channel's folder back, or lock the environment anew with `clusterkit env lock`",
            ) from exc
        if digest != package.sha256:
            raise drifted(package, f"{file} has the SHA-256 {digest}, the lock has {package.sha256}")


def _check_installed(lock: Lock, prefix: Path) -> None:
    differences = drift(lock, prefix)
    if differences:
        raise ImageError(
            "the environment that was installed is not the one that was locked",
            why="\n".join(differences[:5]),
            mend=f"remove {prefix} and the packages in the cache, and build again",
        )


def _differs(package: LockedPackage, there: str) -> str:
    if not there:
        return f"{package.name} {package.version} is in the lock, and not installed"
    wanted = f"{package.version} {package.build} {package.sha256}" if package.kind == "conda" else package.version
    return f"{package.name} is {there}, and {wanted} in the lock"


def _remember(prefix: Path, lock: Lock) -> None:
    """Write the variables where conda keeps them (`conda env config vars`)."""
    state = prefix / "conda-meta" / "state"
    state.write_text(json.dumps({"version": 1, "env_vars": dict(lock.variables)}), encoding="utf-8")
