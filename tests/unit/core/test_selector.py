"""Tags -> targets: who runs a tick."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.core.selector import Candidate, Selected, matches, select, tag_value

WEB = Candidate(1, {"role": "web", "zone": "a"}, {"meshcron.os": "linux"})
BUSY = Candidate(2, {"role": "web", "zone": "b"}, {"meshcron.os": "linux"})
DB = Candidate(3, {"role": "db", "zone": "a"}, {"meshcron.os": "freebsd"})
ALL = (DB, BUSY, WEB)
LOADS = {BUSY.number: 5}


def load(one: Candidate) -> int:
    """The second is busy, the others have nothing to do."""
    return LOADS.get(one.number, 0)


@pytest.mark.parametrize(
    ("tags", "targets"),
    [
        (None, (1, 2, 3)),
        ({}, (1, 2, 3)),
        ({"role": "web"}, (1, 2)),
        ({"role": "web", "zone": "a"}, (1,)),
        ({"role": "web", "zone": "c"}, ()),
        ({"rack": "7"}, ()),
        ({"role": "web:1"}, (1,)),
        ({"role": "web:9"}, (1, 2)),
        ({"role": "web:2", "meshcron.os": "linux:1"}, (1,)),
        ({"meshcron.os": "linux"}, (1, 2)),
    ],
)
def test_all_tags_must_match_and_the_lowest_count_wins(tags: dict[str, str] | None, targets: tuple[int, ...]) -> None:
    """No tags = every member; of several counts the lowest holds; the least busy are taken."""
    assert select(tags, ALL, load) == Selected(targets, ())


def test_the_least_busy_are_chosen() -> None:
    """With one wanted of two, the idle one; with the same load, the lower number."""
    assert select({"role": "web:1"}, (BUSY, Candidate(4, {"role": "web"}, {}), DB), load).targets == (4,)
    assert select({"role": "web:1"}, (Candidate(4, {"role": "web"}, {}), WEB), load).targets == (1,)
    assert select({"role": "web:1"}, (Candidate(4, {"role": "web"}, {}), BUSY), lambda _: 5).targets == (2,)


def test_one_is_the_least_busy_whatever_the_job_wants() -> None:
    """As a retry on another agent does: the lower count holds, and where there is none."""
    assert select({"role": "web"}, (BUSY, Candidate(4, {"role": "web"}, {})), load, at_most=1).targets == (4,)
    assert select({"role": "web:1"}, (BUSY, WEB), load, at_most=2).targets == (1,)


@pytest.mark.parametrize("value", ["web:0", "web:", "web:two", "web:-1", "web:\u0662"])
def test_what_is_no_count_belongs_to_the_value(value: str) -> None:
    """Such a text selects only who has exactly it."""
    assert select({"role": value}, ALL, load).targets == ()
    assert select({"role": value}, (Candidate(7, {"role": value}, {}),), load).targets == (7,)


def test_facts_and_tags_do_not_mix() -> None:
    """A user's tag cannot pretend to be what a machine says of itself."""
    liar = Candidate(1, {"meshcron.os": "linux"}, {})
    assert select({"meshcron.os": "linux"}, (liar,), load).targets == ()
    assert select({"role": "web"}, (Candidate(1, {}, {"role": "web"}),), load).targets == ()


def test_who_has_failed_is_named_as_far_as_living_ones_are_lacking() -> None:
    """Each gets a record of its own; a count is filled with the living first."""
    down = Candidate(4, {"role": "web"}, {}, failed=True)
    assert select({"role": "web"}, (*ALL, down), load) == Selected((1, 2), (4,))
    assert select({"role": "web:2"}, (*ALL, down), load) == Selected((1, 2), ())
    assert select({"role": "web:3"}, (*ALL, down), load) == Selected((1, 2), (4,))
    assert select({"role": "web:1"}, (down,), load) == Selected((), (4,))
    assert select({"role": "db"}, (down,), load) == Selected((), ())


def test_a_count_excludes_nobody() -> None:
    """Who matches is another question than who is taken."""
    assert [matches({"role": "web:1"}, one) for one in ALL] == [False, True, True]
    assert [matches({"zone": "a", "role": "web"}, one) for one in ALL] == [False, False, True]
    assert all(matches(None, one) for one in ALL)


@pytest.mark.parametrize(("text", "value"), [("web", "web"), ("web:2", "web"), ("web:0", "web:0"), ("a:b:3", "a:b")])
def test_a_tag_asks_for_its_value_without_the_count(text: str, value: str) -> None:
    """That is the topic its orders are published under."""
    assert tag_value(text) == value


members = st.lists(st.tuples(st.sampled_from(("web", "db")), st.integers(0, 9), st.booleans()), max_size=12)


@given(members, st.integers(1, 15))
def test_a_count_takes_that_many_living_and_least_busy(drawn: list[tuple[str, int, bool]], count: int) -> None:
    """As many as wanted or all there are, the living before the failed, none busier than one left out."""
    candidates = [Candidate(at, {"role": role}, {}, failed) for at, (role, _, failed) in enumerate(drawn, 1)]
    loads = {at: load for at, (_, load, _) in enumerate(drawn, 1)}
    targets, down = select({"role": f"web:{count}"}, reversed(candidates), lambda one: loads[one.number])
    matching = [one for one in candidates if one.tags["role"] == "web"]
    living = [one for one in matching if not one.failed]
    assert len(targets) == min(count, len(living))
    assert len(targets) + len(down) == min(count, len(matching))
    assert (list(targets), list(down)) == (sorted(set(targets)), sorted(set(down)))
    assert {one.number for one in living} >= set(targets)
    assert {one.number for one in matching if one.failed} >= set(down)
    taken = [loads[one.number] for one in living if one.number in targets]
    left = [loads[one.number] for one in living if one.number not in targets]
    assert not taken or not left or max(taken) <= min(left)
