"""Routes an event to its machine, and says when to wake up; the machines do the rest."""

from __future__ import annotations

from collections import Counter, defaultdict

from meshcron import entries, messages
from meshcron.core import events
from meshcron.core.beats import Beats
from meshcron.core.calls import Asked
from meshcron.core.catalog import Catalog
from meshcron.core.clocks import ClusterClock
from meshcron.core.digest import Digest
from meshcron.core.effects import Alarm, Effect, Halt, StartOver
from meshcron.core.encounters import Encounters
from meshcron.core.events import Event
from meshcron.core.gate import Gate
from meshcron.core.known_members import KnownMembers
from meshcron.core.leadership import Leadership
from meshcron.core.ledger import Ledger, LedgerMessage
from meshcron.core.membership import Membership, to_hear
from meshcron.core.runner import Runner
from meshcron.core.settings import Settings
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.core.voter import Committed
from meshcron.errors import NewerProtocol
from meshcron.messages import Endpoint, Hello, MemberInfo, Profile
from meshcron.model import SECOND_US, Instant
from meshcron.rows import Loaded
from meshcron.vocabulary import protocol_of

WAKE_MAX_US = SECOND_US
"""The longest time between two wake-ups: a step of the clock, or a suspension, is noticed within it."""

APPLY_SLICE = 200
"""Committed entries applied in one turn (PROTOCOL 8)."""

FORGOTTEN = (
    "this agent's disk has lost entries that it had acknowledged: its database is set aside and it joins anew, under a "
    "new node id; look at the disk"
)


