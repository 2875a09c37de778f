"""Two machines: the only voter waits a moment for a learner's copy of what it commits (PROTOCOL 2).

No majority needs that copy, so it is never waited for long; but where the voter's disk is lost with its machine, all
that anybody was told of is on the other one.
"""

from __future__ import annotations

from collections import deque

PATIENCE_US = 50_000
"""So long an entry that is durable here waits for a learner: a LAN and an fsync take a few milliseconds, and nobody
notices 50 at a write."""

MISSES_MAX = 2
"""After so many entries in a row that no learner had in time none is waited for, until it has caught up."""


class SecondCopy:
    """How far the only voter may commit."""

    def __init__(self) -> None:
        self._misses = MISSES_MAX
        self._waiting: deque[tuple[int, int]] = deque()
        """Entries that were durable here first, up to an index each, and until when they wait."""
        self._done = 0
        """Up to here nothing waits any more."""

    def forget(self) -> None:
        """Nobody is there to be waited for: one that comes has to catch up first."""
        self._misses = MISSES_MAX
        self._waiting.clear()

    def next_wakeup(self) -> int | None:
        """On the suspend-counting clock: when the first of them has waited for long enough."""
        return self._waiting[0][1] if self._waiting else None

    def reaches(self, durable: int, learner: int, last: int, now_boot_us: int) -> int:
        """Up to where to commit: of what is durable here what the best living learner has, too, and what has waited for
        it in vain. `last`: the log's end."""
        if learner >= last:
            self._misses = 0
        if self._misses < MISSES_MAX:
            self._await(durable, learner, now_boot_us)
        if self._misses >= MISSES_MAX:
            self.forget()
            return durable
        return min(durable, max(learner, self._done))

    def _await(self, durable: int, learner: int, now_boot_us: int) -> None:
        asked = self._waiting[-1][0] if self._waiting else self._done
        if durable > max(learner, asked):
            self._waiting.append((durable, now_boot_us + PATIENCE_US))
        while self._waiting and self._waiting[0][0] <= learner:
            self._waiting.popleft()
            self._misses = 0
        while self._waiting and self._waiting[0][1] <= now_boot_us:
            self._done, _ = self._waiting.popleft()
            self._misses += 1
