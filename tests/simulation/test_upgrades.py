"""Upgrades: agents of protocol n and n + 1 in one cluster (PROTOCOL 5, FAULTS 48). Each is a short story."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from meshcron import messages
from meshcron.core.agent import Agent
from meshcron.core.settings import Settings
from meshcron.errors import NewerProtocol
from meshcron.rows import Loaded
from meshcron.vocabulary import VOCABULARY
from tests.next_build import NEXT, NextAgent
from tests.simulation.cluster import Cluster, Host
from tests.simulation.test_scripts import at_end, follower, grown, led, put, voters_are

FAIL_OVER_US = 1_500_000

NEWS = {"protocol", "remark", "signed"}
"""What only an agent of the next build writes, in the catalog's scalars."""


def news_on(host: Host) -> set[str]:
    """What of it has come to its disk."""
    return NEWS & set(host.disk.load().meta)


def bodies_on(host: Host) -> bytes:
    """All entries on its disk."""
    return b"\n".join(row.body for row in host.disk.log.values())


def install(host: Host, build: type[Agent]) -> None:
    """Another version, and a restart as `systemctl restart` does it."""
    host.crash()
    host.build = build
    host.start()


def upgraded(world: Cluster, *hosts: Host) -> None:
    """One after the other, the cluster whole again in between."""
    for host in hosts:
        install(host, NextAgent)
        world.run_for(4)


def anything_new(world: Cluster) -> bool:
    """Whether anything of the new protocol lies on any disk."""
    words = (b'"config"', b'"remark"', b'"signed"')
    return any(news_on(host) or any(word in bodies_on(host) for word in words) for host in world.hosts)


def test_nothing_new_is_written_until_the_last_is_upgraded() -> None:
    """One old and two new agents: the log holds what the old one knows, whoever leads. With the last upgrade the
    cluster moves on by itself, and all hold the same."""
    world = grown(1)
    put(world, "tick")
    last = follower(world)
    upgraded(world, *(host for host in world.hosts if host is not last))
    for _ in range(2):
        led(world).crash()  # both of the new ones get to lead, or the old one does
        world.run_for(3)
        for host in world.hosts:
            if not host.is_up:
                host.start()
        world.run_for(4)
        assert not anything_new(world)
        assert {host.agent.protocol for host in world.hosts} == {1}
    upgraded(world, last)
    assert [news_on(host) for host in world.hosts] == [NEWS] * 3
    assert {host.agent.protocol for host in world.hosts} == {NEXT.protocol}
    at_end(world)


def test_a_rolling_upgrade_misses_no_tick() -> None:
    """A job each second on all agents: each restart costs its own agent a moment, and nobody else anything."""
    world = grown(2)
    put(world, "tick", concurrency="allow")
    world.run_for(5)
    upgraded(world, *world.hosts)
    world.run_for(3)
    assert [news_on(host) for host in world.hosts] == [NEWS] * 3
    at_end(world)
    assert max(world.late_us.values()) < FAIL_OVER_US


def test_before_the_last_is_upgraded_all_may_go_back() -> None:
    """An upgrade given up half way: the old build reads all that the new one wrote."""
    world = grown(3)
    put(world, "tick", concurrency="allow")
    upgraded(world, *world.hosts[:2])
    for host in world.hosts[:2]:
        install(host, Agent)
        world.run_for(4)
    assert not anything_new(world)
    voters_are(world, 3)
    at_end(world)


def test_after_it_an_old_build_does_not_start() -> None:
    """Back by one, when all have moved on: it refuses its disk, in one line that names the remedy, and changes nothing
    of it. The others go on, and so does it once it is upgraded again."""
    world = grown(4)
    put(world, "tick", concurrency="allow")
    upgraded(world, *world.hosts)
    back = follower(world)
    back.crash()
    back.build = Agent
    before = back.disk.load()
    with pytest.raises(NewerProtocol, match=r"protocol 2, this agent only 1: upgrade meshcron on this machine"):
        back.start()
    assert back.disk.load() == before
    world.run_for(5)
    assert led(world).agent.state.applied[0] > int(before.meta["applied"].split()[0])
    install(back, NextAgent)
    at_end(world)


