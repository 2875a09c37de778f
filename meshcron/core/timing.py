"""The times of the mesh (PROTOCOL 3, 4), scaled together: `lan` as they stand, `slow` for wireless and far links."""

from __future__ import annotations

from msgspec import Struct

MS = 1000
"""Microseconds in a millisecond."""


class Timing(Struct, frozen=True):
    """All in microseconds."""

    beat_us: int = 250 * MS
    """Between two heartbeats."""
    append_us: int = 100 * MS
    """Between two appends of an idle leader."""
    sticky_us: int = 750 * MS
    """So long after hearing its leader a voter helps nobody to replace it; the base of the election timer."""
    rank_us: int = 100 * MS
    """A voter waits so much longer than the one of the next higher rank."""
    jitter_us: int = 200 * MS
    lease_us: int = 600 * MS
    """A leader steps down when no majority has acknowledged an append sent within this. Shorter than `sticky_us`: the
    old leader stops before a new one can be elected."""
    stand_us: int = 20 * MS
    """A bully that answered stands within this; also the step between ranks where the leader is known to be gone."""
    fsync_us: int = 1000 * MS
    """A leader whose own disk takes longer steps down."""
    stable_us: int = 10_000 * MS
    """A member was heard without a gap for so long before it may vote."""
    lost_us: int = 60_000 * MS
    """An agent silent for so long may be gone for good: what is open on it is `lost`, that is: unknown (PROTOCOL 6)."""


LAN = Timing()
SLOW = Timing(
    beat_us=1000 * MS,
    append_us=400 * MS,
    sticky_us=3000 * MS,
    rank_us=400 * MS,
    jitter_us=800 * MS,
    lease_us=2400 * MS,
    stand_us=80 * MS,
    fsync_us=4000 * MS,
)
