"""What the containers of an application told of their image: a small file among the logs of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clusterkit.applications.report import NodeReport

if TYPE_CHECKING:
    from clusterkit.hadoop.cluster import Cluster

NAME = "clusterkit-image.json"
"""The file's name, beside `stdout` and `stderr`."""


class _Told(msgspec.Struct):
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
    files = cluster.logs.files(application_id, names=[NAME])
    told = ((file.container_id, b"".join(file.lines())) for file in files)
    return tuple(_read(container, text) for container, text in told)


def _read(container: str, text: bytes) -> NodeReport:
    told = msgspec.json.decode(text, type=_Told)
    return NodeReport(container, told.hit, told.seconds, told.blas)
