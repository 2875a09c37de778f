"""Links with 300 ms of delay, more or less, which is not the same on any two connections (FAULTS 16)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checker import SECOND_US
from tests.integration.mesh.real_cluster import RealCluster, Watch
from tests.integration.mesh.relay import HERE, Delay, Relay, free_ports
from tests.integration.mesh.test_faults import until_another_leads

FAR = Delay(0.15, 0.40, jitter=0.05)
"""As the simulator has it (test_scripts.py, far_away): 150 to 450 ms each way."""

FAIL_OVER_US = 20 * SECOND_US
"""An election takes four times as long as on a LAN, and as much again in round trips."""

FAR_SECONDS = 60

WAYS = 3 * 2 * 2 * 2
"""Each of three agents dials two others at two ports, and each connection has two directions."""

OVERTAKES_SECONDS = 0.15
"""What is sent so much later over a quicker connection arrives first."""


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Relay(seed=16)
    made.start()
    yield made
    made.close()


@pytest.fixture
def far(folder: Path, relay: Relay) -> Iterator[RealCluster]:
    """Three agents that reach each other through relays only, with the times for slow links; formed while near."""
    cluster = RealCluster(folder, ["one", "two", "three"])
    places = {agent.name: f"127.0.1.{number}" for number, agent in enumerate(cluster.agents, 1)}
    free = iter(free_ports((HERE, *places.values()), 3 * len(places)))
    ports = {name: [next(free) for _ in range(3)] for name in places}
    for agent in cluster.agents:
        host, (gate, mesh, pub) = places[agent.name], ports[agent.name]
        relay.listen(host, ports[agent.name])
        joins = [("--join", f"{places[other]}:{ports[other][0]}") for other in places if other != agent.name]
        agent.flags = (
            *agent.flags,
            *("--no-mdns", "--timing", "slow", "--advertise", host),
            *("--gate-port", str(gate), "--mesh-port", str(mesh), "--pub-port", str(pub)),
            *(word for join in joins for word in join),
        )
    try:
        cluster.start(voters=3)
        yield cluster
    finally:
        cluster.close()


@pytest.mark.slow
def test_16_delay_jitter_and_reorder(far: RealCluster, relay: Relay) -> None:
    """For a minute each word is on its way for 150 to 450 ms, and what is published overtakes what is sent to one.
    Nobody is taken for dead, the leader stays, no tick is missing, doubled or late."""
    leader, term = far.leader, far.leader.mesh["term"]
    watch = Watch(far, "far")
    watch.begin()
    relay.set_delay(FAR)
    watch.wait_for_more(FAR_SECONDS)
    assert (far.leader, leader.mesh["term"]) == (leader, term), leader.log
    watch.end()
    print(f"{len(relay.drawn)} ways, with delays of {min(relay.drawn):.3f} to {max(relay.drawn):.3f} s")
    assert len(relay.drawn) >= WAYS
    assert max(relay.drawn) - min(relay.drawn) > OVERTAKES_SECONDS


@pytest.mark.slow
def test_16_a_leader_dies_and_comes_back_over_such_links(far: RealCluster, relay: Relay) -> None:
    """The others agree on another one, and the dead one finds its way back: a handshake of six ways is waited for."""
    relay.set_delay(FAR)
    watch = Watch(far, "far-kill")
    watch.begin()
    leader = far.leader
    watch.kill(leader)
    print(f"another one leads after {until_another_leads(far, leader.name):.1f} s")
    watch.wait_for_more(5)
    far.heal()
    watch.back(leader)
    watch.end(late_us=FAIL_OVER_US)
