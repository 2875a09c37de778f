"""Knocking: how often, and where it is worth while."""

from __future__ import annotations

import itertools

import pytest

from meshcron.core.admission import (
    ADDRESSES_MAX,
    ADDRESSES_OF_ONE_MAX,
    FORGOTTEN_US,
    KNOCK_BACK_US,
    KNOCK_MIN_US,
    KNOCK_TAKES_US,
    NEWCOMERS_KNOCKS_MAX,
    STRANGER_FORGOTTEN_US,
    STRANGERS_AT_ONCE,
    Admission,
)
from meshcron.core.effects import Knock
from meshcron.core.turn import Turn
from meshcron.messages import Endpoint, Hello, Profile
from meshcron.model import SECOND_US, Instant

GATES = 30


def knocks(admission: Admission, cluster: str, at_us: int, in_touch: frozenset[str] = frozenset()) -> list[int]:
    """The gates, by their ports, that are knocked at in a turn."""
    profile = Profile(
        node_id="a", name="one", public_key="", endpoint=Endpoint("", 1, 2, 3), tags={}, facts={}, session=1
    )
    turn = Turn(Instant(at_us, at_us))
    admission.knock(Hello(profile, cluster, 0), in_touch.__contains__, turn)
    return [effect.port for effect in turn.close(0)[1] if isinstance(effect, Knock)]


def knocked_for(seconds: int, cluster: str) -> list[list[int]]:
    """At which gates of thirty, each time that the agent wakes up for it."""
    admission = Admission("a", form_at_once=False, expect=1, eligible=False, remembers=str)
    admission.start(0)
    for port in range(1, GATES + 1):
        admission.learn("192.0.2.1", port, f"node {port}", 0)
    found, now_us = [], 0
    while now_us < seconds * SECOND_US:
        found.append(knocks(admission, cluster, now_us))
        next_us = admission.next_wakeup(Instant(now_us, now_us), member=bool(cluster))
        assert next_us is not None
        assert next_us > now_us
        now_us = next_us
    return found


def test_a_newcomer_among_many_knocks_at_a_few_at_once() -> None:
    """Each second at eight of them; each has its turn."""
    found = knocked_for(8, "")
    assert max(len(ports) for ports in found) == NEWCOMERS_KNOCKS_MAX
    assert sum(len(ports) for ports in found) <= 8 * NEWCOMERS_KNOCKS_MAX
    assert {port for ports in found for port in ports} == set(range(1, GATES + 1))


def test_a_member_that_hears_nobody_knocks_at_all() -> None:
    """It may be that all others have new addresses."""
    assert knocked_for(1, "c")[0] == list(range(1, GATES + 1))


def caller(port: int) -> Profile:
    """Of a member that knocks at ours."""
    return Profile(
        node_id="m", name="m", public_key="", endpoint=Endpoint("192.0.2.9", port, 2, 3), tags={}, facts={}, session=1
    )


def test_who_is_called_by_a_cluster_knocks_back_soon_and_not_more_often() -> None:
    """However often it is called: a gate has KNOCK_MIN_US between two knocks of ours."""
    admission = Admission("a", form_at_once=False, expect=1, eligible=True, remembers=str)
    admission.start(0)
    admission.learn("192.0.2.9", 7, "m", 0)
    assert knocks(admission, "", 0) == [7]
    times = []
    for now_us in range(1000, SECOND_US, 1000):
        admission.called(caller(7), now_us)
        times += [now_us] * len(knocks(admission, "", now_us))
    assert times == [KNOCK_MIN_US, 2 * KNOCK_MIN_US, 3 * KNOCK_MIN_US]
    admission.called(caller(7), 10 * SECOND_US)
    assert knocks(admission, "", 10 * SECOND_US + KNOCK_BACK_US) == [7]
    assert not admission.should_form(10 * SECOND_US)


def test_who_has_formed_calls_a_few_of_those_that_wait() -> None:
    """At once, however lately it had knocked there; of thirty only so many as it may knock at in a second."""
    admission = Admission("a", form_at_once=False, expect=1, eligible=True, remembers=str)
    admission.start(0)
    for port in range(1, GATES + 1):
        admission.learn("192.0.2.1", port, f"node {port}", 0)
    knocks(admission, "c", 0)
    assert not knocks(admission, "c", 1000)
    admission.formed(1000)
    assert len(knocks(admission, "c", 1000)) == NEWCOMERS_KNOCKS_MAX


# what anybody may have invented


def member() -> Admission:
    admission = Admission("a", form_at_once=False, expect=1, eligible=False, remembers=str)
    admission.start(0)
    return admission


def answer(admission: Admission, port: int, node_id: str, at_us: int) -> None:
    """The agent at that gate says who it is."""
    profile = Profile(
        node_id=node_id,
        name=node_id,
        public_key="",
        endpoint=Endpoint("192.0.2.9", port, 2, 3),
        tags={},
        facts={},
        session=1,
    )
    admission.answered("192.0.2.9", port, profile, Turn(Instant(at_us, at_us)))


def ports(admission: Admission) -> list[int]:
    """What is remembered."""
    return [port for _, port in admission._addresses]


