"""A client of the HTTP API, on the standard library alone so that a command starts fast."""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from meshcron import __version__
from meshcron.cli import failures, local
from meshcron.cli.failures import NO_AGENT, Failure, Refusal
from meshcron.cli.local import Endpoint

ANSWER_SECONDS = 30.0
"""Silence after which an agent counts as not answering: a write takes at most 5 s (API.md, Errors)."""

TLS_SECONDS = 5.0
"""Silence after which a TLS handshake counts as failed: a port of plain HTTP waits for a line of text all the while."""

PATIENCE_SECONDS = 10.0
"""How long a command waits for a leader before it gives up; a fail-over takes 1.3 s at worst (DESIGN, Speed)."""

RESTART_SECONDS = 30.0
"""How long a command that follows a run does without its agent: one is restarted within a few seconds."""

RETRY_SECONDS = 0.2
"""Pause between two tries while nobody leads, no agent answers, or nothing new was written."""

PASSING_CODES = frozenset({"no_leader", "not_leader", "outcome_unknown"})
"""Refusals that pass by themselves. A repeated write carries the same Idempotency-Key, so that it happens once."""

OVER = "X-Meshcron-Over"
OFFSET = "X-Meshcron-Offset"
"""Headers of a run, or of a piece of an output: whether nothing more will come, and where the next piece begins
(API.md, Executions and runs)."""

CHUNK_BYTES = 64 * 1024
"""Most of an output taken at once."""

Query = Mapping[str, str | int | Sequence[str]]


class Answer(NamedTuple):
    """A 2xx answer: its headers and its JSON."""

    headers: http.client.HTTPMessage
    value: Any


class Broken(Failure):
    """Nobody answered, or the answer broke off."""

    def __init__(self, message: str) -> None:
        super().__init__(message, NO_AGENT)


class Secured(http.client.HTTPConnection):
    """With TLS, and less patience for its handshake than for an answer."""

    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        """TCP, then TLS. Raises Broken where nothing is said to the latter."""
        super().connect()
        self.sock.settimeout(TLS_SECONDS)
        try:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
        except TimeoutError:
            where = f"{_bracketed(self.host)}:{self.port}"
            said = f"what listens at {where} does not answer in TLS within {TLS_SECONDS:g} s"
            raise Broken(f"{said}; where it is an agent without tls_cert, say --url http://{where}") from None
        self.sock.settimeout(ANSWER_SECONDS)


