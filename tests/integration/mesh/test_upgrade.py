"""Rolling upgrades with real processes: agents of two protocols in one cluster, there and back (FAULTS 48)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checker import SECOND_US
from tests.integration.agent.real_agent import wait_for
from tests.integration.mesh.real_cluster import MeshAgent, RealCluster, Watch

OLD, NEXT = "meshcron", "tests.next_build"

NEWS = ["protocol", "remark", "signed"]
"""What only the next build writes, in the catalog's scalars."""

LATE_US = 10 * SECOND_US
"""An agent that was away for a restart makes up for its ticks; the others are on time by the checker's own rule."""


@pytest.fixture
def own(folder: Path) -> Iterator[RealCluster]:
    """A cluster of this test's own: what it becomes nobody else can use."""
    real = RealCluster(folder, ["one", "two", "three"])
    try:
        real.start(voters=3)
        yield real
    finally:
        real.close()


def news_on(agent: MeshAgent) -> list[str]:
    """What of it has come to the disk of an agent that does not run."""
    with sqlite3.connect(agent.folder / "database") as database:
        found = database.execute("SELECT key FROM meta WHERE key IN (?, ?, ?) ORDER BY key", NEWS)
        return [key for (key,) in found]


def install(cluster: RealCluster, watch: Watch, agent: MeshAgent, module: str) -> None:
    """Stop, exchange, start; on with the next one once the cluster is whole."""
    watch.away(agent)
    assert agent.stop() == 0
    assert module == NEXT or news_on(agent) == []
    agent.module = module
    agent.start()
    cluster.heal()
    watch.back(agent)


def protocols(cluster: RealCluster) -> list[int]:
    return [agent.mesh["protocol"] for agent in cluster.agents]


@pytest.mark.slow
def test_48_a_rolling_upgrade_and_back(own: RealCluster) -> None:
    """Two agents go to the next version and back, as if it had been given up; then all three, one after the other, and
    the cluster moves on by itself. The way back is closed then: the old version does not start, says so in one line,
    and disturbs nobody. No tick is missing and none doubled."""
    watch = Watch(own, "upgrade")
    watch.begin()
    for module in (NEXT, OLD):
        for agent in own.agents[:2]:
            install(own, watch, agent, module)
            assert protocols(own) == [1, 1, 1]
    for agent in own.agents:
        assert protocols(own) == [1, 1, 1]
        install(own, watch, agent, NEXT)
    wait_for(lambda: protocols(own) == [2, 2, 2], "the next protocol")
    watch.wait_for_more(3)

    back = own.followers[0]
    watch.away(back)
    assert back.stop() == 0
    assert news_on(back) == NEWS
    back.module = OLD
    said = len(back.log)
    back.spawn()
    wait_for(lambda: not back.running, "the old version's end")
    line = "meshcron: the cluster speaks protocol 2, this agent only 1: upgrade meshcron on this machine"
    assert back.log[said:].startswith(line)
    assert back.log[said:].count("\n") == 1
    watch.wait_for_more(2)
    back.module = NEXT
    back.start()
    own.heal()
    watch.back(back)
    watch.end(late_us=LATE_US)
