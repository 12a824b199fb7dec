"""REST to Hadoop's daemons: every call has a time-out, every failure is an error that names host and port.

httpcore is the transport under httpx. It is used directly because it loads in half the time, which each command pays,
and because nothing in it reads proxy settings: a daemon of the cluster, often on loopback, is never asked for
through a proxy.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import httpcore
import msgspec

from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CONNECT_S = 2.0
"""Seconds to find the host's address and to connect."""

FIRST_READ_S = 2.5
"""Seconds between two reads until a daemon has answered once: with `CONNECT_S` under 5 s in all."""

READ_S = 10.0
"""Seconds between two reads from a daemon that has answered before: it may be busy."""

TOTAL_S = 60.0
"""Seconds for a whole answer."""

_MAX_CONNECTIONS = 8
_KEPT_S = 10.0


class RemoteError(ClusterError):
    """A daemon answered, and refused.

    Parameters
    ----------
    status : int
        The HTTP status.
    exception : str
        The Java exception it named, without its package; empty where it named none.
    message : str
        What it said.
    """

    def __init__(  # noqa: PLR0913 - the three sentences, and what the answer held
        self,
        what: str,
        *,
        why: str,
        mend: str,
        host: str | None = None,
        port: int | None = None,
        status: int = 0,
        exception: str = "",
        message: str = "",
    ) -> None:
        super().__init__(what, why=why, mend=mend, host=host, port=port)
        self.status = status
        self.exception = exception
        self.message = message


class UnreachableError(ClusterError):
    """A daemon does not answer."""


class Answer(msgspec.Struct, frozen=True):
    """What a daemon answered.

    Parameters
    ----------
    status : int
        The HTTP status.
    headers : mapping of str to str
        The headers, with names in lower case.
    body : bytes
        The whole body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the decoded body; an empty body is an empty object."""
        return json.loads(self.body) if self.body.strip() else {}

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")


