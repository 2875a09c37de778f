"""A request of this process's own, without a socket: what another agent passes on to this one (runtime/elsewhere).

It comes in where every request does, so it is routed, judged and answered by the same code; only the connection is one
in memory. The way over loopback cost as much processor time again as the request itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    RequestStartLine,
    ResponseStartLine,
    parse_request_start_line,
)
from tornado.iostream import StreamClosedError

from meshcron.errors import InvalidRequest
from meshcron.service import Told

if TYPE_CHECKING:
    from meshcron.api.app import Api

HOST = "127.0.0.1"
"""Under which name, and from which address, such a request comes."""

FRAMING = frozenset({"host", "connection", "content-length", "transfer-encoding", "expect"})
"""Headers that speak of the connection they were sent over, which this is not."""

WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose request says how long its body is, also where it has none (RFC 9110, 8.6)."""


class Origin(Struct, frozen=True):
    """What Tornado asks of a connection about its other end."""

    remote_ip: str = HOST
    protocol: str = "http"


class Inside(HTTPConnection):
    """A connection in memory. `told` is done once the answer is whole: None where it has more than `most` bytes, or
    broke off."""

    def __init__(self, most: int) -> None:
        self.context = Origin()
        self.told: asyncio.Future[Told | None] = asyncio.get_running_loop().create_future()
        self._most = most
        self._status = 0
        self._headers = HTTPHeaders()
        self._body = bytearray()
        self._closed = False
        self._on_close: Callable[[], None] | None = None

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Whom to tell that the asker is gone: the handler, until it has answered."""
        self._on_close = callback

    def set_max_body_size(self, _bytes: int) -> None:
        """For the rest of a refused body: here it came in one piece."""

    def set_body_timeout(self, _seconds: float) -> None:
        """The same."""

    def write_headers(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> asyncio.Future[None]:
        """The answer begins."""
        assert isinstance(start_line, ResponseStartLine)  # ours: this is the server's end
        self._status, self._headers = start_line.code, headers
        return self.write(chunk or b"")

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """More of it. The future fails once nobody wants to know, as that of a broken connection does."""
        self._body += chunk
        if len(self._body) > self._most:
            self.close()
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closed:
            written.set_exception(StreamClosedError())
            written.exception()  # who does not wait for it need not hear of it
        else:
            written.set_result(None)
        return written

    def finish(self) -> None:
        """The answer is whole."""
        if not self.told.done():
            self.told.set_result(Told(self._status, dict(self._headers.get_all()), bytes(self._body)))

    def close(self) -> None:
        """Nobody wants to know any more, or the answer breaks off: whoever still works on it is told, and what he
        writes is dropped."""
        self._closed = True
        self._body.clear()
        if not self.told.done():
            self.told.set_result(None)
        callback, self._on_close = self._on_close, None
        if callback is not None:
            callback()


async def ask_inside(
    api: Api, method: str, uri: str, headers: Mapping[str, str], body: bytes, *, most: int
) -> Told | None:
    """What the API answers to a request. Nothing of it is trusted: it is checked like one that came over a socket.
    None where the answer has more than `most` bytes, or broke off. The handler of a cancelled request hears that the
    asker is gone."""
    connection = Inside(most)
    try:
        start_line = parse_request_start_line(f"{method} {uri} HTTP/1.1")
        checked = _checked(method, headers, body)
    except HTTPInputError:
        status, own, text = api.plain_refusal(InvalidRequest("request", "is not well-formed HTTP/1.1"))
        return Told(status, dict(own.get_all()), text)
    intake = api.start_request(None, connection)
    try:
        intake.headers_received(start_line, checked)
        if body:
            intake.data_received(body)
        intake.finish()
        return await connection.told
    finally:
        connection.close()


def _checked(method: str, headers: Mapping[str, str], body: bytes) -> HTTPHeaders:
    """Raises HTTPInputError for names and values that no socket would have let in."""
    checked = HTTPHeaders({"Host": HOST})
    for name, value in headers.items():
        if name.lower() not in FRAMING:
            checked.add(name, value.strip(" \t"))
    if body or method in WITH_BODY:
        checked["Content-Length"] = str(len(body))
    return checked
