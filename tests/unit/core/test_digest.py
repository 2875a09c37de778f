"""The digest of what entries came to: whatever the order of the rows, over restarts, void across builds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from meshcron.core import digest
from meshcron.core.digest import COMPARE_US, KEPT, Digest, Verdict
from meshcron.messages import Endpoint, Fence, Heartbeat, Profile
from meshcron.rows import MetaRow, Row

A, B, C = (MetaRow("key", value) for value in "abc")


def fed(*entries: Sequence[Row], build: str = "1") -> Digest:
    """One that has seen these entries, the first of index 1."""
    one = Digest(build, {}, 0)
    for index, rows in enumerate(entries, 1):
        one.add(index, rows)
    return one


def again(one: Digest, index: int, build: str = "1") -> Digest:
    """After a restart, with what was written down."""
    row = one.row()
    return Digest(build, {row.key: row.value}, index)


def beat(node_id: str, index: int, told: int) -> Heartbeat:
    """What a voter says."""
    profile = Profile(
        node_id=node_id, name=node_id, public_key="", endpoint=Endpoint("", 0, 0, 0), tags={}, facts={}, session=1
    )
    return Heartbeat(
        profile=profile,
        fence=Fence(),
        leader="",
        cluster_us=0,
        wall_us=0,
        running=0,
        applied_index=index,
        roster_index=0,
        digest_index=index,
        digest=told,
    )


def test_the_order_of_an_entry_s_rows_does_not_count() -> None:
    """A dict that was read from a disk is ordered otherwise than one that grew; the order of entries does count."""
    assert fed([A, B], [C]).at(2) == fed([B, A], [C]).at(2) != 0
    assert fed([A], [B]).at(2) != fed([B], [A]).at(2)
    assert fed([A, A], [B]).at(2) != fed([B], [A, A]).at(2)
    assert fed([A, A]).at(1) != fed([A]).at(1)


def test_what_differed_once_differs_for_ever() -> None:
    """So it is found whenever it is looked for."""
    assert fed([A], [C], [C], [C]).at(4) != fed([B], [C], [C], [C]).at(4)


def test_it_goes_on_after_a_restart() -> None:
    """From what was written down with the rows."""
    before = fed([A], [B])
    one = again(before, 2)
    assert one.at(2) == before.at(2)
    one.add(3, [C])
    assert one.at(3) == fed([A], [B], [C]).at(3)


@pytest.mark.parametrize("case", ["another build", "another index", "none"])
def test_what_this_build_has_not_computed_is_void_until_it_begins_anew(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then all that hold the log begin at the same entry."""
    monkeypatch.setattr(digest, "BEGIN_EVERY", 5)
    old = fed([A], [B])
    one = Digest("1", {}, 2) if case == "none" else again(old, *((2, "2") if case == "another build" else (3, "1")))
    for index in (3, 4):
        one.add(index, [C])
        old.add(index, [C])
        assert one.at(index) == 0
        assert again(one, index, "2" if case == "another build" else "1").at(index) == 0
    for index in (5, 6):
        one.add(index, [C])
        old.add(index, [C])
    assert one.at(6) == old.at(6) != 0


def test_only_the_last_ones_can_be_told() -> None:
    """The future cannot, nor what is long past."""
    one = fed(*([A] for _ in range(KEPT + 10)))
    assert one.at(KEPT + 11) == one.at(10) == one.at(0) == 0
    assert one.at(11) != 0


def test_the_leader_names_an_index_each_minute() -> None:
    """The one that it has applied."""
    one = fed([A], [B])
    one.name_index(COMPARE_US)
    assert one.asked_index == 2
    one.add(3, [C])
    one.name_index(2 * COMPARE_US - 1)
    assert one.asked_index == 2
    one.name_index(2 * COMPARE_US)
    assert (one.asked_index, one.told) == (3, one.at(3))


@pytest.mark.parametrize(
    ("voters", "said", "differ", "odd"),
    [
        ("abc", {"b": "ours", "c": "ours"}, "", False),
        ("abc", {"b": "other", "c": "ours"}, "b", False),
        ("abc", {"b": "other", "c": "other"}, "bc", True),
        ("abc", {"b": "other", "c": "third"}, "bc", False),
        ("abc", {"b": "other"}, "b", False),
        ("ab", {"b": "other"}, "b", False),
        ("b", {"b": "other"}, "b", True),
        ("abcde", {"b": "other", "c": "other"}, "bc", False),
        ("abcde", {"b": "other", "c": "other", "d": "other"}, "bcd", True),
        ("abc", {"b": "", "c": ""}, "", False),
    ],
)
def test_who_is_alone_with_its_rows_is_odd(voters: str, said: dict[str, str], differ: str, *, odd: bool) -> None:
    """A majority of all voters must agree on others; of two nobody can tell. A learner believes a sole voter."""
    one = fed([A])
    one.name_index(COMPARE_US)
    told = {"ours": one.told, "other": one.told ^ 1, "third": one.told ^ 2, "": 0}
    beats = [beat(node_id, 1, told[what]) for node_id, what in said.items()]
    assert one.judge(beats, frozenset(voters)) == Verdict(frozenset(differ), odd)
    assert any(one.differs_from(heard) for heard in beats) == bool(differ)


def test_what_was_said_of_another_entry_is_not_compared() -> None:
    """An old beat of somebody who has gone silent since."""
    one = fed([A], [B])
    one.name_index(COMPARE_US)
    old = [beat("b", 1, 7), beat("c", 1, 7)]
    assert one.judge(old, frozenset("abc")) == Verdict()
    assert not one.differs_from(old[0])
