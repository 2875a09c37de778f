"""The HTTP client: what each answer, or none, becomes."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshcron.api.app import ROUTES
from meshcron.api.router import Router
from meshcron.cli import client as module
from meshcron.cli.client import Client, url_path
from meshcron.cli.failures import Failure, Refusal
from meshcron.cli.local import Endpoint


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)


@pytest.fixture
def client(agent: Any) -> Client:
    return Client(Endpoint(agent.url, agent.token))


def reply(status: int, value: Any) -> Any:
    return type("Reply", (), {"status": status, "value": value, "headers": {}})()


def refused(status: int, code: str, message: str = "no", **more: str) -> Any:
    return reply(status, {"error": {"code": code, "message": message, **more}})


class Script:
    """A server that answers each connection with the next of some raw answers, then closes it (or holds it open)."""

    def __init__(self, *answers: bytes, hold: bool = False) -> None:
        self._hold = hold
        self._held: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[bytes] = []
        self._answers = answers
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            self.asked.append(connection.recv(65536))
            connection.sendall(answer)
            if self._hold:
                self._held.append(connection)
            else:
                connection.close()
        self._listener.close()

    def close(self) -> None:
        self._thread.join(5)
        for connection in self._held:
            connection.close()
        assert not self._thread.is_alive(), "an answer was never asked for"


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    made: list[Script] = []

    def make(*answers: bytes, hold: bool = False) -> Script:
        made.append(Script(*answers, hold=hold))
        return made[-1]

    yield make
    for each in made:
        each.close()


def chunked(*chunks: bytes, ended: bool = True) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + (b"0\r\n\r\n" if ended else b"")


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "invalid_request", 2),
        (403, "forbidden", 5),
        (404, "not_found", 3),
        (405, "method_not_allowed", 4),
        (409, "conflict", 2),
        (412, "precondition_failed", 2),
        (413, "too_large", 2),
        (414, "uri_too_long", 2),
        (415, "unsupported_media_type", 2),
        (429, "too_many_attempts", 5),
        (431, "headers_too_large", 2),
        (503, "paused", 4),
        (500, "internal", 1),
    ],
)
def test_exit_code_of_each_refusal(agent: Any, client: Client, status: int, code: str, exit_code: int) -> None:
    """The table of docs/CLI.md, one row each."""
    agent.will_answer("GET", "/v1/jobs", refused(status, code))
    with pytest.raises(Refusal) as raised:
        client.get(url_path("jobs"))
    assert (raised.value.exit_code, raised.value.status, raised.value.code) == (exit_code, status, code)


def test_a_refusal_is_one_line_with_its_hint(agent: Any, client: Client) -> None:
    """Field, message, hint; a message that tries to draw on the terminal is tamed."""
    error = refused(400, "invalid_request", "tags.role: bad\n\x1b[31mvalue", field="tags.role", hint="web:2")
    agent.will_answer("POST", "/v1/jobs", error)
    with pytest.raises(Refusal) as raised:
        client.call("POST", url_path("jobs"), body={})
    assert str(raised.value) == "tags.role: bad  [31mvalue; web:2"


def test_an_agent_that_wants_a_token(agent: Any) -> None:
    """401 is code 5: what to give, and why nothing was found."""
    endpoint = Endpoint(agent.url, "", "there is no /x/local.token")
    with pytest.raises(Failure) as raised:
        Client(endpoint).get(url_path("jobs"))
    assert raised.value.exit_code == 5
    assert "there is no /x/local.token" in str(raised.value)
    assert "MESHCRON_TOKEN" in str(raised.value)
    assert "Authorization" not in agent.requests[-1].headers


def test_a_moment_without_a_leader_is_waited_out(agent: Any, client: Client) -> None:
    """A fail-over in the middle of a write: the same request again, under the same key, so that it happens once."""
    busy = refused(503, "no_leader"), refused(503, "outcome_unknown")
    agent.will_answer("POST", "/v1/jobs", *busy)
    client.call("POST", url_path("jobs"), body={"name": "a"})
    keys = [each.headers["Idempotency-Key"] for each in agent.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    client.call("POST", url_path("jobs"), body={"name": "b"})
    assert agent.requests[-1].headers["Idempotency-Key"] not in keys


def test_no_leader_for_good_is_code_4(agent: Any, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience ends; the impatient do not wait at all."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    agent.will_answer("GET", "/v1/jobs", *[refused(503, "no_leader", "no leader at the moment; try again")] * 2)
    with pytest.raises(Refusal) as raised:
        client.get(url_path("jobs"))
    assert str(raised.value) == 'no leader at the moment; try again; "meshcron status" says why'
    assert raised.value.exit_code == 4
    with pytest.raises(Refusal):
        client.get(url_path("jobs"), patient=False)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n<html></html",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 301 Moved\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_something_else_on_the_port(script: Any, answer: bytes) -> None:
    """Another web server answers: said so, code 4, and its redirects are not followed with our token."""
    server = script(answer)
    with pytest.raises(Failure, match="is not a meshcron agent") as raised:
        Client(Endpoint(server.url, "t")).get(url_path("jobs"))
    assert raised.value.exit_code == 4


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[", b"\x16\x03\x01\x02\x00"],
)
def test_an_answer_that_breaks_off(script: Any, answer: bytes) -> None:
    """No HTTP, or half of it: code 4, never a traceback."""
    server = script(answer)
    with pytest.raises(Failure, match="no agent answers at") as raised:
        Client(Endpoint(server.url, "t")).get(url_path("jobs"))
    assert raised.value.exit_code == 4


def test_a_host_that_is_none() -> None:
    """A name nobody knows: the resolver's reason is passed on."""
    with pytest.raises(Failure, match=r"no agent answers at http://does-not-exist\.invalid") as raised:
        Client(Endpoint("http://does-not-exist.invalid", "")).get(url_path("jobs"))
    assert raised.value.exit_code == 4


