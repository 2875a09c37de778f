"""A request on its way in: judged by its headers before a byte of its body is kept, then handed to its handler.

Tornado would buffer every body, read form types itself, and answer what is too large with an empty 400. Here a body is
kept only for a caller who was let in; what is refused is read and dropped (bounded in bytes and time), because closing
a connection with unread data resets it, and a client that is still sending would never see the answer.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from tornado.httputil import (
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.web import HTTPError

from meshcron.api.handler import Admission, Handler, NoSuchPath
from meshcron.api.origin import check_media_type, check_origin
from meshcron.api.router import Found
from meshcron.api.settings import HEADER_BYTES_MAX
from meshcron.errors import InvalidRequest, MeshcronError, TooLarge
from meshcron.service import VIA_HEADER

if TYPE_CHECKING:
    from tornado.http1connection import HTTP1Connection

    from meshcron.api.app import Api
    from meshcron.api.inside import Inside

DRAIN_BYTES_MAX = 1024**3
"""Most that is read and dropped of a refused body. It costs no memory; who has more to send is cut off."""

DRAIN_SECONDS = 5.0
"""How long a refused body may take to arrive."""


class Intake(HTTPMessageDelegate):
    """One request from its first header to its handler."""

    def __init__(self, api: Api, server_connection: object, connection: HTTP1Connection | Inside) -> None:
        self._api = api
        self._server_connection = server_connection
        self._connection = connection
        self._handler: HTTPMessageDelegate | None = None
        self._keep_body = False
        self._answered = False
        self._received_bytes = 0
        self._head = False
        """The method is HEAD: whatever is answered has no body."""

    def headers_received(self, start_line: object, headers: HTTPHeaders) -> None:
        """Judges the request: who sends it, from where, how much. What is clear already is answered at once."""
        assert isinstance(start_line, RequestStartLine)  # ours: this is the server's end
        self._head = start_line.method == "HEAD"
        try:
            request = HTTPServerRequest(
                connection=self._connection,
                server_connection=self._server_connection,
                start_line=start_line,
                headers=headers,
            )
        except HTTPInputError as error:
            self._answer(InvalidRequest("request", str(error)), at_once=True)
            return
        found = self._api.router.find(request.path)
        handler = found.handler if found else NoSuchPath
        admission = self._admit(request, handler)
        # Read by its content alone (API.md, point 8); Tornado would parse a form type and refuse what is none.
        if "Content-Type" in headers:
            del headers["Content-Type"]
        early = self._early_refusal(request, headers, admission) or _garbled(found, admission)
        if early is not None:
            # A client that waits for "100 Continue" sends no body after this; one with far too much is not waited for.
            self._answer(early, at_once="Expect" in headers or _declared_bytes(headers) > DRAIN_BYTES_MAX)
            return
        self._keep_body = admission.error is None
        self._handler = self._api.get_handler_delegate(
            request,
            handler,
            {"context": self._api.context, "admission": admission},
            path_args=found.arguments if found else [],
        )

    def data_received(self, chunk: bytes) -> None:
        """Keeps a piece of the body, or drops it where nobody will read it."""
        if self._answered:
            return
        self._received_bytes += len(chunk)
        if self._received_bytes > self._api.context.settings.body_bytes_max:
            self._answer(self._too_large())
        elif self._keep_body and self._handler is not None:
            self._handler.data_received(chunk)

    def finish(self) -> None:
        """The body is whole: over to the handler."""
        if self._answered:
            self._connection.finish()
        elif self._handler is not None:
            self._handler.finish()

    def on_connection_close(self) -> None:
        """The client went away before its request was whole."""
        if self._handler is not None:
            self._handler.on_connection_close()

    def _admit(self, request: HTTPServerRequest, handler: type[Handler]) -> Admission:
        context = self._api.context
        need = handler.need(request.method)
        via = context.gate.via(request.headers.get(VIA_HEADER))
        judges = context.elsewhere is None or context.elsewhere.knows_tokens()
        try:
            check_origin(request, context.settings)
            caller = None
            if need is not None and need != "open" and judges:
                caller = context.gate.admit(request.headers.get("Authorization"), request.remote_ip or "", via)
            if _has_body(request.headers):
                check_media_type(request.headers, auth_on=context.settings.auth_on)
        except MeshcronError as error:
            return Admission(error=error, via=via)
        return Admission(caller=caller, via=via, judged=judges)

    def _early_refusal(
        self, request: HTTPServerRequest, headers: HTTPHeaders, admission: Admission
    ) -> Exception | None:
        """Why this request is answered before its body came, None where it is not."""
        if len(request.uri or "") > HEADER_BYTES_MAX:
            return HTTPError(HTTPStatus.REQUEST_URI_TOO_LONG)
        if sum(len(name) + len(value) for name, value in headers.get_all()) > HEADER_BYTES_MAX:
            return HTTPError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if _declared_bytes(headers) > self._api.context.settings.body_bytes_max:
            return admission.error or self._too_large()
        return admission.error if "Expect" in headers else None

    def _too_large(self) -> TooLarge:
        most = self._api.context.settings.body_bytes_max
        return TooLarge("body", f"is larger than {most} bytes", f"at most {most}")

    def _answer(self, error: Exception, *, at_once: bool = False) -> None:
        """Answers now, without a handler; what still comes in is dropped. `at_once`: and the connection ends."""
        self._answered = True
        self._handler = None
        status, headers, body = self._api.plain_refusal(error)
        if at_once:
            headers["Connection"] = "close"
        line = ResponseStartLine("HTTP/1.1", status, HTTPStatus(status).phrase)
        self._connection.write_headers(line, headers, None if self._head else body)
        if at_once:
            self._connection.finish()
        else:
            self._connection.set_max_body_size(DRAIN_BYTES_MAX)
            self._connection.set_body_timeout(DRAIN_SECONDS)


def _garbled(found: Found | None, admission: Admission) -> MeshcronError | None:
    """Why a path cannot be read, None where it can; but a stranger is told first that he is one."""
    for name, argument in zip(found.names, found.arguments, strict=True) if found else ():
        try:
            argument.decode()
        except UnicodeDecodeError:
            return admission.error or InvalidRequest(name, "is not UTF-8 in the URL", "percent-encode UTF-8")
    return None


def _has_body(headers: HTTPHeaders) -> bool:
    return headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers


def _declared_bytes(headers: HTTPHeaders) -> int:
    declared = headers.get("Content-Length", "")
    # What is no number Tornado refuses; nineteen digits are more than anybody has.
    return int(declared) if declared.isdecimal() and declared.isascii() and len(declared) < 20 else 0
