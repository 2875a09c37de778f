"""JobPut and JobDelete: what they assume is checked again, and open executions keep their definition."""

from __future__ import annotations

import pytest

from meshcron import entries
from meshcron.commands import JobAnswer
from meshcron.core import catalog_jobs
from meshcron.core.fold import Applied, DecideAgain
from meshcron.errors import Conflict
from meshcron.messages import StartedItem
from meshcron.model import Job
from tests.unit.core.book import Book
from tests.unit.core.disk import contents, second


@pytest.fixture
def book() -> Book:
    """A formed cluster of one, without jobs."""
    return Book()


def answer(applied: Applied) -> JobAnswer:
    assert isinstance(applied.outcome, JobAnswer)
    return applied.outcome


# ---- creating and replacing


def test_a_job_is_created(book: Book) -> None:
    """Its uid is the index of its first entry; the answer is the job as it stands."""
    created = answer(book.put(cursor=5))
    assert created.created
    assert (created.view.uid, created.view.revision) == (2, 2)
    assert (created.view.created_wall_us, created.view.next_wall_us) == (second(5), second(6))
    assert (created.view.last_status, created.view.open_runs) == ("", 0)
    assert book.state.job_view("job") == created.view


def test_an_edit_keeps_uid_creation_and_counters(book: Book) -> None:
    """The revision is the index of the edit; it holds from the tick the entry names."""
    book.put()
    book.end(book.launch(1).opened[0])
    edited = answer(book.put(command="false", cursor=9))
    assert not edited.created
    assert (edited.view.uid, edited.view.revision) == (2, 5)
    assert edited.view.job.command == "false"
    assert (edited.view.created_wall_us, edited.view.success_count) == (second(0), 1)
    assert edited.holds_from_wall_us == second(10)


@pytest.mark.parametrize(("seen_revision", "seen_cursor"), [(1, 0), (0, 0), (2, 3)])
def test_an_edit_that_saw_another_job_is_nothing(book: Book, seen_revision: int, seen_cursor: int) -> None:
    """Another revision, no job at all, or a tick decided meanwhile: the leader decides again."""
    book.put()
    before = contents(book.state)
    put = entries.JobPut(
        job=Job(name="job", schedule="@daily"),
        seen_revision=seen_revision,
        seen_cursor_wall_us=second(seen_cursor),
        wall_us=second(4),
        cursor_wall_us=second(4),
        next_wall_us=0,
    )
    assert isinstance(book.apply(put).outcome, DecideAgain)
    assert contents(book.state) == {**before, "applied": (3, 1, 3)}


def test_of_two_edits_of_one_revision_the_second_is_nothing(book: Book) -> None:
    """Both leaders' writers saw revision 2."""
    book.put()
    put = entries.JobPut(
        job=Job(name="job", schedule="@daily"),
        seen_revision=2,
        seen_cursor_wall_us=second(0),
        wall_us=second(1),
        cursor_wall_us=second(1),
        next_wall_us=0,
    )
    answer(book.apply(put))
    assert isinstance(book.apply(put).outcome, DecideAgain)
    assert book.state.jobs[2].revision == 3


def test_an_edit_of_a_job_that_is_gone_is_nothing(book: Book) -> None:
    """It was deleted meanwhile: not created again under its old revision."""
    book.put()
    book.apply(entries.JobDelete(2, 2))
    put = entries.JobPut(
        job=Job(name="job", schedule="@daily"),
        seen_revision=2,
        seen_cursor_wall_us=second(0),
        wall_us=second(1),
        cursor_wall_us=second(1),
        next_wall_us=0,
    )
    assert isinstance(book.apply(put).outcome, DecideAgain)
    assert book.state.job_views() == []


def test_an_edit_moves_the_job_into_the_present_epoch(book: Book) -> None:
    """Its cursor is one of the new time."""
    book.put()
    book.apply(entries.ClockStep(second(5), second(5), 0, -60_000_000))
    book.put(cursor=-50)
    assert book.state.jobs[2].epoch == 1


