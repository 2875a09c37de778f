"""apply(entry): the deterministic state of jobs and open runs, and the rows that mirror it on disk.

No clock, no die, no schedule is asked here: the entry says everything. What the entry assumed is checked again; where
it no longer holds, the entry applies as nothing and the leader decides again (PROTOCOL 5).
"""

from __future__ import annotations

from typing import assert_never

from meshcron import entries
from meshcron.core.answers import first_answer, keep_answer, outcome_of
from meshcron.core.catalog_children import Children
from meshcron.core.catalog_cluster import Cluster
from meshcron.core.catalog_jobs import Jobs
from meshcron.core.catalog_late import Late
from meshcron.core.catalog_members import Members
from meshcron.core.catalog_outcomes import Outcomes
from meshcron.core.catalog_stops import Stops
from meshcron.core.catalog_ticks import Ticks
from meshcron.core.fold import Applied, DecideAgain, Fold
from meshcron.core.state import State
from meshcron.core.voter import Committed
from meshcron.errors import MeshcronError
from meshcron.rows import MetaRow, Row


class Catalog:
    """The one writer of `State`: routes each entry to the part that knows it."""

    def __init__(self, state: State) -> None:
        fold = Fold(state)
        children, self._stops = Children(fold), Stops(fold)
        self._fold = fold
        self._jobs = Jobs(fold, self._stops)
        self._outcomes = Outcomes(fold, self._jobs, Late(fold, children), children)
        self._ticks = Ticks(fold)
        self._members = Members(fold, self._outcomes)
        self._cluster = Cluster(fold, self._outcomes)

    def apply(self, committed: Committed) -> tuple[Applied, list[Row]]:
        """Fold one committed entry into the state. Returns what changed and the rows to write."""
        fold = self._fold
        fold.begin(committed.index)
        try:
            fold.applied.outcome = self._answered(committed.entry)
        except MeshcronError as refused:
            fold.applied.outcome = refused
        fold.state.applied = committed.index, committed.term, committed.crc
        fold.rows.append(MetaRow("applied", f"{committed.index} {committed.term} {committed.crc}"))
        return fold.applied, fold.rows

    def _answered(self, entry: entries.Entry) -> object:
        """What the entry's call is answered with; a repeated one changes nothing."""
        once = entry.once if isinstance(entry, entries.Repeatable) else None
        if once is None:
            return self._route(entry)
        if known := first_answer(self._fold.state, once):
            return outcome_of(known)
        outcome = self._route(entry)
        self._fold.rows += keep_answer(self._fold.state, once, self._fold.index, outcome)
        return outcome

    def _route(self, entry: entries.Entry) -> object:  # noqa: C901, PLR0912 - one arm a kind of entry
        if self._fold.state.dissolved:
            raise DecideAgain("this cluster is dissolved")
        match entry:
            case entries.Noop():
                return self._fold.clock(entry.cluster_us, entry.wall_us, entry.wall_offset_us)
            case entries.Formed():
                return self._cluster.formed(entry)
            case entries.Recovered():
                return self._cluster.recovered(entry)
            case entries.MemberPut():
                return self._members.put(entry)
            case entries.MemberStarted():
                return self._members.started(entry)
            case entries.MemberRemove():
                return self._members.remove(entry)
            case entries.Roster():
                return self._members.roster(entry)
            case entries.HandOver():
                return self._members.hand_over(entry)
            case entries.Dissolve():
                return self._cluster.dissolve(entry)
            case entries.Config():
                return self._cluster.config(entry)
            case entries.JobPut():
                return self._jobs.put(entry)
            case entries.JobDelete():
                return self._jobs.delete(entry)
            case entries.Intents():
                return self._ticks.intents(entry)
            case entries.Started():
                return self._outcomes.started(entry)
            case entries.Results():
                return self._outcomes.results(entry)
            case entries.Skip():
                return self._ticks.skip(entry)
            case entries.Queued():
                return self._ticks.queued(entry)
            case entries.Reseat():
                return self._ticks.reseat(entry)
            case entries.StopEntry():
                return self._stops.stop(entry)
            case entries.Pause():
                return self._cluster.pause(entry)
            case entries.Prune():
                return self._jobs.prune(entry)
            case entries.TokenPut():
                return self._cluster.token_put(entry)
            case entries.TokenRevoke():
                return self._cluster.token_revoke(entry)
            case entries.ClockStep():
                return self._cluster.clock_step(entry)
            case _:
                assert_never(entry)
