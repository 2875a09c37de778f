"""Knocking: how often, and where it is worth while."""

from __future__ import annotations

from meshcron.core.admission import KNOCK_BACK_US, KNOCK_MIN_US, NEWCOMERS_KNOCKS_MAX, Admission
from meshcron.core.effects import Knock
from meshcron.core.turn import Turn
from meshcron.messages import Endpoint, Hello, Profile
from meshcron.model import SECOND_US, Instant

GATES = 30


def knocks(admission: Admission, cluster: str, at_us: int) -> list[int]:
    """The gates, by their ports, that are knocked at in a turn."""
    profile = Profile(
        node_id="a", name="one", public_key="", endpoint=Endpoint("", 1, 2, 3), tags={}, facts={}, session=1
    )
    turn = Turn(Instant(at_us, at_us))
    admission.knock(Hello(profile, cluster, 0), lambda node_id: False, turn)
    return [effect.port for effect in turn.close(0)[1] if isinstance(effect, Knock)]


def knocked_for(seconds: int, cluster: str) -> list[list[int]]:
    """At which gates of thirty, each time that the agent wakes up for it."""
    admission = Admission("a", form_at_once=False, expect=1, eligible=False)
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
    admission = Admission("a", form_at_once=False, expect=1, eligible=True)
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
    admission = Admission("a", form_at_once=False, expect=1, eligible=True)
    admission.start(0)
    for port in range(1, GATES + 1):
        admission.learn("192.0.2.1", port, f"node {port}", 0)
    knocks(admission, "c", 0)
    assert not knocks(admission, "c", 1000)
    admission.formed(1000)
    assert len(knocks(admission, "c", 1000)) == NEWCOMERS_KNOCKS_MAX
