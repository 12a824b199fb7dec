"""Settings: layered, resolved once, frozen; each value knows where it was written.

The layers, the most important first: flags (or keyword arguments), `CLUSTERKIT_` variables, `clusterkit.toml` of the
nearest directory upward, the user's file, `/etc/clusterkit/clusterkit.toml`, the default. Tables merge, lists replace.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import platformdirs

from clusterkit.errors import SettingsError
from clusterkit.settings import layers
from clusterkit.settings.layers import Leaf, Origin
from clusterkit.settings.table import TABLE, Setting
from clusterkit.specs.environment import EnvironmentSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TABLE", "Leaf", "Origin", "Setting", "Settings", "load"]


class Executor(msgspec.Struct, frozen=True, kw_only=True):
    """Executors; None leaves the choice to Spark, or to what the cluster can give."""

    count: int | None = None
    memory: int | None = None
    cores: int | None = None


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """The driver; memory in MiB."""

    memory: int | None = None


class Spark(msgspec.Struct, frozen=True, kw_only=True):
    """Spark itself."""

    conf: Mapping[str, str] = {}
    home: Path | None = None


class NamedCluster(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster that settings name."""

    conf_dir: Path


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, resolved; memory in MiB, paths absolute.

    Examples
    --------
    >>> settings = load(keywords={"executor_memory": "4 GiB"}, environ={})
    >>> settings.executor.memory, str(settings.origin("executor.memory"))
    (4096, 'executor_memory=')
    """

    cluster: str | None
    clusters: Mapping[str, NamedCluster]
    deploy_mode: str
    queue: str
    name: str | None
    executor: Executor
    driver: Driver
    dynamic_allocation: bool | None
    properties_file: Path | None
    py_files: tuple[str, ...]
    files: tuple[str, ...]
    jars: tuple[str, ...]
    packages: tuple[str, ...]
    archives: tuple[str, ...]
    env_vars: Mapping[str, str]
    spark: Spark
    principal: str | None
    keytab: Path | None
    java_home: Path | None
    hdfs_root: str
    cache_dir: Path
    data_dir: Path
    env: str | None
    blas: str | None
    environments: Mapping[str, EnvironmentSpec]
    transport: str
    node_cache: str
    kernelspecs: Mapping[str, Any]
    leaves: tuple[Leaf, ...] = ()

    def origin(self, key: str) -> Origin:
        """Return where a key was set; for a table, where its most important entry was."""
        keys = tuple(key.split("."))
        found = [leaf.origin for leaf in self.leaves if leaf.key == key or leaf.path[: len(keys)] == keys]
        return found[-1] if found else Origin("default")


def load(
    flags: Mapping[str, object] | None = None,
    *,
    keywords: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """Read every layer and resolve it.

    Parameters
    ----------
    flags : mapping of str to object, optional
        Options of a command line by dotted key, as text; None where absent.
    keywords : mapping of str to object, optional
        Keyword arguments from Python (`executor_memory`); None where absent.
    environ : mapping of str to str, optional
        Where `CLUSTERKIT_` variables are looked up; the process's environment when absent.
    directory : Path, optional
        Where the search for `clusterkit.toml` begins; the working directory when absent.

    Raises
    ------
    SettingsError
        If a file, key or variable is unknown or its value cannot be read; it names the place.
    """
    base = _working_directory() if directory is None else directory.absolute()
    given = chain(
        layers.from_files(base),
        layers.from_environment(os.environ if environ is None else environ, base),
        layers.from_keywords(keywords or {}, base),
        layers.from_flags(flags or {}, base),
    )
    return _resolved([*_defaults(), *given])


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as exc:
        why = "the working directory was removed"
        raise SettingsError("no settings were read", why=why, mend="`cd` to a directory that exists") from exc


def _defaults() -> Iterator[Leaf]:
    directories = {
        "cache_dir": platformdirs.user_cache_path("clusterkit"),
        "data_dir": platformdirs.user_data_path("clusterkit"),
    }
    for setting in TABLE:
        if not setting.open and not setting.file_only:
            yield Leaf(setting, setting.path, directories.get(setting.key, setting.default), Origin("default"))


def _resolved(leaves: list[Leaf]) -> Settings:
    """Let each leaf replace those before it at the same path, and build the tree."""
    last: dict[tuple[str, ...], Leaf] = {}
    for leaf in leaves:
        last.pop(leaf.path, None)
        last[leaf.path] = leaf
    tree: dict[str, Any] = {
        "clusters": {},
        "environments": {},
        "kernelspecs": {},
        "env_vars": {},
        "spark": {"conf": {}},
    }
    for leaf in last.values():
        _put(tree, leaf.path, leaf.value)
    tree["executor"] = Executor(**tree["executor"])
    tree["driver"] = Driver(**tree["driver"])
    tree["spark"] = Spark(**tree["spark"])
    tree["environments"] = {name: EnvironmentSpec(name=name, **named) for name, named in tree["environments"].items()}
    tree["clusters"] = {name: NamedCluster(**named) for name, named in tree["clusters"].items()}
    return Settings(**tree, leaves=tuple(last.values()))


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set one value; where a less important layer had a value, a table of a more important one replaces it."""
    for name in path[:-1]:
        if not isinstance(tree.get(name), dict):
            tree[name] = {}
        tree = tree[name]
    tree[path[-1]] = value
