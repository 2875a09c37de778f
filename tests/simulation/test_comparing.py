"""Rows are compared between those that hold the log (PROTOCOL 5): who is alone with its own begins anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from meshcron.core.agent import Agent
from meshcron.core.fold import Fold
from meshcron.core.state import JobState
from meshcron.model import Execution
from tests.simulation.cluster import Cluster, Host
from tests.simulation.test_scripts import START_BY_S, at_end, changed, follower, grown, led, put, voters_are

NOTICED_S = 70.0
"""Rows are compared each 60 s, and the next beats tell."""


@contextmanager
def miscounts(world: Cluster, host: Host) -> Iterator[None]:
    """From now on a machine adds one to each counter of successes that it computes."""
    right = Fold.count

    def wrong(fold: Fold, state: JobState, final: Execution) -> None:
        right(fold, state, final)
        state.success_count += host.is_up and fold.state is host.agent.state

    world.differ = True
    with changed("meshcron.core.fold.Fold.count", wrong):
        yield


@pytest.mark.parametrize("leads", [False, True])
def test_a_voter_that_computes_other_rows_is_set_aside(leads: bool) -> None:
    """Two of three agree on what the log comes to: the third begins anew, also where it leads."""
    world = grown(72)
    put(world, "tick", "*/5 * * * * *", tags={"role": "web:1"}, concurrency="allow")
    odd = led(world) if leads else follower(world)
    old_id = odd.node_id
    with miscounts(world, odd):
        assert world.run_until(lambda: odd.node_id != old_id, NOTICED_S), "nobody has noticed"
    assert world.alarms["rows_differ"]
    assert world.run_until(lambda: led(world).agent.state.member_of(odd.node_id) is not None, 60)
    voters_are(world, 3)
    world.run_for(START_BY_S)
    at_end(world)


def test_two_voters_that_differ_only_say_so() -> None:
    """Nobody can tell which of them is right."""
    world = grown(73)
    gone, odd = follower(world), follower(world, 1)
    gone.crash()
    put(world, "tick", "*/5 * * * * *", tags={"at": str(odd.number)}, concurrency="allow")
    before = {host.node_id for host in world.hosts}
    with miscounts(world, odd):
        world.run_for(2 * NOTICED_S)
    assert world.alarms["rows_differ"] == 1
    assert {host.node_id for host in world.hosts} == before


def compares(host: Host) -> bool:
    """Whether it can tell the digest of what it holds."""
    return host.agent.digest.at(host.agent.state.applied[0]) != 0


def test_rows_are_compared_across_restarts_and_snapshots() -> None:
    """The digest goes on where the disk says; one that came with a snapshot counts as one's own."""
    with changed("meshcron.core.log.KEPT_ENTRIES", 20):
        world = grown(74)
        put(world, "tick", "*/2 * * * * *", tags={"role": "web:1"}, concurrency="allow")
        behind = follower(world)
        behind.crash()
        world.run_for(60)
        behind.start()
        follower(world, 1).crash()
        for host in world.hosts:
            if not host.is_up:
                host.start()
        world.run_for(20)
        for host in world.hosts:
            assert compares(host), f"{host.name} compares nothing"
        old_id = behind.node_id
        with miscounts(world, behind):
            assert world.run_until(lambda: behind.node_id != old_id, NOTICED_S), "nobody has noticed"
        world.run_for(START_BY_S)
        at_end(world)


def test_what_another_build_has_computed_is_not_compared() -> None:
    """After an upgrade the digest is void until it begins anew, the same for all."""
    world = grown(75)
    put(world, "tick", "*/2 * * * * *", tags={"role": "web:1"}, concurrency="allow")
    upgraded = follower(world)
    upgraded.crash()
    upgraded.build = lambda settings, loaded: Agent(replace(settings, version="next"), loaded)
    upgraded.start()
    world.run_for(5)
    assert not compares(upgraded)
    begin = upgraded.agent.state.applied[0] + 10
    with changed("meshcron.core.digest.BEGIN_EVERY", begin):
        world.run_for(NOTICED_S)
    assert compares(upgraded)
    assert not world.alarms["rows_differ"]
    at_end(world)
