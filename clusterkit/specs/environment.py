"""An environment: where its packages come from, and what is added to them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from clusterkit.errors import SpecError
from clusterkit.nearest import suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

SourceKind = Literal["environment.yml", "prefix", "requirements", "project", "venv", "interpreter", "packages"]
Acceleration = Literal["fft", "random", "umath", "sklearn"]


class EnvironmentSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One environment; `[environments.NAME]` of clusterkit.toml, or a YAML file.

    Parameters
    ----------
    name : str
        Its name.
    source : Path or None
        An `environment.yml`, a conda prefix, a `requirements.txt`, a `pyproject.toml` or its directory, or a virtual
        environment; the running interpreter when absent and no packages are named.
    packages : tuple of str
        Requirements (`numpy>=2`) beside those of the source, or alone.
    channels : tuple of str
        Conda channels, before those of the environment.yml.
    python : str or None
        The Python version, `3.11`; the source's own when absent.
    blas : str or None
        `mkl`, `openblas`, or `auto` (both are carried, the faster one is chosen on each node); as it comes when absent.
    accelerate : tuple of str
        What Intel's libraries shall do besides: `fft`, `random`, `umath`, `sklearn`.
    local : tuple of Path
        Folders and packages of the user's own code, beside editable installs.
    java : bool
        Carry this machine's JDK, for nodes whose own Java is too old.
    slim : bool
        Leave out tests, static libraries and what else no program opens.
    """

    name: str
    source: Path | None = None
    packages: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    python: str | None = None
    blas: Literal["mkl", "openblas", "auto"] | None = None
    accelerate: tuple[Acceleration, ...] = ()
    local: tuple[Path, ...] = ()
    java: bool = False
    slim: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SpecError(
                f"{self.name!r} is no name for an environment",
                why="it has letters, digits, dot, dash and underscore, and at most 64 of them",
                mend="name it otherwise, such as [environments.analysis]",
                key="name",
            )

    @classmethod
    def find(cls, text: str, named: Mapping[str, EnvironmentSpec], directory: Path) -> EnvironmentSpec:
        """Return the environment that a word means: one that settings name, or what lies at a path.

        Parameters
        ----------
        text : str
            A name, or the path of a specification or of a source.
        named : mapping of str to EnvironmentSpec
            `[environments]` of the settings.
        directory : Path
            Where a relative path starts from.

        Raises
        ------
        SpecError
            If it is neither, or what lies there is no environment.
        """
        if text in named:
            return named[text]
        path = directory / Path(text).expanduser()
        if not path.exists():
            known = f"settings know {', '.join(named)}{suggestion(text, named)}" if named else "settings know none"
            raise SpecError(
                f"there is no environment {text}",
                why=f"there is no file or directory {path}, and {known}",
                mend=f"add [environments.{text}] to clusterkit.toml, or name a path",
                key="env",
            )
        return _from_specification(path) if _is_specification(path) else cls(name=_name_of(path), source=path)

    @property
    def kind(self) -> SourceKind:
        """What kind of thing its packages come from.

        Raises
        ------
        SpecError
            If the source is missing, or of none of the known kinds.
        """
        source = self.source
        if source is None:
            return "packages" if self.packages else "interpreter"
        if source.is_dir():
            return _kind_of_directory(source)
        if not source.is_file():
            raise SpecError(
                f"the environment {self.name} cannot be read",
                why=f"{source} does not exist",
                mend="check the path in `source`",
                key="source",
            )
        if source.suffix in {".yml", ".yaml"}:
            return "environment.yml"
        return "project" if source.name == "pyproject.toml" else "requirements"


def _kind_of_directory(source: Path) -> SourceKind:
    if (source / "conda-meta").is_dir():
        return "prefix"
    if (source / "pyvenv.cfg").is_file():
        return "venv"
    if (source / "pyproject.toml").is_file():
        return "project"
    raise SpecError(
        f"{source} is no environment",
        why="it holds neither conda-meta, nor pyvenv.cfg, nor pyproject.toml",
        mend="name a conda prefix, a virtual environment, a project, an environment.yml or a requirements.txt",
        key="source",
    )


def _is_specification(path: Path) -> bool:
    """Whether a file is one of ours: a YAML file whose first level has no `dependencies`, as conda's has."""
    if path.suffix not in {".yml", ".yaml"} or not path.is_file():
        return False
    return re.search(r"^[\"']?dependencies[\"']?\s*:", path.read_text("utf-8", "replace"), re.MULTILINE) is None


def _from_specification(path: Path) -> EnvironmentSpec:
    from clusterkit.specs import codec  # noqa: PLC0415 - the parsers are only needed for a file of its own

    spec = codec.load(EnvironmentSpec, path)
    source = path.parent / spec.source if spec.source is not None else None
    return msgspec.structs.replace(spec, source=source, local=tuple(path.parent / each for each in spec.local))


def _name_of(path: Path) -> str:
    """Return a name for what lies at a path: that of its directory where its own says nothing."""
    absolute = path.absolute()
    generic = {"environment", "requirements", "pyproject", ".venv", "venv", "env"}
    name = absolute.parent.name if absolute.stem in generic or absolute.name in generic else absolute.stem
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("._-")[:40] or "environment"
    return plain if plain == name else f"{plain}-{hashlib.sha256(str(absolute).encode()).hexdigest()[:6]}"
