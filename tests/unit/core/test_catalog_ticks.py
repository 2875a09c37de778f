"""Intents, Skip, Queued, Reseat: each decision about a tick is checked again when it is applied, and holds once."""

from __future__ import annotations

import pytest

from meshcron import entries
from meshcron.commands import JobAnswer
from meshcron.core.fold import DecideAgain
from meshcron.model import execution_id
from tests.unit.core.book import Book
from tests.unit.core.disk import CLUSTER, member, second


@pytest.fixture
def book() -> Book:
    """A formed cluster of one with one job, its cursor at second 0."""
    book = Book()
    book.put()
    return book


def cursor(book: Book) -> tuple[int, int]:
    job = book.state.jobs[book.uid()]
    return job.cursor_wall_us - second(0), job.next_wall_us - second(0)


# ---- intents


def test_an_intent_opens_one_execution_a_target() -> None:
    """Under the id that run, agent and attempt give it; the cursor moves to the tick."""
    book = Book(members=3)
    book.put()
    applied = book.launch(7, targets=(1, 3))
    run_id = f"{book.uid()}-0-{second(7) // 10**6}"
    nodes = [member(1).node_id, member(3).node_id]
    assert [one.id for one in applied.opened] == [execution_id(CLUSTER, run_id, node, 1) for node in nodes]
    assert {one.run_id for one in applied.opened} == {run_id}
    assert book.records == [(7, "armed", ""), (7, "armed", "")]
    assert cursor(book) == (7_000_000, 8_000_000)
    assert isinstance(applied.outcome, JobAnswer)
    assert applied.outcome.run_id == run_id


def test_the_same_tick_is_launched_once(book: Book) -> None:
    """A second leader's intent for it finds the cursor there already (P1)."""
    book.launch(1)
    again = book.launch(1)
    assert again.opened == []
    assert isinstance(again.outcome, DecideAgain)
    assert book.records == [(1, "armed", "")]


def test_a_tick_before_the_cursor_is_nothing(book: Book) -> None:
    """Cursors never fall within an epoch."""
    book.launch(5)
    assert book.launch(4).opened == []
    assert cursor(book) == (5_000_000, 6_000_000)


def test_an_intent_for_an_edited_job_is_nothing(book: Book) -> None:
    """The edit holds; the leader decides the tick anew."""
    stale = book.intents(book.intent(1))
    book.put(command="new")
    assert book.apply(stale).opened == []
    assert book.records == []


def test_a_manual_run_of_an_edited_job_is_nothing(book: Book) -> None:
    """It names a definition that nobody keeps; so does a retry. The leader decides again."""
    book.put(retries=1)
    first = book.launch(1).opened[0]
    book.end(first, success=False)
    (key,) = book.state.owed
    revision = book.state.jobs[book.uid()].revision
    book.put(command="new", cursor=1)
    manual = book.launch(2, trigger="manual", moves=False, revision=revision)
    assert isinstance(manual.outcome, DecideAgain)
    assert book.launch_owed(key, revision=revision).opened == []
    assert list(book.state.owed) == [key]


def test_an_intent_for_a_deleted_job_is_nothing(book: Book) -> None:
    """Also when a job of that name exists again: it has another uid."""
    stale = book.intents(book.intent(1))
    book.apply(entries.JobDelete(book.uid(), book.uid()))
    assert book.apply(stale).opened == []
    book.put()
    assert book.apply(stale).opened == []


def test_an_intent_of_another_epoch_is_nothing(book: Book) -> None:
    """Its tick is one of the other time."""
    assert book.launch(1, epoch=1).opened == []


def test_while_paused_only_a_person_launches(book: Book) -> None:
    """The tick stays undecided until the pause ends."""
    book.apply(entries.Pause(True, second(0)))
    assert book.launch(1).opened == []
    assert len(book.launch(1, trigger="manual", moves=False).opened) == 1
    assert cursor(book) == (0, 1_000_000)


def test_one_entry_may_hold_for_one_job_and_not_for_another(book: Book) -> None:
    """Each item is checked by itself."""
    book.put("other")
    stale = book.intent(1, "other")
    book.put("other", command="new")
    applied = book.apply(book.intents(stale, book.intent(1)))
    assert [one.uid for one in applied.opened] == [book.uid()]


