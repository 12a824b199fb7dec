"""What a file system of a node refuses, in three sentences."""

from __future__ import annotations

import errno
import os

from .errors import NodeError

_SAID = {
    errno.ENOSPC: ("the file system is full", "free space there, or choose another node cache (setting node_cache)"),
    errno.EDQUOT: (
        "the disk quota is used up",
        "free space there, or choose another node cache (setting node_cache)",
    ),
    errno.EROFS: (
        "the file system is mounted read-only",
        "choose another node cache (setting node_cache), or use the native transport, which needs none",
    ),
    errno.EACCES: (
        "permission denied",
        "choose another node cache (setting node_cache), or use the native transport, which needs none",
    ),
    errno.EIO: ("the disk reports an error", "look at the node's kernel log, and take the node out of the cluster"),
}


def translated(exc: OSError, what: str) -> NodeError:
    """Return what an error of the operating system means to a person."""
    why, mend = _SAID.get(
        exc.errno or 0,
        (os.strerror(exc.errno or 0), "look at the node's disk, or choose another node cache (setting node_cache)"),
    )
    place = f"{os.fsdecode(exc.filename)}: " if isinstance(exc.filename, (str, bytes)) else ""
    return NodeError(what, why=f"{place}{why}", mend=mend)
