"""Definitions of jobs: put, deleted, forgotten, and the end of their history."""

from __future__ import annotations

from msgspec.structs import replace

from meshcron import entries
from meshcron.commands import JobAnswer
from meshcron.core.catalog_stops import Stops
from meshcron.core.fold import DecideAgain, Fold
from meshcron.core.state import JobState, job_row
from meshcron.errors import Conflict, UnknownJob
from meshcron.rows import Drop, DropHistory

OPEN_NAMED_MAX = 1000
"""Open executions that an answer names, 150 bytes each at most: it is kept for who asks again, as a row that has to fit
into a message (PROTOCOL 5, Sizes)."""


class Jobs:
    """Creates, replaces and deletes."""

    def __init__(self, fold: Fold, stops: Stops) -> None:
        self._fold = fold
        self._stops = stops
        self._state = fold.state

    def put(self, entry: entries.JobPut) -> JobAnswer:
        """Created or replaced. Raises DecideAgain."""
        old = self._state.named(entry.job.name)
        if (old.revision if old else 0) != entry.seen_revision:
            raise DecideAgain("the job changed meanwhile")
        if old and old.cursor_wall_us != entry.seen_cursor_wall_us:
            raise DecideAgain("a tick was decided meanwhile")
        self._fold.lived_in()
        state = self._replaced(old, entry) if old else self._created(entry)
        self._state.add_job(state)
        self._fold.rows += [job_row(state), state.state_row()]
        if state.job.disabled:
            self._stops.stop_armed(state)
            self._stops.drop_owed_of(state)
        self._fold.applied.touched.add(state.uid)
        return JobAnswer(
            self._state.view(state),
            created=old is None,
            holds_from_wall_us=entry.next_wall_us,
            open_executions=self._named_open(state) if state.job.disabled else (),
        )

    def _created(self, entry: entries.JobPut) -> JobState:
        return JobState(
            entry.job,
            self._fold.index,
            self._fold.index,
            entry.wall_us,
            self._state.epoch,
            entry.cursor_wall_us,
            entry.next_wall_us,
        )

    def _replaced(self, old: JobState, entry: entries.JobPut) -> JobState:
        if (old.uid, old.revision) in self._state.open_of:
            self._state.revisions[old.uid, old.revision] = old.job
            self._fold.rows.append(job_row(old, current=False))
        else:
            self._fold.rows.append(Drop("jobs", ((old.uid, old.revision),)))
        self._state.remove_job(old.uid)
        return replace(
            old,
            job=entry.job,
            revision=self._fold.index,
            epoch=self._state.epoch,
            cursor_wall_us=entry.cursor_wall_us,
            next_wall_us=entry.next_wall_us,
        )

    def delete(self, entry: entries.JobDelete) -> JobAnswer:
        """Hidden at once, forgotten with its last open execution. Raises Conflict where it has children."""
        state = self._state.jobs.get(entry.uid)
        if state is None or state.revision != entry.seen_revision:
            raise DecideAgain("the job changed meanwhile")
        view = self._state.view(state)
        if view.dependents:
            names = ", ".join(view.dependents)
            raise Conflict("name", f"other jobs run after {state.job.name!r}: {names}", "delete or change them first")
        still_open = self._named_open(state)
        self._state.remove_job(state.uid)
        self._fold.rows += [DropHistory(state.uid, 0)]
        self._stops.drop_owed_of(state, quietly=True)
        self._stops.stop_armed(state)
        if state.open_ids:
            self._state.hidden[state.uid] = state
            self._fold.rows.append(job_row(state, hidden=True))
        else:
            self.forget(state)
        self._fold.applied.touched.add(state.uid)
        return JobAnswer(view, open_executions=still_open)

    def _named_open(self, state: JobState) -> tuple[str, ...]:
        return tuple(sorted(self._state.open[id_].public_id for id_ in state.open_ids)[:OPEN_NAMED_MAX])

    def forget(self, state: JobState) -> None:
        """Nothing of a deleted job is open any more."""
        self._state.hidden.pop(state.uid, None)
        revisions = sorted(key for key in self._state.revisions if key[0] == state.uid)
        for key in revisions:
            del self._state.revisions[key]
        keys: tuple[tuple[int, int], ...] = (*revisions, (state.uid, state.revision))
        self._fold.rows += [Drop("jobs", keys), Drop("job_states", (state.uid,))]

    def prune(self, entry: entries.Prune) -> object:
        """Its old records go. Raises UnknownJob."""
        state = self._state.jobs.get(entry.uid)
        if state is None:
            raise UnknownJob(str(entry.uid))
        state.recorded = min(state.recorded, entry.keep_newest)
        if entry.clear:
            for row in [row for row in self._state.owed_to(entry.uid) if row.kind == "late"]:
                self._fold.drop_owed(row.key)
            state.success_count = state.error_count = 0
            state.last_success_wall_us = state.last_error_wall_us = 0
            state.last_status = ""
        self._fold.rows += [DropHistory(entry.uid, entry.keep_newest, entry.before_wall_us), state.state_row()]
        return JobAnswer(self._state.view(state))
