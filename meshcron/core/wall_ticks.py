"""What the clocks of a zone do to a job's times: the search for its next and its latest tick.

A *fixed-time* job runs once for each reading of the wall clock that matches (a slot): at the first of two instants
that show it, and at the end of the gap if none does. A job in *real time* runs at every instant whose reading matches.
Slots and matches come from a calendar, which knows readings only; all numbers are whole seconds.
"""

from __future__ import annotations

from typing import Final, Protocol

from meshcron.core.wall_clock import DAY_S, WallClock

FIRST_S: Final = 0
"""No tick before 1970."""

END_S: Final = 250_246_627_200
"""No tick from the year 9900 on: dates end with 9999, and a calendar may search 50 years ahead."""

# A job in real time whose every match falls into a gap, so many in a row, is taken never to fire. Gaps are half a
# year apart, so the matches of any other job leave them sooner.
_GAPS_IN_A_ROW_MAX: Final = 16


class Calendar(Protocol):
    def next(self, reading: int) -> int | None:
        """The first matching reading after this one; None: nothing ever matches."""

    def previous(self, reading: int) -> int | None:
        """The last matching reading before this one; None: nothing ever matches."""


def next_slot(clock: WallClock, calendar: Calendar, instant: int) -> int | None:
    """The first tick of a fixed-time job after the instant. Later slots never come at earlier instants, so one search
    from what the clock shows is enough; on the second pass over an overlap, all of its slots have been."""
    slot = calendar.next(_shown_so_far(clock, instant))
    return None if slot is None else clock.near(slot).first(slot)


def latest_slot(clock: WallClock, calendar: Calendar, instant: int) -> int | None:
    """The last tick of a fixed-time job at or before the instant."""
    slot = calendar.previous(_shown_so_far(clock, instant) + 1)
    return None if slot is None else clock.near(slot).first(slot)


def _shown_so_far(clock: WallClock, instant: int) -> int:
    """The highest reading that the clock has shown, in this hour and up to this instant."""
    reading = clock.reading(instant)
    around = clock.near(reading)
    again = around.repeats(reading) and instant >= around.at
    return around.at + around.before - 1 if again else reading


def next_match(clock: WallClock, calendar: Calendar, instant: int) -> int | None:
    """The first tick of a job in real time after the instant. The next match is it, unless the clock is first put
    back over readings that matched already, or skips the match."""
    reading = clock.reading(instant)
    around = clock.near(reading)
    match = calendar.next(reading)
    if around.repeats(reading) and instant < around.at and (match is None or match >= around.at + around.before):
        match = calendar.next(around.at + around.after - 1)
    for _ in range(_GAPS_IN_A_ROW_MAX):
        if match is None or match >= END_S + DAY_S:
            return None
        there = clock.near(match)
        for candidate in there.instants(match):
            if candidate > instant:
                return candidate
        match = calendar.next(there.at + there.after - 1)
    return None


def latest_match(clock: WallClock, calendar: Calendar, instant: int) -> int | None:
    """The last tick of a job in real time at or before the instant: `next_match` in the mirror."""
    reading = clock.reading(instant)
    around = clock.near(reading)
    match = calendar.previous(reading + 1)
    if around.repeats(reading) and instant >= around.at and (match is None or match < around.at + around.after):
        match = calendar.previous(around.at + around.before)
    for _ in range(_GAPS_IN_A_ROW_MAX):
        if match is None or match < FIRST_S - DAY_S:
            return None
        there = clock.near(match)
        for candidate in reversed(there.instants(match)):
            if candidate <= instant:
                return candidate
        match = calendar.previous(there.at + there.before)
    return None
