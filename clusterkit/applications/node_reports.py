"""What the containers of an application told of their image: a small file among the logs of each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from clusterkit.applications.report import NodeReport

if TYPE_CHECKING:
    from clusterkit.hadoop.cluster import Cluster

_NAME = re.compile(r"container_\w+\.json")


class _Told(msgspec.Struct):
    container: str
    host: str
    hit: bool
    seconds: float
    blas: str = ""


def collect(cluster: Cluster, application_id: str) -> tuple[NodeReport, ...]:
    """Read them from the application's logs.

    Parameters
    ----------
    cluster : Cluster
        Where it ran.
    application_id : str
        The application, which has ended.

    Raises
    ------
    ClusterkitError
        If its logs cannot be read, or are not there yet.
    """
    files = (file for file in cluster.logs.files(application_id) if _NAME.fullmatch(file.name))
    told = (msgspec.json.decode(b"".join(file.lines()), type=_Told) for file in files)
    return tuple(NodeReport(each.container, each.host, each.hit, each.seconds, each.blas) for each in told)