class Boaster(Agent):
    """An old build that was announced as a new one: set back in the moment between its word and the leader's entry."""

    def profile(self) -> messages.Profile:
        return replace(super().profile(), protocol=NEXT.protocol)


class Claimant(Agent):
    """A build that takes the new protocol for its own and does not know its entries."""

    def __init__(self, settings: Settings, loaded: Loaded) -> None:
        super().__init__(replace(settings, vocabulary=replace(VOCABULARY, protocol=NEXT.protocol)), loaded)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (Boaster, "the cluster speaks protocol 2, this agent only 1: upgrade meshcron"),
        (Claimant, "the log holds an entry that this agent cannot read .*'remark'.*: upgrade meshcron"),
    ],
)
def test_an_agent_that_meets_what_it_does_not_know_stops(build: type[Agent], says: str) -> None:
    """In one line, and with nothing of it on its disk: skipped, the entry would make its state another one than
    everybody else's. The others go on without it, and with it once it is upgraded."""
    world = grown(5)
    put(world, "tick", concurrency="allow")
    odd = follower(world)
    upgraded(world, *(host for host in world.hosts if host is not odd))
    odd.crash()
    world.run_for(3)  # so that one of the others leads
    world.halts = {}
    odd.build = build
    odd.start()
    world.run_for(5)
    assert set(world.halts) == {odd.name}
    assert re.match(says, world.halts[odd.name])
    assert b'"remark"' not in bodies_on(odd)
    assert "remark" not in news_on(odd)
    world.halts = None
    install(odd, NextAgent)
    world.run_for(5)
    assert [news_on(host) for host in world.hosts] == [NEWS] * 3
    at_end(world)


def test_an_agent_that_holds_no_log_stops_too() -> None:
    """A worker away during the upgrade: the cluster does not wait for it, and it learns from gate or leader that it has
    to be upgraded."""
    world = grown(6)
    worker = world.add({"role": "worker"}, eligible=False)
    worker.start()
    voters_are(world, 3)
    worker.crash()
    upgraded(world, *world.hosts[:3])
    assert {host.agent.protocol for host in world.hosts[:3]} == {NEXT.protocol}
    world.halts = {}
    worker.start()
    world.run_for(5)
    assert "upgrade meshcron" in world.halts.get(worker.name, "") or world.alarms["refused"]
    world.halts = None
    install(worker, NextAgent)
    world.run_for(5)
    assert led(world).agent.membership.is_heard(worker.node_id, led(world).now().boot_us)


def test_a_newcomer_of_an_old_build_is_refused_at_the_gate() -> None:
    """It says so to its operator and is no member; upgraded it joins."""
    world = grown(7)
    upgraded(world, *world.hosts)
    newcomer = world.add()
    newcomer.start()
    world.run_for(10)
    assert world.alarms["refused"] == 1
    assert newcomer.is_up
    assert newcomer.agent.cluster == ""
    assert led(world).agent.state.member_of(newcomer.node_id) is None
    install(newcomer, NextAgent)
    assert world.run_until(lambda: newcomer.agent.cluster == led(world).agent.cluster, 10)


def test_a_voter_that_is_away_is_waited_for() -> None:
    """It has not announced anything since: it may come back as it went."""
    world = grown(8)
    put(world, "tick", concurrency="allow")
    away = follower(world)
    away.crash()
    upgraded(world, *(host for host in world.hosts if host is not away))
    world.run_for(20)
    assert not anything_new(world), "the cluster moves on without a voter"
    away.start()
    world.run_for(5)
    assert away.is_up
    assert not anything_new(world)
    upgraded(world, away)
    assert [news_on(host) for host in world.hosts] == [NEWS] * 3
    at_end(world)
