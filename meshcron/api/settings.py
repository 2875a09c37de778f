"""What the HTTP side of an agent has to be told: who we are, who may come in, how much one request may bring."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

BODY_BYTES_MAX = 1024 * 1024
"""The largest request body of any route (API.md, Errors: 413)."""

HEADER_BYTES_MAX = 16 * 1024
"""Names and values of all headers of one request together, and the request target; nginx and node allow 8-16 KiB."""

EVERY_ADDRESS = frozenset({"", "0.0.0.0", "::", "[::]", "*"})
"""Ways to say "listen everywhere": never a name of ours, since browsers reach loopback services as `0.0.0.0`."""


class ApiSettings(Struct, frozen=True, kw_only=True):
    """Everything about the API that does not change while the agent runs."""

    agent: str
    """Name of this agent, sent as `X-Whom`."""
    allowed_hosts: frozenset[str]
    """What a `Host` header may say, lower case, with or without port (see `allowed_hosts`)."""
    node_id: str = ""
    """Our node id: a token that carries another one is not valid here."""
    auth_on: bool = True
    """False: everybody is admin. Host, Origin and media type are checked all the same."""
    trust_lan: bool = False
    """With `auth_on` False: also those who do not come from this machine."""
    body_bytes_max: int = BODY_BYTES_MAX
    passing_secret: str = ""
    """What this agent's own requests to itself carry, when it answers for another one (VIA_HEADER); "" = it never
    does."""
    access_log: bool = False
    """True: one log line a request. Formatting it costs about 10 % of the request rate."""


def allowed_hosts(names: Iterable[str], port: int = 0) -> frozenset[str]:
    """The values of `Host` under which these names and addresses of ours are reached, for `ApiSettings`.

    A name without a port is allowed at every port: what DNS rebinding abuses is a foreign name. Port 0 adds no
    variants with a port.
    """
    hosts = set()
    for name in names:
        host = name.strip().rstrip(".").lower()
        if host in EVERY_ADDRESS:
            continue
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        hosts.add(host)
        if port:
            hosts.add(f"{host}:{port}")
    return frozenset(hosts)
