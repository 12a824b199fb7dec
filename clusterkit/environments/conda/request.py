"""What a conda environment shall hold: channels, match specifications, constraints, and the nodes it is for."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

from clusterkit.errors import SpecError
from clusterkit.specs import environment_yml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterkit.specs.environment import EnvironmentSpec
    from clusterkit.specs.environment_yml import EnvironmentYml

_CHANNEL = "conda-forge"
_TOKEN = re.compile(r"/t/[^/]+/")
_ACCELERATED = {
    "fft": "mkl_fft",
    "random": "mkl_random",
    "umath": "mkl_umath",
    "sklearn": "scikit-learn-intelex",
}


@dataclass(frozen=True, slots=True)
class Nodes:
    """The machines an environment is solved for; they need not be like this one.

    Parameters
    ----------
    platform : str
        `linux-64` or `linux-aarch64`.
    glibc : str
        The oldest glibc among them. The default is that of RHEL 8, which is what conda-forge builds for.
    linux : str
        The oldest kernel among them.
    cpu : str
        The oldest microarchitecture among them, as archspec names it; the default runs everywhere.
    """

    platform: Literal["linux-64", "linux-aarch64"] = "linux-64"
    glibc: str = "2.28"
    linux: str = "4.18"
    cpu: str = ""

    @property
    def virtual_packages(self) -> tuple[tuple[str, str, str], ...]:
        """Name, version and build of the packages that stand for the machine itself (conda's virtual packages)."""
        cpu = self.cpu or {"linux-64": "x86_64", "linux-aarch64": "aarch64"}[self.platform]
        machine = ("__linux", self.linux, "0"), ("__glibc", self.glibc, "0"), ("__archspec", "1", cpu)
        return (("__unix", "0", "0"), *machine)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the solver, and of pip after it.

    Parameters
    ----------
    channels : tuple of str
        Names and URLs, the first one first.
    specs : tuple of str
        What shall be installed.
    constraints : tuple of str
        What holds for a package if anything brings it in.
    pip : tuple of str
        Lines of a requirements file.
    variables : mapping of str to str
        What a process in the environment gets.
    places : mapping of str to str
        Where a specification or requirement is written.
    """

    channels: tuple[str, ...]
    specs: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: EnvironmentSpec, nodes: Nodes) -> Request:
        """Return what an environment's specification asks for.

        Raises
        ------
        SpecError
            If its `environment.yml` cannot be used, or a channel's URL holds a password.
        """
        source = spec.source
        written = environment_yml.load(source) if source else environment_yml.EnvironmentYml(Path(f"[{spec.name}]"))
        specs = dict.fromkeys((*written.dependencies, *spec.packages, *_added(spec, written.pip, nodes.platform)))
        channels = tuple(dict.fromkeys((*spec.channels, *written.channels))) or (_CHANNEL,)
        _check_secrets(channels, written)
        return cls(
            channels=channels,
            specs=tuple(specs),
            constraints=_blas(spec, nodes),
            pip=written.pip,
            variables=written.variables,
            places={entry: written.place(entry) for entry in (*written.dependencies, *written.channels, *written.pip)},
        )


def request(spec: EnvironmentSpec, nodes: Nodes | None = None) -> str:
    """Return the digest of what a specification asks for; a lock that carries another one is out of date.

    Parameters
    ----------
    spec : EnvironmentSpec
        The environment.
    nodes : Nodes or None
        The machines it is for; see `Nodes` for what is assumed when absent.

    Raises
    ------
    SpecError
        If its `environment.yml` cannot be used.
    """
    return digest(Request.of(spec, nodes or Nodes()), nodes or Nodes())


def digest(asked: Request, nodes: Nodes) -> str:
    """Return the digest of a request; where an entry is written is of no account, what an included file holds is."""
    files = [Path(line.removeprefix("-c ")) for line in asked.pip]
    included = [
        hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_absolute() and file.is_file()
    ]
    known = [asked.channels, asked.specs, asked.constraints, asked.pip, included, dict(asked.variables), asdict(nodes)]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _check_secrets(channels: tuple[str, ...], written: EnvironmentYml) -> None:
    """Refuse what would be written into every lock and manifest."""
    for channel in channels:
        parts = urlsplit(channel)
        token = _TOKEN.search(parts.path)
        if not token and parts.password is None:
            continue
        host = parts.hostname or "HOST"
        shown = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=_TOKEN.sub("/", parts.path)))
        raise SpecError(
            f"the channel {shown} cannot be used as it is written",
            why="its URL holds a password or token, which would be in every lock and every image",
            mend=f"write {shown}, and put the login into ~/.netrc (machine {host} login NAME password SECRET), or a "
            "token into the file that RATTLER_AUTH_FILE names",
            key="channels",
            place=written.place(channel) if channel in written.lines else None,
        )


def _added(spec: EnvironmentSpec, pip: tuple[str, ...], platform: str) -> tuple[str, ...]:
    python = "python" if spec.python is None else f"python {spec.python.rstrip('.*')}.*"
    accelerated = (_ACCELERATED[name] for name in spec.accelerate if platform == "linux-64")
    return (python, *(["pip"] if pip else ()), *accelerated)


def _blas(spec: EnvironmentSpec, nodes: Nodes) -> tuple[str, ...]:
    """Return what pins the BLAS behind NumPy: conda-forge's `libblas` by its build, Anaconda's `blas` likewise."""
    wanted = "openblas" if nodes.platform != "linux-64" and spec.blas else spec.blas
    if wanted is None:
        return ()
    name = "mkl" if wanted == "auto" else wanted
    return (f"libblas * *{name}", f"blas * *{name}")
