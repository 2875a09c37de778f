"""What entries about the cluster itself make of the state: clock, members, tokens, pause, history.

Book checks after every entry of every story that the rows on the disk come to the state in memory.
"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from meshcron import entries
from meshcron.errors import Conflict, NotFound, UnknownJob
from meshcron.messages import StartedItem
from meshcron.model import SECOND_US, Status, Token
from tests.unit.core.book import Book
from tests.unit.core.disk import TOKEN, second
from tests.unit.core.random_log import RandomLog


@pytest.fixture
def book() -> Book:
    """A formed cluster of one, without jobs."""
    return Book()


# ---- clock


def test_noop_and_intents_carry_the_clocks(book: Book) -> None:
    """Cluster time, the wall clock beside it and the offset, as last committed."""
    book.apply(entries.Noop(second(10), second(11), 7))
    assert book.state.clock == (second(10), second(11), 7, 0)
    book.apply(entries.Intents(second(20), second(21), 8, ()))
    assert book.state.clock == (second(20), second(21), 8, 0)


def test_committed_cluster_time_never_falls(book: Book) -> None:
    """A new leader's first entry may carry an earlier one than the last of the old."""
    book.apply(entries.Noop(second(10), second(11), 7))
    book.apply(entries.Noop(second(9), second(9), 6))
    assert book.state.clock == (second(10), second(9), 6, 0)


@pytest.mark.parametrize(("to_offset_us", "epoch"), [(60_000_000, 0), (-60_000_000, 1)])
def test_only_a_step_back_opens_an_epoch(book: Book, to_offset_us: int, epoch: int) -> None:
    """Forward there is a gap, and the same epoch (PROTOCOL 7)."""
    book.apply(entries.ClockStep(second(5), second(5), 0, to_offset_us))
    assert book.state.clock == (second(5), second(5), to_offset_us, epoch)


def test_every_step_back_opens_another_epoch(book: Book) -> None:
    """Run ids of the epochs must not meet."""
    book.apply(entries.ClockStep(second(5), second(5), 0, -1))
    book.apply(entries.ClockStep(second(6), second(6), -1, -2))
    assert book.state.epoch == 2


# ---- tokens


def test_a_token_is_put_and_revoked(book: Book) -> None:
    """Both answer with the token itself."""
    token = Token(id="t2", name="ci", role="viewer", sha256="11", created_wall_us=second(1))
    assert book.apply(entries.TokenPut(token)).outcome == token
    assert book.state.tokens() == [TOKEN, token]
    assert book.apply(entries.TokenRevoke("t2")).outcome == token
    assert book.state.tokens() == [TOKEN]


def test_two_tokens_cannot_share_a_name(book: Book) -> None:
    """The same id may be put again under its own name."""
    clash = book.apply(entries.TokenPut(replace(TOKEN, id="t2")))
    assert isinstance(clash.outcome, Conflict)
    assert book.state.tokens() == [TOKEN]
    assert book.apply(entries.TokenPut(replace(TOKEN, sha256="22"))).outcome == replace(TOKEN, sha256="22")
    assert len(book.state.tokens()) == 1


def test_a_token_nobody_has_cannot_be_revoked(book: Book) -> None:
    """A second revocation finds nothing."""
    book.apply(entries.TokenRevoke("t1"))
    assert isinstance(book.apply(entries.TokenRevoke("t1")).outcome, NotFound)


# ---- pause


def test_a_pause_stops_what_is_armed_and_leaves_the_rest(book: Book) -> None:
    """What runs runs on; what a person asked for is not scheduling."""
    book.put()
    running = book.launch(1).opened[0]
    book.apply(entries.Started((StartedItem(running.id, second(1)),)))
    armed = book.launch(2).opened[0]
    book.launch(3, trigger="manual", moves=False)
    applied = book.apply(entries.Pause(True, second(3)))
    assert applied.outcome is True
    assert [(one.id, one.stop) for one in applied.stopping] == [(armed.id, "leave")]
    assert book.state.paused


def test_a_pause_remembers_from_when_and_until_when(book: Book) -> None:
    """A second pause does not move its beginning, a second end not its end."""
    book.apply(entries.Pause(True, second(1)))
    book.apply(entries.Pause(True, second(2)))
    assert book.state.pauses == ((second(1), 0),)
    assert book.apply(entries.Pause(False, second(3))).outcome is False
    book.apply(entries.Pause(False, second(4)))
    assert book.state.pauses == ((second(1), second(3)),)


