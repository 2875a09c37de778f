"""Two starts of one node id: which message proves that both live, and which of them is told."""

from __future__ import annotations

import pytest

from meshcron.core.copies import PROOF_US, Copies, Judged
from meshcron.core.membership import Membership
from meshcron.core.timing import LAN
from meshcron.core.turn import Turn
from meshcron.messages import Endpoint, Fence, Heartbeat, Profile
from meshcron.model import SECOND_US, Instant

NOW_US = 100 * SECOND_US


def start(number: int, start_id: str, node_id: str = "other") -> Profile:
    return Profile(
        node_id=node_id,
        name="one",
        public_key="",
        endpoint=Endpoint("", 0, 0, 0),
        tags={},
        facts={},
        session=number,
        start_id=start_id,
    )


def beat(membership: Membership, profile: Profile, at_us: int) -> None:
    membership.heartbeat(
        Heartbeat(
            profile=profile,
            fence=Fence(),
            leader="",
            cluster_us=0,
            wall_us=0,
            running=0,
            applied_index=0,
            roster_index=0,
        ),
        at_us,
    )


@pytest.fixture
def copies() -> Copies:
    """Start 7 of the other agent was heard just now; this agent is in its start 3."""
    membership = Membership("own", LAN)
    membership.start(0)
    beat(membership, start(7, "a"), NOW_US)
    return Copies("own", 3, "mine", membership, LAN)


@pytest.mark.parametrize(
    ("profile", "judged"),
    [
        (start(7, "a"), ""),
        (start(7, "b"), "copy"),
        (start(8, "b"), "waits"),
        (start(6, "b"), "unproven"),
        (start(7, ""), ""),
        (start(1, "b", "nobody heard"), ""),
        (start(3, "mine", "own"), ""),
        (start(4, "b", "own"), "copy"),
        (start(3, "nine", "own"), "copy"),
        (start(3, "late", "own"), "waits"),
        (start(2, "b", "own"), "waits"),
    ],
)
def test_what_a_start_shows(copies: Copies, profile: Profile, judged: Judged) -> None:
    """One number is given once; a higher one may be a restart, a lower one an old message."""
    assert copies.judge(profile, "", NOW_US) == judged


@pytest.mark.parametrize(
    ("echo", "judged"), [("", "unproven"), ("theirs-1", "unproven"), ("mine-x", "unproven"), ("mine-1", "unproven")]
)
def test_an_echo_that_proves_nothing(copies: Copies, echo: str, judged: Judged) -> None:
    """None at all, another gate's, none of ours, one from long ago."""
    assert copies.judge(start(6, "b"), echo, NOW_US) == judged


def test_a_fresh_echo_proves_a_lower_number(copies: Copies) -> None:
    """It was said after what the gate said."""
    assert copies.judge(start(6, "b"), copies.nonce(NOW_US - SECOND_US), NOW_US) == "copy"


def test_a_restart_is_let_in_once_the_earlier_start_is_silent(copies: Copies) -> None:
    """Four beats."""
    copies.met(start(8, "b"), "", Turn(Instant(NOW_US, 0)))
    assert copies.judge(start(8, "b"), "", NOW_US + 2 * SECOND_US) == ""


def test_an_earlier_start_that_is_heard_on_shows_a_copy() -> None:
    """Three seconds after the later one knocked; the operator is told once."""
    membership = Membership("own", LAN)
    copies = Copies("own", 3, "mine", membership, LAN)
    told: list[object] = []
    for at_us in range(NOW_US, NOW_US + 2 * PROOF_US, LAN.beat_us):
        beat(membership, start(7, "a"), at_us)
        turn = Turn(Instant(at_us, 0))
        judged = copies.judge(start(8, "b"), "", at_us)
        assert judged == ("copy" if at_us - NOW_US >= PROOF_US else "waits")
        copies.met(start(8, "b"), "", turn)
        told += turn.close(0)[1]
    assert len(told) == 1


def test_a_gate_of_an_earlier_start_of_ours_makes_us_the_copy(copies: Copies) -> None:
    """Its answer to our knock is new by itself."""
    assert copies.is_ours(start(2, "b", "own"))
    assert not copies.is_ours(start(3, "mine", "own"))
    assert not copies.is_ours(start(4, "b", "own"))
