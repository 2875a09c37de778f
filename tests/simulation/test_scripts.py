"""Directed faults: what random ones seldom hit, at the one instant where it matters. Each is a short story."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from meshcron import commands, entries, messages
from meshcron.core import effects
from meshcron.core.events import Found, KnockAnswered, MessageReceived, Proposed
from meshcron.core.intents import NO_MATCH
from meshcron.core.ledger import Ledger
from meshcron.core.timing import LAN, SLOW, Timing
from meshcron.core.turn import Turn
from meshcron.errors import Conflict, NoLeader, RefusedByMembers, UnknownJob
from meshcron.model import OUTPUT_TAIL_BYTES, SECOND_US, Execution, History, Job, Member, Status, Token, execution_id
from meshcron.rows import SeenRow
from meshcron.runtime.elsewhere import OtherAgents
from meshcron.runtime.standing import ALIVE, FAILED, Facts, Standing
from tests.simulation.cluster import SHORT, Cluster, Host, Weather, unlike
from tests.simulation.invariants import check_bounds, check_fold, check_recorded, check_same_everywhere
from tests.simulation.test_cluster_seeds import keeps_its_promise
from tests.simulation.world import unaccounted_ticks

START_BY_S = 125.0
"""Longer than an order may be accepted: then what is armed at a machine that is gone is over."""

SETTLED_S = 8.0
"""So long after the last fault everything older is decided."""

FAIL_OVER_US = 1_500_000
"""A voter that must find out by itself that its leader is gone, and win: timer, pre-vote, vote, first entry."""

STOPPED_SECONDS = 1.3
"""The goal, from the instant at which a leader is stopped: no connection closes, so nobody has evidence."""


# the scene


def grown(seed: int, hosts: int = 3, **more: Any) -> Cluster:
    """A cluster at rest: as many voters as there should be. Host n has the tag at=n."""
    world = Cluster(seed)
    for at in range(hosts):
        world.add({"role": "web", "at": str(at)}, **more)
    for host in world.hosts:
        host.start()
    voters_are(world, next(size for size in (5, 3, 1) if size <= hosts))
    return world


def voters_are(world: Cluster, count: int, seconds: float = 40) -> None:
    """So many vote, and so many members are there as machines run."""

    def ready() -> bool:
        leader = world.leader()
        return leader is not None and len(leader.agent.ledger.voters) == count and _all_members(world, leader)

    assert world.run_until(ready, seconds), f"not {count} voters:\n{world.describe()}"


def _all_members(world: Cluster, leader: Host) -> bool:
    members = {member.node_id for member in leader.agent.state.members.values()}
    return all(host.node_id in members for host in world.hosts if host.is_up)


def led(world: Cluster, seconds: float = 5) -> Host:
    """Who leads, at last."""
    assert world.run_until(lambda: world.leader() is not None, seconds), f"18: no leader\n{world.describe()}"
    leader = world.leader()
    assert leader is not None
    return leader


def member_of(host: Host, node_id: str) -> Member:
    """What an agent knows of a member."""
    member = host.agent.state.member_of(node_id)
    assert member is not None, f"{node_id} is no member"
    return member


def follower(world: Cluster, at: int = 0) -> Host:
    """One that does not lead."""
    return [host for host in world.hosts if host is not led(world)][at]


def ask(world: Cluster, command: commands.Command) -> object:
    """A write, and its answer."""
    call = world.ask(command)
    assert world.run_until(lambda: call in world.answers, 5), "no answer to a write"
    return world.answers[call]


def put(world: Cluster, name: str, schedule: str = "* * * * * *", **more: object) -> int:
    """A job with an unlimited history. Returns its uid."""
    job = Job(name=name, schedule=schedule, command="true", **more)  # type: ignore[arg-type]
    answer = ask(world, commands.PutJob(msgspec.structs.replace(job, history=History(runs=100_000))))
    assert isinstance(answer, commands.JobAnswer), answer
    return answer.view.uid


def run_now(world: Cluster, name: str) -> str:
    """A manual run. Returns its id."""
    answer = ask(world, commands.RunJob(name))
    assert isinstance(answer, commands.JobAnswer), answer
    return answer.run_id


def runs_of(world: Cluster, uid: int) -> list[Execution]:
    """Every record of a job, oldest first."""
    found = [one for one in led(world).disk.executions.values() if one.uid == uid]
    return sorted(found, key=lambda one: (one.scheduled_wall_us, one.id))


def at_end(world: Cluster, *, restart: bool = True) -> None:
    """Quiet returns: nothing is missing, nothing doubled, nothing open for ever, and all hold the same."""
    world.heal()
    world.hold = world.tap = None
    for host in world.hosts:
        if not host.is_up and restart:
            host.start()
    world.run_for(SETTLED_S + 4)
    leader = led(world)
    settled_us = leader.agent.clock.wall_us(leader.now()) - int(SETTLED_S * SECOND_US)
    state = leader.agent.state
    for uid, job in state.jobs.items():
        if state.epoch == 0:
            wrong = unaccounted_ticks(leader.disk, uid, settled_us)
            assert not wrong, f"P2: job {job.job.name} has ticks without exactly one record: {wrong[:5]}"
    for execution in leader.disk.executions.values():
        old = execution.scheduled_wall_us < settled_us and not execution.status.final
        where = world.by_node(execution.node_id)
        assert not old or (where is not None and execution.id in where.processes), f"11: {execution} is open for ever"
    for host in world.hosts:
        if host.is_up and host.agent.holds_log and host.agent.cluster == leader.agent.cluster:
            theirs = host.agent.state
            assert theirs.applied[0] >= state.applied[0] - 5, f"{host.name} lags\n{world.describe()}"
            if theirs.applied == state.applied:
                other = unlike(theirs, state)
                assert not other, f"5: {other} of {host.name} differ"
    check_recorded(leader.disk, world.pruned)


def once(found: Callable[[], None]) -> Callable[[], None]:
    """Do it the first time only."""
    done: list[bool] = []

    def act() -> None:
        if not done:
            done.append(True)
            found()

    return act


@contextmanager
def changed(target: str, value: object) -> Iterator[None]:
    """A number of the protocol made small, so that a story is short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, value)
        yield


# the leader dies ... (the table in section 6)


def intents_in(effect: effects.Effect) -> list[entries.Intent]:
    """The decisions that an Append carries."""
    if not isinstance(effect, effects.Send) or not isinstance(effect.message, messages.Append):
        return []
    found = [entries.decode(body) for body in effect.message.payload]
    return [item for entry in found if isinstance(entry, entries.Intents) for item in entry.items]


def test_the_leader_dies_before_the_intent_is_on_a_majority() -> None:
    """Nobody else knows of the decision: the next leader takes it again, with the same id, late by the fail-over."""
    world = grown(1)
    target = follower(world)
    uid = put(world, "tick", tags={"at": str(target.number)})
    world.run_for(5)
    old = led(world)
    died: list[entries.Intent] = []

    def tap(host: Host, effect: effects.Effect) -> bool:
        intents = intents_in(effect)
        if host is old and not died and intents:
            died.extend(intents)
            host.crash()
        return bool(died) and host is old and not host.is_up

    world.tap = tap
    world.run_for(3)
    assert died
    assert led(world) is not old
    world.run_for(6)
    run_id = f"{uid}-0-{died[0].tick_wall_us // SECOND_US}"
    same_id = execution_id(led(world).agent.cluster, run_id, target.node_id, 1)
    assert world.starts[same_id] == 1
    at_end(world)
    assert max(world.late_us.values()) < FAIL_OVER_US


def test_the_leader_dies_after_the_commit_and_before_the_order() -> None:
    """The next one finds the intent open and sends the order; new to the agent, it runs once."""
    world = grown(2)
    target = follower(world)
    put(world, "tick", tags={"at": str(target.number)})
    world.run_for(5)
    old = led(world)
    died: list[str] = []

    def tap(host: Host, effect: effects.Effect) -> bool:
        message = getattr(effect, "message", None)
        if host is old and not died and isinstance(message, messages.Run):
            died.extend(order.execution_id for order in message.orders)
            host.crash()
            return True
        return False

    world.tap = tap
    world.run_for(8)
    assert died
    assert led(world) is not old
    assert all(world.starts[one] == 1 for one in died)
    at_end(world)
    assert max(world.late_us.values()) < FAIL_OVER_US


def test_the_leader_dies_after_the_order_and_before_its_answer() -> None:
    """The next one orders it again and hears that it is known."""
    world = grown(3)
    target = follower(world)
    put(world, "tick", tags={"at": str(target.number)})
    world.run_for(5)
    old = led(world)
    accepted: list[str] = []
    known: list[str] = []

    def tap(host: Host, effect: effects.Effect) -> bool:
        message = getattr(effect, "message", None)
        if host is not target or not isinstance(message, messages.RunAck):
            return False
        known.extend(ack.execution_id for ack in message.acks if ack.state == "known" and ack.execution_id in accepted)
        if not accepted:
            accepted.extend(ack.execution_id for ack in message.acks if ack.state == "accepted")
            if accepted:
                old.crash()
                return True
        return False

    world.tap = tap
    world.run_for(8)
    assert accepted
    assert known
    assert all(world.starts[one] == 1 for one in accepted)
    at_end(world)


def test_the_leader_dies_while_a_process_runs() -> None:
    """The next one waits; the result comes from the agent's outbox."""
    world = grown(4)
    target = follower(world)
    uid = put(world, "long", "@every 1h", tags={"at": str(target.number)})
    world.lasts_us = 4 * SECOND_US
    run_id = run_now(world, "long")
    assert world.run_until(lambda: bool(target.processes), 2)
    old = led(world)
    old.crash()
    world.run_for(6)
    record = next(one for one in runs_of(world, uid) if one.run_id == run_id)
    assert record.status is Status.SUCCESS
    assert led(world) is not old
    at_end(world)


def test_the_leader_dies_after_the_result_is_committed_and_before_its_answer() -> None:
    """The agent says it again and is answered by the next leader; the record does not change."""
    world = grown(5)
    target = follower(world)
    uid = put(world, "short", "@every 1h", tags={"at": str(target.number)})
    world.lasts_us = 1000
    old = led(world)
    died: list[str] = []
    acknowledged: list[str] = []

    def tap(host: Host, effect: effects.Effect) -> bool:
        message = getattr(effect, "message", None)
        if not isinstance(message, messages.ResultAck):
            return False
        if host is old:
            died.extend(message.execution_ids)
            host.crash()
            return True
        acknowledged.extend(message.execution_ids)
        return False

    world.tap = tap
    run_now(world, "short")
    world.run_for(5)
    assert died
    assert set(died) <= set(acknowledged)
    assert [one.status for one in runs_of(world, uid)] == [Status.SUCCESS]
    assert not target.agent.runner._outbox
    at_end(world)


# @reboot


def test_a_start_of_an_agent_runs_a_reboot_job_there_and_a_new_leader_is_no_start() -> None:
    """Each start is one run, on the agent that started, whoever leads and however often (P1): the run's id was once
    made of the leader and its session, so the second term of a session started the ids of the first again."""
    world = grown(7)
    uid = put(world, "boot", "@reboot")
    world.run_for(5)
    assert not runs_of(world, uid)
    with changed("meshcron.core.intents.START_WINDOW_US", 3 * SECOND_US):  # its agent soon forgets what it has run
        one = follower(world)
        one.crash()
        world.run_for(2)
        one.start()
        world.run_for(5)
        assert [run.node_id for run in runs_of(world, uid)] == [one.node_id]
        for _ in range(4):  # at least one of three leads twice in one session
            led(world).pause(2 * SECOND_US)
            world.run_for(8)
        old = led(world)
        old.crash()
        world.run_for(5)
        assert [run.node_id for run in runs_of(world, uid)] == [one.node_id]
        old.start()
        world.run_for(8)
    assert [run.node_id for run in runs_of(world, uid)] == [one.node_id, old.node_id]
    assert {run.status for run in runs_of(world, uid)} <= {Status.SUCCESS, Status.FAILED}
    at_end(world)


def test_a_start_that_only_the_dead_leader_has_recorded_is_owed_by_the_next_one() -> None:
    """The entry is committed and the leader dies before it decides the run: it runs once (P2)."""
    world = grown(7)
    uid = put(world, "boot", "@reboot", tags={"at": str(follower(world).number)})
    one, old = follower(world), led(world)
    one.crash()
    world.run_for(2)

    def tap(host: Host, effect: effects.Effect) -> bool:
        if host is old and any(row.kind == "reboot" for row in old.agent.state.owed.values()):
            world.tap = None
            old.crash()
            return True
        return False

    world.tap = tap
    one.start()
    assert world.run_until(lambda: not old.is_up, 30)
    world.run_for(10)
    assert [run.node_id for run in runs_of(world, uid)] == [one.node_id]
    assert runs_of(world, uid)[0].status in (Status.SUCCESS, Status.FAILED)
    at_end(world)


# orders that hang, hurry and overtake


def test_17_a_copy_of_an_order_that_hung_for_an_hour_starts_nothing() -> None:
    """The agent has long forgotten the execution, and even the hour: its durable mark has not."""
    a_copy_hangs(3_600)


def nobody_names_the_start() -> AbstractContextManager[None]:
    """Orders as of a leader that has not heard which start of an agent it speaks to."""
    return changed("meshcron.core.leading.Leading._start_of", lambda _leading, _node_id: "")


def test_17_nor_does_a_copy_that_does_not_name_the_start_it_is_for() -> None:
    """Such a one is refused because of the mark alone."""
    with nobody_names_the_start():
        a_copy_hangs(3_600)


def a_copy_hangs(hung_s: int) -> None:
    """In a queue, while another copy is obeyed, reported and forgotten."""
    world = Cluster(6, msgspec.structs.replace(SLOW, stable_us=2 * SECOND_US))
    leader = world.add({"role": "web"})
    worker = world.add({"role": "worker"})
    leader.start()
    world.run_for(4)
    worker.start()
    voters_are(world, 1)
    world.run_for(3)  # until it was heard
    put(world, "rare", "@every 24h", tags={"role": "worker"})
    world.lasts_us = 1000
    copies: list[str] = []

    def hold(source: Host, target: Host, message: messages.Message) -> bool:
        if isinstance(message, messages.Run) and message.specs and not copies:
            copies.extend(order.execution_id for order in message.orders)
            return True
        return False

    world.hold = hold
    run_now(world, "rare")
    world.run_for(hung_s)
    assert world.starts[copies[0]] == 1, "another copy came through"
    assert copies[0] not in worker.disk.tables["seen"], "and was forgotten"
    worker.crash()
    world.split([worker])
    worker.start()  # nobody has told it the time yet
    world.release()
    world.run_for(2)
    assert world.starts[copies[0]] == 1
    at_end(world)


def far_away(timing: Timing) -> tuple[Cluster, int, int]:
    """Three voters whose messages take 300 ms, more or less: they overtake one another, and many come twice. Lasts a
    minute; returns the job of each second on all of them, and by how much the term rose."""
    world = Cluster(16, timing)
    for at in range(3):
        world.add({"role": "web", "at": str(at)})
    for host in world.hosts:
        host.start()
    voters_are(world, 3)
    world.lasts_us = 1000
    uid, term = put(world, "tick", concurrency="allow"), led(world).agent.ledger.term
    world.weather = Weather(delay_us=(150_000, 450_000), duplicate=0.2)
    world.run_for(60)
    rose = max(host.agent.ledger.term for host in world.hosts) - term
    at_end(world)
    return world, uid, rose


def test_16_delay_jitter_reorder_and_duplicates() -> None:
    """With `--timing slow` nobody is taken for dead, and every tick runs on all three."""
    world, uid, rose = far_away(msgspec.structs.replace(SLOW, stable_us=2 * SECOND_US))
    assert rose == 0
    ended = [one.status for one in runs_of(world, uid) if one.status.final]
    assert set(ended) == {Status.SUCCESS}
    assert len(ended) > 3 * 60


def test_16_delay_jitter_reorder_and_duplicates_are_too_much_for_the_times_of_a_lan() -> None:
    """A lease there is shorter than two journeys, so leaders come and go; the promise holds all the same (`at_end`)."""
    world, uid, rose = far_away(SHORT)
    assert rose > 0
    ended = {one.status for one in runs_of(world, uid) if one.status.final}
    assert ended <= {Status.SUCCESS, Status.SKIPPED, Status.LOST}


