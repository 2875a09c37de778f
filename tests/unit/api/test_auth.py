"""Who is let in."""

from __future__ import annotations

import base64
import hmac

import msgspec
import pytest

from meshcron.api import auth
from meshcron.api.auth import WRONG_TOKENS_MAX, Caller, Gate, Throttle, secret_of, token_hash
from meshcron.api.settings import ApiSettings
from meshcron.errors import Forbidden, TooManyAttempts, Unauthenticated
from meshcron.model import RANKS
from tests.unit.api.api_fake import NODE_ID, NOW_US, SECRETS, FakeCluster

SETTINGS = ApiSettings(agent="agent1", allowed_hosts=frozenset(), node_id=NODE_ID)
HOME = "127.0.0.1"


def gate(cluster: FakeCluster, settings: ApiSettings = SETTINGS) -> Gate:
    return Gate(settings, cluster.token_by_hash, lambda: cluster.wall_us, lambda: cluster.monotonic_seconds)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        ("Bearer abc", "abc"),
        ("bearer   abc ", "abc"),
        (basic("meshcron", "abc"), "abc"),
        (basic("", "a:b"), "a:b"),
        ("Basic !!!", ""),
        ("Basic " + base64.b64encode(b"\xff").decode(), ""),
        ("Basic " + base64.b64encode(b"no colon").decode(), ""),
        ("Digest abc", ""),
        ("Bearer", ""),
        ("", ""),
        ("Bearer " + "x" * 1000, ""),
    ],
)
def test_secret_of(header: str, secret: str) -> None:
    """Bearer, or the password of Basic whoever the user."""
    assert secret_of(header) == secret


@pytest.mark.parametrize("role", RANKS)
def test_token(role: str) -> None:
    """A known token is its role, and the audit learns name and address."""
    caller = gate(FakeCluster()).admit(f"Bearer {SECRETS[role]}", "10.0.0.9")  # type: ignore[index]
    assert caller == Caller(role=role, token_id=f"id-{role}", actor=f"{role}@10.0.0.9")  # type: ignore[arg-type]


def test_no_token() -> None:
    """Nothing given is refused, and is no guess."""
    closed = gate(FakeCluster())
    for _ in range(2 * WRONG_TOKENS_MAX):
        with pytest.raises(Unauthenticated):
            closed.admit(None, HOME)
    assert closed.admit(f"Bearer {SECRETS['viewer']}", HOME).role == "viewer"


def test_expired_token() -> None:
    """Valid up to its last microsecond, not in it."""
    cluster = FakeCluster()
    cluster.add_token("brief", "s", "viewer", expires_wall_us=NOW_US + 5)
    cluster.wall_us = NOW_US + 4
    assert gate(cluster).admit("Bearer s", HOME).role == "viewer"
    cluster.wall_us = NOW_US + 5
    with pytest.raises(Unauthenticated):
        gate(cluster).admit("Bearer s", HOME)


def test_revoked_token() -> None:
    """What is gone from the catalog is refused at once, also for who used it a moment ago."""
    cluster = FakeCluster()
    closed = gate(cluster)
    assert closed.admit(f"Bearer {SECRETS['viewer']}", HOME).role == "viewer"
    del cluster.token_rows["id-viewer"]
    with pytest.raises(Unauthenticated):
        closed.admit(f"Bearer {SECRETS['viewer']}", HOME)


def test_token_of_another_node() -> None:
    """An agent's local token opens that agent only."""
    cluster = FakeCluster()
    cluster.add_token("ours", "ours", "admin", node_id=NODE_ID)
    cluster.add_token("theirs", "theirs", "admin", node_id="node-2")
    assert gate(cluster).admit("Bearer ours", HOME).role == "admin"
    with pytest.raises(Unauthenticated):
        gate(cluster).admit("Bearer theirs", HOME)


def test_guessing_is_slowed_down() -> None:
    """Ten wrong tokens a minute from an address; then it waits, whatever it sends (FAULTS 46)."""
    cluster = FakeCluster()
    closed = gate(cluster)
    for guess in range(WRONG_TOKENS_MAX):
        with pytest.raises(Unauthenticated):
            closed.admit(f"Bearer guess-{guess}", HOME)
        cluster.monotonic_seconds += 1
    with pytest.raises(TooManyAttempts) as caught:
        closed.admit("Bearer guess", HOME)
    assert caught.value.retry_after_seconds == 60 - WRONG_TOKENS_MAX + 1
    with pytest.raises(TooManyAttempts):
        closed.admit(f"Bearer {SECRETS['admin']}", HOME)
    assert closed.admit(f"Bearer {SECRETS['admin']}", "10.0.0.9").role == "admin"
    cluster.monotonic_seconds += 60
    assert closed.admit(f"Bearer {SECRETS['admin']}", HOME).role == "admin"


