"""The forms of a schedule that are no cron fields: `@daily` and its kin, the period of `@every`, the time of `@at`."""

from __future__ import annotations

import re
from calendar import monthrange, timegm
from typing import Final

from meshcron.core.cron_text import Token
from meshcron.durations import UNITS_NS, parts

SECOND_US: Final = 1_000_000

NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
    "@minutely": "* * * * *",
}
"""What stands for what: crontab(5), and Dkron's @minutely."""

_DURATION_HINT: Final = "such as 90s, 5m, 1h30m or 1d"
_SECOND_NS: Final = 1_000_000_000

# A century, as a bound that no sum of instants and periods can run away from; robfig's own is 292 years.
PERIOD_SECONDS_MAX: Final = 36_525 * 86_400

_RFC3339: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_RFC3339_HINT: Final = "RFC 3339 with an offset, such as 2030-01-31T18:00:00Z or 2030-01-31T18:00:00+01:00"


def read_period(token: Token) -> int:
    """The microseconds of a Go duration (`1h30m`, `1.5h`, `90s`), of days, too (`1d`).

    Raises InvalidSchedule at what is wrong: also for less than 1 s, more than a century, and parts of a second.
    """
    total_ns = 0
    for part in parts(token.text):
        piece = Token(part.text, token.column + part.at)
        if not part.digits:
            piece.refuse("a number is missing in the duration", _DURATION_HINT)
        if part.unit not in UNITS_NS:
            piece.refuse(f"{piece.shown} has no unit known here", f"{_DURATION_HINT}; units: {', '.join(UNITS_NS)}")
        length_ns, rest = divmod(part.shares_ns(), part.scale)
        if rest:
            piece.refuse(f"{piece.shown} is no whole number of nanoseconds", _DURATION_HINT)
        total_ns += length_ns
    return _whole_period_us(token, total_ns)


def _whole_period_us(token: Token, total_ns: int) -> int:
    if not token.text:
        token.refuse("the duration is missing", _DURATION_HINT)
    if total_ns < _SECOND_NS:
        token.refuse(f"{token.shown} is less than one second", _DURATION_HINT)
    if total_ns % _SECOND_NS:
        token.refuse(f"{token.shown} is no whole number of seconds", _DURATION_HINT)
    if total_ns > PERIOD_SECONDS_MAX * _SECOND_NS:
        token.refuse(f"{token.shown} is more than a century", _DURATION_HINT)
    return total_ns // _SECOND_NS * SECOND_US


def read_instant(token: Token) -> int:
    """The instant of an RFC 3339 time, in microseconds; a part of a second is rounded up to the next whole one (never
    early). Raises InvalidSchedule for anything else, also for a time without an offset and for second 60."""
    match = _RFC3339.fullmatch(token.text)
    if match is None:
        token.refuse(f"{token.shown!r} is no time" if token.text else "the time is missing", _RFC3339_HINT)
    year, month, day, hour, minute, second = (int(match.group(index)) for index in range(1, 7))
    _check(token, match.start(1), "year", year, range(1, 10000))
    _check(token, match.start(2), "month", month, range(1, 13))
    _check(token, match.start(3), "day", day, range(1, monthrange(year, month)[1] + 1))
    _check(token, match.start(4), "hour", hour, range(24))
    _check(token, match.start(5), "minute", minute, range(60))
    _check(token, match.start(6), "second", second, range(60))
    instant = timegm((year, month, day, hour, minute, second)) - _offset_s(token, match)
    return (instant + bool((match.group(7) or "").strip("0"))) * SECOND_US


def _offset_s(token: Token, match: re.Match[str]) -> int:
    if match.group(8) is None:
        return 0
    hours, minutes = int(match.group(9)), int(match.group(10))
    _check(token, match.start(9), "hour of the offset", hours, range(24))
    _check(token, match.start(10), "minute of the offset", minutes, range(60))
    return (hours * 3600 + minutes * 60) * (-1 if match.group(8) == "-" else 1)


def _check(token: Token, start: int, noun: str, value: int, allowed: range) -> None:
    if value not in allowed:
        at = Token("", token.column + start)
        at.refuse(f"{noun} {value} is not {allowed.start}-{allowed.stop - 1}", _RFC3339_HINT)


def period_words(period_us: int) -> str:
    """`Every 1 hour 30 minutes`."""
    seconds, pieces = period_us // SECOND_US, []
    for noun, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            pieces.append(f"{count} {noun}{'s' if count > 1 else ''}")
    return "Every " + " ".join(pieces)
