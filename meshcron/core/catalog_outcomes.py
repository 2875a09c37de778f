"""Outcomes of executions: final words, the counters of their jobs, and what is owed after them."""

from __future__ import annotations

import json

from msgspec.structs import replace

from meshcron import entries
from meshcron.core.catalog_children import Children
from meshcron.core.catalog_jobs import Jobs
from meshcron.core.catalog_late import Late
from meshcron.core.ending import finished
from meshcron.core.fold import Fold
from meshcron.core.state import JobState
from meshcron.model import SECOND_US, STATUS_CHANGES, Execution, Job, Status
from meshcron.rows import Drop, ExecutionRow, OwedRow

RERUNS_MAX = 10
"""How often `on_lost: rerun` may run one tick again: a job that kills its agent must not do so for ever."""

RETRY_DELAY_MAX_US = 30 * 86_400 * SECOND_US
"""A retry that waits for longer than a month is one that nobody waits for."""


class Outcomes:
    """Started, ended, lost."""

    def __init__(self, fold: Fold, jobs: Jobs, late: Late, children: Children) -> None:
        self._fold = fold
        self._jobs = jobs
        self._late = late
        self._children = children
        self._state = fold.state

    def started(self, entry: entries.Started) -> object:
        """Processes run."""
        for item in entry.items:
            execution = self._state.open.get(item.execution_id)
            if execution is not None and (execution.status, Status.RUNNING) in STATUS_CHANGES:
                running = replace(execution, status=Status.RUNNING, started_wall_us=item.started_wall_us)
                self._state.add_open(running)
                self._fold.rows.append(ExecutionRow(running))
        return None

    def results(self, entry: entries.Results) -> object:
        """Final words: of what is open, of what was lost, or of nothing that is known."""
        states: dict[int, JobState] = {}
        for item in entry.items:
            execution = self._state.open.get(item.execution_id)
            final = finished(execution, item) if execution is not None else None
            if execution is None or final is None:
                self._late.came(item, states, entry.cluster_us)
                continue
            self._state.remove_open(execution)
            self._fold.applied.closed.append(final)
            self._fold.applied.touched.add(final.uid)
            if hidden := self._state.hidden.get(final.uid):
                self._fold.rows.append(Drop("executions", (final.id,)))
                if not hidden.open_ids:
                    self._jobs.forget(hidden)
                continue
            self._fold.rows.append(ExecutionRow(final))
            state = self._state.jobs[final.uid]
            states[state.uid] = state
            self._drop_unnamed_revision(state, final.revision)
            again = self._owe_again(state, final, entry.cluster_us)
            if final.status is Status.LOST:
                self._late.expect(final, counted=not again)
            if not again:
                self._fold.count(state, final)
                self._children.run_ended(state, final, entry.cluster_us)
            state.recorded += 1
        self._fold.rows += [state.state_row() for state in states.values()]
        for state in states.values():
            self._end_ephemeral(state)
        return None

    def _end_ephemeral(self, state: JobState) -> None:
        """A job that was made for one success goes with it, once nothing of it is open and no other job follows it."""
        job = state.job
        done = job.ephemeral and state.last_status == Status.SUCCESS.value and not self._state.is_busy(state)
        if done and not self._state.children.get(job.name):
            self._jobs.delete(entries.JobDelete(state.uid, state.revision))

    def _drop_unnamed_revision(self, state: JobState, revision: int) -> None:
        if revision == state.revision or (state.uid, revision) not in self._state.revisions:
            return
        if (state.uid, revision) not in self._state.open_of:
            del self._state.revisions[state.uid, revision]
            self._fold.rows.append(Drop("jobs", ((state.uid, revision),)))

    def _owe_again(self, state: JobState, final: Execution, cluster_us: int) -> bool:
        """Whether another attempt follows: after a failure within `retries`, after a loss with `on_lost: rerun`."""
        job = state.job
        failed = final.status in {Status.FAILED, Status.TIMEOUT} and final.attempt <= job.retries
        rerun = final.status is Status.LOST and job.on_lost == "rerun" and final.attempt <= RERUNS_MAX
        if job.disabled or final.stop == "kill" or not (failed or rerun):
            return False
        delay_us = _retry_delay_us(job, final.attempt) if failed else 0
        attempt = final.attempt + 1
        self._fold.owe(
            OwedRow(
                f"retry|{final.id}",
                final.uid,
                "retry",
                final.run_id,
                attempt,
                "retry",
                final.scheduled_wall_us,
                cluster_us + delay_us,
                final.node_id,
                json.dumps(final.env) if final.env else "",
            )
        )
        return True


def _retry_delay_us(job: Job, attempt: int) -> int:
    """How long the attempt after this one waits, never over RETRY_DELAY_MAX_US, whatever the backoff comes to."""
    try:
        return int(min(RETRY_DELAY_MAX_US, job.retry_delay_us * job.retry_backoff ** (attempt - 1)))
    except OverflowError:
        return RETRY_DELAY_MAX_US if job.retry_delay_us else 0