def test_two_ticks_of_one_job_in_one_entry(book: Book) -> None:
    """Each moves the cursor to itself, so the order of the entry counts."""
    assert len(book.apply(book.intents(book.intent(1), book.intent(2))).opened) == 2
    assert len(book.apply(book.intents(book.intent(4), book.intent(3))).opened) == 1


def test_without_targets_one_record_says_why(book: Book) -> None:
    """No matching agent: the tick is skipped, not forgotten (P2)."""
    applied = book.launch(1, targets=(), reason="no agent matches its tags")
    assert applied.opened == []
    assert book.records == [(1, "skipped", "no agent matches its tags")]
    assert cursor(book) == (1_000_000, 2_000_000)


def test_manual_runs_of_one_instant_are_two_runs(book: Book) -> None:
    """The index of its entry names a manual run; the cursor stays."""
    one = book.launch(1, trigger="manual", moves=False, env={"A": "1"}).opened[0]
    two = book.launch(1, trigger="manual", moves=False).opened[0]
    assert one.run_id == f"{book.uid()}-m{one.index}"
    assert one.run_id != two.run_id
    assert (one.env, two.env) == ({"A": "1"}, None)
    assert cursor(book) == (0, 1_000_000)


@pytest.mark.parametrize("policy", ["forbid", "queue", "replace"])
def test_what_does_not_allow_overlap_has_one_run_open(policy: str) -> None:
    """Whatever the leader saw: at most one (PROTOCOL 10, 16)."""
    book = Book()
    book.put(concurrency=policy)
    first = book.launch(1).opened[0]
    assert book.launch(2).opened == []
    assert book.launch(2, trigger="manual", moves=False).opened == []
    book.end(first)
    assert len(book.launch(2).opened) == 1


def test_what_allows_overlap_opens_as_many_as_there_are(book: Book) -> None:
    """`allow` is the default."""
    for tick in range(1, 5):
        book.launch(tick)
    assert len(book.state.open) == 4


def test_a_run_that_waits_for_its_retry_is_not_over() -> None:
    """Under forbid the next tick cannot come between two attempts; the retry itself can."""
    book = Book()
    book.put(concurrency="forbid", retries=1)
    book.end(book.launch(1).opened[0], success=False)
    (key,) = book.state.owed
    assert book.launch(2).opened == []
    assert [one.attempt for one in book.launch_owed(key).opened] == [2]


def test_what_is_owed_is_launched_once(book: Book) -> None:
    """The intent consumes the row; a copy of it finds none."""
    book.put(retries=1)
    first = book.launch(1).opened[0]
    book.end(first, success=False)
    (key,) = book.state.owed
    retry = book.intents(
        book.intent(1, trigger="retry", attempt=2, moves=False, run_id=first.run_id, owed_key=key),
    )
    assert [(one.run_id, one.attempt) for one in book.apply(retry).opened] == [(first.run_id, 2)]
    assert book.state.owed == {}
    assert book.apply(retry).opened == []


# ---- skips


def test_a_skip_is_one_record_for_a_whole_range(book: Book) -> None:
    """From first to last with the count; the cursor moves to the last."""
    skip = entries.Skip(
        uid=book.uid(),
        revision=book.uid(),
        epoch=0,
        from_wall_us=second(1),
        to_wall_us=second(30),
        count=30,
        reason="missed",
        next_wall_us=second(31),
    )
    assert book.apply(skip).outcome is None
    (one,) = book.disk.executions()
    assert (one.scheduled_wall_us, one.until_wall_us, one.count) == (second(1), second(30), 30)
    assert (one.status, one.reason, one.agent) == ("skipped", "missed", "")
    assert cursor(book) == (30_000_000, 31_000_000)
    assert isinstance(book.apply(skip).outcome, DecideAgain)
    assert len(book.disk.executions()) == 1


def test_a_range_that_may_have_run_is_lost(book: Book) -> None:
    """After a recovery nobody knows (P2)."""
    book.apply(
        entries.Skip(
            uid=book.uid(),
            revision=book.uid(),
            epoch=0,
            from_wall_us=second(1),
            to_wall_us=second(2),
            count=2,
            reason="recovered",
            next_wall_us=second(3),
            lost=True,
        )
    )
    assert book.records == [(1, "lost", "recovered")]


