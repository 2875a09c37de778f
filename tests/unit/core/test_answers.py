"""Repeated calls: the first answer comes again, and nothing is done again (PROTOCOL 6)."""

from __future__ import annotations

from msgspec.structs import replace

from meshcron import commands, entries
from meshcron.core import answers
from meshcron.core.answers import CALLS_BYTES_MAX, CALLS_MAX, REPEAT_US
from meshcron.entries import Once
from meshcron.errors import UnknownJob
from meshcron.model import Job, Token
from meshcron.rows import Drop
from tests.unit.core.book import Book
from tests.unit.core.disk import second
from tests.unit.core.lab import Lab

T0 = second(0)
"""Cluster time as Book's own entries have it."""


def manual(book: Book, tick: int, once: Once) -> entries.Intents:
    """Somebody runs the job, and may have to say so twice."""
    return replace(book.intents(book.intent(tick, trigger="manual", moves=False)), once=once)


def call(n: int, *, key: str = "", at_us: int = T0) -> entries.TokenPut:
    """One of many calls, each about another token."""
    token = Token(id=f"u{n}", name=f"u{n}", role="viewer", sha256="s", created_wall_us=1)
    return entries.TokenPut(token, "call", Once(key or f"key-{n}", at_us))


# ---- in the catalog


def test_a_repeated_entry_applies_as_nothing_and_has_the_first_answer() -> None:
    """Also after a restart, and whatever else it says."""
    book = Book()
    book.put()
    first = book.apply(manual(book, 5, Once("key", T0)))
    assert isinstance(first.outcome, commands.JobAnswer)
    book.restart()
    again = book.apply(manual(book, 6, Once("key", T0 + 100)))
    assert again.outcome == first.outcome
    assert not again.opened
    assert book.records == [(5, "armed", "")]


def test_another_key_is_another_call() -> None:
    """And so is no key at all."""
    book = Book()
    book.put()
    for tick, once in enumerate([Once("one", T0), Once("another", T0), None, None], start=5):
        assert book.apply(replace(manual(book, tick, Once("", T0)), once=once)).opened
    assert list(book.state.calls) == ["one", "another"]


def test_an_answer_is_given_for_ten_minutes_of_cluster_time() -> None:
    """As the entries count it: the last moment, and the one after it."""
    book = Book()
    book.apply(call(1, key="key", at_us=T0))
    assert book.apply(call(2, key="key", at_us=T0 + REPEAT_US)).outcome == call(1).token
    later = book.apply(call(3, key="key", at_us=T0 + REPEAT_US + 1))
    assert later.outcome == call(3).token
    assert book.state.calls["key"].cluster_us == T0 + REPEAT_US + 1


def test_old_answers_are_forgotten_with_the_clock_of_any_entry() -> None:
    """Also where nobody repeats anything any more."""
    book = Book()
    book.apply(call(1, at_us=second(0)))
    book.apply(call(2, at_us=second(300)))
    book.apply(entries.Noop(second(601), 0, 0))
    assert list(book.state.calls) == ["key-2"]
    book.apply(entries.Intents(second(901), 0, 0, ()))
    assert not book.state.calls
    assert book.state.call_bytes == 0


def test_what_stored_nothing_is_not_remembered() -> None:
    """A refusal, and a call that must be decided again: the same key is tried anew."""
    book = Book()
    revoke = entries.TokenRevoke("u1", "call", Once("key", T0))
    assert isinstance(book.apply(revoke).outcome, Exception)
    stale = entries.JobDelete(7, 7, "call", Once("key", T0))
    assert isinstance(book.apply(stale).outcome, Exception)
    book.put()
    book.launch(5)
    gone = replace(manual(book, 6, Once("key", T0)), items=(book.intent(6, revision=99),))
    assert isinstance(book.apply(gone).outcome, Exception)
    assert not book.state.calls
    book.apply(call(1))
    assert book.apply(revoke).outcome == call(1).token


def test_false_is_an_answer() -> None:
    """Of a resume, for one."""
    book = Book()
    resume = entries.Pause(paused=False, wall_us=1, once=Once("key", T0))
    assert book.apply(resume).outcome is False
    book.apply(entries.Pause(paused=True, wall_us=2))
    assert book.apply(resume).outcome is False
    assert book.state.paused


