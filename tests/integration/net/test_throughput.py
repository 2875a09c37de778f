"""What a message costs. Printed, not asserted: both ends share the machine with whatever else runs (`pytest -s`)."""

from __future__ import annotations

import asyncio
import time

import pytest

from meshcron.messages import Append, Heartbeat, LogHead, Run
from tests.integration.net.net_stage import Station, heartbeat, run, sample, stations, subscribed, until

MESSAGES = 5000
IN_FLIGHT = 100

ENTRY = sample(
    Append,
    term=3,
    prev_index=100_000,
    sent_boot_us=123_456_789_012,
    cluster_us=123_456_789_012_345,
    heads=(LogHead(100_001, 3, 4_000_000_000),),
    payload=(b"x" * 300,),
)
IDLE = sample(Append, term=3, prev_index=100_000, sent_boot_us=123_456_789_012, cluster_us=123_456_789_012_345)
FULL = sample(Append, heads=tuple(LogHead(n, 3, n) for n in range(1000)), payload=tuple([b"x" * 400] * 1000))


@pytest.mark.parametrize(
    ("message", "count"), [(IDLE, MESSAGES), (ENTRY, MESSAGES), (FULL, 100)], ids=["idle", "one entry", "1000 entries"]
)
async def test_appends(message: Append, count: int) -> None:
    """Leader to follower, as the log goes: all arrive, in order."""
    async with stations("ab") as (a, b):
        began, cpu = time.monotonic(), time.process_time()
        sent = 0
        while sent < count:
            while sent < count and sent - len(b.heard) < IN_FLIGHT and a.transport.send("b", message):
                sent += 1
            await asyncio.sleep(0)
        await until(lambda: len(b.heard) == count)
        report("append", count, began, cpu)
        assert b.messages("a") == [message] * count


@pytest.mark.parametrize(("message", "name"), [(heartbeat(), "heartbeat"), (run(), "run")])
async def test_published(message: Heartbeat | Run, name: str) -> None:
    """To two subscribers."""
    async with stations("abc") as (a, b, c):
        await subscribed(b, a)
        await subscribed(c, a)
        b.heard.clear()
        c.heard.clear()
        began, cpu = time.monotonic(), time.process_time()
        for _ in range(MESSAGES // IN_FLIGHT):
            before = len(b.heard), len(c.heard)
            for _ in range(IN_FLIGHT):
                a.transport.publish("t", message)
            await until(lambda before=before: arrived(b, c, before))  # type: ignore[misc]
        report(f"published {name}, two subscribers", MESSAGES, began, cpu)


def arrived(b: Station, c: Station, before: tuple[int, int]) -> bool:
    return len(b.heard) >= before[0] + IN_FLIGHT and len(c.heard) >= before[1] + IN_FLIGHT


async def test_one_way() -> None:
    """How long one message takes when nothing else is on the way."""
    async with stations("ab") as (a, b):
        took = []
        for _ in range(300):
            b.heard.clear()
            began = time.perf_counter()
            a.transport.send("b", ENTRY)
            while not b.heard:  # noqa: ASYNC110 - a millisecond's sleep would be most of what is measured
                await asyncio.sleep(0)
            took.append(time.perf_counter() - began)
        took.sort()
        print(f"\none way: p50 {took[150] * 1e6:.0f} us, p99 {took[297] * 1e6:.0f} us")


def report(what: str, count: int, began: float, cpu: float) -> None:
    rate, each = count / (time.monotonic() - began), (time.process_time() - cpu) / count
    print(f"\n{what}: {rate:.0f}/s, {each * 1e6:.1f} us of CPU each, both ends and their I/O threads together")
