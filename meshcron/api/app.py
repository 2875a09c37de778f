"""The API put together: which path goes to which handler, and which error becomes which answer. Both once, here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from urllib.parse import quote

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPMessageDelegate, format_timestamp
from tornado.web import Application, HTTPError, RequestHandler

from meshcron import errors
from meshcron.api import executions, jobs, members, output, runs, schedules, status, tokens
from meshcron.api.auth import Gate
from meshcron.api.bodies import printable
from meshcron.api.context import Context, Refusal
from meshcron.api.handler import JSON_HEADER
from meshcron.api.inside import Inside
from meshcron.api.intake import Intake
from meshcron.api.router import Route, Router
from meshcron.api.settings import ApiSettings
from meshcron.api.views import encode
from meshcron.model import SECOND_US
from meshcron.service import Elsewhere, Service

log = logging.getLogger("meshcron.api")

ROUTES = (
    Route("/v1", status.StatusPage),
    Route("/v1/jobs", jobs.Jobs),
    Route("/v1/jobs/{name}", jobs.OneJob),
    Route("/v1/jobs/{name}/run", runs.StartRun),
    Route("/v1/jobs/{name}/runs", runs.OpenRuns),
    Route("/v1/jobs/{name}/toggle", jobs.Toggle),
    Route("/v1/jobs/{name}/executions", executions.NewestFirst),
    Route("/v1/jobs/{name}/executions/{id}", executions.OneExecution),
    Route("/v1/jobs/{name}/executions/{id}/output", output.Output),
    Route("/v1/jobs/{name}/executions/{id}/kill", executions.KillExecution),
    Route("/v1/executions/{name}", executions.OldestFirst),
    Route("/v1/executions/{name}/{id}", executions.OneExecution),
    Route("/v1/executions/{name}/{id}/output", output.Output),
    Route("/v1/executions/{name}/{id}/kill", executions.KillExecution),
    Route("/v1/runs/{id}", runs.OneRun),
    Route("/v1/runs/{id}/kill", runs.KillRun),
    Route("/v1/history", executions.History),
    Route("/v1/busy", executions.Busy),
    Route("/v1/members", members.Members),
    Route("/v1/members/{name}", members.OneMember),
    Route("/v1/leave", members.Leave),
    Route("/v1/leader", members.Leader),
    Route("/v1/isleader", members.IsLeader),
    Route("/v1/explain", schedules.Explain),
    Route("/v1/tokens", tokens.Tokens),
    Route("/v1/tokens/{id}", tokens.OneToken),
    Route("/metrics", status.Metrics),
    Route("/health", status.Health),
    Route("/ready", status.Ready),
)
"""Every path, with or without a slash at its end."""

STATUS: Mapping[type[BaseException], int] = MappingProxyType(
    {
        errors.InvalidRequest: HTTPStatus.BAD_REQUEST,
        errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        errors.Unsupported: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
        errors.Forbidden: HTTPStatus.FORBIDDEN,
        errors.NotFound: HTTPStatus.NOT_FOUND,
        errors.Conflict: HTTPStatus.CONFLICT,
        errors.PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
        errors.TooManyAttempts: HTTPStatus.TOO_MANY_REQUESTS,
        errors.NotLeader: HTTPStatus.SERVICE_UNAVAILABLE,
        errors.NoLeader: HTTPStatus.SERVICE_UNAVAILABLE,
        errors.OutcomeUnknown: HTTPStatus.SERVICE_UNAVAILABLE,
    }
)
"""Error -> status; a class not in it counts as the nearest of its bases that is, at last as 500."""

HTTP_ERRORS: Mapping[int, tuple[str, str, str]] = MappingProxyType(
    {
        HTTPStatus.BAD_REQUEST: ("invalid_request", "the request is malformed", "percent-encode UTF-8 in the URL"),
        HTTPStatus.NOT_FOUND: ("no_such_path", "there is nothing at this path", "docs/API.md lists all paths"),
        HTTPStatus.METHOD_NOT_ALLOWED: ("method_not_allowed", "this path has no such method", "see Allow"),
        HTTPStatus.LENGTH_REQUIRED: ("length_required", "this needs a body", "send JSON with Content-Length"),
        HTTPStatus.REQUEST_URI_TOO_LONG: ("uri_too_long", "the URL is too long", "shorten it"),
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: ("headers_too_large", "the headers are too large", "send less"),
    }
)
"""What HTTP itself refuses: status -> code, message, hint."""

RETRY_SECONDS = 1
"""When to try again while nobody leads: a fail-over takes 1.3 s at worst (DESIGN, Speed)."""

LOGGED_CHARS_MAX = 200
"""Characters of a path in the access log."""

SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    # A job's ETag is its revision: counters change without it, so no answer may be taken from a cache.
    ("Cache-Control", "no-store"),
)
"""Sent with every answer. No CORS header is: other sites' pages have no business here."""


