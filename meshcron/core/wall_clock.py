"""What the clocks on the wall of a time zone show at an instant, and at which instants they show something.

An *instant* is a whole number of Unix seconds. A *reading* is what a wall clock shows, as the number of seconds from
1970-01-01 00:00:00 on that clock to what it shows; readings can be compared and counted like instants, but where a
zone changes its offset some readings never appear (a gap, in spring) and some appear twice (an overlap, in autumn).
"""

from __future__ import annotations

import re
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from meshcron.errors import InvalidSchedule

DAY_S = 86_400

# Names of the tz database are paths of such words. What else lies in its folder is no zone for a cluster: `right/`
# counts leap seconds, `posix/` repeats the rest, `localtime` and `posixrules` are whatever the machine was set to.
_ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(?:/[A-Za-z0-9_+-]{1,31}){0,2}")
_ZONE_REFUSED = re.compile(r"(?:right/|posix/|localtime$|posixrules$|Factory$)")

_HINT = "a name of the tz database, such as Europe/Berlin or UTC"
_SHOWN_CHARACTERS_MAX = 40

# All zones of the tz database together are 599 names; a cluster uses a handful. One clock is a few kilobytes.
_CLOCKS_MAX = 128


class Surroundings(NamedTuple):
    """The offsets, seconds east of UTC, a day before and a day after a reading; they differ if the zone changes its
    offset in between, which it then does at the instant `at` (the first instant of the new offset)."""

    before: int
    after: int
    at: int

    def repeats(self, reading: int) -> bool:
        """Does the clock show this reading twice, because it is put back?"""
        return self.at + self.after <= reading < self.at + self.before

    def instants(self, reading: int) -> tuple[int, ...]:
        """When the clock shows the reading, rising: once, twice, or never if the clock is put forward over it."""
        if self.before == self.after:
            return (reading - self.before,)
        early, late = reading - self.before, reading - self.after
        if early < self.at:
            return (early, late) if late >= self.at else (early,)
        return (late,) if late >= self.at else ()

    def first(self, reading: int) -> int:
        """The first instant that shows the reading; the end of the gap if none does."""
        instants = self.instants(reading)
        return instants[0] if instants else self.at


class WallClock:
    """The clock of one zone. Relies on a zone not changing its offset twice within two days: in the tz database of
    2025 the closest two changes since 1970 are 6.96 days apart (Recife, October 2000; a test keeps watch)."""

    __slots__ = ("_zone", "name")

    def __init__(self, name: str, zone: tzinfo) -> None:
        self.name = name
        self._zone = zone

    def offset(self, instant: int) -> int:
        """Seconds east of UTC at this instant, years 1 to 9998."""
        offset = datetime.fromtimestamp(instant, self._zone).utcoffset()
        return 0 if offset is None else offset.days * DAY_S + offset.seconds

    def reading(self, instant: int) -> int:
        """What the clock shows at this instant."""
        return instant + self.offset(instant)

    def near(self, reading: int) -> Surroundings:
        """The offsets around a reading, and where they change. No offset reaches a day, so every instant that shows
        the reading, and the gap or overlap it may lie in, is within a day of the same number taken as an instant."""
        old, new = reading - DAY_S, reading + DAY_S
        before, after = self.offset(old), self.offset(new)
        if before == after:
            return Surroundings(before, after, new)
        while new - old > 1:
            middle = (old + new) // 2
            if self.offset(middle) == before:
                old = middle
            else:
                new = middle
        return Surroundings(before, after, new)


@lru_cache(maxsize=_CLOCKS_MAX)
def wall_clock(name: str) -> WallClock:
    """The clock of a zone of the tz database (`Europe/Berlin`, `UTC`). Reads the machine's tz data, once a zone.

    Raises InvalidSchedule(field="timezone"), column 0, for a name that is not there or that means another zone on
    each machine.
    """
    shown = ascii(name if len(name) <= _SHOWN_CHARACTERS_MAX else name[:_SHOWN_CHARACTERS_MAX] + "...")
    if _ZONE_REFUSED.match(name):
        raise InvalidSchedule(f"{shown} does not mean the same on every agent", _HINT, field="timezone")
    zone = _load(name)
    if zone is None:
        near = next((spelt for spelt in (name.upper(), name.title()) if _load(spelt)), "")
        hint = f"did you mean {near}?" if near else _HINT
        raise InvalidSchedule(f"no time zone is called {shown}", hint, field="timezone")
    return WallClock(name, zone)


def _load(name: str) -> ZoneInfo | None:
    """KeyError: no such zone; ValueError: a file that is no zone; OSError: a folder such as `America`."""
    if not _ZONE_NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
