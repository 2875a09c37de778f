"""What all answers share: headers, HEAD, pretty, lists in slices, keys of repeated writes."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from meshcron.api.handler import KEY_CHARS_MAX, LIST_SLICE
from meshcron.api.settings import ApiSettings
from meshcron.service import VIA_HEADER
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import FakeCluster
from tests.unit.api.conftest import Serve

JOB = {"name": "a", "schedule": "@daily", "command": "x"}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/none", "/nowhere", "/health"])
def test_headers_of_every_answer(admin: Client, path: str) -> None:
    """Also of errors: JSON, who answered, nothing to sniff, frame, run or cache, no version, no CORS."""
    headers = admin("GET", path, headers={"Origin": f"http://127.0.0.1:{admin.port}"}).headers
    assert headers["Content-Type"] == "application/json; charset=UTF-8"
    assert headers["X-Whom"] == "agent1"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "meshcron"
    assert not any(name.lower().startswith("access-control") for name in headers)


class TestName:
    """An agent's name goes into a header."""

    @pytest.fixture
    def settings(self, settings: ApiSettings) -> ApiSettings:
        return msgspec.structs.replace(settings, agent="größe")

    def test_beyond_ascii(self, admin: Client) -> None:
        """A header holds bytes, so a name beyond ASCII is percent-encoded."""
        assert admin("GET", "/v1/jobs").headers["X-Whom"] == "gr%C3%B6%C3%9Fe"


def test_head(admin: Client, cluster: FakeCluster) -> None:
    """HEAD wherever GET: the same status and length, no body."""
    cluster.add_job("a")
    for path in ("/v1/jobs/a", "/v1/jobs", "/v1/members", "/v1/", "/v1/jobs/none"):
        got, head = admin("GET", path), admin("HEAD", path)
        assert (head.status, head.headers["Content-Length"], head.body) == (
            got.status,
            got.headers["Content-Length"],
            b"",
        )


def test_pretty(admin: Client, cluster: FakeCluster) -> None:
    """Indented with any value of `pretty`, compact otherwise, the same either way; errors too."""
    cluster.add_job("a")
    cluster.add_job("b")
    for path in ("/v1/jobs", "/v1/jobs/a", "/v1/", "/v1/members", "/v1/jobs/none", "/v1/history"):
        compact = admin("GET", path)
        for pretty in ("?pretty=true", "?pretty", "?pretty=0"):
            answer = admin("GET", path + pretty)
            assert answer.json == compact.json
            if compact.json:
                assert answer.body == json.dumps(answer.json, indent=2).replace("[]", "[]").encode()
        assert b"\n" not in compact.body


@pytest.mark.parametrize("slash", ["", "/"])
def test_slash_at_the_end(admin: Client, cluster: FakeCluster, slash: str) -> None:
    """Answered directly either way, POST too: no redirect ever."""
    assert admin("POST", f"/v1/jobs{slash}", JOB).status == 201
    assert admin("POST", f"/v1/jobs/a{slash}").status == 200
    assert admin("GET", f"/v1{slash}").status == 200


def test_long_list_comes_in_slices(admin: Client, cluster: FakeCluster) -> None:
    """More than one slice is sent in chunks; the array is whole, compact or pretty, and HEAD has none of it."""
    for number in range(2 * LIST_SLICE + 1):
        cluster.add_job(f"job-{number:04d}")
    answer = admin("GET", "/v1/jobs")
    assert [job["name"] for job in answer.json] == sorted(cluster.views)
    assert answer.headers["X-Total-Count"] == str(2 * LIST_SLICE + 1)
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert admin("GET", "/v1/jobs?pretty").json == answer.json
    assert admin("HEAD", "/v1/jobs").body == b""


