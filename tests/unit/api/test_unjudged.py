"""An agent that does not hold the log knows no token: what it is asked, others judge, and nobody slips through."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import msgspec
import pytest

from meshcron.api.app import make_app
from meshcron.api.server import serve
from meshcron.model import Execution
from meshcron.service import VIA_HEADER, OutputChunk, Told
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import NODE_ID, SECRETS, FakeCluster
from tests.unit.api.bad_input import answer_of, head
from tests.unit.api.conftest import SETTINGS

JOB = b'{"name": "a", "schedule": "@daily", "command": "x"}'


class Leader:
    """The agent that knows the tokens, as its asker sees it."""

    def __init__(self) -> None:
        self.leads_here = False
        self.holds_log_here = False
        self.gives_way = False
        """It ends meanwhile, and this agent leads instead."""
        self.asked: list[tuple[str, str, str]] = []

    def knows_tokens(self) -> bool:
        return self.holds_log_here

    def where(self) -> str:
        return "" if self.leads_here else "node-2"

    async def ask(self, to: str, method: str, uri: str, headers: dict[str, str], body: bytes) -> Told | None:
        known = headers.get("Authorization") == f"Bearer {SECRETS['local']}"
        self.asked.append((to, method, uri))
        if self.gives_way:
            return None
        return Told(200 if known else 401, {}, b"{}")

    def ran_here(self, execution: Execution) -> bool:
        return True

    async def output(self, execution: Execution, offset: int, most: int) -> OutputChunk:
        raise NotImplementedError


@pytest.fixture
def leader() -> Leader:
    return Leader()


@pytest.fixture
def port(loop: asyncio.AbstractEventLoop, cluster: FakeCluster, leader: Leader) -> Iterator[int]:
    """Of an agent without the log."""

    async def listen() -> object:
        app = make_app(
            cluster.service(),
            msgspec.structs.replace(SETTINGS, passing_secret="ours"),
            wall_clock_us=lambda: cluster.wall_us,
            monotonic=lambda: cluster.monotonic_seconds,
            elsewhere=leader,
        )
        return serve(app, "127.0.0.1", 0)

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    yield server.port  # type: ignore[attr-defined]

    async def close() -> None:
        server.stop()  # type: ignore[attr-defined]
        await server.close_all_connections()  # type: ignore[attr-defined]

    asyncio.run_coroutine_threadsafe(close(), loop).result(10)


@pytest.mark.parametrize("path", ["/v1/", "/metrics", "/v1/isleader"])
def test_what_one_agent_tells_of_itself(path: str, port: int, leader: Leader) -> None:
    """It answers for itself once the leader knows the token, and gives back the leader's refusal."""
    assert Client(port, SECRETS["local"])("GET", path).status == 200
    assert leader.asked == [("node-2", "GET", "/v1/leader")]
    assert Client(port, "wrong")("GET", path).status == 401
    assert Client(port)("GET", path).status == 401


@pytest.mark.parametrize("holds_log", [True, False])
def test_leave_is_passed_on_by_node_id(holds_log: bool, port: int, leader: Leader) -> None:
    """By its name another one might be removed: a newcomer that took it. Without the log the leader judges who asks."""
    leader.holds_log_here = holds_log
    Client(port, SECRETS["admin"] if holds_log else "only the leader knows it")("POST", "/v1/leave")
    assert leader.asked[-1] == ("node-2", "DELETE", f"/v1/members/{NODE_ID}")


def test_a_request_that_began_before_the_agent_led(port: int, leader: Leader, cluster: FakeCluster) -> None:
    """Its headers came when no token was known here. By the time its body is whole the agent leads, and could do what
    it asks; nobody has judged it, so nothing is done."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
        caller.sendall(head("POST", "/v1/jobs", f"Content-Length: {len(JOB)}") + JOB[:10])
        assert Client(port, SECRETS["local"])("GET", "/metrics").status == 200  # the headers have been read
        leader.leads_here = leader.holds_log_here = True
        caller.sendall(JOB[10:])
        assert answer_of(caller.recv(65536)).status == 503
    assert cluster.commands == []


def test_a_call_of_another_agent(port: int, cluster: FakeCluster) -> None:
    """Passed on to an agent that cannot judge it: refused, not done, and not passed on for ever."""
    for method, path in (("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("GET", "/metrics")):
        headers = {VIA_HEADER: "ours node-3"}
        body = {"name": "a", "schedule": "@daily", "command": "x"} if method == "POST" else None
        assert Client(port, SECRETS["admin"])(method, path, body, headers).status == 503
    assert cluster.commands == []


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/jobs"), ("POST", "/v1/leave")])
def test_an_agent_that_leads_meanwhile_does_it_itself(
    method: str, path: str, port: int, leader: Leader, cluster: FakeCluster
) -> None:
    """It was about to pass the request on, and knows who asks."""
    leader.gives_way = leader.holds_log_here = True
    body = {"name": "a", "schedule": "@daily", "command": "x"} if path == "/v1/jobs" else None
    assert Client(port, SECRETS["admin"])(method, path, body).status in {201, 202}
    assert len(leader.asked) == len(cluster.commands) == 1


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/jobs", "no_leader"),
        ("GET", "/metrics", "no_leader"),
        ("POST", "/v1/jobs", "outcome_unknown"),
        ("POST", "/v1/leave", "outcome_unknown"),
    ],
)
def test_nobody_slips_through_where_the_leader_gives_way(
    method: str, path: str, code: str, port: int, leader: Leader, cluster: FakeCluster
) -> None:
    """Nobody has judged this request here."""
    leader.gives_way = True
    answer = Client(port, SECRETS["admin"])(method, path, {} if method == "POST" else None)
    assert (answer.status, answer.error["code"]) == (503, code)
    assert cluster.commands == []
