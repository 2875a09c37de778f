"""A request without a socket is answered as one over a socket is."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, ClassVar

import pytest

from meshcron.api.app import Api, make_app
from meshcron.api.handler import Handler
from meshcron.api.inside import ask_inside
from meshcron.api.router import Route
from meshcron.api.server import ApiServer, serve
from meshcron.api.settings import ApiSettings
from meshcron.errors import NoLeader
from meshcron.model import Status
from meshcron.service import VIA_HEADER, Told
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import SECRETS, FakeCluster

MOST = 1 << 20
HOP_HEADERS = {"date", "content-length", "connection", "transfer-encoding"}
ADMIN = {"Authorization": f"Bearer {SECRETS['admin']}"}
VIEWER = {"Authorization": f"Bearer {SECRETS['viewer']}"}
JOB = b'{"name": "new", "schedule": "@manually", "command": "true"}'
LARGE = b'{"name": "big", "schedule": "@manually", "command": "echo ' + b"x" * 60_000 + b'"}'
OUTPUT = "/v1/executions/there/1893456101000000102-agent1/output"
"""Of the fake cluster's first execution."""


class Nothing(Handler):
    """An answer without a body."""

    NEEDS: ClassVar = {"GET": "open"}

    def get(self) -> None:
        """204."""
        self.set_status(204)


