"""Five voters that fall apart into two and three, again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.integration.agent.real_agent import wait_for
from tests.netns.everywhere import Everywhere
from tests.netns.machines import Lan, Machine
from tests.netns.network import between

pytestmark = pytest.mark.netns

SPLIT_SECONDS = 3.0
"""As long as what is armed ahead, and twice what an election takes."""

MINORITIES = ("ab", "cd", "ea", "bc", "de")
"""Each is in two of them."""

FIVE_SECONDS = 60.0
"""From one voter to three to five, each only when it has been stable for 10 s."""


@pytest.fixture
def five(networks_work: None, tmp_path: Path) -> Iterator[Lan]:
    """Five voters."""
    lan = Lan("five", tmp_path, 5)
    try:
        lan.start()
        lan.wait_until_whole(voters=5, seconds=FIVE_SECONDS)
        yield lan
    finally:
        lan.close()


def splits(lan: Lan, ticks: Everywhere, count: int) -> None:
    """The side of three always has a leader and runs every tick, from the first one that falls due after the cut, and
    there is at most one election for each change; on the other side no write is taken. Nothing is lost, nothing
    doubled. A side is excused until what was decided without it is over; before that there is no next split."""
    ticks.begin()
    apart: list[tuple[range, list[Machine]]] = []
    for minority in islice(cycle(MINORITIES), count):
        few = [one for one in lan.machines if one.name in minority]
        many = lan.others(*few)
        before, leader = lan.term(), lan.leader()
        ticks.away(*few)
        began = int(time.time()) + 1
        lan.network.cut(between([one.name for one in few], [one.name for one in many]))
        wait_for(lambda: lan.leader(many) in many, "a leader of the majority")  # noqa: B023 - called at once
        if leader in few:
            body = {"name": "nowhere", "schedule": "@manually", "command": "true"}
            assert leader.ask("POST", "/v1/jobs", body).status == 503
        ticks.pass_by(SPLIT_SECONDS)
        apart.append((range(began, int(time.time())), many))
        lan.network.heal()
        lan.wait_until_whole(voters=5)
        assert lan.term() - before <= 2
        assert lan.leader() in many
        ticks.back(*few)
    told = ticks.check()
    assert set(told.states(lan.machines)) <= {"success", "skipped"}
    for ran, many in apart:
        assert told.states(many, ran) == {"success": len(ran) * len(many)}


def test_12_five_split_three_times(five: Lan, tmp_path: Path) -> None:
    """A short dose."""
    splits(five, Everywhere(five, "tick", tmp_path / "starts"), 3)


@pytest.mark.named
def test_12_five_split_twenty_times(five: Lan, tmp_path: Path) -> None:
    """The full dose."""
    splits(five, Everywhere(five, "tick", tmp_path / "starts"), 20)
