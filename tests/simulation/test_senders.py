"""Every message between agents, from every kind of sender: whose word moves an agent's core, and whose does not.

A cluster at rest: three voters, a learner, three workers (`voter = never`), one of which was removed. Each cell of the
table hands a copy of one agent one message, as the worst that its sender could make of it, and looks whether anything
that matters has moved. Whether the cell should move it stands in ROWS, by hand.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal, get_args

import pytest
from msgspec import Struct
from msgspec.structs import replace

from meshcron import commands, entries, messages
from meshcron.core import effects, events
from meshcron.core.agent import Agent
from meshcron.core.reports import RESULTS_BYTES_MAX
from meshcron.entries import ENTRY_BYTES_MAX
from meshcron.messages import Endpoint, Fence, MeshMessage, Profile
from meshcron.model import OUTPUT_TAIL_BYTES, SECOND_US, Ending, Instant, Token
from tests.fits import assert_fits
from tests.simulation.cluster import Cluster, Host
from tests.simulation.test_scripts import ask, at_end, grown, led, put, run_now

Sender = Literal["stranger", "removed", "worker", "usurper", "learner", "voter", "old_leader", "leader"]
"""A node id nobody knows (what no key and a wrong key come to) · a removed member · a worker · a worker that claims to
lead in a term nobody can top · a member that holds the log · a voter · a voter that led in an earlier term and does not
know better · the leader."""
SENDERS: tuple[Sender, ...] = get_args(Sender)

OUTSIDE: frozenset[Sender] = frozenset({"stranger", "removed", "worker", "usurper"})
"""Get no word out of an agent either."""

MEMBERS: frozenset[Sender] = frozenset({"learner", "voter", "old_leader", "leader"})
"""Those that may hold the log."""

IN_TERM = MEMBERS - {"old_leader"}
ROSTER: frozenset[Sender] = frozenset({"voter", "old_leader", "leader"})
NOBODY: frozenset[Sender] = frozenset()

FOREVER = 10**9
"""The term that a usurper claims."""

At = Literal["leader", "follower", "other_worker", "asking", "candidate"]


class Row(Struct, frozen=True):
    """`at`: who hears it. `make(scene, sender's node id, term)`: the message. `may`: whose word moves the hearer."""

    at: At
    make: Callable[[Scene, str, int], Any]
    may: frozenset[Sender]


class Scene:
    """The cluster, and the cast."""

    def __init__(self) -> None:
        world = self.world = Cluster(7)
        for number in range(7):
            world.add({"at": str(number)}, eligible=number < 4)
        for host in world.hosts:
            host.start()
        assert world.run_until(self._grown, 60), world.describe()
        self.removed_id = world.hosts[6].node_id
        outcome = ask(world, commands.RemoveMember(world.hosts[6].name))
        assert not isinstance(outcome, Exception), outcome
        world.run_for(5)
        world.lasts_us = 3600 * SECOND_US
        put(world, "long", "@manually")
        run_now(world, "long")
        world.run_for(2)
        self.leader: Host = led(world)
        voters = self.leader.agent.ledger.voters
        self.follower, self.other = [host for host in world.hosts if host.node_id in voters and host is not self.leader]
        (self.learner,) = [host for host in world.hosts[:4] if host.node_id not in voters]
        self.worker: Host = world.hosts[4]
        self.other_worker: Host = world.hosts[5]
        self.term: int = self.leader.agent.ledger.term
        self.ids: dict[Sender, str] = {
            "stranger": "f" * 32,
            "removed": self.removed_id,
            "worker": self.worker.node_id,
            "usurper": self.worker.node_id,
            "learner": self.learner.node_id,
            "voter": self.other.node_id,
            "old_leader": self.other.node_id,
            "leader": self.leader.node_id,
        }
        assert self.removed_id not in {one.node_id for one in self.leader.agent.roster()}

    def _grown(self) -> bool:
        leader = self.world.leader()
        return leader is not None and len(leader.agent.ledger.voters) == 3 and len(leader.agent.roster()) == 7

    def execution_of(self, node_id: str) -> str:
        """The open execution on an agent."""
        return next(str(id_) for id_, one in self.leader.agent.state.open.items() if one.node_id == node_id)

    @property
    def theirs(self) -> str:
        """The execution of the voter that speaks in ROWS, and of nobody else."""
        return self.execution_of(self.other.node_id)

    # an agent to talk to

    def hearer(self, at: At) -> tuple[Agent, Instant]:
        host = {"leader": self.leader, "other_worker": self.other_worker}.get(at, self.follower)
        agent: Agent = copy.deepcopy(host.agent)
        now: Instant = host.now()
        if at in {"asking", "candidate"}:
            now = Instant(now.boot_us + 5 * SECOND_US, now.wall_us + 5 * SECOND_US)
            agent.handle(events.Woke(), now)
            assert agent.ledger.role == "asking"
        if at == "candidate":
            granted = messages.PreVoteReply(term=self.term + 1, granted=True)
            wanted = agent.handle(events.MessageReceived(self.other.node_id, granted), now)
            (persist,) = [one for one in wanted if isinstance(one, effects.Persist)]
            agent.handle(events.Persisted(persist.n), now)
            assert agent.ledger.role == "candidate"
        agent.handle(events.Woke(), now)
        return agent, now


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def power(agent: Agent) -> tuple[object, ...]:
    """What nobody without a say may move: who leads, what is in the log, what is known of executions, what the time is,
    who is a member, who has failed."""
    voter, runner, leading = agent.ledger._voter, agent.runner, agent.leadership.ours
    return (
        (voter.term, voter.voted_for, voter.role, voter.leader, voter.voters, voter.log.last_index),
        (voter.commit_index, agent.state.applied, sorted(agent.state.open), agent.leader, agent.cluster),
        (runner.fence, runner.mark_cluster_us, [seen.row() for seen in runner._seen.values()]),
        (vars(agent.clock).copy(), agent.roster(), agent.membership.failed),
        (agent.ledger._election.won, agent.ledger._election._bully, sorted(agent.ledger._election._granted)),
        (leading and (list(leading._reports._results), dict(leading._reports._started))),
        (leading and dict(leading._stewardship._admitting)),
        (leading and sorted(leading._dispatch._pending), agent.ledger.has_forgotten),
        {id_: (one.match_index, one.acked_sent_us) for id_, one in agent.ledger._replication._progress.items()},
    )


# ---- the messages, as bad as their senders can make them


def heartbeat(scene: Scene, sender: str, term: int) -> messages.Heartbeat:
    """I lead, the time is another one, and everybody else is dead."""
    host = scene.world.by_node(sender) or scene.worker
    return messages.Heartbeat(
        profile=profile(sender, host.starts_taken),
        fence=Fence(0, term),
        leader=sender,
        cluster_us=scene.leader.agent.clock.cluster_us(scene.leader.now()) + 3600 * SECOND_US,
        wall_us=0,
        running=0,
        applied_index=0,
        roster_index=scene.leader.agent.state.roster_index,
        failed=(scene.learner.node_id, scene.other.node_id),
    )


def profile(node_id: str, session: int = 1) -> Profile:
    return Profile(
        node_id=node_id,
        name=node_id[:8],
        public_key="k",
        endpoint=Endpoint("", 0, 0, 0),
        tags={},
        facts={},
        session=session,
    )


def order(scene: Scene, sender: str, term: int) -> messages.Run:
    """Run this, all of you."""
    us = scene.leader.agent.clock.cluster_us(scene.leader.now())
    orders = tuple(
        messages.Order(
            execution_id=f"{number:032}",
            node_id=host.node_id,
            uid=1,
            revision=1,
            digest="d",
            run_id="1-0-1",
            attempt=1,
            scheduled_wall_us=1,
            due_cluster_us=us,
            start_by_cluster_us=us + 60 * SECOND_US,
            wait_until_cluster_us=us + 60 * SECOND_US,
        )
        for number, host in enumerate(scene.world.hosts)
    )
    return messages.Run(Fence(0, term), us + SECOND_US, orders)


def stop(scene: Scene, sender: str, term: int) -> messages.Stop:
    items = tuple(
        messages.StopItem(execution_id=id_, kill=True, start_by_cluster_us=1 << 61)
        for id_ in scene.leader.agent.state.open
    )
    return messages.Stop(Fence(0, term), 0, items)


def result_ack(scene: Scene, sender: str, term: int) -> messages.ResultAck:
    return messages.ResultAck(tuple(scene.leader.agent.state.open), 1 << 61)


def append(scene: Scene, sender: str, term: int) -> messages.Append:
    """I lead; and here is an entry of mine."""
    log = scene.leader.agent.ledger._voter.log
    return messages.Append(
        term=term,
        prev_index=log.last_index,
        prev_term=log.last_term,
        commit_index=log.last_index,
        sent_boot_us=1,
        cluster_us=1 << 61,
        heads=(messages.LogHead(log.last_index + 1, term, 1),),
        payload=(entries.encode(entries.Pause(True, 1)),),
    )


def news(scene: Scene, sender: str, term: int) -> messages.RosterNews:
    """I am all there is."""
    infos = tuple(one for one in scene.leader.agent.roster() if one.node_id == sender)
    index = scene.leader.agent.state.roster_index + 1
    return messages.RosterNews(
        fence=Fence(0, term), cluster=scene.leader.agent.cluster, roster_index=index, members=infos
    )


def admit(scene: Scene, sender: str, term: int) -> messages.Admit:
    """A friend of mine, who may vote and be admin everywhere."""
    token = Token(id="admin", name="admin", role="admin", sha256="0", created_wall_us=1)
    return messages.Admit(profile("9" * 32), token)


def ended(execution_id: str, **more: Any) -> messages.ResultItem:
    fields: dict[str, Any] = {"execution_id": execution_id, "kind": "ended", "success": True, **more}
    return messages.ResultItem(**fields)


def snapshot(scene: Scene, sender: str, term: int) -> events.SnapshotArrived:
    index = scene.leader.agent.ledger.last_index + 100
    return events.SnapshotArrived(sender, term, index, term, 1, scene.leader.disk.load())


def vote(scene: Scene, sender: str, term: int) -> messages.Vote:
    """By order of the leader, so that nobody need wait."""
    return messages.Vote(term=term + 1, last_index=10**6, last_term=term, hand_over=True)


ROWS: dict[type, Row] = {
    # orders and the log: who may hold the log, and is not behind its time
    messages.Run: Row("other_worker", order, IN_TERM),
    messages.Stop: Row("other_worker", stop, IN_TERM),
    messages.ResultAck: Row("follower", result_ack, MEMBERS),
    messages.Append: Row("follower", append, IN_TERM),
    messages.RosterNews: Row("other_worker", news, MEMBERS),
    messages.Heartbeat: Row("follower", heartbeat, IN_TERM),
    messages.SnapshotChunk: Row("follower", snapshot, IN_TERM),
    messages.Admit: Row("leader", admit, MEMBERS - {"leader"}),
    # votes: who votes
    messages.Vote: Row("follower", vote, IN_TERM),
    messages.PreVote: Row(
        "follower",
        lambda _, __, term: messages.PreVote(term=term + 1, last_index=10**6, last_term=term),
        NOBODY,
    ),
    messages.PreVoteReply: Row(
        "asking", lambda scene, _, term: messages.PreVoteReply(term=scene.term + 1, granted=True), ROSTER
    ),
    messages.VoteReply: Row(
        "candidate",
        lambda scene, _, term: messages.VoteReply(term=scene.term + 1, granted=True, mark_cluster_us=1),
        ROSTER,
    ),
    messages.TakeOver: Row("follower", lambda scene, _, term: messages.TakeOver(scene.term), frozenset({"leader"})),
    messages.Forgotten: Row(
        "follower",
        lambda scene, _, term: messages.Forgotten(term=scene.term, match_index=10**6),
        frozenset({"leader"}),
    ),
    messages.Appended: Row(
        "leader",
        lambda scene, _, term: messages.Appended(term=term, ok=True, match_index=10**6, sent_boot_us=1 << 61),
        frozenset({"learner", "voter"}),
    ),
    # reports: whose execution it is
    messages.RunAck: Row(
        "leader",
        lambda scene, _, term: messages.RunAck(
            Fence(0, term), (messages.Ack(execution_id=scene.theirs, state="late"),)
        ),
        frozenset({"voter", "old_leader"}),
    ),
    messages.StopAck: Row(
        "leader",
        lambda scene, _, term: messages.StopAck((messages.StopAckItem(scene.theirs, "not_started"),)),
        frozenset({"voter", "old_leader"}),
    ),
    messages.StartedReport: Row(
        "leader",
        lambda scene, _, term: messages.StartedReport((messages.StartedItem(scene.theirs, 1),)),
        frozenset({"voter", "old_leader"}),
    ),
    messages.Result: Row(
        "leader", lambda scene, _, term: messages.Result((ended(scene.theirs),)), frozenset({"voter", "old_leader"})
    ),
    # the shell's: a Call is judged by the token in it, the others are heard from whom we asked (tests of runtime)
    messages.SnapshotWanted: Row("leader", lambda *_: messages.SnapshotWanted(0, 0), NOBODY),
    messages.Call: Row(
        "leader", lambda *_: messages.Call(call_id="c", method="DELETE", path="/v1/jobs/long", headers={}), NOBODY
    ),
    messages.Reply: Row("leader", lambda *_: messages.Reply(call_id="c", number=0, last=True, status=200), NOBODY),
}


def cells() -> list[tuple[type, Sender]]:
    return [
        (kind, sender)
        for kind in get_args(MeshMessage)
        for sender in SENDERS
        if not (sender == "leader" and ROWS[kind].at == "leader")  # it believes itself
    ]


def test_every_message_has_its_row() -> None:
    """And no row is about what is no message."""
    assert set(ROWS) == set(get_args(MeshMessage))


@pytest.mark.parametrize(("kind", "sender"), cells(), ids=lambda value: getattr(value, "__name__", value))
def test_whose_word_counts(kind: type, sender: Sender, scene: Scene) -> None:
    """Faults 39 and 40 among them: a removed member is not heard at all, a worker's key commands nobody whatever term
    it claims."""
    try_cell(scene, kind, sender)


def try_cell(scene: Scene, kind: type, sender: Sender) -> None:
    row = ROWS[kind]
    agent, now = scene.hearer(row.at)
    before = power(agent)
    node_id = scene.ids[sender]
    term = {"usurper": FOREVER, "old_leader": scene.term - 1}.get(sender, scene.term)
    made = row.make(scene, node_id, term)
    event = made if isinstance(made, events.SnapshotArrived) else events.MessageReceived(node_id, made)
    wanted = agent.handle(event, now)
    moved = power(agent) != before or any(isinstance(one, effects.Persist) for one in wanted)
    assert moved == (sender in row.may), f"a {kind.__name__} of a {sender} moves the {row.at}: {moved}"
    assert not wanted or sender not in OUTSIDE, f"a {kind.__name__} of a {sender} is answered"


def outsiders_story() -> None:
    """All cells of those who have no say, for test_mutations."""
    scene = Scene()
    for kind, sender in cells():
        if sender in OUTSIDE:
            try_cell(scene, kind, sender)


def test_a_worker_tells_of_its_own_executions(scene: Scene) -> None:
    """What it may: that they run, how they ended."""
    own = scene.execution_of(scene.worker.node_id)
    for message in (messages.Result((ended(own),)), messages.StartedReport((messages.StartedItem(own, 1),))):
        agent, now = scene.hearer("leader")
        before = power(agent)
        agent.handle(events.MessageReceived(scene.worker.node_id, message), now)
        assert power(agent) != before


def test_a_worker_s_words_are_bounded(scene: Scene) -> None:
    """A result as long as a message may be is cut to what an honest agent would have said: it fits into an entry, and
    the leader's turn does not break."""
    own, long = scene.execution_of(scene.worker.node_id), "\u20ac" * 150_000
    ending = Ending(
        exit_code=0, signal=None, finished_wall_us=1, output_tail=long, output_bytes=1, output_truncated=False
    )
    for message in (
        messages.Result((ended(own, reason=long, ending=ending),)),
        messages.Result((ended("x" * RESULTS_BYTES_MAX),)),
    ):
        agent, now = scene.hearer("leader")
        wanted = agent.handle(events.MessageReceived(scene.worker.node_id, message), now)
        bodies = [body for one in wanted if isinstance(one, effects.Persist) for body in bodies_of(one)]
        assert all(len(body) < ENTRY_BYTES_MAX for body in bodies)
        assert len(bodies) == (0 if message.__class__ is messages.Result and message.items[0].ending is None else 1)
        assert all(len(body) < 8 * OUTPUT_TAIL_BYTES for body in bodies)


