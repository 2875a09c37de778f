"""A real HTTP server over a fake cluster, in a thread of its own, and clients of every role."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from meshcron.api.app import make_app
from meshcron.api.server import ApiServer, serve
from meshcron.api.settings import ApiSettings, allowed_hosts
from meshcron.service import Elsewhere
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import NODE_ID, SECRETS, FakeCluster

SETTINGS = ApiSettings(
    agent="agent1", node_id=NODE_ID, allowed_hosts=allowed_hosts(["127.0.0.1", "localhost", "agent1.lan", "::1"])
)


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in its own thread."""
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


@pytest.fixture
def cluster() -> FakeCluster:
    """The state behind the API."""
    return FakeCluster()


@pytest.fixture
def settings() -> ApiSettings:
    """What the API is told; a test module may override it."""
    return SETTINGS


Serve = Callable[..., int]
"""(settings, elsewhere=None) -> port."""


@pytest.fixture
def start(loop: asyncio.AbstractEventLoop, cluster: FakeCluster) -> Iterator[Serve]:
    """Starts servers with given settings; answers their ports."""
    servers: list[ApiServer] = []

    async def listen(settings: ApiSettings, elsewhere: Elsewhere | None = None) -> int:
        app = make_app(
            cluster.service(),
            settings,
            wall_clock_us=lambda: cluster.wall_us,
            monotonic=lambda: cluster.monotonic_seconds,
            elsewhere=elsewhere,
        )
        servers.append(serve(app, "127.0.0.1", 0))
        return servers[-1].port

    async def close() -> None:
        for server in servers:
            server.stop()
            await server.close_all_connections()

    yield lambda *args: asyncio.run_coroutine_threadsafe(listen(*args), loop).result(10)
    asyncio.run_coroutine_threadsafe(close(), loop).result(10)


@pytest.fixture
def port(start: Serve, settings: ApiSettings) -> int:
    """The port of a running server."""
    return start(settings)


@pytest.fixture
def admin(port: int) -> Client:
    """Somebody who may do everything."""
    return Client(port, SECRETS["admin"])


@pytest.fixture
def stranger(port: int) -> Client:
    """Somebody without a token."""
    return Client(port)


@pytest.fixture
def open_settings() -> ApiSettings:
    """Authentication off."""
    return msgspec.structs.replace(SETTINGS, auth_on=False)
