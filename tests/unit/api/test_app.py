"""The API as a whole: every route, method and role; every error in one shape; any body at all."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from tornado.web import HTTPError

from meshcron import errors
from meshcron.api import forms
from meshcron.api.app import HTTP_ERRORS, ROUTES, STATUS, make_app, refusal
from meshcron.api.execution_list import COLUMNS as EXECUTION_COLUMNS
from meshcron.api.handler import Handler
from meshcron.api.router import Route
from meshcron.api.server import ApiServer, serve
from meshcron.api.settings import ApiSettings
from meshcron.errors import MeshcronError
from meshcron.model import RANKS, Role, Status
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import SECRETS, FakeCluster

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get")

OPEN_PATHS = {"/health", "/ready"}
"""The only paths that need no token: what a load balancer asks."""

NEEDED = {
    ("/v1/jobs", "POST"): "editor",
    ("/v1/jobs", "PATCH"): "editor",
    ("/v1/jobs/{name}", "PUT"): "editor",
    ("/v1/jobs/{name}", "PATCH"): "editor",
    ("/v1/jobs/{name}", "DELETE"): "editor",
    ("/v1/jobs/{name}", "POST"): "operator",
    ("/v1/jobs/{name}/run", "POST"): "operator",
    ("/v1/jobs/{name}/toggle", "POST"): "operator",
    ("/v1/jobs/{name}/executions", "DELETE"): "editor",
    ("/v1/executions/{name}", "DELETE"): "editor",
    ("/v1/jobs/{name}/executions/{id}/kill", "POST"): "operator",
    ("/v1/executions/{name}/{id}/kill", "POST"): "operator",
    ("/v1/runs/{id}/kill", "POST"): "operator",
    ("/v1/members/{name}", "DELETE"): "admin",
    ("/v1/leave", "POST"): "admin",
    ("/v1/tokens", "GET"): "admin",
    ("/v1/tokens", "POST"): "admin",
    ("/v1/tokens/{id}", "DELETE"): "admin",
    ("/v1", "GET"): "local",
    ("/v1/members", "GET"): "local",
    ("/v1/leader", "GET"): "local",
    ("/v1/isleader", "GET"): "local",
    ("/metrics", "GET"): "local",
}
"""API.md, Who may: local (agents, leader) < viewer < operator (run, kill, toggle) < editor (jobs) < admin (tokens).
All else is looking."""


def path_of(route: str, cluster: FakeCluster) -> str:
    """A path of this route under which there is something."""
    if "a" not in cluster.views:
        cluster.add_job("a")
    execution = cluster.add_execution("a", Status.RUNNING)
    cluster.outputs[execution.id] = b"so far"
    token = cluster.token_rows.get("id-spare") or cluster.add_token("spare", "spare", "viewer")
    ids = {"/v1/runs": execution.run_id, "/v1/tokens": token.id}
    given_id = next((found for start, found in ids.items() if route.startswith(start)), execution.public_id)
    query = "?schedule=@daily" if route == "/v1/explain" else ""
    return route.replace("{name}", "a").replace("{id}", given_id) + query


def body_of(route: str, method: str) -> dict[str, object] | None:
    if method not in {"POST", "PUT", "PATCH"}:
        return None
    if route == "/v1/tokens":
        return {"name": "new", "role": "viewer"}
    return {"name": "a", "schedule": "@daily", "command": "x"} if "jobs" in route and "kill" not in route else None


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_every_method_and_role(route: Any, port: int, cluster: FakeCluster) -> None:
    """Who is below the role a method needs gets 403, without a token 401, a method nobody declared 405: no exceptions.

    The matrix is made from the router; what each method needs stands in NEEDED, apart from the handlers.
    """
    for method in METHODS:
        need = "open" if route.path in OPEN_PATHS else NEEDED.get((route.path, "GET" if method == "HEAD" else method))
        known = method in route.handler.methods()
        if known and need is None:
            need = "viewer"
            assert method in {"GET", "HEAD"}, f"{method} {route.path} changes something and is not in NEEDED"
        for role in (None, *RANKS):
            client = Client(port, SECRETS[role] if role else None)
            answer = client(method, path_of(route.path, cluster), body_of(route.path, method))
            cluster.token_rows.pop("id-new", None)
            for token in [t for t in cluster.token_rows.values() if t.name == "new"]:
                del cluster.token_rows[token.id]
            if not known:
                assert answer.status == 405
                assert answer.headers["Allow"] == ", ".join(route.handler.methods())
            elif need == "open":
                assert answer.status == 200
            elif role is None:
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            elif RANKS.index(role) < RANKS.index(need):
                assert answer.status == 403
            else:
                assert answer.status in {200, 201, 202}
            assert method in {"HEAD", "CONNECT"} or answer.body
            if method == "HEAD":
                assert not answer.body


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("role", [None, "admin"])
def test_an_unknown_path(port: int, method: str, role: Role | None) -> None:
    """Whatever the method, and however few of them anybody knows: 404 in our shape, and no list of methods."""
    answer = Client(port, SECRETS[role] if role else None)(method, "/v1/nowhere")
    assert (answer.status, answer.headers["Allow"]) == (404, None)
    if method not in {"HEAD", "CONNECT"}:
        assert answer.error["code"] == "no_such_path"
    foreign = Client(port)(method, "/v1/nowhere", headers={"Origin": "http://evil.example"})
    assert foreign.status == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_the_page_says_is_not_there_is_not(admin: Client, method: str) -> None:
    """Whoever builds it takes it from the list."""
    page = (Path(__file__).parents[3] / "docs/API.md").read_text().partition("\n## Not there yet\n")[2]
    paths = re.findall(r"`(/[^`]*)`", page)
    assert paths
    assert {path: admin(method, path).error["code"] for path in paths} == dict.fromkeys(paths, "no_such_path")


def test_every_defined_method_is_declared() -> None:
    """A handler with a method outside its NEEDS would be a method nobody can call: a slip."""
    for route in ROUTES:
        defined = {name.upper() for name, _ in inspect.getmembers(route.handler, inspect.isfunction)} & set(METHODS)
        inherited = {"HEAD"}
        unimplemented = {
            name for name in defined if getattr(route.handler, name.lower()) is getattr(Handler, name.lower())
        }
        assert defined - unimplemented - inherited == set(route.handler.NEEDS)


def test_a_method_without_a_role_is_refused(port: int, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default deny: take the entry out of the table and nobody gets in, whatever the class can do."""
    cluster.add_job("a")
    handler = next(route.handler for route in ROUTES if route.path == "/v1/jobs/{name}")
    monkeypatch.setattr(handler, "NEEDS", {"GET": "viewer"})
    answer = Client(port, SECRETS["admin"])("DELETE", "/v1/jobs/a")
    assert answer.status == 405
    assert "a" in cluster.views


