"""The leader is killed, or stands still: how soon the next one answers a write, and whether a tick is late meanwhile.

While all this happens two jobs have a tick a second, with overlap allowed: one on every agent, one on any. Each start
writes itself down, and tests/checker.py matches ticks, starts and records one to one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents import Agent, Cluster, wait_until
from bench import Bench
from failed import Failed
from goals import KILLED_P50_S, KILLED_P99_S, SEEN_KILLED_S, SILENT_P99_S
from table import Figure, milliseconds, quantile

from tests.checker import COMMAND, LATE_US, SECOND_US, Down, Findings, Job, checked

KILLS = 50
STOPS = 10
CRASHES = 10
SEED = 4
CALMS = 20
WRITE_SECONDS = 20.0
HEAL_SECONDS = 40.0
HORIZON_US = 3 * SECOND_US
"""Ticks are decided so far ahead: what an agent missed is decided anew for so long after it is back."""

APART_SECONDS = 2.0
"""With that an agent that was away is excused for so long that there is always one that is not."""

RECORDS = 5000
EVERYWHERE, ANYWHERE = "everywhere", "anywhere"
TICKS_LATE, TICKS_GOAL = f"ticks over {LATE_US // 1000} ms late across {{across}}", "0, none missing or doubled"
WRITTEN: dict[str, object] = {"name": "written", "schedule": "@manually", "command": "true"}


class Watched:
    """A cluster whose agents are taken away and come back, with the two jobs on it."""

    def __init__(self, cluster: Cluster, starts: Path) -> None:
        self.cluster = cluster
        self._starts = starts
        self._down: list[Down] = []
        self._jobs = [Job(EVERYWHERE, frozenset(agent.name for agent in cluster.agents)), Job(ANYWHERE, 1)]

    def begin(self, tags: dict[str, str]) -> None:
        """Add the jobs; they run from the next seconds on."""
        self._starts.touch()
        for job in self._jobs:
            body = {
                "name": job.name,
                "schedule": "* * * * * *",
                "command": COMMAND.format(file=self._starts),
                "concurrency": "allow",
                "history": {"runs": RECORDS},
                "tags": tags if isinstance(job.targets, int) else {},
            }
            self.cluster.entrance.call("POST", "/v1/jobs", body)

    def without(self, agent: Agent, gone: Callable[[], float], back: Callable[[], None]) -> float:
        """What `gone` measures while the agent is away; returns when it is back and all vote again."""
        from_us = now_us() - SECOND_US
        try:
            return gone()
        finally:
            back()
            self.cluster.unite()
            self._down.append(Down(agent.name, from_us, now_us() + HORIZON_US))

    def judged(self) -> Findings:
        """All ticks; those of an agent that was away are excused."""
        time.sleep(HORIZON_US / SECOND_US)
        return checked(self._jobs, self._starts, self._executions, self._down)

    def _executions(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cluster.entrance.call(
            "GET", f"/v1/executions/{name}?_start=0&_end={RECORDS}"
        )
        return found


def now_us() -> int:
    return time.time_ns() // 1000


def killed(agent: Agent) -> float:
    """Kill it; returns when that was."""
    began = time.perf_counter()
    agent.kill()
    return began


def stopped(agent: Agent) -> float:
    began = time.perf_counter()
    agent.pause()
    return began


def written(others: Sequence[Agent], began: float) -> float:
    """Seconds since then until the first of them that leads has answered a write."""

    def wrote() -> bool:
        for agent in others:
            try:
                agent.call("GET", "/v1/isleader")
                agent.call("PUT", f"/v1/jobs/{WRITTEN['name']}", WRITTEN)
            except Failed:  # it does not lead, or only begins to
                continue
            return True
        return False

    wait_until("a write", wrote, WRITE_SECONDS)
    return time.perf_counter() - began


def seen(others: Sequence[Agent], name: str, began: float) -> float:
    """Seconds since then until each of them calls that member failed."""

    def knows(agent: Agent) -> bool:
        return any(one["Name"] == name and one["statusText"] == "failed" for one in agent.call("GET", "/v1/members"))

    wait_until("the crash seen", lambda: all(map(knows, others)), WRITE_SECONDS)
    return time.perf_counter() - began


@dataclass(frozen=True)
class Calm:
    """Seconds that the same takes where nothing is wrong: no fault is answered, or seen, sooner than that."""

    writes: list[float]
    looks: list[float]

    @staticmethod
    def of(cluster: Cluster) -> Calm:
        calm = Calm([], [])
        for _ in range(CALMS):
            calm.writes.append(written([cluster.entrance], time.perf_counter()))
            began = time.perf_counter()
            for agent in cluster.others(cluster.entrance):
                agent.call("GET", "/v1/members")
            calm.looks.append(time.perf_counter() - began)
        return calm

    @property
    def write(self) -> str:
        return f"a write without a fault {milliseconds([quantile(self.writes, 0.5), quantile(self.writes, 0.99)])}"

    @property
    def look(self) -> str:
        return f"a look at all others {milliseconds([quantile(self.looks, 0.5), quantile(self.looks, 0.99)])}"


def rounds(watched: Watched, chance: random.Random) -> tuple[list[float], list[float], list[float]]:
    """Leaders killed, leaders stopped, other agents killed, each at any instant of a second."""

    def one(agent: Agent, takes: Callable[[Sequence[Agent]], float], back: Callable[[], None]) -> float:
        others = watched.cluster.others(agent)
        return watched.without(agent, lambda: takes(others), back)

    def leader() -> Agent:
        time.sleep(APART_SECONDS + chance.random())
        watched.cluster.unite()
        return watched.cluster.entrance

    kills, stops, crashes = [], [], []
    for _ in range(KILLS):
        old = leader()
        kills.append(one(old, lambda others, old=old: written(others, killed(old)), old.start))  # type: ignore[misc]
    for _ in range(STOPS):
        old = leader()
        stops.append(one(old, lambda others, old=old: written(others, stopped(old)), old.resume))  # type: ignore[misc]
    for _ in range(CRASHES):
        old = chance.choice(watched.cluster.others(leader()))
        crashes.append(
            one(old, lambda others, old=old: seen(others, old.name, killed(old)), old.start)  # type: ignore[misc]
        )
    return kills, stops, crashes


def ticks_late(across: str, found: Findings) -> Figure:
    """The row about the two jobs."""
    return Figure(
        TICKS_LATE.format(across=across),
        f"{len(found.late)} of {found.ticks}, the latest {found.worst_us / 1000:.0f} ms; "
        f"missing {len(found.missing)}, doubled {len(found.doubled)}",
        TICKS_GOAL,
        met=found.clean and not found.late,
    )


def measure(bench: Bench) -> Iterator[Figure]:
    """One cluster for all of it."""
    with bench.running("failover") as cluster:
        watched = Watched(cluster, bench.folder / "failover-starts")
        watched.begin(bench.goals.tags)
        calm = Calm.of(cluster)
        kills, stops, crashes = rounds(watched, random.Random(SEED))
        found = watched.judged()
    p50, p99 = quantile(kills, 0.5), quantile(kills, 0.99)
    yield Figure(
        f"fail-over, {KILLS} kills -9, p50 / p99",
        f"{p50:.2f} / {p99:.2f} s",
        f"<= {KILLED_P50_S:g} / {KILLED_P99_S:g} s",
        calm.write,
        p50 <= KILLED_P50_S and p99 <= KILLED_P99_S,
    )
    p99 = quantile(stops, 0.99)
    yield Figure(
        f"fail-over, {STOPS} SIGSTOPs, p50 / p99",
        f"{quantile(stops, 0.5):.2f} / {p99:.2f} s",
        f"p99 <= {SILENT_P99_S:g} s",
        calm.write,
        p99 <= SILENT_P99_S,
    )
    yield ticks_late("them", found)
    p99 = quantile(crashes, 0.99)
    yield Figure(
        f"{CRASHES} crashed agents seen by all, p50 / p99",
        f"{quantile(crashes, 0.5):.2f} / {p99:.2f} s",
        f"<= {SEEN_KILLED_S:g} s",
        calm.look,
        p99 <= SEEN_KILLED_S,
    )