class Rest:
    """A client of one kind of daemon.

    Parameters
    ----------
    service : str
        Its name, for messages: `ResourceManager`.
    user : str
        Who we are where there is no Kerberos.
    """

    def __init__(self, service: str, user: str) -> None:
        self.service = service
        self._user = user
        self._pools: dict[str, httpcore.ConnectionPool] = {}
        self._answered: set[str] = set()

    def get(self, url: str, params: Mapping[str, str] | None = None) -> Answer:
        """Ask for a resource; see `call`."""
        return self.call("GET", url, params)

    def call(
        self, method: str, url: str, params: Mapping[str, str] | None = None, document: object | None = None
    ) -> Answer:
        """Call a daemon and return its answer, whatever its status below 400.

        Parameters
        ----------
        method : str
            `GET`, `PUT`, `POST` or `DELETE`.
        url : str
            Scheme, host, port and path.
        params : mapping of str to str, optional
            The query.
        document : object, optional
            Sent as JSON.

        Raises
        ------
        UnreachableError
            If it cannot be found, reached or does not answer in time.
        RemoteError
            If it answers with a status from 400 on.
        """
        deadline = time.monotonic() + TOTAL_S
        content = None if document is None else json.dumps(document).encode()
        with self._stream(method, url, params, content) as response:
            body = b"".join(self._within(deadline, url, response.iter_stream()))
        answer = Answer(response.status, _headers(response.headers), body)
        if answer.status >= 400:
            raise self._refusal(url, answer)
        return answer

    @contextlib.contextmanager
    def stream(self, url: str, params: Mapping[str, str] | None = None) -> Iterator[Iterator[bytes]]:
        """Ask for a resource and yield an iterator over its body, which is not held in memory.

        Raises
        ------
        UnreachableError
            If it cannot be found, reached or does not answer in time.
        RemoteError
            If it answers with a status from 400 on.
        """
        with self._stream("GET", url, params, None) as response:
            if response.status >= 400:
                body = b"".join(response.iter_stream())
                raise self._refusal(url, Answer(response.status, _headers(response.headers), body))
            yield response.iter_stream()

    def close(self) -> None:
        """Close the connections that are kept open; it also happens when nobody refers to the client any more."""
        for pool in self._pools.values():
            pool.close()

    @contextlib.contextmanager
    def _stream(
        self, method: str, url: str, params: Mapping[str, str] | None, content: bytes | None
    ) -> Iterator[httpcore.Response]:
        parts = urlsplit(url)
        query = urlencode({"user.name": self._user, **(params or {})}, quote_via=quote)
        headers = [("Host", parts.netloc), ("Accept", "application/json, text/plain;q=0.5")]
        if content is not None:
            headers.append(("Content-Type", "application/json"))
        try:
            with self._pool(parts.scheme).stream(
                method,
                f"{url}?{query}",
                headers=headers,
                content=content,
                extensions={"timeout": self._timeouts(parts.netloc)},
            ) as response:
                self._answered.add(parts.netloc)
                yield response
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as exc:
            raise self._unreachable(url, exc) from exc

    def _pool(self, scheme: str) -> httpcore.ConnectionPool:
        """Return the connections of a scheme; certificates are loaded only where TLS is spoken."""
        if scheme not in self._pools:
            pool = httpcore.ConnectionPool(
                ssl_context=ssl.create_default_context() if scheme == "https" else None,
                max_connections=_MAX_CONNECTIONS,
                keepalive_expiry=_KEPT_S,
                network_backend=_BoundedBackend(),
            )
            weakref.finalize(self, pool.close)
            self._pools[scheme] = pool
        return self._pools[scheme]

    def _timeouts(self, origin: str) -> dict[str, float]:
        read_s = READ_S if origin in self._answered else FIRST_READ_S
        return {"connect": CONNECT_S, "read": read_s, "write": read_s, "pool": CONNECT_S}

    def _within(self, deadline: float, url: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if time.monotonic() > deadline:
                raise self._unreachable(url, TimeoutError(f"the answer was not complete after {TOTAL_S:g} s"))
            yield chunk

    def _unreachable(self, url: str, exc: Exception) -> UnreachableError:
        parts = urlsplit(url)
        return UnreachableError(
            f"the {self.service} at {parts.netloc} does not answer",
            why=_reason(exc, parts.hostname or ""),
            mend=_mend(exc, self.service),
            host=parts.hostname,
            port=parts.port,
        )

    def _refusal(self, url: str, answer: Answer) -> RemoteError:
        parts = urlsplit(url)
        exception, message = _remote_exception(answer)
        why, mend = _explanation(answer.status, message or answer.text.strip()[:300] or "it did not say why")
        return RemoteError(
            f"the {self.service} at {parts.netloc} refused {parts.path} (HTTP {answer.status})",
            why=why,
            mend=mend,
            host=parts.hostname,
            port=parts.port,
            status=answer.status,
            exception=exception,
            message=message,
        )


class _BoundedBackend(httpcore.SyncBackend):
    """Connects within one budget: name look-up and every address of the host together."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        deadline = time.monotonic() + (timeout or CONNECT_S)
        failure: Exception = OSError("the host has no address")
        for address in addresses(host, port, deadline - time.monotonic()):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                return super().connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        raise failure


def addresses(host: str, port: int, timeout_s: float) -> tuple[str, ...]:
    """Return the addresses of a host.

    Raises
    ------
    OSError
        If it has none.
    TimeoutError
        If the name service did not answer in time; the look-up is left to itself.
    """
    found: queue.SimpleQueue[tuple[str, ...] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.put(tuple(dict.fromkeys(str(info[4][0]) for info in infos)))
        except OSError as exc:
            found.put(exc)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        result = found.get(timeout=max(timeout_s, 0.01))
    except queue.Empty:
        msg = f"the name service did not say within {timeout_s:.1f} s where {host} is"
        raise TimeoutError(msg) from None
    if isinstance(result, OSError):
        raise result
    return result


def _headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def _root_cause(exc: BaseException) -> BaseException:
    cause = exc.__cause__ or exc.__context__
    return exc if cause is None or isinstance(exc, (httpcore.TimeoutException, TimeoutError)) else _root_cause(cause)


def _reason(exc: Exception, host: str) -> str:
    cause = _root_cause(exc)
    if isinstance(cause, socket.gaierror):
        return f"the host name {host} is not known here ({cause.strerror})"
    if isinstance(cause, ssl.SSLError):
        return f"the TLS handshake failed ({cause.reason or cause})"
    if isinstance(cause, (httpcore.ConnectTimeout, httpcore.PoolTimeout)):
        return f"no connection within {CONNECT_S:g} s"
    if isinstance(cause, httpcore.TimeoutException):
        return "it accepted the connection, but did not answer in time"
    if isinstance(cause, ConnectionRefusedError):
        return "the connection was refused: nothing listens on that port"
    return str(cause) or type(cause).__name__


def _mend(exc: Exception, service: str) -> str:
    cause = _root_cause(exc)
    if isinstance(cause, ssl.SSLError):
        return "let SSL_CERT_FILE name the certificate authority that signed the cluster's certificates"
    if isinstance(cause, socket.gaierror):
        return "check the address in yarn-site.xml, and the name service or VPN of this machine"
    return f"see whether the {service} runs (`clusterkit cluster status` for a cluster of this machine)"


def _remote_exception(answer: Answer) -> tuple[str, str]:
    """Return class and message of the exception in an error's JSON body, empty where there is none."""
    try:
        document = answer.json()
        remote = document["RemoteException"]
        return str(remote.get("exception", "")), str(remote.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", ""


def _explanation(status: int, message: str) -> tuple[str, str]:
    if status == 401:
        return (
            "it wants Kerberos (SPNEGO), which this version does not speak yet",
            "use a cluster without Kerberos until clusterkit's secured mode arrives",
        )
    if status == 403:
        return message, "ask for the right, or run as the user who has it (HADOOP_USER_NAME where there is no Kerberos)"
    return message, "see the daemon's log for the rest"