def test_a_stop_that_overtakes_its_order_is_obeyed() -> None:
    """It is written down for an id nobody knows yet; the order that comes later starts nothing."""
    world = grown(7)
    target = follower(world)
    uid = put(world, "held", "@every 1h", tags={"at": str(target.number)})
    run_now(world, "held")  # from now on the agent has what it needs
    world.run_for(5)
    world.hold = lambda source, to, message: isinstance(message, messages.Run) and to is target
    run_id = run_now(world, "held")
    world.run_for(0.5)
    assert world.hung
    ask(world, commands.StopRun(run_id))
    world.run_for(1)
    assert [(one.status, one.reason) for one in runs_of(world, uid)][1:] == [(Status.SKIPPED, "stopped")]
    world.hold = None
    world.release()
    world.run_for(2)
    assert len(world.starts) == 1
    at_end(world)


def test_an_order_repeated_after_its_result_starts_nothing() -> None:
    """A result that is acknowledged is no reason to forget: copies of the order may be on their way still."""
    world = grown(8)
    target = follower(world)
    put(world, "twice", "@every 1h", tags={"at": str(target.number)})
    world.lasts_us = 1000
    run_now(world, "twice")
    world.run_for(1)
    copies: list[object] = []

    def hold(source: Host, to: Host, message: messages.Message) -> bool:
        copied = isinstance(message, messages.Run) and to is target and not copies
        if copied:
            copies.append(message)
        return copied

    world.hold = hold
    run_now(world, "twice")
    world.run_for(3)
    assert len(world.starts) == 2
    world.release()
    world.run_for(2)
    assert sorted(world.starts.values()) == [1, 1]
    at_end(world)


def test_an_order_of_an_old_leader_is_stale() -> None:
    """It comes out of a queue when its sender has been replaced, and the agent has obeyed the next one meanwhile."""
    world = grown(9)
    old = led(world)
    target = follower(world)
    uid = put(world, "held", "@every 1h", tags={"at": str(target.number)})
    put(world, "other", "@every 1h", tags={"at": str(target.number)})
    run_now(world, "held")  # from now on the agent has what it needs
    world.run_for(1)

    def hold(source: Host, to: Host, message: messages.Message) -> bool:
        return to is target and isinstance(message, messages.Run) and message.orders[0].uid == uid

    world.hold = hold
    run_now(world, "held")
    world.run_for(0.02)
    old.crash()
    assert world.hung
    late, world.hung = world.hung, []
    stale: list[str] = []

    def tap(host: Host, effect: effects.Effect) -> bool:
        message = getattr(effect, "message", None)
        if isinstance(message, messages.RunAck):
            stale.extend(ack.execution_id for ack in message.acks if ack.state == "stale")
        return False

    world.tap = tap
    world.run_for(3)
    run_now(world, "other")
    world.run_for(0.5)
    assert len(world.starts) == 2, "the other job has run"
    again, world.hung = world.hung, late
    world.release()
    world.run_for(0.5)
    assert stale
    assert len(world.starts) == 2
    world.hold, world.hung = None, again
    world.release()
    world.run_for(2)
    assert list(world.starts.values()) == [1, 1, 1]
    at_end(world)


def test_a_kill_of_an_old_leader_is_stale() -> None:
    """It comes out of a queue like the order above. What runs goes on until the leader that is obeyed by now wants its
    end, too."""
    world = grown(68)
    target = world.add({"role": "web", "at": "3"}, eligible=False)
    target.start()
    voters_are(world, 3)
    old = led(world)
    uid = put(world, "long", "@every 1h", tags={"at": str(target.number)})
    put(world, "other", "@every 1h", tags={"at": str(target.number)})
    world.lasts_us = 60 * SECOND_US
    run_id = run_now(world, "long")
    assert world.run_until(lambda: bool(target.processes), 2)
    (running,) = target.processes
    world.run_for(1)
    world.hold = lambda _source, to, message: to is target and isinstance(message, messages.Stop)
    world.ask(commands.StopRun(run_id))
    assert world.run_until(lambda: bool(world.hung), 1)
    old.crash()
    late, world.hung = world.hung, []
    world.run_for(3)
    run_now(world, "other")
    world.run_for(0.5)
    assert len(target.processes) == 2, "the other job runs"
    again, world.hung = world.hung, late
    world.release()
    world.run_for(0.5)
    assert running in target.processes
    world.hold, world.hung = None, again
    world.release()
    world.run_for(1)
    assert running not in target.processes
    assert [(one.status, one.stop) for one in runs_of(world, uid)] == [(Status.KILLED, "kill")]
    at_end(world)


def test_an_order_that_another_one_overtakes_is_obeyed() -> None:
    """It was decided first and comes second, under the same leader: which of two executions was decided earlier says
    nothing about whether an order is old."""
    world = grown(11)
    target = follower(world)
    first, _ = (put(world, name, "@every 1h", tags={"at": str(target.number)}) for name in ("first", "second"))
    world.hold = lambda _source, _to, message: isinstance(message, messages.Run) and message.orders[0].uid == first
    run_now(world, "first")
    run_now(world, "second")
    assert world.hung
    assert len(world.starts) == 1
    world.hold = None
    world.release()
    world.run_for(0.5)
    assert len(world.starts) == 2, "an order of the living leader is refused, for one about another execution"
    at_end(world)


def test_the_parameters_of_a_run_are_told_to_its_agents_only() -> None:
    """They may be secret, and PUB is heard by whoever listens to a topic: such an order goes to each target by itself,
    also when it is repeated to all by the next leader. One without parameters is published."""
    world = grown(49)
    worker = world.add({"role": "db", "at": "3"}, eligible=False)
    worker.start()
    voters_are(world, 3)
    put(world, "plain", "@manually", tags={"role": "web"})
    put(world, "secret", "@manually", tags={"role": "web"})
    world.lasts_us = 3 * SECOND_US
    published: list[str] = []
    told: list[tuple[str, dict[str, str] | None]] = []

    def tap(host: Host, effect: effects.Effect) -> bool:
        message = getattr(effect, "message", None)
        orders = message.orders if isinstance(message, messages.Run) else ()
        if isinstance(effect, effects.Publish):
            published.extend(order.run_id for order in orders)
        elif isinstance(effect, effects.Send):
            told.extend((effect.to, order.env) for order in orders if order.env)
        return False

    world.tap = tap
    run = run_now(world, "plain")
    answer = ask(world, commands.RunJob("secret", env={"TOKEN": "s3cret"}))
    assert isinstance(answer, commands.JobAnswer)
    led(world).crash()
    world.run_for(5)
    assert set(published) >= {run}
    assert {node_id for node_id, _ in told} == {host.node_id for host in world.hosts[:3]}
    at_end(world)
    assert len(world.starts) == 6


def test_what_piles_up_while_an_agent_hears_nothing_arrives_all_the_same() -> None:
    """Outcomes with outputs of control characters, 24 jobs of 60 KiB that it has not been told of, and forty runs
    with 16 KiB of parameters each: all is told again in the moment when it is back."""
    world = grown(50)
    away = follower(world)
    here = {"at": str(away.number)}
    put(world, "loud", "@manually", tags=here)
    for n in range(24):
        put(world, f"large{n}", "@manually", tags=here, payload="x" * 60_000)
    world.lasts_us = SECOND_US
    world.says = "\x01" * OUTPUT_TAIL_BYTES
    for _ in range(32):
        run_now(world, "loud")
    world.run_for(0.5)
    world.cuts = {(host, away) for host in world.hosts}
    for n in range(24):
        run_now(world, f"large{n}")
    for _ in range(40):
        ask(world, commands.RunJob("loud", env={"A": "x" * 16_000}))
    world.run_for(4)
    world.split([away])
    world.run_for(2)
    assert len(world.starts) == len(away.ended) == 32, "it is not told, or its processes run on"
    world.heal()
    world.run_for(20)
    assert len(world.starts) == 32 + 24 + 40
    assert not led(world).agent.state.open
    at_end(world)


def test_an_agent_and_its_leader_crash_while_a_process_runs() -> None:
    """The next leader orders it again, the next session of the agent knows: it runs once, and is adopted."""
    world = grown(46)
    target = follower(world)
    uid = put(world, "long", "@every 1h", tags={"at": str(target.number)})
    world.lasts_us = 6 * SECOND_US
    run_now(world, "long")
    assert world.run_until(lambda: bool(target.processes), 2)
    world.run_for(0.5)
    old = led(world)
    target.crash()
    old.crash()
    world.run_for(0.2)
    target.start()
    world.run_for(4)
    assert led(world) is not old
    world.run_for(6)
    assert [one.status for one in runs_of(world, uid)] == [Status.SUCCESS]
    assert list(world.starts.values()) == [1]
    at_end(world)


@pytest.mark.parametrize("what", ["job", "pause", "member"])
def test_who_has_answered_reads_its_write_after_a_crash(what: str) -> None:
    """It crashes in the instant after its answer, and the others hold the entry, too: back again it still knows."""
    world = grown(54)
    put(world, "tick", "@every 1h")
    old = led(world)
    wanted: dict[str, commands.Command] = {
        "job": commands.PutJob(Job(name="tick", schedule="@every 2h", command="true")),
        "pause": commands.SetPaused(paused=True),
        "member": commands.RemoveMember(follower(world).node_id),
    }

    def tap(host: Host, effect: effects.Effect) -> bool:
        if isinstance(effect, effects.Answer):
            world.later(1, host.crash)
            world.later(2, host.start)
            world.tap = None
        return False

    world.tap = tap
    answer = ask(world, wanted[what])
    assert not isinstance(answer, Exception), answer
    assert old.starts_taken == 2
    world.run_for(1)
    at_end(world)


def test_the_disks_of_all_hold_all_that_their_agents_know() -> None:
    """Jobs and runs, and also a pause, a token, a call that may be repeated."""
    world = grown(55)
    put(world, "tick")
    token = Token(id="t1", name="somebody", role="admin", sha256="0" * 64, created_wall_us=1)
    for command in (commands.PutToken(token), commands.SetPaused(paused=True), commands.RunJob("tick")):
        call = world.ask(command, key=type(command).__name__)
        assert world.run_until(lambda call=call: call in world.answers, 5), "no answer to a write"  # type: ignore[misc]
        assert not isinstance(world.answers[call], Exception), world.answers[call]
    world.run_for(2)
    leader = led(world)
    state = leader.agent.state
    assert state.paused
    assert state.calls.keys() == {"PutToken", "SetPaused", "RunJob"}
    check_same_everywhere(world, leader)
    check_fold(leader)


def at_rest(seed: int) -> Cluster:
    """Jobs have run, and all that was to be remembered of that is over."""
    world = grown(seed)
    with changed("meshcron.core.intents.START_WINDOW_US", 4 * SECOND_US):
        put(world, "tick", start_deadline_us=2 * SECOND_US)
        world.run_for(3)
        ask(world, commands.SetPaused(paused=True))
        world.run_for(7)
        check_bounds(world)
    return world


def test_what_is_over_is_forgotten() -> None:
    """By the agents that ran it, and by the leader, who has nothing to say any more."""
    world = at_rest(56)
    assert len(world.starts) > 6
    assert not any(host.agent.runner._seen for host in world.hosts)


@pytest.mark.parametrize("what", ["pending", "resend", "unsent"])
def test_a_leader_that_still_waits_is_told_of(what: str) -> None:
    """Whatever it would be that keeps something there."""
    world = at_rest(57)
    ours = led(world).agent.leadership.ours
    assert ours is not None
    left: dict[str, Any] = {"pending": {("x", False): None}, "resend": [(0, "x", False)], "unsent": ["x"]}
    setattr(ours._dispatch, f"_{what}", left[what])
    with pytest.raises(AssertionError, match=r"17: the leader host\d still waits"):
        check_bounds(world)


def test_two_people_run_a_job_in_the_same_instant() -> None:
    """Both decisions stand in the log before either is applied: the second finds the first and is refused."""
    world = grown(47)
    put(world, "alone", "@every 1h", tags={"role": "web:1"}, concurrency="forbid")
    calls = [world.ask(commands.RunJob("alone")) for _ in range(2)]
    world.run_for(2)
    first, second = (world.answers[call] for call in calls)
    assert isinstance(first, commands.JobAnswer)
    assert isinstance(second, Conflict)
    assert len(world.starts) == 1
    at_end(world)


def test_only_a_run_that_is_lost_may_be_overlapped_by_one_that_forbids_it() -> None:
    """Its agent is cut off while it runs: the record says lost, which means that it may still run, and it does. Any
    other word on it would say that it is over."""
    world = grown(53)
    workers = [world.add({"role": "db"}, eligible=False) for _ in range(2)]
    for worker in workers:
        worker.start()
    voters_are(world, 3)
    world.lasts_us = 20 * SECOND_US
    more = {"tags": {"role": "db:1"}, "concurrency": "forbid", "start_deadline_us": SECOND_US}
    uid = put(world, "alone", "*/3 * * * * *", **more)
    assert world.run_until(lambda: any(worker.processes for worker in workers), 5)
    away = next(worker for worker in workers if worker.processes)
    world.split([away], [host for host in world.hosts if host is not away])
    assert world.run_until(lambda: all(worker.processes for worker in workers), 15), "the job waits for a lost run"
    first = min((one for one in runs_of(world, uid) if one.node_id), key=lambda one: one.index)
    assert (first.status, first.node_id) == (Status.LOST, away.node_id)
    at_end(world)


def test_a_job_that_is_deleted_before_it_is_run_is_not_run() -> None:
    """Both stand in the log before either is applied. A process of it still runs, so that it is not forgotten yet."""
    world = grown(48)
    uid = put(world, "gone", "@every 1h", tags={"role": "web:1"})
    world.lasts_us = 5 * SECOND_US
    run_now(world, "gone")
    world.run_for(1)
    world.deletable.add("gone")
    deleted, late = world.ask(commands.DeleteJob("gone")), world.ask(commands.RunJob("gone"))
    world.run_for(2)
    assert isinstance(world.answers[deleted], commands.JobAnswer)
    assert led(world).agent.state.hidden.keys() == {uid}
    assert len(world.starts) == 1, "a deleted job runs"
    assert isinstance(world.answers[late], UnknownJob)
    at_end(world)


def test_a_job_that_is_edited_before_it_is_run_runs_as_edited() -> None:
    """Both stand in the log before either is applied: the run was decided for the definition that goes, and is decided
    anew. A process still runs by that one, so that it is kept."""
    world = grown(49)
    uid = put(world, "edited", "@every 1h", tags={"role": "web:1"})
    world.lasts_us = 5 * SECOND_US
    run_now(world, "edited")
    world.run_for(1)
    world.ask(commands.PutJob(Job(name="edited", schedule="@every 1h", command="false", tags={"role": "web:1"})))
    call = world.ask(commands.RunJob("edited"))
    world.run_for(2)
    answer = world.answers[call]
    assert isinstance(answer, commands.JobAnswer), answer
    (run,) = [one for one in runs_of(world, uid) if one.run_id == answer.run_id]
    assert run.revision == led(world).agent.state.jobs[uid].revision > uid, "it runs as it was before the edit"
    at_end(world)


def test_a_tick_that_is_decided_twice_runs_once() -> None:
    """A leader that forgets what it has in the log: an entry comes again when its tick has long run."""
    world = grown(50)
    propose = Ledger.propose
    decided: list[entries.Intents] = []

    def again(ledger: Ledger, entry: entries.Entry, turn: Turn) -> int:
        index = propose(ledger, entry, turn)
        if isinstance(entry, entries.Intents):
            decided.append(entry)
            if len(decided) == 5:
                propose(ledger, decided[0], turn)
        return index

    with changed("meshcron.core.ledger.Ledger.propose", again):
        uid = put(world, "tick", tags={"role": "web:1"}, concurrency="allow")
        world.run_for(6)
        at_end(world)
    assert len(decided) > 5
    assert len(runs_of(world, uid)) > 5
    assert set(world.starts.values()) == {1}