def test_where_a_worker_says_it_is_fits_into_the_roster(scene: Scene) -> None:
    """Which whoever comes or lags behind is told: an address as long as a message is none."""
    agent, now = scene.hearer("leader")
    worker = scene.worker.node_id
    for host, heard in (("192.0.2.9", True), ("x" * 400_000, False)):
        beat = heartbeat(scene, worker, scene.term)
        there = Endpoint(host, 1, 2, 3)
        agent.handle(events.MessageReceived(worker, replace(beat, profile=replace(beat.profile, endpoint=there))), now)
        told = {one.node_id: one.endpoint for one in agent.roster()}
        assert (told[worker] == there) == heard
        assert_fits(agent.known.our_news(Fence()))


def bodies_of(persist: effects.Persist) -> list[bytes]:
    return [row.body for row in persist.rows if hasattr(row, "body")]


def test_a_newcomer_s_token_opens_its_own_agent_only(scene: Scene) -> None:
    """Whatever it says of the token that it brings; a worker's opens no job."""
    for eligible, role in ((True, "admin"), (False, "local")):
        agent, now = scene.hearer("leader")
        message = admit(scene, "", 0)
        newcomer = messages.Profile(**{**vars_of(message.profile), "eligible": eligible})
        wanted = agent.handle(events.MessageReceived(scene.other.node_id, messages.Admit(newcomer, message.token)), now)
        bodies = [body for one in wanted if isinstance(one, effects.Persist) for body in bodies_of(one)]
        (put_member,) = [entry for entry in map(entries.decode, bodies) if isinstance(entry, entries.MemberPut)]
        (token,) = put_member.tokens
        assert (token.role, token.node_id, token.id) == (role, "9" * 32, "local-" + "9" * 12)


