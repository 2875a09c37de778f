"""Which agents a decision names: living ones that match, those that are down, and where a retry goes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from meshcron import entries
from meshcron.core.clocks import ClusterClock
from meshcron.core.intents import Intents
from meshcron.core.scheduler import Scheduler
from meshcron.core.selector import Candidate
from meshcron.entries import Intent
from meshcron.model import SECOND_US, Execution, Instant
from tests.unit.core.book import Book
from tests.unit.core.disk import BOOT_US, member, second

NOW = Instant(BOOT_US, second(100))


def candidates(count: int) -> list[Candidate]:
    """So many living members, all with the tag of the job."""
    return [Candidate(n, {"role": "web"}, {}, node_id=member(n).node_id) for n in range(1, count + 1)]


def leader(book: Book, *some: Candidate) -> tuple[Scheduler, Intents]:
    """One that takes over at second 100."""
    clock = ClusterClock()
    clock.lead(NOW, (second(100), second(100), 0), (), second(100))
    intents = Intents(book.state, clock)
    intents.candidates = list(some)
    scheduler = Scheduler(book.state, clock, intents, 3 * SECOND_US)
    scheduler.lead()
    return scheduler, intents


def decided(scheduler: Scheduler) -> list[entries.Intents]:
    """The launches that it decides at once."""
    return [entry for _, entry in scheduler.decide(NOW) if isinstance(entry, entries.Intents)]


def decide(book: Book, *some: Candidate) -> list[Intent]:
    """What a leader that takes over at second 100 decides at once."""
    scheduler, _ = leader(book, *some)
    return [item for entry in decided(scheduler) for item in entry.items]


def failed_run(**job: Any) -> tuple[Book, Execution]:
    """Of three agents the second failed, and a retry is owed to it; the job's next tick is far."""
    book = Book(members=3)
    book.put(cursor=1000, retries=1, tags={"role": "web"}, **job)
    one, two, three = book.launch(1, targets=(1, 2, 3), trigger="manual", moves=False).opened
    book.end(one)
    book.end(two, success=False)
    book.end(three)
    return book, two


def test_every_matching_agent_runs_a_tick() -> None:
    """And those that have failed get their own record."""
    book = Book(members=3)
    book.put(cursor=100, tags={"role": "web"})
    one, two, three = candidates(3)
    intents = decide(book, one, replace(two, failed=True), replace(three, tags={}))
    assert [(item.targets, item.down) for item in intents][:1] == [((1,), (2,))]


def test_with_all_of_them_down_the_run_is_not_empty() -> None:
    """It has a record for each; that nobody matches is another reason."""
    book = Book(members=2)
    book.put(cursor=100, tags={"role": "web"})
    (first, *_) = decide(book, *(replace(one, failed=True) for one in candidates(2)))
    assert (first.targets, first.down, first.reason) == ((), (1, 2), "")
    (nobody, *_) = decide(book, *(replace(one, tags={}) for one in candidates(2)))
    assert (nobody.targets, nobody.down, nobody.reason) == ((), (), "no agent matches its tags")


def burst(book: Book, count: int) -> None:
    """So many jobs of one agent each, all due at second 101."""
    for n in range(count):
        book.put(f"job{n}", cursor=100, schedule="@at 2027-01-15T08:01:41Z", tags={"role": "web:1"})


@pytest.mark.parametrize("applied_late", [False, True])
def test_ticks_that_are_due_together_are_spread_over_idle_agents(applied_late: bool) -> None:
    """Those decided in the same turn, those that are in the log only, and those that are open all count."""
    book = Book(members=3)
    burst(book, 300)
    scheduler, intents = leader(book, *candidates(3))
    chosen: Counter[int] = Counter()
    waiting: list[entries.Intents] = []
    for at in range(3):
        some = decided(scheduler)
        scheduler.proposed({item.uid for entry in some for item in entry.items}, at)
        chosen.update(item.targets[0] for entry in some for item in entry.items)
        waiting += some
        while waiting and not applied_late:
            book.apply(waiting[0])
            intents.applied(waiting.pop(0).items)
    assert chosen == {1: 100, 2: 100, 3: 100}


def test_what_is_open_counts_until_it_is_over() -> None:
    """Armed or running, of whatever job; what is decided and applied counts once."""
    book = Book(members=3)
    book.put("long", cursor=1000)
    one, _ = book.launch(1, "long", targets=(1, 3), trigger="manual", moves=False).opened
    burst(book, 2)
    scheduler, intents = leader(book, *candidates(3))
    (entry,) = decided(scheduler)
    assert [item.targets for item in entry.items] == [(2,), (1,)]
    book.apply(entry)
    intents.applied(entry.items)
    book.end(one)
    book.put("next", cursor=100, tags={"role": "web:2"})
    scheduler.touched({book.uid("next")})
    (entry,) = decided(scheduler)
    assert entry.items[0].targets == (1, 2)


def test_a_retry_elsewhere_goes_to_the_least_busy() -> None:
    """Not to the first of those that match."""
    book, _ = failed_run(retry_on="other")
    book.put("long", cursor=1000)
    book.launch(1, "long", targets=(1,), trigger="manual", moves=False)
    (item,) = decide(book, *candidates(3))
    assert item.targets == (3,)


def test_a_retry_is_for_the_agent_that_failed() -> None:
    """Not for those that have succeeded."""
    book, two = failed_run()
    (item,) = decide(book, *candidates(3))
    assert (item.attempt, item.run_id, item.targets) == (2, two.run_id, (2,))


def test_a_retry_may_be_for_another_agent() -> None:
    """`retry_on: other`: one of those that match, never the one that failed as long as there is another."""
    book, _ = failed_run(retry_on="other")
    (item,) = decide(book, *candidates(3))
    assert len(item.targets) == 1
    assert item.targets != (2,)
    (alone,) = decide(book, candidates(3)[1])
    assert alone.targets == (2,)


def test_a_retry_of_an_agent_that_has_left_goes_to_another() -> None:
    """Whatever retry_on says."""
    book, _ = failed_run()
    book.apply(entries.MemberRemove(2, second(60)))
    (item,) = decide(book, candidates(3)[0], candidates(3)[2])
    assert item.targets in ((1,), (3,))


@pytest.mark.parametrize("retry_on", ["same", "other"])
def test_a_retry_of_an_agent_that_matches_no_more_goes_to_one_that_does(retry_on: str) -> None:
    """Its tags or the job's were changed since; nobody left is a reason."""
    book, _ = failed_run(retry_on=retry_on)
    one, two, three = candidates(3)
    (item,) = decide(book, one, replace(two, tags={"role": "mail"}), replace(three, failed=True))
    assert (item.targets, item.down) == ((1,), ())
    (item,) = decide(book, replace(two, tags={}))
    assert (item.targets, item.down, item.reason) == ((), (), "no agent matches its tags")


def test_a_retry_of_an_agent_that_is_down_says_so() -> None:
    """It is not run elsewhere unless the job allows it."""
    book, _ = failed_run()
    one, two, three = candidates(3)
    (item,) = decide(book, one, replace(two, failed=True), three)
    assert (item.targets, item.down) == ((), (2,))
