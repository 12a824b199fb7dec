"""What every unit test stands on: no settings but its own, and paths that break careless code."""

from __future__ import annotations

import http.server
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import pytest

from clusterkit.settings import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the settings, caches and clusters of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith(("CLUSTERKIT_", "_CLUSTERKIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(files, "SYSTEM_FILE", tmp_path / "etc" / "clusterkit.toml")


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty directory that is the working directory."""
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a directory whose name holds what shells, XML, YAML and URIs trip over."""
    directory = tmp_path / "a b'c\"d;e&f<g>%41 \n é 日本"
    directory.mkdir()
    return directory


@dataclass
class Reply:
    """What a fake daemon answers to one request."""

    body: bytes | str = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeDaemon:
    """A daemon of Hadoop that speaks its HTTP: `replies` says what it answers by path, `requests` what it was asked."""

    server: http.server.ThreadingHTTPServer
    replies: dict[str, Reply | Callable[..., Reply]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The port it listens on, on loopback."""
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, method: str, target: str, body: bytes) -> Reply:
        """Look up what to answer; an unknown path is a 404 as YARN writes it."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        self.requests.append((method, parts.path, query, body))
        reply = self.replies.get(parts.path)
        if reply is None:
            error = '{"RemoteException":{"exception":"NotFoundException","message":"not here"}}'
            return Reply(error, 404, {"Content-Type": "application/json"})
        return reply(query) if callable(reply) else reply


@pytest.fixture
def daemon() -> Iterator[Callable[[], FakeDaemon]]:
    """Make fake daemons on loopback, which end with the test."""
    made: list[FakeDaemon] = []

    def make() -> FakeDaemon:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                reply = fake.answer(self.command, self.path, body)
                content = reply.body.encode() if isinstance(reply.body, str) else reply.body
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = handle_one  # noqa: N815 - the names http.server looks for

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        fake = FakeDaemon(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        fake.server.daemon_threads = True
        threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        made.append(fake)
        return fake

    yield make
    for fake in made:
        fake.server.shutdown()
        fake.server.server_close()
