"""Lost executions by the thousand: so many are kept in mind, and each costs the same."""

from __future__ import annotations

import gc
import time

import pytest

from meshcron import entries
from meshcron.core.catalog_late import LATE_MAX
from meshcron.core.voter import Committed
from meshcron.messages import ResultItem
from meshcron.model import Execution
from tests.unit.core.book import Book
from tests.unit.core.disk import member, second


def opened(book: Book, count: int, *targets: int) -> list[Execution]:
    """So many open runs of one job."""
    book.put(concurrency="allow")
    return book.apply(book.intents(*(book.intent(tick, targets=targets) for tick in range(1, count + 1)))).opened


def test_the_oldest_loss_is_forgotten_when_there_are_too_many() -> None:
    """Its record stays lost, whatever comes; the next one's still becomes the truth."""
    book = Book()
    lost = opened(book, LATE_MAX + 1, 1)
    in_the_record = (lost[1], lost[0], *lost[2:])  # the oldest is not the first that was lost
    items = tuple(ResultItem(execution_id=one.id, kind="lost") for one in in_the_record)
    book.apply(entries.Results(second(9), items))
    assert len(book.state.owed) == LATE_MAX
    book.end(lost[0])
    book.end(lost[1])
    assert [status for _, status, _ in sorted(book.records)[:3]] == ["lost", "success", "lost"]


REMOVED = entries.MemberRemove(2, second(9))
RECOVERED = entries.Recovered(member(1), second(9), 1)
FEW, EIGHTFOLD = 200, 8


def seconds_to_lose(runs: int, entry: entries.Entry) -> float:
    """How long one entry takes that ends half or all of so many runs, each on two agents."""
    book = Book(members=2)
    opened(book, runs, 1, 2)
    committed = Committed(book.index + 1, 1, 0, entry)
    gc.collect()
    began = time.thread_time()  # what others do to the machine does not count
    applied, _ = book._catalog.apply(committed)
    took = time.thread_time() - began
    assert len(applied.closed) >= runs
    return took


@pytest.mark.parametrize("entry", [REMOVED, RECOVERED], ids=["removed", "recovered"])
def test_a_loss_costs_no_more_among_many(entry: entries.Entry) -> None:
    """One entry may end all that is open, and the loop stands still meanwhile: eight times as many runs take eight
    times as long, where each that looks at all the others would take 64 times."""
    few = min(seconds_to_lose(FEW, entry) for _ in range(3))
    many = min(seconds_to_lose(FEW * EIGHTFOLD, entry) for _ in range(2))
    assert many < few * EIGHTFOLD * 2.5
