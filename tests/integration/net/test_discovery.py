"""mDNS on loopback: agents of one key find each other, whatever else is announced there."""

from __future__ import annotations

import asyncio
import errno
import random
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs
from zeroconf import IPVersion, ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from meshcron.net import discovery as module
from meshcron.net.discovery import SERVICE, Discovery
from tests.integration.net.net_stage import HOST, until

GROUP = ("224.0.0.251", 5353)


class Finder:
    """A Discovery and what it found."""

    def __init__(self, fingerprint: str, node_id: str, port: int = 1000, session: int = 1) -> None:
        self.found: list[tuple[str, str, int]] = []
        self.discovery = Discovery(
            fingerprint=fingerprint,
            node_id=node_id,
            session=session,
            gate_port=port,
            addresses=[HOST],
            found=lambda *place: self.found.append(place),
        )


@asynccontextmanager
async def finders(*made: Finder) -> AsyncIterator[None]:
    """Started at once, closed in the end."""
    try:
        await asyncio.gather(*(each.discovery.start() for each in made))
        yield
    finally:
        await asyncio.gather(*(each.discovery.close() for each in made))


@pytest.fixture
def fingerprint() -> str:
    """Of a key that no other test has."""
    return secrets.token_hex(8)


async def test_two_find_each_other(fingerprint: str) -> None:
    """Each the other, with address and port; neither itself; nobody an agent of another key."""
    a, b = Finder(fingerprint, "a" * 32, 1001), Finder(fingerprint, "b" * 32, 1002, session=2**62)
    stranger = Finder(secrets.token_hex(8), "c" * 32)
    async with finders(a, b, stranger):
        took = await until(lambda: a.found and b.found)
        print(f"both found {took:.3f} s after the first announcement was out")
        assert a.found == [("b" * 32, HOST, 1002)]
        assert b.found == [("a" * 32, HOST, 1001)]
        assert stranger.found == []


async def test_a_later_start_is_found_anew(fingerprint: str) -> None:
    """A killed agent stays announced; its next start has another session, and perhaps another port."""
    a, first = Finder(fingerprint, "a" * 32), Finder(fingerprint, "b" * 32, 1002, session=1)
    second = Finder(fingerprint, "b" * 32, 2002, session=2)
    async with finders(a, first):
        await until(lambda: a.found)
        async with finders(second):
            await until(lambda: ("b" * 32, HOST, 2002) in a.found)
            assert len(a.found) == 2


async def test_who_leaves_says_goodbye(fingerprint: str) -> None:
    """And is forgotten, so that it is found again when it returns with the same name."""
    a, b = Finder(fingerprint, "a" * 32), Finder(fingerprint, "b" * 32, 1002)
    async with finders(a):
        for round_number in (1, 2):
            async with finders(b):
                await until(lambda number=round_number: len(a.found) == number)  # type: ignore[misc]
            await until(lambda: not a.discovery._heard)
    assert a.found == [("b" * 32, HOST, 1002)] * 2


async def test_without_a_gate_it_only_listens(fingerprint: str) -> None:
    """An agent that forgot the key has no gate to announce."""
    a, b = Finder(fingerprint, "a" * 32), Finder(fingerprint, "b" * 32, port=0)
    async with finders(a, b):
        await until(lambda: b.found)
        assert a.found == []


@asynccontextmanager
async def announced(*services: AsyncServiceInfo) -> AsyncIterator[None]:
    """What anybody on the network may announce."""
    zeroconf = AsyncZeroconf(interfaces=[HOST], ip_version=IPVersion.V4Only)
    try:
        await zeroconf.zeroconf.async_wait_for_start()
        await asyncio.gather(*(announce(zeroconf, service) for service in services))
        yield
    finally:
        await zeroconf.async_close()


async def announce(zeroconf: AsyncZeroconf, service: AsyncServiceInfo) -> None:
    await (await zeroconf.async_register_service(service, cooperating_responders=True, strict=False))