def followed_by(found: Callable[[entries.Entry], entries.Entry | None]) -> AbstractContextManager[None]:
    """Another entry stands in the log right behind one, before either is applied: decided a moment too early."""
    propose_all = Ledger.propose_all

    def more(ledger: Ledger, some: Sequence[entries.Entry], turn: Turn) -> int:
        index = propose_all(ledger, some, turn)
        for entry in some:
            if another := found(entry):
                propose_all(ledger, (another,), turn)
        return index

    return changed("meshcron.core.ledger.Ledger.propose_all", more)


def a_minute_later(decided: entries.Intents) -> entries.Intents:
    """The same decision about a tick that nobody has decided yet."""
    minute_us = 60 * SECOND_US
    items = tuple(
        msgspec.structs.replace(
            one,
            tick_wall_us=one.tick_wall_us + minute_us,
            next_wall_us=one.next_wall_us + minute_us,
        )
        for one in decided.items
    )
    return msgspec.structs.replace(decided, items=items)


@pytest.mark.parametrize("what", ["paused", "stepped"])
def test_a_tick_of_a_time_that_is_over_is_decided_anew(what: str) -> None:
    """It was decided before everything was paused, or before all clocks went back by an hour, and stands behind that in
    the log."""
    world = grown(75)
    uid = put(world, "tick", tags={"role": "web:1"}, concurrency="allow")
    decided: list[entries.Intents] = []
    late: list[entries.Intents] = []

    def found(entry: entries.Entry) -> entries.Entry | None:
        if isinstance(entry, entries.Intents):
            decided.append(entry)
        if not late and isinstance(entry, entries.Pause if what == "paused" else entries.Reseat):
            late.append(a_minute_later(decided[-1]))
            return late[0]
        return None

    with followed_by(found):
        world.run_for(5)
        if what == "paused":
            ask(world, commands.SetPaused(paused=True))
        else:
            for host in world.hosts:
                host.turn_clock(-3_600 * SECOND_US)
        world.run_for(6)
    assert late
    leader = led(world)
    ahead_us = leader.agent.state.jobs[uid].cursor_wall_us - leader.agent.clock.wall_us(leader.now())
    assert ahead_us < 10 * SECOND_US, "a cursor goes ahead by a decision that is void"
    ask(world, commands.SetPaused(paused=False))
    at_end(world)


def test_a_cluster_that_is_used_in_the_instant_of_its_end_goes_on() -> None:
    """It was to dissolve into another one, and its first job stands before that in the log."""
    world = grown(73)
    cluster = led(world).agent.cluster
    with followed_by(lambda entry: entries.Dissolve("f" * 32) if isinstance(entry, entries.JobPut) else None):
        uid = put(world, "first", tags={"role": "web:1"})
    world.run_for(3)
    assert all(host.is_up and host.agent.cluster == cluster for host in world.hosts), "a cluster with a job dissolves"
    assert runs_of(world, uid)
    at_end(world)


def test_who_becomes_a_voter_meanwhile_is_not_removed() -> None:
    """Its removal was decided when it had no vote. Nobody would speak to it any more, and its vote would count."""
    world = Cluster(74)
    for _ in range(3):
        world.add().start()

    def found(entry: entries.Entry) -> entries.Entry | None:
        if not isinstance(entry, entries.Roster) or len(entry.voters) != 2:
            return None
        state = led(world).agent.state
        (number,) = (one.number for one in state.members.values() if one.node_id in entry.voters and not one.voter)
        return entries.MemberRemove(number, 0)

    with followed_by(found):
        world.run_for(10)
    assert len(led(world).agent.state.members) == 3, "a voter is removed in one step"
    voters_are(world, 3)
    at_end(world)


def test_a_call_whose_answer_is_lost_with_the_leader_is_done_once() -> None:
    """Committed, and the leader dies before it answers: repeated by way of another agent it gets the first answer."""
    world = grown(60)
    uid = put(world, "once", "@every 1h", tags={"role": "web:1"})
    old = led(world)
    first = world.ask(commands.RunJob("once"), key="key")

    def tap(host: Host, effect: effects.Effect) -> bool:
        if host is old and host.is_up and isinstance(effect, effects.Answer):
            host.crash()
        return host is old and not host.is_up

    world.tap = tap
    assert world.run_until(lambda: not old.is_up, 5)
    world.tap = None
    assert first not in world.answers
    again = world.ask(commands.RunJob("once"), key="key") if led(world) is not old else ""
    assert world.run_until(lambda: again in world.answers, 5)
    answer = world.answers[again]
    assert isinstance(answer, commands.JobAnswer), answer
    world.run_for(3)
    assert [one.run_id for one in runs_of(world, uid)] == [answer.run_id], "a repeated call ran twice"
    at_end(world)


@pytest.mark.parametrize("how", ["disabled", "killed", "deleted", "recovered"])
def test_what_is_owed_to_three_agents_and_given_up_is_recorded_for_each(how: str) -> None:
    """A run has failed on all three, and a person does not want its second attempts, or two of the three are gone for
    good. Of a deleted job nothing stays."""
    world = grown(47)
    uid, run = owed_by_three(world)
    if how == "disabled":
        put(world, "three", "@manually", retries=1, disabled=True)
    elif how == "killed":
        ask(world, commands.StopRun(run))
    elif how == "deleted":
        world.deletable.add("three")
        ask(world, commands.DeleteJob("three"))
    else:
        survivor = led(world)
        for host in world.hosts:
            host.crash()
        recover(survivor)
        world.run_for(5)
    world.run_for(1)
    second = sorted((one.agent, one.status, one.reason) for one in runs_of(world, uid) if one.attempt == 2)
    ended = (Status.LOST, "recovered") if how == "recovered" else (Status.SKIPPED, "stopped")
    assert second == [(host.name, *ended) for host in world.hosts if how != "deleted"]
    at_end(world)


def owed_by_three(world: Cluster) -> tuple[int, str]:
    """A job whose run has failed on three agents, which try again in ten minutes. Returns its uid and the run's id."""
    world.lasts_us = 3600 * SECOND_US
    uid = put(world, "three", "@manually", retries=1, retry_delay_us=600 * SECOND_US)
    run = run_now(world, "three")
    world.run_for(1)
    for host in world.hosts:
        (execution_id,) = host.processes
        host.end(execution_id, 1, None)
    world.run_for(1)
    return uid, run


def test_an_agent_that_crashes_after_each_step_of_a_run_starts_it_once() -> None:
    """Whatever it had done, it knows: accepted, about to start, running, ended."""
    steps = (effects.StartProcess, messages.RunAck, messages.StartedReport, messages.Result)
    for seed, step in enumerate(steps, start=30):
        world = grown(seed)
        target = follower(world)
        uid = put(world, "tick", "@every 1h", tags={"at": str(target.number)})
        world.lasts_us = SECOND_US

        def die(host: Host = target) -> None:
            host.crash()
            host.world.later(300_000, host.start)

        crash = once(die)

        def tap(
            host: Host,
            effect: effects.Effect,
            target: Host = target,
            step: type = step,
            crash: Callable[[], None] = crash,
        ) -> bool:
            message = getattr(effect, "message", None)
            shown = isinstance(effect, step) or isinstance(message, step)
            if isinstance(message, messages.RunAck):
                shown &= message.acks[0].state == "accepted"
            if host is target and shown:
                host.world.later(1, crash)  # it has left; nothing after it has
            return False

        world.tap = tap
        run_now(world, "tick")
        world.run_for(6)
        assert [one.status for one in runs_of(world, uid)] == [Status.SUCCESS], step
        assert list(world.starts.values()) == [1]
        at_end(world)


# who leads


def test_a_bully_that_answers_and_stays_mute_blocks_nobody() -> None:
    """It says that it stands and never does: the asker waits one timeout and goes on."""
    world = grown(10)
    old = led(world)
    others = sorted((host for host in world.hosts if host is not old), key=lambda host: host.node_id)
    bully = others[-1]

    def tap(host: Host, effect: effects.Effect) -> bool:
        return host is bully and isinstance(getattr(effect, "message", None), messages.Vote | messages.PreVote)

    world.tap = tap
    old.crash()
    world.run_for(3.5)
    assert world.leader() is others[0], world.describe()
    at_end(world)


@pytest.mark.parametrize("deaf", [True, False])
def test_a_leader_cut_in_one_direction_makes_way(deaf: bool) -> None:
    """One that hears nobody, or that nobody hears, stops by its own lease; the others choose another one."""
    world = grown(11 + deaf)
    put(world, "tick", tags={"role": "web:1"})
    world.run_for(4)
    old = led(world)
    for other in world.hosts:
        if other is not old:
            world.cuts.add((other, old) if deaf else (old, other))
    world.run_for(0.65)
    assert not old.agent.leading, "its lease is over before anybody else can lead"
    world.run_for(2.5)
    assert led(world) is not old
    at_end(world)


@pytest.mark.parametrize("middle_leads", [True, False])
def test_a_cut_between_two_of_three_changes_no_term(middle_leads: bool) -> None:
    """A hears B and C, B and C do not hear each other: whoever leads keeps its term, and keeps it when it heals."""
    world = grown(13)
    leader = led(world)
    one, other = (host for host in world.hosts if host is not leader)
    ends = (one, other) if middle_leads else (leader, other)
    world.cuts |= {ends, ends[::-1]}
    term = leader.agent.ledger.term
    world.run_for(30)
    assert leader.agent.leading
    assert max(host.agent.ledger.term for host in world.hosts) == term, f"terms rise\n{world.describe()}"
    world.heal()
    world.run_for(3)
    assert leader.agent.leading
    assert leader.agent.ledger.term == term
    at_end(world)


def test_a_new_leader_says_so_at_once() -> None:
    """A worker holds no log, so no Append tells it: it hears one beat in the moment in which the new leader may act,
    and the next one a beat later. Three times, for a beat that was due anyhow would do as well."""
    world = grown(14)
    worker = world.add(eligible=False)
    worker.start()
    world.run_for(5)
    beats: list[int] = []
    old = led(world)

    def tap(host: Host, effect: effects.Effect) -> bool:
        said = effect.message if isinstance(effect, effects.Publish) else None
        if isinstance(said, messages.Heartbeat) and said.leader == host.node_id and host is not old:
            beats.append(world.now_us)
        return False

    world.tap = tap
    for _ in range(3):
        old.crash()
        beats.clear()
        while world.leader() is None:
            world.run_for(0.001)
        began_us = world.now_us
        world.run_for(0.005)
        assert worker.agent.leader == led(world).node_id, "the worker has not heard who leads"
        world.run_for(0.2)
        assert [at_us - began_us <= 0 for at_us in beats] == [True]
        old.start()
        world.run_for(8)
        old = led(world)
    at_end(world)


def test_a_leader_that_was_stopped_finds_its_lease_void_before_it_acts() -> None:
    """SIGSTOP for 10 s: another one leads within 1.3 s. What waited in its sockets is read by a follower; it gives no
    order of its old term."""
    world = grown(14)
    put(world, "tick", concurrency="forbid")
    world.run_for(4)
    old = led(world)
    term = old.agent.ledger.term
    old.pause(10 * SECOND_US)
    said: list[object] = []

    def tap(host: Host, effect: effects.Effect) -> bool:
        message = getattr(effect, "message", None)
        if host is old and isinstance(message, messages.Run) and message.fence.term <= term:
            said.append(message)
        if host is old and isinstance(message, messages.Append) and message.term <= term:
            said.append(message)
        return False

    world.tap = tap
    assert world.run_until(lambda: world.leader() is not old, STOPPED_SECONDS), "6: no new leader in time"
    world.run_for(11)
    assert not said, "it speaks as leader of its old term"
    assert not old.paused_until_us
    at_end(world)


def test_a_leader_whose_answers_come_late_stops_before_another_one_leads() -> None:
    """It is cut off, and answers to what it sent before hang in a queue and come in one after the other. They tell how
    long ago it was heard, not that it is: the others wait no longer than from then on."""
    world = grown(52)
    old = led(world)
    world.hold = lambda _source, target, message: target is old and isinstance(message, messages.Appended)
    world.run_for(0.3)
    world.split([old])
    hung, world.hung = world.hung, []
    assert len(hung) >= 6
    for _ in range(6):
        world.run_for(0.1)
        hung.pop(0)()
        for _ in range(20):
            world.run_for(0.01)
            leaders = [host.name for host in world.hosts if host.agent.ledger.leads]
            assert len(leaders) <= 1, f"{leaders} lead in the same instant"
    assert led(world) is not old
    at_end(world)


def test_slow_disks_of_followers_take_no_lease() -> None:
    """Writes without a pause, and disks that answer after up to 1.5 s: each answer to an entry waits for them. That the
    leader is heard does not, and it leads on. For ten seconds, with fifty writes a second, every one of them done."""
    world = grown(28)
    leader = led(world)
    term = leader.agent.ledger.term
    for host in world.hosts:
        host.slow_disk = host is not leader
    calls = []
    for at in range(500):
        calls.append(world.ask(commands.PutJob(Job(name=f"job{at}", schedule="@manually", command="true"))))
        world.run_for(0.02)
        assert world.leader() is leader, world.describe()
    assert leader.agent.ledger.term == term
    world.run_for(5)
    assert all(isinstance(world.answers[call], commands.JobAnswer) for call in calls)
    assert not world.alarms["stepped_down"]
    at_end(world)


def test_a_minority_decides_nothing() -> None:
    """The leader alone on its side of a cut: it answers that it cannot, and what it wrote last may never be."""
    world = grown(15, 5)
    put(world, "tick", tags={"role": "web:1"})
    world.run_for(3)
    old = led(world)
    partner = follower(world)
    world.split([old, partner])
    old.give(Proposed("late", commands.SetPaused(paused=True)))
    world.run_for(4)
    assert not isinstance(world.answers.get("late"), bool)
    assert not old.agent.leading
    new = led(world)
    assert new not in (old, partner)
    assert not new.agent.state.paused
    at_end(world)


def test_a_leader_cut_off_says_so_at_once() -> None:
    """No lease, no leader: people hear 503 instead of waiting for a majority that does not come."""
    world = grown(16)
    old = led(world)
    world.split([old])
    world.run_for(0.7)
    old.give(Proposed("write", commands.SetPaused(paused=True)))
    world.run_for(0.1)
    assert "write" in world.answers, "a write waits at a leader without a lease"
    assert not old.agent.leading
    at_end(world)


# disks and logs


def test_a_machine_with_a_new_disk_takes_its_old_name_and_then_its_seat() -> None:
    """The old identity keeps its vote until a majority has replaced it; nobody votes in its name. Then it is gone."""
    with changed("meshcron.core.roster.DEAD_US", 40 * SECOND_US):
        world = grown(17)
        put(world, "tick", tags={"role": "web:1"}, start_deadline_us=20 * SECOND_US)
        machine = follower(world)
        gone = machine.node_id
        machine.crash()
        machine.wipe()
        machine.start()
        world.run_for(32)
        names = {one.name: one for one in led(world).agent.state.members.values()}
        assert names[machine.name].node_id == machine.node_id
        assert gone in led(world).agent.ledger.voters, "its seat is another matter"
        assert world.run_until(lambda: led(world).agent.ledger.voters == {one.node_id for one in world.hosts}, 30)
        world.run_for(3)
        assert len(led(world).agent.state.members) == 3
        single_steps(world)
        world.run_for(START_BY_S)
        at_end(world)


def test_a_worker_with_a_new_disk_is_one_member() -> None:
    """It has no seat to give up: with its name the old identity is gone in one entry, and what was open on it is lost,
    not open for a minute more, nor its ticks recorded twice from then on."""
    world = grown(17)
    machine = world.add({"at": "3"}, eligible=False)
    machine.start()
    voters_are(world, 3)
    world.run_for(2)
    world.lasts_us = 3600 * SECOND_US
    uid = put(world, "long", "@manually", tags={"at": "3"}, timeout_us=7200 * SECOND_US)
    run_now(world, "long")
    assert world.run_until(lambda: bool(machine.processes), 3)
    world.run_for(1)
    machine.crash()
    machine.wipe()
    machine.processes.clear()
    machine.start()
    assert world.run_until(lambda: led(world).agent.state.member_of(machine.node_id) is not None, 40), world.describe()
    assert [one.name for one in led(world).agent.state.members.values()].count(machine.name) == 1
    assert len(led(world).agent.state.members) == 4
    world.run_for(1)
    assert [(one.status, one.reason) for one in runs_of(world, uid)] == [(Status.LOST, "its agent was removed")]
    at_end(world)


