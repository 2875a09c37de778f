"""What cron fields mean: who is a fixed-time job, and what croniter is asked."""

from __future__ import annotations

import pytest

from meshcron.core.cron_text import read_fields


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("30 2 * * *", True),
        ("0,30 1-3,5 * * *", True),
        ("* 30 2 * * *", True),
        ("*/5 30 2 * * *", True),
        ("0-59 0-23 * * *", True),
        ("0 */24 * * *", True),
        ("H H * * *", True),
        ("0 H(1-5) * * *", True),
        ("* 2 * * *", False),
        ("30 * * * *", False),
        ("? 2 * * *", False),
        ("*/30 2 * * *", False),
        ("0-10/5 2 * * *", False),
        ("5/15 2 * * *", False),
        ("30 0-6/2 * * *", False),
        ("30 1,2/2 * * *", False),
        ("H/15 2 * * *", False),
        ("H/1 2 * * *", False),
    ],
)
def test_who_is_a_fixed_time_job(text: str, fixed: bool) -> None:
    """A wildcard or a step in hour or minute makes a job follow real time; seconds, ranges and lists do not."""
    assert read_fields(text, name="job").fixed_time is fixed


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("0 0 * * *", ("0 0 * * * 0",)),
        ("0 0 13 * *", ("0 0 13 * * 0",)),
        ("0 0 * * FRI", ("0 0 * * 5 0",)),
        ("0 0 13 * FRI", ("0 0 13 * * 0", "0 0 * * 5 0")),
        ("0 0 */1 * MON", ("0 0 * * 1 0",)),
        ("0 0 */2 * MON", ("0 0 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 * * 0", "0 0 * * 1 0")),
        ("0 0 1-31 * MON", ("0 0 * * * 0", "0 0 * * 1 0")),
        ("0 0 13 * FRI#2", ("0 0 13 * * 0", "0 0 * * 5#2 0")),
        ("0 0 1,L * *", ("0 0 1 * * 0", "0 0 l * * 0")),
        ("0 0 30,L 2 *", ("0 0 l 2 * 0",)),
        ("0 0 * * MON#1,FRI", ("0 0 * * 1#1,5#1,5#2,5#3,5#4,5#5 0",)),
        ("0 0 30 2 *", ()),
        ("0 0 30,31 2 *", ()),
        ("0 0 31 2,4,6,9,11 *", ()),
        ("0 0 31 2 MON", ("0 0 * 2 1 0",)),
        ("0 0 29 2 *", ("0 0 29 2 * 0",)),
        ("0 0 30-L 2 *", ()),
        ("0 0 L 2 *", ("0 0 l 2 * 0",)),
        ("0-59 0-23 * 1-12 0-7", ("* * * * * 0",)),
    ],
)
def test_what_croniter_is_asked(text: str, patterns: tuple[str, ...]) -> None:
    """Lists of numbers only, one restricted day field each, and nothing at all for dates that never come."""
    assert read_fields(text).patterns() == patterns
