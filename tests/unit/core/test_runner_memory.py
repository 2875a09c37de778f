"""What a runner remembers: over restarts, for as long as a copy of an order could still be accepted, and no longer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcron.core.runner import DEAD_DEADLINES_MAX, GRACE_US
from meshcron.model import SECOND_US
from meshcron.rows import Drop, MarkRow
from tests.unit.core.hand import Hand, order


@pytest.fixture
def hand() -> Hand:
    """A runner with two slots that knows of nothing."""
    return Hand().start()


# ---- stops


def test_a_stop_for_an_unknown_id_is_written_down(hand: Hand) -> None:
    """So that a Run that comes after it starts nothing."""
    assert hand.stop("x") == "not_started"
    assert hand.knows("x") == "stopped"
    assert hand.run(order("x")) == [("known", "stopped")]
    assert hand.starts == []


def test_a_stop_outlives_a_restart(hand: Hand) -> None:
    """It is a row as any other."""
    hand.stop("x")
    hand.start()
    assert hand.run(order("x")) == [("known", "stopped")]


@pytest.mark.parametrize("kill", [True, False])
def test_what_is_armed_is_stopped_before_it_starts(hand: Hand, kill: bool) -> None:
    """Whoever asked; asked twice, the answer is the same."""
    hand.run(order(due=10))
    assert hand.stop(kill=kill) == "not_started"
    assert hand.stop(kill=kill) == "not_started"
    hand.advance_to(20)
    assert hand.starts == []
    assert hand.run(order(due=10)) == [("known", "stopped")]


def test_what_waits_for_a_slot_is_stopped_too() -> None:
    """The next one gets the slot."""
    hand = Hand(slots=1).start()
    hand.run(order("x"), order("y", due=1), order("z", due=2))
    hand.advance_to(3)
    assert hand.stop("y") == "not_started"
    hand.ended("x")
    assert hand.starts == ["x", "z"]


def test_leave_leaves_a_running_process_alone(hand: Hand) -> None:
    """Delete, disable and pause stop only what has not started."""
    hand.run(order())
    hand.started()
    assert hand.stop(kill=False) == "running"
    hand.advance(60)
    assert hand.signals == []
    hand.ended()
    assert hand.outcomes == [("x", "ended", "")]


def test_a_kill_is_term_then_kill(hand: Hand) -> None:
    """Once each, however often it is asked for; the end is recorded as killed."""
    hand.run(order())
    hand.started()
    assert hand.stop() == "running"
    hand.advance(5)
    assert hand.stop() == "running"
    assert hand.signals == [("x", False)]
    hand.advance(GRACE_US / SECOND_US - 4.9)
    assert hand.signals == [("x", False), ("x", True)]
    hand.ended(code=None, signal=9)
    assert hand.outcomes[0] == ("x", "killed", "")


def test_a_kill_that_comes_before_the_process_is_not_lost(hand: Hand) -> None:
    """It is `starting`, and nobody is there yet to hear a signal: TERM comes as soon as it is, KILL after the grace."""
    hand.run(order())
    assert hand.stop() == "running"
    hand.advance(11)
    hand.signals.clear()
    hand.started()
    assert hand.signals == [("x", False)]
    hand.advance(GRACE_US / SECOND_US + 0.1)
    assert hand.signals == [("x", False), ("x", True)]
    hand.ended(code=None, signal=9)
    assert hand.outcomes[0] == ("x", "killed", "")


def test_a_stop_of_what_has_ended_meets_that(hand: Hand) -> None:
    """Its outcome is on its way, and stays what it was."""
    hand.run(order())
    hand.ended(code=1)
    assert hand.stop() == "ended"
    assert hand.signals == []
    assert hand.outcomes == [("x", "ended", "exit code 1")]


def test_a_stop_of_what_came_too_late(hand: Hand) -> None:
    """It had not started, and will not."""
    hand.advance_to(121)
    hand.run(order())
    assert hand.stop() == "not_started"
    assert hand.starts == []


# ---- restarts


def test_what_was_accepted_fires_after_a_restart(hand: Hand) -> None:
    """But not before a leader's stamp was heard: until then it does not know the time (PROTOCOL 6)."""
    hand.run(order(due=10))
    hand.start()
    hand.advance_to(20)
    assert hand.starts == []
    assert hand.run(order(due=10)) == [("known", "accepted")]
    hand.advance(0.1)
    assert hand.starts == ["x"]


def test_what_was_accepted_fires_only_once_this_very_start_is_asked(hand: Hand) -> None:
    """A copy of the directory has accepted it, too, and hears the leader's stamps; the leader speaks to one start."""
    hand.run(order(due=10))
    hand.start()
    hand.runner.start_id = "this"
    hand.advance_to(20)
    assert hand.run(order("y", due=100)) == [("accepted", "")]
    for other in ("", "another"):
        assert hand.run(order(due=10, start_id=other)) == [("not_now", "")]
    assert hand.starts == []
    assert hand.run(order(due=10, start_id="this")) == [("known", "accepted")]
    assert hand.starts == ["x"]
    assert hand.run(order(due=10, start_id="another")) == [("known", "starting")]


