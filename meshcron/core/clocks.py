"""Cluster time and wall time, as the leader carries them (PROTOCOL 7).

Cluster time never steps and never falls: it is an anchor plus the machine's suspend-counting clock. Wall time is
cluster time plus an offset that slews after the machine's wall clock and steps only by a committed ClockStep.
"""

from __future__ import annotations

from meshcron.model import SECOND_US, Instant

STEP_US = 30 * SECOND_US
"""A difference above this is a step, committed as such; below it is slewed (PROTOCOL 7)."""

SLEW_FAST_ABOVE_US = SECOND_US
SLEW_SLOW_US_PER_S = 500
"""0.5 ms a second for differences under 1 s."""
SLEW_FAST_US_PER_S = 50_000
"""50 ms a second above: 20 s are absorbed in 7 minutes."""


class ClusterClock:
    """Maps readings of this machine's clocks to cluster time and wall time."""

    def __init__(self) -> None:
        self.offset_us = 0
        self._anchor_boot_us = 0
        self._anchor_cluster_us = 0
        self._slewed_boot_us = 0
        self.running = False

    def start(self, now: Instant, cluster_us: int, wall_us: int, offset_us: int) -> None:
        """Go on from the last committed reading: cluster time moved by as much as the wall clock moved forward since.

        A cluster without any reading starts with cluster time = wall time.
        """
        if cluster_us == 0:
            cluster_us, wall_us, offset_us = now.wall_us, now.wall_us, 0
        self._anchor_boot_us = now.boot_us
        self._anchor_cluster_us = cluster_us + max(0, now.wall_us - wall_us)
        self._slewed_boot_us = now.boot_us
        self.offset_us = offset_us
        self.running = True

    def cluster_us(self, now: Instant) -> int:
        """Cluster time at a reading."""
        return self._anchor_cluster_us + now.boot_us - self._anchor_boot_us

    def wall_us(self, now: Instant) -> int:
        """The cluster's wall time at a reading: what ticks are compared with."""
        return self.cluster_us(now) + self.offset_us

    def boot_us(self, cluster_us: int) -> int:
        """When, on this machine's suspend-counting clock, a cluster instant comes."""
        return cluster_us - self._anchor_cluster_us + self._anchor_boot_us

    def slew(self, now: Instant) -> int:
        """Follow the wall clock by as much as the time since the last call allows. Returns the difference that a
        ClockStep must take, 0 when slewing will do."""
        difference = now.wall_us - self.wall_us(now)
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
