"""What nobody should send, sent to a real agent: every refusal names the field and the remedy, nothing of it is
stored, and the agent goes on as if nothing had been said (FAULTS 36, 37, 41, 42, 43)."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from meshcron.api import forms
from tests.integration.agent.real_agent import RealAgent
from tests.unit.api.api_client import Answer
from tests.unit.api.api_fake import SECRETS
from tests.unit.api.bad_input import (
    BAD_FIELDS,
    BAD_NAMES,
    BAD_RUNS,
    BAD_TOKENS,
    HUGE_BODIES,
    MALFORMED,
    MIB,
    REFUSED_BODIES,
    answer_of,
    head,
)

KEPT: dict[str, Any] = {"name": "kept", "schedule": "@manually", "command": "true", "tags": {"role": "web"}}
JOB: dict[str, Any] = {"name": "new", "schedule": "@daily", "command": "true"}

GROWTH_BYTES_MAX = 32 * MIB
"""How much more memory the agent may hold after all that a test sent: caches fill, nothing is kept."""

ANSWER_SECONDS_MAX = 2.0
"""The parser refuses in under 50 ms (tests/unit/api/test_bodies.py); here the machine is shared with the tests."""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAgent]:
    """An agent with one job that never runs by itself."""
    agent = RealAgent(tmp_path_factory.mktemp("agent") / "data")
    agent.start()
    agent.call("POST", "/v1/jobs", KEPT)
    yield agent
    assert agent.stop() == 0
    assert "Traceback" not in agent.log
    assert "unexpected error" not in agent.log


@pytest.fixture
def agent(real: RealAgent) -> Iterator[RealAgent]:
    """The same agent; after each test it answers what it answered before, and no file came or went but its own."""
    before, files, memory = told(real), names(real), resident(real)
    yield real
    assert real.running
    assert told(real) == before
    assert names(real) == files
    assert resident(real) - memory < GROWTH_BYTES_MAX


def told(agent: RealAgent) -> list[Any]:
    """All that a write could have changed."""
    return [agent.call("GET", path) for path in ("/v1/jobs", "/v1/tokens", "/v1/history", "/v1/members")]


def names(agent: RealAgent) -> set[str]:
    """Every file beside and in its folder, but for those of executions."""
    top = agent.folder.parent
    return {str(path.relative_to(top)) for path in top.rglob("*") if "executions" not in path.parts}


def resident(agent: RealAgent) -> int:
    assert agent.process is not None
    return int(psutil.Process(agent.process.pid).memory_info().rss)


def send(agent: RealAgent, write: str, body: object = None, raw: bytes | None = None) -> Answer:
    """`METHOD /path` with a body."""
    method, path = write.split()
    return agent.client(method, path, body, raw=raw)


def refused(answer: Answer, sent: object) -> dict[str, Any]:
    """A refusal of what was sent: the one shape, in printable characters. Returns the error."""
    assert answer.status in {400, 413}, (answer, sent)
    error = answer.error
    assert error.keys() - {"column"} == {"code", "message", "field", "hint"}, sent
    assert error["field"], (error, sent)
    assert (error["message"] + error["hint"]).isprintable(), sent
    assert 0 < len(error["message"]) < 400, sent
    return error


WRITES: dict[str, dict[str, Any]] = {
    "POST /v1/jobs": JOB,
    "PATCH /v1/jobs": JOB,
    "PUT /v1/jobs/new": JOB,
    "PUT /v1/jobs/kept": KEPT,
    "PATCH /v1/jobs/kept": {},
}
"""Every way to write a job, and a body that would do."""


@pytest.mark.parametrize("write", WRITES)
def test_every_field_of_a_job(agent: RealAgent, write: str) -> None:
    """Wrong type, empty, too much, out of range, control characters: 400 with the field and how it would be right."""
    method, path = write.split()
    client = agent.client
    for field, value in BAD_FIELDS:
        key = field.partition(".")[0]
        body = WRITES[write] | {key: value}
        if key == "executor_config":
            body.pop("command", None)
        answer = client(method, path, body)
        error = refused(answer, body)
        assert error["field"] == field, (error, body)
        assert error["hint"], (error, body)


def test_every_field_of_a_job_is_in_the_table() -> None:
    """A field that is added is tried here too."""
    tried = {field.partition(".")[0] for field, _ in BAD_FIELDS}
    assert tried == forms._JOB.keys() | {"executor_config", "parent_job"}


ODD_VALUES = {
    "NaN": "NaN",
    "a number without end": "1e400",
    "NUL": '"\\u0000"',
    "half a character": '"\\ud800"',
    "a raw control character": '"\x01"',
    "depth": "[" * 5000 + "]" * 5000,
    "digits": "9" * 5000,
}
"""No JSON of ours, whichever field holds it."""

WHOLE = {"a raw control character", "depth"}
"""What makes all of the body unreadable."""


@pytest.mark.parametrize("write", ["POST /v1/jobs", "PATCH /v1/jobs/kept"])
def test_every_field_holds_what_is_no_value(agent: RealAgent, write: str) -> None:
    """And each key given twice; each as large as a whole body may be, and larger."""
    method, path = write.split()
    client = agent.client
    for key in [*forms._JOB, "executor_config", "parent_job", "unknown"]:
        for what, value in ODD_VALUES.items():
            error = refused(client(method, path, raw=f'{{"{key}": {value}}}'.encode()), (key, value[:20]))
            assert error["field"] in ({"body"} if what in WHOLE else {key})
            assert what in WHOLE or error["hint"]
        twice = refused(client(method, path, raw=f'{{"{key}": 1, "{key}": 1}}'.encode()), key)
        assert (twice["field"], twice["message"]) == (key, f"{key}: is given twice")
    for key in forms._JOB:
        huge = WRITES[write] | {key: "x" * 1_000_000}
        error = refused(client(method, path, huge), key)
        assert error["field"] == key
        answer = client(method, path, WRITES[write] | {key: "x" * MIB})
        assert (answer.status, answer.error["field"]) == (413, "body")


@pytest.mark.parametrize("key", ["name", "schedule", "command"])
def test_what_is_required(agent: RealAgent, key: str) -> None:
    """Absent, null, empty."""
    absent = {name: value for name, value in JOB.items() if name != key}
    for body in (absent, JOB | {key: None}, JOB | {key: ""}):
        error = refused(agent.client("POST", "/v1/jobs", body), body)
        assert error["field"] == key
        assert error["hint"]
    assert refused(agent.client("PATCH", "/v1/jobs/kept", {key: None}), key)["field"] == key


SCHEDULES = (
    *("60 * * * *", "* 24 * * *", "* * 32 * *", "* * * 13 *", "* * * * 9", "*/0 * * * *", "10-5 * * * *"),
    *("1,,2 * * * *", "* * * *", "* * * * * * * *", "R * * * *", "0 0 30 2 *", "TZ=Mars/Base * * * * *"),
    *("@never", "@every", "@every 0s", "@every -1h", "@every 1x", "@at tomorrow", "@at"),
    *("* * * * *\x00", "$(reboot)", "* * * * * ; reboot", "\u202e*"),
)


def test_schedules(agent: RealAgent) -> None:
    """Whatever is wrong with the text of a schedule, in every write; the column is told where there is one."""
    for schedule in SCHEDULES:
        for method, path in (("POST", "/v1/jobs"), ("PUT", "/v1/jobs/kept"), ("PATCH", "/v1/jobs/kept")):
            body = (KEPT if "kept" in path else JOB) | {"schedule": schedule}
            began = time.monotonic()
            error = refused(agent.client(method, path, body), body)
            assert time.monotonic() - began < ANSWER_SECONDS_MAX
            assert error["field"] in {"schedule", "timezone"}, error
            assert error["hint"] or error["column"], error
    error = refused(agent.client("POST", "/v1/jobs", JOB | {"timezone": "Mars/Base"}), "timezone")
    assert error["field"] == "timezone"


def test_jobs_that_point_nowhere(agent: RealAgent) -> None:
    """A parent that is not there, or the job itself."""
    for more in ({"parent_job": "nobody"}, {"parent_jobs": ["kept", "nobody"]}):
        assert refused(agent.client("POST", "/v1/jobs", JOB | more), more)["field"] in {"parent_job", "parent_jobs"}
    own = refused(agent.client("PATCH", "/v1/jobs/kept", {"parent_jobs": ["kept"]}), "itself")
    assert own["field"] == "parent_jobs"


@pytest.mark.parametrize("body", REFUSED_BODIES, ids=lambda body: repr(body[:24]))
def test_bodies_that_are_no_json(agent: RealAgent, body: bytes) -> None:
    """Each says what is wrong, wherever a body is read."""
    for write in WRITES:
        answer = send(agent, write, raw=body)
        assert REFUSED_BODIES[body] in refused(answer, body)["message"], (write, answer)
    if body.strip():  # a run needs no body
        for path in ("/v1/jobs/kept", "/v1/jobs/kept/run", "/v1/tokens"):
            assert REFUSED_BODIES[body] in refused(agent.client("POST", path, raw=body), body)["message"]


@pytest.mark.parametrize("what", HUGE_BODIES)
def test_bodies_that_cost_much(agent: RealAgent, what: str) -> None:
    """As large as may be and as deep: refused soon, and others hardly notice."""
    body = HUGE_BODIES[what]
    for write in ("POST /v1/jobs", "PATCH /v1/jobs/kept"):
        began = time.monotonic()
        error = refused(send(agent, write, raw=body), what)
        assert time.monotonic() - began < ANSWER_SECONDS_MAX
        assert error["field"] == "body"


def test_bodies_without_end(agent: RealAgent) -> None:
    """100 MB: refused by what their head declares, before a byte of them came; chunks are cut off on the way."""
    with socket.create_connection(("127.0.0.1", agent.client.port), timeout=10) as connection:
        connection.sendall(head("POST", "/v1/jobs", "Content-Length: 100000000", token=agent.token))
        answer = answer_of(connection.recv(65536))
    assert (answer.status, answer.error["code"]) == (413, "too_large")
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    wanted = head("POST", "/v1/jobs", "Transfer-Encoding: chunked", token=agent.token)
    assert answer_of(agent.client.bytes(wanted + chunk * 40 + b"0\r\n\r\n", 0.5)).status == 413


@pytest.mark.parametrize("path", ["/v1/jobs/kept", "/v1/jobs/kept/run"])
def test_every_parameter_of_a_run(agent: RealAgent, path: str) -> None:
    """Nothing runs where one of them is wrong."""
    for field, env in BAD_RUNS:
        error = refused(agent.client("POST", path, {"env": env}), env)
        assert error["field"] == field
        assert error["hint"]
    for wait in ("x", "-1", "1e9", "NaN", "3601", "%00", ""):
        assert refused(agent.client("POST", f"{path}?wait={wait}"), wait)["field"] == "wait"
    assert refused(agent.client("POST", path, {"env": {"A": "x" * 20_000}}), "much")["code"] == "too_large"


def test_every_field_of_a_token(agent: RealAgent) -> None:
    """No token is made."""
    for field, body in BAD_TOKENS:
        error = refused(agent.client("POST", "/v1/tokens", body), body)
        assert error["field"] == field
        assert error["hint"]
    past = {"name": "late", "role": "viewer", "expires_at": "2001-01-01T00:00:00Z"}
    assert refused(agent.client("POST", "/v1/tokens", past), past)["field"] == "expires_at"


NAMED = (
    *("PUT /v1/jobs/{}", "PATCH /v1/jobs/{}", "POST /v1/jobs/{}", "DELETE /v1/jobs/{}", "POST /v1/jobs/{}/run"),
    *("POST /v1/jobs/{}/toggle", "DELETE /v1/jobs/{}/executions", "DELETE /v1/executions/{}"),
    *("POST /v1/executions/{}/1-one/kill", "POST /v1/jobs/{}/executions/1-one/kill"),
)
"""Every write that has the name of a job in its path."""


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: name[:20])
def test_names_in_a_path(agent: RealAgent, name: str) -> None:
    """Ways out of a folder, NUL, line ends, reversed text, kilobytes: 400, no file, no header."""
    for write in NAMED:
        method, path = write.format(name).split()
        answer = agent.client(method, path, {} if method in {"PUT", "PATCH"} else None)
        assert refused(answer, write)["field"] == "name"
        assert "X-Evil" not in answer.headers


IDS = ("DELETE /v1/tokens/{}", "POST /v1/runs/{}/kill", "POST /v1/executions/kept/{}/kill")
ODD_IDS = ("..%2F..%2Fetc%2Fpasswd", "%00", "a%0D%0AX-Evil:%201", "%FF", "x" * 10_000, "'%20OR%201=1%20--", "*", "%25s")


@pytest.mark.parametrize("write", IDS)
def test_ids_in_a_path(agent: RealAgent, write: str) -> None:
    """What is no id of anything is not found, and means nothing to a file system or to SQL."""
    for odd in ODD_IDS:
        answer = send(agent, write.format(odd))
        assert answer.status in {400, 404}, (odd, answer)
        assert answer.error["message"].isprintable(), (odd, answer)
        assert "X-Evil" not in answer.headers


def test_headers_of_a_write(agent: RealAgent) -> None:
    """A condition that cannot be understood is not passed over."""
    for write in ("PUT /v1/jobs/kept", "PATCH /v1/jobs/kept", "DELETE /v1/jobs/kept", "POST /v1/jobs"):
        method, path = write.split()
        body = None if method == "DELETE" else KEPT
        for tag in ("7", 'W/"7"', '"x"', '"1", "2"', '"' + "9" * 30 + '"'):
            error = refused(agent.client(method, path, body, {"If-Match": tag}), tag)
            assert error["field"] == "If-Match"
            assert error["hint"]
        error = refused(agent.client(method, path, body, {"Idempotency-Key": "x" * 257}), write)
        assert error["field"] == "Idempotency-Key"


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_not_http(agent: RealAgent, what: str) -> None:
    """400 in the one shape, and the connection ends."""
    request = MALFORMED[what].replace(SECRETS["admin"].encode(), agent.token.encode())
    answer = answer_of(agent.client.bytes(request))
    assert refused(answer, request)["code"] == "invalid_request"


OTHER_TONGUES = {
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(190),
    "ZeroMQ": b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00CURVE" + bytes(48),
    "SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "SMTP": b"EHLO evil.example\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "zeros": bytes(100_000),
    "line ends": b"\r\n" * 50_000,
    "one long line": b"G" * 200_000,
}


@pytest.mark.parametrize("what", OTHER_TONGUES)
def test_other_tongues(agent: RealAgent, what: str) -> None:
    """Somebody else's protocol on our port: an answer in ours or none, and the connection ends."""
    received = exchanged(agent, OTHER_TONGUES[what])
    assert received == b"" or answer_of(received).status == 400