def left_behind(seed: int) -> tuple[Cluster, Host]:
    """Three vote and a job runs each second; one of them has heard nothing for 25 s. Where logs are short the others
    have forgotten what it lacks."""
    world = grown(seed)
    put(world, "tick")
    lagging = follower(world)
    world.split([lagging])
    world.run_for(25)
    return world, lagging


def test_a_follower_far_behind_gets_a_snapshot() -> None:
    """The leader has forgotten the entries it lacks: the catalog as a whole, and the log from there on."""
    with changed("meshcron.core.log.KEPT_ENTRIES", 10):
        world, lagging = left_behind(18)
        sent: list[str] = []

        def tap(host: Host, effect: effects.Effect) -> bool:
            if isinstance(effect, effects.SendSnapshot):
                sent.append(effect.to)
            return False

        world.tap = tap
        world.heal()
        world.run_for(3)
        assert sent == [lagging.node_id]
        ours, theirs = led(world).agent.state, lagging.agent.state
        assert theirs.applied[0] >= ours.applied[0] - 3, "the follower gets nothing after its snapshot"
        lagging.crash()
        lagging.start()
        at_end(world)


def test_a_follower_that_dies_before_its_snapshot_is_durable_gets_another_one() -> None:
    """It has said that it has all of it, and starts anew with the log that it had before."""
    with changed("meshcron.core.log.KEPT_ENTRIES", 10):
        world, lagging = left_behind(52)
        lost: list[Host] = []

        def tap(host: Host, effect: effects.Effect) -> bool:
            if isinstance(effect, effects.InstallSnapshot) and not lost:
                lost.append(host)
                world.later(2000, host.crash)
                return True
            return False

        world.tap = tap
        world.heal()
        world.run_for(1)
        assert lost == [lagging]
        lagging.start()
        world.run_for(4)
        assert lagging.agent.state.applied[0] >= led(world).agent.state.applied[0] - 3, "the follower gets nothing"
        at_end(world)


def test_a_snapshot_that_takes_too_long_is_followed_by_another() -> None:
    """Meanwhile the leader's log was cut beyond it: there is nothing to go on with."""
    with changed("meshcron.core.log.KEPT_ENTRIES", 10):
        world, lagging = left_behind(51)
        sent: list[str] = []

        def tap(host: Host, effect: effects.Effect) -> bool:
            if isinstance(effect, effects.SendSnapshot):
                sent.append(effect.to)
                if len(sent) == 1:
                    lagging.pause(20 * SECOND_US)
            return False

        world.tap = tap
        world.heal()
        world.run_for(24)
        assert len(sent) > 1
        assert lagging.agent.state.applied[0] >= led(world).agent.state.applied[0] - 3, world.describe()
        at_end(world)


@pytest.mark.parametrize("seed", [4, 7, 13, 17])
def test_seeds_whose_followers_lack_too_much_of_a_short_log(seed: int) -> None:
    """Two such were stuck for ever, and so would these be if what a follower says to a snapshot did not count."""
    assert keeps_its_promise(seed).happened["snapshot"]


def test_a_snapshot_that_comes_late_takes_nothing_back() -> None:
    """What the follower has acknowledged behind it was counted: it stays (Raft, 7: retain what follows)."""
    world = grown(49)
    leader = led(world)
    follows, away = (host for host in world.hosts if host is not leader)
    world.run_for(1)
    world.split([away])
    world.hold = lambda source, to, message: to is follows and isinstance(message, messages.Append)
    for paused in (True, False):
        leader.give(Proposed(f"pause-{paused}", commands.SetPaused(paused=paused)))
    both = list(world.hung)
    assert len(both) == 2
    world.hung = both[:1]
    world.release()
    world.run_for(0.02)
    assert world.answers["pause-True"] is True
    world.send_snapshot(leader, effects.SendSnapshot(follows.node_id, leader.agent.ledger.term))
    world.hung = both[1:]
    world.release()
    world.run_for(0.0015)
    last = follows.agent.ledger.last_index
    world.run_for(0.1)
    assert follows.agent.ledger.last_index >= last, "acknowledged entries are thrown away"
    assert world.answers["pause-False"] is False
    leader.crash()
    at_end(world)
    assert not led(world).agent.state.paused


def test_a_follower_with_other_entries_takes_over_the_leader_s() -> None:
    """What a cut-off leader wrote alone is replaced; its caller had been told that the outcome is unknown."""
    world = grown(19)
    put(world, "tick", tags={"role": "web:1"})
    world.run_for(2)
    old = led(world)
    world.split([old])
    before = old.agent.ledger.last_index
    old.give(Proposed("alone", commands.SetPaused(paused=True)))
    world.run_for(0.3)
    assert old.agent.ledger.last_index > before
    world.run_for(3)
    assert "outcome" in str(world.answers["alone"]).lower() or "leader" in str(world.answers["alone"]).lower()
    world.heal()
    world.run_for(3)
    assert not old.agent.state.paused
    at_end(world)


def test_of_two_machines_both_have_what_a_person_was_told() -> None:
    """One votes, and the other one is a warm learner: its copy is waited for, for 50 ms. After two writes that it did
    not get in time it is not, until it has caught up; then it is again."""
    world = Cluster(31)
    first, second = world.add(), world.add()
    first.start()
    world.run_for(4)
    second.start()
    voters_are(world, 1)
    world.run_for(15)
    told: list[tuple[bool, int]] = []
    asked_us = 0

    def tap(host: Host, effect: effects.Effect) -> bool:
        if isinstance(effect, effects.Answer):
            told.append((second.disk.last_index >= host.agent.ledger.commit_index, world.now_us - asked_us))
        return False

    world.tap = tap

    def writes(count: int) -> None:
        nonlocal asked_us
        told.clear()
        for at in range(count):
            asked_us = world.now_us
            put(world, f"job{at}", "@manually")

    writes(20)
    assert all(both and took_us < 20_000 for both, took_us in told), told
    second.pause(2 * SECOND_US)
    writes(6)
    late = [took_us >= 50_000 for _, took_us in told]
    assert (sum(late), late[-3:]) == (2, [False] * 3), told
    assert all(took_us < 60_000 for _, took_us in told), told
    world.run_for(5)
    writes(5)
    assert all(both for both, _ in told), told
    at_end(world)


# disks and identities


def test_a_follower_whose_disk_went_back_votes_no_more() -> None:
    """It had acknowledged a write that is committed with its copy. The leader finds out and tells it: it sets its
    database aside and is a newcomer, so that nobody who lacks the write can be elected with its vote."""
    world = grown(61)
    leader, forgetful, behind = led(world), follower(world), follower(world, 1)
    world.run_for(1)
    before, old_id = copy.deepcopy(forgetful.disk), forgetful.node_id

    def tap(_host: Host, effect: effects.Effect) -> bool:
        if not isinstance(effect, effects.Send) or effect.to != behind.node_id:
            return False
        return isinstance(effect.message, messages.Append) and bool(effect.message.heads)

    world.tap = tap
    put(world, "kept", tags={"at": str(leader.number)})  # nothing is open for long on whoever is gone
    world.run_for(0.3)
    forgetful.roll_back(before)
    world.run_for(2)
    assert led(world) is leader
    leader.crash()
    world.tap = None
    world.run_for(8)
    assert world.leader() is None, "one of three voters is left, and it lacks what was promised"
    assert forgetful.node_id != old_id
    leader.start()
    assert world.run_until(lambda: led(world).agent.state.member_of(forgetful.node_id) is not None, 60)
    assert led(world).agent.state.job_view("kept") is not None
    assert not member_of(led(world), forgetful.node_id).voter
    assert world.alarms["amnesia"] == 2, "the leader says so, and the agent itself"
    at_end(world)


def test_a_voter_that_has_its_identity_alone_is_let_in_by_nobody() -> None:
    """It had acknowledged a write that is committed with its copy. Its disk then lost all but who it is, and the other
    one, which lacks the write, has started since and remembers nothing of its starts: together they would elect a
    leader without the write. It is refused, and told why, until the machine has a new disk."""
    world = grown(61)
    leader, forgetful, behind = led(world), follower(world), follower(world, 1)
    world.run_for(1)

    def tap(_host: Host, effect: effects.Effect) -> bool:
        if not isinstance(effect, effects.Send) or effect.to != behind.node_id:
            return False
        return isinstance(effect.message, messages.Append) and bool(effect.message.heads)

    world.tap = tap
    put(world, "kept", tags={"at": str(leader.number)})
    world.run_for(0.3)
    world.tap = None
    for host in (leader, forgetful, behind):
        host.crash()
    old_id = forgetful.node_id
    forgetful.wipe()
    forgetful.node_id = old_id
    behind.start()
    world.run_for(2)
    forgetful.start()
    world.run_for(20)
    assert world.leader() is None, "one of three voters is left, and it lacks what was promised"
    assert "remembers nothing" in forgetful.agent.refused
    forgetful.crash()
    forgetful.wipe()
    forgetful.start()
    leader.start()
    assert world.run_until(lambda: led(world).agent.state.member_of(forgetful.node_id) is not None, 60)
    assert led(world).agent.state.job_view("kept") is not None
    at_end(world)


def test_late_answers_accuse_nobody() -> None:
    """What a follower answered before it acknowledged more arrives after it, and again in its next session."""
    world = grown(62)
    slow = follower(world)
    put(world, "tick", tags={"role": "web:1"})
    hung: list[messages.Appended] = []

    def hold(source: Host, _target: Host, message: messages.Message) -> bool:
        if source is not slow or not isinstance(message, messages.Appended) or world.random.random() < 0.5:
            return False
        hung.append(message)
        return True

    world.hold = hold
    for _ in range(6):
        world.run_for(2)
        world.release()
    slow.crash()
    slow.start()
    world.run_for(1)
    world.release()
    assert len(hung) > 50
    at_end(world)
    assert slow.node_id in led(world).agent.ledger.voters


def original_and_copy(seed: int) -> tuple[Cluster, Host, Host]:
    """Three voters with a tick on one of them, and a fourth machine that will have a copy of that one's directory."""
    world = grown(seed)
    original = follower(world)
    put(world, "tick", tags={"at": str(original.number)}, concurrency="allow")
    copied = world.add({"role": "web", "at": str(original.number)})
    world.run_for(3)
    return world, original, copied


def copy_is_refused(world: Cluster, copied: Host) -> None:
    """It ends, both sides say so, and nothing was started twice (the simulator's own check)."""
    assert world.run_until(lambda: not copied.is_up, 8), "two run under one node id"
    assert world.alarms["copy"]
    world.hosts.remove(copied)
    world.run_for(3)
    at_end(world)


def test_a_copy_made_while_its_agent_runs_is_refused() -> None:
    """It has the next start number, as after a restart; but the earlier start is heard on and on."""
    world, original, copied = original_and_copy(64)
    copied.copy_of(original)
    copied.start()
    copy_is_refused(world, copied)
    assert original.is_up


def test_two_starts_with_one_number_are_two_copies() -> None:
    """Copied while nobody ran there: the one that comes later is refused at once."""
    world, original, copied = original_and_copy(65)
    original.crash()
    copied.copy_of(original)
    original.start()
    world.run_for(3)
    copied.start()
    copy_is_refused(world, copied)
    assert original.is_up


def test_a_directory_put_back_to_an_earlier_day_is_refused() -> None:
    """Its start number falls. A message may be old; a Hello that repeats what the gate just said is not."""
    world, original, _ = original_and_copy(66)
    before, starts = copy.deepcopy(original.disk), original.starts_taken
    for _ in range(2):
        original.crash()
        original.start()
        world.run_for(2)
    original.starts_taken = starts
    original.roll_back(before)
    assert world.run_until(lambda: not original.is_up, 8), "a lower start number is taken in"
    assert world.alarms["copy"]


def test_an_agent_that_starts_again_at_once_is_no_copy() -> None:
    """Nobody has noticed that its last start ended: it waits for a second, and is let in."""
    world = grown(67)
    again = follower(world)
    put(world, "tick", tags={"at": str(again.number)}, concurrency="allow")
    for _ in range(3):
        again._agent = None  # no connection is seen to close: its machine lost power
        again.session += 1
        world.run_for(0.1)
        again.start()
        world.run_for(4)
        assert led(world).agent.is_heard(again.node_id, led(world).now())
    assert not world.alarms["copy"]
    at_end(world)


def let_hear(copied: Host, leader: Host) -> None:
    """Nobody lets it in, but it knows where the others are, and hears what they publish."""
    world = leader.world
    world.cuts |= {(copied, host) for host in world.hosts if host is not copied}
    welcome = messages.Welcome(
        profile=leader.agent.profile(),
        cluster=leader.agent.cluster,
        generation=0,
        roster_index=leader.agent.state.roster_index + 1,
        members=leader.agent.roster(),
        leader=leader.node_id,
    )
    copied.give(KnockAnswered(leader.endpoint.host, leader.endpoint.gate_port, welcome))


def test_a_copy_that_hears_the_orders_obeys_none() -> None:
    """Nobody lets it in, but it knows where the others are and hears what they publish: an order names the start of the
    agent that it is for."""
    world = grown(68)
    original, leader = follower(world), led(world)
    copied = world.add({"role": "web"})
    copied.copy_of(original)
    copied.start()
    put(world, "everywhere", concurrency="allow")
    let_hear(copied, leader)
    before = len(world.starts)
    heard: list[messages.Ack] = []

    def tap(host: Host, effect: effects.Effect) -> bool:
        if host is copied and isinstance(effect, effects.Send) and isinstance(effect.message, messages.RunAck):
            heard.extend(effect.message.acks)
        return False

    world.tap = tap
    world.run_for(5)
    assert heard, "it heard no order"
    assert {ack.state for ack in heard} == {"not_now"}, "the copy takes orders that are not for it"
    assert len(world.starts) > before
    copied.crash()
    world.hosts.remove(copied)
    at_end(world)


def armed_at(host: Host) -> set[str]:
    """What its disk says it has accepted and not started."""
    rows = host.disk.tables["seen"].values()
    return {row.execution_id for row in rows if isinstance(row, SeenRow) and row.state == "accepted"}


def test_a_copy_made_while_orders_are_armed_starts_none_of_them() -> None:
    """They stand in it as accepted, and the leader's stamps tell it when: but it is not its start that is asked."""
    world, original, copied = original_and_copy(69)
    assert world.run_until(lambda: len(armed_at(original)) > 1, 3)
    copied.copy_of(original)
    armed = armed_at(copied)
    copied.start()
    let_hear(copied, led(world))
    assert world.run_until(lambda: copied.agent.clock.running, 1), "it hears nobody"
    world.run_for(5)
    assert all(world.starts[one] == 1 for one in armed)
    copied.crash()
    world.hosts.remove(copied)
    at_end(world)


@pytest.mark.parametrize("hosts", [1, 3])
def test_an_agent_that_starts_anew_fires_what_it_had_accepted_on_time(hosts: int) -> None:
    """The leader asks its new start once it hears of it; one that is alone asks itself."""
    world = grown(70, hosts)
    target = led(world) if hosts == 1 else follower(world)
    put(world, "tick", "*/5 * * * * *", tags={"at": str(target.number)}, concurrency="allow")
    world.run_for(6)
    for _ in range(3):
        assert world.run_until(lambda: not armed_at(target), 6)
        assert world.run_until(lambda: bool(armed_at(target)), 6)  # seconds ahead
        armed = armed_at(target)
        target.crash()
        world.run_for(0.5)
        target.start()
        world.run_for(4)
        assert all(world.late_us[one] < 50_000 for one in armed), "late"
    at_end(world)


@pytest.mark.parametrize("away_s", [4.2, 9])
def test_an_agent_that_comes_back_too_late_for_what_it_had_accepted_says_so(away_s: float) -> None:
    """After start_by nothing is fired, asked again or not; also where it was recorded as lost meanwhile."""
    world = grown(71)
    target = follower(world)
    uid = put(world, "tick", "*/30 * * * * *", tags={"at": str(target.number)}, start_deadline_us=2 * SECOND_US)
    assert world.run_until(lambda: bool(armed_at(target)), 31)
    (armed,) = armed_at(target)
    world.run_for(1.5)
    target.crash()
    world.run_for(away_s)
    target.start()
    world.run_for(3)
    (record,) = [one for one in runs_of(world, uid) if one.id == armed]
    assert (record.status, record.reason[:24]) == (Status.SKIPPED, "late: the agent was away")
    assert armed not in world.starts
    at_end(world)


