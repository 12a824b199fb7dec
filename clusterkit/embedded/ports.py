"""Pick the ports of a cluster's daemons: free now, and unlikely to be taken by a passing connection."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Collection

_LOWEST, _HIGHEST = 16000, 65000
_TRIES = 400
_LINGER_S = 1.5
_POLL_S = 0.05


def pick(host: str, count: int, *, taken: Collection[int]) -> tuple[int, ...]:
    """Return free ports, outside the range from which the kernel serves outgoing connections where there is room.

    Parameters
    ----------
    host : str
        The address that will listen.
    count : int
        How many ports.
    taken : collection of int
        Ports that are spoken for, though nothing may listen on them now.

    Raises
    ------
    ClusterError
        If not enough free ports are found.
    """
    candidates = _candidates()
    found: list[int] = []
    for port in random.sample(candidates, min(len(candidates), _TRIES + count)):
        if len(found) == count:
            break
        if port not in taken and is_free(host, port):
            found.append(port)
    if len(found) < count:
        raise ClusterError(
            f"only {len(found)} of {count} free ports were found on {host}",
            why=f"{host} is no address of this machine, or nearly all of its ports are in use",
            mend="check the address with `ip address`",
            host=host,
        )
    return tuple(found)


def is_free(host: str, port: int) -> bool:
    """Tell whether a daemon could listen on a port, as Java would: what only lingers does not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def become_free(host: str, wanted: Collection[int]) -> bool:
    """Wait a moment for ports that a process which was just killed may still hold; tell whether all are free then."""
    deadline = time.monotonic() + _LINGER_S
    while not all(is_free(host, port) for port in wanted):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _candidates() -> range:
    lowest, highest = _ephemeral()
    below, above = range(_LOWEST, min(lowest, _HIGHEST)), range(max(highest + 1, _LOWEST), _HIGHEST)
    widest = max(below, above, key=len)
    return widest if len(widest) >= 2000 else range(_LOWEST, _HIGHEST)


def _ephemeral() -> tuple[int, int]:
    try:
        lowest, highest = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()
    except (OSError, ValueError):
        return 32768, 60999
    return int(lowest), int(highest)