def test_after_a_restart_start_by_holds_again(hand: Hand) -> None:
    """Accepted, then away: it may have been forgotten by the leader, so it says that it never started."""
    hand.run(order("x", due=10, start_by=120))
    hand.start()
    hand.run(order("y", due=130, start_by=300))
    hand.advance_to(119)
    assert hand.knows("x") == "accepted"
    hand.advance_to(121)
    assert hand.run(order("x", due=10, start_by=120)) == [("known", "ended")]
    hand.advance_to(131)
    assert hand.starts == ["y"]
    assert hand.outcomes[0] == ("x", "skipped", "late: the agent was away")


def test_what_waited_for_a_slot_waits_again() -> None:
    """The adopted process still holds the slot."""
    hand = Hand(slots=1).start()
    hand.run(order("x"), order("y"))
    hand.started("x")
    hand.start()
    assert hand.adopted == [("x", 7)]
    hand.adopt("x")
    hand.run(order("y"))
    hand.advance_to(10)
    assert hand.starts == ["x"]
    hand.ended("x")
    assert hand.starts == ["x", "y"]


def test_a_slot_that_gets_free_before_a_leader_was_heard() -> None:
    """Its mark is all that the agent knows of the time: what is due stays where it is until a stamp comes."""
    hand = Hand(slots=1).start()
    hand.run(order("x"), order("y", start_by=1000))
    hand.stop("z", start_by=120)
    hand.advance_to(130)  # z is forgotten: the mark is now past y's due time
    hand.start()
    hand.ended("x")
    hand.do(hand.runner.woke)
    assert hand.starts == ["x"]
    hand.run(order("y", start_by=1000))
    assert hand.starts == ["x", "y"]


def test_a_process_that_runs_is_adopted(hand: Hand) -> None:
    """By the pid that was written down; it is never started again."""
    hand.run(order())
    hand.started(pid=42)
    hand.start()
    assert hand.adopted == [("x", 42)]
    assert hand.runner.running == 1
    hand.adopt(pid=42, started_s_ago=5)
    assert hand.run(order()) == [("known", "running")]
    hand.ended(code=1)
    assert hand.outcomes == [("x", "ended", "exit code 1")]
    assert hand.starts == ["x"]


def test_a_process_that_was_about_to_start_is_looked_for(hand: Hand) -> None:
    """Without a pid: by its folder. No trace of it: lost, not started again."""
    hand.run(order())
    hand.start()
    assert hand.adopted == [("x", 0)]
    hand.lost()
    hand.run(order())
    assert hand.starts == ["x"]
    assert hand.knows() == "ended"
    assert hand.disk.tables["seen"]["x"].acknowledged is False


def test_one_that_ended_meanwhile_tells_when_it_began(hand: Hand) -> None:
    """The status file knows."""
    hand.run(order())
    hand.start()
    hand.ended(code=0, started_us=77)
    hand.run(order())
    hand.advance(2)
    assert [(item.kind, item.success, item.started_wall_us) for item in hand.results[:1]] == [("ended", True, 77)]


def test_a_timeout_goes_on_over_a_restart(hand: Hand) -> None:
    """It counts from the start of the process, not from its adoption."""
    hand.run(order(timeout_us=30 * SECOND_US))
    hand.started()
    hand.advance(20)
    hand.start()
    hand.adopt(started_s_ago=20)
    hand.advance(9.9)
    assert hand.signals == []
    hand.advance(0.2)
    assert hand.signals == [("x", False)]


def test_the_outbox_outlives_a_restart(hand: Hand) -> None:
    """It is sent as soon as a leader is heard, until acknowledged."""
    hand.run(order("x"))
    hand.ended("x", code=3)
    hand.start()
    hand.results.clear()
    hand.run(order("y", due=100))
    hand.advance(0.1)
    assert hand.outcomes == [("x", "ended", "exit code 3")]
    hand.acknowledge("x")
    hand.results.clear()
    hand.start()
    hand.run(order("z", due=100))
    hand.advance(5)
    assert hand.outcomes == []


def test_a_dead_row_wakes_nobody(hand: Hand) -> None:
    """After a restart with nothing but the past there is nothing to do."""
    hand.run(order("x"))
    hand.ended("x")
    hand.acknowledge("x")
    hand.stop("y")
    hand.start()
    assert (hand.adopted, hand.runner.running, hand.runner.next_wakeup()) == ([], 0, None)


# ---- forgetting


def test_what_is_acknowledged_is_kept_until_its_start_by(hand: Hand) -> None:
    """A copy of the order may still be under way."""
    hand.run(order("x", start_by=120))
    hand.ended("x")
    hand.acknowledge("x")
    hand.advance_to(119)
    assert hand.knows("x") == "ended"
    assert hand.run(order("x", start_by=120)) == [("known", "ended")]
    hand.advance_to(125)
    assert hand.knows("x") == ""