class Both:
    """One API, asked by either way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, api: Api, port: int) -> None:
        self.loop = loop
        self.api = api
        self.client = Client(port)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def inside(
        self, method: str, uri: str, headers: Mapping[str, str] = ADMIN, body: bytes = b"", most: int = MOST
    ) -> Told | None:
        told: Told | None = self.run(ask_inside(self.api, method, uri, headers, body, most=most))
        return told


@pytest.fixture
def both(loop: asyncio.AbstractEventLoop, cluster: FakeCluster, settings: ApiSettings) -> Iterator[Both]:
    """A server on a free port, and the same application without it."""

    async def listen() -> tuple[Api, ApiServer]:
        api = make_app(
            cluster.service(),
            settings,
            wall_clock_us=lambda: cluster.wall_us,
            monotonic=lambda: cluster.monotonic_seconds,
            more_routes=[Route("/nothing", Nothing)],
        )
        return api, serve(api, "127.0.0.1", 0)

    async def close() -> None:
        server.stop()
        await server.close_all_connections()

    api, server = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    yield Both(loop, api, server.port)
    asyncio.run_coroutine_threadsafe(close(), loop).result(10)


def lasting(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP_HEADERS}


@pytest.mark.parametrize(
    ("method", "uri", "headers", "body"),
    [
        ("POST", "/v1/jobs", ADMIN, JOB),
        ("POST", "/v1/jobs", VIEWER, JOB),
        ("POST", "/v1/jobs", {}, JOB),
        ("POST", "/v1/jobs", {"Authorization": "Bearer wrong"}, JOB),
        ("POST", "/v1/jobs", ADMIN, b"{"),
        ("POST", "/v1/jobs", ADMIN, b'{"name": "new", "schedule": "sometimes", "command": "x"}'),
        ("POST", "/v1/jobs", ADMIN, LARGE),
        ("POST", "/v1/jobs", ADMIN, b"x" * (MOST + 1)),
        ("POST", "/v1/jobs", {}, b"x" * (MOST + 1)),
        ("POST", "/v1/jobs", {"Expect": "100-continue"}, JOB),
        ("POST", "/v1/jobs", {**ADMIN, "Content-Encoding": "gzip"}, JOB),
        ("PUT", "/v1/jobs/there", {**ADMIN, "If-None-Match": "*"}, b'{"schedule": "@manually", "command": "x"}'),
        ("DELETE", "/v1/jobs/there", ADMIN, b""),
        ("DELETE", "/v1/jobs/nowhere", ADMIN, b""),
        ("DELETE", "/v1/jobs", ADMIN, b""),
        ("BREW", "/v1/jobs", ADMIN, b""),
        ("GET", "/v1/jobs?pretty", ADMIN, b""),
        ("HEAD", "/v1/jobs/there", ADMIN, b""),
        ("HEAD", OUTPUT, ADMIN, b""),
        ("GET", "/v1/executions/there", ADMIN, b""),
        ("GET", OUTPUT, ADMIN, b""),
        ("GET", OUTPUT, {**ADMIN, "Accept": "text/event-stream"}, b""),
        ("GET", "/v1/no/such/path", ADMIN, b""),
        ("GET", "/v1/no/such/path", {}, b""),
        ("GET", "/v1/jobs/%ff", ADMIN, b""),
        ("GET", "/v1/jobs?_start=x", ADMIN, b""),
        ("GET", "/v1/jobs/" + "x" * 20_000, ADMIN, b""),
        ("GET", "/v1/jobs", {**ADMIN, "X-Long": "x" * 40_000}, b""),
        ("GET", "/v1/jobs", {**ADMIN, "Origin": "http://elsewhere"}, b""),
        ("GET", "/v1/jobs", {**ADMIN, VIA_HEADER: "guessed node-2"}, b""),
        ("GET", "/health", {}, b""),
        ("GET", "/nothing", {}, b""),
    ],
)
def test_it_is_answered_as_over_a_socket(
    both: Both, cluster: FakeCluster, method: str, uri: str, headers: dict[str, str], body: bytes
) -> None:
    """Status, headers and body, whether it is done, refused, unknown, too large or without a body."""

    def scene() -> None:
        FakeCluster.__init__(cluster)
        cluster.add_job("there")
        cluster.outputs[cluster.add_execution("there").id] = b"line\n" * 50_000

    scene()
    direct = both.client(method, uri, headers=headers, raw=body or None)
    scene()
    told = both.inside(method, uri, headers, body)
    assert told is not None
    assert told.status == direct.status
    assert lasting(told.headers) == lasting(dict(direct.headers.items()))
    assert told.body == direct.body
    assert uri != OUTPUT or told.status == 200


@pytest.mark.parametrize(
    ("method", "uri", "headers"),
    [
        ("GET", "/v1/jobs\r\nX-Injected: 1", ADMIN),
        ("GET /v1/jobs HTTP/1.1\r\n", "/", ADMIN),
        ("", "/v1/jobs", ADMIN),
        ("GET", "", ADMIN),
        ("GET", "/v1/jobs", {**ADMIN, "X-One": "1\r\nX-Two: 2"}),
        ("GET", "/v1/jobs", {**ADMIN, "X One": "1"}),
        ("GET", "/v1/jobs", {**ADMIN, "X-One": "\u0100"}),
    ],
)
def test_what_no_socket_would_have_let_in_is_refused(
    both: Both, method: str, uri: str, headers: dict[str, str]
) -> None:
    """Another agent may send anything: a broken request line or header gets the 400 of a malformed request."""
    told = both.inside(method, uri, headers)
    assert told is not None
    assert told.status == 400
    assert b"not well-formed" in told.body


def test_headers_about_the_connection_say_nothing(both: Both) -> None:
    """Nobody talks a host, a length or an encoding of the body into it."""
    lies = {"host": "elsewhere", "content-length": "9" * 18, "transfer-encoding": "chunked", "connection": "close"}
    told = both.inside("POST", "/v1/jobs", {**lies, **ADMIN}, JOB)
    assert told is not None
    assert told.status == 201


def test_an_error_of_the_cluster_is_told(both: Both, cluster: FakeCluster) -> None:
    """With its headers."""
    cluster.fails = NoLeader("nobody leads")
    told = both.inside("POST", "/v1/jobs", ADMIN, JOB)
    assert told is not None
    assert (told.status, told.headers["Retry-After"]) == (503, "1")


def test_an_answer_that_is_too_large_is_none(both: Both, cluster: FakeCluster) -> None:
    """It is given up as soon as it is; what fits exactly is told."""
    cluster.add_job("there")
    cluster.outputs[cluster.add_execution("there").id] = b"x" * 200_000
    assert both.inside("GET", OUTPUT, most=199_999) is None
    told = both.inside("GET", OUTPUT, most=200_000)
    assert told is not None
    assert told.body == b"x" * 200_000


async def looked(cluster: FakeCluster, times: int) -> None:
    """Wait until somebody has read an output so often."""
    async with asyncio.timeout(5):
        while cluster.reads < times:  # noqa: ASYNC110 - the fake sets no asyncio.Event
            await asyncio.sleep(0.001)


def test_an_answer_that_breaks_off_is_none(both: Both, cluster: FakeCluster) -> None:
    """Not half of it: whoever passed the request on says that there was no answer, and is asked again."""
    cluster.add_job("there")
    running = cluster.add_execution("there", Status.RUNNING)
    cluster.outputs[running.id] = b"begun"

    async def broken() -> Told | None:
        asked = asyncio.ensure_future(ask_inside(both.api, "GET", f"{OUTPUT}?follow=true", ADMIN, b"", most=MOST))
        await looked(cluster, 1)
        cluster.unread = NoLeader("the agent that ran it cannot show its output at the moment; try again")
        return await asked

    assert both.run(broken()) is None


def test_a_handler_hears_that_the_asker_is_gone(both: Both, cluster: FakeCluster) -> None:
    """Somebody follows an output that has no end: once the call is given up, nobody looks at it any more."""
    cluster.add_job("there")
    running = cluster.add_execution("there", Status.RUNNING)
    cluster.outputs[running.id] = b"begun"

    async def given_up() -> tuple[set[asyncio.Task[Any]], set[asyncio.Task[Any]]]:
        before = asyncio.all_tasks()
        asked = asyncio.ensure_future(ask_inside(both.api, "GET", f"{OUTPUT}?follow=true", ADMIN, b"", most=MOST))
        await looked(cluster, 2)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        left = asyncio.all_tasks() - before
        await asyncio.wait(left, timeout=5) if left else None
        return left, {one for one in left if not one.done()}

    left, still = both.run(given_up())
    assert left, "nobody followed it"
    assert not still
