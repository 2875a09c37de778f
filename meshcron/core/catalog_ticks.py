"""Decisions about ticks and owed runs: launched, skipped, queued, seated anew."""

from __future__ import annotations

import json

from meshcron import entries
from meshcron.commands import JobAnswer
from meshcron.core.fold import DecideAgain, Fold
from meshcron.core.state import JobState
from meshcron.entries import UNCHANGED, Intent
from meshcron.model import SECOND_US, Execution, Status, execution_id
from meshcron.rows import ExecutionRow, OwedRow


class Ticks:
    """Checks again what the leader assumed, then opens executions."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._state = fold.state

    def intents(self, entry: entries.Intents) -> object:
        """Launches, each as far as what it assumed still holds."""
        self._fold.clock(entry.cluster_us, entry.wall_us, entry.wall_offset_us)
        outcome: object = DecideAgain("the job changed meanwhile")
        for item in entry.items:
            state = self._state.jobs.get(item.uid)
            if state is None or not self._holds(state, item):
                continue
            run_id = item.run_id or (
                f"{item.uid}-m{self._fold.index}"
                if item.trigger == "manual"
                else f"{item.uid}-{item.epoch}-{item.tick_wall_us // SECOND_US}"
            )
            owed = self._state.owed[item.owed_key] if item.owed_key else None
            if item.owed_key:
                self._fold.drop_owed(item.owed_key)
            self._launch(state, item, run_id, owed)
            self._move(state, item.tick_wall_us, item.next_wall_us)
            outcome = JobAnswer(self._state.view(state), run_id=run_id) if entry.call else None
        return outcome

    def _holds(self, state: JobState, item: Intent) -> bool:
        """Whether what the leader assumed of this intent is still so."""
        if item.owed_key and item.owed_key not in self._state.owed:
            return False
        if item.next_wall_us != UNCHANGED and not self._tick_holds(state, item.revision, item.epoch, item.tick_wall_us):
            return False
        if item.targets and not any(number in self._state.members for number in item.targets):
            return False
        if item.revision != state.revision or (self._state.paused and item.trigger != "manual"):
            return False
        if state.job.concurrency == "allow" or not (item.targets or item.down):
            return True
        return not (state.open_ids if item.attempt > 1 else self._state.is_busy(state))

    def _tick_holds(self, state: JobState, revision: int, epoch: int, tick_wall_us: int) -> bool:
        return state.revision == revision and state.epoch == epoch and tick_wall_us > state.cursor_wall_us

    def _move(self, state: JobState, cursor_wall_us: int, next_wall_us: int) -> None:
        if next_wall_us != UNCHANGED:
            state.cursor_wall_us, state.next_wall_us = cursor_wall_us, next_wall_us
        self._fold.rows.append(state.state_row())
        self._fold.applied.touched.add(state.uid)

    def _launch(self, state: JobState, item: Intent, run_id: str, owed: OwedRow | None) -> None:
        for number in item.targets:
            member = self._state.members.get(number)
            if member is None:
                continue  # it left meanwhile; _holds has seen that somebody is left
            execution = Execution(
                id=self._id(item, run_id, member.node_id, owed),
                uid=item.uid,
                run_id=run_id,
                index=self._fold.index,
                revision=item.revision,
                attempt=item.attempt,
                trigger=item.trigger,
                scheduled_wall_us=item.tick_wall_us,
                due_cluster_us=item.due_cluster_us,
                start_by_cluster_us=item.start_by_cluster_us,
                node_id=member.node_id,
                agent=member.name,
                env=item.env,
            )
            self._state.add_open(execution)
            self._fold.rows.append(ExecutionRow(execution))
            self._fold.applied.opened.append(execution)
        self._record_down(state, item, run_id, owed)
        if owed is not None and owed.kind == "retry" and not item.targets:
            self._fold.count_failed(state, owed)

    def _record_down(self, state: JobState, item: Intent, run_id: str, owed: OwedRow | None) -> None:
        """Where it does not run: on each member that has failed; nowhere at all is one record."""
        down = [self._state.members[number].node_id for number in item.down if number in self._state.members]
        reason = "agent down" if item.down else item.reason
        if not item.targets and not down:
            down = [owed.node_id if owed else ""]
        at, key = item.tick_wall_us, owed.key if owed else ""
        for node_id in down:
            self._fold.record_skip(
                state, at, at, 1, reason, run_id, item.trigger, item.attempt, node_id=node_id, owed_key=key
            )

    def _id(self, item: Intent, run_id: str, node_id: str, owed: OwedRow | None) -> str:
        """Retries of two agents may meet on a third one, or on one of the two: once an attempt has moved, it and all
        that repeat it go by what they repeat (decisions/0001)."""
        plain = execution_id(self._state.cluster, run_id, node_id, item.attempt)
        if owed is None or owed.kind != "retry":
            return plain
        if owed.key == f"retry|{execution_id(self._state.cluster, run_id, node_id, item.attempt - 1)}":
            return plain
        return execution_id(self._state.cluster, f"{run_id}|{owed.key}", node_id, item.attempt)

    def skip(self, entry: entries.Skip) -> object:
        """Ticks that do not run."""
        state = self._state.jobs.get(entry.uid)
        if state is None or not self._tick_holds(state, entry.revision, entry.epoch, entry.from_wall_us):
            raise DecideAgain("the job changed meanwhile")
        run_id = f"{entry.uid}-{entry.epoch}-{entry.from_wall_us // SECOND_US}"
        self._fold.record_skip(
            state,
            entry.from_wall_us,
            entry.to_wall_us,
            entry.count,
            entry.reason,
            run_id,
            "schedule",
            status=Status.LOST if entry.lost else Status.SKIPPED,
        )
        self._move(state, entry.to_wall_us, entry.next_wall_us)
        return None

    def queued(self, entry: entries.Queued) -> object:
        """A tick or a run that waits."""
        state = self._state.jobs.get(entry.uid)
        if state is None or state.revision != entry.revision or self._state.has_owed(entry.kind, entry.uid):
            raise DecideAgain("the job changed meanwhile")
        scheduled = entry.next_wall_us != UNCHANGED
        if scheduled and not self._tick_holds(state, entry.revision, entry.epoch, entry.tick_wall_us):
            raise DecideAgain("the tick is decided")
        if entry.owed_key and entry.owed_key not in self._state.owed:
            raise DecideAgain("what was owed is decided")
        if entry.owed_key:
            self._fold.drop_owed(entry.owed_key)
        run_id = entry.run_id or (
            f"{entry.uid}-{entry.epoch}-{entry.tick_wall_us // SECOND_US}"
            if scheduled
            else f"{entry.uid}-m{self._fold.index}"
        )
        self._fold.owe(
            OwedRow(
                f"{entry.kind}|{entry.uid}",
                entry.uid,
                entry.kind,
                run_id,
                1,
                entry.trigger,
                entry.tick_wall_us,
                0,
                entry.node_id,
                json.dumps(entry.env) if entry.env else "",
            )
        )
        self._move(state, entry.tick_wall_us, entry.next_wall_us)
        return JobAnswer(self._state.view(state), run_id=run_id)

    def reseat(self, entry: entries.Reseat) -> object:
        """New cursors in a new clock epoch."""
        for uid, revision, epoch, cursor_wall_us, next_wall_us in entry.items:
            state = self._state.jobs.get(uid)
            if state is None or state.revision != revision or epoch != self._state.epoch or state.epoch >= epoch:
                continue
            state.epoch = epoch
            self._move(state, cursor_wall_us, next_wall_us)
        return None