def test_what_is_not_acknowledged_is_kept_for_ever(hand: Hand) -> None:
    """However long ago its start_by was."""
    hand.run(order("x", start_by=120))
    hand.ended("x")
    hand.advance_to(24 * 3600)
    assert hand.knows("x") == "ended"
    hand.acknowledge("x")
    hand.advance(5)
    assert hand.knows("x") == ""


def test_one_that_may_be_forgotten_takes_no_other_along(hand: Hand) -> None:
    """Two have ended and are acknowledged; a copy of the younger one's order comes after the elder was forgotten."""
    orders = order("elder", start_by=120), order("younger", start_by=1000)
    hand.run(*orders)
    for name in ("elder", "younger"):
        hand.ended(name)
        hand.acknowledge(name)
    hand.advance_to(500)
    assert (hand.knows("elder"), hand.knows("younger")) == ("", "ended")
    assert hand.run(*orders) == [("late", ""), ("known", "ended")]
    assert len(hand.starts) == 2


def test_the_timeouts_of_what_has_ended_are_forgotten(hand: Hand) -> None:
    """Not kept until they would have passed: a job of every second may have one of a day. Those of what runs hold."""
    day_us = 24 * 3600 * SECOND_US
    hand.run(order("long", timeout_us=day_us), order("first", timeout_us=600 * SECOND_US))
    hand.started("long")
    hand.started("first")
    hand.ended("first")
    hand.acknowledge("first")  # or it is sent again through the whole day, as would be each of these
    for number in range(10 * DEAD_DEADLINES_MAX):
        hand.run(order(f"e{number}", timeout_us=day_us))
        hand.started(f"e{number}")
        hand.ended(f"e{number}")
        hand.acknowledge(f"e{number}")
        assert len(hand.runner._deadlines) <= DEAD_DEADLINES_MAX + 8
    hand.signals.clear()
    hand.advance(24 * 3600 + 1)
    assert hand.signals == [("long", False)]


@pytest.mark.parametrize("fate", ["late", "stopped"])
def test_what_never_ran_is_forgotten_likewise(hand: Hand, fate: str) -> None:
    """Late and stopped are rows, too."""
    if fate == "late":
        hand.advance_to(121)
        hand.run(order("x", start_by=120))
    else:
        hand.stop("x", start_by=120)
    assert hand.knows("x") == fate
    hand.advance_to(130)
    hand.run(order("y", due=200, start_by=300))
    hand.advance(5)
    assert hand.knows("x") == ""


def test_the_mark_is_durable_with_the_forgetting(hand: Hand) -> None:
    """In one transaction: what is forgotten can never be accepted again (P1)."""
    hand.stop("x", start_by=120)
    hand.boot_us += 125 * SECOND_US
    hand.do(hand.runner.woke)
    mark, drop = hand.written
    assert isinstance(mark, MarkRow)
    assert mark.cluster_us >= 120 * SECOND_US
    assert drop == Drop("seen", ("x",))


def test_below_the_mark_nothing_is_accepted(hand: Hand) -> None:
    """The copy of a forgotten order that hung in a queue for an hour; also after a restart that lost the time."""
    hand.run(order("x", start_by=120))
    hand.ended("x")
    hand.acknowledge("x")
    hand.advance_to(3600)
    assert hand.knows("x") == ""
    assert hand.run(order("x", start_by=120)) == [("late", "")]
    hand.advance(5)
    hand.start()
    long_ago = order("x", start_by=120).start_by_cluster_us - 100 * SECOND_US
    assert hand.run(order("x", start_by=120), stamp_us=long_ago) == [("late", "")]
    assert hand.starts == ["x"]


Step = tuple[str, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(("run", "run", "run", "stop", "kill", "wait", "wait", "start", "end", "ack", "crash")),
        st.integers(0, 3),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=150)
def test_at_most_one_process_starts_for_an_id(story: list[Step]) -> None:
    """Copies of orders at any time, crashes, stops, ends, acknowledgements in any order (P1); and what was answered
    "not started" never starts afterwards."""
    hand = Hand().start()
    stopped: set[str] = set()
    for what, number in story:
        name = "wxyz"[number]
        match what:
            case "run":
                hand.run(order(name, due=number * 5, start_by=20 + number * 20, wait_until=100))
            case "stop" | "kill":
                known = hand.knows(name)
                met = hand.stop(name, kill=what == "kill", start_by=20 + number * 20)
                assert met != "not_started" or known in ("", "accepted", "stopped", "late")
                if name not in hand.starts:  # else a copy of the Stop came when all was long forgotten
                    stopped.add(name)
            case "wait":
                hand.advance((0.5, 3, 15, 40)[number])
            case "start":
                if hand.knows(name) in ("starting", "running"):
                    hand.adopt(name)
            case "end":
                if hand.knows(name) in ("starting", "running"):
                    hand.ended(name, code=number % 2)
            case "ack":
                if any(item.execution_id == name for item in hand.results):
                    hand.acknowledge(name)
            case _:
                hand.start()
        assert len(hand.starts) == len(set(hand.starts))
        assert not stopped & set(hand.starts)
