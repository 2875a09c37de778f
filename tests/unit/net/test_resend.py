"""What is lost is repeated soon, on connections made and accepted."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from meshcron.net.resend import RTO_MIN_US, TCP_RTO_MIN_US, resend_soon

JIFFY_US_MAX = 10_000
"""The kernel rounds up to these."""


def rto_min_us(connection: socket.socket) -> int:
    """What the kernel holds; RTO_MIN_US where it is too old to be asked."""
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, TCP_RTO_MIN_US)
    except OSError:
        return RTO_MIN_US


def test_who_is_accepted_has_what_the_listener_was_given() -> None:
    """And the other side what it was given itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        resend_soon(server.fileno())
        with socket.create_connection(server.getsockname()) as client:
            resend_soon(client.fileno())
            accepted, _ = server.accept()
            with accepted:
                for one in (accepted, client):
                    assert RTO_MIN_US <= rto_min_us(one) < RTO_MIN_US + JIFFY_US_MAX


def test_a_connection_that_is_gone_is_nothing_to_worry_about() -> None:
    """libzmq tells of a connection a moment later; its number may be nobody's by then, or a file's."""
    here, there = os.pipe()
    before = len(list(Path("/proc/self/fd").iterdir()))
    resend_soon(here)
    assert len(list(Path("/proc/self/fd").iterdir())) == before, "a descriptor is lost each time"
    os.close(here)
    resend_soon(here)
    os.close(there)
