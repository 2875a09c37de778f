"""The committed state in memory: what it finds, and that the rows on the disk hold all of it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshcron import entries
from meshcron.core.state import State
from meshcron.messages import StartedItem
from meshcron.model import Token
from tests.unit.core.book import Book
from tests.unit.core.disk import contents, second
from tests.unit.core.random_log import RandomLog

STEPS = 40


@pytest.fixture
def book() -> Book:
    """A formed cluster of one, without jobs."""
    return Book()


def test_an_empty_disk_is_an_empty_state(book: Book) -> None:
    """Before the first entry there is nothing, not even a cluster."""
    empty = type(book.disk)()
    assert contents(State.load(empty.load())) == contents(State())
    assert State().cluster == ""


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_the_rows_hold_the_whole_state(data: st.DataObject) -> None:
    """Whatever the log: after each entry a restarted agent would find what it had (PROTOCOL 10, 5)."""
    RandomLog(data).write(STEPS)  # the book compares after every entry


# ---- jobs


def test_jobs_are_listed_by_name(book: Book) -> None:
    """In whatever order they came."""
    for name in ("zebra", "ant", "mouse"):
        book.put(name)
    assert [view.job.name for view in book.state.job_views()] == ["ant", "mouse", "zebra"]


def test_what_is_not_there_is_not_found(book: Book) -> None:
    """None, not an error: who asks decides."""
    assert book.state.named("job") is None
    assert book.state.job_view("job") is None
    assert book.state.job_name(5) is None
    assert book.state.definition(5, 5) is None
    assert book.state.token_by_hash("ff") is None


def test_a_job_is_running_while_a_process_is(book: Book) -> None:
    """Armed is not running; then the last end says how it went."""
    book.put()
    execution = book.launch(1).opened[0]
    assert status(book) == ""
    book.apply(entries.Started((StartedItem(execution.id, second(1)),)))
    assert status(book) == "running"
    book.end(execution, success=False)
    assert status(book) == "failed"


def status(book: Book) -> str:
    view = book.state.job_view("job")
    assert view is not None
    return view.last_status


def test_open_runs_are_counted_not_executions() -> None:
    """One run on three agents and one on one: two runs."""
    book = Book(members=3)
    book.put()
    book.launch(1, targets=(1, 2, 3))
    book.launch(2, targets=(2,))
    view = book.state.job_view("job")
    assert view is not None
    assert view.open_runs == 2


def test_a_job_without_a_next_tick_says_so(book: Book) -> None:
    """0 in the row, None in the view."""
    book.put()
    book.apply(
        entries.Skip(
            uid=2,
            revision=2,
            epoch=0,
            from_wall_us=second(1),
            to_wall_us=second(1),
            count=1,
            reason="the last one",
            next_wall_us=0,
        )
    )
    view = book.state.job_view("job")
    assert view is not None
    assert view.next_wall_us is None


def test_dependents_follow_the_definitions(book: Book) -> None:
    """A child that is edited away from its parent is no dependent of it any more."""
    book.put("parent")
    book.put("other")
    for child in ("b", "a"):
        book.put(child, parent_jobs=("parent", "other"))
    assert dependents(book, "parent") == ("a", "b")
    book.put("b", parent_jobs=("other",))
    assert dependents(book, "parent") == ("a",)
    book.apply(entries.JobDelete(book.uid("a"), book.uid("a")))
    assert dependents(book, "parent") == ()
    assert dependents(book, "other") == ("b",)


def dependents(book: Book, name: str) -> tuple[str, ...]:
    view = book.state.job_view(name)
    assert view is not None
    return view.dependents


@pytest.mark.parametrize("retries", [0, 1])
def test_a_job_is_busy_until_its_run_is_over(book: Book, retries: int) -> None:
    """Between two attempts too; a queued run keeps nobody busy."""
    book.put(retries=retries, concurrency="queue")
    job = book.state.jobs[2]
    assert not book.state.is_busy(job)
    execution = book.launch(1).opened[0]
    assert book.state.is_busy(job)
    book.end(execution, success=False)
    assert book.state.is_busy(job) == bool(retries)
    book.queue(2)
    assert book.state.is_busy(job) == bool(retries)


# ---- tokens


def test_tokens_are_listed_oldest_first_and_found_by_hash(book: Book) -> None:
    """The secret itself is never here."""
    for created, id_ in ((5, "late"), (3, "early")):
        token = Token(id=id_, name=id_, role="viewer", sha256=f"hash of {id_}", created_wall_us=created)
        book.apply(entries.TokenPut(token))
    assert [token.id for token in book.state.tokens()] == ["early", "late", "t1"]
    found = book.state.token_by_hash("hash of late")
    assert found is not None
    assert found.id == "late"
