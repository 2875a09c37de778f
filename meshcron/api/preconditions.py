"""`If-Match` and `If-None-Match` of a write: which revision of a job the caller believes to change."""

from __future__ import annotations

import re

from tornado.httputil import HTTPHeaders

from meshcron.errors import InvalidRequest

_TAG = re.compile(r'"([0-9]{1,18})"')


def must_exist(headers: HTTPHeaders) -> bool:
    """`If-Match: *`: there must be a job, at whatever revision."""
    return headers.get("If-Match", "").strip() == "*"


def if_revision(headers: HTTPHeaders) -> int | None:
    """The revision that must be stored for the write to happen: None = any, 0 = none at all.

    The leader compares: what this agent knows may be older than what the caller read elsewhere. Raises InvalidRequest.
    """
    if headers.get("If-None-Match", "").strip() == "*":
        return 0
    given = headers.get("If-Match")
    if given is None or given.strip() == "*":
        return None
    match = _TAG.fullmatch(given.strip())
    if match is None:
        raise InvalidRequest("If-Match", "is not one ETag of a job", 'the ETag that GET answered, with its quotes: "7"')
    return int(match[1])