def test_a_voter_cut_off_while_its_cluster_dissolved_follows_it() -> None:
    """The others are gone under new node ids, and nobody is left to lead or to tell it."""
    world = grown(69)
    cut_off = follower(world)
    world.split([cut_off])
    lived_in = world.add()
    world.cuts |= {pair for host in world.hosts for pair in ((host, lived_in), (lived_in, host))}
    lived_in.start()
    world.run_for(5)
    lived_in.give(Proposed("put", commands.PutJob(Job(name="mine", schedule="@every 1h", command="true"))))
    world.run_for(1)
    gone = cut_off.agent.cluster
    world.cuts = {pair for pair in world.cuts if cut_off in pair}
    world.run_for(20)
    assert gone not in {host.agent.cluster for host in world.hosts if host is not cut_off}
    assert cut_off.agent.cluster == gone
    world.heal()
    world.run_for(45)
    assert {host.agent.cluster for host in world.hosts} == {lived_in.agent.cluster}
    assert len(led(world).agent.state.members) == 4
    at_end(world)


@pytest.mark.parametrize("away_s", [5, 40])
def test_a_voter_cut_off_from_a_cluster_that_lives_stays_with_it(away_s: float) -> None:
    """It meets another cluster of its key meanwhile: for a moment, or for long and with a job of its own cluster's."""
    world = grown(70)
    cut_off = follower(world)
    stranger = world.add()
    world.cuts |= {pair for host in world.hosts for pair in ((host, stranger), (stranger, host))}
    if away_s > 30:
        put(world, "ours", "@every 1h")
    world.split([cut_off])
    stranger.start()
    world.run_for(5)
    stranger.give(Proposed("put", commands.PutJob(Job(name="mine", schedule="@every 1h", command="true"))))
    world.run_for(1)
    before = cut_off.node_id
    world.cuts -= {(cut_off, stranger), (stranger, cut_off)}
    world.run_for(away_s)
    assert cut_off.node_id == before


# how a cluster forms, grows and shrinks


def test_two_clusters_formed_in_the_same_instant_become_one() -> None:
    """Neither saw the other; both are unused: the one with the larger id dissolves into the other."""
    world = Cluster(20)
    one, other = world.add(), world.add()
    world.cuts |= {(one, other), (other, one)}
    one.start()
    other.start()
    world.run_for(5)
    clusters = {host.agent.cluster for host in world.hosts}
    assert len(clusters) == 2
    world.heal()
    world.run_for(20)
    assert {host.agent.cluster for host in world.hosts} == {min(clusters)}
    assert len(led(world).agent.state.members) == 2
    at_end(world)


def test_a_worker_that_heard_nothing_of_the_end_of_its_cluster_follows() -> None:
    """It holds no log, so nobody tells it; the machine whose cluster it was in belongs to the other one by now."""
    world = Cluster(52)
    one, other = world.add(), world.add()
    workers = [world.add(eligible=False) for _ in range(2)]
    world.split([one, workers[0]], [other, workers[1]])
    for host in world.hosts:
        host.start()
    world.run_for(8)
    clusters = {host.agent.cluster for host in world.hosts}
    assert len(clusters) == 2
    assert all(clusters)
    world.heal()
    world.run_for(30)
    assert {host.agent.cluster for host in world.hosts} == {min(clusters)}
    assert len(led(world).agent.state.members) == 4
    at_end(world)


def obey_in_a_higher_term(world: Cluster, worker: Host) -> None:
    """The worker has orders of a leader of the third term or a later one."""
    for _ in range(3):
        old = led(world)
        old.crash()
        world.run_for(3)
        old.start()
        world.run_for(3)
    put(world, "tick", tags={"role": "worker"}, concurrency="allow")
    world.run_for(4)
    assert worker.agent.runner.fence.term > 2


def test_a_worker_obeys_the_cluster_that_took_the_place_of_its_own() -> None:
    """All others were installed anew: the terms of the new cluster begin at 1, and what was obeyed in the old one says
    nothing there. Nor do the clocks: the old one was an hour ahead."""
    world = Cluster(76)
    for at in range(3):
        world.add({"at": str(at)}).turn_clock(3_600 * SECOND_US)
    worker = world.add({"role": "worker"}, eligible=False)
    for host in world.hosts:
        host.start()
    voters_are(world, 3)
    obey_in_a_higher_term(world, worker)
    for host in world.hosts:
        host.crash()
        if host is not worker:
            host.wipe()
            host.turn_clock(-3_600 * SECOND_US)
    for host in world.hosts:
        host.start()
    voters_are(world, 3)
    uid = put(world, "tock", tags={"role": "worker"}, concurrency="allow")
    world.run_for(6)
    assert led(world).agent.ledger.term <= 2
    assert [one for one in runs_of(world, uid) if one.status is Status.SUCCESS], "no order is obeyed"
    at_end(world)


def test_a_worker_cut_off_stays_with_its_cluster() -> None:
    """Another cluster of its key answers, and its own is silent: it was not dissolved, so it waits."""
    world = Cluster(53)
    home, worker, away = world.add(), world.add(eligible=False), world.add()
    world.split([home, worker], [away])
    for host in world.hosts:
        host.start()
    world.run_for(8)
    cluster, node_id = worker.agent.cluster, worker.node_id
    assert cluster == home.agent.cluster != away.agent.cluster
    world.cuts.clear()
    world.split([home], [worker, away])
    world.run_for(60)
    assert (worker.agent.cluster, worker.node_id) == (cluster, node_id)


def test_a_lived_in_cluster_absorbs_an_unused_one_whatever_their_ids() -> None:
    """And a job that was put is never given up for a cluster without any."""
    for seed in (21, 22):
        world = Cluster(seed)
        one, other = world.add(), world.add()
        world.cuts |= {(one, other), (other, one)}
        one.start()
        world.run_for(5)
        put(world, "mine", tags={"role": "web:1"})
        other.start()
        world.run_for(5)
        world.heal()
        world.run_for(20)
        assert one.agent.cluster == other.agent.cluster
        assert [view.job.name for view in led(world).agent.state.job_views()] == ["mine"]
        at_end(world)


def test_who_asks_a_cluster_that_goes_over_is_refused_at_once() -> None:
    """Its leader stays 3 s more, and nothing takes effect any more: it had decided the call anew with each entry, as
    fast as the disk wrote, and at the end could not tell whether the job was written."""
    world = Cluster(24)
    one, other = world.add(), world.add()
    world.cuts |= {(one, other), (other, one)}
    for host in (one, other):
        host.start()
    world.run_for(5)
    world.heal()
    assert world.run_until(lambda: any(host.agent.state.dissolved for host in world.hosts), 20)
    (old,) = (host for host in world.hosts if host.agent.state.dissolved)
    last = old.agent.ledger.last_index
    old.give(Proposed("put", commands.PutJob(Job(name="mine", schedule="@every 1h", command="true"))))
    world.run_for(1)
    assert isinstance(world.answers["put"], NoLeader)
    assert old.agent.ledger.last_index == last


def test_two_lived_in_clusters_do_not_merge() -> None:
    """Both hold somebody's jobs: a person decides, and is told on both."""
    world = Cluster(23)
    one, other = world.add(), world.add()
    world.cuts |= {(one, other), (other, one)}
    for host in (one, other):
        host.start()
    world.run_for(5)
    for host in (one, other):
        job = Job(name="mine", schedule="@every 1h", command="true")
        host.give(Proposed(f"put-{host.number}", commands.PutJob(job)))
    world.run_for(1)
    world.heal()
    world.run_for(20)
    assert one.agent.cluster != other.agent.cluster
    assert world.alarms["two_clusters"] == 2


def single_steps(world: Cluster) -> list[frozenset[str]]:
    """Every roster in the log; each differs from the one before by one voter, so that majorities overlap (13)."""
    log = led(world).disk.log
    found: list[frozenset[str]] = []
    for index in sorted(log):
        entry = entries.decode(log[index].body)
        if isinstance(entry, entries.Formed):
            found.append(frozenset({entry.member.node_id}))
        elif isinstance(entry, entries.Roster):
            found.append(frozenset(entry.voters))
    for before, after in pairwise(found):
        assert len(before ^ after) == 1, "13: more than one voter changed at once"
    return found


def started_together(seed: int, hosts: int) -> Cluster:
    """Nobody forms a cluster before it has looked around; 0.7 s after that each hears all."""
    world = Cluster(seed, LAN)
    for at in range(hosts):
        world.add({"at": str(at)})
    for host in world.hosts:
        host.start()
    world.run_for(1.99)
    assert world.leader() is None
    nodes = [host.node_id for host in world.hosts]

    def all_hear_all() -> bool:
        agents = [(host.agent, host.now()) for host in world.hosts]
        known = all(len(agent.roster()) == hosts for agent, _ in agents)
        return known and all(agent.is_heard(one, now) for one in nodes for agent, now in agents)

    assert world.run_until(all_hear_all, 0.71), world.describe()
    return world


@pytest.mark.parametrize("seed", range(6))
def test_three_agents_started_together_are_soon_members_and_voters(seed: int) -> None:
    """The one that forms calls the others; ten seconds after they were first heard all three vote. No change of who
    votes waits for a look that comes by chance."""
    world = started_together(seed, 3)
    began_us = world.now_us
    assert world.run_until(lambda: all(len(host.agent.ledger.voters) == 3 for host in world.hosts), 10.1)
    assert world.now_us - began_us > 9 * SECOND_US, "nobody votes before it was heard for long enough"


@pytest.mark.parametrize("seed", range(6))
def test_eight_agents_started_together_are_members_as_soon(seed: int) -> None:
    """They all knock in the same instant and are admitted one after the other, none of them at its next knock."""
    started_together(seed, 8)


def test_of_three_that_expect_each_other_nobody_forms_a_cluster_alone() -> None:
    """Two wait for the third however long it takes. Then the lowest id forms one, votes alone, and lets the others in;
    those vote as in any cluster, once they have been heard for a while."""
    world = Cluster(51)
    for _ in range(3):
        world.add().expect = 3
    *early, late = world.hosts
    for host in early:
        host.start()
    world.run_for(60)
    assert not any(host.agent.cluster for host in early), "two of three that are expected form a cluster"
    late.start()
    voters_are(world, 3, 10)
    assert {host.agent.cluster for host in world.hosts} == {led(world).agent.cluster}
    first, *_ = steps = single_steps(world)
    assert [len(voters) for voters in steps] == [1, 2, 3]
    assert first == {min(host.node_id for host in world.hosts)}
    at_end(world)


def test_one_voter_becomes_three_and_then_five_while_it_works() -> None:
    """One change at a time, each committed before the next; ticks go on."""
    world = Cluster(24)
    first = world.add()
    first.start()
    world.run_for(4)
    put(world, "tick", tags={"role": "web:1"})
    for _ in range(2):
        for host in (world.add(), world.add()):
            host.start()
        voters_are(world, len(world.hosts))
    assert [len(one) for one in single_steps(world)] == [1, 2, 3, 4, 5]
    at_end(world)
    assert max(world.late_us.values()) < 200_000


def test_who_votes_changes_once_the_last_change_is_committed() -> None:
    """The disks of those that are to vote take seconds for what makes them voters: the leader waits for it. Until then
    a majority of the roster before may elect somebody who knows of no change."""
    world = Cluster(67)
    leader = world.add()
    leader.start()
    world.run_for(4)

    def tap(host: Host, effect: effects.Effect) -> bool:
        message = getattr(effect, "message", None)
        bodies = message.payload if isinstance(message, messages.Append) else ()
        if any(isinstance(entries.decode(body), entries.Roster) for body in bodies):
            for other in world.hosts[1:]:
                other.hanging_disk = True
        return False

    world.tap = tap
    for host in (world.add(), world.add()):
        host.start()
    assert world.run_until(lambda: len(leader.agent.ledger.voters) == 2, 20)
    world.run_for(1.5)  # the leader looks several times
    assert len(leader.agent.ledger.voters) == 2
    voters_are(world, 3)
    single_steps(world)
    at_end(world)


def test_a_new_member_runs_what_matches_it_before_its_first_beat() -> None:
    """Its tags are known from its knock: a run of the instant in which it is admitted finds it."""
    world = grown(61, 2)
    world.lasts_us = 2_000
    uid = put(world, "new", "@every 1h", tags={"at": "2"})
    new = world.add({"role": "web", "at": "2"})
    new.start()
    leader = led(world)
    assert world.run_until(lambda: leader.agent.state.member_of(new.node_id) is not None, 20), world.describe()
    assert leader.agent.membership.beat_of(new.node_id) is None
    run_now(world, "new")
    world.run_for(5)
    assert [(one.agent, one.status) for one in runs_of(world, uid)] == [(new.name, Status.SUCCESS)]
    at_end(world)


def test_a_member_that_leaves_gives_up_its_seat_first() -> None:
    """Its place is taken by a learner; it gets no new run, ends the one that it has, and is removed then."""
    world = grown(25, 4)
    leader = led(world)
    leaving, uid = one_that_leaves(world, lasts_s=30)
    assert world.run_until(lambda: leaving.node_id not in leader.agent.ledger.voters, 10), world.describe()
    world.run_for(5)
    assert leader.agent.state.member_of(leaving.node_id) is not None, "what is open on it has not ended"
    run_now(world, "long")
    world.run_for(1)
    assert [one.reason for one in runs_of(world, uid) if one.status is Status.SKIPPED] == ["no agent matches its tags"]
    assert world.run_until(lambda: leader.agent.state.member_of(leaving.node_id) is None, 30), world.describe()
    world.run_for(2)
    assert len(leader.agent.ledger.voters) == 3
    assert [one.status for one in runs_of(world, uid)] == [Status.SUCCESS, Status.SKIPPED]
    single_steps(world)
    leaving.crash()
    at_end(world, restart=False)


def one_that_leaves(world: Cluster, lasts_s: int) -> tuple[Host, int]:
    """A voter that runs a command of so many seconds is asked to go, and the uid of that job."""
    leader = led(world)
    voters = leader.agent.ledger.voters
    leaving = next(host for host in world.hosts if host is not leader and host.node_id in voters)
    uid = put(world, "long", "@every 1h", tags={"at": str(leaving.number)}, timeout_us=7200 * SECOND_US)
    put(world, "tick", tags={"role": "web:1"})
    world.lasts_us = lasts_s * SECOND_US
    run_now(world, "long")
    assert world.run_until(lambda: bool(leaving.processes), 3)
    world.lasts_us = 2_000
    ask(world, commands.RemoveMember(leaving.name))
    return leaving, uid


def test_a_member_that_leaves_is_not_waited_for_without_end() -> None:
    """Its command runs for an hour: after ten minutes it is removed, and the run counts as lost."""
    with changed("meshcron.core.stewardship.DRAIN_US", 20 * SECOND_US):
        world = grown(25, 4)
        leaving, uid = one_that_leaves(world, lasts_s=3600)
        world.run_for(18)
        assert led(world).agent.state.member_of(leaving.node_id) is not None
        world.run_for(10)
        assert led(world).agent.state.member_of(leaving.node_id) is None
        assert [(one.status, one.reason) for one in runs_of(world, uid)] == [(Status.LOST, "its agent was removed")]
        leaving.crash()
        at_end(world, restart=False)


def test_a_knock_that_hung_lets_nobody_back_in() -> None:
    """A gate's word to the leader comes when its newcomer was a member, and was removed: also at the next leader."""
    world = grown(91, 4)
    leaving = next(host for host in world.hosts if host.node_id not in led(world).agent.ledger.voters)
    beat = led(world).agent.membership.beat_of(leaving.node_id)
    assert beat is not None
    hung = messages.Admit(beat.profile, None, led(world).agent.state.roster_index)
    ask(world, commands.RemoveMember(leaving.name))
    assert world.run_until(lambda: led(world).agent.state.member_of(leaving.node_id) is None, 20), world.describe()
    leaving.crash()
    for _ in range(2):
        leader = led(world)
        leader.give(MessageReceived(follower(world).node_id, hung))
        world.run_for(1)
        assert leader.agent.state.member_of(leaving.node_id) is None, "who was removed is let in again"
        leader.crash()
        assert world.run_until(lambda: world.leader() is not None, 10)
        world.run_for(1)
        leader.start()
    at_end(world, restart=False)


