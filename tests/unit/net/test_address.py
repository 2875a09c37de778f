"""Hosts and ports, as sockets take them."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.net.address import endpoint, is_address, is_place, resolve


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.255", "::1", "fe80::1", "::ffff:1.2.3.4"])
def test_addresses(host: str) -> None:
    """Of both versions."""
    assert is_address(host)


@pytest.mark.parametrize(
    "host", ["", "*", "localhost", "1.2.3", "1.2.3.4.5", "01.2.3.4", " ::1", "[::1]", "fe80::1%lo", "a\0"]
)
def test_what_is_none(host: str) -> None:
    """Names, brackets, interfaces, near misses."""
    assert not is_address(host)


@given(st.text(max_size=20))
def test_no_text_crashes_it(host: str) -> None:
    """It is others' word."""
    is_address(host)


@pytest.mark.parametrize(("ports", "there"), [((1, 65535), True), ((0,), False), ((1, 65536), False), ((-1,), False)])
def test_a_place_has_real_ports(ports: tuple[int, ...], there: bool) -> None:
    """0 stands for an unknown one."""
    assert is_place("127.0.0.1", *ports) is there


def test_endpoint() -> None:
    """IPv6 stands in brackets."""
    assert endpoint("10.0.0.1", 5) == "tcp://10.0.0.1:5"
    assert endpoint("::1", 5) == "tcp://[::1]:5"


def test_ipv4_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with addresses of both kinds."""

    async def both(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET6, 1, 6, "", ("::9", 0, 0, 0)), (socket.AF_INET, 1, 6, "", ("10.9.9.9", 0))]

    async def told() -> str:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
        return await resolve("both.example")

    assert asyncio.run(told()) == "10.9.9.9"
