"""An agent with 100,000 stored jobs: how soon it is ready, how much memory it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import Bench
from failed import Failed
from machine import cpu_ns, rss_bytes
from stored_jobs import fill
from table import Figure

JOBS = 100_000
SETTLE_SECONDS = 3.0
WATCH_SECONDS = 5.0


def measure(bench: Bench) -> Iterator[Figure]:
    """The agents form their cluster, are stopped, and find the jobs at their next start."""
    with bench.running("many-jobs") as cluster:
        folders = [agent.folder for agent in cluster.agents]
    for folder in folders:
        fill(folder, JOBS)
    began = time.perf_counter()
    with bench.running("many-jobs") as cluster:
        agent = cluster.entrance
        for each in cluster.agents:
            each.call("GET", "/ready")
        ready = time.perf_counter() - began
        if (stored := agent.call("GET", "/v1/")["mesh"]["jobs"]) != JOBS:
            raise Failed(f"{stored} of {JOBS} jobs are there")
        time.sleep(SETTLE_SECONDS)
        before = cpu_ns(agent.pid)
        time.sleep(WATCH_SECONDS)
        percent = (cpu_ns(agent.pid) - before) / WATCH_SECONDS / 1e7
        megabytes = max(rss_bytes(each.pid) for each in cluster.agents) / 1e6
    goals, what = bench.goals, f"{JOBS:,} jobs stored"
    yield Figure(f"{what}: ready", f"{ready:.1f} s", f"<= {goals.many_ready_s:g} s", met=ready <= goals.many_ready_s)
    yield Figure(
        f"{what}: RSS",
        f"{megabytes:.0f} MB (idle CPU {percent:.2f} %)",
        f"<= {goals.many_rss_mb:g} MB",
        met=megabytes <= goals.many_rss_mb,
    )
