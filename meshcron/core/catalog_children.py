"""What runs after a run: children, and joins of several parents."""

from __future__ import annotations

import hashlib
import json

from msgspec.structs import replace

from meshcron.core.fold import Fold
from meshcron.core.state import JobState
from meshcron.model import Execution, Job, Status
from meshcron.rows import ExecutionRow, OwedRow


class Children:
    """Owes the children of runs that are over."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._state = fold.state

    def run_ended(self, state: JobState, final: Execution, cluster_us: int) -> None:
        """Children start once no execution of the parent's run is open or owed."""
        failed = final.run_failed or final.status is not Status.SUCCESS
        if self._state.run_open.get(final.run_id):
            if failed:
                self._tell_siblings(final.run_id)
            return
        if final.status is Status.SKIPPED or self._state.retrying_runs.get(final.run_id):
            return
        for uid in sorted(self._state.children.get(state.job.name, ())):
            child = self._state.jobs[uid]
            if not child.job.disabled and child.job.when in ("always", "failure" if failed else "success"):
                self._owe_child(child, state.job, final, cluster_us)

    def _tell_siblings(self, run_id: str) -> None:
        """Once an entry: one that ends executions opens none."""
        if run_id in self._fold.told:
            return
        self._fold.told.add(run_id)
        for id_ in sorted(self._state.run_open[run_id]):
            execution = self._state.open[id_]
            if not execution.run_failed:
                told = replace(execution, run_failed=True)
                self._state.add_open(told)
                self._fold.rows.append(ExecutionRow(told))

    def _owe_child(self, child: JobState, parent: Job, final: Execution, cluster_us: int) -> None:
        """A child of several parents waits until each of them has ended a run since it last started."""
        join_key = f"join|{child.uid}"
        done = set(json.loads(self._state.owed[join_key].env)) if join_key in self._state.owed else set()
        done = {*done, parent.name} & set(child.job.parent_jobs)
        if len(done) < len(set(child.job.parent_jobs)):
            self._fold.owe(OwedRow(join_key, child.uid, "join", "", 0, "", 0, 0, "", json.dumps(sorted(done))))
            return
        if join_key in self._state.owed:
            self._fold.drop_owed(join_key)
        digest = hashlib.sha256(f"{final.run_id}|{self._fold.index}".encode()).hexdigest()[:16]
        run_id = f"{child.uid}-c{digest}"
        self._fold.owe(
            OwedRow(
                f"child|{run_id}", child.uid, "child", run_id, 1, "parent", final.finished_wall_us, cluster_us, "", ""
            )
        )