# ---- revisions that open executions name


def test_an_open_execution_keeps_its_definition(book: Book) -> None:
    """An armed tick runs as committed; the definition goes with the last execution that names it."""
    book.put(command="old")
    first, other = book.launch(1).opened[0], book.launch(2).opened[0]
    book.put(command="new")
    old = book.state.definition(2, first.revision)
    assert old is not None
    assert old.command == "old"
    book.end(first)
    assert book.state.definition(2, first.revision) == old
    book.end(other)
    assert book.state.definition(2, first.revision) is None
    assert len(book.disk.load().jobs) == 1


def test_every_revision_that_is_named_is_kept(book: Book) -> None:
    """Three revisions, each with an armed tick."""
    for tick in (1, 2, 3):
        book.put(command=f"revision of {tick}", cursor=tick - 1)
        book.launch(tick)
    named = [book.state.definition(2, one.revision) for one in book.state.open.values()]
    assert [job.command for job in named if job] == [f"revision of {tick}" for tick in (1, 2, 3)]


def test_an_edit_with_nothing_open_leaves_one_definition(book: Book) -> None:
    """Nobody can ask for the old one."""
    book.put()
    book.put(command="new")
    assert [row.definition.count('"new"') for row in book.disk.load().jobs] == [1]


# ---- disabling


def test_disabling_stops_what_is_armed_and_leaves_what_runs(book: Book) -> None:
    """The agent is asked; only its answer makes it skipped."""
    book.put()
    running = book.launch(1).opened[0]
    book.apply(entries.Started((StartedItem(running.id, second(1)),)))
    armed = book.launch(2).opened[0]
    applied = book.put(disabled=True)
    assert [(one.id, one.stop) for one in applied.stopping] == [(armed.id, "leave")]
    assert book.records == [(1, "running", ""), (2, "armed", "")]
    book.end(armed, "skipped")
    book.end(running)
    assert book.records == [(1, "success", ""), (2, "skipped", "")]


def test_disabling_turns_owed_runs_into_records(book: Book) -> None:
    """A retry and a queued run: each ends as skipped, with the reason (P2)."""
    book.put(retries=3, concurrency="queue")
    book.end(book.launch(1).opened[0], success=False)
    book.queue(2)
    book.put(disabled=True, retries=3, concurrency="queue", cursor=2)
    assert sorted(book.records) == [(1, "failed", ""), (1, "skipped", "stopped"), (2, "skipped", "stopped")]
    assert book.state.owed == {}


# ---- deleting


def test_a_job_with_nothing_open_is_gone_at_once(book: Book) -> None:
    """Its history too; the answer is the job as it was."""
    book.put()
    book.end(book.launch(1).opened[0])
    deleted = answer(book.apply(entries.JobDelete(2, 2)))
    assert (deleted.view.job.name, deleted.view.success_count) == ("job", 1)
    assert deleted.open_executions == ()
    assert book.state.job_views() == []
    loaded = book.disk.load()
    assert (loaded.jobs, loaded.job_states, book.records) == ([], [], [])


def test_a_deleted_job_is_hidden_until_its_last_execution_ends(book: Book) -> None:
    """What is armed is stopped, what runs is left alone; records go with their end."""
    book.put()
    running = book.launch(1).opened[0]
    book.apply(entries.Started((StartedItem(running.id, second(1)),)))
    armed = book.launch(2).opened[0]
    applied = book.apply(entries.JobDelete(2, 2))
    assert [one.id for one in applied.stopping] == [armed.id]
    assert answer(applied).open_executions == tuple(sorted((running.public_id, armed.public_id)))
    assert book.state.named("job") is None
    assert book.state.job_name(2) == "job"
    assert book.state.definition(2, 2) is not None
    book.end(armed, "skipped")
    assert book.records == [(1, "running", "")]
    book.end(running)
    assert book.records == []
    assert book.state.job_name(2) is None
    assert book.disk.load().jobs == []


