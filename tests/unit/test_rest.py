"""REST to Hadoop's daemons: limits, and what is said when one does not answer or refuses."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clusterkit.hadoop import rest
from clusterkit.hadoop.rest import RemoteError, Rest, UnreachableError


@dataclass
class Reply:
    """What a fake daemon answers."""

    body: bytes | str = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def client():
    made = Rest("ResourceManager", "alice")
    yield made
    made.close()


@pytest.fixture
def silent():
    """Yield the port of a server that accepts connections, sends what it is told, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def speak(server, *parts, pause_s=0.0):
    """Send parts to the first client, with pauses, and hang up."""

    def run():
        connection, _ = server.accept()
        with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.recv(65536)
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_s)

    threading.Thread(target=run, daemon=True).start()


def url(server):
    return f"http://127.0.0.1:{server.getsockname()[1]}/ws"


def test_identity_and_query_are_sent(client, daemon):
    """The user's name and the query travel, whatever they hold; a document is sent as JSON."""
    fake = daemon()
    fake.replies["/ws"] = Reply("{}")
    client.call("PUT", f"{fake.url}/ws", {"a b": "ü&=#"}, {"state": "KILLED"})
    assert fake.requests == [("PUT", "/ws", {"user.name": "alice", "a b": "ü&=#"}, b'{"state": "KILLED"}')]


def test_proxies_are_not_asked(client, daemon, monkeypatch):
    """A proxy that the environment names is never asked for a daemon."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    fake = daemon()
    fake.replies["/ws"] = Reply('{"a": 1}')
    assert client.get(f"{fake.url}/ws").json() == {"a": 1}


def test_refused(client):
    """A port on which nothing listens is said to be that, with host and port, at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UnreachableError) as caught:
        client.get(f"http://127.0.0.1:{port}/ws")
    error = caught.value
    assert (error.host, error.port, error.what, error.why) == (
        "127.0.0.1",
        port,
        f"the ResourceManager at 127.0.0.1:{port} does not answer",
        "the connection was refused: nothing listens on that port",
    )


def test_unknown_host(client, monkeypatch):
    """A host that the name service does not know is said to be that."""

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UnreachableError) as caught:
        client.get("http://rm.example:8088/ws")
    assert (caught.value.host, caught.value.port, caught.value.why) == (
        "rm.example",
        8088,
        "the host name rm.example is not known here (Name or service not known)",
    )


def test_name_service_that_does_not_answer(client, monkeypatch):
    """A name service that does not answer costs no more than a connection may."""
    ended = threading.Event()
    monkeypatch.setattr(rest, "CONNECT_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ended.wait(30) and [])
    with pytest.raises(UnreachableError) as caught:
        client.get("http://rm.example:8088/ws")
    ended.set()
    assert caught.value.why == "the name service did not say within 0.1 s where rm.example is"


def test_every_address_of_a_host_is_tried(client, daemon, monkeypatch):
    """When the first address of a host refuses, the next one is asked."""
    fake = daemon()
    fake.replies["/ws"] = Reply("{}")
    infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, fake.port)) for host in ("127.0.0.2", "127.0.0.1")]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest_, **more: infos if host == "rm" else real(host, *rest_, **more)
    )
    assert client.get(f"http://rm:{fake.port}/ws").json() == {}


def test_accepted_but_never_answered(client, silent, monkeypatch):
    """A daemon that accepts a connection and says nothing is given up, and said to have done so."""
    monkeypatch.setattr(rest, "FIRST_READ_S", 0.1)
    with pytest.raises(UnreachableError) as caught:
        client.get(url(silent))
    assert caught.value.why == "it accepted the connection, but did not answer in time"


def test_limits_are_under_five_seconds():
    """Finding, connecting and waiting for a first answer take less than 5 s together."""
    assert rest.CONNECT_S + rest.FIRST_READ_S < 5


def test_answer_that_never_ends(client, silent, monkeypatch):
    """An answer that comes in drops is given up when the whole takes too long."""
    monkeypatch.setattr(rest, "TOTAL_S", 0.1)
    speak(silent, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b"x"] * 1000, pause_s=0.02)
    with pytest.raises(UnreachableError) as caught:
        client.get(url(silent))
    assert caught.value.why == "the answer was not complete after 0.1 s"


@pytest.mark.parametrize("answer", [b"", b"what?\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"])
def test_no_whole_http_answer(client, silent, answer):
    """A daemon that hangs up early, or does not speak HTTP, is an error that names it, not a traceback."""
    speak(silent, answer)
    with pytest.raises(UnreachableError) as caught:
        client.get(url(silent))
    assert caught.value.port == silent.getsockname()[1]


@pytest.fixture
def certificate(tmp_path):
    """Return a file with a self-signed certificate of 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


def test_tls_is_spoken_with_a_trusted_daemon(client, daemon, certificate, monkeypatch):
    """A daemon whose certificate is trusted is spoken to in TLS."""
    fake = daemon()
    fake.replies["/ws"] = Reply('{"a": 1}')
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    fake.server.socket = context.wrap_socket(fake.server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert client.get(f"https://127.0.0.1:{fake.port}/ws").json() == {"a": 1}


def test_tls_that_cannot_be_trusted(client, silent, certificate):
    """A certificate that nobody vouches for is refused, and the way to trust it is said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def shake_hands():
        connection, _ = silent.accept()
        with contextlib.suppress(ssl.SSLError, OSError), context.wrap_socket(connection, server_side=True):
            pass

    threading.Thread(target=shake_hands, daemon=True).start()
    with pytest.raises(UnreachableError) as caught:
        client.get(url(silent).replace("http:", "https:"))
    assert caught.value.why == "the TLS handshake failed (CERTIFICATE_VERIFY_FAILED)"
    assert "SSL_CERT_FILE" in caught.value.mend


def test_tls_with_a_daemon_that_does_not_speak_it(client, silent):
    """A daemon that answers TLS in plain text is said to have failed the handshake."""
    speak(silent, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(UnreachableError, match="does not answer") as caught:
        client.get(url(silent).replace("http:", "https:"))
    assert caught.value.why.startswith("the TLS handshake failed (")


@pytest.mark.parametrize(
    ("status", "body", "why", "exception"),
    [
        (401, "<html>", "it wants Kerberos (SPNEGO), which this version does not speak yet", ""),
        (
            403,
            '{"RemoteException":{"exception":"ForbiddenException","message":"not yours"}}',
            "not yours",
            "ForbiddenException",
        ),
        (500, '{"RemoteException":{"exception":"IOException","message":"disk"}}', "disk", "IOException"),
        (500, '{"RemoteException": null}', '{"RemoteException": null}', ""),
        (500, "[]", "[]", ""),
        (503, "", "it did not say why", ""),
        (404, b"\xff\xfe", "��", ""),
    ],
)
def test_refusals(client, daemon, status, body, why, exception):
    """A refusal carries its status, the exception and the message that the daemon named, or what it wrote instead."""
    fake = daemon()
    fake.replies["/ws"] = Reply(body, status)
    with pytest.raises(RemoteError) as caught:
        client.get(f"{fake.url}/ws")
    error = caught.value
    assert (error.status, error.why, error.exception) == (status, why, exception)
    assert error.what == f"the ResourceManager at 127.0.0.1:{fake.port} refused /ws (HTTP {status})"


def test_streamed_body_is_refused_like_any_other(client, daemon):
    """A refusal of a streamed resource is the same error."""
    with pytest.raises(RemoteError) as caught, client.stream(f"{daemon().url}/log") as body:
        list(body)
    assert (caught.value.status, caught.value.message) == (404, "not here")