def test_a_worker_that_was_removed_while_it_was_down_stays_away() -> None:
    """It holds no log, and cannot know: but it remembers whose orders it obeyed, and is refused by that."""
    world = grown(92, 3)
    worker = world.add({"role": "worker"}, eligible=False)
    worker.start()
    assert world.run_until(lambda: led(world).agent.state.member_of(worker.node_id) is not None, 20), world.describe()
    world.run_for(2)
    worker.crash()
    ask(world, commands.RemoveMember(worker.name))
    assert world.run_until(lambda: led(world).agent.state.member_of(worker.node_id) is None, 20), world.describe()
    worker.start()
    world.run_for(10)
    assert led(world).agent.state.member_of(worker.node_id) is None, "who was removed is let in again"
    assert standing(worker).why_not_ready() == REMOVED
    worker.crash()
    worker.wipe()
    worker.start()
    assert world.run_until(lambda: led(world).agent.state.member_of(worker.node_id) is not None, 20), world.describe()
    at_end(world, restart=False)


def test_a_worker_of_before_a_recovery_that_starts_again_joins_as_a_new_one() -> None:
    """It was admitted by entries that the survivor did not have, and was down when the cluster went on without them."""
    world = grown(93, 3)
    survivor = follower(world)
    survivor.crash()
    worker = world.add({"role": "worker"}, eligible=False)
    worker.start()
    assert world.run_until(lambda: led(world).agent.state.member_of(worker.node_id) is not None, 20), world.describe()
    world.run_for(2)
    for host in world.hosts:
        if host is not survivor:
            host.crash()
    node_id, survivor.recovers = worker.node_id, True
    survivor.start()
    led(world, 20)
    worker.start()
    assert world.run_until(lambda: _all_members(world, led(world)), 30), world.describe()
    assert worker.node_id != node_id
    at_end(world, restart=False)


def test_who_is_refused_forms_no_cluster_of_its_own() -> None:
    """It is not announced, so nobody knocks at its gate and holds it back. If it formed one, that would dissolve into
    the other, and it would begin anew: a removed one as a member, one with a name in use for ever."""
    world = grown(94, 3)
    put(world, "tick")
    other, gate = world.add(), led(world).endpoint
    other.name, node_id = follower(world).name, other.node_id
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "announce", lambda host: None)
        other.start()
    other.give(Found(gate.host, gate.gate_port, "", joined=True))
    world.run_for(20)
    assert other.node_id == node_id, "it was a cluster of its own, and began anew"
    assert not other.agent.cluster
    assert "is alive; choose another name" in (standing(other).why_not_ready() or "")
    other.crash()
    at_end(world, restart=False)


def test_who_is_back_before_the_others_waits_for_its_cluster() -> None:
    """It may vote, and is none of the eight that hold the log. Alone it would form a cluster, dissolve it once the
    others are there, and be somebody else: what it ran would be lost."""
    world = grown(96, 10)
    leader = led(world)
    first = next(host for host in world.hosts if not host.agent.ledger.votes and not host.agent.state.cluster)
    uid = put(world, "long", "@every 1h", tags={"at": str(first.number)})
    world.lasts_us = 30 * SECOND_US
    run_now(world, "long")
    assert world.run_until(lambda: bool(first.processes), 5)
    node_id, cluster = first.node_id, leader.agent.cluster
    for host in world.hosts:
        host.crash()
    first.start()
    world.run_for(20)
    assert not first.agent.cluster, "it has formed another one"
    for host in world.hosts:
        if host is not first:
            host.start()
    assert world.run_until(lambda: first.is_up and first.agent.cluster == cluster, 30), world.describe()
    world.run_for(30)
    assert first.node_id == node_id
    assert [one.status for one in runs_of(world, uid)] in ([Status.SUCCESS], [Status.FAILED])
    at_end(world)


def test_who_forms_a_cluster_on_a_slow_disk_is_waited_for() -> None:
    """Its first entry takes seconds to be durable; the other one, which has looked around for longer, hears of it."""
    world = Cluster(98)
    first, second = world.add(), world.add()
    first.node_id, second.node_id = sorted((first.node_id, second.node_id))
    ids = {first.node_id, second.node_id}
    first.hanging_disk = True
    second.start()
    world.run_for(1)
    first.start()
    assert world.run_until(lambda: first.agent.ledger.leads, 20)
    assert not first.agent.cluster
    world.run_for(1)
    assert not second.agent.ledger.leads, "another one is formed meanwhile"
    first.hanging_disk = False
    voters_are(world, 1, 20)
    assert {host.node_id for host in world.hosts} == ids
    at_end(world)


def test_who_looks_for_its_own_cluster_keeps_nobody_from_forming_one() -> None:
    """All that held the log have new disks. They wait for the lowest node id to form one, but not for this one's, which
    is lower: it is let in."""
    world = grown(97, 10)
    first = next(host for host in world.hosts if not host.agent.ledger.votes and not host.agent.state.cluster)
    old = first.agent.cluster
    for host in world.hosts:
        host.crash()
        if host is not first:
            host.wipe()
    first.start()
    world.run_for(3)
    for host in world.hosts[:4]:
        if host is not first:
            host.node_id = "f" * 8 + host.node_id[8:]
            host.start()
    assert world.leader() is None
    led(world, 10)
    assert world.run_until(lambda: first.is_up and first.agent.cluster not in ("", old), 30), world.describe()
    at_end(world)


def test_a_former_worker_that_forms_a_cluster_obeys_itself() -> None:
    """What it obeyed in another one had higher terms."""
    world = grown(95, 3)
    worker = world.add({"role": "worker"}, eligible=False)
    worker.start()
    voters_are(world, 3)
    obey_in_a_higher_term(world, worker)
    for host in world.hosts:
        host.crash()
    worker.eligible = True
    worker.start()
    with changed("meshcron.core.admission.MISS_US", 5 * SECOND_US):
        assert led(world, 20) is worker
    uid = put(world, "tock", tags={"role": "worker"}, concurrency="allow")
    world.run_for(6)
    assert worker.agent.ledger.term <= 2
    assert [one for one in runs_of(world, uid) if one.status is Status.SUCCESS], "no order is obeyed"
    at_end(world, restart=False)


def test_a_dead_member_that_is_sent_away_is_removed_at_once() -> None:
    """Nobody can say what became of what is open on it: that is lost."""
    world = grown(25, 4)
    leaving, uid = one_that_leaves(world, lasts_s=3600)
    leaving.crash()
    assert world.run_until(lambda: led(world).agent.state.member_of(leaving.node_id) is None, 20), world.describe()
    world.run_for(1)
    assert [(one.status, one.reason) for one in runs_of(world, uid)] == [(Status.LOST, "its agent was removed")]
    at_end(world, restart=False)


def test_a_voter_that_leaves_does_not_take_the_last_majority_along() -> None:
    """Two of five are gone for good when a third is sent away: a learner takes its seat before it goes."""
    world = grown(54, 6)
    leader = led(world)
    voters = [host for host in world.hosts if host.node_id in leader.agent.ledger.voters and host is not leader]
    for host in voters[:2]:
        host.crash()
    world.run_for(3)
    ask(world, commands.RemoveMember(voters[2].name))
    assert world.run_until(lambda: led(world).agent.state.member_of(voters[2].node_id) is None, 30), world.describe()
    voters[2].crash()
    world.run_for(5)
    ask(world, commands.SetPaused(paused=True))
    single_steps(world)
    at_end(world, restart=False)


def others_of(host: Host) -> OtherAgents:
    """What its API asks who leads."""
    return OtherAgents(host.agent, host.node_id, None, "", auth_on=True, index_on_disk=lambda: 0)  # type: ignore[arg-type]


def standing(host: Host) -> Standing:
    """What an agent says of itself."""
    facts = Facts(
        node_id=host.node_id, name=host.name, fingerprint="", slots=8, machine={}, started_wall_us=0, warnings=()
    )
    return Standing(host.agent, facts, host.now)


REMOVED = "a member refuses this agent: it was removed from this cluster; start with an empty data directory"


@pytest.mark.parametrize("eligible", [True, False], ids=["voter", "worker"])
def test_a_removed_member_says_so(eligible: bool) -> None:
    """Of itself, and to whoever wants it to do something; also after it was started again."""
    world = grown(51, 3)
    leaving = world.add(eligible=eligible)
    leaving.start()
    assert world.run_until(lambda: standing(leaving).why_not_ready() is None, 10)
    if eligible:
        leaving = next(one for one in world.hosts if one is not led(world))
    ask(world, commands.RemoveMember(leaving.name))
    assert world.run_until(lambda: led(world).agent.state.member_of(leaving.node_id) is None, 40), world.describe()
    world.hold = lambda source, target, message: target is leaving  # the others' sockets let it in no more
    world.run_for(5)
    assert standing(leaving).why_not_ready() == REMOVED
    with pytest.raises(RefusedByMembers, match="it was removed from this cluster"):
        others_of(leaving).where()
    leaving.crash()
    leaving.start()
    world.run_for(5)
    assert standing(leaving).why_not_ready() == REMOVED
    leaving.crash()
    at_end(world, restart=False)


def test_a_member_that_one_refuses_believes_the_leader() -> None:
    """One that lags behind does not know it yet, and says at its gate that it was removed: nothing is told of that
    while a leader is heard, and what was told without one is taken back."""
    world = grown(52, 3)
    host = follower(world)
    no = KnockAnswered("elsewhere", 1, messages.Refused("it was removed from this cluster"))
    host.give(no)
    assert standing(host).why_not_ready() is None
    leader = led(world)
    world.split([host])
    world.run_for(5)
    host.give(no)
    assert standing(host).why_not_ready() == "a member refuses this agent: it was removed from this cluster"
    world.heal()
    world.run_for(3)
    assert world.leader() is leader
    assert standing(host).why_not_ready() is None
    assert others_of(host).where()


def test_a_leader_that_leaves_hands_over_first() -> None:
    """Ticks go on under another one while it goes."""
    world = grown(50, 4)
    leaving = led(world)
    put(world, "tick", tags={"at": str(follower(world).number)})
    world.run_for(3)
    ask(world, commands.RemoveMember(leaving.name))
    world.run_for(20)
    leader = led(world)
    assert leader is not leaving
    assert leader.agent.state.member_of(leaving.node_id) is None
    assert len(leader.agent.ledger.voters) == 3
    single_steps(world)
    leaving.crash()
    at_end(world, restart=False)
    assert max(world.late_us.values()) < 300_000


def hand_overs(world: Cluster) -> list[int]:
    """Cluster times of the hand-overs in the log."""
    log = led(world).disk.log
    found = (entries.decode(log[index].body) for index in sorted(log))
    return [entry.cluster_us for entry in found if isinstance(entry, entries.HandOver)]


def test_a_voter_of_higher_priority_is_handed_the_lead() -> None:
    """Once it has been stable for long enough; nobody waits for an election."""
    world = Cluster(26)
    for priority in (100, 100, 200):
        world.add(priority=priority)
    favoured = world.hosts[2]
    for host in world.hosts[:2]:
        host.start()
    world.run_for(4)
    favoured.start()
    voters_are(world, 3)
    assert led(world) is not favoured
    put(world, "tick", tags={"role": "web:1"})
    world.run_for(40)
    assert led(world) is favoured
    assert len(hand_overs(world)) == 1
    at_end(world)
    assert max(world.late_us.values()) < 300_000, "the old leader stopped first, and ticks were armed"


def test_an_agent_that_flaps_is_not_handed_the_lead_each_time() -> None:
    """At most one hand-over in five minutes, whoever comes back with whatever priority."""
    world = Cluster(27)
    for priority in (100, 100, 200):
        world.add(priority=priority)
    for host in world.hosts:
        host.start()
    voters_are(world, 3)
    favoured = world.hosts[2]
    for _ in range(7):
        favoured.crash()
        world.run_for(5)
        favoured.start()
        world.run_for(40)
    times = hand_overs(world)
    assert times, "it was handed over at all"
    assert all(later - earlier >= 300 * SECOND_US for earlier, later in pairwise(times)), "15"
    assert len(times) <= 2
    at_end(world)


def strangers_lead(world: Cluster, cut_off: Host) -> list[Host]:
    """While one agent is cut off, two more voters join, and one of them leads. No discovery tells it of them, nor them
    of it: multicast does not pass, or was asked long ago. Returns the two."""
    world.split([cut_off])
    world.run_for(2)
    new = [world.add({"role": "web"}, priority=200) for _ in range(2)]
    strangers = {one.name for one in new}

    def tap(host: Host, effect: effects.Effect) -> bool:
        ends = {host.name, effect.host} if isinstance(effect, effects.Knock) else set()
        return cut_off.name in ends and bool(strangers & ends)

    world.tap = tap
    for host in new:
        host.start()

    def five() -> bool:
        leader = world.leader()
        return leader is not None and len(leader.agent.ledger.voters) == 5

    assert world.run_until(five, 60), world.describe()
    led(world).pause(3 * SECOND_US)
    world.run_for(5)
    assert led(world) in new
    return new


def test_a_voter_cut_off_while_the_voters_changed_finds_the_leader_it_does_not_know() -> None:
    """Its old peers hold the log, hear that it lacks a change of the members, and tell it whom to listen to. Who votes
    it learns from the log alone, which can reach it then."""
    world = grown(4)
    cut_off = follower(world)
    strangers_lead(world, cut_off)
    voters = cut_off.agent.ledger.voters
    told: dict[str, list[int]] = {}

    def hold(source: Host, target: Host, message: messages.Message) -> bool:
        if isinstance(message, messages.RosterNews) and target is cut_off:
            told.setdefault(source.name, []).append(world.now_us)
            assert cut_off.agent.ledger.voters == voters, "hearsay changes who votes"
        return False

    world.hold = hold
    world.tap = lambda _host, effect: isinstance(effect, effects.Knock)  # whom one hears one does not knock at
    world.heal()
    assert world.run_until(lambda: cut_off.agent.leader == led(world).node_id, 4), world.describe()
    assert told.keys() & {host.name for host in world.hosts[:3]}, "none of those that it knows tells it"
    for times in told.values():
        assert all(later - earlier >= 0.99 * SECOND_US for earlier, later in pairwise(times)), "once a second by each"
    at_end(world)
    assert cut_off.agent.ledger.voters == led(world).agent.ledger.voters


def test_a_worker_asks_at_another_worker_s_gate_who_leads() -> None:
    """It comes back where it reaches none of those that led when it was cut off: the one whom it hears holds no log and
    tells nothing by itself, but its gate answers."""
    world = grown(4)
    old = list(world.hosts)
    cut_off, near = (world.add({"role": role}, eligible=False) for role in ("cut off", "near"))
    for host in (cut_off, near):
        host.start()
    voters_are(world, 3)
    world.run_for(2)
    world.lasts_us = 1000
    uid = put(world, "there", tags={"role": "cut off"})
    strangers_lead(world, cut_off)
    world.heal()
    world.cuts |= {pair for host in old for pair in ((cut_off, host), (host, cut_off))}
    assert world.run_until(lambda: cut_off.agent.leader == led(world).node_id, 30), world.describe()
    world.run_for(10)
    works(world, uid)
    at_end(world)


# what a member says of itself changes


def restarted(world: Cluster, host: Host, *, priority: int = 100, eligible: bool = True) -> None:
    """Its agent starts again with other words."""
    host.crash()
    host.priority, host.eligible = priority, eligible
    world.run_for(1)
    host.start()


def facts_of(world: Cluster, host: Host) -> tuple[int, bool, bool]:
    """What is committed of a member: priority, eligible, voter."""
    member = member_of(led(world), host.node_id)
    return member.priority, member.eligible, member.voter


def member_puts(world: Cluster, host: Host) -> list[entries.MemberPut]:
    """Its entries in the leader's log, the one that let it in among them."""
    log = led(world).disk.log
    found = (entries.decode(log[index].body) for index in sorted(log))
    return [one for one in found if isinstance(one, entries.MemberPut) and one.member.node_id == host.node_id]