def knock_times(admission: Admission, until_us: int, in_touch: frozenset[str] = frozenset()) -> list[tuple[int, int]]:
    """Of a member that is woken when it asked to be: when, at which port."""
    found, now_us = [], 0
    while now_us <= until_us:
        found += [(now_us, port) for port in knocks(admission, "c", now_us, in_touch)]
        next_us = admission.next_wakeup(Instant(now_us, now_us), member=True)
        if next_us is None:
            break
        now_us = max(next_us, now_us + 1)
    return found


def test_a_flood_of_invented_gates_is_knocked_at_a_few_at_once() -> None:
    """A thousand on mDNS: so many knocks are under way and no more. Each has its turn; one that somebody vouches for,
    and one that comes after them, waits for none of them."""
    admission = member()
    for port in range(1, ADDRESSES_MAX + 1):
        admission.found("192.0.2.1", port, f"node {port}", 0)
    times = knock_times(admission, 400 * SECOND_US)
    for at_us, _ in times:
        assert sum(at_us <= other_us < at_us + KNOCK_TAKES_US for other_us, _ in times) <= STRANGERS_AT_ONCE
    assert {port for _, port in times} == set(range(1, ADDRESSES_MAX + 1))
    admission.found("192.0.2.9", 7001, "real", 410 * SECOND_US)
    admission.called(caller(7002), 410 * SECOND_US)
    assert set(knocks(admission, "c", 412 * SECOND_US)) >= {7001, 7002}
    assert len(admission._addresses) == ADDRESSES_MAX


def test_an_address_where_nobody_answers_is_knocked_at_less_and_less_and_forgotten() -> None:
    """Not the one that the operator named."""
    admission = member()
    admission.found("192.0.2.1", 1, "invented", 0)
    admission.found("192.0.2.1", 2, "", 0, joined=True)
    times = knock_times(admission, 2 * STRANGER_FORGOTTEN_US)
    assert ports(admission) == [2]
    invented = [at_us for at_us, port in times if port == 1]
    assert len(invented) < 100
    assert invented[-1] > STRANGER_FORGOTTEN_US // 2
    assert max(after - before for before, after in itertools.pairwise(invented)) > 300 * SECOND_US


def test_one_that_is_announced_again_is_not_forgotten() -> None:
    """It stands for a machine that is there, and cannot be reached for an hour."""
    admission = member()
    admission.found("192.0.2.1", 1, "cut off", 0)
    knock_times(admission, STRANGER_FORGOTTEN_US // 2)
    admission.found("192.0.2.1", 1, "cut off", STRANGER_FORGOTTEN_US // 2)
    knocks(admission, "c", STRANGER_FORGOTTEN_US + SECOND_US)
    assert ports(admission) == [1]


@pytest.mark.parametrize(("in_touch", "kept"), [(True, [1]), (False, [])])
def test_one_that_has_answered_stays_as_long_as_it_is_heard(in_touch: bool, kept: list[int]) -> None:
    """And a day after that."""
    admission = member()
    admission.found("192.0.2.9", 1, "m", 0)
    answer(admission, 1, "m", SECOND_US)
    touch = frozenset({"m"}) if in_touch else frozenset()
    knocks(admission, "c", FORGOTTEN_US, touch)
    assert ports(admission) == [1]
    knocks(admission, "c", FORGOTTEN_US + 2 * SECOND_US, touch)
    assert ports(admission) == kept


def test_a_new_address_takes_the_place_of_the_oldest_invented_one() -> None:
    """Of those that the operator named or that have answered none goes for it."""
    admission = member()
    admission.found("192.0.2.9", 1, "", 0, joined=True)
    admission.found("192.0.2.9", 2, "m", 0)
    answer(admission, 2, "m", 0)
    for port in range(3, ADDRESSES_MAX + 11):
        admission.found("192.0.2.9", port, f"node {port}", port)
    assert sorted(ports(admission)) == [1, 2, *range(13, ADDRESSES_MAX + 11)]


def test_where_all_have_answered_an_invented_one_finds_no_place() -> None:
    """One that somebody vouches for does, and the one that was heard of least lately goes."""
    admission = member()
    for port in range(1, ADDRESSES_MAX + 1):
        admission.learn("192.0.2.9", port, f"node {port}", port)
    admission.found("192.0.2.9", 7001, "invented", SECOND_US)
    assert 7001 not in ports(admission)
    admission.learn("192.0.2.9", 7002, "n", SECOND_US)
    assert ports(admission) == [*range(2, ADDRESSES_MAX + 1), 7002]


def test_the_ports_of_earlier_starts_are_forgotten() -> None:
    """An agent that was started a hundred times, each time on another port: the last ones are remembered."""
    admission = member()
    for port in range(1, 101):
        admission.found("192.0.2.9", port, "m", port * SECOND_US)
        answer(admission, port, "m", port * SECOND_US)
        knocks(admission, "c", port * SECOND_US, frozenset({"m"}))
    assert ports(admission) == list(range(101 - ADDRESSES_OF_ONE_MAX, 101))
