"""Ask the daemons of an embedded cluster whether they are ready: each by the protocols it serves.

Only the standard library is used, and each question is one short exchange with a time-out, because `up` asks often
while the daemons need the processors for themselves.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from clusterkit.processes import ProcessIdentity

Bean = Mapping[str, Any]
"""A JMX bean: its attributes by name."""

_TIMEOUT_S = 2.0


def listening(process: ProcessIdentity) -> frozenset[tuple[str, int]]:
    """Return the addresses on which this very process listens."""
    try:
        connections = psutil.Process(process.pid).net_connections("tcp")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return frozenset()
    return frozenset((line.laddr.ip, line.laddr.port) for line in connections if line.status == psutil.CONN_LISTEN)


def accepts(host: str, port: int) -> bool:
    """Tell whether somebody takes connections on a port."""
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def answers_rpc(host: str, port: int) -> bool:
    """Tell whether a Hadoop RPC server answers: it replies to a request that is not its own by saying what it is."""
    return b"Hadoop IPC" in _exchange(host, port, b"GET / HTTP/1.0\r\n\r\n")


def answers_zookeeper(host: str, port: int) -> bool:
    """Tell whether a ZooKeeper server says that it is in order."""
    return _exchange(host, port, b"ruok") == b"imok"


def status_of(host: str, port: int, path: str) -> int:
    """Return the status with which a web server answers, 0 when it does not."""
    return send(host, port, path)[0]


def json_of(host: str, port: int, path: str) -> Any:
    """Return the JSON document at a path, or None when there is none to be had."""
    status, body = send(host, port, path)
    if status != 200:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None


def bean(host: str, port: int, name: str) -> Bean:
    """Return one JMX bean of a daemon (`service=NameNode,name=NameNodeInfo`), empty when it has none."""
    document = json_of(host, port, f"/jmx?qry=Hadoop:{name}") or {}
    beans = document.get("beans") or [{}]
    found: Bean = beans[0]
    return found


def send(
    host: str, port: int, path: str, *, method: str = "GET", body: str | None = None, timeout_s: float = _TIMEOUT_S
) -> tuple[int, bytes]:
    """Send a request, whose body is JSON, and return status and body of the answer; 0 when there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def attribute(host: str, port: int, name: str, key: str) -> Any:
    """Return one attribute of a JMX bean, None when it has none; far less work for the daemon than the whole bean."""
    document = json_of(host, port, f"/jmx?get=Hadoop:{name}::{key}") or {}
    beans = document.get("beans") or [{}]
    return beans[0].get(key)


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
