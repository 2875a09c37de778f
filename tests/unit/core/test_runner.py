"""Orders, slots, processes: written down before acknowledged, started once, reported until committed."""

from __future__ import annotations

import pytest

from meshcron.core.effects import Persist, Send, StartProcess
from meshcron.core.runner import GRACE_US, RESEND_US
from meshcron.messages import Fence, RunAck, StartedReport
from meshcron.model import OUTPUT_TAIL_BYTES, SECOND_US
from meshcron.rows import SeenRow
from tests.unit.core.disk import second
from tests.unit.core.hand import Hand, order


@pytest.fixture
def hand() -> Hand:
    """A runner with two slots that knows of nothing."""
    return Hand().start()


# ---- accepting


def test_an_order_is_written_down_before_it_is_acknowledged(hand: Hand) -> None:
    """The answer waits for the row."""
    assert hand.run(order(due=10)) == [("accepted", "")]
    persist = hand.effects[0]
    assert isinstance(persist, Persist)
    assert [row.state for row in persist.rows if isinstance(row, SeenRow)] == ["accepted"]
    (reply,) = [one for one in hand.effects if isinstance(one, Send) and isinstance(one.message, RunAck)]
    assert reply.after == persist.n


def test_the_same_order_twice_is_answered_with_what_is_known(hand: Hand) -> None:
    """In every state of its life; it starts once."""
    answers = []
    hand.run(order(due=10))
    answers += hand.run(order(due=10))
    hand.advance_to(11)
    answers += hand.run(order(due=10))
    hand.started()
    answers += hand.run(order(due=10))
    hand.ended()
    answers += hand.run(order(due=10))
    hand.acknowledge("x")
    answers += hand.run(order(due=10))
    assert answers == [("known", state) for state in ("accepted", "starting", "running", "ended", "ended")]
    assert hand.starts == ["x"]


def test_two_copies_in_one_message(hand: Hand) -> None:
    """The second is known."""
    assert hand.run(order(), order()) == [("accepted", ""), ("known", "accepted")]
    assert hand.starts == ["x"]


def test_an_agent_that_lacks_the_spec_asks_for_it(hand: Hand) -> None:
    """Nothing is written down before: the answer says nothing about the execution's fate."""
    assert hand.run(order(), specs=()) == [("need_spec", "")]
    assert hand.knows() == ""
    assert hand.run(order()) == [("accepted", "")]


def test_a_spec_is_kept_for_the_next_order(hand: Hand) -> None:
    """Over restarts too."""
    hand.run(order("x"))
    assert hand.run(order("y"), specs=()) == [("accepted", "")]
    hand.start()
    assert hand.run(order("z"), specs=()) == [("accepted", "")]


def test_past_its_start_by_an_order_is_late(hand: Hand) -> None:
    """A copy that hung in a queue: written down, answered so, never started."""
    hand.advance_to(120)
    assert hand.run(order(start_by=120)) == [("late", "")]
    assert hand.knows() == "late"
    assert hand.run(order(start_by=120)) == [("known", "late")]
    assert hand.run(order("y", start_by=120.001)) == [("accepted", "")]
    assert hand.starts == ["y"]


# ---- the fence


def test_an_order_below_the_fence_is_stale(hand: Hand) -> None:
    """A leader of an earlier term: nothing is written, nothing starts; the answer shows the newer fence."""
    hand.run(order("x"), fence=Fence(0, 5))
    assert hand.run(order("y"), fence=Fence(0, 4)) == [("stale", "")]
    assert hand.written == ()
    (reply,) = [one.message for one in hand.effects if isinstance(one, Send)]
    assert isinstance(reply, RunAck)
    assert reply.fence == Fence(0, 5)
    assert hand.starts == ["x"]
    assert hand.run(order("y"), fence=Fence(1, 0)) == [("accepted", "")]


