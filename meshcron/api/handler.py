"""The base of all handlers: default deny, one way to read a body, one way to answer, one way to fail."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler

from meshcron.api.auth import Caller, Need
from meshcron.api.bodies import JsonObject, parse_object, printable
from meshcron.api.inside import Inside
from meshcron.api.query import Query
from meshcron.api.views import Shown, encode
from meshcron.errors import Forbidden, InvalidRequest, MeshcronError, NoLeader, OutcomeUnknown

if TYPE_CHECKING:
    from meshcron.api.context import Context
    from meshcron.service import Elsewhere, Told

log = logging.getLogger("meshcron.api")

LIST_SLICE = 200
"""Items of a list made and sent in one turn of the loop, which also schedules (PROTOCOL 8): about 2 ms."""

KEY_CHARS_MAX = 256
"""Characters of an Idempotency-Key; a UUID has 36."""

PASSED_ON = ("Authorization", "Accept", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID", "Prefer")
"""Headers of a request that mean something to the agent it is passed on to."""

JUDGED_BY = "/v1/leader"
"""Opens to every role: whoever may see this may see what is told of one agent."""

UNJUDGED = "this agent did not know the tokens when the request came; try again"

JSON_HEADER = "application/json; charset=UTF-8"


class Admission(Struct, frozen=True):
    """What the intake found out about a request before its body was read: who sent it, or why it is refused."""

    caller: Caller | None = None
    error: MeshcronError | None = None
    via: str = ""
    """Node id of the agent that passed the request on to us, "" where it came by itself."""
    judged: bool = True
    """False: this agent does not know the cluster's tokens, another one has to judge."""


