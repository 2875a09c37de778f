"""How a duration is written: numbers with units, as Go does it, and days. `1h30m`, `1.5s`, `20ms`, `2d`.

Everybody reads durations with this file. `microseconds` is for what people type; a schedule, which points at the very
letter that is wrong, takes the parts one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
"""Nanoseconds in a unit."""

_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?([A-Za-z]*)")

# Nine digits of days are more than anybody waits; six after the point are a microsecond of a second.
_TYPED: Final = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,6})?(?:us|ms|s|m|h|d))+")
_SMALLEST_SHARE: Final = 10**6
"""Every fraction that `_TYPED` lets through is a whole number of these."""


class Part(NamedTuple):
    """One number and its unit, as they stand in a text: either may be missing or unknown."""

    at: int
    """Characters before it."""
    text: str
    digits: str
    """Of the number, without its point; "" = there is none."""
    scale: int
    """What the digits are to be divided by: 10 for each behind the point."""
    unit: str

    def shares_ns(self) -> int:
        """Its length in nanoseconds times `scale`: whole, however many digits it has. Its number and unit are there."""
        return int(self.digits) * UNITS_NS[self.unit]


def parts(text: str) -> Iterator[Part]:
    """The parts of a text up to its end, or to the first without a number, with which it stops."""
    position = 0
    while position < len(text):
        match = _PART.match(text, position)
        assert match is not None  # the pattern matches nothing, too
        whole, fraction, unit = match.group(1), match.group(2) or "", match.group(3)
        yield Part(position, match.group(), whole + fraction, 10 ** len(fraction), unit)
        if not whole + fraction:
            return
        position = match.end()


def microseconds(text: str) -> int | None:
    """A duration as people type it, rounded down to microseconds; None for what is none."""
    if not _TYPED.fullmatch(text):
        return None
    shares = sum(part.shares_ns() * (_SMALLEST_SHARE // part.scale) for part in parts(text))
    return shares // (_SMALLEST_SHARE * UNITS_NS["us"])
