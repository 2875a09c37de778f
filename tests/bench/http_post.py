"""Durable `POST /v1/jobs` at 64 clients: each a job of its own, answered 201 once it is fsynced.

The bare Tornado handler beside it drops the same bodies and writes nothing anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from bare_http import bare_tornado
from bench import Bench
from failed import Failed
from load import CONNECTIONS, Order, Report, generate
from machine import cpu_ns
from table import Figure, milliseconds, per_second

SECONDS = 8.0
LIMIT_SECONDS = 2.0
WARM_UP_SECONDS = 1.0
JOB: dict[str, object] = {
    "name": "post-@N@",
    "schedule": "0 30 * * * *",
    "command": "/usr/bin/date",
    "owner": "John Doe",
}


def post(port: int, token: str, seconds: float, first: int = 0) -> Report:
    order = Order(port, token, "POST", "/v1/jobs", json.dumps(JOB), first, 0, seconds, WARM_UP_SECONDS)
    return generate(order)


def measure(bench: Bench) -> Iterator[Figure]:
    """The rate after a warm-up, at the leader; every answered job is there. Then at another agent, which passes each
    request on."""
    through: Report | None = None
    shares: list[float] = []
    with bench.running("http-post") as cluster:
        agent = cluster.entrance
        length = len(
            json.dumps(agent.call("POST", "/v1/jobs", bench.job(JOB) | {"name": "one"}), separators=(",", ":"))
        )
        before = cpu_ns(agent.pid)
        report = post(agent.port, agent.token, SECONDS)
        used_us = (cpu_ns(agent.pid) - before) / 1e3 / report.sent
        stored = int(agent.call("GET", "/v1/")["mesh"]["jobs"]) - 1
        for other in cluster.others(agent)[:1]:
            both = agent, other
            before_us = [cpu_ns(one.pid) / 1e3 for one in both]
            through = post(other.port, other.token, LIMIT_SECONDS, first=report.sent)
            shares = [(cpu_ns(one.pid) / 1e3 - us) / through.sent for one, us in zip(both, before_us, strict=True)]
    with bare_tornado(length) as (port, _):
        limit = post(port, "", LIMIT_SECONDS)
    # The last request of each client may have been cut off before or after its write.
    if not report.sent - CONNECTIONS <= stored <= report.sent:
        raise Failed(f"{report.sent} jobs posted, {stored} stored")
    latency = milliseconds([report.p50_s, report.p99_s])
    yield Figure(
        f"durable POST/s at {CONNECTIONS} clients",
        f"{per_second(report.per_second)}, p50 / p99 {latency}, {used_us:.0f} us CPU each",
        f">= {bench.goals.posts_per_s:,.0f}/s",
        f"bare tornado {per_second(limit.per_second)}",
        report.per_second >= bench.goals.posts_per_s,
    )
    if through is not None:
        latency = milliseconds([through.p50_s, through.p99_s])
        cost = "the leader {:.0f} us CPU each, that agent {:.0f}".format(*shares)
        yield Figure(
            "- at an agent that does not lead", f"{per_second(through.per_second)}, p50 / p99 {latency}, {cost}"
        )
