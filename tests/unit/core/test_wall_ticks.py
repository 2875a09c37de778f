"""The search for ticks on the wall clock, over a calendar that is a plain list of readings.

Berlin puts its clock forward on 29 March 2026 at 01:00 UTC (02:00 -> 03:00) and back on 25 October (03:00 -> 02:00).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from calendar import timegm
from collections.abc import Callable

import pytest

from meshcron.core.wall_clock import WallClock, wall_clock
from meshcron.core.wall_ticks import END_S, latest_match, latest_slot, next_match, next_slot

BERLIN = wall_clock("Europe/Berlin")
FORWARD = timegm((2026, 3, 29, 1, 0, 0))
BACK = timegm((2026, 10, 25, 1, 0, 0))
MINUTE_S, HOUR_S = 60, 3600


class Readings:
    """A calendar of the readings given; counts how often it is asked."""

    def __init__(self, *readings: int) -> None:
        self.readings = sorted(readings)
        self.asked = 0

    def next(self, reading: int) -> int | None:
        self.asked += 1
        return next(iter(self.readings[bisect_right(self.readings, reading) :]), None)

    def previous(self, reading: int) -> int | None:
        self.asked += 1
        return next(iter(self.readings[: bisect_left(self.readings, reading)][::-1]), None)


Search = Callable[[WallClock, Readings, int], int | None]


def march(hour: int, minute: int) -> int:
    return timegm((2026, 3, 29, hour, minute, 0))


def october(hour: int, minute: int) -> int:
    return timegm((2026, 10, 25, hour, minute, 0))


def test_slots_in_a_gap_are_one_tick_at_its_end() -> None:
    """02:10 and 02:50 are skipped and 03:00 is what they are skipped to: one tick, then 03:20."""
    slots = Readings(march(1, 30), march(2, 10), march(2, 50), march(3, 0), march(3, 20))
    ticks = [FORWARD - 30 * MINUTE_S, FORWARD, FORWARD + 20 * MINUTE_S]
    assert next_slot(BERLIN, slots, FORWARD - 2 * HOUR_S) == ticks[0]
    assert next_slot(BERLIN, slots, ticks[0]) == next_slot(BERLIN, slots, FORWARD - 1) == ticks[1]
    assert next_slot(BERLIN, slots, ticks[1]) == ticks[2]
    assert next_slot(BERLIN, slots, ticks[2]) is None
    assert latest_slot(BERLIN, slots, ticks[2]) == ticks[2]
    assert latest_slot(BERLIN, slots, ticks[2] - 1) == latest_slot(BERLIN, slots, FORWARD) == ticks[1]
    assert latest_slot(BERLIN, slots, FORWARD - 1) == ticks[0]
    assert latest_slot(BERLIN, slots, ticks[0] - 1) is None


def test_a_slot_shown_twice_is_its_first_instant() -> None:
    """02:30 comes an hour and a half before and half an hour after the clock goes back: only the first counts, and
    from the whole second pass the next is 03:30."""
    slots = Readings(october(2, 30), october(3, 30))
    first, last = BACK - 30 * MINUTE_S, BACK + 90 * MINUTE_S
    assert next_slot(BERLIN, slots, first - 1) == first
    for instant in (first, BACK - 1, BACK, BACK + 20 * MINUTE_S, BACK + 40 * MINUTE_S, last - 1):
        assert next_slot(BERLIN, slots, instant) == last
        assert latest_slot(BERLIN, slots, instant) == first


def test_matches_in_a_gap_do_not_exist() -> None:
    """Real time knows no 02:30 on that day, neither forward nor back."""
    matches = Readings(march(1, 30), march(2, 30), march(3, 30))
    before, after = FORWARD - 30 * MINUTE_S, FORWARD + 30 * MINUTE_S
    assert next_match(BERLIN, matches, before) == after
    assert latest_match(BERLIN, matches, after - 1) == before
    assert next_match(BERLIN, Readings(march(2, 30)), before) is None
    assert latest_match(BERLIN, Readings(march(2, 30)), after) is None


def test_the_seconds_beside_a_gap_exist() -> None:
    """Both 01:59:59 and 03:00:00 are found from the other side of the gap, over a match inside it."""
    matches = Readings(march(2, 0) - 1, march(2, 30), march(3, 0))
    assert next_match(BERLIN, matches, FORWARD - 1) == FORWARD
    assert latest_match(BERLIN, matches, FORWARD - 1) == FORWARD - 1
    assert latest_match(BERLIN, Readings(march(2, 0) - 1, march(2, 30)), FORWARD + HOUR_S) == FORWARD - 1


def test_a_match_shown_twice_is_two_ticks() -> None:
    """Real time has both instants of 02:30, and comes back to it from behind 03:30's first search."""
    matches = Readings(october(2, 30), october(3, 30))
    ticks = [BACK - 30 * MINUTE_S, BACK + 30 * MINUTE_S, BACK + 90 * MINUTE_S]
    walked = [next_match(BERLIN, matches, instant) for instant in (ticks[0] - 1, *ticks)]
    assert walked == [*ticks, None]
    back = [latest_match(BERLIN, matches, instant) for instant in (ticks[2], ticks[2] - 1, ticks[1] - 1, ticks[0] - 1)]
    assert back == [*reversed(ticks), None]


@pytest.mark.parametrize("search", [next_slot, next_match])
def test_searches_far_away_cost_the_same(search: Search) -> None:
    """A match ten years and twenty changes ahead is found with one question to the calendar."""
    calendar = Readings(timegm((2036, 7, 1, 12, 0, 0)))
    assert search(BERLIN, calendar, FORWARD + 7 * HOUR_S) == timegm((2036, 7, 1, 10, 0, 0))
    assert calendar.asked == 1


@pytest.mark.parametrize("search", [latest_slot, latest_match])
def test_searches_far_back_cost_the_same(search: Search) -> None:
    """Nor does the latest tick walk over the years in between."""
    calendar = Readings(timegm((1996, 7, 1, 12, 0, 0)))
    assert search(BERLIN, calendar, FORWARD + 7 * HOUR_S) == timegm((1996, 7, 1, 10, 0, 0))
    assert calendar.asked == 1


def test_a_job_that_lives_in_gaps_is_given_up() -> None:
    """02:30 of every last Sunday in March: after sixteen gaps in a row the search ends, with seventeen questions."""
    sundays = [
        next(day for day in range(31, 24, -1) if timegm((year, 3, day, 0, 0, 0)) // 86_400 % 7 == 3)
        for year in range(2000, 2100)
    ]
    calendar = Readings(*(timegm((2000 + index, 3, day, 2, 30, 0)) for index, day in enumerate(sundays)))
    assert next_match(BERLIN, calendar, timegm((2026, 1, 1, 0, 0, 0))) is None
    assert calendar.asked <= 17
    calendar.asked = 0
    assert latest_match(BERLIN, calendar, timegm((2026, 1, 1, 0, 0, 0))) is None
    assert calendar.asked <= 17


def test_the_end_of_time() -> None:
    """A match long after the last year that counts is none, instead of an overflow."""
    assert next_match(BERLIN, Readings(END_S + 10**12), END_S - 1) is None
