"""Settle what a cluster is to be: memory, ports, Java and jars, from what was asked for and what is remembered."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from clusterkit.embedded import ports
from clusterkit.embedded import state as states
from clusterkit.embedded.daemons import daemons
from clusterkit.embedded.layout import Layout
from clusterkit.embedded.memory import machine_memory_mib, node_memory_mib
from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from clusterkit.hadoop.java import Java
    from clusterkit.specs.cluster import ClusterSpec

_NOT_FOR_DATA = re.compile(r"[^\w./~@+=-]")
"""A DataNode runs `df` on its directory without quoting it, and takes the URI of the directory for a format."""

_NOT_FOR_JARS = re.compile(r"[,:;*\n\r\0]|\$\{")
"""What a class path, or a list in a site file, means something else by."""


def settle(
    layout: Layout,
    spec: ClusterSpec,
    remembered: states.State | None,
    *,
    running: Collection[str],
    java: Java,
    lib: Path,
) -> states.State:
    """Return what is to be written down before anything is started.

    Parameters
    ----------
    layout : Layout
        Where the cluster lies.
    spec : ClusterSpec
        What was asked for.
    remembered : State or None
        What is known of the cluster from before; its ports and its memory stay where they can.
    running : collection of str
        The daemons that run, and so hold their ports.
    java : Java
        What they run on.
    lib : Path
        The directory of the jars.

    Raises
    ------
    ClusterError
        If Hadoop could not work in this directory, or there are not enough free ports.
    """
    _check_path(layout, layout.root, _NOT_FOR_DATA, "data_dir")
    _check_path(layout, lib, _NOT_FOR_JARS, "cache_dir")
    return states.State(
        spec=spec,
        memory_mib=_memory_mib(spec, remembered),
        ports=_ports(layout, spec, remembered, running),
        wanted=True,
        boot=states.boot_id(),
        java_home=str(java.home),
        lib=str(lib),
    )


def _check_path(layout: Layout, path: Path, unusable: re.Pattern[str], setting: str) -> None:
    found = unusable.search(str(path))
    if found:
        raise ClusterError(
            f"the cluster {layout.name!r} cannot lie in {str(path)!r}",
            why=f"Hadoop cannot work with {found[0]!r} in a path",
            mend=f"set {setting} to a directory whose path has only letters, digits and the signs . / ~ @ + = _ -",
            cluster=layout.name,
            path=path,
        )


def _memory_mib(spec: ClusterSpec, remembered: states.State | None) -> int:
    """Settle the memory of a node; what was worked out before stays as long as the question is the same."""
    if remembered is not None and _asks_for_memory(remembered.spec) == _asks_for_memory(spec):
        return remembered.memory_mib
    return spec.memory_mib or node_memory_mib(spec, machine_memory_mib())


def _asks_for_memory(spec: ClusterSpec) -> tuple[int | None, int, bool]:
    return spec.memory_mib, spec.nodes, spec.ha


def _ports(
    layout: Layout, spec: ClusterSpec, remembered: states.State | None, running: Collection[str]
) -> dict[str, dict[str, int]]:
    known = remembered.ports if remembered else {}
    held = set(running) if remembered and remembered.spec.bind == spec.bind else set()
    taken = _ports_of_neighbours(layout) | {port for mine in known.values() for port in mine.values()}
    chosen: dict[str, dict[str, int]] = {}
    for daemon in daemons(spec):
        before = known.get(daemon.name, {})
        fits = before.keys() == set(daemon.role.ports)
        if not fits or not (daemon.name in held or ports.become_free(spec.bind, before.values())):
            fresh = ports.pick(spec.bind, len(daemon.role.ports), taken=taken)
            before = dict(zip(daemon.role.ports, fresh, strict=True))
        chosen[daemon.name] = before
        taken |= set(before.values())
    return chosen


def _ports_of_neighbours(layout: Layout) -> set[int]:
    return {port for other in _neighbours(layout) for mine in other.ports.values() for port in mine.values()}


def _neighbours(layout: Layout) -> Iterator[states.State]:
    for path in layout.clusters.glob("*/cluster.json"):
        with contextlib.suppress(ClusterError):
            other = states.load(Layout(layout.clusters, path.parent.name))
            if other and path.parent != layout.root:
                yield other
