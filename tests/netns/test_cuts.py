"""Three voters whose links are cut: both ways, one way, and so that two of them hear only the third."""

from __future__ import annotations

import pytest

from tests.integration.agent.real_agent import wait_for
from tests.netns.everywhere import Everywhere
from tests.netns.machines import Lan, Machine
from tests.netns.network import between, both_ways

pytestmark = pytest.mark.netns

CUT_SECONDS = 6.0
"""Several elections long, and twice what is armed ahead."""

ELECTION_SECONDS = 3.0
"""An election takes 1.3 s and a lease 0.6 s, where the machine is not busy."""

HEALED_SECONDS = 10.0
"""Lost connections are tried again each second."""

ON_TIME_MS = 1000
"""What is armed ahead starts within milliseconds whoever leads; the machine of a test is busy."""


def leads_one_of(machines: list[Machine]) -> bool:
    """Whether all of these follow one of these."""
    leaders = {str(one.mesh()["leader"]) for one in machines}
    return len(leaders) == 1 and leaders <= {one.name for one in machines}


def test_8_a_leader_in_the_minority_stops_and_the_majority_goes_on(trio: Lan, ticks: Everywhere) -> None:
    """The leader alone on its side: it answers 503 to a write and knows of no leader; the others have a new one and run
    every tick. After the cut it follows, and every tick is accounted for."""
    before, old = trio.term(), trio.leader()
    rest = trio.others(old)
    ticks.away(old)
    trio.network.cut(between([old.name], [one.name for one in rest]))
    wait_for(lambda: old.ask("GET", "/v1/leader").status == 503, "no leader in the minority", ELECTION_SECONDS)
    wait_for(lambda: leads_one_of(rest), "a leader in the majority", ELECTION_SECONDS)
    body = {"name": "nowhere", "schedule": "@manually", "command": "true"}
    assert old.ask("POST", "/v1/jobs", body).status == 503
    assert rest[0].ask("POST", "/v1/jobs", body | {"name": "somewhere"}).status == 201
    ticks.pass_by(CUT_SECONDS)
    trio.network.heal()
    trio.wait_until_whole(voters=3, seconds=HEALED_SECONDS)
    assert old.ask("GET", "/v1/jobs/nowhere").status == 404
    wait_for(lambda: old.ask("GET", "/v1/jobs/somewhere").status == 200, "the write of the others")
    assert trio.term() - before <= 2
    ticks.back(old)
    told = ticks.check()
    assert told.lateness_p99_ms(rest) < ON_TIME_MS
    assert set(told.states([old])) <= {"success", "skipped"}


def test_8_a_follower_in_the_minority_is_missed_by_nobody(trio: Lan, ticks: Everywhere) -> None:
    """A follower alone on its side: there 503; leader and term stay, also when it comes back."""
    before, leader = trio.term(), trio.leader()
    alone, other = trio.others(leader)
    ticks.away(alone)
    trio.network.cut(between([alone.name], [leader.name, other.name]))
    wait_for(lambda: alone.ask("GET", "/v1/leader").status == 503, "no leader in the minority", ELECTION_SECONDS)
    body = {"name": "nowhere", "schedule": "@manually", "command": "true"}
    assert alone.ask("POST", "/v1/jobs", body).status == 503
    ticks.pass_by(CUT_SECONDS)
    trio.network.heal()
    trio.wait_until_whole(voters=3, seconds=HEALED_SECONDS)
    assert (trio.leader(), trio.term()) == (leader, before)
    ticks.back(alone)
    told = ticks.check()
    assert told.lateness_p99_ms([leader, other]) < ON_TIME_MS
    assert set(told.states([alone])) <= {"success", "skipped"}


@pytest.mark.parametrize("mute", [True, False], ids=["leader-mute", "leader-deaf"])
def test_9_10_a_leader_that_is_mute_or_deaf_is_replaced_once(trio: Lan, ticks: Everywhere, mute: bool) -> None:
    """One way is cut between the leader and both followers. It steps down, one of the others leads, and there is no
    storm of terms: neither while the cut lasts nor after it."""
    before, old = trio.term(), trio.leader()
    rest = trio.others(old)
    ticks.away(old)
    trio.network.cut((old.name, one.name) if mute else (one.name, old.name) for one in rest)
    wait_for(lambda: leads_one_of(rest), "a new leader", ELECTION_SECONDS)
    ticks.pass_by(CUT_SECONDS)
    assert leads_one_of(rest)
    trio.network.heal()
    trio.wait_until_whole(voters=3, seconds=HEALED_SECONDS)
    assert trio.term() - before <= 2
    ticks.back(old)
    told = ticks.check()
    assert told.lateness_p99_ms(rest) < ON_TIME_MS
    assert set(told.states([old])) <= {"success", "skipped"}


@pytest.mark.parametrize("led_by_the_middle", [True, False], ids=["middle-leads", "end-leads"])
def test_11_an_intersecting_cut_leaves_one_leader(trio: Lan, ticks: Everywhere, led_by_the_middle: bool) -> None:
    """A hears B and C, but B and C do not hear each other. Whether A leads or B: the leader and its term stay."""
    before, leader = trio.term(), trio.leader()
    one, other = trio.others(leader)
    ticks.away(other)
    trio.network.cut(both_ways((one.name, other.name) if led_by_the_middle else (leader.name, other.name)))
    terms: set[int] = set()
    ticks.pass_by(CUT_SECONDS, lambda: terms.add(trio.term()))
    assert trio.leader([leader, one]) == leader
    trio.network.heal()
    trio.wait_until_whole(voters=3, seconds=HEALED_SECONDS)
    assert (terms, trio.leader(), trio.term()) == ({before}, leader, before)
    ticks.back(other)
    told = ticks.check()
    assert told.lateness_p99_ms([leader, one]) < ON_TIME_MS
    assert set(told.states([other])) <= {"success", "skipped"}