def works(world: Cluster, uid: int) -> None:
    """The ticks before the ones that are armed were run."""
    assert [one.status for one in runs_of(world, uid)[-8:-5]] == [Status.SUCCESS] * 3


def test_a_member_that_comes_back_with_another_priority_is_believed_once() -> None:
    """One entry, and the lead follows the priority."""
    world = grown(61)
    put(world, "tick", tags={"role": "web:1"})
    other = follower(world)
    before = len(member_puts(world, other))
    restarted(world, other, priority=200)
    assert world.run_until(lambda: led(world) is other, 60)
    world.run_for(10)
    assert facts_of(world, other) == (200, True, True)
    assert len(member_puts(world, other)) == before + 1
    for host in world.hosts:
        assert member_of(host, other.node_id).priority == 200
    at_end(world)


def test_a_voter_that_wants_no_vote_gives_up_its_seat_first() -> None:
    """Another one has its seat; only then it loses the right to it, and works on as a worker without the log."""
    world = grown(62, 4)
    leader = led(world)
    quitter = next(host for host in world.hosts if host is not leader and facts_of(world, host)[2])
    world.lasts_us = 1000
    uid = put(world, "there", tags={"at": str(quitter.number)})
    grew, told = len(single_steps(world)), len(member_puts(world, quitter))
    restarted(world, quitter, eligible=False)
    assert world.run_until(lambda: facts_of(world, quitter) == (100, False, False), 20)
    voters_are(world, 3)
    assert [len(one) for one in single_steps(world)[grew:]] == [2, 3]
    assert len(member_puts(world, quitter)) == told + 1, "the right to vote before the seat"
    world.run_for(10)
    assert not quitter.agent.holds_log
    assert quitter.agent.leader == led(world).node_id
    works(world, uid)
    quitter.crash()
    world.run_for(3)
    quitter.start()
    world.run_for(10)
    assert quitter.agent.leader == led(world).node_id
    assert quitter.agent.ledger.role == "follower"
    works(world, uid)
    at_end(world)


def test_a_worker_that_says_it_may_vote_stays_a_worker() -> None:
    """It need not have the cluster key, so its word is not enough: whoever took it over would be a voter."""
    world = grown(63)
    worker = world.add({"role": "web", "at": "3"}, eligible=False)
    worker.start()
    voters_are(world, 3)
    world.lasts_us = 1000
    uid = put(world, "there", tags={"at": "3"})
    restarted(world, worker, priority=300)
    world.run_for(15)
    assert facts_of(world, worker) == (300, False, False), "a worker may vote because it says so"
    assert worker.node_id not in led(world).agent.ledger.voters
    assert not worker.agent.holds_log
    assert worker.agent.leader == led(world).node_id
    works(world, uid)
    at_end(world)


def test_a_majority_that_wants_no_vote_stays_until_it_is_not_needed() -> None:
    """All but one come back as workers in the same instant: their copies count until their seats are gone."""
    world = grown(64)
    left = led(world)
    world.lasts_us = 1000
    uid = put(world, "tick", tags={"at": str(left.number)})
    for host in world.hosts:
        if host is not left:
            restarted(world, host, eligible=False)
    assert world.run_until(lambda: led(world, 20).agent.ledger.voters == {left.node_id}, 60), world.describe()
    world.run_for(5)
    assert [facts_of(world, host)[1] for host in world.hosts].count(True) == 1
    assert led(world) is left
    works(world, uid)
    at_end(world)


def test_a_leader_that_wants_no_vote_hands_over() -> None:
    """The only voter comes back as a worker: it leads on until another one can."""
    world = Cluster(65)
    first = world.add()
    first.start()
    voters_are(world, 1)
    put(world, "tick", tags={"role": "web:1"})
    restarted(world, first, eligible=False)
    assert led(world, 10) is first
    world.run_for(5)
    assert facts_of(world, first) == (100, True, True)
    second = world.add()
    second.start()
    assert world.run_until(lambda: world.leader() is second, 40), world.describe()
    assert world.run_until(lambda: facts_of(world, first) == (100, False, False), 20), world.describe()
    assert second.agent.ledger.voters == {second.node_id}
    at_end(world)


# agents that vanish and come back


def test_an_agent_that_stood_still_accuses_nobody() -> None:
    """It heard nobody while it slept: that is its own fault, and no verdict follows from it."""
    world = grown(48)
    sleeper = follower(world)
    sleeper.pause(5 * SECOND_US)
    world.run_for(4.99)
    accused: list[str] = []

    def tap(host: Host, effect: effects.Effect) -> bool:
        message = getattr(effect, "message", None)
        if host is sleeper and isinstance(message, messages.Heartbeat):
            accused.extend(message.suspects)
        return False

    world.tap = tap
    sleeper.backlog.clear()  # nothing in its sockets speaks for the others
    world.run_for(1)
    assert not accused, "it accuses others of its own silence"
    at_end(world)


def test_an_agent_that_stood_still_starts_what_is_in_time_and_says_what_is_not() -> None:
    """SIGSTOP for 10 s with ticks armed: those that may start within 2 s are skipped as late, those that may within a
    minute start once."""
    world = grown(48)
    world.lasts_us = SECOND_US // 2
    sleeper, leader = follower(world), led(world)
    here = {"at": str(sleeper.number)}
    jobs = {
        put(world, f"within{seconds}", tags=here, concurrency="allow", start_deadline_us=seconds * SECOND_US): seconds
        for seconds in (2, 60)
    }
    world.run_for(3)
    assert world.run_until(lambda: len(armed_at(sleeper)) >= 4, 3)
    armed = armed_at(sleeper)
    sleeper.pause(10 * SECOND_US)
    world.run_for(15)
    told = {
        seconds: [
            (one.status, one.reason.partition(":")[0], world.starts[one.id])
            for one in runs_of(world, uid)
            if one.id in armed
        ]
        for uid, seconds in jobs.items()
    }
    assert set(told[2]) == {(Status.SKIPPED, "late", 0)}, "what is too late starts all the same"
    assert set(told[60]) == {(Status.SUCCESS, "", 1)}, "what is in time does not start once"
    assert led(world) is leader
    at_end(world)


def test_a_late_result_turns_lost_into_the_truth() -> None:
    """Silent for longer than `lost_us`: its run is lost, that is unknown, until it says what became of it."""
    world = grown(28)
    away = follower(world)
    world.lasts_us = 8 * SECOND_US
    uid = put(world, "long", "@every 1h", tags={"at": str(away.number)}, start_deadline_us=3 * SECOND_US)
    assert world.run_until(lambda: led(world).agent.state.jobs[uid].next_wall_us > 0, 1)
    run_now(world, "long")
    world.run_for(1)
    assert away.processes
    world.split([away])
    with changed("meshcron.core.intents.START_WINDOW_US", 2 * SECOND_US):
        world.run_for(SHORT.lost_us / SECOND_US + 122)
    lost = runs_of(world, uid)
    assert [one.status for one in lost] == [Status.LOST]
    assert led(world).agent.state.jobs[uid].error_count == 1
    world.heal()
    world.run_for(5)
    told = runs_of(world, uid)
    assert [(one.status, one.reason) for one in told] == [(Status.SUCCESS, "was lost: its agent is gone")]
    assert led(world).agent.state.jobs[uid].error_count == 0
    assert led(world).agent.state.jobs[uid].success_count == 1
    assert list(world.starts.values()) == [1]
    at_end(world)


def two_workers(seed: int, name: str, **more: object) -> tuple[Cluster, int]:
    """Three that vote, two that work, and a job for one of the two that is run again where it was lost."""
    world = Cluster(seed)
    for _ in range(3):
        world.add().start()
    for _ in range(2):
        world.add({"role": "worker"}, eligible=False).start()
    voters_are(world, 3)
    return world, put(world, name, "@manually", tags={"role": "worker:1"}, on_lost="rerun", **more)


def test_what_may_still_start_is_not_lost() -> None:
    """Its agent is silent for longer than `lost_us`, and until start_by a copy of its order may arrive: run elsewhere
    meanwhile it would run twice."""
    world, uid = two_workers(69, "once")
    world.hold = lambda _source, _to, message: isinstance(message, messages.Run)
    run_now(world, "once")
    world.run_for(0.1)
    (order,) = runs_of(world, uid)
    away = world.by_node(order.node_id)
    assert away is not None
    world.split([away])
    hung, world.hung = world.hung, []
    world.hold = None
    world.run_for(SHORT.lost_us / SECOND_US + 30)
    known = [one.status for one in runs_of(world, uid)]
    assert known == [Status.ARMED], "it may still start, and is taken for lost"
    world.hung = hung
    world.heal()
    world.release()
    world.run_for(5)
    assert list(world.starts) == [order.id]
    at_end(world)


def test_what_may_still_run_until_its_timeout_is_not_lost() -> None:
    """Its agent is cut off, and ends it in time by itself. Until then, and a kill takes ten seconds more, nobody takes
    it for lost."""
    world, uid = two_workers(70, "long", timeout_us=30 * SECOND_US)
    world.lasts_us = 35 * SECOND_US
    with changed("meshcron.core.intents.START_WINDOW_US", 2 * SECOND_US):
        run_now(world, "long")
    assert world.run_until(lambda: bool(world.starts), 1)
    (away,) = (host for host in world.hosts if host.processes)
    world.split([away])
    world.run_for(32)
    known = [one.status for one in runs_of(world, uid)]
    assert known in ([Status.RUNNING], [Status.ARMED]), "it may still run, and is taken for lost"
    world.heal()
    world.run_for(5)
    assert [one.status for one in runs_of(world, uid)] == [Status.TIMEOUT]
    assert list(world.starts.values()) == [1]
    at_end(world)


def test_only_a_failure_within_the_retries_is_tried_again() -> None:
    """What would be run again where it was lost gets no more attempts after failures, and what never started none."""
    world, uid = two_workers(71, "again", retries=1)
    world.lasts_us = 3600 * SECOND_US
    run_now(world, "again")
    for attempt in (1, 2):
        assert world.run_until(lambda attempt=attempt: len(world.starts) == attempt, 3)  # type: ignore[misc]
        (running,) = (host for host in world.hosts if host.processes)
        running.end(next(iter(running.processes)), 1, None)
    world.run_for(3)
    assert [one.status for one in runs_of(world, uid)] == [Status.FAILED] * 2
    world.hold = lambda _source, _to, message: isinstance(message, messages.Run)
    with changed("meshcron.core.intents.START_WINDOW_US", SECOND_US):
        run_now(world, "again")
        world.run_for(1.5)
        world.hold = None
        world.release()
        world.run_for(3)
    assert [(one.status, one.reason) for one in runs_of(world, uid)[2:]] == [(Status.SKIPPED, "late")]
    at_end(world)


def test_an_agent_that_is_back_gets_its_orders_at_once() -> None:
    """They were repeated ever more seldom while it was away; the first beat that is heard of it changes that."""
    world = grown(63)
    away = follower(world)
    put(world, "tick", tags={"at": str(away.number)}, concurrency="allow", start_deadline_us=60 * SECOND_US)
    world.run_for(5)
    world.split([away])
    world.run_for(4.5)
    before = set(world.starts)
    open_there = set(led(world).agent.state.open) - before
    assert len(open_there) >= 2
    world.heal()
    world.run_for(0.7)
    assert open_there <= set(world.starts), "within a beat and a repetition"
    at_end(world)


def test_an_agent_starts_no_more_than_it_has_slots() -> None:
    """Each process runs for longer than the next tick takes to come. The rest waits for a slot, in its order; an agent
    that starts anew counts those that it finds running."""
    world = Cluster(66)
    host = world.add()
    host.slots = 2
    host.start()
    voters_are(world, 1)
    world.lasts_us = 5 * SECOND_US
    uid = put(world, "tick", concurrency="allow")
    world.run_for(8)
    assert len(host.processes) == 2
    host.crash()
    host.start()
    world.run_for(12)
    assert len(host.processes) == 2
    statuses = [one.status for one in runs_of(world, uid)]
    assert statuses[:4] == [Status.SUCCESS] * 4
    assert Status.ARMED in statuses
    assert max(world.starts.values()) == 1


def test_what_waits_for_a_slot_waits_no_longer_than_start_by_after_a_restart() -> None:
    """In the session that accepted it, it may wait for ten minutes. While its agent was away it may have been taken for
    lost."""
    world = Cluster(76)
    host = world.add()
    host.slots = 1
    host.start()
    voters_are(world, 1)
    world.lasts_us = 10 * SECOND_US
    put(world, "long", "@manually")
    uid = put(world, "next", "@manually", start_deadline_us=600 * SECOND_US)
    run_now(world, "long")
    world.run_for(1)
    with changed("meshcron.core.intents.START_WINDOW_US", 4 * SECOND_US):
        run_now(world, "next")
        world.run_for(1)
    host.crash()
    host.start()
    world.run_for(12)
    assert [(one.status, one.reason) for one in runs_of(world, uid)] == [
        (Status.SKIPPED, "late: the agent was away"),
    ], "it starts after start_by"
    at_end(world)


