"""Who holds the log, all of a small cluster, a few of a large one; and who votes next."""

from __future__ import annotations

from msgspec.structs import replace

from meshcron.core.roster import FRESH_BEATS, SMALL, Health, log_holders, next_voters
from meshcron.core.timing import LAN
from meshcron.model import Member

NOBODY: frozenset[str] = frozenset()


def members(count: int, workers: int = 0) -> list[Member]:
    """Node ids are the numbers; the last ones are workers."""
    return [
        Member(node_id=str(at), name=f"m{at}", number=at, public_key="", eligible=at < count - workers)
        for at in range(count)
    ]


def test_everyone_eligible_holds_the_log_of_a_small_cluster() -> None:
    """Dead ones too: they go on where they were when they come back."""
    assert log_holders(members(SMALL, workers=2), frozenset("012"), frozenset("34")) == frozenset("012345")


def test_three_learners_hold_the_log_of_a_large_cluster() -> None:
    """The oldest members, and no worker."""
    assert log_holders(members(SMALL + 1, workers=1), frozenset("012"), NOBODY) == frozenset("012345")


def test_a_failed_member_is_no_learner_while_another_one_can_be() -> None:
    """Where the three oldest were dead for good, nobody alive could ever take a dead voter's seat."""
    assert log_holders(members(SMALL + 1), frozenset("012"), frozenset("345")) == frozenset("012678")
    few = log_holders(members(SMALL + 1, workers=3), frozenset("012"), frozenset("34"))
    assert few == frozenset("012345"), "there is nobody else"


def test_a_failed_voter_holds_it_all_the_same() -> None:
    """Until it is replaced: it may come back."""
    assert log_holders(members(SMALL + 1), frozenset("012"), frozenset("1")) == frozenset("012345")


def asked_to_go(silent_us: int) -> frozenset[str] | None:
    """Who votes next where 0 leads, 2 is asked to go, and 1 was last heard so long ago."""
    three = {one.number: replace(one, voter=True, leaving=one.node_id == "2") for one in members(3)}
    heard = Health(silent_us, LAN.stable_us, 0)
    return next_voters("0", frozenset("012"), three, {"1": heard, "2": heard}, LAN)


def test_nobody_leaves_one_who_may_have_died() -> None:
    """Of two voters both are needed: the one who is to stay has to be there at that moment, not just not missed yet."""
    fresh_us = FRESH_BEATS * LAN.beat_us
    assert asked_to_go(fresh_us) == frozenset("01")
    assert asked_to_go(fresh_us + 1) is None
