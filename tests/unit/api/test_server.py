"""The listening end: ports, limits of a connection, slow clients."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from typing import Any

import pytest
from tornado import http1connection

from meshcron.api import server as server_module
from meshcron.api import views
from meshcron.api.app import make_app
from meshcron.api.intake import DRAIN_BYTES_MAX
from meshcron.api.server import TORNADO_REFUSAL, serve
from meshcron.api.settings import ApiSettings
from meshcron.commands import JobView
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import FakeCluster


def test_port_zero_is_any_free_one(port: int) -> None:
    """And it is told which."""
    assert port > 0


def test_address_in_use(
    cluster: FakeCluster, settings: ApiSettings, port: int, loop: asyncio.AbstractEventLoop
) -> None:
    """Said at once, by the system's own error."""

    async def again() -> None:
        app = make_app(cluster.service(), settings, wall_clock_us=lambda: 0, monotonic=lambda: 0.0)
        serve(app, "127.0.0.1", port)

    with pytest.raises(OSError, match="in use"):
        asyncio.run_coroutine_threadsafe(again(), loop).result(5)


def test_limits_reach_tornado(cluster: FakeCluster, settings: ApiSettings, loop: asyncio.AbstractEventLoop) -> None:
    """Idle time, body time, header and body size are all set: Tornado's defaults are an hour and no limit."""

    async def listen() -> server_module.ApiServer:
        app = make_app(cluster.service(), settings, wall_clock_us=lambda: 0, monotonic=lambda: 0.0)
        server = serve(app, "127.0.0.1", 0)
        server.stop()
        return server

    given = asyncio.run_coroutine_threadsafe(listen(), loop).result(5).conn_params
    assert (given.header_timeout, given.body_timeout) == (server_module.IDLE_SECONDS, server_module.BODY_SECONDS)
    assert given.max_header_size == server_module.HEADER_BUFFER_BYTES
    assert given.max_body_size == DRAIN_BYTES_MAX


class TestSlowClients:
    """Slowloris (FAULTS 47): who sends a byte now and then is cut off, others never notice."""

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server_module, "IDLE_SECONDS", 0.4)
        monkeypatch.setattr(server_module, "BODY_SECONDS", 0.4)

    @pytest.mark.parametrize(
        "begun", [b"", b"GET /v1/jobs HT", b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nA: b\r\n"]
    )
    def test_slow_headers(self, admin: Client, begun: bytes) -> None:
        """Cut off when the time for headers is up, however many come meanwhile."""
        with socket.create_connection(("127.0.0.1", admin.port), timeout=5) as slow:
            slow.sendall(begun)
            began = time.monotonic()
            assert admin("GET", "/v1/jobs").status == 200
            assert slow.recv(100) == b""
            assert time.monotonic() - began < 3

    def test_slow_body(self, admin: Client) -> None:
        """The same for a body that never ends."""
        token = f"Authorization: Bearer {admin.token}"
        request = f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n{token}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", admin.port), timeout=5) as slow:
            slow.sendall(request.encode() + b"{")
            assert admin("GET", "/v1/jobs").status == 200
            assert slow.recv(100) == b""

    def test_many_idle_connections(self, admin: Client) -> None:
        """Two hundred of them are nothing to the next request."""
        idle = [socket.create_connection(("127.0.0.1", admin.port), timeout=5) for _ in range(200)]
        began = time.monotonic()
        assert admin("GET", "/v1/jobs").status == 200
        assert time.monotonic() - began < 1
        for connection in idle:
            connection.close()


def test_slow_reader_holds_nobody_up(admin: Client, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not read a long list stops it where the buffers are full; others are served; then he gets the rest."""
    for number in range(6000):
        cluster.add_job(f"job-{number}", command="x" * 2000)
    rendered: list[str] = []
    real = views.job

    def watched(view: JobView) -> dict[str, Any]:
        rendered.append(view.job.name)
        return real(view)

    monkeypatch.setattr(views, "job", watched)
    request = (
        f"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer {admin.token}\r\n\r\n"
    )
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(10)
        slow.connect(("127.0.0.1", admin.port))
        slow.sendall(request.encode())
        received = len(slow.recv(15))
        before = -1
        while before != len(rendered):
            before = len(rendered)
            time.sleep(0.3)
        assert 0 < before < 6000
        assert admin("GET", "/v1/members").status == 200
        while piece := slow.recv(1 << 20):
            received += len(piece)
    assert len(rendered) == 6000
    assert received > 6000 * 4000


def test_refusal_is_the_one_tornado_sends() -> None:
    """Our JSON takes the place of these very bytes: a Tornado that says something else would be heard here."""
    assert repr(TORNADO_REFUSAL)[1:] in inspect.getsource(http1connection).replace('"', "'")