def test_of_very_many_open_executions_an_answer_names_the_first(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept as a row, which has to fit into a message (PROTOCOL 5, Sizes); all are stopped all the same."""
    monkeypatch.setattr(catalog_jobs, "OPEN_NAMED_MAX", 2)
    book.put()
    first, second_, third = (book.launch(tick).opened[0] for tick in (1, 2, 3))
    applied = book.apply(entries.JobDelete(2, 2))
    assert answer(applied).open_executions == (first.public_id, second_.public_id)
    assert {one.id for one in applied.stopping} == {first.id, second_.id, third.id}


def test_a_deleted_job_takes_all_its_revisions_along(book: Book) -> None:
    """Also those that only its open executions named."""
    book.put()
    first = book.launch(1).opened[0]
    book.put(command="new", cursor=1)
    second_one = book.launch(2).opened[0]
    book.apply(entries.JobDelete(2, book.state.jobs[2].revision))
    book.end(second_one)
    assert book.state.definition(2, first.revision) is not None
    book.end(first)
    assert book.disk.load().jobs == []
    assert book.disk.load().job_states == []


def test_a_failed_run_of_a_deleted_job_is_not_tried_again(book: Book) -> None:
    """Nor has it children."""
    book.put(retries=5)
    execution = book.launch(1).opened[0]
    book.apply(entries.JobDelete(2, 2))
    assert book.end(execution, success=False).closed[0].status == "failed"
    assert book.state.owed == {}


def test_a_name_is_free_again_at_once(book: Book) -> None:
    """The new job has its own uid; the old one's end does not count for it."""
    book.put()
    old = book.launch(1).opened[0]
    book.apply(entries.JobDelete(2, 2))
    book.put()
    book.end(old)
    view = book.state.job_view("job")
    assert view is not None
    assert (view.uid, view.success_count) == (5, 0)


@pytest.mark.parametrize(("uid", "revision"), [(2, 1), (77, 77)])
def test_a_delete_that_saw_another_job_is_nothing(book: Book, uid: int, revision: int) -> None:
    """It was edited or deleted meanwhile."""
    book.put()
    assert isinstance(book.apply(entries.JobDelete(uid, revision)).outcome, DecideAgain)
    assert book.state.job_view("job") is not None


def test_a_job_with_children_cannot_be_deleted(book: Book) -> None:
    """The children first; then it can."""
    book.put("parent")
    book.put("child", parent_jobs=("parent",))
    refused = book.apply(entries.JobDelete(2, 2))
    assert isinstance(refused.outcome, Conflict)
    assert "child" in str(refused.outcome)
    book.apply(entries.JobDelete(3, 3))
    answer(book.apply(entries.JobDelete(2, 2)))


def test_deleting_drops_what_is_owed(book: Book) -> None:
    """Its history goes, so there is nothing to record."""
    book.put(retries=3)
    book.end(book.launch(1).opened[0], success=False)
    book.apply(entries.JobDelete(2, 2))
    assert book.state.owed == {}
    assert book.records == []


def test_an_ephemeral_job_goes_with_its_first_success() -> None:
    """A failure keeps it; so does a job that runs after it."""
    book = Book()
    book.put(ephemeral=True)
    book.end(book.launch(1).opened[0], success=False)
    assert book.state.named("job") is not None
    book.end(book.launch(2).opened[0], success=True)
    assert book.state.named("job") is None
    assert not book.state.open


def test_an_ephemeral_parent_stays_while_a_job_follows_it() -> None:
    """Its child would wait for nobody."""
    book = Book()
    book.put(ephemeral=True)
    book.put("after", schedule="@manually", parent_jobs=("job",))
    book.end(book.launch(1).opened[0], success=True)
    assert book.state.named("job") is not None
