"""Where a request comes from: a program, a page of ours, or a foreign page in somebody's browser, which is refused.

Three ways a web page can reach an agent on the LAN or on loopback, and what stops each: DNS rebinding (`Host` must be
a name of ours, or the address that the request was sent to), a form or fetch from its own origin (`Origin` and
`Sec-Fetch-Site` must say so), a "simple" request without preflight (a body that carries no token must be of type
application/json).
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPServerRequest

from meshcron.api.settings import ApiSettings
from meshcron.errors import Forbidden, Unsupported

OWN_SITES = frozenset({"same-origin", "none"})
"""`Sec-Fetch-Site` of requests that a page of ours, or the person at the address bar, made."""

JSON_TYPE = "application/json"


def check_origin(request: HTTPServerRequest, settings: ApiSettings) -> None:
    """Raises Forbidden for a request under a foreign name or from a foreign page."""
    hosts = settings.allowed_hosts
    named = request.host.lower() in hosts or request.host_name.rstrip(".") in hosts
    if not named and not _says_where_it_was_sent(request):
        raise Forbidden("Host is not a name or address of this agent; --advertise adds one")
    headers = request.headers
    origin = headers.get("Origin")
    if origin is not None and not _is_own(origin, request):
        raise Forbidden("Origin is not this agent: pages of other sites may not call it")
    site = headers.get("Sec-Fetch-Site")
    if site is not None and site not in OWN_SITES and not _is_link(request):
        raise Forbidden("Sec-Fetch-Site says that another site's page made this request")


def check_media_type(headers: HTTPHeaders, *, auth_on: bool) -> None:
    """Raises Unsupported for a body that a browser could have sent unasked, or that is packed.

    A client with a token may give any type, as Dkron's own quick start does: a foreign page has no token. Without
    authentication a request may, that shows neither a cookie nor an `Origin` (API.md, point 8).
    """
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Unsupported("Content-Encoding", "packed bodies are not read", "send the JSON as it is")
    if auth_on or ("Cookie" not in headers and "Origin" not in headers):
        return
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != JSON_TYPE:
        raise Unsupported("Content-Type", f"a body without a token must be {JSON_TYPE}", f"Content-Type: {JSON_TYPE}")


def _says_where_it_was_sent(request: HTTPServerRequest) -> bool:
    """Whether `Host` is the address of this end of the connection, which nobody has to configure.

    A rebound page was loaded under a name of its own, and its browser says that name, whatever it resolves to by now.
    Our address a browser says for a page that was loaded from our address, or for one of another origin, also at
    another port of ours, which `Origin` and `Sec-Fetch-Site` tell. What is left, as with an address that is configured:
    a page kept open from another network, in which this address was another machine's.
    """
    connection = request.connection
    if not isinstance(connection, HTTP1Connection) or connection.stream.socket is None:
        return False
    try:
        said = ip_address(request.host_name.removeprefix("[").removesuffix("]"))
        return said == ip_address(connection.stream.socket.getsockname()[0])
    except (ValueError, OSError):
        return False


def _is_own(origin: str, request: HTTPServerRequest) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme == request.protocol and parts.netloc.lower() == request.host.lower()


def _is_link(request: HTTPServerRequest) -> bool:
    """A person followed a link to us: nothing is changed and no page can read the answer."""
    headers = request.headers
    return (
        request.method in ("GET", "HEAD")
        and headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest") == "document"
    )