def test_following_goes_on_where_it_broke(script: Any) -> None:
    """The agent restarts in the middle: what was printed is not printed again, nothing is left out."""
    server = script(
        chunked(b"one\n", b"tw", ended=False),
        b"",
        chunked(b"o\n"),
    )
    got = b"".join(Client(Endpoint(server.url, "t")).output("a b", "7-x", follow=True))
    assert got == b"one\ntwo\n"
    assert [line.split(b" ")[1] for line in server.asked] == [
        b"/v1/executions/a%20b/7-x/output?offset=0&follow=true",
        b"/v1/executions/a%20b/7-x/output?offset=6&follow=true",
        b"/v1/executions/a%20b/7-x/output?offset=6&follow=true",
    ]


def test_following_goes_on_at_the_agents_new_port(script: Any) -> None:
    """It comes back elsewhere after a while, and has no leader yet at first."""
    old = script(chunked(b"one\n", ended=False))
    body = b'{"error": {"code": "no_leader", "message": "no"}}'
    head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n"
    new = script(head % len(body) + body, chunked(b"two\n"))
    found = iter([None, Endpoint(new.url, "t")])
    client = Client(Endpoint(old.url, "t"), lambda before: next(found, before))
    assert b"".join(client.output("a", "7-x", follow=True)) == b"one\ntwo\n"
    assert len(old.asked) == 1


def piece(content: bytes, over: str, offset: int) -> bytes:
    """An answer with a piece of an output."""
    said = b"X-Meshcron-Over: %s\r\nX-Meshcron-Offset: %d\r\n" % (over.encode(), offset)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(content), said, content)


def test_following_by_pieces(script: Any) -> None:
    """An agent without the log answers one after the other, until nothing more will come; the offset of the next is the
    agent's to say, for what is not kept is left out."""
    server = script(
        piece(b"one\n", "false", 4), piece(b"", "false", 4), piece(b"[gap]", "false", 99), piece(b"z", "true", 100)
    )
    assert b"".join(Client(Endpoint(server.url, "t")).output("a", "7-x", follow=True)) == b"one\n[gap]z"
    assert [line.split(b"offset=")[1].split(b"&")[0] for line in server.asked] == [b"0", b"4", b"4", b"99"]


def test_what_there_is_by_pieces(script: Any) -> None:
    """Until one is empty or the last, or from an older agent all at once; each with where the next begins."""
    server = script(piece(b"one\n", "false", 4), piece(b"[gap]", "false", 99), piece(b"", "false", 99), chunked(b"two"))
    client = Client(Endpoint(server.url, "t"))
    assert list(client.pieces("a", "7-x")) == [(b"one\n", 4), (b"[gap]", 99), (b"", 99)]
    assert list(client.pieces("a", "7-x", 99)) == [(b"two", 102)]
    assert [line.split(b" ")[1].partition(b"?")[2] for line in server.asked] == [
        b"offset=0&piece=true",
        b"offset=4&piece=true",
        b"offset=99&piece=true",
        b"offset=99&piece=true",
    ]


def test_an_output_that_is_not_followed_fails_at_once(script: Any) -> None:
    """Half an output is not passed off as the whole."""
    server = script(chunked(b"one\n", ended=False))
    with pytest.raises(Failure, match="no agent answers"):
        list(Client(Endpoint(server.url, "t")).output("a", "7-x"))


def test_a_quiet_job_is_followed_on(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is no failure while the agent is there: asked again from where it stood, however often."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.05)
    quiet = chunked(b"one\n", ended=False), chunked(ended=False), chunked(ended=False)
    server = script(*quiet, chunked(b"two\n"), hold=True)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    assert b"".join(Client(Endpoint(server.url, "t")).output("a", "7-x", follow=True)) == b"one\ntwo\n"


def test_paths_keep_their_parts() -> None:
    """Each part is encoded whole."""
    assert url_path("jobs", "a/b", "run") == "/v1/jobs/a%2Fb/run"
    assert url_path("jobs", "..") == "/v1/jobs/%2E%2E"
    assert url_path("") == "/v1/"
    assert url_path("jobs", "x\udcff") == "/v1/jobs/x%FF"


@pytest.mark.parametrize("file", sorted(Path(module.__file__).parent.glob("*.py")), ids=lambda file: file.name)
def test_no_text_names_a_path_that_is_not_there(file: Path) -> None:
    """Whoever is told to use a path of the API finds it."""
    router = Router(ROUTES)
    for path in re.findall(r"[A-Z]+ (/v1/[a-z/{}]*)", file.read_text()):
        assert router.find(path), path


def test_https_to_a_port_of_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a line that never comes: said after a moment, with what to type instead."""
    monkeypatch.setattr(module, "TLS_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as plain:
        where = f"127.0.0.1:{plain.getsockname()[1]}"
        with pytest.raises(Failure) as failure:
            Client(Endpoint(f"https://{where}", "")).get("/v1/")
    assert str(failure.value) == (
        f"what listens at {where} does not answer in TLS within 0.2 s; "
        f"where it is an agent without tls_cert, say --url http://{where}"
    )
    assert failure.value.exit_code == 4