def announcement(name: str, properties: dict[Any, Any], port: int = 7, address: str = HOST) -> AsyncServiceInfo:
    return AsyncServiceInfo(
        SERVICE,
        f"{name}.{SERVICE}",
        port=port,
        properties=properties,
        server=f"{name}.local.",
        parsed_addresses=[address],
    )


async def test_nonsense_is_not_found(fingerprint: str) -> None:
    """With our fingerprint, which everybody can read: no id, ids that are none, no port, addresses of no machine."""
    a = Finder(fingerprint, "a" * 32)
    fp = {"fp": fingerprint}
    async with finders(a):
        odd = [
            announcement("bare", {}),
            announcement("no id", fp),
            announcement("empty id", fp | {"id": ""}),
            announcement("flag id", fp | {"id": None}),
            announcement("long id", fp | {"id": "x" * 65}),
            announcement("bytes id", fp | {b"id": b"\xff\x00\n"}),
            announcement("our own id", fp | {"id": "a" * 32}),
            announcement("flag fingerprint", {"fp": None, "id": "x" * 32}),
            announcement("no port", fp | {"id": "x1"}, port=0),
            announcement("group", fp | {"id": "x2"}, address="224.0.0.9"),
            announcement("nowhere", fp | {"id": "x3"}, address="0.0.0.0"),
            announcement("everywhere", fp | {"id": "x4"}, address="255.255.255.255"),
        ]
        async with announced(*odd, announcement("good", fp | {"id": "good"})):
            await until(lambda: ("good", HOST, 7) in a.found)
        assert a.found == [("good", HOST, 7)]


