"""The machine's clocks, read in one place."""

from __future__ import annotations

import time

from meshcron.model import Instant


def now() -> Instant:
    """Both clocks at this moment: CLOCK_BOOTTIME counts suspension, unlike the loop's own clock."""
    return Instant(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000, time.time_ns() // 1000)


def wall_clock_us() -> int:
    """The wall clock, in microseconds since the Unix epoch."""
    return time.time_ns() // 1000


def monotonic_seconds() -> float:
    """A clock for intervals."""
    return time.monotonic()
