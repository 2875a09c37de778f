"""Three cores in virtual time, on the network of tests/simulation without faults: the processor time of all of them is
counted, and that of their world is not."""

from __future__ import annotations

import time
from collections.abc import Iterable

from failed import Failed

from meshcron.core.agent import Agent
from meshcron.core.effects import Effect
from meshcron.core.events import Event
from meshcron.model import Instant
from meshcron.rows import JobRow, JobStateRow, Row
from tests.simulation.cluster import Cluster, Host

SEED = 0
FORM_SECONDS = 60.0
LASTS_US = 1000
"""How long each process runs."""


class Timed(Agent):
    """A core that counts its processor time."""

    used_s = 0.0

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        began = time.process_time()
        wanted = super().handle(event, now)
        self.used_s += time.process_time() - began
        return wanted

    def next_wakeup(self, now: Instant) -> int:
        began = time.process_time()
        wakeup = super().next_wakeup(now)
        self.used_s += time.process_time() - began
        return wakeup


class Unwatched(Cluster):
    """Without those invariants that look at every job after every entry."""

    def watch(self, host: Host) -> None:
        self.intended.update(host.agent.state.open)


class VirtualCluster:
    """So many voters, which have formed a cluster, and then found jobs on their disks at their next start."""

    def __init__(self, count: int, jobs: Iterable[JobRow], states: Iterable[JobStateRow]) -> None:
        self._world = Unwatched(SEED)
        self._world.lasts_us = LASTS_US
        for host in [self._world.add() for _ in range(count)]:
            host.build = Timed
            host.start()
        self._wait(count)
        stored: tuple[Row, ...] = (*jobs, *states)
        for host in self._world.hosts:
            host.crash()
            host.disk.write(stored)
        for host in self._world.hosts:
            host.start()
        self._wait(count)

    def _wait(self, voters: int) -> None:
        def ready() -> bool:
            leader = self._world.leader()
            return leader is not None and len(leader.agent.ledger.voters) == voters

        if not self._world.run_until(ready, FORM_SECONDS):
            raise Failed(f"no cluster of {voters} voters:\n{self._world.describe()}")

    @property
    def used_s(self) -> float:
        """Processor time of all cores since their last start."""
        return sum(host.agent.used_s for host in self._world.hosts if isinstance(host.agent, Timed))

    @property
    def runs(self) -> int:
        """Processes that were started, on all of them."""
        return len(self._world.starts)

    def run_for(self, seconds: float) -> None:
        self._world.run_for(seconds)
