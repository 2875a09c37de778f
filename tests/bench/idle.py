"""What an agent costs while nothing is due."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import Bench
from machine import cpu_ns, rss_bytes
from table import Figure

SETTLE_SECONDS = 3.0
WATCH_SECONDS = 20.0


def measure(bench: Bench) -> Iterator[Figure]:
    """The dearest agent of the column."""
    with bench.running("idle") as cluster:
        time.sleep(SETTLE_SECONDS)
        pids = [agent.pid for agent in cluster.agents]
        before, began = {pid: cpu_ns(pid) for pid in pids}, time.perf_counter()
        time.sleep(WATCH_SECONDS)
        used = max(cpu_ns(pid) - before[pid] for pid in pids)
        percent = used / (time.perf_counter() - began) / 1e7
        mib = max(map(rss_bytes, pids)) / 2**20
    goals = bench.goals
    yield Figure("idle RSS", f"{mib:.1f} MiB", f"<= {goals.idle_rss_mib:g} MiB", met=mib <= goals.idle_rss_mib)
    yield Figure(
        "idle CPU", f"{percent:.2f} %", f"<= {goals.idle_cpu_percent:g} %", met=percent <= goals.idle_cpu_percent
    )
