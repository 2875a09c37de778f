"""Times as the API writes them, shown as people read them. The zone is the machine's own, or UTC where asked."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime

from meshcron import durations
from meshcron.cli.failures import USAGE, Failure

NEVER = "0001-01-01T00:00:00Z"
"""How the API writes "never" (API.md, Both dialects, 10)."""

INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?Z")

_DATE = re.compile(r"\d{4}-")

UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
"""Seconds in a unit and its letter, largest first."""

SECOND_US = 1_000_000


def read(text: object) -> int | None:
    """An instant of the API in microseconds since 1970; None for never, and for what is no instant."""
    found = INSTANT.fullmatch(text) if isinstance(text, str) and text != NEVER else None
    if found is None:
        return None
    try:
        whole = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    except ValueError:
        return None
    fraction = (found[2] or ".0")[1:7].ljust(6, "0")
    return int(whole.timestamp()) * SECOND_US + int(fraction)


def instant(text: str, now_us: int) -> str:
    """An instant for the API: a duration is that long ago, a date is the agent's to read. Raises Failure for what is
    neither."""
    length_us = durations.microseconds(text)
    if length_us is None and not _DATE.match(text):
        raise Failure(f'--since: "{text}" is no time; say 2h (that long ago) or 2030-01-31T12:00:00Z', USAGE)
    return text if length_us is None else iso(max(0, now_us - length_us))


def absolute(instant_us: int, *, utc: bool) -> str:
    """`2026-01-31 14:05:00` by this machine's clock, `...Z` in UTC; also of what no year of that clock has."""
    moment = datetime.fromtimestamp(instant_us // SECOND_US, UTC)
    if not utc:
        with suppress(OverflowError):
            return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def relative(instant_us: int, now_us: int) -> str:
    """`in 3m`, `2h 5m ago`, `now` within half a second."""
    distance_us = instant_us - now_us
    if abs(distance_us) < SECOND_US // 2:
        return "now"
    span = duration(abs(distance_us))
    return f"in {span}" if distance_us > 0 else f"{span} ago"


def duration(length_us: int) -> str:
    """A length in its two largest units: `350ms`, `1.5s`, `42s`, `3m 5s`, `2d 4h`."""
    if length_us < SECOND_US:
        return f"{length_us // 1000}ms"
    if length_us < 10 * SECOND_US and length_us % SECOND_US >= SECOND_US // 10:
        return f"{length_us / SECOND_US:.1f}s"
    rest = (length_us + SECOND_US // 2) // SECOND_US
    parts: list[str] = []
    for seconds, letter in UNITS:
        count, rest = divmod(rest, seconds)
        if count or parts:
            parts.append(f"{count}{letter}" if count else "")
    return " ".join(part for part in parts[:2] if part)


def iso(instant_us: int) -> str:
    """An instant as the API writes it."""
    moment = datetime.fromtimestamp(instant_us // SECOND_US, UTC)
    fraction = f".{instant_us % SECOND_US:06d}" if instant_us % SECOND_US else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
