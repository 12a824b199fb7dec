"""The directory of one user in a node's cache, and why it can be trusted.

What lies there is executed. So nobody else may be able to write to it, or to put another directory in its place: it,
and every directory above it, belongs to root or to this user, and where others may write, the sticky bit keeps them
from what is not theirs.
"""

from __future__ import annotations

import os
import stat

from .errors import NodeError


def of(node_cache: str) -> str:
    """Return this user's directory in a node's cache, made where it is missing.

    It is `<node_cache>/<uid>`, or `<node_cache>-<uid>` where another user has made the node's cache: its owner could
    exchange what lies in it. Its links are resolved: the path is that of the directory itself.

    Parameters
    ----------
    node_cache : str
        The node's cache, such as `/var/tmp/clusterkit`; the directory above it must exist.

    Raises
    ------
    NodeError
        If the directory or one above it is another user's, can be written by others, is a link, or cannot be made.
    """
    node_cache = os.path.abspath(node_cache)
    parent = os.path.realpath(os.path.dirname(node_cache))
    node_cache = os.path.join(parent, os.path.basename(node_cache))
    uid = os.geteuid()
    try:
        _check_above(parent, uid)
        own = _below(node_cache, uid)
        found = _made(own, 0o700)
    except OSError as exc:
        raise _refused(node_cache, f"{exc.filename}: {exc.strerror}") from exc
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(own, "it is a link or a file, and no directory")
    if found.st_uid != uid:
        raise _refused(own, f"it belongs to the user {found.st_uid}, and this is {uid}")
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise _refused(own, f"others can write to it (mode {stat.S_IMODE(found.st_mode):o})")
    return own


def _below(node_cache: str, uid: int) -> str:
    """Return where this user's directory stands: in the cache, or beside it where the cache is another user's."""
    beside = f"{node_cache}-{uid}"
    found = _made(node_cache, 0o1777 if uid == 0 else 0o755)
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(node_cache, "it is a link or a file, and no directory")
    if found.st_uid not in {0, uid}:
        return beside
    _check(node_cache, found, uid)
    own = os.path.join(node_cache, str(uid))
    return own if os.path.lexists(own) or os.access(node_cache, os.W_OK) else beside


def _made(path: str, mode: int) -> os.stat_result:
    """Return what stands at a path, a directory of this user's where nothing stood."""
    if not os.path.lexists(path):
        try:
            os.mkdir(path, mode)
            os.chmod(path, mode)  # whatever the umask says
        except FileExistsError:
            pass  # another process of this node was faster
    return os.lstat(path)


def _check_above(parent: str, uid: int) -> None:
    path = "/"
    _check(path, os.lstat(path), uid)
    for part in parent.split("/"):
        if part:
            path = os.path.join(path, part)
            _check(path, os.lstat(path), uid)


def _check(path: str, found: os.stat_result, uid: int) -> None:
    if found.st_uid not in {0, uid}:
        raise _refused(path, f"it belongs to the user {found.st_uid}, who could exchange what lies below it")
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        mode = stat.S_IMODE(found.st_mode)
        raise _refused(path, f"others can write to it, and it has no sticky bit (mode {mode:o})")


def _refused(path: str, why: str) -> NodeError:
    return NodeError(
        f"the node's cache at {path} is not used",
        why=why,
        mend="have the directory made by root with mode 1777, choose another one (setting node_cache), or use the "
        "native transport, which needs none",
    )
