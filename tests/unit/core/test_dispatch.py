"""The leader's orders and stops: repeated until answered, and what the answers decide."""

from __future__ import annotations

from itertools import pairwise

import pytest

from meshcron import commands
from meshcron.api.forms import RUN_ENV_BYTES_MAX
from meshcron.core.dispatch import order_bytes
from meshcron.core.pieces import json_bytes
from meshcron.messages import (
    Ack,
    AckState,
    Fence,
    Order,
    Result,
    ResultAck,
    ResultItem,
    Run,
    RunAck,
    StartedReport,
    Stop,
    StopAck,
    StopAckItem,
)
from meshcron.model import JOB_BYTES_MAX, SECOND_US
from meshcron.net.codec import INTEGER_MAX
from tests.unit.core.disk import second
from tests.unit.core.lab import TURN_US, Lab


@pytest.fixture
def lab() -> Lab:
    """A leading agent with a job that only people start."""
    lab = Lab().start()
    lab.put(schedule="@manually", timeout_us=7 * SECOND_US)
    lab.sent.clear()
    return lab


def deaf(lab: Lab, *kinds: type) -> None:
    """Messages of these kinds are lost from now on; with none, all arrive."""
    lab.loses = lambda message: isinstance(message, kinds)


def sent(lab: Lab, kind: type) -> int:
    return sum(isinstance(message, kind) for message in lab.sent)


def answer(lab: Lab, state: AckState, **more: str) -> None:
    """The agent's answer to the one order."""
    lab.hear(RunAck(Fence(0, 1), (Ack(execution_id=lab.only().id, state=state, **more),)))


# ---- orders


def test_an_order_says_all_but_the_command(lab: Lab) -> None:
    """What it runs travels only to who asks for it: on PUB all could read it (PROTOCOL 6)."""
    deaf(lab, Run)
    lab.run(env={"A": "1"})
    (message,) = lab.sent
    assert isinstance(message, Run)
    assert message.specs == ()
    (order,) = message.orders
    one = lab.only()
    assert (order.execution_id, order.run_id, order.attempt, order.env) == (one.id, one.run_id, 1, {"A": "1"})
    assert (order.due_cluster_us, order.start_by_cluster_us) == (second(0), second(120))
    assert (order.wait_until_cluster_us, order.timeout_us) == (second(3600), 7 * SECOND_US)


@pytest.mark.parametrize(("deadline_s", "start_by_s"), [(30, 40), (600, 130)])
def test_a_tick_may_start_until_its_deadline(deadline_s: int, start_by_s: int) -> None:
    """And until 120 s past its due time at most; for a slot it may wait until the deadline (PROTOCOL 6)."""
    lab = Lab().start()
    lab.put(schedule="@at 2027-01-15T08:00:10Z", start_deadline_us=deadline_s * SECOND_US)
    lab.advance_to(8)
    (order,) = [order for message in lab.sent if isinstance(message, Run) for order in message.orders][:1]
    assert (order.due_cluster_us, order.start_by_cluster_us) == (second(10), second(start_by_s))
    assert order.wait_until_cluster_us == second(10 + deadline_s)


def test_who_lacks_the_spec_gets_order_and_spec_in_one_message(lab: Lab) -> None:
    """A second run of the same revision needs none."""
    lab.run()
    first, again = [message for message in lab.sent if isinstance(message, Run)]
    assert first.orders == again.orders
    assert [spec.command for spec in again.specs] == ["true"]
    lab.sent.clear()
    lab.run()
    assert sent(lab, Run) == 1
    lab.sent.clear()
    lab.put(schedule="@manually", command="new")
    lab.run()
    assert sent(lab, Run) == 2


def test_specs_too_many_for_one_message_are_cut(lab: Lab) -> None:
    """Nine jobs of 60 KiB are due in one second, and their agent has dropped what it knew of them: it asks for all."""
    for n in range(9):
        lab.put(f"job{n}", schedule="@at 2027-01-15T08:00:10Z", payload="x" * 60_000)
    lab.advance_to(7.6)
    given = [[spec.job for spec in message.specs] for message in lab.sent if isinstance(message, Run) and message.specs]
    assert sorted(job for some in given for job in some) == [f"job{n}" for n in range(9)]
    assert len(given) == 2
    lab.advance_to(10.1)
    assert len(lab.launches) == 9


