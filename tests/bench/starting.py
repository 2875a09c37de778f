"""`up` to the first answer, and to the first run: an agent in an empty data directory, bytecode compiled before."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import datetime

from agents import wait_until
from bench import Bench
from goals import ANSWER_S, RUN_S
from table import Figure

STARTS = 5
RUN_SECONDS = 20.0
JOB = {"name": "first", "schedule": "@manually", "command": "true"}


def one_start(bench: Bench, name: str) -> tuple[float, float]:
    """Seconds from the start of the process to its first answer, and to the start of its first run."""
    began = time.time()
    with bench.running(name) as cluster:
        agent = cluster.entrance
        agent.call("GET", "/v1/")
        answered = time.time()
        agent.call("POST", "/v1/jobs?runoncreate=true", JOB)
        wait_until("the first run", lambda: agent.call("GET", "/v1/jobs/first")["success_count"], RUN_SECONDS)
        (record,) = agent.call("GET", "/v1/executions/first")
    started = datetime.fromisoformat(record["started_at"]).timestamp()
    return answered - began, started - began


def measure(bench: Bench) -> Iterator[Figure]:
    """The median of some starts, the first of which compiles."""
    starts = [one_start(bench, f"starting/{number}") for number in range(STARTS + 1)][1:]
    answer, run = (statistics.median(each) for each in zip(*starts, strict=True))
    yield Figure("`up` to first API answer", f"{answer:.2f} s", f"<= {ANSWER_S:g} s", met=answer <= ANSWER_S)
    yield Figure("`up` to first run", f"{run:.2f} s", f"<= {RUN_S:g} s", met=run <= RUN_S)
