"""Times as people read them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.cli import times

NOON_US = 1_769_860_800_000_000
"""2026-01-31T12:00:00Z."""

LAST_US = 253_402_300_799_000_000
"""9999-12-31T23:59:59Z."""


@pytest.mark.parametrize(
    ("text", "instant_us"),
    [
        ("2026-01-31T12:00:00Z", NOON_US),
        ("2026-01-31T12:00:00.5Z", NOON_US + 500_000),
        ("2026-01-31T12:00:00.000001Z", NOON_US + 1),
        ("2026-01-31T12:00:00.123456789Z", NOON_US + 123_456),
        ("9999-12-31T23:59:59Z", LAST_US),
        ("0001-01-01T00:00:00Z", None),
        ("2026-02-30T12:00:00Z", None),
        ("soon", None),
        ("", None),
        (None, None),
        (5, None),
    ],
)
def test_read(text: object, instant_us: int | None) -> None:
    """Instants of the API are read to the microsecond; never and nonsense are None."""
    assert times.read(text) == instant_us


@given(st.integers(0, 253_402_300_799_999_999))
def test_iso_reads_back(instant_us: int) -> None:
    """What is written as the API writes it is read as the same instant."""
    assert times.read(times.iso(instant_us)) == instant_us


@pytest.mark.parametrize(
    ("length_us", "text"),
    [
        (0, "0ms"),
        (350_000, "350ms"),
        (1_000_000, "1s"),
        (1_500_000, "1.5s"),
        (9_990_000, "10.0s"),
        (42_400_000, "42s"),
        (60_000_000, "1m"),
        (185_000_000, "3m 5s"),
        (3_600_000_000, "1h"),
        (3_605_000_000, "1h"),
        (86_400_000_000 * 2 + 3_600_000_000 * 4, "2d 4h"),
        (86_400_000_000 * 400, "400d"),
    ],
)
def test_duration(length_us: int, text: str) -> None:
    """Two units at most: what is left out is below what a person asks for."""
    assert times.duration(length_us) == text


@pytest.mark.parametrize(
    ("distance_us", "text"),
    [(0, "now"), (400_000, "now"), (-400_000, "now"), (180_000_000, "in 3m"), (-7_500_000_000, "2h 5m ago")],
)
def test_relative(distance_us: int, text: str) -> None:
    """Ahead is "in", behind is "ago", close is "now"."""
    assert times.relative(NOON_US + distance_us, NOON_US) == text


def test_absolute_is_local_unless_utc_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person reads the clock on the wall; the Z says where that is not meant. In Tokyo the year 9999 ends earlier."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert times.absolute(NOON_US, utc=False) == "2026-01-31 21:00:00"
        assert times.absolute(NOON_US, utc=True) == "2026-01-31 12:00:00Z"
        assert times.absolute(LAST_US, utc=False) == "9999-12-31 23:59:59Z"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_instant_is_ago_or_as_given() -> None:
    """`--since 90m` counts back from now; an instant is passed on."""
    assert times.instant("90m", NOON_US) == "2026-01-31T10:30:00Z"
    assert times.instant("2030-01-01T00:00:00+01:00", NOON_US) == "2030-01-01T00:00:00+01:00"
