"""A store on HDFS, for all users of a cluster."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from clusterkit.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.hadoop.hdfs import Hdfs

MOST_COPIES = 10
"""More copies of a layer are of no use (Hadoop's default of `mapreduce.client.submit.file.replication`)."""


class HdfsStore(Store):
    """A store on HDFS.

    The first user makes the directories that all share (mode 1777: each may add, nobody may take another's away), and
    could exchange them, since he owns them. An administrator who does not want that makes them beforehand, as HDFS's
    superuser: `layers`, `bare`, `images`, `names`, `uses`, `users`, `sweeps`, `trash` and `spark` below the root, each
    with mode 1777, and every directory above with mode 755. A quota on the root bounds all of it.

    Parameters
    ----------
    hdfs : Hdfs
        The cluster's file system.
    root : str
        The directory that clusterkit owns on it (the setting `hdfs_root`), as a path or a URI.
    nodes : callable, optional
        Tells how many nodes the cluster has, when something was uploaded: layers that all read get a copy on each, ten
        at most. HDFS's own number of copies stays without it.
    """

    def __init__(self, hdfs: Hdfs, root: str, *, nodes: Callable[[], int] | None = None) -> None:
        copies = None if nodes is None else functools.cache(lambda: min(MOST_COPIES, nodes()))
        super().__init__(hdfs, root.removeprefix(hdfs.uri), copies=copies)
