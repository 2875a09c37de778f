"""Requests judged by their headers: too large, not allowed, malformed; answered in JSON and soon."""

from __future__ import annotations

import json
import re
import socket
import time
import tracemalloc

import msgspec
import pytest

from meshcron.api.settings import HEADER_BYTES_MAX, ApiSettings
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import SECRETS, FakeCluster
from tests.unit.api.bad_input import MALFORMED, answer_of, head

MIB = 1024 * 1024
JOB = b'{"name": "a", "schedule": "@daily", "command": "x"}'


def test_declared_too_large(admin: Client, cluster: FakeCluster) -> None:
    """100 MB are refused by their Content-Length, before a byte of them came (FAULTS 41)."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", admin.port), timeout=5) as connection:
        connection.sendall(head("POST", "/v1/jobs", "Content-Length: 100000000"))
        answer = answer_of(connection.recv(65536))
    assert time.perf_counter() - began < 0.5
    assert (answer.status, answer.error["code"]) == (413, "too_large")
    assert not cluster.commands


def test_too_large_and_sent_blindly(admin: Client) -> None:
    """A client that sends it all before it reads still gets its answer, and we keep none of it."""
    body = b" " * (60 * MIB)
    tracemalloc.start()
    answer = admin("POST", "/v1/jobs", raw=body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (answer.status, answer.error["field"]) == (413, "body")
    assert peak < 4 * MIB


def test_chunked(admin: Client) -> None:
    """A body without a declared length is a body like any other."""
    request = head("POST", "/v1/jobs", "Transfer-Encoding: chunked", "Connection: close")
    body = b"5\r\n" + JOB[:5] + b"\r\n%x\r\n" % (len(JOB) - 5) + JOB[5:] + b"\r\n0\r\n\r\n"
    assert answer_of(admin.bytes(request + body)).status == 201


def test_chunks_that_grow_too_large(admin: Client) -> None:
    """Without a Content-Length the limit is met on the way; what still comes is read and dropped."""
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    received = admin.bytes(head("POST", "/v1/jobs", "Transfer-Encoding: chunked") + chunk * 40 + b"0\r\n\r\n", 1)
    assert answer_of(received).status == 413
    assert received.count(b"HTTP/1.1") == 1


def test_connection_goes_on_after_a_refusal(admin: Client) -> None:
    """The dropped body is over: the next request on the connection is answered."""
    first = head("POST", "/v1/jobs", f"Content-Length: {2 * MIB}") + b"x" * (2 * MIB)
    received = admin.bytes(first + head("GET", "/v1/jobs", "Connection: close"))
    assert re.findall(rb"HTTP/1.1 (\d+) ", received) == [b"413", b"200"]


@pytest.mark.parametrize("length", [100, 2 * MIB])
def test_expect(admin: Client, length: int) -> None:
    """A client that asks first is told "continue", or the refusal at once, without sending a byte."""
    wanted = head("POST", "/v1/jobs", f"Content-Length: {length}", "Expect: 100-continue")
    with socket.create_connection(("127.0.0.1", admin.port), timeout=5) as connection:
        connection.sendall(wanted)
        first = connection.recv(65536)
        if length > MIB:
            assert answer_of(first).status == 413
            assert connection.recv(65536) == b""
        else:
            assert first.startswith(b"HTTP/1.1 100 ")


def test_expect_without_token(stranger: Client) -> None:
    """Who may not is told so before he sends."""
    request = head("POST", "/v1/jobs", "Content-Length: 100", "Expect: 100-continue", token=None)
    assert answer_of(stranger.bytes(request)).status == 401


def test_a_strangers_body_is_not_kept(stranger: Client) -> None:
    """It is refused for who sends it, small or too large, when it was read to its end: the answer is not lost."""
    assert stranger("POST", "/v1/jobs", raw=b"x" * MIB).status == 401
    assert stranger("POST", "/v1/jobs", raw=b"x" * (2 * MIB)).status == 401


class TestSmallLimit:
    """The limit is a setting."""

    @pytest.fixture
    def settings(self, settings: ApiSettings) -> ApiSettings:
        return msgspec.structs.replace(settings, body_bytes_max=len(JOB))

    def test_to_the_byte(self, admin: Client) -> None:
        """As large as allowed passes, one byte more does not."""
        assert admin("POST", "/v1/jobs", raw=JOB).status == 201
        assert admin("POST", "/v1/jobs", raw=JOB + b" ").status == 413


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed(admin: Client, what: str) -> None:
    """What is not HTTP is 400 in the one shape too, and the connection ends."""
    received = admin.bytes(MALFORMED[what])
    answer = answer_of(received)
    assert received.count(b"HTTP/1.1 400 ") == 1
    assert answer.status == 400
    assert answer.error["code"] == "invalid_request"
    assert json.loads(answer.body).keys() == {"error"}


def test_long_headers(admin: Client) -> None:
    """Too much in front of the body is told so, up to the point where Tornado hangs up."""
    assert admin("GET", "/v1/jobs", headers={"X-Long": "x" * HEADER_BYTES_MAX}).status == 431
    assert admin("GET", "/v1/jobs?" + "x" * HEADER_BYTES_MAX).status == 414
    assert admin("HEAD", "/v1/jobs?" + "x" * HEADER_BYTES_MAX).status == 414
    assert admin("GET", "/v1/jobs?" + "a&" * 5000).status == 400
    assert admin.bytes(head("GET", "/v1/jobs", "X-Long: " + "x" * 100_000)) == b""


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/jobs/%FF", "name"),
        ("/v1/jobs/%FF/run", "name"),
        ("/v1/executions/a/%C3", "id"),
        ("/v1/runs/%FF", "id"),
        ("/v1/members/%FF", "name"),
    ],
)
def test_a_path_that_is_no_text(admin: Client, path: str, field: str) -> None:
    """Which part of it, whatever the method; a stranger hears only that he is one."""
    assert admin("HEAD", path).status == 400
    for method in ("GET", "POST", "DELETE"):
        answer = admin(method, path)
        assert (answer.status, answer.error["field"]) == (400, field)
        assert answer.error["message"] == f"{field}: is not UTF-8 in the URL"
    assert Client(admin.port)("GET" if "members" not in path else "DELETE", path).status in {401, 400}


def test_form_types_are_read_as_json(admin: Client, cluster: FakeCluster) -> None:
    """Dkron's own quick start sends JSON as a form: the content counts, and Tornado's form parser never sees it."""
    for media_type in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "x"):
        body = json.dumps({"name": "a", "schedule": "@daily", "command": "a&b=c;d" * 400}).encode()
        assert admin("POST", "/v1/jobs", headers={"Content-Type": media_type}, raw=body).status == 201


def test_packed_body(admin: Client) -> None:
    """A packed body is refused unread: no bombs."""
    answer = admin("POST", "/v1/jobs", headers={"Content-Encoding": "gzip"}, raw=JOB)
    assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")


FOREIGN = [
    {"Host": "evil.example"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("GET", "/health"), ("PUT", "/none")]
)
def test_foreign_pages(admin: Client, cluster: FakeCluster, method: str, path: str, headers: dict[str, str]) -> None:
    """Refused on every path, open and unknown ones too, whatever token they carry."""
    answer = admin(method, path, headers=headers, raw=JOB if method != "GET" else None)
    assert answer.status in {403, 405}
    assert not cluster.commands


class TestAuthOff:
    """Everybody is admin; where he comes from is checked all the same (FAULTS 44)."""

    @pytest.fixture
    def settings(self, open_settings: ApiSettings) -> ApiSettings:
        return open_settings

    def test_programs_may(self, stranger: Client) -> None:
        """A client without a token, of any media type."""
        assert stranger("POST", "/v1/jobs", raw=JOB, headers={"Content-Type": "text/plain"}).status == 201
        assert stranger("GET", "/v1/tokens").status == 200

    @pytest.mark.parametrize("headers", FOREIGN)
    def test_foreign_pages_may_not(self, stranger: Client, cluster: FakeCluster, headers: dict[str, str]) -> None:
        """Rebinding, simple posts, cross-site fetches."""
        assert stranger("POST", "/v1/jobs", headers=headers, raw=JOB).status == 403
        assert not cluster.commands

    def test_our_page_must_say_json(self, stranger: Client) -> None:
        """What a browser sends with an Origin must be of a type that needs a preflight elsewhere."""
        origin = {"Origin": f"http://127.0.0.1:{stranger.port}", "Host": f"127.0.0.1:{stranger.port}"}
        assert stranger("POST", "/v1/jobs", headers=origin, raw=JOB).status == 201
        plain = {**origin, "Content-Type": "text/plain"}
        assert stranger("POST", "/v1/jobs", headers=plain, raw=JOB).status == 415


def test_too_many_guesses(stranger: Client, cluster: FakeCluster) -> None:
    """Ten wrong tokens, then 429 with when to come back."""
    wrong = Client(stranger.port, "wrong")
    assert [wrong("GET", "/v1/jobs").status for _ in range(12)] == [401] * 10 + [429] * 2
    answer = wrong("GET", "/v1/jobs")
    assert answer.error["code"] == "too_many_attempts"
    assert 0 < int(answer.headers["Retry-After"]) <= 61
    assert stranger("GET", "/health").status == 200
    cluster.monotonic_seconds += 61
    assert Client(stranger.port, SECRETS["viewer"])("GET", "/v1/jobs").status == 200


def test_client_that_goes_away(admin: Client) -> None:
    """In the middle of a body, at any byte: nothing happens, and the next request is served."""
    request = head("POST", "/v1/jobs", f"Content-Length: {len(JOB)}") + JOB
    for cut in range(0, len(request) - 1, 7):
        with socket.create_connection(("127.0.0.1", admin.port), timeout=5) as connection:
            connection.sendall(request[:cut])
    assert admin("GET", "/v1/jobs").json == []
