"""The names under which an agent answers."""

from __future__ import annotations

from meshcron.api.settings import allowed_hosts


def test_allowed_hosts() -> None:
    """Names and addresses, with and without port, in the form a Host header has."""
    assert allowed_hosts(["Agent1.lan.", "127.0.0.1", "::1"], 8080) == {
        "agent1.lan",
        "agent1.lan:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]",
        "[::1]:8080",
    }


def test_listening_everywhere_is_no_name() -> None:
    """A page in a browser reaches loopback services under 0.0.0.0: that is never us."""
    assert allowed_hosts(["0.0.0.0", "::", "", "*"], 8080) == frozenset()
