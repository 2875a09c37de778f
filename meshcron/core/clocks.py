"""Cluster time and wall time, as each agent carries them (PROTOCOL 7).

Cluster time never steps and never falls: an anchor plus the machine's suspend-counting clock. The leader's is the
cluster's; the others map its stamps to their own clock by the fastest one. Wall time is cluster time plus an offset
that slews after the median of the voters' wall clocks and steps only by a committed ClockStep.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from meshcron.model import SECOND_US, Instant

STEP_US = 30 * SECOND_US
"""A difference above this is a step, committed as such; below it is slewed (PROTOCOL 7)."""

SLEW_FAST_ABOVE_US = SECOND_US
SLEW_SLOW_US_PER_S = 500
"""0.5 ms a second for differences under 1 s."""
SLEW_FAST_US_PER_S = 50_000
"""50 ms a second above: 20 s are absorbed in 7 minutes."""

AGREE_US = 2 * SECOND_US
"""Wall clocks further apart than this do not agree."""

WRONG_LOOKS = 3
"""A clock is called wrong at so many looks in a row, off by the same at each: one heartbeat may be minutes old."""

WINDOW_US = 5 * SECOND_US
"""The fastest stamp of the last two windows counts, so that clocks of different speed do not drift apart."""

BACK_US = 1000
"""By so much the mapping may fall at the end of a window: 200 ppm, more than any clock drifts, and time still rises."""


class ClusterClock:
    """Maps readings of this machine's clocks to cluster time and wall time."""

    def __init__(self) -> None:
        self.offset_us = 0
        """Wall time minus cluster time."""
        self.running = False
        """Whether cluster time is known here: a leader was heard, or this agent leads."""
        self.leads = False
        self._lead_us = 0
        """Cluster time minus our clock."""
        self._best_us = 0
        self._window_boot_us = 0
        self._slewed_boot_us = 0

    # following

    def hear(self, now: Instant, cluster_us: int) -> None:
        """A stamp of the leader's; delays only make it late, so the fastest is the truest."""
        if self.leads or not cluster_us:
            return
        sample_us = cluster_us - now.boot_us
        if not self.running:
            self._lead_us = self._best_us = sample_us
            self._window_boot_us = now.boot_us
            self.running = True
        self._best_us = max(self._best_us, sample_us)
        self._lead_us = max(self._lead_us, sample_us)
        if now.boot_us - self._window_boot_us >= WINDOW_US:
            self._lead_us = max(self._best_us, self._lead_us - BACK_US)
            self._best_us, self._window_boot_us = sample_us, now.boot_us

    # leading

    def lead(self, now: Instant, committed: tuple[int, int, int], marks_us: Collection[int], wall_us: int) -> None:
        """Be the cluster's clock from now on: go on from the fastest stamp heard in this session; after a cold start
        from the last committed reading (cluster, wall, offset) plus how far the wall clock moved forward since. Never
        below what a voter has seen. A cluster without any reading starts with cluster time = wall time."""
        cluster_us, committed_wall_us, offset_us = committed
        if cluster_us == 0:
            cluster_us, committed_wall_us, offset_us = wall_us, wall_us, 0
        if not self.running:
            self._lead_us = cluster_us + max(0, wall_us - committed_wall_us) - now.boot_us
        self._lead_us = max(self._lead_us, cluster_us - now.boot_us, *(mark - now.boot_us for mark in marks_us))
        self._slewed_boot_us = now.boot_us
        self.offset_us = offset_us
        self.running = self.leads = True

    def follow(self, now: Instant) -> None:
        """Somebody else leads; what we know stays true until its stamps say better."""
        self.leads = False
        self._best_us, self._window_boot_us = self._lead_us, now.boot_us

    # reading

    def cluster_us(self, now: Instant) -> int:
        """Cluster time at a reading; only where it runs."""
        return self._lead_us + now.boot_us

    def wall_us(self, now: Instant) -> int:
        """The cluster's wall time at a reading: what ticks are compared with."""
        return self.cluster_us(now) + self.offset_us

    def boot_us(self, cluster_us: int) -> int:
        """When, on this machine's suspend-counting clock, a cluster instant comes."""
        return cluster_us - self._lead_us

    # wall time, as leader

    def slew(self, now: Instant, wall_us: int) -> int:
        """Follow a wall clock (`wall_us`: its reading now) by as much as the time since the last call allows. Returns
        the difference that a ClockStep must take, 0 when slewing will do."""
        difference = wall_us - self.wall_us(now)
        if abs(difference) > STEP_US:
            return difference
        rate = SLEW_SLOW_US_PER_S if abs(difference) < SLEW_FAST_ABOVE_US else SLEW_FAST_US_PER_S
        most = max(0, now.boot_us - self._slewed_boot_us) * rate // SECOND_US
        self._slewed_boot_us = now.boot_us
        self.offset_us += max(-most, min(most, difference))
        return 0

    def step(self, now: Instant, offset_us: int) -> None:
        """Take the offset of a committed ClockStep."""
        self.offset_us = offset_us
        self._slewed_boot_us = now.boot_us


def agreed_wall_us(walls_us: Collection[int], voters: int) -> int | None:
    """The median of the voters' wall clocks where a majority of the roster agrees within AGREE_US; else None: the
    offset is kept. Never a mean: of two clocks one may be an hour off."""
    ordered = sorted(walls_us)
    if 2 * len(ordered) <= voters:
        return None
    median = ordered[(len(ordered) - 1) // 2]
    agreeing = sum(abs(wall - median) <= AGREE_US for wall in ordered)
    return median if 2 * agreeing > voters else None


class WrongClocks:
    """Whose clock stays off by the same, more than AGREE_US from the time that the voters agree on. Each is named once,
    and again when it was right, or silent, or set to another wrong time in between."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}
        """By how much it was ahead when it was first seen so, and at how many looks in a row."""

    def look(self, ahead_us: Mapping[str, int]) -> list[str]:
        """`ahead_us`: by how much the clock of each member is ahead that was heard since the last look. Returns those
        to be named now."""
        before, self._seen = self._seen, {}
        for node_id, ahead in ahead_us.items():
            if abs(ahead) <= AGREE_US:
                continue
            first, looks = before.get(node_id, (ahead, 0))
            same = abs(ahead - first) <= AGREE_US
            self._seen[node_id] = (first, looks + 1) if same else (ahead, 1)
        return [node_id for node_id, (_, looks) in self._seen.items() if looks == WRONG_LOOKS]
