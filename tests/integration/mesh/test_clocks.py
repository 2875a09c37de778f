"""Real agents whose wall clock is wrong (FAULTS 28). Python's own reading of it is turned in the agent's process alone:
under libfaketime leases ran out by themselves, and it was not found out why."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent.real_agent import ROOT
from tests.integration.mesh.real_cluster import FORM_SECONDS, MeshAgent, RealCluster, Watch

HOUR_SECONDS = 3600

TURNED = """
import mmap, os, struct, time

ahead = mmap.mmap(os.open(os.environ["WALL_CLOCK"], os.O_RDWR), 8)
right = time.time_ns
time.time_ns = lambda: right() + struct.unpack("q", ahead)[0]
time.time = lambda: time.time_ns() / 1e9
"""
"""Python runs it before anything else, as `sitecustomize`. Clocks for intervals go on as they are."""


class Clocks:
    """The wall clock of each agent of a cluster, which a test may turn while the agent runs."""

    def __init__(self, cluster: RealCluster) -> None:
        self._folder = cluster.folder / "clocks"
        self._folder.mkdir()
        (self._folder / "sitecustomize.py").write_text(TURNED)

    def turn(self, agent: MeshAgent, seconds: int) -> None:
        """So far ahead of the machine's, from its next reading on."""
        file = self._folder / agent.name
        file.touch()
        with file.open("r+b") as stream:
            stream.write(struct.pack("q", seconds * 1_000_000_000))

    def variables(self, agent: MeshAgent) -> dict[str, str]:
        """For its start."""
        return {"PYTHONPATH": f"{self._folder}:{ROOT}", "WALL_CLOCK": str(self._folder / agent.name)}


@pytest.fixture
def cluster(folder: Path) -> Iterator[RealCluster]:
    """Three agents, which do not run yet."""
    real = RealCluster(folder, ["one", "two", "three"])
    yield real
    real.close()


@pytest.mark.slow
def test_28_the_leader_s_clock_an_hour_wrong(cluster: RealCluster) -> None:
    """An hour ahead, right again, an hour behind, each for ten seconds: the median of the three holds. Nobody else
    leads, no tick stalls, none is missed, none runs again, every start is at its time, and the log names the clock."""
    clocks = Clocks(cluster)
    for agent in cluster.agents:
        clocks.turn(agent, 0)
        agent.spawn(**clocks.variables(agent))
    for agent in cluster.agents:
        agent.wait()
    cluster.heal(voters=3, seconds=FORM_SECONDS)
    watch = Watch(cluster, "clock")
    watch.begin()
    leader, term = cluster.leader, cluster.leader.mesh["term"]
    for seconds in (HOUR_SECONDS, 0, -HOUR_SECONDS, 0):
        clocks.turn(leader, seconds)
        watch.wait_for_more(10)
    assert (cluster.leader.name, leader.mesh["term"]) == (leader.name, term), leader.log
    for how in ("3600.0 s ahead of", "3600.0 s behind"):
        assert f"the clock of '{leader.name}' is {how} the voters' median" in leader.log
    watch.end()