def test_fence_and_mark_are_those_of_one_cluster(hand: Hand) -> None:
    """In another one both begin anew, also after a restart; in the same one neither falls."""
    hand.do(lambda turn: hand.runner.enter("old", 0, turn))
    hand.run(order("x"), fence=Fence(0, 9))
    hand.stop("y", start_by=1, fence=Fence(0, 9))
    hand.advance_to(10)
    assert hand.runner.mark_cluster_us > 0
    hand.start()
    hand.do(lambda turn: hand.runner.enter("old", 0, turn))
    assert (hand.runner.fence, hand.runner.mark_cluster_us > 0) == (Fence(0, 9), True)
    hand.start()
    hand.do(lambda turn: hand.runner.enter("new", 0, turn))
    for _ in range(2):
        assert (hand.runner.fence, hand.runner.mark_cluster_us) == (Fence(0, 0), 0)
        hand.start()
    assert hand.run(order("z"), fence=Fence(0, 1)) == [("accepted", "")]


def test_the_fence_outlives_a_restart(hand: Hand) -> None:
    """It is durable with the order that raised it."""
    hand.run(order("x"), fence=Fence(0, 5))
    hand.start()
    assert hand.run(order("y"), fence=Fence(0, 4)) == [("stale", "")]


def test_a_stale_stop_is_ignored(hand: Hand) -> None:
    """A deposed leader kills nothing."""
    hand.run(order(), fence=Fence(0, 5))
    hand.started()
    assert hand.stop(fence=Fence(0, 4)) == ""
    assert hand.signals == []


def test_the_index_orders_only_orders_about_one_execution(hand: Hand) -> None:
    """Within a term an older order about another execution is as good as any."""
    hand.run(order("later", due=20), fence=Fence(0, 5))
    assert hand.run(order("earlier", due=10), fence=Fence(0, 5)) == [("accepted", "")]


# ---- firing


def test_it_fires_at_its_due_time(hand: Hand) -> None:
    """By cluster time, on a timer of the runner's own."""
    hand.run(order(due=10))
    hand.advance_to(9.999)
    assert hand.starts == []
    hand.advance_to(10.001)
    assert hand.starts == ["x"]


def test_the_fastest_stamp_tells_the_time(hand: Hand) -> None:
    """A message that was 5 s under way does not put the clock back."""
    hand.run(order("x", due=10))
    hand.run(order("y", due=10), stamp_us=second(-5))
    hand.advance_to(10.001)
    assert sorted(hand.starts) == ["x", "y"]


def test_starting_is_durable_before_the_process_exists(hand: Hand) -> None:
    """So that a crash in between is found as `starting`, and never started again."""
    hand.run(order(due=10))
    hand.boot_us += 10 * SECOND_US
    hand.do(hand.runner.woke)
    persist, start = hand.effects
    assert isinstance(persist, Persist)
    assert [row.state for row in persist.rows if isinstance(row, SeenRow)] == ["starting"]
    assert isinstance(start, StartProcess)
    assert start.after == persist.n


def test_the_environment_of_a_process(hand: Hand) -> None:
    """What the run adds outranks the job's, and neither reaches what is ours."""
    hand.run(order(env={"A": "mine", "MESHCRON_JOB": "forged"}))
    (launch,) = [one.launch for one in hand.effects if isinstance(one, StartProcess)]
    assert (launch.env["A"], launch.env["MESHCRON_JOB"], launch.env["MESHCRON_AGENT"]) == ("mine", "job", "one")


# ---- slots


def test_what_finds_no_slot_waits_in_the_order_of_due_times(hand: Hand) -> None:
    """Two slots, four orders that came in another order."""
    hand.run(order("d", due=4), order("a", due=1), order("c", due=3), order("b", due=2))
    hand.advance_to(5)
    assert hand.starts == ["a", "b"]
    for name in ("a", "b"):
        hand.started(name)
    hand.ended("b")
    assert hand.starts == ["a", "b", "c"]
    hand.ended("a")
    assert hand.starts == ["a", "b", "c", "d"]


