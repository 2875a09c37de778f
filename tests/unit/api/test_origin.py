"""Where a request comes from: programs and our own pages may, foreign pages may not (FAULTS 44)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from meshcron.api.origin import check_media_type, check_origin
from meshcron.api.settings import ApiSettings, allowed_hosts
from meshcron.errors import Forbidden, Unsupported
from tests.unit.api.api_client import Client
from tests.unit.api.api_fake import SECRETS

SETTINGS = ApiSettings(agent="agent1", allowed_hosts=allowed_hosts(["127.0.0.1", "agent1.lan", "::1"], 8080))
HOST = "127.0.0.1:8080"


def request(method: str = "POST", **headers: str) -> HTTPServerRequest:
    named = {name.replace("_", "-"): value for name, value in {"Host": HOST, **headers}.items()}
    return HTTPServerRequest(headers=HTTPHeaders(named), start_line=RequestStartLine(method, "/v1/jobs", "HTTP/1.1"))


OURS = [
    {},
    {"Host": "AGENT1.lan"},
    {"Host": "agent1.lan.:8080"},
    {"Host": "[::1]:8080"},
    {"Host": "agent1.lan:9999"},
    {"Origin": f"http://{HOST}"},
    {"Origin": f"HTTP://{HOST}", "Sec_Fetch_Site": "same-origin"},
    {"Sec_Fetch_Site": "none"},
]


@pytest.mark.parametrize("headers", OURS)
def test_ours(headers: dict[str, str]) -> None:
    """Programs send neither Origin nor Sec-Fetch-Site; pages of ours send our own."""
    check_origin(request(**headers), SETTINGS)


FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8080"},
    {"Host": "0.0.0.0:8080"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "localhost:8080"},
    {"Host": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "https://127.0.0.1:8080"},
    {"Origin": "http://127.0.0.1:8080.evil.example"},
    {"Origin": "http://["},
    {"Origin": f"http://{HOST}", "Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "none, cross-site"},
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_foreign(headers: dict[str, str]) -> None:
    """Rebound names, foreign and absent origins, cross-site fetches."""
    with pytest.raises(Forbidden):
        check_origin(request(**headers), SETTINGS)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "127.0.0.2"}, 403),
        ({"Host": "[::1]"}, 403),
        ({"Host": "0.0.0.0"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_the_address_that_a_request_was_sent_to(
    start: Callable[[ApiSettings], int], headers: dict[str, str], status: int
) -> None:
    """Nobody has to configure it, as with `--http 0.0.0.0:8080`; any other address is foreign, and so is a page of
    another origin."""
    settings = ApiSettings(agent="agent1", allowed_hosts=allowed_hosts(["agent1.lan"]))
    assert Client(start(settings), SECRETS["admin"])("GET", "/v1/jobs", headers=headers).status == status


def test_links_may_be_followed() -> None:
    """A link on another site's page leads a person to ours; a frame or a fetch there does not."""
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    check_origin(request("GET", **link), SETTINGS)
    for changed in ({"Sec_Fetch_Dest": "iframe"}, {"Sec_Fetch_Mode": "no-cors"}):
        with pytest.raises(Forbidden):
            check_origin(request("GET", **{**link, **changed}), SETTINGS)


@pytest.mark.parametrize(
    ("auth_on", "headers"),
    [
        (True, {}),
        (True, {"Content-Type": "application/x-www-form-urlencoded"}),
        (True, {"Content-Type": "text/plain", "Cookie": "a=b", "Origin": "http://x"}),
        (False, {}),
        (False, {"Content-Type": "application/x-www-form-urlencoded"}),
        (False, {"Content-Type": "application/json", "Origin": "http://x"}),
        (False, {"Content-Type": "Application/JSON; charset=UTF-8", "Cookie": "a=b"}),
        (False, {"Content-Encoding": "identity"}),
    ],
)
def test_media_types(auth_on: bool, headers: dict[str, str]) -> None:
    """With a token any type (Dkron's quick start sends form type); else only what no page can send unasked."""
    check_media_type(HTTPHeaders(headers), auth_on=auth_on)


@pytest.mark.parametrize(
    ("auth_on", "headers"),
    [
        (False, {"Origin": "http://x"}),
        (False, {"Cookie": "a=b", "Content-Type": "text/plain"}),
        (False, {"Origin": "http://x", "Content-Type": "text/plain; application/json"}),
        (False, {"Origin": "http://x", "Content-Type": "application/json-seq"}),
        (True, {"Content-Encoding": "gzip"}),
        (False, {"Content-Encoding": "gzip", "Content-Type": "application/json"}),
    ],
)
def test_refused_media_types(auth_on: bool, headers: dict[str, str]) -> None:
    """What a simple request of a foreign page could carry, and packed bodies."""
    with pytest.raises(Unsupported):
        check_media_type(HTTPHeaders(headers), auth_on=auth_on)
