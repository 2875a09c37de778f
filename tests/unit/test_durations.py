"""Durations: one reading for configuration, API, command line and schedules."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.durations import UNITS_NS, Part, microseconds, parts


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("3s", 3_000_000),
        ("1h30m", 5_400_000_000),
        ("30m1h", 5_400_000_000),
        ("1.5s", 1_500_000),
        ("2d", 172_800_000_000),
        ("20ms", 20_000),
        ("7us", 7),
        ("0.5us", 0),
        ("0.5us0.5us", 1),
        ("0s", 0),
        ("999999999.999999d", 86_399_999_999_999_913_600),
    ],
)
def test_what_people_type(text: str, us: int) -> None:
    """Numbers with units, added up exactly and rounded down once."""
    assert microseconds(text) == us


@pytest.mark.parametrize(
    "text", ["", "3", "s", "-3s", " 3s", "3 s", "3S", "1.s", ".5s", "1.2.3s", "3w", "1h30", "5ns", "1.1234567s", "٣s"]
)
def test_what_is_none(text: str) -> None:
    """No unit, no number, a foreign digit, more digits than make sense."""
    assert microseconds(text) is None


@given(st.lists(st.tuples(st.decimals(0, 10**9 - 1, places=6), st.sampled_from(["us", "ms", "s", "m", "h", "d"]))))
def test_sums_are_exact(numbers: list[tuple[object, str]]) -> None:
    """As exact fractions add them up, however many there are."""
    text = "".join(f"{number}{unit}" for number, unit in numbers)
    exact = sum((Fraction(str(number)) * UNITS_NS[unit] for number, unit in numbers), Fraction(0)) / 1000
    assert microseconds(text) == (int(exact) if numbers else None)


def test_parts_stop_at_the_first_without_a_number() -> None:
    """A schedule can point at the letter: what stands before it is read, what follows is not."""
    assert list(parts("1.5h-2m")) == [Part(0, "1.5h", "15", 10, "h"), Part(4, "", "", 1, "")]
    assert list(parts("5x")) == [Part(0, "5x", "5", 1, "x")]
    assert list(parts("")) == []


@given(st.text("0123456789.hmsd -", max_size=30))
def test_parts_cover_the_text(text: str) -> None:
    """One behind the other, without a gap, up to the end or to what is no number."""
    found = list(parts(text))
    assert text.startswith("".join(part.text for part in found))
    assert all(part.digits for part in found[:-1])
    assert [part.at for part in found] == [sum(len(one.text) for one in found[:n]) for n in range(len(found))]