def test_a_pause_is_remembered_until_its_ticks_are_decided(book: Book) -> None:
    """Here a second one begins before that; the third finds them decided."""
    book.put(cursor=1)
    for paused, at in ((True, 1), (False, 3), (True, 5), (False, 8)):
        book.apply(entries.Pause(paused, second(at)))
    assert book.state.pauses == ((second(1), second(3)), (second(5), second(8)))
    book.launch(4)
    book.apply(entries.Pause(True, second(9)))
    assert book.state.pauses == ((second(5), second(8)), (second(9), 0))


def test_a_step_back_forgets_pauses_that_are_over(book: Book) -> None:
    """Their wall time comes again, and is not paused then; one that goes on does so from the new time."""
    book.put(cursor=1)
    book.apply(entries.Pause(True, second(100)))
    book.apply(entries.ClockStep(second(110), second(50), 0, -60 * SECOND_US))
    assert book.state.pauses == ((second(50), 0),)
    book.apply(entries.Pause(False, second(60)))
    assert book.state.pauses == ((second(50), second(60)),)
    book.apply(entries.ClockStep(second(120), second(20), -60 * SECOND_US, -100 * SECOND_US))
    assert not book.state.pauses


def test_the_end_of_a_pause_touches_every_job(book: Book) -> None:
    """Ticks and owed runs that waited are looked at again."""
    book.put("one")
    book.put("two")
    book.apply(entries.Pause(True, second(1)))
    assert book.apply(entries.Pause(False, second(2))).touched == {book.uid("one"), book.uid("two")}


# ---- history


def test_pruning_keeps_the_newest(book: Book) -> None:
    """Final records only: what is open stays whatever its age."""
    book.put()
    for tick in range(1, 6):
        book.end(book.launch(tick).opened[0], at=tick)
    book.launch(6)
    book.apply(entries.Prune(book.uid(), 2))
    assert [tick for tick, _, _ in book.records] == [4, 5, 6]
    assert book.state.jobs[book.uid()].recorded == 2
    assert book.state.jobs[book.uid()].success_count == 5


def test_pruning_drops_what_is_older_than_an_instant(book: Book) -> None:
    """By when it ended."""
    book.put()
    for tick in range(1, 6):
        book.end(book.launch(tick).opened[0], at=tick + 10)
    book.apply(entries.Prune(book.uid(), 100, before_wall_us=second(13)))
    assert [tick for tick, _, _ in book.records] == [3, 4, 5]


def test_clearing_zeroes_the_counters_too(book: Book) -> None:
    """The job is as good as new; its cursor stays."""
    book.put()
    book.end(book.launch(1).opened[0])
    book.end(book.launch(2).opened[0], success=False)
    answer = book.apply(entries.Prune(book.uid(), 0, clear=True)).outcome
    view = book.state.job_view("job")
    assert view is not None
    assert book.records == []
    assert (view.success_count, view.error_count, view.last_status) == (0, 0, "")
    assert (view.last_success_wall_us, view.last_error_wall_us) == (0, 0)
    assert view.next_wall_us == second(3)
    assert getattr(answer, "view", None) == view


def test_the_history_of_a_job_that_is_gone(book: Book) -> None:
    """Nothing to prune: the caller is told."""
    assert isinstance(book.apply(entries.Prune(77, 0)).outcome, UnknownJob)


# ---- entries as such


def test_an_entry_of_a_kind_nobody_knows_is_refused() -> None:
    """A newer version's entry must never be skipped over silently (PROTOCOL 5)."""
    with pytest.raises(msgspec.ValidationError):
        entries.decode(b'{"type":"from_the_future"}')


def test_every_entry_moves_the_applied_index(book: Book) -> None:
    """Also one that applies as nothing: it is behind us for good."""
    book.apply(entries.TokenRevoke("nobody's"))
    assert book.state.applied == (2, 1, 2)
    assert book.disk.load().meta["applied"] == "2 1 2"


def test_started_in_an_empty_entry_changes_nothing(book: Book) -> None:
    """An armed execution stays armed."""
    book.put()
    book.launch(1)
    book.apply(entries.Started(()))
    assert [one.status for one in book.state.open.values()] == [Status.ARMED]


@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_every_voter_makes_the_same_rows_of_a_log(data: st.DataObject) -> None:
    """Also one that crashed somewhere on the way and folds the rest over what its disk holds (PROTOCOL 10, 5)."""
    random_log = RandomLog(data)
    random_log.write(30)
    said, first = random_log.book.said, random_log.book.disk
    other = Book(members=0)
    crash_at = data.draw(st.sets(st.integers(1, len(said)), min_size=1))
    for at, entry in enumerate(said, 1):
        if at > 1:  # the formation is the first entry of every book
            other.apply(entry)
        if at in crash_at:
            other.restart()
    assert other.disk.tables == first.tables
    assert other.wrote == random_log.book.wrote
