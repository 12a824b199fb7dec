"""Which cluster a command is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterkit.embedded.layout import Layout
    from clusterkit.hadoop.cluster import Cluster
    from clusterkit.settings import Settings

    Tell = Callable[[str, str], None]

_EMBEDDED_NAME = "default"


def find_cluster(settings: Settings, *, environ: Mapping[str, str], start: Tell | None = None) -> Cluster:
    """Return the cluster that a command is about.

    It is the one that the setting `cluster` names, else that of `HADOOP_CONF_DIR`, else an embedded cluster that runs,
    else, where `start` is given, one that is started now.

    Parameters
    ----------
    settings : Settings
        The resolved settings.
    environ : mapping of str to str
        The environment, for `HADOOP_CONF_DIR`.
    start : callable, optional
        Allows an embedded cluster to be started, and is told what is being done.

    Raises
    ------
    ClusterError
        If none is found, or the one that is named does not run.
    """
    from clusterkit.hadoop.cluster import Cluster  # noqa: PLC0415 - a command that fails earlier needs none of it

    if settings.cluster is not None:
        return _named(settings, settings.cluster)
    if conf_dir := environ.get("HADOOP_CONF_DIR"):
        found = next((each for each in embedded_layouts(settings) if each.conf == Path(conf_dir).absolute()), None)
        return _cluster_of(found) if found else Cluster.from_directory(conf_dir, Path(conf_dir), environ=environ)
    running = _running(settings)
    if running is None and start is not None:
        start("cluster", f"none is named or running: starting the embedded one, {_EMBEDDED_NAME!r}, on this machine")
        running = _started(settings, start)
    if running is None:
        raise ClusterError(
            "there is no cluster to ask",
            why="no cluster is named, HADOOP_CONF_DIR is not set, and no embedded cluster runs",
            mend="name one with --cluster or HADOOP_CONF_DIR, or start one with `clusterkit cluster up`",
        )
    return _cluster_of(running)


def _named(settings: Settings, name: str) -> Cluster:
    from clusterkit.hadoop.cluster import Cluster  # noqa: PLC0415

    if name in settings.clusters:
        return Cluster.from_directory(name, settings.clusters[name].conf_dir)
    found = next((each for each in embedded_layouts(settings) if each.name == name), None)
    if found is None:
        known = sorted({*settings.clusters, *(each.name for each in embedded_layouts(settings))})
        raise ClusterError(
            f"there is no cluster {name}",
            why=f"settings and this machine know {', '.join(known)}"
            if known
            else "neither settings nor this machine know any cluster",
            mend=f"add [clusters.{name}] with conf_dir to clusterkit.toml, or start an embedded one: "
            f"`clusterkit cluster up --name {name}`",
            cluster=name,
        )
    if not _runs(found):
        raise ClusterError(
            f"the embedded cluster {name} does not run",
            why="none of its daemons is alive",
            mend=f"start it: `clusterkit cluster up --name {name}`",
            cluster=name,
        )
    return _cluster_of(found)


def _cluster_of(layout: Layout) -> Cluster:
    from clusterkit.hadoop.cluster import Cluster  # noqa: PLC0415

    return Cluster.from_directory(layout.name, layout.conf, embedded=True)


def _started(settings: Settings, start: Tell) -> Layout:
    from clusterkit.embedded.cluster import EmbeddedCluster  # noqa: PLC0415 - heavy, and only to start one

    embedded = EmbeddedCluster(
        _EMBEDDED_NAME, data_dir=settings.data_dir, cache_dir=settings.cache_dir, java_home=settings.java_home
    )
    embedded.up(said=start)
    return embedded.layout


def embedded_layouts(settings: Settings) -> list[Layout]:
    """Return where the embedded clusters of this machine lie, the default one first."""
    from clusterkit.embedded.layout import Layout  # noqa: PLC0415

    clusters = (settings.data_dir / "clusters").absolute()
    names = {path.parent.name for path in clusters.glob("*/cluster.json")}
    return [Layout(clusters, name) for name in sorted(names, key=lambda name: (name != _EMBEDDED_NAME, name))]


def _runs(layout: Layout) -> bool:
    from clusterkit.embedded import marks  # noqa: PLC0415 - a cluster that is not embedded needs no look at processes

    return bool(marks.daemons(layout.root))


def _running(settings: Settings) -> Layout | None:
    """Return the embedded cluster that runs: the default one, or the only one."""
    running = [each for each in embedded_layouts(settings) if _runs(each)]
    if len(running) > 1 and running[0].name != _EMBEDDED_NAME:
        raise ClusterError(
            "it is not clear which cluster is meant",
            why=f"the embedded clusters {', '.join(each.name for each in running)} all run",
            mend=f"name one: --cluster {running[0].name}",
        )
    return running[0] if running else None