class Client:
    """Speaks to one agent. Every method raises Failure with the exit code of what went wrong."""

    def __init__(self, endpoint: Endpoint, find_again: Callable[[Endpoint], Endpoint | None] | None = None) -> None:
        """`find_again`: where the agent that was at an address is after a break, None while it is nowhere."""
        self.endpoint = endpoint
        self._find_again = find_again or (lambda before: before)

    def get(self, path: str, query: Query | None = None, *, patient: bool = True) -> Any:
        """The JSON at a path (see `url_path`). Impatient, it does not wait for a leader."""
        return self.call("GET", path, query=query, patient=patient).value

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        patient: bool = True,
    ) -> Answer:
        """One request, repeated while nobody leads (unless impatient). Raises Refusal for any answer but 2xx."""
        sent = {"Accept": "application/json", **(headers or {})}
        content = None
        if method != "GET":
            sent["Idempotency-Key"] = secrets.token_hex(16)
        if body is not None:
            sent["Content-Type"] = "application/json"
            content = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogateescape")
        give_up = time.monotonic() + (PATIENCE_SECONDS if patient else 0.0)
        while True:
            response = self._send(method, _target(path, query), content, sent)
            try:
                return self._answer(response, _read(response, self.endpoint))
            except Refusal as refusal:
                if refusal.code not in PASSING_CODES or time.monotonic() > give_up:
                    raise
            finally:
                response.close()
            time.sleep(RETRY_SECONDS)

    def output(self, job: str, execution: str, offset: int = 0, *, follow: bool = False) -> Iterator[bytes]:
        """What an execution wrote, from a byte on; with `follow` also what it goes on to write, to its end.

        Following outlives a restart of the agent (see `outlast`): it is taken up again where it stood.
        """
        path = url_path("executions", job, execution, "output")
        give_up = 0.0
        while True:
            begun = offset
            try:
                response = self._opened(path, {"offset": offset, "follow": "true"} if follow else {"offset": offset})
                for chunk in self._chunks(response):
                    yield chunk
                    offset, give_up = offset + len(chunk), 0.0
                if response.headers.get(OVER) != "false":
                    return
                time.sleep(RETRY_SECONDS if offset == begun else 0.0)
                offset, give_up = int(response.headers.get(OFFSET, offset)), 0.0
            except TimeoutError:
                give_up = 0.0  # connected and quiet: the job has nothing to say
            except Failure as failure:
                if not follow:
                    raise
                give_up = self.outlast(failure, give_up)

    def pieces(self, job: str, execution: str, offset: int = 0) -> Iterator[tuple[bytes, int]]:
        """What an execution has written by now, from a byte on, each piece with the offset behind it. That is not the
        number of bytes where the middle is not kept: one line stands for all of it."""
        path = url_path("executions", job, execution, "output")
        while True:
            response = self._opened(path, {"offset": offset, "piece": "true"})
            content = b"".join(self._chunks(response))
            offset = int(response.headers.get(OFFSET, offset + len(content)))
            yield content, offset
            if not content or response.headers.get(OVER) != "false":  # without: all of it, from an older agent
                return

    def outlast(self, failure: Failure, give_up: float) -> float:
        """Wait until the agent may answer again after a failure that a restart or a change of the leader explains.

        Returns when to give up, to be handed in with the next failure; 0 = since an answer there was none. Raises the
        failure once that time has come, and any other one at once.
        """
        give_up = give_up or time.monotonic() + RESTART_SECONDS
        passes = isinstance(failure, Broken) or (isinstance(failure, Refusal) and failure.code in PASSING_CODES)
        while passes and time.monotonic() <= give_up:
            time.sleep(RETRY_SECONDS)
            if found := self._find_again(self.endpoint):
                self.endpoint = found
                return give_up
        raise failure

    def _opened(self, path: str, query: Query) -> http.client.HTTPResponse:
        response = self._send("GET", _target(path, query), None, {"Accept": "text/plain, application/json"})
        if response.status != http.HTTPStatus.OK:
            with response:
                self._answer(response, _read(response, self.endpoint))
        return response

    def _chunks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        try:
            while chunk := response.read1(CHUNK_BYTES):
                yield chunk
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise _no_agent(self.endpoint, error) from None
        finally:
            response.close()

    def _send(
        self, method: str, target: str, content: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        token = {"Authorization": f"Bearer {self.endpoint.token}"} if self.endpoint.token else {}
        base = urlsplit(self.endpoint.url)
        connection = _connection(self.endpoint)
        try:
            connection.request(
                method,
                base.path + target,
                content,
                {"User-Agent": f"meshcron/{__version__}", "Connection": "close", **token, **headers},
            )
            return connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            said = f"the certificate of {self.endpoint.url} is not trusted ({error.verify_message})"
            raise Failure(f"{said}; name its authority in SSL_CERT_FILE", NO_AGENT) from None
        except (OSError, http.client.HTTPException) as error:
            raise _no_agent(self.endpoint, error) from None

    def _answer(self, response: http.client.HTTPResponse, content: bytes) -> Answer:
        try:
            value = json.loads(content) if content else None
        except ValueError:
            value = content  # not JSON: not one of our agents, said below
        if response.status == http.HTTPStatus.UNAUTHORIZED:
            raise local.no_token(self.endpoint)
        error = value.get("error") if isinstance(value, dict) else None
        if isinstance(error, dict):
            raise failures.refusal(response.status, error, NEXT_STEPS.get(str(error.get("code")), ""))
        if not http.HTTPStatus.OK <= response.status < http.HTTPStatus.MULTIPLE_CHOICES or isinstance(value, bytes):
            said = f"what answers at {self.endpoint.url} ({response.status} {response.reason}) is not a meshcron agent"
            raise Failure(f"{said}; name the right one with --url", NO_AGENT)
        return Answer(response.headers, value)


NEXT_STEPS = {
    "unknown_job": '"meshcron ls" lists the jobs',
    "unknown_execution": '"meshcron history" lists the executions',
    "no_leader": '"meshcron status" says why',
    "forbidden": 'use a token of a higher role; "meshcron token list" shows the roles',
}
"""What to do next where the API's error has no hint of its own."""


def url_path(*parts: str) -> str:
    """`/v1/` and the parts, each percent-encoded whole: a slash or dot in a name never becomes another path."""
    return "/v1/" + "/".join(_part(part) for part in parts)


def _part(part: str) -> str:
    encoded = quote(part, safe="", errors="surrogateescape")
    return encoded.replace(".", "%2E") if encoded.strip(".") == "" else encoded


def _target(path: str, query: Query | None) -> str:
    return f"{path}?{urlencode(query, doseq=True, errors='surrogateescape')}" if query else path


def _connection(endpoint: Endpoint) -> http.client.HTTPConnection:
    base = urlsplit(endpoint.url)
    if base.scheme == "https":
        return Secured(str(base.hostname), base.port, timeout=ANSWER_SECONDS)
    return http.client.HTTPConnection(str(base.hostname), base.port, timeout=ANSWER_SECONDS)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _read(response: http.client.HTTPResponse, endpoint: Endpoint) -> bytes:
    try:
        return response.read()
    except (OSError, http.client.HTTPException) as error:
        raise _no_agent(endpoint, error) from None


def _no_agent(endpoint: Endpoint, error: Exception) -> Broken:
    if isinstance(error, ConnectionRefusedError):
        return Broken(f'no agent answers at {endpoint.url}; start one with "meshcron up"')
    if isinstance(error, TimeoutError):
        said = f"the agent at {endpoint.url} has not answered within {ANSWER_SECONDS:g} s"
        return Broken(f"{said}; see its log, or ask another one with --url")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Broken(f'no agent answers at {endpoint.url} ({reason}); start one with "meshcron up"')
