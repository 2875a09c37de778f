"""Three voters on a network that loses packets, and with a link that comes and goes."""

from __future__ import annotations

import pytest

from tests.netns.everywhere import Everywhere
from tests.netns.machines import Lan
from tests.netns.network import between

pytestmark = pytest.mark.netns

LOSS_PERCENT = 20
FLAP_SECONDS = 0.7
LEADER_CHANGES_MAX = 2

LED_SECONDS = 20
"""So long a leader stays where a fifth of all packets is lost, on average; without net/resend.py half as long. A lease
of 0.6 s is over when its appends or their answers to both followers are lost three times in a row."""

LATE_MS_MAX = 1000
"""At p99: what is armed ahead has three seconds to arrive."""


def lossy(lan: Lan, ticks: Everywhere, seconds: float) -> None:
    """A fifth of all packets is lost: nobody is taken for dead, the leader is seldom replaced, every tick runs
    everywhere, in time."""
    before = lan.term()
    dead: list[str] = []

    def watch() -> None:
        dead.extend(f"{one.name} says {mesh}" for one in lan.machines if (mesh := one.mesh())["failed"])

    lan.network.lose(LOSS_PERCENT)
    ticks.pass_by(seconds, watch)
    lan.network.heal()
    lan.wait_until_whole(voters=3)
    assert not dead
    assert lan.term() - before <= max(LEADER_CHANGES_MAX, seconds / LED_SECONDS)
    assert ticks.check().lateness_p99_ms(lan.machines) < LATE_MS_MAX


def flapping(lan: Lan, ticks: Everywhere, seconds: float) -> None:
    """The leader's cable comes and goes. Once it is replaced nobody follows it again: what it tries while it is gone is
    no election, and what it asks for when it is back is refused."""
    before, leader = lan.term(), lan.leader()
    rest = lan.others(leader)
    ways = between([leader.name], [one.name for one in rest])
    ticks.away(leader)
    for _ in range(round(seconds / (2 * FLAP_SECONDS))):
        lan.network.cut(ways)
        ticks.pass_by(FLAP_SECONDS)
        lan.network.heal()
        ticks.pass_by(FLAP_SECONDS)
    lan.wait_until_whole(voters=3)
    assert lan.term() - before <= LEADER_CHANGES_MAX
    ticks.back(leader)
    assert set(ticks.check().states([leader])) <= {"success", "skipped"}


def test_15_a_fifth_of_all_packets_is_lost(trio: Lan, ticks: Everywhere) -> None:
    """Three minutes, the short dose."""
    lossy(trio, ticks, 180)


def test_13_a_link_that_flaps(trio: Lan, ticks: Everywhere) -> None:
    """A short dose."""
    flapping(trio, ticks, 20)


@pytest.mark.named
def test_15_a_fifth_of_all_packets_is_lost_for_five_minutes(trio: Lan, ticks: Everywhere) -> None:
    """The full dose."""
    lossy(trio, ticks, 300)


@pytest.mark.named
def test_13_a_link_that_flaps_for_two_minutes(trio: Lan, ticks: Everywhere) -> None:
    """The full dose."""
    flapping(trio, ticks, 120)
