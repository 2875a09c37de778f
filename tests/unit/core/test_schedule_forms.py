"""Durations of `@every` and times of `@at`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcron.core.cron_text import Token
from meshcron.core.schedule_forms import period_words, read_instant, read_period
from meshcron.errors import InvalidSchedule


@pytest.mark.parametrize(
    ("text", "seconds", "words"),
    [
        ("1s", 1, "Every 1 second"),
        ("90s", 90, "Every 1 minute 30 seconds"),
        ("1h30m", 5400, "Every 1 hour 30 minutes"),
        ("1.5h", 5400, "Every 1 hour 30 minutes"),
        ("30m1h", 5400, "Every 1 hour 30 minutes"),
        ("1d", 86_400, "Every 1 day"),
        ("2d1s", 172_801, "Every 2 days 1 second"),
        (".5m", 30, "Every 30 seconds"),
        ("5.m", 300, "Every 5 minutes"),
        ("1000ms", 1, "Every 1 second"),
        ("1500ms500ms", 2, "Every 2 seconds"),
        ("3000000us", 3, "Every 3 seconds"),
        ("36525d", 36_525 * 86_400, "Every 36525 days"),
    ],
)
def test_durations(text: str, seconds: int, words: str) -> None:
    """Go's durations, and days; the words say what was understood."""
    period_us = read_period(Token(text, 1))
    assert period_us == seconds * 1_000_000
    assert period_words(period_us) == words


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("", 8, "the duration is missing"),
        ("500ms", 8, "500ms is less than one second"),
        ("0s", 8, "0s is less than one second"),
        ("1500ms", 8, "1500ms is no whole number of seconds"),
        ("1s1ns", 8, "1s1ns is no whole number of seconds"),
        ("36525d1s", 8, "36525d1s is more than a century"),
        ("9" * 200 + "h", 8, "9" * 40 + "... is more than a century"),
        ("5", 8, "5 has no unit known here"),
        ("1h30", 10, "30 has no unit known here"),
        ("1h3x", 10, "3x has no unit known here"),
        ("1H", 8, "1H has no unit known here"),
        ("1w", 8, "1w has no unit known here"),
        ("h", 8, "a number is missing in the duration"),
        (".s", 8, "a number is missing in the duration"),
        ("-5s", 8, "a number is missing in the duration"),
        ("1h 30m", 10, "a number is missing in the duration"),
        ("1h\u0663m", 10, "a number is missing in the duration"),
        ("0.0000000001s", 8, "0.0000000001s is no whole number of nanoseconds"),
    ],
)
def test_a_wrong_duration(text: str, column: int, why: str) -> None:
    """As behind `@every `: the column is that of the piece that is wrong, or of the whole sum."""
    with pytest.raises(InvalidSchedule) as refused:
        read_period(Token(text, 8))
    assert (refused.value.column, refused.value.why) == (column, why)


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)), st.integers(-23 * 60, 23 * 60))  # noqa: DTZ001
@settings(max_examples=200, database=None)
def test_times_agree_with_the_standard_library(moment: datetime, offset_minutes: int) -> None:
    """RFC 3339 as Python writes it, in any offset, is the same instant, rounded up to a whole second."""
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    delta = aware - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = -(-delta // timedelta(seconds=1))
    assert read_instant(Token(aware.isoformat(), 1)) == seconds * 1_000_000


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2030-01-31T18:00:00Z", datetime(2030, 1, 31, 18, tzinfo=UTC)),
        ("2030-01-31t18:00:00z", datetime(2030, 1, 31, 18, tzinfo=UTC)),
        ("2030-01-31 18:00:00Z", datetime(2030, 1, 31, 18, tzinfo=UTC)),
        ("2030-01-31T18:00:00-00:00", datetime(2030, 1, 31, 18, tzinfo=UTC)),
        ("2030-01-31T18:00:00.000Z", datetime(2030, 1, 31, 18, tzinfo=UTC)),
        ("2030-01-31T18:00:00.0000000000001Z", datetime(2030, 1, 31, 18, 0, 1, tzinfo=UTC)),
        ("2028-02-29T23:30:00-01:30", datetime(2028, 3, 1, 1, tzinfo=UTC)),
    ],
)
def test_times(text: str, utc: datetime) -> None:
    """What RFC 3339 allows beside the common form."""
    assert read_instant(Token(text, 1)) == int(utc.timestamp()) * 1_000_000


def test_a_time_before_the_year_one() -> None:
    """The first minutes of the year 1 with an offset lie in the year before, which Python has no date for."""
    first = read_instant(Token("0001-01-01T00:00:00Z", 1))
    assert read_instant(Token("0001-01-01T00:00:00+23:59", 1)) == first - (23 * 60 + 59) * 60_000_000


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("", 5, "the time is missing"),
        ("2030-01-31", 5, "'2030-01-31' is no time"),
        ("2030-01-31T18:00:00", 5, "'2030-01-31T18:00:00' is no time"),
        ("2030-01-31T18:00Z", 5, "'2030-01-31T18:00Z' is no time"),
        ("2030-W05-4T18:00:00Z", 5, "'2030-W05-4T18:00:00Z' is no time"),
        ("2030-01-31T18:00:00+0100", 5, "'2030-01-31T18:00:00+0100' is no time"),
        ("2030-01-31T18:00:00.Z", 5, "'2030-01-31T18:00:00.Z' is no time"),
        ("0000-01-01T00:00:00Z", 5, "year 0 is not 1-9999"),
        ("2030-13-01T00:00:00Z", 10, "month 13 is not 1-12"),
        ("2030-02-29T00:00:00Z", 13, "day 29 is not 1-28"),
        ("2030-01-31T24:00:00Z", 16, "hour 24 is not 0-23"),
        ("2030-01-31T18:60:00Z", 19, "minute 60 is not 0-59"),
        ("2016-12-31T23:59:60Z", 22, "second 60 is not 0-59"),
        ("2030-01-31T18:00:00+24:00", 25, "hour of the offset 24 is not 0-23"),
        ("2030-01-31T18:00:00+01:60", 28, "minute of the offset 60 is not 0-59"),
    ],
)
def test_a_wrong_time(text: str, column: int, why: str) -> None:
    """As behind `@at `: the form as a whole, or the number that is out of range."""
    with pytest.raises(InvalidSchedule) as refused:
        read_instant(Token(text, 5))
    assert (refused.value.column, refused.value.why) == (column, why)
