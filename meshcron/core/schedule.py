"""A job's schedule: its text, and the ticks that follow from it. No clock and no randomness: instants go in and out.

croniter computes the calendar, on the readings of a wall clock taken as if they were UTC, where no day has a gap;
what the clocks of a zone do to it is ours. The rules are in docs/SCHEDULES.md.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from croniter import croniter

from meshcron.core.cron_text import Token, read_fields
from meshcron.core.schedule_forms import NICKNAMES, SECOND_US, period_words, read_instant, read_period
from meshcron.core.schedule_words import cron_words
from meshcron.core.wall_clock import wall_clock
from meshcron.core.wall_ticks import END_S, FIRST_S, latest_match, latest_slot, next_match, next_slot
from meshcron.errors import InvalidSchedule

TEXT_CHARACTERS_MAX: Final = 256
"""Longer texts are refused unread: croniter needs 108 ms for 60 kB."""

DEFAULT_TIMEZONE: Final = "UTC"
"""Never the machine's own zone: every agent that may lead must see the same ticks."""

Kind = Literal["cron", "every", "at", "manual", "reboot"]

# The rarest date, a fifth Monday in February, comes every 28 years, and once after 40 (2072, 2112).
_YEARS_BETWEEN_MATCHES_MAX: Final = 50

_TEXTS_MAX: Final = 4096
"""Texts of cron fields remembered as read, a few hundred bytes each."""

# About 2 kB each. More distinct expressions than that still work; each search then builds its own, in 0.1-0.3 ms.
_CALENDARS_MAX: Final = 4096

_PREFIX: Final = re.compile(r"[ \t]*(?:CRON_TZ|TZ)=([^ \t]*)[ \t]*(.*?)[ \t]*")
_OTHER_NICKNAMES: Final = "@every 1h, @at TIME, @manually, @reboot"
_ODD: Final = re.compile(r"[^\t\x20-\x7e]")
_SPREADS: Final = re.compile("[Hh~]")  # also in THU; without one of them the job's name says nothing


@dataclass(frozen=True, slots=True)
class Schedule(ABC):
    """What a schedule's text says. Every instant is Unix time in microseconds; every tick is a whole second of it.

    `follows_wall_clock`: the job is to run once for each reading of the wall clock (a fixed-time job, and `@at`), so
    its cursor outlives a small step of the clock; otherwise it follows real time. Any thread may ask.
    """

    text: str
    timezone: str
    kind: Kind
    follows_wall_clock: bool

    @abstractmethod
    def next_after(self, wall_us: int) -> int | None:
        """The first tick after this instant, never at it; None: there is none, ever."""

    @abstractmethod
    def latest_before(self, wall_us: int, after_us: int) -> int | None:
        """The last tick t with after_us < t <= wall_us, at the same cost however long that time is."""

    @abstractmethod
    def describe(self) -> str:
        """In English words, without the time zone."""

    def count_between(self, after_us: int, upto_us: int, most: int) -> int | None:
        """How many ticks t have after_us < t <= upto_us; None if they are more than `most` and have to be walked one
        by one (as for cron; `@every` is arithmetic and always counted)."""
        count, tick = 0, self.next_after(after_us)
        while tick is not None and tick <= upto_us:
            count += 1
            if count > most:
                return None
            tick = self.next_after(tick)
        return count


