"""Knocking: how often, and where it is worth while."""

from __future__ import annotations

from meshcron.core.admission import NEWCOMERS_KNOCKS_MAX, Admission
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
