"""Thirty agents of one cluster on one machine: three that may vote, the rest only run jobs (`--voter never`)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from tests.checker import SECOND_US
from tests.integration.agent.real_agent import wait_for
from tests.integration.mesh.real_cluster import MeshAgent, RealCluster, Watch

AGENTS = 30
VOTERS = 3

TOGETHER_SECONDS = 120.0
"""Thirty interpreters that start on two busy cores take most of it."""

IDLE_SECONDS = 10.0
WATCHED_SECONDS = 60
LATE_US = 5 * SECOND_US
"""Thirty processes in the same instant, each second, on two busy cores: whether any is late by more than that."""


def cpu_seconds(agents: list[MeshAgent]) -> float:
    """What they used so far."""
    used = [psutil.Process(agent.process.pid).cpu_times() for agent in agents if agent.process is not None]
    return sum(one.user + one.system for one in used)


def idle_share(agents: list[MeshAgent]) -> float:
    """The part of one core that each of them takes while nothing is to be done."""
    before = cpu_seconds(agents)
    until = time.monotonic() + IDLE_SECONDS
    wait_for(lambda: time.monotonic() > until, seconds=IDLE_SECONDS + 10)
    return (cpu_seconds(agents) - before) / IDLE_SECONDS / len(agents)


def many_story(folder: Path, count: int, seconds: int) -> None:
    """All are members in time; a job on all of them each second, and one on any; the leader stays; nothing is missing
    or doubled."""
    names = [f"agent-{number:02}" for number in range(1, count + 1)]
    cluster = RealCluster(folder, names)
    for agent in cluster.agents[VOTERS:]:
        agent.flags = (*agent.flags, "--voter", "never")
    try:
        began = time.monotonic()
        for agent in cluster.agents:
            agent.spawn()
        for agent in cluster.agents:
            wait_for((agent.folder / "agent.json").exists, f"the start of {agent.name}", TOGETHER_SECONDS)
        cluster.heal(VOTERS, TOGETHER_SECONDS)
        print(f"{count} agents are one cluster after {time.monotonic() - began:.1f} s")
        leader, term = cluster.leader, cluster.leader.mesh["term"]
        rest = [agent for agent in cluster.agents if agent is not leader]
        print(f"idle: leader {idle_share([leader]):.1%}, each other one {idle_share(rest):.1%} of a core")
        print(f"memory: leader {leader.rss_bytes >> 20} MiB, others at most {max(one.rss_bytes for one in rest) >> 20}")
        watch = Watch(cluster, "many")
        watch.begin()
        watch.wait_for_more(seconds)
        found = watch.end(late_us=LATE_US)
        print(f"{found.ticks} ticks, the latest start {found.worst_us // 1000} ms late")
        assert (cluster.leader, leader.mesh["term"]) == (leader, term)
    finally:
        cluster.close()


@pytest.mark.slow
def test_thirty_agents_for_a_minute(folder: Path) -> None:
    """A short dose."""
    many_story(folder, AGENTS, WATCHED_SECONDS)


@pytest.mark.named
def test_fifty_agents_for_five_minutes(folder: Path) -> None:
    """The full dose; MESHCRON_SOAK_SECONDS makes it longer."""
    many_story(folder, 50, int(os.environ.get("MESHCRON_SOAK_SECONDS", "300")))
