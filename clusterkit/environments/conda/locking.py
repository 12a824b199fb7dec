"""Solve a conda environment for the nodes, and write down every package of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterkit.environments.conda import installing, pip
from clusterkit.environments.conda.failures import translated
from clusterkit.environments.conda.request import Nodes, Request, digest
from clusterkit.environments.conda.running import client, finished
from clusterkit.environments.lock import Lock, LockedPackage
from clusterkit.errors import ImageError, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.specs.environment import EnvironmentSpec


def lock(
    spec: EnvironmentSpec,
    *,
    cache_dir: Path,
    said: Callable[[str, str], None] | None = None,
    nodes: Nodes | None = None,
) -> Lock:
    """Solve an environment and return its lock.

    What pip shall install is resolved by the pip of the environment itself, so that what conda brings counts as
    installed; pip chooses wheels for this machine, not for `nodes`.

    Parameters
    ----------
    spec : EnvironmentSpec
        The environment: an `environment.yml`, or packages and channels.
    cache_dir : Path
        Where package lists and packages are kept.
    said : callable, optional
        Told of each stage.
    nodes : Nodes or None
        The machines it is solved for; see `Nodes` for what is assumed when absent.

    Raises
    ------
    SpecError
        If the specification cannot be read, or no set of packages fulfils it.
    ImageError
        If a channel cannot be reached or read, or pip does not find what it shall install.
    """
    nodes = nodes or Nodes()
    asked = Request.of(spec, nodes)
    told = said or (lambda _stage, _detail: None)
    if spec.blas in {"mkl", "auto"} and nodes.platform != "linux-64":
        told("warning", f"{spec.name}: there is no MKL for {nodes.platform}, OpenBLAS is used")
    told("solving", f"{len(asked.specs)} packages from {', '.join(asked.channels)}")
    packages = _solved(asked, nodes, cache_dir)
    locked = Lock(
        kind="conda",
        platform=nodes.platform,
        python=_python(packages),
        request=digest(asked, nodes),
        channels=asked.channels,
        packages=packages,
        variables=dict(asked.variables),
    )
    return _with_pip(locked, asked, cache_dir, said) if asked.pip else locked


def _solved(asked: Request, nodes: Nodes, cache_dir: Path) -> tuple[LockedPackage, ...]:
    with translated(asked):
        records = finished(_solve(asked, nodes, cache_dir))
    return tuple(sorted((_locked(record) for record in records), key=lambda package: package.name))


async def _solve(asked: Request, nodes: Nodes, cache_dir: Path) -> list[Any]:
    import rattler  # noqa: PLC0415 - 20 MB of Rust, for those who solve
    from rattler.package import BuildString, PackageName  # noqa: PLC0415
    from rattler.version import Version  # noqa: PLC0415

    gateway = rattler.Gateway(cache_dir=(cache_dir / "conda" / "repodata").absolute(), client=client())
    machine = [
        rattler.GenericVirtualPackage(PackageName(name), Version(version), BuildString(build))
        for name, version, build in nodes.virtual_packages
    ]
    found: list[Any] = await rattler.solve(
        [rattler.Channel(name) for name in asked.channels],
        [rattler.MatchSpec(text) for text in asked.specs],
        gateway=gateway,
        platforms=[nodes.platform, "noarch"],
        virtual_packages=machine,
        constraints=[rattler.MatchSpec(text) for text in asked.constraints],
    )
    return found


def _locked(record: Any) -> LockedPackage:
    name = record.name.normalized
    if not record.sha256:
        raise ImageError(
            f"{name} cannot be locked",
            why=f"the channel {record.channel} gives no SHA-256 for {record.file_name}",
            mend=f"have the channel indexed again (`conda index`), or take {name} from another one",
        )
    return LockedPackage(
        name=name,
        version=str(record.version),
        kind="conda",
        build=str(record.build),
        sha256=record.sha256.hex(),
        subdir=record.subdir,
        url=record.url,
    )


def _python(packages: tuple[LockedPackage, ...]) -> str:
    return next(package.version for package in packages if package.name == "python")


def _with_pip(locked: Lock, asked: Request, cache_dir: Path, said: Callable[[str, str], None] | None) -> Lock:
    import msgspec  # noqa: PLC0415

    if locked.platform != installing.this_platform():
        raise SpecError(
            f"what pip shall install cannot be locked for {locked.platform}",
            why=f"pip resolves for the machine it runs on, and this one is {installing.this_platform()}",
            mend="name conda packages instead of the list `pip:`, or lock on a machine like the nodes",
            key="source",
        )
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix="locking-") as scratch:
        prefix = Path(scratch).resolve() / "prefix"
        installing.lay_out(locked, prefix, cache_dir=cache_dir, said=said)
        if said:
            said("solving", f"{len(asked.pip)} requirements with pip")
        wheels = pip.resolve(prefix, asked)
    return msgspec.structs.replace(locked, packages=tuple(sorted((*locked.packages, *wheels), key=_by_name)))


def _by_name(package: LockedPackage) -> tuple[str, str]:
    return package.name, package.kind