class Handler(RequestHandler):
    """One path. `NEEDS` says for each method what its caller must be; a method that is not in it is refused."""

    NEEDS: ClassVar[Mapping[str, Need]] = {}
    LOCAL: ClassVar[bool] = False
    """True: about this agent, so no other one ever answers."""

    context: Context
    admission: Admission

    # Tornado's hooks

    def initialize(self, context: Context, admission: Admission) -> None:
        """Takes what all handlers share and what the intake found out."""
        self.context = context
        self.admission = admission
        self._gone: asyncio.Event | None = None

    def set_default_headers(self) -> None:
        """The headers of every answer, also of errors, which start over."""
        for name, value in self.application.settings["default_headers"]:
            self._headers[name] = value

    def prepare(self) -> Awaitable[None] | None:
        """Refuses whoever may not, before any method runs; passes on what another agent has to answer."""
        need = self.need(self.request.method)
        if need is None:
            raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)
        if self.admission.error is not None:
            raise self.admission.error
        judged = need == "open" or self.admission.judged
        if judged:
            if need != "open" and not (self.admission.caller and self.admission.caller.may(need)):
                raise Forbidden(f"this needs a token with the role {need}")
            if self.request.method in {"GET", "HEAD"}:
                return None
        elsewhere = self.context.elsewhere
        if judged and (elsewhere is None or self.LOCAL or self.admission.via):
            return None
        if elsewhere is None or self.admission.via:
            raise NoLeader(UNJUDGED)
        if self.LOCAL:
            return self.judged_by(elsewhere)
        to = elsewhere.where()
        if not to and not judged:
            raise NoLeader(UNJUDGED)  # it has begun to lead since the request's headers came
        return self.pass_on(elsewhere, to, *self.asked_as()) if to else None

    def asked_as(self) -> tuple[str, str]:
        """By which method and path another agent is asked for the same."""
        return self.request.method or "", self.request.uri or "/"

    async def judged_by(self, elsewhere: Elsewhere) -> None:
        """What only this agent can tell, asked for with a token that only others know: it must open the leader's own
        page of that kind. Refuses with the leader's words."""
        to = elsewhere.where()
        if not to:
            raise NoLeader(UNJUDGED)
        told = await elsewhere.ask(to, "GET", JUDGED_BY, self._passed_on(), b"")
        if told is None:
            raise NoLeader(UNJUDGED)
        if told.status != HTTPStatus.OK:
            self._tell(told)

    async def pass_on(self, elsewhere: Elsewhere, to: str, method: str, uri: str) -> None:
        """Lets another agent answer. The token travels along and is judged there again. Where this agent leads by now
        nothing is answered: the handler goes on itself."""
        told = await elsewhere.ask(to, method, uri, self._passed_on(), self.request.body)
        if told is not None:
            self._tell(told)
        elif not self.admission.judged:
            raise NoLeader(UNJUDGED) if method in {"GET", "HEAD"} else OutcomeUnknown(UNJUDGED)

    def _passed_on(self) -> dict[str, str]:
        given = self.request.headers
        return {name: given[name] for name in PASSED_ON if name in given}

    def _tell(self, told: Told) -> None:
        self.set_status(told.status)
        for name, value in told.headers.items():
            self.set_header(name, value)
        self.finish(told.body)

    def head(self, *args: str) -> Awaitable[None] | None:
        """HEAD wherever GET; Tornado leaves the body out."""
        return self.get(*args)

    def compute_etag(self) -> None:
        """No hash of each answer: an ETag here is a job's revision, and is set where a job is shown."""

    def on_connection_close(self) -> None:
        """The caller went away: wakes whoever waits on his behalf, or will."""
        self._gone = self._gone or asyncio.Event()
        self._gone.set()

    def log_exception(
        self, _typ: type[BaseException] | None, value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        """Only what is our own fault is worth a log line with a stack."""
        if not isinstance(value, MeshcronError | HTTPError | StreamClosedError):
            log.error("unexpected error at %s %s", self.request.method, printable(self.request.path), exc_info=value)

    def send_error(self, status_code: int = 500, **kwargs: object) -> None:
        """An answer that has begun breaks off with its connection: Tornado would give it a proper end, and half an
        output or list would look whole."""
        if not self._headers_written:
            super().send_error(status_code, **kwargs)
            return
        self._finished = True
        connection = self.request.connection
        assert isinstance(connection, HTTP1Connection | Inside)  # ours: as in app.py
        connection.close()
        self._log()

    def write_error(self, status_code: int, **kwargs: object) -> None:
        """Every error in the one JSON shape."""
        info = kwargs.get("exc_info")
        error = info[1] if isinstance(info, tuple) else HTTPError(status_code)
        refusal = self.context.refusal(error)
        self.set_status(refusal.status)
        for name, value in refusal.headers.items():
            self.set_header(name, value)
        if refusal.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(self.methods()))
        self.finish(encode({"error": refusal.error}, self.pretty))

    # For the handlers

    @classmethod
    def methods(cls) -> list[str]:
        """The methods of this path."""
        return sorted(cls.NEEDS.keys() | ({"HEAD"} if "GET" in cls.NEEDS else set()))

    @classmethod
    def need(cls, method: str | None) -> Need | None:
        """What a method asks of its caller, None for a method this path does not have."""
        return cls.NEEDS.get("GET" if method == "HEAD" else method or "")

    @property
    def query(self) -> Query:
        """The parameters behind the `?`."""
        return Query(self.request.query_arguments)

    @property
    def pretty(self) -> bool:
        """True when the answer is for reading: `?pretty`, with any value."""
        return "pretty" in self.request.query_arguments

    @property
    def actor(self) -> str:
        """Who asks, for the audit."""
        return self.admission.caller.actor if self.admission.caller else ""

    @property
    def key(self) -> str:
        """What makes a repeated write the same write, "" without `Idempotency-Key`.

        A digest of caller, method, path and header: a key that two callers, or one for two things, happen to use never
        gets the other's answer.
        """
        given = self.request.headers.get("Idempotency-Key")
        if not given:
            return ""
        if len(given) > KEY_CHARS_MAX:
            raise InvalidRequest("Idempotency-Key", f"is longer than {KEY_CHARS_MAX} characters", "a UUID will do")
        # With authentication off everybody is one caller; a token only says which agent passed his request on.
        asks = self.admission.caller if self.context.settings.auth_on else None
        caller = asks.token_id if asks else ""
        parts = "\n".join((caller, self.request.method or "", self.request.path.rstrip("/"), given))
        return hashlib.sha256(parts.encode("utf-8", "replace")).hexdigest()[:32]

    def body(self) -> JsonObject:
        """The request's JSON object. Raises InvalidRequest; 411 where there is no body at all."""
        headers = self.request.headers
        if not self.request.body and "Content-Length" not in headers and "Transfer-Encoding" not in headers:
            raise HTTPError(HTTPStatus.LENGTH_REQUIRED)
        return parse_object(self.request.body)

    def optional_body(self) -> JsonObject:
        """The same where a body may be left out."""
        return parse_object(self.request.body) if self.request.body.strip() else {}

    def show(self, value: Shown, status: int = HTTPStatus.OK) -> None:
        """Answers with one value."""
        self.set_status(status)
        self.finish(encode(value, self.pretty))

    async def show_list(self, slices: Iterable[Sequence[Shown]], total: int | None = None) -> None:
        """Answers with an array, slice by slice, so that neither the loop nor the memory feels its length."""
        if total is not None:
            self.set_header("X-Total-Count", str(total))
        opening, joint, closing = (b"[\n", b",\n", b"\n]") if self.pretty else (b"[", b",", b"]")
        begun = False
        for each in slices:
            if begun and not await self.sent():
                return
            if each:
                self.write((joint if begun else opening) + encode(each, self.pretty)[1:-1].strip(b"\n"))
                begun = True
        self.finish(closing if begun else b"[]")

    async def sent(self) -> bool:
        """Hands what was written to the network, at the reader's pace. False when he is gone."""
        try:
            await self.flush()
            await asyncio.sleep(0)
        except StreamClosedError:
            return False
        return True

    async def pause(self, seconds: float) -> bool:
        """Waits; True as soon as the caller is gone and nothing more is worth doing."""
        self._gone = self._gone or asyncio.Event()
        try:
            await asyncio.wait_for(self._gone.wait(), seconds)
        except TimeoutError:
            return False
        return True


class NoSuchPath(Handler):
    """Answers for every path that has no handler."""

    def prepare(self) -> None:  # nothing here is ever passed on
        """404, also for methods nobody knows; but first of all a stranger is a stranger."""
        if self.admission.error is not None:
            raise self.admission.error
        raise HTTPError(HTTPStatus.NOT_FOUND)

    def write_error(self, status_code: int, **_: object) -> None:  # noqa: ARG002 - Tornado's signature
        """The same where Tornado refuses the method before it asks us."""
        error = self.admission.error or HTTPError(HTTPStatus.NOT_FOUND)
        super().write_error(HTTPStatus.NOT_FOUND, exc_info=(type(error), error, None))