class Agent:
    """One agent, as a deterministic machine."""

    def __init__(self, settings: Settings, loaded: Loaded) -> None:
        """Raises NewerProtocol where a later build wrote what was loaded."""
        settings.vocabulary.refuse_newer_disk(loaded)
        self._settings = settings
        self.state = State.load(loaded)
        self.clock = ClusterClock()
        self.membership = Membership(settings.node_id, settings.timing)
        self.runner = Runner(settings.node_id, settings.name, settings.session, settings.slots, loaded, self.clock)
        self.runner.start_id = settings.start_id
        self.ledger = Ledger(
            settings.node_id,
            settings.timing,
            loaded,
            self.state.applied,
            priority_of=self._priority_of,
            mark_cluster_us=lambda: self.runner.mark_cluster_us,
            vocabulary=settings.vocabulary,
            protocol=lambda: self.state.protocol,
        )
        self.tags = settings.tags
        """This agent's tags as they now are."""
        self._catalog = Catalog(self.state)
        self.digest = Digest(f"{settings.version}/{settings.vocabulary.protocol}", loaded.meta, self.state.applied[0])
        """Of what the entries came to here."""
        self.known = KnownMembers(settings, self.state, self.ledger, self.membership)
        self.leadership = Leadership(
            settings, self.state, self.clock, self.ledger, self.membership, self.runner, self.known
        )
        self._beats = Beats(
            settings,
            self.state,
            self.clock,
            self.ledger,
            self.membership,
            self.runner,
            self.known,
            self.leadership,
            self.digest,
            profile=self.profile,
            start_over=self._start_over,
        )
        self._encounters = Encounters(
            settings,
            self.state,
            self.ledger,
            self.runner,
            self.known,
            self.leadership,
            start_over=self._start_over,
        )
        self._gate = Gate(
            settings,
            self.state,
            self.ledger,
            self.membership,
            self.runner,
            self.known,
            self.leadership,
            self._encounters,
            profile=self.profile,
        )
        self._persists = 0
        self._over = False

    # what others ask

    @property
    def leading(self) -> bool:
        """Whether this agent leads and may take writes."""
        return self.leadership.leading

    @property
    def leader(self) -> str:
        """Node id of whom this agent takes for the leader, "" when it knows none."""
        return self.leadership.leader

    @property
    def cluster(self) -> str:
        """The cluster's id, "" before this agent is in one."""
        return self.known.cluster

    @property
    def protocol(self) -> int:
        """What the cluster speaks, as far as this agent knows."""
        return self.leadership.protocol

    @property
    def generation(self) -> int:
        """The one this agent lives in; it never falls (messages.next_generation)."""
        return self.runner.fence.generation

    @property
    def holds_log(self) -> bool:
        """Whether reads may be answered from here: the log is here, and goes on to be written here."""
        return bool(self.state.cluster) and self.known.holds_log

    @property
    def stands_alone(self) -> bool:
        """Whether this agent is the only voter: nothing but its own disk can keep it from leading."""
        return self.ledger.voters == {self._settings.node_id}

    @property
    def endpoint(self) -> Endpoint:
        """Where others reach it, as it now is."""
        return self.known.endpoint

    @property
    def remembers(self) -> str:
        """The cluster that this agent looks for, of whose log it holds nothing; "" = any, or it is in one."""
        return self._gate.remembered()

    @property
    def refused(self) -> str:
        """Why a member refuses this agent, "" while none does, or while a leader is heard."""
        return self._gate.refused

    @property
    def is_copy(self) -> bool:
        """Another start of this data directory lives, and was there first: this agent ends."""
        return self._gate.is_copy

    def roster(self) -> tuple[MemberInfo, ...]:
        """Every member, as far as this agent knows."""
        return self.known.roster()

    def may_command(self, node_id: str) -> bool:
        """Whether an order of this member's counts: one that may hold the log. A worker's key commands nobody."""
        return self.known.may_command(node_id)

    def is_heard(self, node_id: str, now: Instant) -> bool:
        """Whether a member spoke within the last beats; this agent always does."""
        return self.known.is_heard(node_id, now)

    def is_led(self, now: Instant) -> bool:
        """Whether writes are taken: here, or by a leader that this agent knows. Whoever holds the log hears the leader
        by that; anybody else remembers a dead one until there is another, and has to hear it."""
        leader = self.leader
        if self.leading or not leader or leader == self._settings.node_id:
            return self.leading
        return self.known.holds_log or self.known.is_heard(leader, now)

    def missing(self, now: Instant) -> frozenset[str]:
        """Who is gone as far as this agent can tell by itself: of those that it listens to, whoever was not heard for
        some ten seconds. What is left to go by where nobody leads."""
        own, members = self._settings.node_id, self.known.roster()
        everyone = frozenset(one.node_id for one in members) - {own}
        listens = everyone if self.known.holds_log else to_hear(own, members, "")
        return frozenset(one for one in listens if self.membership.is_missing(one, now.boot_us))

    def answer(self, hello: Hello, now: Instant) -> messages.GateMessage:
        """Our gate's answer to a Hello; the event HelloHeard carries what follows from it."""
        return self._gate.answer(hello, now)

    def profile(self) -> Profile:
        """What this agent says of itself."""
        settings = self._settings
        return Profile(
            node_id=settings.node_id,
            name=settings.name,
            public_key=settings.public_key,
            endpoint=self.endpoint,
            tags=self.tags,
            facts=settings.facts,
            session=settings.session,
            start_id=settings.start_id,
            priority=settings.priority,
            eligible=settings.eligible,
            version=settings.version,
            protocol=settings.vocabulary.protocol,
        )

    def _priority_of(self, node_id: str) -> int:
        member = self.state.member_of(node_id)
        return member.priority if member else self._settings.priority

    # the one door

    def start(self, now: Instant) -> list[Effect]:
        """The first call: take up what earlier sessions left, stand for leader if nobody else can."""
        turn = Turn(now)
        self.leadership.start(now.boot_us)
        self.membership.start(now.boot_us)
        self.runner.enter(self.state.cluster, max(self.state.generation, self._settings.generation), turn)
        self.runner.resume(turn, disown=bool(self._settings.generation))
        if self.leadership.is_recovering():
            self.ledger.recover()
        self.ledger.start(turn)
        self._gate.start(turn)
        self._finish(turn)
        return self._close(turn)

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Take one event in; returns what to do, in order."""
        turn = Turn(now)
        if self._over:
            return []
        if self.ledger.check_lease(turn):
            self.leadership.end(turn)
        self.membership.forgive_own_pause(now.boot_us)
        try:
            self._route(event, turn)
            self._finish(turn)
        except NewerProtocol as error:
            self._over = True
            return [Halt(str(error))]  # and nothing of this turn: neither written nor answered
        return self._close(turn)

    def _finish(self, turn: Turn) -> None:
        """What every turn ends with, whatever happened in it."""
        clocks = self.ledger.won()
        if clocks is not None:
            self.leadership.elected(clocks, self.tags, turn)
        if not self.ledger.leads:
            self.leadership.end(turn)
        self._advance(turn)
        if self.leadership.ours is not None:
            self.ledger.send(turn, self.known.log_holders(), self.clock.cluster_us(turn.now))
        self.leadership.tell(turn)
        self.known.connect(self.generation, self.leader, turn)

    def next_wakeup(self, now: Instant) -> int:
        """When, on the suspend-counting clock, Woke is due at the latest."""
        if self._over:
            return now.boot_us + WAKE_MAX_US  # nothing is done any more: what is due stays due while a slow disk writes
        wishes = [
            now.boot_us + WAKE_MAX_US,
            self.ledger.next_wakeup(now.boot_us),
            self.runner.next_wakeup(),
            self._gate.next_wakeup(now),
            self._beats.next_wakeup(),
        ]
        if self.leadership.ours is not None:
            wishes.append(self.leadership.ours.next_wakeup(now))
        return min(wish for wish in wishes if wish is not None)

    def _close(self, turn: Turn) -> list[Effect]:
        self._persists, effects = turn.close(self._persists)
        self.ledger.turn_closed(self._persists, turn.now.boot_us)
        return effects

    def _route(self, event: Event, turn: Turn) -> None:  # noqa: C901, PLR0912 - one arm a kind of event
        match event:
            case events.Woke():
                self._woke(turn)
            case events.Proposed():
                self.leadership.propose(Asked(event.call_id, event.command, event.key), turn)
            case events.Persisted():
                self.ledger.persisted(event.n, turn.now.boot_us)
            case events.MessageReceived():
                self._message(event.sender, event.message, turn)
            case events.HigherGeneration():
                if self.may_command(event.sender):
                    self._encounters.outlived(event.generation, turn)
            case events.PeerGone():
                self.membership.gone(event.node_id)
                self.ledger.gone(event.node_id, turn)
                self._judge(turn)
            case events.Found():
                self._gate.found(event, turn)
            case events.HelloHeard():
                self._gate.heard(event.hello, turn)
            case events.KnockAnswered():
                self._gate.answered(event, turn)
            case events.SnapshotSent():
                self.ledger.snapshot_sent(event.to, arrived=event.arrived)
            case events.SnapshotArrived():
                self._snapshot_arrived(event, turn)
            case events.TagsChanged():
                self.tags = event.tags
                if self.leadership.ours is not None:
                    self.leadership.ours.tags_changed(event.tags, turn)
            case events.EndpointChanged():
                self.known.moved(event.endpoint)
                self._gate.moved(turn)
            case _:
                self.runner.process(event, turn)

    # messages

    def _message(self, sender: str, message: messages.Message, turn: Turn) -> None:  # noqa: C901, PLR0912 - as above
        own = sender == self._settings.node_id
        if not own and self.known.member(sender) is None:
            return  # removed, or never a member
        match message:
            case messages.Heartbeat():
                self._beats.heard(sender, message, turn)
            case messages.Run() | messages.Stop() | messages.ResultAck():
                if own or self.may_command(sender):
                    self._order(sender, message, turn)
            case messages.RosterNews():
                if self.may_command(sender):
                    self.known.take_news(message)
            case messages.Admit():
                if self.leadership.ours is not None and self.may_command(sender):
                    self.leadership.ours.admit(message, turn)
            case messages.RunAck():
                if self.leadership.ours is not None:
                    self.leadership.ours.run_ack(sender, message, turn)
            case messages.StopAck():
                if self.leadership.ours is not None:
                    self.leadership.ours.stop_ack(sender, message)
            case messages.StartedReport():
                if self.leadership.ours is not None:
                    self.leadership.ours.started(sender, message, turn)
            case messages.Result():
                if self.leadership.ours is not None:
                    self.leadership.ours.result(sender, message)
            case _ if isinstance(message, LedgerMessage):
                if self.may_command(sender) and self.cluster:
                    self._ledger_message(sender, message, turn)
            case _:
                return  # the shell's own (Call, Reply, chunks) or the gate's

    def _order(self, sender: str, message: messages.Run | messages.Stop | messages.ResultAck, turn: Turn) -> None:
        match message:
            case messages.Run():
                self.runner.run(sender, message, turn)
            case messages.Stop():
                self.runner.stop(sender, message, turn)
            case messages.ResultAck():
                self.runner.result_ack(message, turn)

    def _ledger_message(self, sender: str, message: LedgerMessage, turn: Turn) -> None:
        if not self.known.may_hold_log():
            return
        heard = self.ledger.message(sender, message, turn)
        if self.ledger.has_forgotten and not self._over:
            turn.at_once(Alarm("amnesia", FORGOTTEN))
            self._start_over("it has forgotten entries that it had acknowledged", turn)
        if heard and isinstance(message, messages.Append):
            self.clock.hear(turn.now, message.cluster_us)
            self.leadership.end(turn)

    # each turn

    def _woke(self, turn: Turn) -> None:
        self.runner.woke(turn)
        self.ledger.woke(turn)
        if self.leadership.ours is not None:
            self.leadership.ours.woke(turn)
        self._gate.woke(turn)
        beat_boot_us = self._beats.next_wakeup()
        if beat_boot_us is not None and turn.now.boot_us >= beat_boot_us:
            self._judge(turn)
            self._beats.beat(turn)
        self._encounters.woke(turn)

    def _judge(self, turn: Turn) -> None:
        if self.leadership.judge(turn):
            self._beats.beat(turn)

    def _advance(self, turn: Turn) -> None:
        """Apply what is committed; then, as the leader, decide what is due."""
        written, led = False, self.leadership.leading
        for _ in range(APPLY_SLICE):
            if not self.ledger.has_committed():
                break
            self._apply(self.ledger.take_committed(), turn)
            written = True
        if written:
            turn.write(self.digest.row())
        if self.leadership.leading and not led:
            self._beats.announce(turn)
        if self.leadership.ours is not None:
            self.leadership.ours.decide(turn)
        self.ledger.cut(turn)

    def _apply(self, committed: Committed, turn: Turn) -> None:
        applied, rows = self._catalog.apply(committed)
        turn.write_all(rows)
        turn.applied_index = committed.index
        self.digest.add(committed.index, rows)
        if isinstance(committed.entry, entries.Formed):
            self._gate.formed(turn)
        self._encounters.applied(turn)
        if self.leadership.ours is None and isinstance(committed.entry, entries.Noop | entries.Intents):
            self.clock.offset_us = committed.entry.wall_offset_us
        self.leadership.applied(committed, applied, rows, turn)

    def _start_over(self, why: str, turn: Turn) -> None:
        """Nothing is done any more; the next start is a newcomer's."""
        self.leadership.end(turn)
        self._over = True
        turn.after_writes(StartOver(why))

    def _snapshot_arrived(self, event: events.SnapshotArrived, turn: Turn) -> None:
        """Too much of the log was gone for us: the catalog as a whole instead."""
        if event.leader_term < self.ledger.term or event.index <= self.ledger.commit_index:
            return
        if not self.may_command(event.sender):
            return
        if self.ledger.holds(event.index, event.term):
            return  # what follows it here may be acknowledged and counted (Raft, 7: retain it)
        self._settings.vocabulary.refuse_newer(protocol_of(event.catalog.meta))
        self.state.take(event.catalog)
        self.digest.load(event.catalog.meta, self.state.applied[0])
        voters = frozenset(one.node_id for one in self.state.members.values() if one.voter)
        self.ledger.installed(event.index, event.term, event.crc, voters)
        turn.install(event.index, event.term, event.crc)

    # invariants

    def check(self) -> None:
        """What must hold after every event; raises AssertionError with what does not."""
        self.runner.check()
        if self.leadership.ours is not None:
            self.leadership.ours.check()
        held: defaultdict[int, set[str]] = defaultdict(set)
        for id_, execution in self.state.open.items():
            held[execution.uid].add(id_)
        on = Counter(execution.node_id for execution in self.state.open.values())
        assert self.state.open_on == on, f"open executions of agents are counted wrong: {self.state.open_on}, not {on}"
        of = Counter((execution.uid, execution.revision) for execution in self.state.open.values())
        assert self.state.open_of == of, f"open executions of jobs are counted wrong: {self.state.open_of}, not {of}"
        for uid, job in self.state.jobs.items():
            assert held[uid] == set(job.open_ids), f"open executions of job {uid} are counted wrong"
            if len(job.open_ids) < 2 or job.job.concurrency != "forbid":
                continue
            open_ = [self.state.open[id_] for id_ in job.open_ids]
            if all(execution.revision == job.revision for execution in open_):  # else it was edited meanwhile
                runs = {execution.run_id for execution in open_}
                assert len(runs) == 1, f"runs of job {uid} overlap under forbid: {runs}"
