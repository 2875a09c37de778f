"""Results of what was recorded as lost: they may still come, and are the truth then."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from meshcron.core.catalog_children import Children
from meshcron.core.ending import finished
from meshcron.core.fold import Fold
from meshcron.core.state import JobState
from meshcron.messages import ResultItem
from meshcron.model import Execution, Status
from meshcron.rows import ExecutionRow, OwedRow

LATE_MAX = 1000
"""So many lost executions may still turn into the truth; of older ones the record stays as it is."""

_execution_encoder = msgspec.json.Encoder()
_execution_decoder = msgspec.json.Decoder(Execution)


class Late:
    """Keeps lost executions in mind, so many."""

    def __init__(self, fold: Fold, children: Children) -> None:
        self._fold = fold
        self._children = children
        self._state = fold.state

    def expect(self, lost: Execution, *, counted: bool) -> None:
        """`lost` means unknown: should its agent come back with a result, that is the truth. `counted`: the loss stands
        among the job's errors (kept as the row's attempt)."""
        if len(self._state.late) >= LATE_MAX:
            self._fold.drop_owed(self._state.late[0][1])
        text = _execution_encoder.encode(lost).decode()
        at = lost.scheduled_wall_us
        self._fold.owe(
            OwedRow(f"late|{lost.id}", lost.uid, "late", lost.run_id, int(counted), "", at, 0, lost.node_id, text)
        )

    def came(self, item: ResultItem, states: dict[int, JobState], cluster_us: int) -> None:
        """A result of what was recorded as lost: the record becomes the truth, and says so. Nothing is run after it:
        that was decided when it was lost. But a rerun that still waits is not needed after a success."""
        row = self._state.owed.get(f"late|{item.execution_id}")
        lost = _execution_decoder.decode(row.env) if row is not None else None
        told = finished(lost, item) if lost is not None else None
        if row is None or lost is None or told is None:
            return
        self._fold.drop_owed(row.key)
        state = self._state.jobs.get(row.uid)
        if state is None:
            return
        final = replace(told, reason="; ".join(part for part in (told.reason, f"was lost: {lost.reason}") if part))
        self._fold.rows.append(ExecutionRow(final))
        rerun = self._state.owed.get(f"retry|{lost.id}")
        if rerun is not None and final.status is Status.SUCCESS:
            self._fold.drop_owed(rerun.key)
            self._fold.applied.touched.add(state.uid)
            self._count_late(state, final)
            self._children.run_ended(state, final, cluster_us)
        elif row.attempt:
            state.error_count = max(0, state.error_count - 1)
            self._count_late(state, final)
        states[state.uid] = state

    def _count_late(self, state: JobState, final: Execution) -> None:
        """What ended last is shown as the last, not what was heard of last."""
        shown, success_us, error_us = state.last_status, state.last_success_wall_us, state.last_error_wall_us
        self._fold.count(state, final)
        if max(success_us, error_us) > (final.finished_wall_us or final.scheduled_wall_us):
            state.last_status = shown
        state.last_success_wall_us = max(state.last_success_wall_us, success_us)
        state.last_error_wall_us = max(state.last_error_wall_us, error_us)