def vars_of(struct: Struct) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def test_a_member_s_key_makes_no_second_member(scene: Scene) -> None:
    """A worker's machine may knock with its node's key: as itself, not as somebody that may vote."""
    agent, now = scene.hearer("leader")
    worker = agent.state.member_of(scene.other_worker.node_id)
    assert worker is not None
    disguised = messages.Profile(**{**vars_of(profile("9" * 32)), "public_key": worker.public_key, "eligible": True})
    answer = agent.answer(messages.Hello(disguised, "", 0), now)
    assert isinstance(answer, messages.Refused)
    assert "another member has this agent's key" in answer.why
    wanted = agent.handle(events.MessageReceived(scene.other.node_id, messages.Admit(disguised, None)), now)
    assert not [one for one in wanted if isinstance(one, effects.Persist)]


def test_a_worker_s_gate_names_others(scene: Scene) -> None:
    """It has no say in who becomes a member, so a newcomer that knows its gate alone hears of gates that have."""
    worker, now = scene.hearer("other_worker")
    hello = messages.Hello(profile("9" * 32), "", 0)
    answer = worker.answer(hello, now)
    assert isinstance(answer, messages.Wait)
    able = {host.endpoint for host in scene.world.hosts[:4]}
    assert answer.gates
    assert set(answer.gates) <= able
    assert not [one for one in worker.handle(events.HelloHeard(hello), now) if isinstance(one, effects.Send)]
    newcomer = Cluster(8).add()
    newcomer.start()
    newcomer.agent.handle(events.KnockAnswered(scene.other_worker.endpoint.host, 1, answer), newcomer.now())
    wanted = newcomer.agent.handle(events.Woke(), newcomer.now())
    knocked = {(one.host, one.port) for one in wanted if isinstance(one, effects.Knock)}
    assert knocked >= {(gate.host, gate.gate_port) for gate in answer.gates}


