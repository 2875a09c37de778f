"""10,000 jobs of `true` due in one second: how fast they are run and recorded, as a share of bare trampolines."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from agents import Agent, wait_until
from bench import Bench
from counting import Ledger
from failed import Failed
from load import Order, generate
from table import Figure, per_second
from trampolines import IN_FLIGHT, trampoline_rate

JOBS = 10_000
PILOT = 300
"""Jobs posted first, to learn how long posting all will take."""

AHEAD_SECONDS = 6.0
"""Ticks are armed 3 s ahead; posting must be over by then."""

RUN_SECONDS = 150.0
LIMIT_RUNS = 1500


def post(agent: Agent, job: dict[str, object], count: int) -> float:
    """Post `count` jobs; returns how many a second."""
    return generate(Order(agent.port, agent.token, "POST", "/v1/jobs", json.dumps(job), count=count)).per_second


def burst(bench: Bench, ledger: Ledger) -> tuple[float, str]:
    """Recorded runs a second from the due time on, and what is wrong with the records ("" = nothing)."""
    with bench.running("burst") as cluster:
        agent = cluster.entrance
        pilot = bench.job({"name": "pilot-@N@", "schedule": "@manually", "command": ledger.command})
        rate = post(agent, pilot, PILOT)
        due = math.ceil(time.time() + AHEAD_SECONDS + 1.3 * JOBS / rate)
        at = datetime.fromtimestamp(due, UTC).strftime("@at %Y-%m-%dT%H:%M:%SZ")
        post(agent, pilot | {"name": "burst-@N@", "schedule": at}, JOBS)
        if time.time() > due - AHEAD_SECONDS / 2:
            raise Failed("posting the jobs took until they were due")
        time.sleep(due - time.time())
        wait_until(f"{JOBS} runs", lambda: ledger.lines() >= JOBS, RUN_SECONDS)
        wait_until("their records", agent.settled, RUN_SECONDS)
        took = time.time() - due
        records = Counter((record["job_name"], record["status"]) for record in agent.history(""))
    return JOBS / took, wrong(ledger, records)


def wrong(ledger: Ledger, records: Counter[tuple[str, str]]) -> str:
    """What does not hold of: each job ran once, and has one record, a success."""
    expected = Counter({(f"burst-{number}", "success"): 1 for number in range(JOBS)})
    found = Counter(
        {
            "lost": JOBS - ledger.lines() + ledger.doubled(),
            "doubled": ledger.doubled(),
            "without their one record": (expected - records).total(),
        }
    )
    for (_, status), count in (records - expected).items():
        found[f"{status} beyond that"] += count
    return ", ".join(f"{count} {what}" for what, count in found.items() if count)


def measure(bench: Bench) -> Iterator[Figure]:
    """With the limit before and after: a shared machine changes meanwhile."""
    limit_ledger = Ledger(bench.folder / "burst-limit.txt")
    limits = [trampoline_rate(bench.folder / "burst-limit-1", LIMIT_RUNS, limit_ledger.command)]
    rate, amiss = burst(bench, Ledger(bench.folder / "burst.txt"))
    limits.append(trampoline_rate(bench.folder / "burst-limit-2", LIMIT_RUNS, limit_ledger.command))
    limit = statistics.mean(limits)
    yield Figure(
        f"{JOBS:,} jobs of `true` due in one second",
        f"{per_second(rate)} = {rate / limit:.0%}, {amiss or 'none lost or doubled'}",
        f">= {bench.goals.burst_share:.0%}, none lost or doubled",
        f"trampolines at {IN_FLIGHT} in flight {per_second(limit)}",
        rate >= limit * bench.goals.burst_share and not amiss,
    )
