"""If-Match and If-None-Match."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders

from meshcron.api.preconditions import if_revision
from meshcron.errors import InvalidRequest


@pytest.mark.parametrize(
    ("headers", "revision"),
    [({}, None), ({"If-Match": "*"}, None), ({"If-Match": ' "7" '}, 7), ({"If-None-Match": "*"}, 0)],
)
def test_revision(headers: dict[str, str], revision: int | None) -> None:
    """Any, this one, none."""
    assert if_revision(HTTPHeaders(headers)) == revision


@pytest.mark.parametrize("tag", ["7", 'W/"7"', '"7", "8"', '""', '"x"', '"' + "9" * 19 + '"', ""])
def test_no_revision(tag: str) -> None:
    """What is no ETag of a job is told so."""
    with pytest.raises(InvalidRequest) as caught:
        if_revision(HTTPHeaders({"If-Match": tag}))
    assert caught.value.field == "If-Match"