def exchanged(agent: RealAgent, data: bytes) -> bytes:
    """What comes back before the other side hangs up; our side is done sending."""
    with socket.create_connection(("127.0.0.1", agent.client.port), timeout=5) as connection:
        received = b""
        with contextlib.suppress(ConnectionError):  # it may hang up at any byte
            connection.sendall(data)
            with contextlib.suppress(OSError):  # ENOTCONN: it has
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
        return received


def test_random_bytes(agent: RealAgent) -> None:
    """Noise, and requests with noise in them, from a seed."""
    chance = random.Random(36)
    request = head("POST", "/v1/jobs", "Content-Length: 20", token=agent.token) + json.dumps(JOB).encode()
    for _ in range(150):
        noise = bytearray(request if chance.random() < 0.5 else b"")
        for _ in range(chance.randrange(1, 40)):
            noise.insert(chance.randrange(len(noise) + 1), chance.randrange(256))
        received = exchanged(agent, bytes(noise))
        assert received == b"" or received.startswith(b"HTTP/1.1 4"), (bytes(noise), received)


def test_connections_that_say_nothing(agent: RealAgent) -> None:
    """Hundreds half open, some in the middle of a head or a body: who asks something is answered all the same."""
    begun = head("POST", "/v1/jobs", "Content-Length: 1000", token=agent.token)
    with contextlib.ExitStack() as connections:
        for number in range(300):
            each = connections.enter_context(socket.create_connection(("127.0.0.1", agent.client.port), timeout=5))
            each.sendall(begun[: number * len(begun) // 250] + b"x" * max(0, number - 250))
        began = time.monotonic()
        assert agent.jobs() == ["kept"]
        assert time.monotonic() - began < ANSWER_SECONDS_MAX


def test_unknown_keys_are_no_error(agent: RealAgent) -> None:
    """As Dkron has it, they are ignored, however odd; what is shown afterwards is without them."""
    odd = {"unknown": {"a": [1, {"b": None}]}, "../x": 1, "success_count": "x", "": 2, "next": [], "\u202e": 3}
    body = KEPT | odd
    try:
        answer = agent.client("PUT", "/v1/jobs/kept", body)
        assert answer.status == 201
        assert not {"unknown", "../x", "", "\u202e"} & answer.json.keys()
        assert answer.json["success_count"] == 0
    finally:
        agent.call("PUT", "/v1/jobs/kept", KEPT)


def test_odd_but_right_names(agent: RealAgent) -> None:
    """Letters of any script and dots inside are names like others: stored, run, shown, deleted."""
    for name in ("日本語", "a..b", "-rf", "ünï.cöde", "x" * 128, "CON", "1"):
        path = f"/v1/jobs/{quote(name)}"
        assert agent.call("POST", "/v1/jobs", JOB | {"name": name, "command": "echo $MESHCRON_JOB"})["name"] == name
        assert agent.call("POST", f"{path}/run?wait=10")["success_count"] == 1
        assert agent.executions(quote(name))[0]["output"] == f"{name}\n"
        assert agent.call("DELETE", path)["name"] == name
