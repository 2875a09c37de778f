"""Stopping: what is armed, what runs, and owed runs that are given up."""

from __future__ import annotations

from meshcron import entries
from meshcron.commands import StopAnswer
from meshcron.core.fold import Fold
from meshcron.core.state import JobState
from meshcron.errors import UnknownExecution
from meshcron.model import Status
from meshcron.rows import OwedRow


class Stops:
    """What a stop, a disabled or a deleted job ends."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._state = fold.state

    def drop_owed_of(self, state: JobState, *, quietly: bool = False) -> None:
        """Owed runs of a job that is stopped, disabled or deleted become `skipped` (but for a deleted one, whose
        records go too)."""
        for row in self._state.owed_to(state.uid):
            self.skip_owed(state, row, quietly=quietly)

    def skip_owed(self, state: JobState, row: OwedRow, *, quietly: bool = False) -> None:
        """One owed run is given up, with a record; `quietly` without."""
        self._fold.drop_owed(row.key)
        self._fold.applied.touched.add(row.uid)
        if row.kind not in ("join", "late") and not quietly:
            self._fold.record_owed(state, row, "stopped")
            if row.kind == "retry":
                self._fold.count_failed(state, row)
            self._fold.rows.append(state.state_row())

    def stop_armed(self, state: JobState) -> None:
        """What has not started does not."""
        for id_ in sorted(state.open_ids):
            execution = self._state.open[id_]
            if execution.status is Status.ARMED:
                self._fold.ask_stop(execution, kill=False)

    def stop(self, entry: entries.StopEntry) -> StopAnswer:
        """Executions and their retries, and what is owed to runs. Raises UnknownExecution for a call without any."""
        found = [self._state.open[id_] for id_ in entry.execution_ids if id_ in self._state.open]
        run_ids = frozenset(entry.run_ids)
        retries = {f"retry|{id_}" for id_ in entry.execution_ids}
        owed = sorted(
            (
                row
                for row in self._state.owed.values()
                if (row.run_id in run_ids and row.kind != "late") or row.key in retries
            ),
            key=lambda row: row.key,
        )
        if entry.call and not found and not owed:
            raise UnknownExecution(" ".join(entry.run_ids or entry.execution_ids))
        for execution in found:
            self._fold.ask_stop(execution, kill=entry.kill)
        for row in owed:
            if state := self._state.job_state(row.uid):
                self.skip_owed(state, row)
        of_runs = *entry.run_ids, *(one.run_id for one in found), *(row.run_id for row in owed)
        public_ids = tuple(execution.public_id for execution in found)
        return StopAnswer(next(iter(of_runs), ""), public_ids)
