"""What runs after what: children by how their parent ended, joins of several parents."""

from __future__ import annotations

import pytest

from tests.unit.core.book import Book
from tests.unit.core.disk import second


@pytest.fixture
def book() -> Book:
    """A formed cluster of one with one job, its cursor at second 0."""
    book = Book()
    book.put()
    return book


@pytest.mark.parametrize(
    ("when", "kind", "success", "runs"),
    [
        ("success", "ended", True, True),
        ("success", "ended", False, False),
        ("success", "lost", False, False),
        ("failure", "ended", True, False),
        ("failure", "ended", False, True),
        ("failure", "timeout", False, True),
        ("failure", "lost", False, True),
        ("always", "ended", True, True),
        ("always", "killed", False, True),
        ("always", "skipped", False, False),
    ],
)
def test_a_child_runs_when_its_parent_ended_so(book: Book, when: str, kind: str, success: bool, runs: bool) -> None:
    """A skipped run has no children: it never ran."""
    book.put("child", parent_jobs=("job",), when=when)
    book.end(book.launch(1).opened[0], kind, success=success, at=60)  # type: ignore[arg-type]
    owed = [(row.kind, row.uid, row.due_cluster_us) for row in book.owed]
    assert owed == ([("child", book.uid("child"), second(60))] if runs else [])


def test_a_child_is_launched_under_the_run_of_its_parent(book: Book) -> None:
    """Each run of the parent is another run of the child, by parent's trigger."""
    book.put("child", parent_jobs=("job",))
    runs = set()
    for tick in (1, 2):
        book.end(book.launch(tick).opened[0])
        (key,) = book.state.owed
        (opened,) = book.launch_owed(key).opened
        runs.add(opened.run_id)
        assert (opened.trigger, opened.attempt) == ("parent", 1)
    assert len(runs) == 2


def test_a_child_waits_for_the_last_attempt() -> None:
    """A failed attempt with a retry to come is not the end of the run."""
    book = Book()
    book.put(retries=1)
    book.put("child", parent_jobs=("job",), when="always")
    book.end(book.launch(1).opened[0], success=False)
    (row,) = book.owed
    assert row.kind == "retry"
    book.end(book.launch_owed(row.key).opened[0])
    assert [row.kind for row in book.state.owed.values()] == ["child"]


def test_a_child_waits_for_every_agent_of_its_parents_run() -> None:
    """One failure makes the run a failure, in whatever order they end."""
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        book = Book(members=3)
        book.put()
        book.put("good", parent_jobs=("job",), when="success")
        book.put("bad", parent_jobs=("job",), when="failure")
        opened = book.launch(1, targets=(1, 2, 3)).opened
        for at, which in enumerate(order, 1):
            assert book.state.owed == {}
            book.end(opened[which], success=which != 0, at=at)
        assert [row.uid for row in book.state.owed.values()] == [book.uid("bad")]


def test_a_child_waits_for_the_retry_of_another_agent() -> None:
    """One has failed and will try again, the other is done: the run is not over."""
    book = Book(members=2)
    book.put(retries=1)
    book.put("child", parent_jobs=("job",))
    one, other = book.launch(1, targets=(1, 2)).opened
    book.end(one, success=False)
    book.end(other)
    (row,) = book.owed
    assert (row.kind, row.node_id) == ("retry", one.node_id)
    book.end(book.launch_owed(row.key, targets=(1,)).opened[0])
    assert [row.kind for row in book.owed] == ["child"]


def test_a_disabled_child_does_not_run(book: Book) -> None:
    """Nor is it owed for later."""
    book.put("child", parent_jobs=("job",), disabled=True)
    book.end(book.launch(1).opened[0])
    assert book.state.owed == {}


def test_a_child_of_two_parents_waits_for_both() -> None:
    """Each has ended since it last started; then it begins anew."""
    book = Book()
    book.put("left")
    book.put("right")
    book.put("child", parent_jobs=("left", "right"))
    for tick in (1, 3):
        book.end(book.launch(tick, "left").opened[0])
        book.end(book.launch(tick + 1, "left").opened[0])
        assert [row.kind for row in book.state.owed.values()] == ["join"]
        book.end(book.launch(tick, "right").opened[0])
        (row,) = book.state.owed.values()
        assert (row.kind, row.uid) == ("child", book.uid("child"))
        book.end(book.launch_owed(row.key).opened[0])
        assert book.state.owed == {}


def test_children_of_children(book: Book) -> None:
    """A chain runs link by link."""
    book.put("second", parent_jobs=("job",))
    book.put("third", parent_jobs=("second",))
    book.end(book.launch(1).opened[0])
    for name in ("second", "third"):
        (row,) = book.state.owed.values()
        assert row.uid == book.uid(name)
        book.end(book.launch_owed(row.key).opened[0])
    assert book.state.owed == {}
