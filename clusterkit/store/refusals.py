"""Why a store refuses, in the terms of those who use it and of those who run it."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from clusterkit import units
from clusterkit.hadoop.hdfs import DeniedError, QuotaError, SafeModeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterkit.store.store import Store

_SPACE = re.compile(
    r"The DiskSpace quota of (?P<path>.+?) is exceeded: quota ?= ?(?P<quota>\d+).*?consumed ?= ?(?P<used>\d+)"
)
_NAMES = re.compile(r"The NameSpace quota .*?of directory (?P<path>.+?) is exceeded: quota ?= ?(?P<quota>\d+)")


@contextlib.contextmanager
def explained(store: Store, what: str) -> Iterator[None]:
    """Say of a refusal what was not stored, which limit or right it was, and who can change it.

    Raises
    ------
    DeniedError, QuotaError, SafeModeError
        As the file system raised them, in the terms of this store.
    """
    try:
        yield
    except DeniedError as exc:
        raise DeniedError(
            f"{what} at {exc.uri or store.uri}", why=exc.why, mend=_for_administrator(store), uri=exc.uri
        ) from exc
    except QuotaError as exc:
        why, raised = _quota(exc.why)
        raise QuotaError(
            f"{what} at {exc.uri or store.uri}", why=why, mend=_more_space(store, raised), uri=exc.uri
        ) from exc
    except SafeModeError as exc:
        raise SafeModeError(f"{what} at {exc.uri or store.uri}", why=exc.why, mend=exc.mend, uri=exc.uri) from exc


def _for_administrator(store: Store) -> str:
    if not store.files.uri:
        return "set cache_dir to a directory of your own"
    return (
        f"have the HDFS superuser run once: hdfs dfs -mkdir -p {store.root} && hdfs dfs -chmod 1777 {store.root}; "
        f"or set hdfs_root to a directory of your own, such as /user/{store.user}/clusterkit"
    )


def _quota(message: str) -> tuple[str, str]:
    """Return what a quota's message says, and the command that raises the quota, where it is known."""
    if found := _SPACE.search(message):
        quota, used = (units.format_bytes(int(found[key])) for key in ("quota", "used"))
        path = found["path"]
        why = f"the space quota of {path}, {quota} with all copies, is full: {used} would be used"
        return why, f"hdfs dfsadmin -setSpaceQuota SIZE {path}"
    if found := _NAMES.search(message):
        path = found["path"]
        why = f"the quota of {path}, {found['quota']} files and directories, is full"
        return why, f"hdfs dfsadmin -setQuota N {path}"
    return message, ""


def _more_space(store: Store, raised: str) -> str:
    free = "free space with `clusterkit env gc --dry-run`"
    if not store.files.uri:
        return f"{free}, or set cache_dir to a directory on another disk"
    return f"{free}, or have the quota raised" + (f" ({raised})" if raised else "")
