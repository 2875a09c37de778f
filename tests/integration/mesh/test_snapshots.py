"""A follower that lacks too much of the log, with real processes, sockets and disks (PROTOCOL 5)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from meshcron.store.database import read_only
from tests.integration.agent.real_agent import wait_for
from tests.integration.mesh.real_cluster import MeshAgent, RealCluster, Watch
from tests.integration.mesh.test_faults import until_another_leads

FORGOTTEN_SECONDS = 60.0
"""Twice 20 entries; two jobs with a tick a second write some each second."""

PADDING = "x" * 30_000
JOBS = 20
"""More than one chunk."""


def number(agent: MeshAgent, sql: str) -> int:
    """One that its database tells, whether it runs or not."""
    with closing(read_only(agent.folder / "database")) as database:
        (found,) = database.execute(sql).fetchone()
        return int(found or 0)


def first_entry(agent: MeshAgent) -> int:
    """The oldest one that it can still send."""
    return number(agent, "SELECT max(idx) FROM log_base") + 1


def last_entry(agent: MeshAgent) -> int:
    """Up to here it holds the log."""
    return max(number(agent, "SELECT max(idx) FROM log"), first_entry(agent) - 1)


@pytest.mark.slow
def test_a_follower_catches_up_by_a_snapshot(folder: Path) -> None:
    """It is away until nobody has the entries that come next for it; meanwhile jobs were added and removed. Back, it
    has what the others have, also after another start, and what it took over is good enough to go on with when the
    leader fails. No tick is missing and none doubled."""
    cluster = RealCluster(folder, ["one", "two", "three"])
    for agent in cluster.agents:
        agent.module = "tests.integration.mesh.short_logs"
    try:
        cluster.start(voters=3)
        watch = Watch(cluster, "behind")
        watch.begin()
        cluster.leader.add("removed", "echo removed")
        behind, other = cluster.followers
        watch.kill(behind)
        lacks = last_entry(behind) + 1
        for at in range(JOBS):
            cluster.leader.add(f"added-{at}", f": {PADDING}", "@every 1h")
        cluster.leader.call("DELETE", "/v1/jobs/removed")
        alive = [cluster.leader, other]
        wait_for(lambda: min(map(first_entry, alive)) > lacks, "its next entry is forgotten", FORGOTTEN_SECONDS)
        behind.start()
        cluster.heal()
        assert first_entry(behind) > lacks
        assert sorted(behind.jobs()) == sorted(cluster.leader.jobs())
        assert len(behind.jobs()) == JOBS + 2
        watch.back(behind)
        watch.wait_for_more(3)

        watch.kill(behind)
        behind.start()
        cluster.heal()
        watch.back(behind)
        watch.wait_for_more(3)
        leader = cluster.leader
        watch.kill(leader)
        until_another_leads(cluster, leader.name)
        watch.wait_for_more(3)
        cluster.heal()
        watch.back(leader)
        watch.end()
    finally:
        cluster.close()
