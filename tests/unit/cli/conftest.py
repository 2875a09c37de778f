"""A small agent that speaks the HTTP contract on 127.0.0.1, and the command line to try on it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from click.testing import CliRunner, Result

from meshcron.cli.root import root

NEVER = "0001-01-01T00:00:00Z"
TOKEN = "a-token-for-tests"


def make_job(name: str, **more: Any) -> dict[str, Any]:
    """A job as the contract shows it, with the keys the command line looks at."""
    return {
        "id": name,
        "name": name,
        "schedule": "@every 10s",
        "timezone": "",
        "command": "true",
        "disabled": False,
        "tags": {},
        "status": "",
        "next": NEVER,
        "expires_at": NEVER,
        "retries": 0,
        "retry_delay": "0s",
        "retry_backoff": 1.0,
        "success_count": 0,
        "error_count": 0,
        "last_success": NEVER,
        "last_error": NEVER,
        **more,
    }


def make_execution(job: str, ident: str, **more: Any) -> dict[str, Any]:
    """An execution as the contract shows it: by default one that succeeded on the only agent."""
    return {
        "id": ident,
        "job_name": job,
        "run_id": "run-1",
        "started_at": "2026-01-31T12:00:00Z",
        "finished_at": "2026-01-31T12:00:01.5Z",
        "scheduled_at": "2026-01-31T12:00:00Z",
        "success": True,
        "node_name": "one",
        "attempt": 1,
        "status": "success",
        "reason": "",
        "trigger": "manual",
        "exit_code": 0,
        "signal": None,
        "duration_ms": 1500,
        "count": 1,
        **more,
    }


def make_member(name: str, **more: Any) -> dict[str, Any]:
    """A member as the contract shows it."""
    return {
        "Name": name,
        "Addr": "127.0.0.1",
        "Port": 8947,
        "Tags": {},
        "Status": 1,
        "voter": True,
        "leader": False,
        "version": "0.1.0",
        "running": 0,
        "clock_skew_ms": 0,
        "facts": {"meshcron.os": "linux"},
        **more,
    }


@dataclass
class Request:
    """What the command line sent."""

    method: str
    path: str
    """As it went over the wire, still encoded."""
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    status: int
    value: Any
    headers: dict[str, str] = field(default_factory=dict)


def refused(status: int, code: str, message: str, hint: str = "", name: str = "") -> Reply:
    """An answer in the API's error shape."""
    return Reply(status, {"error": {"code": code, "message": message, "field": name, "hint": hint}})


