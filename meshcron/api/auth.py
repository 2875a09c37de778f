"""Who is asking: the token of a request, found, compared and weighed; wrong ones counted. And how a token is made."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal

from msgspec import Struct

from meshcron.api.settings import ApiSettings
from meshcron.errors import Forbidden, TooManyAttempts, Unauthenticated
from meshcron.model import RANKS, Role, Token
from meshcron.values import is_loopback

Need = Role | Literal["open"]
"""What a method of a route asks of its caller; `open` = not even a token."""

WRONG_TOKENS_MAX = 10
WINDOW_SECONDS = 60.0
"""So many wrong tokens an address may send within so long (API.md, Who may)."""

ADDRESSES_MAX = 4096
"""Addresses remembered for that: the memory of the limit is bounded too; the one quiet for longest is forgotten."""

KNOWN_MAX = 1024
"""Pairs of address and token remembered as right, so that somebody's guesses do not lock out who shares his address."""

SECRET_CHARS_MAX = 512
"""Longer secrets are refused unread; ours have 46 characters."""

SECRET_BYTES = 32
"""Randomness of a secret: guessing is hopeless, so a plain SHA-256 stores it safely."""

IPV6_SITE_BITS = 64
"""An IPv6 host owns its whole /64, so that is what counts as one address."""


class Caller(Struct, frozen=True):
    """Somebody let in. `actor` goes into the audit: who, from where."""

    role: Role
    token_id: str
    actor: str

    def may(self, need: Need) -> bool:
        """True where the role reaches."""
        return need == "open" or RANKS.index(self.role) >= RANKS.index(need)


class Throttle:
    """Counts wrong tokens by address; `monotonic` in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._wrong: dict[str, deque[float]] = {}
        self._known: dict[tuple[str, str], None] = {}

    def check(self, address: str, digest: str) -> None:
        """Raises TooManyAttempts where an address has used up its guesses; a token it used rightly before still may."""
        wrong = self._wrong.get(address)
        if not wrong or len(wrong) < WRONG_TOKENS_MAX or (address, digest) in self._known:
            return
        left_seconds = wrong[0] + WINDOW_SECONDS - self._monotonic()
        if left_seconds > 0:
            raise TooManyAttempts(int(left_seconds) + 1)

    def wrong(self, address: str) -> None:
        """One more wrong token from this address."""
        times = self._wrong.pop(address, None) or deque(maxlen=WRONG_TOKENS_MAX)
        times.append(self._monotonic())
        self._wrong[address] = times
        if len(self._wrong) > ADDRESSES_MAX:
            del self._wrong[next(iter(self._wrong))]

    def right(self, address: str, digest: str) -> None:
        """This token is valid and came from this address."""
        pair = (address, digest)
        if pair in self._known:
            return
        self._known[pair] = None
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]


class Gate:
    """Decides who a request comes from. The only place that reads a secret."""

    def __init__(
        self,
        settings: ApiSettings,
        token_by_hash: Callable[[str], Token | None],
        wall_clock_us: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._token_by_hash = token_by_hash
        self._wall_clock_us = wall_clock_us
        self._throttle = Throttle(monotonic)
        self.wrong_tokens = 0
        """Since the start."""

    def admit(self, authorization: str | None, remote_ip: str, via: str = "") -> Caller:
        """The caller with this `Authorization`. `via`: the node id of the agent that passed the request on; then a
        token is needed in any case, and that agent's own one is valid. Raises Unauthenticated, TooManyAttempts,
        Forbidden."""
        if not self._settings.auth_on and not via:
            return self._anybody(remote_ip)
        if authorization is None:
            raise Unauthenticated("no token: send Authorization: Bearer, or the token as Basic password")
        digest = token_hash(secret_of(authorization))
        address = via or _site(remote_ip)
        self._throttle.check(address, digest)
        token = self._token(digest, via or self._settings.node_id)
        if token is None:
            self._throttle.wrong(address)
            self.wrong_tokens += 1
            raise Unauthenticated("this token is not valid here, or no longer")
        self._throttle.right(address, digest)
        return Caller(role=token.role, token_id=token.id, actor=f"{token.name}@{via[:8] or remote_ip}")

    def _anybody(self, remote_ip: str) -> Caller:
        if not self._settings.trust_lan and not is_loopback(remote_ip):
            raise Forbidden("authentication is off, so only this machine may call; --trust-lan opens it to all")
        return Caller(role="admin", token_id="", actor=f"anybody@{remote_ip}")

    def via(self, header: str | None) -> str:
        """The node id of the agent that passed a request on, "" for one that came by itself: a VIA_HEADER that is not
        ours says nothing."""
        secret, _, node_id = (header or "").partition(" ")
        ours = self._settings.passing_secret
        return node_id if ours and hmac.compare_digest(secret.encode(), ours.encode()) else ""

    def _token(self, digest: str, node_id: str) -> Token | None:
        found = self._token_by_hash(digest)
        if found is None or not hmac.compare_digest(found.sha256, digest):
            return None
        if found.node_id and found.node_id != node_id:
            return None
        if found.expires_wall_us and found.expires_wall_us <= self._wall_clock_us():
            return None
        return found


def secret_of(authorization: str) -> str:
    """The secret in an `Authorization` header: Bearer, or the password of Basic. "" where there is none."""
    scheme, _, rest = authorization.partition(" ")
    rest = rest.strip()
    if len(rest) > SECRET_CHARS_MAX:
        return ""
    match scheme.lower():
        case "bearer":
            return rest
        case "basic":
            try:
                return base64.b64decode(rest, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return ""
        case _:
            return ""


def token_hash(secret: str) -> str:
    """How a token is stored and looked up: SHA-256 of its secret, in hex."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def new_secret() -> str:
    """A secret nobody can guess, in characters that need no quoting anywhere."""
    return f"mc_{secrets.token_urlsafe(SECRET_BYTES)}"


def new_id() -> str:
    """The id of a token: short, unique enough to name it."""
    return secrets.token_hex(8)


def _site(remote_ip: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 an IPv6 address lies in."""
    if ":" not in remote_ip:
        return remote_ip
    address = ip_address(remote_ip)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ip_network((address.packed, IPV6_SITE_BITS), strict=False))