def test_every_error_has_a_status() -> None:
    """Each class of errors.py that can reach the API is mapped, itself or by its base; start errors are not."""
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, MeshcronError) and kind is not MeshcronError and not issubclass(kind, errors.StartRefused):
            assert any(base in STATUS for base in kind.__mro__), name


ERRORS = [
    (errors.InvalidRequest("field", "why", "hint"), 400, "invalid_request"),
    (errors.InvalidSchedule("minute 60 is above 59", "0-59", 3), 400, "invalid_schedule"),
    (errors.TooLarge("body", "why", "hint"), 413, "too_large"),
    (errors.Unsupported("body", "why", "hint"), 415, "unsupported_media_type"),
    (errors.UnknownJob("a"), 404, "unknown_job"),
    (errors.UnknownExecution("a"), 404, "unknown_execution"),
    (errors.NotFound("token", "a"), 404, "not_found"),
    (errors.Conflict("field", "why", "hint"), 409, "conflict"),
    (errors.PreconditionFailed("why"), 412, "precondition_failed"),
    (errors.Unauthenticated("why"), 401, "unauthenticated"),
    (errors.Forbidden("why"), 403, "forbidden"),
    (errors.TooManyAttempts(7), 429, "too_many_attempts"),
    (errors.NotLeader("why"), 503, "not_leader"),
    (errors.NoLeader("why"), 503, "no_leader"),
    (errors.RefusedByMembers("why"), 503, "refused_by_members"),
    (errors.OutcomeUnknown("why"), 503, "outcome_unknown"),
    (errors.DamagedStore("why"), 500, "internal"),
    (ZeroDivisionError("secret detail"), 500, "internal"),
    (HTTPError(405), 405, "method_not_allowed"),
    (HTTPError(411), 411, "length_required"),
    (HTTPError(418), 500, "internal"),
]


@pytest.mark.parametrize(("error", "status", "code"), ERRORS)
def test_error(error: Exception, status: int, code: str) -> None:
    """One shape: code, message, field, hint; never a detail of what is our own fault."""
    found = refusal(error)
    assert (found.status, found.error["code"]) == (status, code)
    assert {"code", "message", "field", "hint"} <= found.error.keys()
    assert found.error["message"]
    assert "secret" not in str(found)


def test_error_headers() -> None:
    """When to come back, and the column of a wrong schedule."""
    assert refusal(errors.TooManyAttempts(7)).headers == {"Retry-After": "7"}
    assert refusal(errors.TooManyAttempts(7)).error["hint"] == "send a valid token in 7 s"
    assert refusal(errors.OutcomeUnknown("x")).headers == {"Retry-After": "1"}
    assert refusal(errors.InvalidSchedule("minute 60 is above 59", "0-59", 3)).error["column"] == 3