def test_every_kind_of_answer_comes_back_as_it_was() -> None:
    """A job, a stop, a member, a token, a pause."""
    book = Book(members=2)
    book.put(env={"A": "b"})
    opened = book.launch(5).opened
    member = replace(book.state.members[2], leaving=True)
    calls = (
        entries.Prune(book.uid(), 5, clear=True, call="c", once=Once("job", T0)),
        entries.StopEntry((opened[0].id,), (opened[0].run_id,), kill=True, call="c", once=Once("stop", T0)),
        entries.MemberPut(member, once=Once("member", T0)),
        call(1, key="token"),
        entries.TokenRevoke("u1", "c", Once("revoke", T0)),
        entries.Pause(paused=True, wall_us=1, once=Once("pause", T0)),
        entries.JobDelete(book.uid(), book.uid(), "c", Once("delete", T0)),
    )
    first = [book.apply(entry).outcome for entry in calls]
    assert not any(isinstance(one, Exception) for one in first)
    assert [book.apply(entry).outcome for entry in calls] == first


def test_answers_are_bounded_in_number() -> None:
    """The oldest go first."""
    book = Book()
    for n in range(CALLS_MAX + 2):
        answers.keep_answer(book.state, Once(f"key-{n}", 0), n, True)
    assert len(book.state.calls) == CALLS_MAX
    assert "key-1" not in book.state.calls
    assert "key-2" in book.state.calls


def test_answers_are_bounded_in_bytes() -> None:
    """One that is too large by itself is not kept at all."""
    state = Book().state
    token = Token(id="t", name="n" * (CALLS_BYTES_MAX // 3), role="viewer", sha256="s", created_wall_us=1)
    for n in range(4):
        answers.keep_answer(state, Once(f"key-{n}", 0), n, token)
    assert list(state.calls) == ["key-2", "key-3"]
    assert state.call_bytes <= CALLS_BYTES_MAX
    huge = replace(token, name="n" * CALLS_BYTES_MAX)
    rows = answers.keep_answer(state, Once("huge", 0), 9, huge)
    assert "huge" not in state.calls
    assert rows[-1] == Drop("calls", ("huge",))


# ---- through the leader


def test_a_call_repeated_while_the_first_is_on_its_way_is_one() -> None:
    """Both stand in the log before either is applied."""
    lab = Lab().start()
    lab.put(schedule="@yearly")
    lab.disk_answers = False
    for _ in range(2):
        assert lab.ask(commands.RunJob("job"), "key") is None
    lab.disk_answers = True
    lab.sync()
    first, second_answer = (lab.answers[name] for name in sorted(lab.answers)[-2:])
    assert isinstance(first, commands.JobAnswer)
    assert first == second_answer
    assert len(lab.launches) == 1


def test_a_call_repeated_after_a_crash_gets_the_first_answer() -> None:
    """The leader that gave it is gone, with all it had in memory."""
    lab = Lab().start()
    lab.put(schedule="@yearly")
    first = lab.ask(commands.RunJob("job"), "key")
    lab.crash(60)
    lab.advance(5)
    assert lab.ask(commands.RunJob("job"), "key") == first
    lab.only()
    lab.crash(REPEAT_US // 1_000_000)
    lab.advance(5)
    assert lab.ask(commands.RunJob("job"), "key") != first


def test_a_refused_call_is_judged_anew() -> None:
    """It stored nothing: once there is such a job, it runs."""
    lab = Lab().start()
    assert isinstance(lab.ask(commands.RunJob("job"), "key"), UnknownJob)
    lab.put(schedule="@yearly")
    assert isinstance(lab.ask(commands.RunJob("job"), "key"), commands.JobAnswer)


def test_a_put_that_runs_at_once_is_finished_by_its_repetition() -> None:
    """The leader died between the put and the run: repeated, it runs; repeated again, it does not."""
    lab = Lab().start()
    put = commands.PutJob(Job(name="job", schedule="@yearly", command="true"), run_on_create=True)
    lab.disk_answers = False
    lab.ask(put, "key")
    lab.write_untold()
    lab.disk_answers = True
    lab.crash()
    lab.advance(5)
    assert lab.view().revision
    assert not lab.executions()
    for _ in range(2):
        answer = lab.ask(put, "key")
        assert isinstance(answer, commands.JobAnswer)
        assert answer.created
    assert lab.only().trigger == "manual"