async def test_any_number_of_announcements_is_bounded(fingerprint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger may invent agents; we remember so many and no more, and who comes after them is found all the same."""
    monkeypatch.setattr(module, "INSTANCES_MAX", 3)
    a = Finder(fingerprint, "a" * 32)
    async with finders(a):
        invented = [announcement(f"{fingerprint}{n}", {"fp": fingerprint, "id": f"n{n}"}) for n in range(6)]
        async with announced(*invented):
            await until(lambda: len(a.found) == 6)
            assert len(a.discovery._heard) == 3
            async with announced(announcement("good", {"fp": fingerprint, "id": "good"})):
                await until(lambda: ("good", HOST, 7) in a.found)


async def test_what_is_announced_is_told_again(fingerprint: str) -> None:
    """Who has forgotten an address that stayed silent hears of it as long as it is announced."""
    a = Finder(fingerprint, "a" * 32)
    async with finders(a):
        async with announced(announcement("good", {"fp": fingerprint, "id": "good"})):
            await until(lambda: a.found == [("good", HOST, 7)])
            a.discovery.tell_again()
            assert a.found == [("good", HOST, 7)] * 2
        await until(lambda: not a.discovery._heard)
        a.discovery.tell_again()
        assert len(a.found) == 2


async def test_broken_packets_do_not_hurt(fingerprint: str) -> None:
    """Noise, and an announcement with bytes changed, cut or doubled, hundreds of them: who comes later is found."""
    chance = random.Random(11)
    packet = one_announcement(fingerprint)
    a, b = Finder(fingerprint, "a" * 32), Finder(fingerprint, "b" * 32, 1002)
    async with finders(a):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HOST))
            for _ in range(600):
                sender.sendto(damaged(packet, chance), GROUP)
                await asyncio.sleep(0)
        async with finders(b):
            await until(lambda: ("b" * 32, HOST, 1002) in a.found)


def one_announcement(fingerprint: str) -> bytes:
    """A response with PTR, SRV, TXT and A, as it stands on the wire (RFC 6762, RFC 1035)."""

    def name(text: str) -> bytes:
        return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".") if label) + b"\0"

    def record(owner: str, kind: int, data: bytes) -> bytes:
        head = kind.to_bytes(2, "big") + b"\x00\x01" + (120).to_bytes(4, "big")
        return name(owner) + head + len(data).to_bytes(2, "big") + data

    instance, server = f"x.{SERVICE}", "x.local."
    text = b"".join(bytes([len(each)]) + each for each in (f"fp={fingerprint}".encode(), b"id=x5"))
    records = [
        record(SERVICE, 12, name(instance)),
        record(instance, 33, bytes(4) + (9).to_bytes(2, "big") + name(server)),
        record(instance, 16, text),
        record(server, 1, socket.inet_aton(HOST)),
    ]
    return b"\0\0\x84\0" + bytes([0, 0, 0, len(records), 0, 0, 0, 0]) + b"".join(records)


def damaged(packet: bytes, chance: random.Random) -> bytes:
    kind = chance.randrange(4)
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 400))
    if kind == 1:
        return packet[: chance.randrange(len(packet))]
    broken = bytearray(packet)
    for _ in range(chance.randrange(1, 6)):
        broken[chance.randrange(len(broken))] = chance.randrange(256)
    return bytes(broken) * (kind - 1)


@pytest.mark.parametrize("addresses", [[], ["192.0.2.77"], ["2001:db8::77"]])
async def test_without_multicast_it_goes_on(addresses: list[str]) -> None:
    """No interface, or an address that this machine does not have: one warning, and nothing is found."""
    lonely = Discovery(fingerprint="f", node_id="n", session=1, gate_port=1, addresses=addresses, found=print)
    with capture_logs() as lines:
        await lonely.start()
        await lonely.close()
    assert [line["log_level"] for line in lines] == ["warning"]
    assert "--join" in lines[0]["event"]


async def test_a_start_that_failed_is_tried_again(fingerprint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor was left: said once, however often it is tried; then it is found, and left as it is."""
    refusals = iter(range(3))

    def opened(**given: Any) -> AsyncZeroconf:
        if next(refusals, None) is not None:
            raise OSError(errno.EMFILE, "Too many open files")
        return AsyncZeroconf(**given)

    a, b = Finder(fingerprint, "a" * 32), Finder(fingerprint, "b" * 32, 8)
    async with finders(a):
        monkeypatch.setattr(module, "AsyncZeroconf", opened)
        try:
            with capture_logs() as lines:
                await b.discovery.start()
                for _ in range(3):
                    await b.discovery.move([HOST])
            assert [line["why"] for line in lines] == ["[Errno 24] Too many open files"]
            await until(lambda: a.found == [("b" * 32, HOST, 8)])
            running = b.discovery._zeroconf
            await b.discovery.move([HOST])
            assert b.discovery._zeroconf is running
        finally:
            await b.discovery.close()


async def test_it_moves_with_its_machine(fingerprint: str) -> None:
    """A laptop gets an address after the agent started."""
    a = Finder(fingerprint, "a" * 32)
    b = Discovery(fingerprint=fingerprint, node_id="b", session=1, gate_port=8, addresses=[], found=lambda *_: None)
    async with finders(a):
        await b.start()
        await b.move([HOST])
        try:
            await until(lambda: a.found == [("b", HOST, 8)])
            running = b._zeroconf
            await b.move([HOST])
            assert b._zeroconf is running
        finally:
            await b.close()


async def test_what_is_announced_is_what_the_protocol_says(fingerprint: str) -> None:
    """Unique instance name, gate port, fingerprint, node id and protocol; nothing more about the machine."""
    seen: list[str] = []
    zeroconf = AsyncZeroconf(interfaces=[HOST], ip_version=IPVersion.V4Only)

    def changed(zeroconf: Any, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if fingerprint in name:
            seen.append(name)

    browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[changed])
    try:
        async with finders(Finder(fingerprint, "a" * 32, 1001, session=255)):
            await until(lambda: seen)
            service = AsyncServiceInfo(SERVICE, seen[0])
            assert service.load_from_cache(zeroconf.zeroconf)
            assert seen[0] == f"{fingerprint}-{'a' * 24}-ff.{SERVICE}"
            assert service.properties == {b"fp": fingerprint.encode(), b"id": b"a" * 32, b"v": b"1"}
            assert service.port == 1001
    finally:
        await browser.async_cancel()
        await zeroconf.async_close()