def test_ticks_that_are_due_together_are_spread_over_idle_agents() -> None:
    """Each of the 300 jobs wants one of three agents, in the same second: "the least busy" are those that have the
    fewest to do, not those that said so in their last beat (API.md, Jobs, tags)."""
    world = grown(70)
    leader = led(world)
    due = datetime.fromtimestamp(leader.agent.clock.wall_us(leader.now()) // SECOND_US + 60, UTC)
    for n in range(300):
        put(world, f"job{n}", f"@at {due:%Y-%m-%dT%H:%M:%SZ}", tags={"role": "web:1"})
    world.run_for(70)
    ran = Counter(run.agent for run in led(world).disk.executions.values())
    assert ran.total() == 300
    assert all(ran[host.name] >= 90 for host in world.hosts), f"one agent has most to do: {ran}"
    at_end(world)


# clocks


def test_one_voter_s_clock_an_hour_ahead_moves_nothing() -> None:
    """The median of the voters' clocks holds, whether a follower or the leader is wrong, and the wrong one is named."""
    for seed in (40, 41):
        world = grown(seed)
        wrong = led(world) if seed == 40 else follower(world)
        put(world, "tick", tags={"at": str(next(one.number for one in world.hosts if one not in (wrong, led(world))))})
        world.run_for(3)
        wrong.turn_clock(3_600 * SECOND_US)
        world.run_for(10)
        assert not world.alarms["clock_step"], "the time of all follows one wrong clock"
        assert world.alarms["clock_wrong"] == 1
        led(world).crash()
        world.run_for(5)
        assert not world.alarms["clock_step"]
        assert led(world).agent.state.epoch == 0
        at_end(world)
        assert max(abs(late) for late in world.late_us.values()) < FAIL_OVER_US


def test_two_clocks_that_disagree_are_not_averaged() -> None:
    """Nobody knows which one is right: wall time is kept as it is, with an alarm."""
    world = grown(42)
    dead = follower(world)
    put(world, "tick", tags={"at": str(led(world).number)})
    dead.crash()
    world.run_for(3)
    follower(world, 0 if follower(world) is not dead else 1).turn_clock(20 * SECOND_US)
    world.run_for(20)
    assert max(abs(late) for late in world.late_us.values()) < 100_000, "all ticks follow one wrong clock"
    assert world.alarms["clocks_disagree"]
    at_end(world)


def test_after_a_cold_start_cluster_time_is_past_all_that_a_majority_has_seen() -> None:
    """All machines were off, and their clocks are an hour behind: what was committed last does not tell how late it had
    become, but the marks do. Below them every order would be too late."""
    world = grown(77)
    put(world, "once", "@manually")
    with changed("meshcron.core.intents.START_WINDOW_US", 10 * SECOND_US):
        run_now(world, "once")
        world.run_for(40)
    for host in world.hosts:
        host.crash()
        host.turn_clock(-3_600 * SECOND_US)
    _, seen_us, _ = sorted(host.disk.mark.cluster_us for host in world.hosts)  # of any two votes one has seen it
    for host in world.hosts:
        host.start()
    leader = led(world, 10)
    assert leader.agent.clock.cluster_us(leader.now()) >= seen_us > 0, "cluster time has fallen below a mark"
    at_end(world)


def test_all_clocks_an_hour_back_open_a_new_epoch() -> None:
    """A majority agrees: wall time steps, cluster time does not; each job goes on, no tick of an epoch runs twice."""
    world = grown(43)
    uid = put(world, "tick", tags={"role": "web:1"})
    every = put(world, "every", "@every 2s", tags={"role": "web:1"})
    world.run_for(5)
    leader = led(world)
    cluster_us = leader.agent.clock.cluster_us(leader.now())
    for host in world.hosts:
        host.turn_clock(-3_600 * SECOND_US)
    world.run_for(10)
    assert world.alarms["clock_step"] == 1
    assert led(world) is leader
    assert leader.agent.state.epoch == 1
    assert 9 * SECOND_US < leader.agent.clock.cluster_us(leader.now()) - cluster_us < 11 * SECOND_US
    for job in (uid, every):
        after = [one.scheduled_wall_us for one in runs_of(world, job) if one.run_id.startswith(f"{job}-1-")]
        assert len(after) >= (6 if job == uid else 3)
        assert len(after) == len(set(after))
        assert max(after) <= leader.now().wall_us + 3 * SECOND_US
    at_end(world)


def test_all_clocks_an_hour_ahead_are_a_gap_and_no_storm() -> None:
    """The ticks between were missed: the catch-up policy decides, as after an outage."""
    world = grown(44)
    uid = put(world, "tick", tags={"role": "web:1"}, catch_up="latest")
    world.run_for(5)
    for host in world.hosts:
        host.turn_clock(3_600 * SECOND_US)
    before = len(world.starts)
    world.run_for(10)
    assert led(world).agent.state.epoch == 0
    assert len(world.starts) - before <= 10 + 3 + 11, "what is recent runs late, no more"
    (gap,) = [one for one in runs_of(world, uid) if one.status is Status.SKIPPED]
    assert gap.until_wall_us - gap.scheduled_wall_us > 3_500 * SECOND_US
    at_end(world)


def test_a_death_that_only_the_leader_has_seen_is_a_verdict() -> None:
    """Its power failed, and all others were restarted since: they have never heard it, and after ten seconds say so."""
    world = Cluster(62)
    for _ in range(3):
        world.add().start()
    dead = world.add(eligible=False)
    dead.start()
    voters_are(world, 3)
    followers = [follower(world), follower(world, 1)]
    world.split([dead])
    for host in followers:
        host.crash()
    world.run_for(0.05)
    for host in followers:
        host.start()
    assert world.run_until(lambda: dead.node_id in led(world).agent.membership.failed, 15), world.describe()


def test_a_rerun_does_not_wait_for_an_agent_that_nobody_alive_has_heard() -> None:
    """It died, all others were restarted, and then its run is lost: the rerun is recorded as `agent down` at once."""
    world = Cluster(63)
    for _ in range(3):
        world.add().start()
    dead = world.add({"role": "worker"}, eligible=False)
    dead.start()
    voters_are(world, 3)
    uid = put(world, "rerun", "@every 24h", tags={"role": "worker"}, on_lost="rerun")
    world.lasts_us = 3_600 * SECOND_US
    with changed("meshcron.core.intents.START_WINDOW_US", 6 * SECOND_US):
        run_now(world, "rerun")
        world.run_for(1)
        world.split([dead])
        for host in world.hosts[:3]:
            host.crash()
        for host in world.hosts[:3]:
            host.start()
        world.run_for(25)
    assert [one.reason for one in runs_of(world, uid) if one.status is Status.SKIPPED] == ["agent down"]
    assert not led(world).agent.state.open


def test_a_member_that_only_the_leader_does_not_hear_has_not_failed() -> None:
    """Its beats do not reach the leader (PUB may drop them), and all else does: the others hear it and do not agree, so
    that it goes on getting its runs."""
    world = grown(64, hosts=4)
    leader = led(world)
    unheard = follower(world, 2)
    uid = put(world, "tick", tags={"at": str(unheard.number)})
    world.lasts_us = SECOND_US // 2
    world.hold = lambda source, target, message: (
        source is unheard and target is leader and isinstance(message, messages.Heartbeat)
    )
    for _ in range(40):
        world.run_for(0.1)
        assert unheard.node_id not in leader.agent.membership.failed, "the leader alone says that a member has failed"
    assert unheard.node_id in leader.agent.membership.suspects([unheard.node_id], leader.now().boot_us)
    at_end(world)
    assert {one.reason for one in runs_of(world, uid)} == {""}


@pytest.mark.parametrize("comes_back", [True, False])
def test_after_a_cold_start_ticks_wait_for_those_that_still_start(comes_back: bool) -> None:
    """All machines were off. The leader has not heard the one that runs the job, so it does not know its tags: until it
    does it decides no tick, for ten seconds at most (decisions/0004)."""
    world = grown(65)
    world.lasts_us = SECOND_US // 2
    late = follower(world)
    uid = put(world, "tick", tags={"at": str(late.number)})
    world.run_for(3)
    known = {one.id for one in runs_of(world, uid)}
    for host in world.hosts:
        host.crash()
    for host in world.hosts:
        if host is not late:
            host.start()
    world.run_for(5)
    led(world)
    nobody = [one.reason for one in runs_of(world, uid) if one.id not in known]
    assert not nobody, f"ticks of an agent that may still start are decided: {nobody}"
    if comes_back:
        late.start()
        at_end(world)
        assert {one.reason for one in runs_of(world, uid)} == {""}
    else:
        world.run_for(7)
        assert NO_MATCH in {one.reason for one in runs_of(world, uid)}


def test_slow_beats_are_fresh_enough_to_vote() -> None:
    """Three whose beats come a second apart, each at a time of its own: all three vote."""
    world = Cluster(3, SLOW)
    for _ in range(3):
        world.add().start()
        world.run_for(0.37)
    voters_are(world, 3)


def failed_at(host: Host) -> set[str]:
    """Whom an agent shows as failed."""
    return {one.name for one in standing(host).member_views() if one.status == FAILED}


def test_who_has_no_leader_says_who_is_missing() -> None:
    """Two of three voters die, one of them the leader: nobody is left to give a verdict, and each tells what it hears
    itself, a worker as well. Then they are back."""
    world = grown(64)
    worker = world.add(eligible=False)
    worker.start()
    assert world.run_until(lambda: len(standing(worker).member_views()) == 4, 10)
    world.run_for(5)
    left = follower(world)
    dead = [host for host in world.hosts[:3] if host is not left]
    world.split(*([host] for host in dead))  # their power fails: no connection is closed
    names = {host.name for host in dead}
    world.run_for(9)  # a bad link is as silent now and then
    assert failed_at(left) == failed_at(worker) == set()
    world.run_for(1.5)
    assert failed_at(left) == failed_at(worker) == names
    world.run_for(15)
    said = f"no majority of the voters: {', '.join(sorted(names))} not heard for 25 s; if they are gone for good: "
    assert standing(left).why_not_ready() == said + "meshcron recover"
    assert standing(worker).why_not_ready() == said + "meshcron recover on an agent that holds the log"
    world.heal()
    world.run_for(8)
    assert failed_at(left) == failed_at(worker) == set()
    assert standing(left).why_not_ready() is standing(worker).why_not_ready() is None
    at_end(world)


# the majority is gone for good


def survivor_of_three(seed: int) -> tuple[Cluster, int, Host, list[Host]]:
    """Three voters and a worker, with a tick a second on all of them; two of the voters die. Nothing is decided any
    more. Returns the job's uid, the voter that is left, and the dead."""
    world = Cluster(seed)
    for at in range(3):
        world.add({"role": "web", "at": str(at)})
    world.add({"role": "web", "at": "worker"}, eligible=False)
    for host in world.hosts:
        host.start()
    voters_are(world, 3)
    world.lasts_us = 1000
    uid = put(world, "tick", concurrency="allow")
    world.run_for(5)
    left = follower(world)
    if left.node_id not in led(world).agent.ledger.voters:
        left = follower(world, 1)
    dead = [host for host in world.hosts if host.eligible and host is not left]
    for host in dead:
        host.crash()
    world.run_for(10)
    assert world.leader() is None
    return world, uid, left, dead


def recover(host: Host) -> None:
    """An operator stops the survivor, has its directory recovered, and starts it."""
    if host.is_up:
        host.crash()
    host.recovers = True
    host.start()


def commands_of(world: Cluster, hosts: list[Host]) -> list[messages.Message]:
    """What these say from now on that only a leader or a voter says."""
    said: list[messages.Message] = []

    def tap(host: Host, effect: effects.Effect) -> bool:
        message = getattr(effect, "message", None)
        votes = isinstance(message, messages.VoteReply) and message.granted
        leads = isinstance(message, messages.Run | messages.Append | messages.Vote)
        if message is not None and host in hosts and (votes or leads):
            said.append(message)
        return False

    world.tap = tap
    return said


def test_a_survivor_goes_on_alone_and_the_dead_come_back_as_newcomers() -> None:
    """Every tick has its record, those of the gap are `lost: recovered`. The other two neither lead nor vote nor
    schedule: each hears that the cluster lives in a higher generation, sets its database aside and joins anew."""
    world, uid, left, dead = survivor_of_three(60)
    term, old_ids = left.agent.ledger.term, {host.node_id for host in dead}
    recover(left)
    assert led(world) is left
    assert left.agent.ledger.term > term
    assert left.agent.ledger.voters == {left.node_id}
    put(world, "after", "@every 1h")
    world.run_for(12)
    assert {one.reason for one in runs_of(world, uid) if one.status is Status.LOST} == {"recovered"}
    assert old_ids & {one.node_id for one in left.agent.state.members.values()} == set()

    said = commands_of(world, dead)
    for host in dead:
        host.start()
    outlived = world.run_until(lambda: not old_ids & {host.node_id for host in dead}, 3)
    assert outlived, f"the old generation lives on\n{world.describe()}"
    assert not said
    assert world.alarms["outlived"] == 2
    voters_are(world, 3)
    at_end(world)
    assert {host.agent.generation for host in world.hosts} == {left.agent.generation}
    assert messages.generation_number(left.agent.generation) == 1


def test_a_lost_majority_that_still_lives_stops_when_it_hears_of_the_recovery() -> None:
    """An operator was wrong: the two were only cut off, and they lead. Once they hear of the higher generation they
    stop at once, whatever their term; no execution has started twice and no order of theirs is obeyed again."""
    world, _, left, dead = survivor_of_three(61)
    rest = [host for host in world.hosts if host not in dead]
    world.split(dead, rest)
    for host in dead:
        host.start()
    assert world.run_until(lambda: any(host.agent.leading for host in dead), 10)
    recover(left)
    assert world.run_until(lambda: left.agent.leading, 5)
    for _ in range(4):
        for host in dead:
            host.crash()
            host.start()
        world.run_for(5)
    terms = [host.agent.ledger.term for host in dead]
    assert min(terms) > left.agent.ledger.term, "by their term they would win"
    world.heal()
    assert world.run_until(lambda: all(not host.is_up or not host.agent.leading for host in dead), 20)
    assert world.run_until(lambda: world.alarms["outlived"] == 2, 20), world.describe()
    voters_are(world, 3)
    assert led(world).agent.generation == left.agent.generation
    at_end(world)


def test_a_worker_follows_a_recovery() -> None:
    """It holds no log that could differ: it keeps its identity and its processes. What it ran meanwhile is told, and
    the record of a lost run becomes the truth."""
    world, _, left, _ = survivor_of_three(62)
    worker = world.hosts[3]
    node_id, fence = worker.node_id, worker.agent.runner.fence
    recover(left)
    assert world.run_until(lambda: worker.agent.generation == left.agent.generation, 10), world.describe()
    assert worker.node_id == node_id
    assert worker.agent.runner.fence > fence, "orders of the old generation still count"
    worker.crash()
    worker.start()  # and remembers it
    assert worker.agent.generation == left.agent.generation
    uid = put(world, "there", tags={"at": "worker"})
    world.run_for(10)
    assert Status.SUCCESS in {one.status for one in runs_of(world, uid)}
    at_end(world, restart=False)


def test_a_process_that_ran_across_a_recovery_is_recorded_as_lost_and_then_as_it_was() -> None:
    """Unknown until its agent is heard."""
    world = Cluster(63)
    hosts = [world.add({"role": "web"}) for _ in range(3)]
    worker = world.add({"role": "worker"}, eligible=False)
    for host in world.hosts:
        host.start()
    voters_are(world, 3)
    uid = put(world, "long", "@every 1h", tags={"role": "worker"})
    world.lasts_us = 30 * SECOND_US
    run_now(world, "long")
    assert world.run_until(lambda: bool(worker.processes), 3)
    world.run_for(1)
    left = follower(world) if follower(world) is not worker else follower(world, 1)
    for host in hosts:
        host.crash()
    world.split([worker], hosts)
    recover(left)
    world.run_for(5)
    assert [(one.status, one.reason) for one in runs_of(world, uid)] == [(Status.LOST, "recovered")]
    world.heal()
    assert world.run_until(lambda: runs_of(world, uid)[0].status is Status.SUCCESS, 40), world.describe()
    assert sum(world.starts.values()) == 1


def test_an_agent_recovered_once_leads_again_like_any_other() -> None:
    """In the same process, with others who vote: what was recovered is not recovered again."""
    world, _, left, dead = survivor_of_three(64)
    left.priority = 200
    recover(left)
    for host in dead:
        host.wipe()
        host.start()
    voters_are(world, 3)
    session = left.session
    world.split([left], [host for host in world.hosts if host is not left])
    world.run_for(5)
    assert led(world) is not left
    world.heal()
    assert world.run_until(lambda: left.agent.leading, 60), world.describe()
    assert left.session == session
    everybody = {left.node_id, *(host.node_id for host in dead)}
    assert left.agent.ledger.voters == everybody, "it has thrown the others out once more"
    at_end(world)


def test_of_two_survivors_recovered_apart_one_gives_way() -> None:
    """Two operators, two halves: both go on as generation 1. The generations differ all the same, and once they meet
    the lower one ends."""
    world, _, left, dead = survivor_of_three(65)
    other = dead[0]
    other.start()
    world.split([left], [other])
    recover(left)
    recover(other)
    world.run_for(10)
    assert left.agent.leading
    assert other.agent.leading
    assert left.agent.generation != other.agent.generation
    best = max((left, other), key=lambda host: host.agent.generation)
    world.heal()
    assert world.run_until(lambda: world.alarms["outlived"] >= 1, 20)
    assert led(world) is best
    world.run_for(10)
    assert all(host.agent.generation == best.agent.generation for host in world.hosts if host.is_up)


# many agents


def test_in_a_large_cluster_nobody_knocks_where_others_listen() -> None:
    """Above eight members a worker listens to the voters and a few more. It leaves the gates of all others alone: each
    knock is a handshake, and there are as many pairs as agents squared. Who is really lost is found again."""
    world = Cluster(30)
    for at in range(14):
        world.add({"at": str(at)}, eligible=at < 3)
    for host in world.hosts:
        host.start()
    voters_are(world, 3)
    world.run_for(5)
    knocks: list[str] = []

    def tap(host: Host, effect: effects.Effect) -> bool:
        if isinstance(effect, effects.Knock):
            knocks.append(host.name)
        return False

    world.tap = tap
    world.run_for(30)
    assert not knocks
    worker = world.hosts[-1]
    worker.crash()
    world.run_for(3)
    worker.start()
    heard = world.run_until(lambda: led(world).agent.is_heard(worker.node_id, led(world).now()), 10)
    assert heard, "it has new ports, and is heard again"
    at_end(world)


def test_in_a_large_cluster_every_agent_shows_the_members_as_they_are() -> None:
    """Whoever holds the log answers who they are, and hears everyone; a learner heard its neighbours and the voters,
    and called all others failed. A member without the log lets the leader answer, and counts in its metrics whom the
    leader calls failed: it hears as few as before."""
    world = grown(3, 13)
    worker = next(host for host in world.hosts if not host.agent.holds_log)
    worker.crash()
    world.run_for(5)
    living = [host for host in world.hosts if host is not worker]
    assert sum(host.agent.holds_log for host in living) == 5 + 3
    for host in living:
        shown = {one.name: one for one in standing(host).member_views()}
        assert {name for name, one in shown.items() if one.status != ALIVE} == {worker.name}
        tagged = sum(bool(shown[one.name].tags) for one in living)
        assert tagged == len(living) if host.agent.holds_log else tagged < len(living)
    at_end(world)