def unused() -> tuple[Cluster, Host, Host]:
    """A cluster without jobs, who leads it, and a worker of it."""
    world = Cluster(9)
    world.add()
    worker = world.add(eligible=False)
    for host in world.hosts:
        host.start()
    assert world.run_until(
        lambda: any(len(host.agent.roster()) == 2 for host in world.hosts if host is world.leader()), 30
    ), world.describe()
    world.run_for(2)
    return world, led(world), worker


def claim(host: Host, **said: object) -> events.HelloHeard:
    """A Hello, with its sender's key, of a lived-in cluster that nobody has seen."""
    (info,) = [one for one in host.agent.roster() if one.node_id == host.node_id]
    fields = {**vars_of(profile(host.node_id)), "public_key": info.public_key, "endpoint": host.endpoint}
    return events.HelloHeard(messages.Hello(messages.Profile(**{**fields, **said}), "0" * 32, 0, virgin=False))


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("node_id", ["", "9" * 32])
def test_a_member_s_word_makes_no_other_cluster(node_id: str, silent: bool) -> None:
    """A worker's machine says that it lives in another cluster, as itself or as somebody new with its key: the unused
    one that it is in does not dissolve, nor is a person alarmed. At most the gate that it names is asked."""
    world, leader, worker = unused()
    said = claim(worker, **({"node_id": node_id} if node_id else {}))
    if silent:
        worker.crash()
        world.run_for(5)
    cluster = leader.agent.cluster
    for _ in range(5):
        leader.give(said)
        world.run_for(3)
    assert (leader.agent.cluster, leader.agent.state.dissolved) == (cluster, ""), "an unused cluster dissolves"
    assert not world.alarms["two_clusters"]