def test_a_spec_as_long_as_may_be_fits(lab: Lab) -> None:
    """A job of 64 KiB, all of it characters that JSON escapes."""
    lab.put(schedule="@manually", payload="\x01" * (JOB_BYTES_MAX // 6 - 100))
    lab.run()
    assert len(lab.launches) == 1


@pytest.mark.parametrize("letter", ["x", "\x01", "\u20ac"])
def test_parameters_too_many_for_one_message_are_cut(lab: Lab, letter: str) -> None:
    """Forty manual runs with 16 KiB each wait for one agent: all are ordered again, and start."""
    deaf(lab, Run)
    for _ in range(40):
        lab.run(env={"A": letter * (RUN_ENV_BYTES_MAX // len(letter.encode()) - 1)})
    lab.advance(0.5)
    assert not lab.launches
    deaf(lab)
    lab.advance(10)
    assert len(lab.launches) == 40


def test_an_order_takes_no_more_than_it_is_counted_as() -> None:
    """The longest that may be: every number of 63 bits, the ids as long as ours, escapes wherever others write."""
    longest = INTEGER_MAX
    order = Order(
        execution_id="e" * 32,
        node_id="n" * 32,
        uid=longest,
        revision=longest,
        digest="d" * 32,
        run_id="-".join([str(longest)] * 3),
        attempt=longest,
        scheduled_wall_us=-longest,
        due_cluster_us=-longest,
        start_by_cluster_us=-longest,
        wait_until_cluster_us=-longest,
        timeout_us=longest,
        env={"A": "\x01"},
        start_id="\x01" * 100,
    )
    assert json_bytes(order) < order_bytes(order) < json_bytes(order) + 300


def test_a_spec_is_kept_while_something_of_its_revision_is_open(lab: Lab) -> None:
    """Something else is open all the time, as where a job runs each second: edits of another job, and jobs that are
    deleted, leave nothing behind in the leader's memory."""
    lab.put("long", schedule="@manually")
    lab.run("long")
    (long,) = lab.running
    for n in range(20):
        lab.put(schedule="@manually", command=f"secret {n}")
        lab.run()
        lab.put(schedule="@manually", command=f"edited {n}")
        assert len(specs(lab)) == 2
        for execution_id in lab.running - {long}:
            lab.end(execution_id, code=0)
        assert specs(lab) == {"true"}
    lab.end_all()
    assert specs(lab) == set()


def specs(lab: Lab) -> set[str]:
    """The commands that the leader has at hand."""
    ours = lab.agent.leadership.ours
    assert ours is not None
    return {spec.command for _, spec in ours._dispatch._specs.values()}


@pytest.mark.parametrize("lost", [Run, RunAck])
def test_an_order_is_repeated_until_it_is_answered(lab: Lab, lost: type) -> None:
    """After 50 ms, then after twice as long each time, at most 5 s; whether it or its answer was lost."""
    deaf(lab, lost)
    lab.run()
    times = []
    for _ in range(2_000):
        seen = sent(lab, Run)
        lab.advance(0.01)
        times += [lab.boot_us] * (sent(lab, Run) - seen)
    gaps = [round((b - a) / SECOND_US, 1) for a, b in pairwise(times)]
    assert gaps[:6] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
    assert set(gaps[6:]) == {5.0}
    deaf(lab)
    lab.advance(6)
    assert len(lab.launches) == 1
    repeated = sent(lab, Run)
    lab.advance(60)
    assert sent(lab, Run) == repeated


def test_an_order_far_ahead_is_repeated_at_leisure() -> None:
    """A quarter of the time to due, when that is more (PROTOCOL 6)."""
    lab = Lab().start()
    lab.put(schedule="@at 2027-01-15T08:00:10Z")
    deaf(lab, Run)
    lab.advance_to(7.6)
    assert sent(lab, Run) == 1
    lab.advance_to(8.3)
    assert sent(lab, Run) == 2


def test_orders_of_one_moment_share_a_message(lab: Lab) -> None:
    """A hundred jobs of one second: as few messages as fit, none larger than 200 orders."""
    for n in range(90):
        lab.put(f"job{n}", schedule="@at 2027-01-15T08:00:10Z")
    deaf(lab, Run)
    lab.sent.clear()
    lab.advance_to(7.6)
    sizes = [len(message.orders) for message in lab.sent if isinstance(message, Run)]
    assert sizes[0] == 90


def test_a_new_session_orders_what_is_open_again(lab: Lab) -> None:
    """It does not know what was answered; by its id nothing starts twice."""
    lab.run()
    lab.run()
    lab.crash()
    lab.advance(1)
    assert len(lab.launches) == 2
    lab.end_all()
    assert [status for _, status, _ in lab.records()] == ["success", "success"]


def in_slices(lab: Lab, kind: type[Run | Stop]) -> list[int]:
    """How many orders or stops the agent sends now and in each turn that follows at once."""
    sizes = []
    while True:
        messages = [message for message in lab.sent if isinstance(message, kind)]
        sizes.append(sum(len(one.orders) if isinstance(one, Run) else len(one.items) for one in messages))
        lab.sent.clear()
        if lab.agent.next_wakeup(lab.now()) > lab.boot_us:
            return sizes
        lab.advance(TURN_US / SECOND_US)


def test_a_new_leader_orders_in_slices_what_is_due_first() -> None:
    """450 are armed when it takes over: each turn 200 of them, and all that is due next before what is due later."""
    lab = Lab(slots=450).start()
    for n in range(450):
        lab.put(f"job{n}", schedule=f"@at 2027-01-15T08:00:{10 - n % 3:02}Z")
    lab.advance_to(7.7)
    deaf(lab, Run)
    lab.sent.clear()
    lab.crash()
    ordered = [order.due_cluster_us for message in lab.sent if isinstance(message, Run) for order in message.orders]
    assert ordered == [second(8)] * 150 + [second(9)] * 50
    assert in_slices(lab, Run) == [200, 200, 50]
    deaf(lab)
    lab.advance_to(10.1)
    assert len(lab.launches) == 450


def test_what_runs_is_asked_after_last(lab: Lab) -> None:
    """A new leader has nothing to start there; what is armed may be late."""
    lab.run()
    lab.advance(1)
    deaf(lab, Run)
    lab.run()
    lab.sent.clear()
    lab.crash()
    (message,) = [message for message in lab.sent if isinstance(message, Run)]
    assert [lab.agent.state.open[order.execution_id].status for order in message.orders] == ["armed", "running"]


def test_stops_are_sent_in_slices() -> None:
    """Everything is paused while 450 are armed: each turn 200 stops; and so they are repeated."""
    lab = Lab().start()
    for n in range(450):
        lab.put(f"job{n}", schedule="@at 2027-01-15T08:00:10Z")
    lab.advance_to(7.7)
    deaf(lab, Stop)
    lab.ask(commands.SetPaused(True))
    assert in_slices(lab, Stop) == [200, 200, 50]
    repeated: list[int] = []
    while sum(repeated) < 450:  # long before they are due
        lab.advance((lab.agent.next_wakeup(lab.now()) - lab.boot_us) / SECOND_US)
        repeated += in_slices(lab, Stop)
    assert max(repeated) == 200
    deaf(lab)
    lab.advance(10)
    assert not lab.agent.state.open
    assert not lab.launches


# ---- answers


@pytest.mark.parametrize(
    ("state", "more", "record"),
    [
        ("late", {}, (0, "skipped", "late")),
        ("known", {"known": "late"}, (0, "skipped", "late")),
        ("known", {"known": "stopped"}, (0, "skipped", "stopped")),
    ],
)
def test_some_answers_are_final(lab: Lab, state: AckState, more: dict[str, str], record: tuple[int, str, str]) -> None:
    """The agent will never run it, and has said why."""
    deaf(lab, Run)
    lab.run()
    answer(lab, state, **more)
    assert lab.records() == [record]


@pytest.mark.parametrize("known", ["accepted", "starting", "running", "ended"])
def test_some_answers_mean_waiting(lab: Lab, known: str) -> None:
    """The order is not repeated; the outbox will tell how it ended."""
    deaf(lab, Run)
    lab.run()
    answer(lab, "known", known=known)
    repeated = sent(lab, Run)
    lab.advance(60)
    assert sent(lab, Run) == repeated
    assert lab.records() == [(0, "armed", "")]


@pytest.mark.parametrize("state", ["not_now", "stale"])
def test_some_answers_say_nothing_about_fate(lab: Lab, state: AckState) -> None:
    """The order is repeated."""
    deaf(lab, Run)
    lab.run()
    answer(lab, state)
    repeated = sent(lab, Run)
    lab.advance(2)
    assert sent(lab, Run) > repeated
    assert lab.records() == [(0, "armed", "")]


def test_an_answer_about_what_is_over_is_nothing(lab: Lab) -> None:
    """A copy that was long under way."""
    lab.run()
    one = lab.only()
    lab.end_all()
    lab.hear(RunAck(Fence(0, 1), (Ack(execution_id=one.id, state="late"),)))
    lab.hear(RunAck(Fence(0, 1), (Ack(execution_id="unheard of", state="late"),)))
    lab.hear(StopAck((StopAckItem(one.id, "not_started"),)))
    assert lab.records() == [(0, "success", "")]


# ---- stops


def test_a_stop_is_repeated_until_it_is_answered(lab: Lab) -> None:
    """Whether it or its answer was lost; TERM and KILL come once each, however often it was asked."""
    run_id = lab.run()
    deaf(lab, Stop)
    lab.ask(commands.StopRun(run_id))
    lab.advance(2)
    assert sent(lab, Stop) >= 4
    assert lab.signals == []
    deaf(lab, StopAck)
    lab.advance(5)
    deaf(lab)
    lab.advance(20)
    assert [force for _, force in lab.signals] == [False, True]
    lab.end_all()
    repeated = sent(lab, Stop)
    lab.advance(60)
    assert sent(lab, Stop) == repeated


def test_a_stop_takes_the_place_of_its_order(lab: Lab) -> None:
    """The agent never heard of the run: it hears the stop, and a late copy of the order starts nothing."""
    deaf(lab, Run)
    run_id = lab.run()
    (order,) = [message for message in lab.sent if isinstance(message, Run)]
    lab.ask(commands.StopRun(run_id))
    assert lab.records() == [(0, "skipped", "stopped")]
    repeated = sent(lab, Run)
    lab.advance(10)
    assert sent(lab, Run) == repeated
    deaf(lab)
    lab.hear(order)
    assert not lab.launches


def test_a_stopped_execution_is_ordered_no_more(lab: Lab) -> None:
    """Neither order nor stop was heard: only the stop is repeated, by the next session too."""
    deaf(lab, Run, Stop)
    lab.ask(commands.StopRun(lab.run()))
    lab.sent.clear()
    lab.advance(10)
    lab.crash()
    lab.advance(10)
    assert sent(lab, Run) == 0
    assert sent(lab, Stop) >= 4


def test_only_not_started_makes_it_skipped(lab: Lab) -> None:
    """`running` and `ended` leave the word to the outbox."""
    run_id = lab.run()
    one = lab.only()
    lab.ask(commands.StopRun(run_id))
    lab.hear(StopAck((StopAckItem(one.id, "ended"),)))
    lab.advance(0.2)
    assert lab.records() == [(0, "running", "")]
    lab.end(one.id, code=0)
    assert lab.records() == [(0, "killed", "")]


def test_a_stop_is_asked_for_again_after_a_restart(lab: Lab) -> None:
    """It is committed with the execution: the next session sends it."""
    run_id = lab.run()
    deaf(lab, Stop)
    lab.ask(commands.StopRun(run_id))
    assert lab.signals == []
    deaf(lab)
    lab.crash()
    assert lab.signals == [(lab.only().id, False)]


# ---- outcomes


def test_an_outcome_is_acknowledged_once_it_is_committed(lab: Lab) -> None:
    """Not before: the outbox is all there is of it (PROTOCOL 6)."""
    lab.run()
    lab.disk_answers = False
    lab.end_all()
    lab.sync()  # the runner's own row: now it tells the leader, who writes it into the log
    assert sent(lab, Result) == 1
    assert sent(lab, ResultAck) == 0
    lab.disk_answers = True
    lab.sync()
    assert sent(lab, ResultAck) == 1
    assert lab.forgotten == [lab.only().id]


@pytest.mark.parametrize("lost", [Result, ResultAck])
def test_an_outcome_is_told_until_it_is_acknowledged(lab: Lab, lost: type) -> None:
    """Whether it or its acknowledgement was lost; it counts once."""
    deaf(lab, lost)
    lab.run()
    lab.end_all()
    lab.advance(5)
    assert lab.forgotten == []
    deaf(lab)
    lab.advance(2)
    assert lab.forgotten == [lab.only().id]
    assert lab.view().success_count == 1


def test_an_outcome_nobody_knows_is_acknowledged(lab: Lab) -> None:
    """Else its agent would send it for ever."""
    lab.hear(Result((ResultItem(execution_id="unheard of", kind="ended", success=True),)))
    (ack,) = [message for message in lab.sent if isinstance(message, ResultAck)]
    assert ack.execution_ids == ("unheard of",)


def test_a_start_is_reported_lazily(lab: Lab) -> None:
    """Most commands end before it is logged; then their result says it all."""
    lab.run()
    assert sent(lab, StartedReport) == 1
    entries_before = len(lab.disk.log)
    lab.end_all()
    lab.advance(1)
    assert len(lab.disk.log) == entries_before + 1
    assert lab.only().started_wall_us == second(0)