@dataclass(frozen=True, slots=True)
class CronSchedule(Schedule):
    """Cron fields, or a nickname of some. `expression` is their plain spelling (CronFields.text), `H` resolved."""

    expression: str

    def next_after(self, wall_us: int) -> int | None:
        instant = max(wall_us // SECOND_US, FIRST_S - 1)
        if instant >= END_S:
            return None
        tick = _next(self.timezone, self.expression, instant, fixed=self.follows_wall_clock)
        return tick * SECOND_US if tick is not None and tick < END_S else None

    def latest_before(self, wall_us: int, after_us: int) -> int | None:
        instant = min(wall_us // SECOND_US, END_S - 1)
        if instant < FIRST_S:
            return None
        search = latest_slot if self.follows_wall_clock else latest_match
        tick = search(wall_clock(self.timezone), _calendar(self.expression), instant)
        return tick * SECOND_US if tick is not None and tick * SECOND_US > max(after_us, -1) else None

    def describe(self) -> str:
        return cron_words(self.expression)


@dataclass(frozen=True, slots=True)
class EverySchedule(Schedule):
    """Ticks at anchor + k * period; before the anchor too, for a clock that stepped back behind it goes on."""

    period_us: int
    anchor_us: int

    def next_after(self, wall_us: int) -> int | None:
        return self.anchor_us + (self._passed(wall_us) + 1) * self.period_us

    def latest_before(self, wall_us: int, after_us: int) -> int | None:
        tick_us = self.anchor_us + self._passed(wall_us) * self.period_us
        return tick_us if tick_us > after_us else None

    def count_between(self, after_us: int, upto_us: int, most: int) -> int | None:  # noqa: ARG002 arithmetic has no bound
        return max(self._passed(upto_us) - self._passed(after_us), 0)

    def describe(self) -> str:
        return period_words(self.period_us)

    def _passed(self, wall_us: int) -> int:
        """The ticks up to this instant, itself included, counted from the anchor; negative before it."""
        return (wall_us - self.anchor_us) // self.period_us


@dataclass(frozen=True, slots=True)
class OnceSchedule(Schedule):
    """One tick, or none where something else than time starts the job (`@manually`, `@reboot`)."""

    at_us: int | None

    def next_after(self, wall_us: int) -> int | None:
        return self.at_us if self.at_us is not None and self.at_us > wall_us else None

    def latest_before(self, wall_us: int, after_us: int) -> int | None:
        return self.at_us if self.at_us is not None and after_us < self.at_us <= wall_us else None

    def describe(self) -> str:
        if self.kind == "reboot":
            return "When an agent starts, on that agent"
        if self.kind == "manual":
            return "Only when asked to"
        return "Once, at " + self.text[self.text.index("@") + len("@at") :].strip()


@dataclass(frozen=True, slots=True)
class Explanation:
    """A schedule for people. `expression` is the plain spelling of cron fields, with `H` resolved; else empty."""

    words: str
    next_us: tuple[int, ...]
    timezone: str
    kind: Kind
    follows_wall_clock: bool
    expression: str


def parse(text: str, *, timezone: str = "", name: str = "", anchor_us: int = 0) -> Schedule:
    """What `text` says, for the job `name` (which `H` and `~` need), created at `anchor_us` (the phase of `@every`).

    `timezone` is a name of the tz database; empty means UTC. Raises InvalidSchedule: field "schedule" with the column
    of the fault in `text`, or field "timezone". Whether it ever fires is `check_fires`'s to say.
    """
    if len(text) > TEXT_CHARACTERS_MAX:
        raise InvalidSchedule(f"a schedule has at most {TEXT_CHARACTERS_MAX} characters", "", TEXT_CHARACTERS_MAX + 1)
    odd = _ODD.search(text)
    if odd:
        raise InvalidSchedule(f"the character {odd.group()!a} has no place in a schedule", "", odd.start() + 1)
    body, zone = _cut_prefix(text, timezone)
    if not body.text:
        body.refuse("the schedule is empty", "such as 0 3 * * *, @daily or @every 1h")
    if body.text.startswith("@"):
        return _parse_nickname(text, body, zone, anchor_us)
    return _cron(text, zone, body, name)


def check_fires(schedule: Schedule, after_us: int) -> None:
    """Raises InvalidSchedule, column 0, if no tick comes after this instant. `@manually` and `@reboot` pass."""
    if schedule.kind in ("manual", "reboot") or schedule.next_after(after_us) is not None:
        return
    if not isinstance(schedule, CronSchedule):
        raise InvalidSchedule("the time has passed", "a time in the future, or @manually")
    if _calendar(schedule.expression).matches:
        raise InvalidSchedule(f"never fires: the clocks of {schedule.timezone} always skip the time", "another hour")
    raise InvalidSchedule("never fires: no month of it has such a day", "another day or month")


def next_n(schedule: Schedule, after_us: int, n: int) -> list[int]:
    """The first n ticks after this instant, rising; fewer if there are no more."""
    ticks: list[int] = []
    while len(ticks) < n:
        tick = schedule.next_after(ticks[-1] if ticks else after_us)
        if tick is None:
            break
        ticks.append(tick)
    return ticks


def explain(schedule: Schedule, after_us: int, count: int = 5) -> Explanation:
    """The schedule in words and its next ticks."""
    return Explanation(
        words=schedule.describe(),
        next_us=tuple(next_n(schedule, after_us, count)),
        timezone=schedule.timezone,
        kind=schedule.kind,
        follows_wall_clock=schedule.follows_wall_clock,
        expression=schedule.expression if isinstance(schedule, CronSchedule) else "",
    )


class Calendar:
    """When the readings of a wall clock match an expression, on a clock that is never put forward or back.

    The croniter objects are copied for each search (4 us): a search moves them, and they are shared.
    """

    __slots__ = ("_searches",)

    def __init__(self, searches: tuple[croniter, ...]) -> None:
        self._searches = searches

    @property
    def matches(self) -> bool:
        """False for the 30th of February and its like."""
        return bool(self._searches)

    def next(self, reading: int) -> int | None:
        return min((int(copy(search).get_next(float, reading)) for search in self._searches), default=None)

    def previous(self, reading: int) -> int | None:
        return max((int(copy(search).get_prev(float, reading)) for search in self._searches), default=None)


@lru_cache(maxsize=4096)
def _next(timezone: str, expression: str, instant: int, *, fixed: bool) -> int | None:
    """A job's next tick is asked for several times, by whoever checks, proposes and decides."""
    search = next_slot if fixed else next_match
    return search(wall_clock(timezone), _calendar(expression), instant)


@lru_cache(maxsize=_CALENDARS_MAX)
def _calendar(expression: str) -> Calendar:
    patterns = read_fields(expression).patterns()
    return Calendar(
        tuple(croniter(pattern, 0.0, max_years_between_matches=_YEARS_BETWEEN_MATCHES_MAX) for pattern in patterns)
    )


def _cut_prefix(text: str, timezone: str) -> tuple[Token, str]:
    """What follows `TZ=` or `CRON_TZ=`, and the zone that it, or else `timezone`, names."""
    match = _PREFIX.fullmatch(text)
    if match is None:
        wall_clock(timezone or DEFAULT_TIMEZONE)
        body = text.lstrip(" \t")
        return Token(body.rstrip(" \t"), len(text) - len(body) + 1), timezone or DEFAULT_TIMEZONE
    zone = Token(match.group(1), match.start(1) + 1)
    if not zone.text:
        zone.refuse("the name of the time zone is missing", "TZ=Europe/Berlin 0 3 * * *")
    if timezone not in ("", zone.text):
        zone.refuse(f"the time zone {zone.shown} is not the job's, {timezone}", "name the zone in one place")
    try:
        wall_clock(zone.text)
    except InvalidSchedule as error:
        zone.refuse(error.why, error.hint)
    return Token(match.group(2), match.start(2) + 1), zone.text


def _parse_nickname(text: str, body: Token, zone: str, anchor_us: int) -> Schedule:
    word, argument = _cut_word(body)
    nickname, shown = word.lower(), Token(word, 0).shown
    if nickname == "@every":
        anchor_us -= anchor_us % SECOND_US
        return EverySchedule(text, zone, "every", False, period_us=read_period(argument), anchor_us=anchor_us)
    if nickname == "@at":
        return OnceSchedule(text, zone, "at", True, at_us=read_instant(argument))
    if nickname not in NICKNAMES and nickname not in ("@manually", "@reboot"):
        body.refuse(f"{shown} is not known here", f"{', '.join(NICKNAMES)}, {_OTHER_NICKNAMES}")
    if argument.text:
        argument.refuse(f"nothing may follow {shown}")
    if nickname in NICKNAMES:
        return _cron(text, zone, Token(NICKNAMES[nickname], body.column), "")
    return OnceSchedule(text, zone, "manual" if nickname == "@manually" else "reboot", False, at_us=None)


def _cut_word(body: Token) -> tuple[str, Token]:
    word = body.text.split()[0]
    rest = body.text[len(word) :].lstrip(" \t")
    return word, Token(rest, body.column + len(body.text) - len(rest))


def _cron(text: str, zone: str, body: Token, name: str) -> CronSchedule:
    return _read_cron(text, zone, body, name if _SPREADS.search(body.text) else "")


@lru_cache(maxsize=_TEXTS_MAX)
def _read_cron(text: str, zone: str, body: Token, name: str) -> CronSchedule:
    """Whoever checks a job reads its schedule, and again whoever proposes it; of many jobs it is the same. A refusal
    is not kept."""
    fields = read_fields(body.text, body.column, name=name)
    return CronSchedule(text, zone, "cron", fields.fixed_time, expression=fields.text)