class Api(Application):
    """The Tornado application: routes by our tree, takes requests in by our intake."""

    def __init__(self, context: Context, router: Router) -> None:
        super().__init__(default_headers=context.headers)
        self.context = context
        self.router = router

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Every request comes in here."""
        assert isinstance(request_conn, HTTP1Connection | Inside)  # ours: serve() speaks HTTP/1 only
        return Intake(self, server_conn, request_conn)

    def log_request(self, handler: RequestHandler) -> None:
        """One line a request where that is wanted; Tornado would format one for every request."""
        if self.context.settings.access_log:
            request = handler.request
            milliseconds = 1000.0 * request.request_time()
            log.info(
                "%s %s %s %d %.1f ms",
                request.remote_ip,
                request.method,
                printable(request.path, LOGGED_CHARS_MAX),
                handler.get_status(),
                milliseconds,
            )

    def plain_refusal(self, error: BaseException) -> tuple[int, HTTPHeaders, bytes]:
        """An error as status, headers and body, for where no handler answers."""
        refused = self.context.refusal(error)
        body = encode({"error": refused.error})
        now = format_timestamp(self.context.wall_clock_us() // SECOND_US)
        own = {"Date": now, "Content-Length": str(len(body))}
        return refused.status, HTTPHeaders(dict(self.context.headers) | refused.headers | own), body


def make_app(
    service: Service,
    settings: ApiSettings,
    *,
    wall_clock_us: Callable[[], int],
    monotonic: Callable[[], float],
    more_routes: Sequence[Route] = (),
    elsewhere: Elsewhere | None = None,
) -> Api:
    """The API of one agent. `more_routes` are the page's: its handlers are judged by the same gate. `elsewhere`: the
    agents that answer what this one cannot.

    `wall_clock_us`: microseconds since 1970; `monotonic`: seconds that never step.
    """
    context = Context(
        service=service,
        settings=settings,
        gate=Gate(settings, service.token_by_hash, wall_clock_us, monotonic),
        refusal=refusal,
        wall_clock_us=wall_clock_us,
        monotonic=monotonic,
        elsewhere=elsewhere,
        headers=(
            ("Content-Type", JSON_HEADER),
            ("Server", "meshcron"),
            ("X-Whom", quote(settings.agent, safe=" ~!@#$&'()*+,;=:/?[]")),
            *SECURITY_HEADERS,
        ),
    )
    return Api(context, Router((*ROUTES, *more_routes)))


def refusal(error: BaseException) -> Refusal:
    """The answer to an error: all of API.md's "Errors" is here."""
    if isinstance(error, HTTPError):
        return _http_refusal(error.status_code)
    for kind in type(error).__mro__:
        if kind in STATUS and isinstance(error, errors.MeshcronError):
            return Refusal(STATUS[kind], _shape(error), _headers(error))
    return _http_refusal(HTTPStatus.INTERNAL_SERVER_ERROR)


def _http_refusal(status_code: int) -> Refusal:
    code, message, hint = HTTP_ERRORS.get(
        status_code, ("internal", "the agent failed at this request", "its log says why")
    )
    known = status_code if status_code in HTTP_ERRORS else int(HTTPStatus.INTERNAL_SERVER_ERROR)
    return Refusal(known, {"code": code, "message": message, "field": "", "hint": hint}, {})


def _shape(error: errors.MeshcronError) -> dict[str, object]:
    """`{code, message, field, hint}`, and the column of a wrong schedule."""
    why = getattr(error, "why", str(error))
    # A schedule's error is a sentence of its own; those of other fields go on where the field's name stopped.
    named = isinstance(error, errors.InvalidRequest) and not isinstance(error, errors.InvalidSchedule)
    shape: dict[str, object] = {
        "code": getattr(error, "code", "internal"),
        "message": f"{getattr(error, 'field', '')}: {why}" if named else why,
        "field": getattr(error, "field", ""),
        "hint": _hint(error),
    }
    if isinstance(error, errors.InvalidSchedule) and error.column:
        shape["column"] = error.column
    return shape


def _hint(error: errors.MeshcronError) -> str:
    if isinstance(error, errors.TooManyAttempts):
        return f"send a valid token in {error.retry_after_seconds} s"
    return str(getattr(error, "hint", ""))


def _headers(error: errors.MeshcronError) -> dict[str, str]:
    match error:
        case errors.Unauthenticated():
            return {"WWW-Authenticate": 'Bearer realm="meshcron"'}
        case errors.TooManyAttempts():
            return {"Retry-After": str(error.retry_after_seconds)}
        case errors.NotLeader() | errors.NoLeader() | errors.OutcomeUnknown():
            return {"Retry-After": str(RETRY_SECONDS)}
        case _:
            return {}