@pytest.mark.parametrize(("uid", "revision", "epoch"), [(77, 2, 0), (2, 1, 0), (2, 2, 1)])
def test_a_skip_that_saw_another_job_is_nothing(book: Book, uid: int, revision: int, epoch: int) -> None:
    """Gone, edited, or of another epoch."""
    skip = entries.Skip(
        uid=uid,
        revision=revision,
        epoch=epoch,
        from_wall_us=second(1),
        to_wall_us=second(1),
        count=1,
        reason="overlap",
        next_wall_us=second(2),
    )
    assert isinstance(book.apply(skip).outcome, DecideAgain)
    assert book.records == []
    assert cursor(book) == (0, 1_000_000)


# ---- queued and replacing runs


def test_a_queued_tick_is_owed(book: Book) -> None:
    """It has its run id already, and the cursor is past it."""
    applied = book.queue(1)
    (row,) = book.state.owed.values()
    assert (row.kind, row.attempt, row.scheduled_wall_us) == ("queued", 1, second(1))
    assert cursor(book) == (1_000_000, 2_000_000)
    assert isinstance(applied.outcome, JobAnswer)
    assert applied.outcome.run_id == row.run_id == f"{book.uid()}-0-{second(1) // 10**6}"
    opened = book.launch_owed(row.key).opened
    assert [one.run_id for one in opened] == [row.run_id]


def test_a_queue_is_one_deep(book: Book) -> None:
    """The second is for the leader to decide again; a replacing run has a place of its own."""
    book.queue(1)
    assert isinstance(book.queue(2).outcome, DecideAgain)
    assert cursor(book) == (1_000_000, 2_000_000)
    assert isinstance(book.queue(2, "replace").outcome, JobAnswer)


def test_a_tick_that_is_decided_is_not_queued(book: Book) -> None:
    """Its intent came first."""
    book.launch(1)
    assert isinstance(book.queue(1).outcome, DecideAgain)
    assert book.state.owed == {}


def test_a_manual_run_is_queued_without_touching_the_cursor(book: Book) -> None:
    """Its run is named by the entry."""
    applied = book.queue(1, moves=False)
    assert isinstance(applied.outcome, JobAnswer)
    assert applied.outcome.run_id == f"{book.uid()}-m{book.index}"
    assert cursor(book) == (0, 1_000_000)


def test_what_waits_survives_an_edit(book: Book) -> None:
    """A queued run decided later uses the definition of then (PROTOCOL 6, Edits)."""
    book.queue(1)
    book.put(command="new", cursor=1)
    (key,) = book.state.owed
    (opened,) = book.launch_owed(key).opened
    assert opened.revision == book.state.jobs[book.uid()].revision


# ---- reseating


def test_a_new_epoch_seats_a_job_once(book: Book) -> None:
    """Its cursor may fall here, and here only."""
    book.launch(9)
    book.apply(entries.ClockStep(second(9), second(9), 0, -60_000_000))
    seat = entries.Reseat(((book.uid(), book.uid(), 1, second(-51), second(-50)),))
    book.apply(seat)
    assert cursor(book) == (-51_000_000, -50_000_000)
    assert book.state.jobs[book.uid()].epoch == 1
    assert len(book.launch(-50, epoch=1).opened) == 1
    book.apply(seat)
    assert cursor(book) == (-50_000_000, -49_000_000)


@pytest.mark.parametrize(("uid", "revision", "epoch"), [(77, 2, 1), (2, 1, 1), (2, 2, 0), (2, 2, 2)])
def test_a_seat_for_another_job_or_epoch_is_nothing(book: Book, uid: int, revision: int, epoch: int) -> None:
    """Gone, edited, an epoch that is over or not yet."""
    book.apply(entries.ClockStep(second(9), second(9), 0, -60_000_000))
    book.apply(entries.Reseat(((uid, revision, epoch, second(-51), second(-50)),)))
    assert cursor(book) == (0, 1_000_000)


def test_ids_of_two_epochs_do_not_meet(book: Book) -> None:
    """The second 08:00:01 of a day whose clock was put back is another run."""
    first = book.launch(1).opened[0]
    book.apply(entries.ClockStep(second(9), second(9), 0, -60_000_000))
    book.apply(entries.Reseat(((book.uid(), book.uid(), 1, second(0), second(1)),)))
    again = book.launch(1, epoch=1).opened[0]
    assert again.id != first.id
    assert again.run_id != first.run_id
