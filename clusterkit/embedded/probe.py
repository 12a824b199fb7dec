"""Ask the daemons of an embedded cluster whether they are ready: each by the protocols it serves.

Only the standard library is used, and each question is one short exchange with a time-out, because `up` asks often
while the daemons need the processors for themselves.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterkit.processes import ProcessIdentity

_TIMEOUT_S = 2.0


def listening(process: ProcessIdentity) -> frozenset[tuple[str, int]]:
    """Return the addresses on which this very process listens."""
    try:
        connections = psutil.Process(process.pid).net_connections("tcp")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return frozenset()
    return frozenset((line.laddr.ip, line.laddr.port) for line in connections if line.status == psutil.CONN_LISTEN)


def answers_rpc(host: str, port: int) -> bool:
    """Tell whether a Hadoop RPC server answers: it replies to a request that is not its own by saying what it is."""
    return b"Hadoop IPC" in _exchange(host, port, b"GET / HTTP/1.0\r\n\r\n")


def answers_zookeeper(host: str, port: int) -> bool:
    """Tell whether a ZooKeeper server says that it is in order."""
    return _exchange(host, port, b"ruok") == b"imok"


def status_of(host: str, port: int, path: str, *, method: str = "GET", timeout_s: float = _TIMEOUT_S) -> int:
    """Return the status with which a web server answers, 0 when it does not."""
    return _request(host, port, path, method=method, timeout_s=timeout_s)[0]


def json_of(host: str, port: int, path: str, *, timeout_s: float = _TIMEOUT_S) -> Any:
    """Return the JSON document at a path, or None when there is none to be had."""
    status, body = _request(host, port, path, timeout_s=timeout_s)
    if status != 200:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None


def bean(host: str, port: int, name: str, *, timeout_s: float = _TIMEOUT_S) -> Mapping[str, Any]:
    """Return one JMX bean of a daemon (`service=NameNode,name=NameNodeInfo`), empty when it has none."""
    document = json_of(host, port, f"/jmx?qry=Hadoop:{name}", timeout_s=timeout_s) or {}
    beans = document.get("beans") or [{}]
    found: Mapping[str, Any] = beans[0]
    return found


def _request(
    host: str, port: int, path: str, *, method: str = "GET", timeout_s: float = _TIMEOUT_S
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def _exchange(host: str, port: int, question: bytes) -> bytes:
    answer = b""
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
            connection.sendall(question)
            while chunk := connection.recv(4096):
                answer += chunk
    except OSError:
        return answer
    return answer