def test_a_bug_shows_nothing(admin: Client, cluster: FakeCluster, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected error is 500 in JSON for the caller, and a stack in the log for us."""
    cluster.fails = RuntimeError("secret detail")
    answer = admin("POST", "/v1/jobs", {"name": "a", "schedule": "@daily", "command": "x"})
    assert answer.status == 500
    assert answer.error["code"] == "internal"
    assert b"secret" not in answer.body
    assert "Traceback" in caplog.text


class Extra(Handler):
    """A page, as another package adds it."""

    NEEDS: ClassVar = {"GET": "viewer"}

    def get(self) -> None:
        self.show({"extra": True})

    def post(self) -> None:
        self.show({"extra": True})


def test_more_routes(cluster: FakeCluster, settings: ApiSettings, loop: asyncio.AbstractEventLoop) -> None:
    """What is added is judged by the same gate, and a method it does not declare does not exist."""

    async def listen() -> ApiServer:
        routes = [Route("/extra", Extra)]
        app = make_app(cluster.service(), settings, wall_clock_us=lambda: 0, monotonic=lambda: 0.0, more_routes=routes)
        return serve(app, "127.0.0.1", 0)

    async def close() -> None:
        server.stop()
        await server.close_all_connections()

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(5)
    try:
        viewer = Client(server.port, SECRETS["viewer"])
        assert viewer("GET", "/extra/").json == {"extra": True}
        assert viewer("POST", "/extra").status == 405
        assert Client(server.port)("GET", "/extra").status == 401
        assert viewer("GET", "/v1/jobs").status == 200
    finally:
        asyncio.run_coroutine_threadsafe(close(), loop).result(5)


def test_documented() -> None:
    """docs/API.md names every code of an error, every field of a job and every parameter of a list."""
    text = (Path(__file__).parents[3] / "docs" / "API.md").read_text()
    codes = {kind.code for kind in STATUS if hasattr(kind, "code")} | {code for code, _, _ in HTTP_ERRORS.values()}
    codes |= {"invalid_schedule", "unknown_job", "unknown_execution", "internal"}
    words = (
        codes | forms._JOB.keys() | set(EXECUTION_COLUMNS) | {str(status) for status in Status} | {"_sort", "_order"}
    )
    assert {word for word in words if f"`{word}`" not in text} == set()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    "name schedule command owner owner_email run_as_user disabled tags metadata executor executor_config env timeout"
    " retries retry_delay retry_backoff parent_job parent_jobs limits history success_exit_codes starts_at expires_at"
    " role expires_in expires_at payload shell cwd nice when concurrency processors".split()
)
BODIES = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.dictionaries(KEYS, JSON, max_size=6).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.dictionaries(KEYS, JSON, max_size=4).map(
        lambda more: json.dumps({"name": "a", "schedule": "@daily", "command": "x"} | more).encode()
    ),
)
WRITES = [
    ("POST", "/v1/jobs"),
    ("PUT", "/v1/jobs/a"),
    ("PATCH", "/v1/jobs/a"),
    ("POST", "/v1/jobs/a"),
    ("POST", "/v1/jobs/a/toggle"),
    ("POST", "/v1/tokens"),
]


@examples(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(write=st.sampled_from(WRITES), body=BODIES)
def test_any_body(port: int, cluster: FakeCluster, write: tuple[str, str], body: bytes) -> None:
    """Whatever is sent: JSON comes back, with a status that blames the sender or nobody, never us."""
    cluster.add_job("a")
    method, path = write
    answer = Client(port, SECRETS["admin"])(method, path, raw=body)
    assert 200 <= answer.status < 500
    assert isinstance(answer.json, dict)
    if answer.status >= 400:
        assert answer.error["message"]
        assert answer.error["code"]


STARTS = ["/", "/v1/jobs/", "/v1/jobs?", "/v1/executions/a/", "/v1/history?", "/v1/explain?schedule="]
TARGETS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f#", exclude_categories=["Cc"]),
    max_size=40,
)


@examples(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "DELETE"]),
    start=st.sampled_from(STARTS),
    rest=TARGETS,
)
def test_any_path(port: int, cluster: FakeCluster, method: str, start: str, rest: str) -> None:
    """Whatever stands in the request line: JSON with 2xx or 4xx."""
    cluster.add_job("a")
    request = f"{method} {start}{rest} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    token = f"Authorization: Bearer {SECRETS['admin']}\r\n\r\n"
    received = Client(port).bytes((request + token).encode("latin-1"))
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    assert 200 <= status < 500
    assert b"Content-Type: application/json" in head
    assert method == "HEAD" or json.loads(body) is not None
