"""What a user asks for when they ask for an embedded cluster."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

import msgspec

from clusterkit.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOPBACK = "127.0.0.1"
DEFAULT_NAME = "default"
MAX_NODES = 4
MIN_MEMORY_MIB = 1024

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")


class ClusterSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An embedded cluster, as asked for.

    Parameters
    ----------
    name : str
        What the cluster is called on this machine: lower-case letters, digits and hyphens.
    nodes : int
        How many NodeManagers and DataNodes, 1 to 4.
    memory_mib : int, optional
        What each NodeManager may give to containers, in MiB, >= 1024. What this machine can spare when absent.
    queues : dict of str to int
        The share of each queue, in percent. The shares add up to 100.
    ha : bool
        Whether two NameNodes and two ResourceManagers stand in for each other.
    bind : str
        The IPv4 address on which every daemon listens.
    insecure_bind : bool
        Whether `bind` may be an address that other machines reach, though the cluster checks no identity.

    Raises
    ------
    SpecError
        If a value is out of its range, or the shares of the queues do not add up to 100.

    Examples
    --------
    >>> ClusterSpec(nodes=2).queues
    {'default': 100}
    """

    name: str = DEFAULT_NAME
    nodes: int = 1
    memory_mib: int | None = None
    queues: dict[str, int] = msgspec.field(default_factory=lambda: {"default": 100})
    ha: bool = False
    bind: str = LOOPBACK
    insecure_bind: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_nodes(self.nodes)
        _check_memory(self.memory_mib)
        _check_queues(self.queues)
        _check_bind(self.bind, allowed=self.insecure_bind)


def parse_queues(texts: Iterable[str]) -> dict[str, int]:
    """Read queues written as `name=share`.

    Parameters
    ----------
    texts : iterable of str
        One queue each; a share is a whole percentage from 1 to 100, with or without a `%`.

    Returns
    -------
    dict of str to int
        The share of each queue, in the order given.

    Raises
    ------
    SpecError
        If one is not a name and a share, or a name is given twice.

    Examples
    --------
    >>> parse_queues(["batch=70", "adhoc=30%"])
    {'batch': 70, 'adhoc': 30}
    """
    queues: dict[str, int] = {}
    for text in texts:
        name, _, share = text.partition("=")
        number = share.strip().removesuffix("%").strip()
        if not name.strip() or not number.isdecimal():
            raise SpecError(
                f"the queue {text!r} cannot be read",
                why="a queue is written name=share, the share being a whole percentage",
                mend="write for example --queue batch=70 --queue adhoc=30",
                key="queues",
                place="--queue",
            )
        if name.strip() in queues:
            raise SpecError(
                f"the queue {name.strip()!r} is given twice",
                why="each queue has one share",
                mend="give each queue once",
                key="queues",
                place="--queue",
            )
        queues[name.strip()] = int(number)
    return queues


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SpecError(
            f"a cluster cannot be called {name!r}",
            why="a name is 1 to 31 lower-case letters, digits and hyphens, and starts with a letter or digit",
            mend="choose a name such as 'default' or 'test-2'",
            key="name",
        )


def _check_nodes(nodes: int) -> None:
    if not 1 <= nodes <= MAX_NODES:
        raise SpecError(
            f"a cluster cannot have {nodes} nodes",
            why=f"an embedded cluster has 1 to {MAX_NODES} nodes: they all share this machine",
            mend=f"ask for --nodes 1 to --nodes {MAX_NODES}",
            key="nodes",
        )


def _check_memory(memory_mib: int | None) -> None:
    if memory_mib is not None and memory_mib < MIN_MEMORY_MIB:
        raise SpecError(
            f"a node cannot work with {memory_mib} MiB",
            why=f"Spark's driver and one executor need at least {MIN_MEMORY_MIB} MiB of containers",
            mend="ask for --memory 2g or more, or leave --memory out",
            key="memory_mib",
        )


def _check_queues(queues: dict[str, int]) -> None:
    for name, share in queues.items():
        if not _QUEUE.fullmatch(name) or name == "root":
            raise SpecError(
                f"a queue cannot be called {name!r}",
                why="a name is letters, digits, hyphens and underscores, begins with a letter or digit, not 'root'",
                mend="choose a name such as 'batch'",
                key="queues",
            )
        if not 1 <= share <= 100:
            raise SpecError(
                f"the queue {name!r} cannot have a share of {share}",
                why="a share is a whole percentage from 1 to 100",
                mend=f"write for example --queue {name}=50",
                key="queues",
            )
    if sum(queues.values()) != 100:
        listed = " + ".join(f"{name} {share}" for name, share in queues.items()) or "no queue"
        raise SpecError(
            f"the shares of the queues add up to {sum(queues.values())}, not to 100",
            why=f"the queues divide the whole cluster: {listed}",
            mend="change the shares, or add a queue for the rest",
            key="queues",
        )


def _check_bind(bind: str, *, allowed: bool) -> None:
    try:
        address = ipaddress.IPv4Address(bind)
    except ValueError:
        raise SpecError(
            f"the cluster cannot listen on {bind!r}",
            why="this is not an IPv4 address",
            mend=f"leave --bind out (the cluster then listens on {LOOPBACK}), or give one address of this machine",
            key="bind",
        ) from None
    if address.is_unspecified:
        raise SpecError(
            f"the cluster cannot listen on {bind}",
            why="clients are told this address, and it names no machine",
            mend="give --bind one address of this machine",
            key="bind",
        )
    if not address.is_loopback and not allowed:
        raise SpecError(
            f"the cluster was not let listen on {bind}",
            why="it checks no identity: whoever reaches this address can read all data and run programs as you",
            mend="leave --bind out, or add --insecure-bind if every user of that network may do so",
            key="bind",
        )
