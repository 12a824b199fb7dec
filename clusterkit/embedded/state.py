"""What is remembered of an embedded cluster between two commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from clusterkit.embedded.layout import make_private, write_private
from clusterkit.errors import ClusterError
from clusterkit.specs.cluster import ClusterSpec

if TYPE_CHECKING:
    from clusterkit.embedded.layout import Layout


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The intent: written before anything is started, so that a crash leaves nothing unknown.

    Which daemons run is not written down. The processes themselves say it, by the marks in their arguments.

    Parameters
    ----------
    spec : ClusterSpec
        What was asked for.
    memory_mib : int
        What each node gives to containers, in MiB.
    ports : dict of str to dict of str to int
        The ports of each daemon, by what they are for.
    wanted : bool
        Whether the cluster should be up.
    boot : str
        The boot of the machine during which the cluster was last started.
    java_home, lib : str
        What it was last started with.
    format : int
        The format of this file.
    """

    spec: ClusterSpec
    memory_mib: int
    ports: dict[str, dict[str, int]]
    wanted: bool
    boot: str
    java_home: str
    lib: str
    format: int = 1


def load(layout: Layout) -> State | None:
    """Return what is remembered of a cluster, or None when there is no such cluster.

    Raises
    ------
    ClusterError
        If the file is damaged, or of another version of clusterkit.
    """
    try:
        return msgspec.json.decode(layout.state.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as exc:
        raise ClusterError(
            f"what is remembered of the cluster {layout.name!r} cannot be read",
            why=f"{layout.state} is damaged, or of another version of clusterkit: {exc}",
            mend=f"remove that file and run `clusterkit cluster up --name {layout.name}`; the data in HDFS stay",
            cluster=layout.name,
            path=layout.state,
        ) from exc


def save(layout: Layout, state: State) -> None:
    """Write down what is to be remembered."""
    make_private(layout.root)
    write_private(layout.state, msgspec.json.format(msgspec.json.encode(state)) + b"\n")


def boot_id() -> str:
    """Return what tells this boot of the machine from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