@dataclass
class FakeAgent:
    """The state behind the fake API, for a test to set and to look at."""

    url: str = ""
    token: str = TOKEN
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    """How often a job was toggled."""
    executions: list[dict[str, Any]] = field(default_factory=list)
    outputs: dict[str, bytes] = field(default_factory=dict)
    not_kept: int = 0
    """How many bytes the first line of each output stands for, besides its own."""
    members: list[dict[str, Any]] = field(default_factory=lambda: [make_member("one", leader=True)])
    tokens: list[dict[str, Any]] = field(default_factory=list)
    mesh: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    """Runs of every job that wait, for their turn or for another attempt."""
    goes_on: bool = False
    """Whether more of a run will come, though nothing of it is open."""
    scripted: dict[tuple[str, str], list[Reply]] = field(default_factory=dict)
    """Answers to give first, in turn, by method and path."""
    on_look: Callable[[FakeAgent], None] = lambda _: None
    """Called before a run is looked at: lets the story go on between two looks."""
    on_read: Callable[[FakeAgent], None] = lambda _: None
    """Called after a job was read: somebody else changes it then."""

    def toggle(self, name: str) -> None:
        self.jobs[name]["disabled"] = not self.jobs[name]["disabled"]
        self.revisions[name] = self.revisions.get(name, 0) + 1

    def _etag(self, name: str) -> str:
        return f'"{self.revisions.get(name, 0)}"'

    def will_answer(self, method: str, path: str, *replies: Reply) -> None:
        self.scripted[method, path] = list(replies)

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return refused(401, "unauthenticated", "a token is needed")
        planned = self.scripted.get((request.method, request.path))
        if planned:
            return planned.pop(0)
        parts = [unquote(part) for part in request.path.removeprefix("/v1/").split("/")]
        match (request.method, *parts):
            case ("GET", "", "ready"):
                return Reply(200, {"ready": True})
            case ("GET", ""):
                page = {"agent": {"name": "one", "version": "0.1.0"}, "serf": {}, "tags": {"role": "db"}}
                return Reply(200, {**page, "mesh": self.mesh})
            case ("GET", "members"):
                return Reply(200, self.members)
            case ("GET", "history"):
                return Reply(200, self._history(request.query))
            case ("POST", "runs", run, "kill"):
                return self._kill_run(run)
            case ("GET", "runs", run):
                self.on_look(self)
                return self._run(run)
            case (_, "tokens", *rest):
                return self._tokens(request, rest)
            case (_, "jobs", *rest):
                return self._jobs(request, rest)
            case (_, "executions", job, ident, *verb):
                return self._execution(job, ident, *verb)
        return refused(404, "not_found", "no such path")

    def _history(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        wanted, status = query.get("job", [""])[0], query.get("status", [""])[0]
        found = [each for each in self.executions if wanted in ("", each["job_name"])]
        return [each for each in found if status in ("", each["status"])]

    def _run(self, run: str) -> Reply:
        found = [each for each in self.executions if each["run_id"] == run]
        if not found and not self.goes_on:
            return refused(404, "unknown_execution", f"no execution named {run!r}")
        over = not self.goes_on and not any(each["status"] in {"armed", "waiting", "running"} for each in found)
        return Reply(200, found, {"X-Meshcron-Over": "true" if over else "false"})

    def _open_of(self, **wanted: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for each in self.executions:
            named = all(each[key] == value for key, value in wanted.items())
            if named and each["status"] in {"armed", "waiting", "running"}:
                found.setdefault(each["run_id"], []).append(each["id"])
        return found

    def _kill_run(self, run: str) -> Reply:
        ids = self._open_of(run_id=run).get(run, [])
        if not ids and run not in self.waiting:
            return refused(404, "unknown_execution", f"no execution named {run!r}")
        for each in self.executions:
            if each["id"] in ids:
                each["status"] = "killed"
        self.waiting = [each for each in self.waiting if each != run]
        return Reply(200, {"run_id": run, "executions": ids})

    def _jobs(self, request: Request, rest: list[str]) -> Reply:
        match (request.method, *rest):
            case ("GET",):
                return Reply(200, list(self.jobs.values()))
            case ("POST",):
                name = request.body["name"]
                if name in self.jobs and request.headers.get("If-None-Match") == "*":
                    return refused(412, "precondition_failed", "there is one")
                self.jobs[name] = make_job(name, **{k: v for k, v in request.body.items() if k != "name"})
                return Reply(201, self.jobs[name])
        name = rest[0]
        if name not in self.jobs:
            return refused(404, "unknown_job", f"no job named {name!r}")
        match (request.method, *rest[1:]):
            case ("GET",):
                answer = Reply(200, dict(self.jobs[name]), {"ETag": self._etag(name)})
                self.on_read(self)
                return answer
            case ("DELETE",):
                return Reply(200, self.jobs.pop(name))
            case ("POST", "toggle"):
                if request.headers.get("If-Match") not in (None, self._etag(name)):
                    return refused(412, "precondition_failed", "the job is at another revision")
                self.toggle(name)
                return Reply(200, self.jobs[name])
            case ("POST", "run"):
                return Reply(200, self.jobs[name], {"X-Meshcron-Run": "run-1"})
            case ("GET", "runs"):
                found = self._open_of(job_name=name) | {run: [] for run in self.waiting}
                return Reply(200, [{"run_id": run, "executions": ids} for run, ids in found.items()])
            case ("GET", "executions"):
                start, end = (int(request.query[key][0]) for key in ("_start", "_end"))
                return Reply(200, [each for each in self.executions if each["job_name"] == name][start:end])
        return refused(405, "method_not_allowed", "no such method")

    def _execution(self, job: str, ident: str, verb: str = "") -> Reply:
        found = [each for each in self.executions if each["job_name"] == job and each["id"] == ident]
        if not found:
            return refused(404, "unknown_execution", f"no execution named {ident!r}")
        if verb == "kill":
            run, status = found[0]["run_id"], found[0]["status"]
            if status in {"armed", "waiting", "running"}:
                found[0]["status"] = "killed"
                return Reply(200, {"run_id": run, "executions": [ident]})
            if run in self.waiting:
                return Reply(200, {"run_id": run, "executions": []})
            return refused(409, "conflict", f"the execution {ident!r} has ended")
        return Reply(200, self.outputs.get(ident, b"") if verb else found[0])

    def _tokens(self, request: Request, rest: list[str]) -> Reply:
        if request.method == "POST":
            made = {"id": "t1", "name": request.body["name"], "role": request.body["role"]}
            self.tokens.append(made | {"created_at": "2026-01-31T12:00:00Z", "expires_at": NEVER, "node_id": ""})
            return Reply(201, self.tokens[-1] | {"token": "the-secret"})
        if request.method == "DELETE":
            found = next(each for each in self.tokens if each["id"] == rest[0])
            self.tokens.remove(found)
            return Reply(200, found)
        return Reply(200, self.tokens)


class Handler(BaseHTTPRequestHandler):
    """HTTP around a FakeAgent."""

    agent: FakeAgent
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        content = self.rfile.read(length)
        split = urlsplit(self.path)
        body = json.loads(content) if content else None
        request = Request(self.command, split.path, parse_qs(split.query), dict(self.headers), body)
        reply = self.agent.answer(request)
        if request.path.endswith("/output") and isinstance(reply.value, bytes):
            offset, not_kept = int(request.query.get("offset", ["0"])[0]), self.agent.not_kept
            if not_kept:
                reply.headers |= {"X-Meshcron-Over": "false", "X-Meshcron-Offset": str(not_kept + len(reply.value))}
            reply.value = reply.value[max(0, offset - not_kept) :]
        raw = reply.value if isinstance(reply.value, bytes) else json.dumps(reply.value).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_DELETE = do_PATCH = _serve

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Tests print nothing."""


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    """A fake agent that answers on a port of its own."""
    fake = FakeAgent()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"agent": fake}))
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


Cli = Callable[..., Result]


@pytest.fixture
def cli(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`cli("ls", "--json")`: the command line in this process, told where the fake agent is."""
    monkeypatch.setenv("TZ", "UTC")

    def run(*args: str, **more: Any) -> Result:
        env = {"MESHCRON_URL": agent.url, "MESHCRON_TOKEN": TOKEN, **more.pop("env", {})}
        return CliRunner().invoke(root, args, env=env, prog_name="meshcron", **more)

    return run