def test_a_guesser_locks_nobody_out() -> None:
    """Who used his token from that address before still may: a script with an old token is no denial of service."""
    closed = gate(FakeCluster())
    assert closed.admit(f"Bearer {SECRETS['operator']}", HOME).role == "operator"
    for _ in range(WRONG_TOKENS_MAX):
        with pytest.raises(Unauthenticated):
            closed.admit("Bearer old", HOME)
    assert closed.admit(f"Bearer {SECRETS['operator']}", HOME).role == "operator"
    with pytest.raises(TooManyAttempts):
        closed.admit("Bearer old", HOME)


def test_ipv6_guessers_share_their_network() -> None:
    """A host owns 2^64 addresses: they count as one; and an IPv4 address is itself also when mapped."""
    closed = gate(FakeCluster())
    for guess in range(WRONG_TOKENS_MAX):
        with pytest.raises(Unauthenticated):
            closed.admit("Bearer x", f"2001:db8::{guess}")
    with pytest.raises(TooManyAttempts):
        closed.admit("Bearer x", "2001:db8::ffff:1")
    with pytest.raises(Unauthenticated):
        closed.admit("Bearer x", "2001:db8:1::1")
    assert auth._site("::ffff:10.0.0.9") == "10.0.0.9"
    assert auth._site("fe80::1%eth0")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many addresses and tokens push out the ones quiet for longest."""
    monkeypatch.setattr(auth, "ADDRESSES_MAX", 3)
    monkeypatch.setattr(auth, "KNOWN_MAX", 3)
    throttle = Throttle(lambda: 0.0)
    for number in range(10):
        throttle.wrong(f"10.0.0.{number}")
        throttle.right("10.0.0.1", f"digest-{number}")
    assert list(throttle._wrong) == ["10.0.0.7", "10.0.0.8", "10.0.0.9"]
    assert len(throttle._known) == 3


def test_comparison_takes_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash found is compared by hmac, so that a table which matched by prefix would still let nobody in."""
    cluster = FakeCluster()
    compared: list[tuple[str, str]] = []
    real = hmac.compare_digest

    def watched(a: str, b: str) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    assert gate(cluster).admit(f"Bearer {SECRETS['viewer']}", HOME).role == "viewer"
    assert compared == [(token_hash(SECRETS["viewer"]),) * 2]
    lax = Gate(SETTINGS, lambda digest: cluster.token_rows["id-admin"], lambda: NOW_US, lambda: 0.0)
    with pytest.raises(Unauthenticated):
        lax.admit("Bearer anything", HOME)


def test_auth_off() -> None:
    """Everybody is admin, but only from this machine unless the LAN is trusted."""
    cluster = FakeCluster()
    off = msgspec.structs.replace(SETTINGS, auth_on=False)
    assert gate(cluster, off).admit(None, HOME).role == "admin"
    assert gate(cluster, off).admit("Bearer nonsense", "::1").role == "admin"
    with pytest.raises(Forbidden):
        gate(cluster, off).admit(None, "10.0.0.9")
    trusting = msgspec.structs.replace(off, trust_lan=True)
    assert gate(cluster, trusting).admit(None, "10.0.0.9").actor == "anybody@10.0.0.9"


def test_roles() -> None:
    """Each may what the weaker may, and `open` everybody."""
    for at, role in enumerate(RANKS):
        caller = Caller(role=role, token_id="", actor="")
        assert [caller.may(need) for need in RANKS] == [at >= other for other in range(len(RANKS))]
        assert caller.may("open")


def test_new_secrets() -> None:
    """Never the same twice, long, and nothing a shell or header would trip over."""
    made = {auth.new_secret() for _ in range(100)} | {auth.new_id() for _ in range(100)}
    assert len(made) == 200
    assert all(secret.isascii() and secret.replace("_", "").replace("-", "").isalnum() for secret in made)
    assert len(auth.new_secret()) == 46
