"""Start lateness: 50 jobs that are all due at the beginning of each second, and 50 runs a second asked for by hand.

Taken from the executions' `started_at`, the wall clock right after the process exists, minus `scheduled_at`. Schedules
know whole seconds only, so 50 jobs a second are 50 at one instant; the limit is a bare loop that starts 50 trampolines
at one instant. A run by hand is due when the agent decides it; it is what a start costs that nothing was prepared for
and that shares its instant with no other.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from agents import Agent, wait_until
from bench import Bench
from failed import Failed
from load import Order, generate
from table import Figure, milliseconds, quantile
from trampolines import Spawner, trampolines

JOBS = 50
HAND_RUNS = 400
RUN_SECONDS = 20.0
SETTLE_SECONDS = 5.0
WATCH_SECONDS = 20
BY_HAND: dict[str, object] = {
    "name": "by-hand",
    "schedule": "@manually",
    "command": "true",
    "history": {"runs": HAND_RUNS},
}
JOB: dict[str, object] = {"name": "late-@N@", "schedule": "* * * * * *", "command": "true"}


def bare_lateness(folder: Path) -> list[float]:
    """The same starts without an agent."""
    spawner = Spawner()
    try:
        return [
            late
            for number in range(WATCH_SECONDS // 2)
            for late in spawner.starts_of(trampolines(folder / str(number), JOBS, "true"))
        ]
    finally:
        spawner.close()


def text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def runs_by_hand(agent: Agent, job: dict[str, object]) -> list[float]:
    """Lateness of runs that are asked for evenly in time."""
    agent.call("POST", "/v1/jobs", job)
    began = time.perf_counter()
    for number in range(HAND_RUNS):
        time.sleep(max(0.0, began + number / JOBS - time.perf_counter()))
        agent.call("POST", "/v1/jobs/by-hand/run")
    wait_until("the runs by hand", agent.settled, RUN_SECONDS)
    records = agent.call("GET", f"/v1/jobs/by-hand/executions?_start=0&_end={HAND_RUNS}")
    return [seconds(record["started_at"]) - seconds(record["scheduled_at"]) for record in records]


def seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


def measure(bench: Bench) -> Iterator[Figure]:
    """All of the 50, and the first of each second: what the rest of them waits for is the machine."""
    limit = bare_lateness(bench.folder / "lateness-limit")
    with bench.running("lateness-by-hand") as cluster:
        by_hand = runs_by_hand(cluster.entrance, bench.job(BY_HAND))
    with bench.running("lateness") as cluster:
        agent = cluster.entrance
        generate(Order(agent.port, agent.token, "POST", "/v1/jobs", json.dumps(bench.job(JOB)), count=JOBS))
        begin = int(time.time() + SETTLE_SECONDS)
        time.sleep(begin + WATCH_SECONDS + 2 - time.time())
        late: dict[int, list[float]] = defaultdict(list)
        for record in agent.history(f"status=success&since={text(begin)}&until={text(begin + WATCH_SECONDS - 1)}"):
            tick = int(seconds(record["scheduled_at"]))
            late[tick].append(seconds(record["started_at"]) - tick)
    every = [each for some in late.values() for each in some]
    if len(every) != JOBS * WATCH_SECONDS:
        raise Failed(f"{len(every)} of {JOBS * WATCH_SECONDS} runs are recorded as successes")
    p50, p99 = quantile(every, 0.5), quantile(every, 0.99)
    goals = bench.goals
    yield Figure(
        f"start lateness at {JOBS} jobs/s, p50 / p99",
        milliseconds([p50, p99]),
        f"<= {milliseconds([goals.lateness_p50_s, goals.lateness_p99_s])}",
        f"{JOBS} bare trampolines at once {milliseconds([quantile(limit, 0.5), quantile(limit, 0.99)])}",
        p50 <= goals.lateness_p50_s and p99 <= goals.lateness_p99_s,
    )
    first = [min(some) for some in late.values()]
    yield Figure("- of these the first of each second", milliseconds([quantile(first, 0.5), quantile(first, 0.99)]))
    by_hand_words = milliseconds([quantile(by_hand, 0.5), quantile(by_hand, 0.99)])
    yield Figure(f"- of runs asked for one by one, {JOBS}/s", by_hand_words)
