"""The calendar of a schedule, where no clock changes, against a dumb walk over every day of four years."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshcron.core.schedule import next_n, parse

DAY_S = 86_400
SECOND_US = 1_000_000


@dataclass(frozen=True)
class Days:
    """Day fields with `L` and `#`, as text and as a predicate of the date."""

    text: str
    matches: Callable[[datetime], bool]


def last_of_month(date: datetime) -> int:
    return (date.replace(day=28) + timedelta(days=4)).replace(day=1).toordinal() - date.replace(day=1).toordinal()


def nth(weekday: int, count: int) -> Days:
    return Days(f"{weekday}#{count}", lambda date: date.isoweekday() % 7 == weekday and (date.day + 6) // 7 == count)


def last_weekday(weekday: int) -> Days:
    return Days(f"L{weekday}", lambda date: date.isoweekday() % 7 == weekday and date.day + 7 > last_of_month(date))


def stretch(first: int, last: int) -> Days:
    return Days(f"{first}-{last}", lambda date: first <= date.day <= last)


LAST = Days("L", lambda date: date.day == last_of_month(date))
MONTH_DAYS = st.one_of(
    st.integers(1, 31).map(lambda day: Days(str(day), lambda date: date.day == day)),
    st.just(LAST),
    st.tuples(st.integers(1, 31), st.integers(0, 30)).map(lambda ends: stretch(ends[0], min(sum(ends), 31))),
)
WEEK_DAYS = st.one_of(
    st.integers(0, 7).map(lambda day: Days(str(day), lambda date: date.isoweekday() % 7 == day % 7)),
    st.builds(nth, st.integers(0, 6), st.integers(1, 5)),
    st.integers(0, 6).map(last_weekday),
)
STAR = Days("*", lambda date: True)
YEAR = set(range(1, 13))
NEW_YEAR = datetime(2019, 1, 1)  # noqa: DTZ001


@example(days=[LAST, stretch(2, 31)], weekdays=[STAR], months=YEAR, begin=NEW_YEAR)
@example(days=[stretch(1, 28), LAST, stretch(30, 31)], weekdays=[STAR], months={2, 3}, begin=NEW_YEAR)
@given(
    days=st.just([STAR]) | st.lists(MONTH_DAYS, min_size=1, max_size=3),
    weekdays=st.just([STAR]) | st.lists(WEEK_DAYS, min_size=1, max_size=3),
    months=st.sets(st.integers(1, 12), min_size=1, max_size=3) | st.just(YEAR),
    begin=st.datetimes(NEW_YEAR, datetime(2026, 1, 1)),  # noqa: DTZ001
)
@settings(max_examples=150, database=None)
def test_the_calendar_against_a_walk_over_every_day(
    days: list[Days], weekdays: list[Days], months: set[int], begin: datetime
) -> None:
    """Days, weekdays, `L` and `#` in lists, both given or one, forward over four years and back again."""
    month = "*" if len(months) == 12 else ",".join(map(str, sorted(months)))
    text = f"0 0 {','.join(day.text for day in days)} {month} {','.join(day.text for day in weekdays)}"
    either = days != [STAR] and weekdays != [STAR]
    dates = (begin.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=UTC) + timedelta(n) for n in range(1461))
    wanted = []
    for date in dates:
        in_month = any(day.matches(date) for day in days)
        in_week = any(day.matches(date) for day in weekdays)
        if date.month in months and (in_month or in_week if either else in_month and in_week):
            wanted.append(int(date.timestamp()) * SECOND_US)
    start = int(begin.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=UTC).timestamp()) * SECOND_US - 1
    end = start + 1461 * DAY_S * SECOND_US
    schedule = parse(text)
    assert [tick for tick in next_n(schedule, start, 100) if tick <= end] == wanted[:100], text
    back: list[int] = []
    while len(back) < 40 and (tick := schedule.latest_before(back[-1] - 1 if back else end, start)) is not None:
        back.append(tick)
    assert back == wanted[::-1][:40], text