@pytest.mark.parametrize("end", ["ended", "not_started", "lost"])
def test_every_end_frees_its_slot(end: str) -> None:
    """Also that of a process that never was."""
    hand = Hand(slots=1).start()
    hand.run(order("x"), order("y", due=1))
    hand.advance_to(2)
    getattr(hand, end)("x")
    assert hand.starts == ["x", "y"]


def test_an_accepted_execution_may_wait_past_its_start_by() -> None:
    """start_by bounds acceptance; for a slot it waits until due + start_deadline."""
    hand = Hand(slots=1).start()
    hand.run(order("x"), order("y", start_by=120, wait_until=600))
    hand.advance_to(500)
    hand.ended("x")
    assert hand.starts == ["x", "y"]


def test_who_was_away_until_it_was_too_late_says_so() -> None:
    """A machine that slept finds what is due and too late by now; it had a slot free all the time."""
    hand = Hand(slots=1).start()
    hand.run(order("x", due=60, start_by=120, wait_until=600))
    hand.boot_us += 601 * SECOND_US
    hand.do(hand.runner.woke)
    assert hand.outcomes == [("x", "skipped", "late: the agent was away")]
    assert hand.starts == []


def test_who_waits_too_long_says_so() -> None:
    """Skipped at that moment, with the reason, whoever has the slot and for how long; it never starts."""
    hand = Hand(slots=1).start()
    hand.run(order("x"), order("y", start_by=120, wait_until=600))
    hand.advance_to(599)
    assert hand.outcomes == []
    hand.advance_to(601)
    assert hand.outcomes == [("y", "skipped", "late: no free slot in time")]
    hand.ended("x")
    assert hand.starts == ["x"]


def test_many_that_have_waited_too_long_end_in_slices_and_none_starts() -> None:
    """A slot that comes free in that moment is for those that still have time."""
    hand = Hand(slots=1).start()
    names = [f"z{n:03}" for n in range(450)]
    hand.run(order("x"), *(order(name, start_by=120, wait_until=600) for name in names), order("y", wait_until=900))
    hand.advance_to(600)
    hand.ended("x")
    hand.advance_to(601)
    assert hand.starts == ["x", "y"]
    assert sum(kind == "skipped" for _, kind, _ in hand.outcomes) == len(names)


def test_running_counts_the_slots_taken(hand: Hand) -> None:
    """What the status page shows."""
    hand.run(order("a"), order("b"), order("c"))
    assert hand.runner.running == 2
    hand.ended("a")
    assert hand.runner.running == 2
    hand.ended("b")
    hand.ended("c")
    assert hand.runner.running == 0


# ---- how it ended


@pytest.mark.parametrize(
    ("code", "signal", "success", "reason"),
    [(0, None, True, ""), (3, None, False, "exit code 3"), (None, 9, False, "killed by signal 9")],
)
def test_an_ending_is_judged(hand: Hand, code: int | None, signal: int | None, success: bool, reason: str) -> None:
    """By the job's success_exit_codes."""
    hand.run(order())
    hand.started()
    hand.ended(code=code, signal=signal)
    (item,) = hand.results
    assert (item.kind, item.success, item.reason, item.started_wall_us) == ("ended", success, reason, second(0))
    assert item.ending is not None
    assert item.ending.output_tail == "said so"


def test_what_could_not_be_started_has_failed(hand: Hand) -> None:
    """For certain: nothing ran."""
    hand.run(order())
    hand.not_started(why="no such user")
    assert hand.outcomes == [("x", "failed", "no such user")]


def test_a_process_that_is_gone_without_a_status_is_lost(hand: Hand) -> None:
    """Nobody knows; it is never started again."""
    hand.run(order())
    hand.started()
    hand.lost()
    assert hand.outcomes == [("x", "lost", "no trace of it")]
    assert hand.run(order()) == [("known", "ended")]
    assert hand.starts == ["x"]


