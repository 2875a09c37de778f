"""Recorded runs a second over some time, with as many due each second as bare trampolines could run."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator

from agents import Agent
from bench import Bench
from counting import Ledger
from load import Order, generate
from machine import cpu_ns
from table import Figure, per_second
from trampolines import IN_FLIGHT, trampoline_rate

WARM_UP_SECONDS = 5.0
WATCH_SECONDS = 20.0
LIMIT_RUNS = 1500

HISTORY = {"runs": 1}
"""So that the watched time has its share of pruning: a job's records are pruned eleven at a time."""


def recorded(agent: Agent) -> int:
    """Runs with a final record, of all jobs."""
    jobs = agent.call("GET", "/v1/jobs")
    return sum(job["success_count"] + job["error_count"] for job in jobs)


def sustained(bench: Bench, ledger: Ledger, jobs: int) -> tuple[float, float]:
    """Recorded runs a second, and milliseconds of the agent's processor time for each."""
    job = bench.job({"name": "run-@N@", "schedule": "* * * * * *", "command": ledger.command, "history": HISTORY})
    with bench.running("sustained") as cluster:
        agent = cluster.entrance
        generate(Order(agent.port, agent.token, "POST", "/v1/jobs", json.dumps(job), count=jobs))
        time.sleep(WARM_UP_SECONDS)
        before, began, used = recorded(agent), time.perf_counter(), cpu_ns(agent.pid)
        time.sleep(WATCH_SECONDS)
        count, used = recorded(agent) - before, cpu_ns(agent.pid) - used
        took = time.perf_counter() - began
    return count / took, used / 1e6 / max(1, count)


def measure(bench: Bench) -> Iterator[Figure]:
    """With the limit before and after, as for the burst."""
    limit_ledger = Ledger(bench.folder / "sustained-limit.txt")
    limits = [trampoline_rate(bench.folder / "sustained-limit-1", LIMIT_RUNS, limit_ledger.command)]
    ledger = Ledger(bench.folder / "sustained.txt")
    rate, cpu_ms = sustained(bench, ledger, round(limits[0] * bench.goals.sustained_load))
    limits.append(trampoline_rate(bench.folder / "sustained-limit-2", LIMIT_RUNS, limit_ledger.command))
    limit, doubled = statistics.mean(limits), ledger.doubled()
    yield Figure(
        "sustained recorded runs",
        f"{per_second(rate)} = {rate / limit:.0%}, {doubled} doubled, {cpu_ms:.2f} ms CPU each",
        f">= {bench.goals.sustained_share:.0%}",
        f"trampolines at {IN_FLIGHT} in flight {per_second(limit)}",
        rate >= limit * bench.goals.sustained_share and not doubled,
    )
