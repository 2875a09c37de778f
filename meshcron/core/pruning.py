"""Leader: old records go, by entries that all apply alike (`history` of a job: runs, days)."""

from __future__ import annotations

from meshcron import entries
from meshcron.core.clocks import ClusterClock
from meshcron.core.fold import Applied
from meshcron.core.ledger import Ledger
from meshcron.core.state import JobState, State
from meshcron.core.turn import Turn
from meshcron.model import SECOND_US

PRUNE_EVERY_US = 6 * 3600 * SECOND_US
"""How often every job is looked at for records older than its `history.days`."""

PRUNES_PER_LOOK = 20

SPREAD_HISTORY = 10
"""A job's history is pruned when it exceeds its limit by a tenth, and at least this many: pruning has its price too."""

DAY_US = 86_400 * SECOND_US


class Pruning:
    """One term's care for histories. Only once the term's first entry is applied."""

    def __init__(self, state: State, clock: ClusterClock, ledger: Ledger) -> None:
        self._state = state
        self._clock = clock
        self._ledger = ledger
        self._under_way: set[int] = set()
        """Jobs of which a Prune of ours is in the log."""
        self._looked_boot_us = 0
        self._to_look_at: list[int] = []

    def lead(self, now_boot_us: int) -> None:
        """The term begins."""
        self._looked_boot_us = now_boot_us

    def watch(self, turn: Turn) -> None:
        """Records grow old also where no new ones come."""
        if turn.now.boot_us >= self._looked_boot_us + PRUNE_EVERY_US:
            self._looked_boot_us = turn.now.boot_us
            self._to_look_at = [uid for uid, state in self._state.jobs.items() if state.recorded]
        if not self._ledger.can_propose(turn.now.boot_us):
            return
        some, self._to_look_at = self._to_look_at[:PRUNES_PER_LOOK], self._to_look_at[PRUNES_PER_LOOK:]
        for uid in some:
            if (state := self._state.jobs.get(uid)) and uid not in self._under_way:
                self._propose(state, turn)

    def applied(self, entry: entries.Entry, applied: Applied, turn: Turn) -> None:
        """An entry is applied, and may have closed executions."""
        if isinstance(entry, entries.Prune):
            self._under_way.discard(entry.uid)
        if not self._ledger.can_propose(turn.now.boot_us):
            return
        for uid in {execution.uid for execution in applied.closed} - self._under_way:
            state = self._state.jobs.get(uid)
            if state is None:
                continue
            keep = state.job.history.runs
            if state.recorded > keep + max(SPREAD_HISTORY, keep // SPREAD_HISTORY):
                self._propose(state, turn)

    def _propose(self, state: JobState, turn: Turn) -> None:
        self._under_way.add(state.uid)
        history = state.job.history
        before_us = self._clock.wall_us(turn.now) - history.days * DAY_US
        self._ledger.propose(entries.Prune(state.uid, history.runs, before_us), turn)