def test_a_second_word_about_an_end_is_nothing(hand: Hand) -> None:
    """A watcher that speaks twice frees no second slot."""
    hand.run(order())
    hand.ended(code=0)
    hand.ended(code=1)
    hand.lost()
    assert hand.outcomes == [("x", "ended", "")]
    assert hand.runner.running == 0


def test_words_about_what_nobody_ordered_are_nothing(hand: Hand) -> None:
    """An id of another life."""
    hand.started("unheard of")
    hand.ended("unheard of")
    hand.lost("unheard of")
    assert hand.written == ()
    assert hand.outcomes == []


def test_the_leader_hears_of_a_start(hand: Hand) -> None:
    """At once, waiting for nothing; the pid is written down for a later session."""
    hand.run(order())
    hand.started(pid=42)
    (report,) = [one for one in hand.effects if isinstance(one, Send)]
    assert isinstance(report.message, StartedReport)
    assert report.after == 0
    assert hand.disk.tables["seen"]["x"].pid == 42


# ---- timeouts


def test_a_timeout_is_term_then_kill(hand: Hand) -> None:
    """Ten seconds apart; the end is a timeout whatever the exit code."""
    hand.run(order(timeout_us=30 * SECOND_US))
    hand.started()
    hand.advance(29.9)
    assert hand.signals == []
    hand.advance(0.2)
    assert hand.signals == [("x", False)]
    hand.advance(GRACE_US / SECOND_US)
    assert hand.signals == [("x", False), ("x", True)]
    hand.ended(code=0)
    assert [(item.kind, item.success) for item in hand.results] == [("timeout", False)]


def test_who_ends_in_time_is_not_signalled(hand: Hand) -> None:
    """Neither at the timeout nor after the grace."""
    hand.run(order("a", timeout_us=30 * SECOND_US), order("b", timeout_us=30 * SECOND_US))
    hand.started("a")
    hand.started("b")
    hand.ended("a")
    hand.advance(31)
    assert hand.signals == [("b", False)]
    hand.ended("b", code=None, signal=15)
    hand.advance(60)
    assert hand.signals == [("b", False)]


# ---- the outbox


def test_an_outcome_is_sent_until_it_is_acknowledged(hand: Hand) -> None:
    """Each second, from the durable outbox; then the process is forgotten."""
    hand.run(order())
    hand.ended()
    sends = [one for one in hand.effects if isinstance(one, Send)]
    assert [one.after for one in sends] == [hand.persists]
    hand.advance(3.5 * RESEND_US / SECOND_US)
    assert len(hand.results) == 4
    assert hand.forgotten == []
    hand.acknowledge("x")
    assert hand.forgotten == ["x"]
    hand.advance(10)
    assert len(hand.results) == 4


def test_only_what_is_acknowledged_leaves_the_outbox(hand: Hand) -> None:
    """And a second acknowledgement of it changes nothing."""
    hand.run(order("x"), order("y"))
    hand.ended("x")
    hand.ended("y")
    hand.acknowledge("x", "unheard of")
    hand.results.clear()
    hand.advance(1.5)
    assert [item.execution_id for item in hand.results] == ["y"]
    hand.acknowledge("x")
    assert hand.written == ()
    assert hand.forgotten == ["x"]


def test_outcomes_too_many_for_one_message_are_cut() -> None:
    """Of 64 whose outputs are control characters, six bytes of JSON each: all are told again each second."""
    hand = Hand(slots=64).start()
    names = [f"{n}" for n in range(64)]
    hand.run(*(order(name) for name in names))
    for name in names:
        hand.ended(name, tail="\x01" * OUTPUT_TAIL_BYTES)
    hand.results.clear()
    hand.advance(RESEND_US / SECOND_US + 0.1)
    assert [item.execution_id for item in hand.results] == names
    hand.acknowledge(*names)
    assert hand.forgotten == names