def test_key(admin: Client, cluster: FakeCluster) -> None:
    """The same request with the same key is the same write; another caller, method or path makes it another."""
    key = {"Idempotency-Key": "abc"}
    admin("POST", "/v1/jobs", JOB, key)
    admin("POST", "/v1/jobs/", JOB, key)
    admin("POST", "/v1/jobs", JOB, {"Idempotency-Key": "abd"})
    admin("POST", "/v1/jobs/a", None, key)
    admin("PUT", "/v1/jobs/a", JOB, key)
    cluster.add_token("other", "other", "admin")
    Client(admin.port, "other")("POST", "/v1/jobs", JOB, key)
    keys = [key for _, key in cluster.commands]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 5
    assert all(len(key) == 32 for key in keys)


def test_key_with_authentication_off(start: Serve, open_settings: ApiSettings, cluster: FakeCluster) -> None:
    """Whoever passes a request on shows a token of its own: the write stays the same, through whichever agent."""
    open_client = Client(start(msgspec.structs.replace(open_settings, passing_secret="ours")))
    key = {"Idempotency-Key": "abc"}
    open_client("POST", "/v1/jobs", JOB, key)
    for name in ("one", "two"):
        cluster.add_token(name, name, "admin")
        via = {VIA_HEADER: f"ours node-{name}", "Authorization": f"Bearer {name}"}
        assert open_client("POST", "/v1/jobs", JOB, key | via).status == 201
    keys = [key for _, key in cluster.commands]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_no_key(admin: Client, cluster: FakeCluster) -> None:
    """Without the header every request is its own."""
    admin("POST", "/v1/jobs", JOB)
    assert cluster.commands[0][1] == ""


def test_long_key(admin: Client) -> None:
    """A key is an id, not a document."""
    answer = admin("POST", "/v1/jobs", JOB, {"Idempotency-Key": "x" * (KEY_CHARS_MAX + 1)})
    assert (answer.status, answer.error["field"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize("path", ["/v1/jobs/%FF", "/v1/jobs/%ED%A0%80", "/v1/runs/%FF", "/v1/tokens/%FE"])
def test_path_that_is_no_text(admin: Client, path: str) -> None:
    """Bytes that are not UTF-8 name nothing."""
    for method in ("GET", "DELETE", "POST"):
        assert admin(method, path).status in {400, 405}


def test_actor(admin: Client, cluster: FakeCluster) -> None:
    """Every write says who asked and from where."""
    admin("POST", "/v1/jobs", JOB)
    assert cluster.commands[0][0].actor == "admin@127.0.0.1"


def test_no_body_at_all(admin: Client) -> None:
    """A write without a length and without a body is 411; with an empty one 400."""
    request = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer %s\r\n\r\n"
    received = admin.bytes(request % str(admin.token).encode())
    assert received.startswith(b"HTTP/1.1 411 ")
    assert b"length_required" in received
    assert admin("POST", "/v1/jobs", raw=b"").status == 400


class TestAccessLog:
    """One line a request, where that is wanted."""

    @pytest.fixture
    def settings(self, settings: ApiSettings) -> ApiSettings:
        return msgspec.structs.replace(settings, access_log=True)

    def test_line(self, admin: Client, caplog: pytest.LogCaptureFixture) -> None:
        """Who, what, how it went, how long it took; no secret."""
        caplog.set_level("INFO", "meshcron.api")
        admin("GET", "/v1/jobs/none?token=secret")
        deadline = time.monotonic() + 5
        lines: list[str] = []
        while not lines and time.monotonic() < deadline:  # it is written after the answer is sent
            lines = [record.getMessage() for record in caplog.records if record.name == "meshcron.api"]
        [line] = lines
        assert line.startswith("127.0.0.1 GET /v1/jobs/none 404 ")
        assert "secret" not in line
        assert str(admin.token) not in caplog.text


def test_no_access_log(admin: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Without it nothing is logged of requests that are in order, or of those that are their sender's fault."""
    caplog.set_level("DEBUG")
    admin("GET", "/v1/jobs")
    admin("GET", "/v1/jobs/none")
    admin("POST", "/v1/jobs", raw=b"{")
    assert [record for record in caplog.records if record.name.startswith(("tornado", "meshcron"))] == []