def test_the_cluster_key_s_word_does() -> None:
    """Nobody knows the key it knocks with, so it is the cluster's, which is trusted fully (docs/SECURITY.md)."""
    world, leader, worker = unused()
    leader.give(claim(worker, node_id="9" * 32, public_key="another"))
    world.run_for(1)
    assert not leader.is_up or leader.agent.state.dissolved == "0" * 32


def test_everything_that_was_ever_said_is_said_again() -> None:
    """Fault 17, by somebody who may speak: orders, stops, votes, appends and reports of two terms, all delivered once
    more when they are over. Nothing starts again, nobody votes twice, the term and the leader stay (the invariants are
    checked at each event)."""
    world = grown(17)
    said: list[tuple[str, str, messages.Message]] = []

    def tap(host: Host, effect: effects.Effect) -> bool:
        if isinstance(effect, effects.Send) and effect.to != host.node_id:
            said.append((host.node_id, effect.to, effect.message))
        return False

    world.tap = tap
    put(world, "tick")
    world.run_for(5)
    old = led(world)
    old.crash()
    world.run_for(4)
    old.start()
    world.run_for(8)
    world.tap = None
    leader = led(world)
    assert leader is not old
    term, starts = leader.agent.ledger.term, dict(world.starts)
    assert {messages.Run, messages.Vote, messages.VoteReply, messages.Append, messages.Result} <= {
        type(one[2]) for one in said
    }
    for sender, to, message in said:
        hearer = world.by_node(to)
        assert hearer is not None
        hearer.give(events.MessageReceived(sender, message))
    assert {id_: world.starts[id_] for id_ in starts} == starts
    world.run_for(3)
    assert (led(world), led(world).agent.ledger.term) == (leader, term)
    at_end(world)
