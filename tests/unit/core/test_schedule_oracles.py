"""Schedules against two oracles that share no code with us: a dumb walk over every second, and cronsim.

The zones and years are those whose clocks do something odd; the jobs are made so that they meet the change. Every
difference to cronsim has a row in DIFFERENCES (docs/SCHEDULES.md tells users about the same rows).
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcron.core.schedule import next_n, parse

HOUR_S, DAY_S = 3600, 86_400
SECOND_US = 1_000_000
NEAR_S = 3 * HOUR_S  # how far around a change the dumb walk looks
TICKS_MAX = 60  # compared per example


# --- the changes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A zone's clock is put from `before` to `after` seconds east of UTC at the instant `at`."""

    zone: str
    at: int
    before: int
    after: int

    @property
    def gap(self) -> bool:
        return self.after > self.before

    @property
    def whole_hours(self) -> bool:
        """From a full hour to a full hour, and not over midnight: all that cronsim's walk gets right."""
        return not (self.at + self.before) % HOUR_S and not (self.at + self.after) % HOUR_S and not self.takes_midnight

    @property
    def takes_midnight(self) -> bool:
        start, end = self.at + self.before, self.at + self.after
        return self.gap and (start - 1) // DAY_S < (end - 1) // DAY_S


def offset(zone: str, instant: int) -> int:
    delta = datetime.fromtimestamp(instant, ZoneInfo(zone)).utcoffset()
    assert delta is not None
    return delta // timedelta(seconds=1)


def changes(zone: str, first_year: int, last_year: int) -> Iterator[Change]:
    first, end = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (first_year, last_year + 1))
    before = offset(zone, first)
    for day in range(first, end, DAY_S):
        after = offset(zone, day + DAY_S)
        if before != after:
            at = next(second for second in range(day, day + DAY_S + 1, 60) if offset(zone, second) != before)
            yield Change(zone, at, before, after)
        before = after


ODD = [
    ("Australia/Lord_Howe", 2026),  # half an hour
    ("America/Havana", 2026),  # a gap at midnight
    ("America/Asuncion", 2023),  # a gap at midnight, an overlap before it
    ("Europe/Dublin", 2026),  # summer is the standard, winter the exception
    ("Africa/Casablanca", 2026),  # back for Ramadan, and forward again
    ("Pacific/Apia", 2011),  # a day that never was, besides two ordinary changes
    ("Asia/Kathmandu", 1985),  # 15 minutes, once, at New Year 1986
    ("Pacific/Chatham", 2026),  # at a quarter to three
    ("America/St_Johns", 2010),  # at one minute past midnight
    ("America/New_York", 2026),
    ("Europe/Berlin", 2026),
    ("America/Sao_Paulo", 2018),  # a gap at midnight
    ("Antarctica/Troll", 2026),  # two hours
]
CHANGES = [change for zone, year in ODD for change in changes(zone, year, year)]
NAMES = [f"{change.zone}-{'gap' if change.gap else 'overlap'}-{change.at}" for change in CHANGES]


# --- the jobs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """A field as text and as the numbers it means; `real`: has a wildcard or a step."""

    text: str
    values: frozenset[int]
    real: bool


