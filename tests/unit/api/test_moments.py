"""Times as text and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.api.fields import duration
from meshcron.api.moments import LAST, NEVER, WALL_US_MAX, duration_text, instant_text, instant_us
from meshcron.model import SECOND_US

DAY_US = 86_400 * SECOND_US


@pytest.mark.parametrize(
    ("wall_us", "text"),
    [
        (0, NEVER),
        (-5, NEVER),
        (1, "1970-01-01T00:00:00.000001Z"),
        (1_325_419_200 * SECOND_US, "2012-01-01T12:00:00Z"),
        (1_325_419_200 * SECOND_US + 500_000, "2012-01-01T12:00:00.500000Z"),
        (WALL_US_MAX, LAST),
        (WALL_US_MAX * 2, LAST),
    ],
)
def test_instant_text(wall_us: int, text: str) -> None:
    """RFC 3339 in UTC; never is Go's zero time."""
    assert instant_text(wall_us) == text


@pytest.mark.parametrize(
    ("text", "wall_us"),
    [
        (NEVER, 0),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01z", SECOND_US),
        ("1970-01-01 01:00:01+01:00", SECOND_US),
        ("1969-12-31T23:00:01-01:00", SECOND_US),
        ("1970-01-01T00:00:00.5Z", 500_000),
        ("1970-01-01T00:00:00.123456789Z", 123_456),
        (LAST, WALL_US_MAX),
    ],
)
def test_instant_us(text: str, wall_us: int) -> None:
    """Any offset, up to nine digits of a second."""
    assert instant_us(text) == wall_us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2030-01-01",
        "2030-01-01T00:00:00",
        "2030-13-01T00:00:00Z",
        "2030-02-30T00:00:00Z",
        "2030-01-01T24:00:01Z",
        "2030-01-01T00:00:61Z",
        "2030-01-01T00:00:00+25:00",
        "1969-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T100:00:00Z",
        "٢٠٣٠-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2030-01-01T00:00:00Zjunk",
    ],
)
def test_no_instant(text: str) -> None:
    """What is no instant, or one nobody schedules, is told so."""
    with pytest.raises(
        ValueError, match=r"^(is not a time like 2030|is not a time: there is no such|lies before 1970)"
    ):
        instant_us(text)


@given(st.integers(1, WALL_US_MAX))
def test_instants_read_back(wall_us: int) -> None:
    """What is shown is what is read."""
    assert instant_us(instant_text(wall_us)) == wall_us


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0s"),
        (1, "1us"),
        (20_000, "20ms"),
        (1_500_000, "1.5s"),
        (10 * SECOND_US, "10s"),
        (60 * SECOND_US, "1m0s"),
        (5_400 * SECOND_US, "1h30m0s"),
        (DAY_US + 1, "24h0m0.000001s"),
    ],
)
def test_duration_text(us: int, text: str) -> None:
    """As Go writes it."""
    assert duration_text(us) == text


@given(st.integers(0, 365 * DAY_US))
def test_durations_read_back(us: int) -> None:
    """What is shown is what is read."""
    assert duration(duration_text(us), "timeout") == us
