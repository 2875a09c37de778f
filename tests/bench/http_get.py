"""`GET /v1/jobs/{name}` at 64 clients, against a bare Tornado handler that answers as many bytes, turn by turn.

Of several agents one that does not lead is asked: it holds the log, and answers by itself.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator

from agents import wait_until
from bare_http import bare_tornado
from bench import Bench
from load import CONNECTIONS, Order, generate
from machine import cpu_ns
from table import Figure, milliseconds, per_second

ROUNDS = 5
SECONDS = 1.2
WARM_UP_SECONDS = 0.3
SHOWN_SECONDS = 5.0
JOB = {"name": "bench_job", "schedule": "0 30 * * * *", "command": "/usr/bin/date", "owner": "John Doe"}


def measure(bench: Bench) -> Iterator[Figure]:
    """Rates, and beside them processor time an answer: the steadier of the two where others use the machine."""
    with bench.running("http-get") as cluster:
        cluster.entrance.call("POST", "/v1/jobs", JOB)
        agent = next(iter(cluster.others(cluster.entrance)), cluster.entrance)
        wait_until("the job", lambda: any(agent.call("GET", "/v1/jobs")), SHOWN_SECONDS)
        length = len(json.dumps(agent.call("GET", "/v1/jobs/bench_job"), separators=(",", ":")))
        with bare_tornado(length) as (port, pid):
            rounds = [(turn(port, "", pid), turn(agent.port, agent.token, agent.pid)) for _ in range(ROUNDS)]
    bare, ours = (statistics.median(one[at][0] for one in rounds) for at in (0, 1))
    share = statistics.median(one[1][0] / one[0][0] for one in rounds)
    by_cpu = statistics.median(one[0][1] / one[1][1] for one in rounds)
    latency = rounds[-1][1][2]
    yield Figure(
        f"GET job at {CONNECTIONS} clients",
        f"{per_second(ours)} = {share:.0%} ({by_cpu:.0%} by CPU time), p50 / p99 {latency}",
        f">= {bench.goals.get_share:.0%}",
        f"bare tornado {per_second(bare)}",
        share >= bench.goals.get_share,
    )


def turn(port: int, token: str, pid: int) -> tuple[float, float, str]:
    """Answers a second, nanoseconds of the server an answer, latencies."""
    path = "/v1/jobs/bench_job"
    before = cpu_ns(pid)
    report = generate(Order(port, token, "GET", path, seconds=SECONDS, warm_up_seconds=WARM_UP_SECONDS))
    return report.per_second, (cpu_ns(pid) - before) / report.sent, milliseconds([report.p50_s, report.p99_s])
