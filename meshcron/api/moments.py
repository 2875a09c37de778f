"""Times as text: RFC 3339 instants to and from microseconds, durations as Go writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from meshcron.model import SECOND_US

NEVER = "0001-01-01T00:00:00Z"
"""An instant that has not come: Go's zero time, as in the reference."""

LAST = "9999-12-31T23:59:59Z"
"""What a later instant is shown as: RFC 3339 has four digits for the year."""

WALL_US_MAX = 253_402_300_799 * SECOND_US
"""LAST in microseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def instant_text(wall_us: int) -> str:
    """An instant as RFC 3339 in UTC, with a fraction only where there is one; 0 and before = NEVER."""
    if wall_us <= 0:
        return NEVER
    if wall_us > WALL_US_MAX:
        return LAST
    return (_EPOCH + timedelta(microseconds=wall_us)).isoformat()[: -len("+00:00")] + "Z"


def instant_us(text: str) -> int:
    """The instant of an RFC 3339 text with its offset, 0 for NEVER. Raises ValueError with what is wrong."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError("is not a time like 2030-01-31T12:00:00Z")
    date, clock, fraction, offset = match.groups()
    if offset in "Zz":
        offset = "+00:00"
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{offset}")
    except ValueError:
        raise ValueError("is not a time: there is no such day, hour or offset") from None
    if moment.year == 1:
        return 0
    microseconds = int(((fraction or ".")[1:] + "000000")[:6])
    wall_us = (moment - _EPOCH) // timedelta(microseconds=1) + microseconds
    if not 0 <= wall_us <= WALL_US_MAX:
        raise ValueError("lies before 1970 or after 9999")
    return wall_us


def duration_text(us: int) -> str:
    """A duration as Go writes it: `1h30m0s`, `1.5s`, `20ms`, `0s`."""
    if us < SECOND_US:
        return "0s" if us == 0 else f"{us // 1000}ms" if us % 1000 == 0 else f"{us}us"
    minutes, rest_us = divmod(us, 60 * SECOND_US)
    hours, minutes = divmod(minutes, 60)
    whole, fraction = divmod(rest_us, SECOND_US)
    seconds = f"{whole}.{fraction:06d}".rstrip("0") if fraction else str(whole)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
