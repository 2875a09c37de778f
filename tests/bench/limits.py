"""What this machine can do without an agent, measured in the same run as what an agent does."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from bench import Bench
from table import Figure, milliseconds, per_second, quantile
from trampolines import IN_FLIGHT, Spawner, trampoline_rate

COMMITS = 1000
SPAWNS = 1500
TIMERS = 300
TIMER_GAP_SECONDS = 0.01


def commits(path: Path) -> list[float]:
    """Seconds that each of some single-row commits takes, WAL and synchronous=FULL as in an agent's database."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (a, b)")
    took = []
    for number in range(COMMITS):
        began = time.perf_counter()
        connection.execute("INSERT INTO t VALUES (?, ?)", (number, b"x" * 300))
        took.append(time.perf_counter() - began)
    connection.close()
    return took


def bare_spawn_rate() -> float:
    spawner = Spawner()
    try:
        return spawner.rate([["/bin/true"]] * SPAWNS)
    finally:
        spawner.close()


async def timer_lateness() -> list[float]:
    """How late each of some single timers of a quiet event loop is."""
    loop = asyncio.get_running_loop()
    late: list[float] = []

    def fired(at: float) -> None:
        late.append(loop.time() - at)

    begin = loop.time() + 0.1
    for number in range(TIMERS):
        at = begin + number * TIMER_GAP_SECONDS
        loop.call_at(at, fired, at)
    await asyncio.sleep(0.2 + TIMERS * TIMER_GAP_SECONDS)
    return late


def measure(bench: Bench) -> Iterator[Figure]:
    """The base limits; those of one figure stand beside it."""
    took = commits(bench.folder / "commits.db")
    yield Figure(
        "limit: one fsync'ed SQLite commit, p50 / p99", milliseconds([quantile(took, 0.5), quantile(took, 0.99)])
    )
    late = asyncio.run(timer_lateness())
    yield Figure("limit: lateness of a timer, p50 / p99", milliseconds([quantile(late, 0.5), quantile(late, 0.99)]))
    yield Figure(f"limit: bare spawn of `true`, {IN_FLIGHT} in flight", per_second(bare_spawn_rate()))
    rate = trampoline_rate(bench.folder / "limit-trampolines", SPAWNS, "true")
    yield Figure(f"limit: `sh -c true` through a trampoline, {IN_FLIGHT} in flight", per_second(rate))
