"""How a run that waits is written down; which one waits is told in test_scheduler_overlap.py."""

from __future__ import annotations

from msgspec.structs import replace

from meshcron.core.overlap import STOPS_MAX, make_way
from meshcron.core.state import JobState, State
from meshcron.entries import ENTRY_BYTES_MAX, UNCHANGED, Queued, StopEntry, encode
from meshcron.model import Execution, Job
from meshcron.rows import OwedRow
from tests.unit.core.disk import NODE

UID = 10**12
"""As long as the index of an entry may become."""

WAITING = Queued(uid=UID, revision=UID, epoch=0, tick_wall_us=0, next_wall_us=UNCHANGED, kind="replace")


def busy(ids: list[str], run_ids: list[str]) -> tuple[State, JobState]:
    """A job of which these executions are open and these runs wait for their retry."""
    state, job = State(), JobState(Job(name="job", schedule="@manually"), UID, UID, 0, 0, 0, 0)
    state.add_job(job)
    for id_ in ids:
        state.add_open(
            Execution(
                id=id_,
                uid=UID,
                run_id=f"{UID}-m{id_}",
                index=UID,
                revision=UID,
                attempt=1,
                trigger="manual",
                scheduled_wall_us=0,
                due_cluster_us=0,
                start_by_cluster_us=0,
            )
        )
    for run_id in run_ids:
        state.add_owed(OwedRow(f"retry|{run_id}", UID, "retry", run_id, 2, "retry", 0, 0, NODE, ""))
    return state, job


def test_what_is_replaced_is_stopped_by_one_entry_before_the_one_that_waits() -> None:
    state, job = busy(["a", "b"], ["run"])
    assert list(make_way(state, job, WAITING)) == [StopEntry(("a", "b"), ("run",), kill=True), WAITING]


def test_what_is_too_much_for_one_entry_is_stopped_by_several() -> None:
    """In order, each once, and the one that waits comes last (PROTOCOL 5, Sizes)."""
    ids = [f"{n:032}" for n in range(2 * STOPS_MAX + 1)]
    run_ids = [f"{UID}-0-{UID + n}" for n in range(10 * STOPS_MAX)]
    state, job = busy(ids, run_ids)
    *stops, last = make_way(state, job, WAITING)
    assert last == WAITING
    assert [id_ for stop in stops if isinstance(stop, StopEntry) for id_ in stop.execution_ids] == ids
    assert [run_id for stop in stops if isinstance(stop, StopEntry) for run_id in stop.run_ids] == run_ids
    assert all(isinstance(stop, StopEntry) and stop.kill for stop in stops)
    assert max(len(encode(stop)) for stop in stops) < ENTRY_BYTES_MAX // 2


def test_nothing_is_stopped_for_one_that_only_waits() -> None:
    state, job = busy(["a", "b"], ["run"])
    queued = replace(WAITING, kind="queued")
    assert list(make_way(state, job, queued)) == [queued]