@dataclass(frozen=True)
class Job:
    second: Field | None
    minute: Field
    hour: Field
    day: Field
    weekday: Field

    @property
    def text(self) -> str:
        seconds = "" if self.second is None else self.second.text + " "
        return f"{seconds}{self.minute.text} {self.hour.text} {self.day.text} * {self.weekday.text}"

    @property
    def fixed_time(self) -> bool:
        return not (self.minute.real or self.hour.real)

    @property
    def seconds(self) -> frozenset[int]:
        return frozenset({0}) if self.second is None else self.second.values

    def day_matches(self, reading: int) -> bool:
        date = datetime.fromtimestamp(reading // DAY_S * DAY_S, UTC)
        in_day, in_week = date.day in self.day.values, date.isoweekday() % 7 in self.weekday.values
        either = self.day.text != "*" and self.weekday.text != "*"
        return in_day or in_week if either else in_day and in_week

    def matches(self, reading: int) -> bool:
        return (
            reading % 60 in self.seconds
            and reading // 60 % 60 in self.minute.values
            and reading // HOUR_S % 24 in self.hour.values
            and self.day_matches(reading)
        )


def fields(low: int, high: int, near: list[int] | None = None) -> st.SearchStrategy[Field]:
    """All forms of one field; half of the plain numbers are near the change."""
    number = st.sampled_from(near) | st.integers(low, high) if near else st.integers(low, high)

    def listed(numbers: list[int]) -> Field:
        return Field(",".join(map(str, numbers)), frozenset(numbers), real=False)

    def ranged(ends: tuple[int, int]) -> Field:
        first, last = sorted(ends)
        return Field(f"{first}-{last}", frozenset(range(first, last + 1)), real=False)

    def stepped(first: int, step: int, reach: int) -> Field:
        first = min(first, high - step)
        last = min(first + step + reach, high)
        return Field(f"{first}-{last}/{step}", frozenset(range(first, last + 1, step)), real=True)

    def starred(step: int) -> Field:
        return Field("*" if step == 1 else f"*/{step}", frozenset(range(low, high + 1, step)), real=True)

    return st.one_of(
        st.lists(number, min_size=1, max_size=3).map(listed),
        st.tuples(number, number).map(ranged),
        st.builds(stepped, number, st.integers(2, (high - low) // 2), st.integers(0, high - low)),
        st.integers(1, (high - low) // 2).map(starred),
    )


EVERY_DAY = Field("*", frozenset(range(1, 32)), real=True)
EVERY_WEEKDAY = Field("*", frozenset(range(7)), real=True)


def field_of(text: str, low: int, high: int) -> Field:
    """A field of `*`, `*/n`, `a-b`, `a-b/n` or a list of numbers, read without care."""
    base, _, step = text.partition("/")
    if base == "*" or "-" in base:
        first, last = (low, high) if base == "*" else map(int, base.split("-"))
        return Field(text, frozenset(range(first, last + 1, int(step or 1))), real=base == "*" or step != "")
    return Field(text, frozenset(map(int, base.split(","))), real=False)


def job_of(text: str) -> Job:
    *seconds, minute, hour, day, _, weekday = text.split()
    return Job(
        field_of(seconds[0], 0, 59) if seconds else None,
        field_of(minute, 0, 59),
        field_of(hour, 0, 23),
        field_of(day, 1, 31),
        field_of(weekday, 0, 6),
    )


def jobs(change: Change, *, seconds: bool) -> st.SearchStrategy[Job]:
    """Jobs that have something to do around the change."""
    readings = (change.at + change.before, change.at + change.after)
    hours = sorted({(reading // HOUR_S + around) % 24 for reading in readings for around in (-1, 0, 1)})
    date = datetime.fromtimestamp(readings[0], UTC)
    days = st.one_of(st.just(EVERY_DAY), fields(1, 31, [date.day, min(date.day + 1, 28)]))
    weekdays = st.one_of(st.just(EVERY_WEEKDAY), fields(0, 6, [date.isoweekday() % 7]))
    few = st.sampled_from([(0,), (0,), (30,), (0, 59), (7, 20, 41)]).map(
        lambda some: Field(",".join(map(str, some)), frozenset(some), real=False)
    )
    every_second = st.integers(10, 29).map(lambda step: Field(f"*/{step}", frozenset(range(0, 60, step)), real=True))
    return st.builds(
        Job,
        second=few | every_second if seconds else st.none(),
        minute=fields(0, 59),
        hour=fields(0, 23, hours),
        day=days,
        weekday=weekdays,
    )


# --- the dumb walk ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """What the clock shows at each second around a change."""

    start: int
    readings: list[int]
    first_shown: dict[int, int]


@lru_cache(maxsize=1)
def window(change: Change) -> Window:
    start = change.at - NEAR_S
    readings = [second + offset(change.zone, second) for second in range(start, change.at + NEAR_S)]
    first_shown: dict[int, int] = {}
    for index, reading in enumerate(readings):
        first_shown.setdefault(reading, start + index)
    return Window(start, readings, first_shown)


def walk(job: Job, change: Change) -> list[int]:
    """Every second of the window whose reading matches; for a fixed-time job every reading of it, once."""
    seen = window(change)
    if not job.fixed_time:
        return [seen.start + index for index, reading in enumerate(seen.readings) if job.matches(reading)]
    slots = (reading for reading in range(min(seen.readings), max(seen.readings) + 1) if job.matches(reading))
    return sorted({seen.first_shown.get(slot, change.at) for slot in slots})


@pytest.mark.parametrize("change", CHANGES, ids=NAMES)
def test_against_a_walk_over_every_second(change: Change) -> None:
    """Six fields, three hours around a change: the next ticks, the latest tick and their number, from any second."""

    @given(job=jobs(change, seconds=True), begin=st.integers(-NEAR_S, NEAR_S - 1), data=st.data())
    @settings(max_examples=20, database=None)
    def check(job: Job, begin: int, data: st.DataObject) -> None:
        schedule = parse(job.text, timezone=change.zone)
        assert schedule.follows_wall_clock is job.fixed_time
        ticks, after, end = walk(job, change), change.at + begin, change.at + NEAR_S
        coming = [tick for tick in ticks if tick > after]
        ours = [tick // SECOND_US for tick in next_n(schedule, after * SECOND_US, TICKS_MAX)]
        assert [tick for tick in ours if tick < end] == coming[:TICKS_MAX], job.text
        past = [tick for tick in ticks if tick <= after]
        latest = schedule.latest_before(after * SECOND_US + 999_999, window(change).start * SECOND_US - 1)
        assert latest == (past[-1] * SECOND_US if past else None), job.text
        upto = data.draw(st.integers(after, end - 1))
        count = sum(tick <= upto for tick in coming)
        wanted = count if count <= TICKS_MAX else None
        assert schedule.count_between(after * SECOND_US, upto * SECOND_US, TICKS_MAX) == wanted, job.text

    check()


# --- cronsim ----------------------------------------------------------------------------------------------------------


class Lost(Exception):
    """cronsim walks and finds nothing."""


class BoundedCronSim(CronSim):
    """cronsim goes on for ever at some changes (St John's); a real search takes under 2,000 steps."""

    steps_left = 2_000

    def tick(self, seconds: int = 1) -> None:
        self.steps_left -= 1
        if self.steps_left < 0:
            raise Lost
        super().tick(seconds)


def cronsim_ticks(text: str, zone: str, after: int, end: int) -> list[int]:
    search = BoundedCronSim(text, datetime.fromtimestamp(after, ZoneInfo(zone)))
    ticks: list[int] = []
    while len(ticks) < TICKS_MAX and (not ticks or ticks[-1] <= end):
        search.steps_left = BoundedCronSim.steps_left
        ticks.append(int(next(search).timestamp()))
    return ticks


@dataclass(frozen=True)
class Case:
    """One tick that only we or only cronsim have."""

    job: Job
    change: Change
    tick: int
    after: int
    ours: frozenset[int]

    @property
    def reading(self) -> int:
        return self.tick + offset(self.change.zone, self.tick)

    @property
    def second_pass(self) -> bool:
        """The clock shows the same as before it was put back."""
        return not self.change.gap and 0 <= self.tick - self.change.at < self.change.before - self.change.after

    @property
    def ran_on_first_pass(self) -> bool:
        first = self.tick - (self.change.before - self.change.after)
        return self.job.matches(self.reading) and (first in self.ours or first <= self.after)

    @property
    def gap_end(self) -> bool:
        return self.change.gap and self.tick == self.change.at

    @property
    def slot_in_gap(self) -> bool:
        start, end = self.change.at + self.change.before, self.change.at + self.change.after
        return any(self.job.matches(reading) for reading in range(start, end))

    @property
    def cronsim_fixed_time(self) -> bool:
        """cronsim's own rule, as its source has it."""
        starred = self.job.minute.text.startswith("*") or self.job.hour.text.startswith("*")
        return self.job.second is None and not starred

    @property
    def soon_after(self) -> bool:
        return 0 <= self.tick - self.change.at < DAY_S + 2 * HOUR_S


@dataclass(frozen=True)
class Difference:
    """Why one side has a tick that the other has not. `ours`: it is ours alone."""

    reason: str
    ours: bool
    applies: Callable[[Case], bool]


DIFFERENCES = [
    Difference(
        "cronsim gives six fields no rule for fixed times; ours run at the gap's end",
        True,
        lambda case: case.job.fixed_time and not case.cronsim_fixed_time and case.gap_end and case.slot_in_gap,
    ),
    Difference(
        "cronsim gives six fields no rule for fixed times; ours run on the first pass only",
        False,
        lambda case: (
            case.job.fixed_time and not case.cronsim_fixed_time and case.second_pass and case.ran_on_first_pass
        ),
    ),
    Difference(
        "a step that is not of * (5-59/15) is real time here, a fixed time in cronsim; ours run on the second pass",
        True,
        lambda case: (
            not case.job.fixed_time and case.cronsim_fixed_time and case.second_pass and case.job.matches(case.reading)
        ),
    ),
    Difference(
        "a step that is not of * (5-59/15) is real time here, a fixed time in cronsim; ours skip the gap",
        False,
        lambda case: not case.job.fixed_time and case.cronsim_fixed_time and case.gap_end and case.slot_in_gap,
    ),
    Difference(
        "cronsim walks in whole hours and from midnight: after a change that is not from full hour to full hour, or "
        "that takes midnight away, it loses matches of that day",
        True,
        lambda case: (
            not case.cronsim_fixed_time
            and not case.change.whole_hours
            and case.soon_after
            and case.job.matches(case.reading)
        ),
    ),
    Difference(
        "cronsim runs a job that is due in a midnight that does not exist at the gap's end",
        False,
        lambda case: (
            not case.cronsim_fixed_time
            and case.change.takes_midnight
            and case.gap_end
            and not case.job.matches(case.reading)
        ),
    ),
    Difference(
        "cronsim, asked on the second pass, forgets which pass it is and gives a tick of the first, which is past",
        False,
        lambda case: not case.change.gap and case.tick <= case.after,
    ),
]

ASTRAY = "cronsim walks for ever, or back in time, over a change that is not from full hour to full hour"


def asked_of_cronsim(job: Job) -> Job:
    """A day field that begins with * means "and" in cronsim (Debian), also `*/2`; here that is "either", as in Dkron.
    Spelt 1-31/2 it means "either" to both."""
    if job.day.text == "*" or job.weekday.text == "*":
        return job
    day = replace(job.day, text=job.day.text.replace("*", "1-31"))
    return replace(job, day=day, weekday=replace(job.weekday, text=job.weekday.text.replace("*", "0-6")))


def compare_with_cronsim(job: Job, change: Change, after: int) -> set[str]:
    """Fails where the two differ without a row; gives the rows that the others need."""
    end = change.at + 26 * HOUR_S
    ours = [tick // SECOND_US for tick in next_n(parse(job.text, timezone=change.zone), after * SECOND_US, TICKS_MAX)]
    assert ours == sorted(set(ours)), job.text
    theirs: list[int] | None
    try:
        theirs = cronsim_ticks(asked_of_cronsim(job).text, change.zone, after, end)
    except Lost:
        theirs = None
    if theirs is None or theirs != sorted(set(theirs)):
        assert not change.whole_hours, job.text
        return {ASTRAY}
    horizon = min(end, ours[-1] if ours else end, theirs[-1])
    mine = frozenset(tick for tick in ours if tick <= horizon)
    other = frozenset(tick for tick in theirs if tick <= horizon)
    found = set()
    for tick in mine ^ other:
        case = Case(job, change, tick, after, mine)
        reasons = {row.reason for row in DIFFERENCES if row.ours is (tick in mine) and row.applies(case)}
        assert reasons, f"{job.text} at {datetime.fromtimestamp(tick, ZoneInfo(change.zone))}: {tick in mine=}"
        found |= reasons
    return found


@pytest.mark.parametrize("change", CHANGES, ids=NAMES)
@pytest.mark.parametrize("seconds", [False, True], ids=["five-fields", "six-fields"])
def test_against_cronsim_at_a_change(change: Change, seconds: bool) -> None:
    """From up to 40 hours before a change to 26 hours after it, every difference is one that we know."""

    @given(job=jobs(change, seconds=seconds), before=st.integers(0, 40 * HOUR_S))
    @settings(max_examples=20, database=None)
    def check(job: Job, before: int) -> None:
        compare_with_cronsim(job, change, change.at - before)

    check()


WITNESSES = [
    ("0 30 2 * * *", "Europe/Berlin", True, 3600, DIFFERENCES[0].reason),
    ("0 30 2 * * *", "Europe/Berlin", False, 7200, DIFFERENCES[1].reason),
    ("5-59/15 2 * * *", "Europe/Berlin", False, 7200, DIFFERENCES[2].reason),
    ("5-59/15 2 * * *", "Europe/Berlin", True, 3600, DIFFERENCES[3].reason),
    ("*/20 3 * * *", "Australia/Lord_Howe", True, 3600, DIFFERENCES[4].reason),
    ("* 0,23 * * 0", "America/Havana", True, 7200, DIFFERENCES[5].reason),
    ("0 0 * * *", "America/St_Johns", False, 0, DIFFERENCES[6].reason),
    ("*/30 3 * * *", "Pacific/Chatham", False, 0, DIFFERENCES[6].reason),
    ("0 24 */4 * * *", "America/St_Johns", False, 86_400, ASTRAY),
]


@pytest.mark.parametrize(("text", "zone", "gap", "before", "reason"), WITNESSES)
def test_every_difference_is_real(text: str, zone: str, gap: bool, before: int, reason: str) -> None:
    """Each row of DIFFERENCES is needed: here is a schedule and a change for which the two differ for that reason."""
    (change,) = (change for change in CHANGES if change.zone == zone and change.gap is gap)
    assert compare_with_cronsim(job_of(text), change, change.at - before) == {reason}
    assert {row.reason for row in DIFFERENCES} | {ASTRAY} == {witness[-1] for witness in WITNESSES}


@pytest.mark.parametrize(
    ("text", "zone", "begin", "respelt"),
    [
        ("0 0 */2 * MON", "UTC", datetime(2026, 1, 1, tzinfo=UTC), "0 0 1-31/2 * MON"),  # "either" here, "and" there
        ("0 0 * * MON/2", "UTC", datetime(2026, 1, 1, tzinfo=UTC), "0 0 * * MON-FRI/2"),  # the week ends with 6 here
        ("*/60 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC), "0 2 * * *"),  # no step is left of it
    ],
)
def test_what_cronsim_reads_otherwise(text: str, zone: str, begin: datetime, respelt: str) -> None:
    """The same text means something else to cronsim; spelt as we mean it, the two agree."""

    def theirs(spelling: str) -> list[int]:
        search = CronSim(spelling, begin.astimezone(ZoneInfo(zone)))
        return [int(next(search).timestamp()) * SECOND_US for _ in range(20)]

    ours = next_n(parse(text, timezone=zone), int(begin.timestamp()) * SECOND_US, 20)
    assert ours != theirs(text)
    assert ours == theirs(respelt)


@given(data=st.data(), begin=st.integers(0, 4_000_000_000), seconds=st.booleans())
@settings(max_examples=150, database=None)
def test_against_cronsim_where_no_clock_changes(data: st.DataObject, begin: int, seconds: bool) -> None:
    """In UTC, at any time from 1970 to 2096, the two agree to the second."""
    job = data.draw(jobs(Change("UTC", begin, 0, 0), seconds=seconds))
    ours = next_n(parse(job.text), begin * SECOND_US, 20)
    search = CronSim(asked_of_cronsim(job).text, datetime.fromtimestamp(begin, UTC))
    assert ours == [int(next(search).timestamp()) * SECOND_US for _ in range(20)], job.text


# --- all zones --------------------------------------------------------------------------------------------------------

COMMON = [
    "30 2 * * *",
    "0 0 * * *",
    "15,45 0-3 * * *",
    "59 1,23 * * *",
    "*/15 * * * *",
    "0 * * * *",
    "0 */2 * * *",
    "*/20 1-3 * * *",
    "5-59/10 0 * * *",
]


SHARES = 16
"""Parts of the work on all zones, for as many processors."""


@cache
def all_changes() -> list[Change]:
    """Of 2020-2035 in every zone there is, each once: zones that go from one offset to the same other one in the same
    instant do not differ for two days around it, for none changes twice in two days, which is looked at."""
    found: dict[tuple[int, int, int], Change] = {}
    for zone in sorted(zoneinfo.available_timezones() - {"localtime"}):
        last = 0
        for change in changes(zone, 2020, 2035):
            assert change.at - last > 2 * DAY_S
            last = change.at
            found.setdefault((change.at, change.before, change.after), change)
    return list(found.values())


@pytest.mark.allzones
@pytest.mark.parametrize("share", range(SHARES))
def test_every_change_of_every_zone(share: int) -> None:
    """All changes of 2020-2035, nine common schedules, six hours around: by the minute, and by cronsim."""
    some = all_changes()[share::SHARES]
    assert some
    for change in some:
        zone = change.zone
        minutes = range(change.at - 6 * HOUR_S, change.at + 6 * HOUR_S, 60)
        shown = {minute: minute + offset(zone, minute) for minute in minutes}
        first_shown = {reading: minute for minute, reading in reversed(shown.items())}
        slots = range(min(shown.values()), max(shown.values()) + 1, 60)
        for text in COMMON:
            job = job_of(text)
            if job.fixed_time:
                wanted = sorted({first_shown.get(slot, change.at) for slot in slots if job.matches(slot)})
            else:
                wanted = [minute for minute, reading in shown.items() if job.matches(reading)]
            ticks = next_n(parse(text, timezone=zone), (minutes[0] - 1) * SECOND_US, len(wanted))
            assert [tick // SECOND_US for tick in ticks] == wanted, (text, change)
            compare_with_cronsim(job, change, change.at - 6 * HOUR_S)
