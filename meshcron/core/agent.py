"""Routes an event to its machine, and says when to wake up; the machines do the rest."""

from __future__ import annotations

from msgspec.structs import replace

from meshcron import entries, messages
from meshcron.core import events
from meshcron.core.admission import Admission, meets, refused
from meshcron.core.catalog import Catalog
from meshcron.core.clocks import ClusterClock
from meshcron.core.copies import Copies, refusal
from meshcron.core.effects import Alarm, Answer, Connect, Effect, Halt, Knock, Publish, Send, StartOver
from meshcron.core.election import Clocks
from meshcron.core.events import Event
from meshcron.core.leading import Call, Leading
from meshcron.core.ledger import Ledger, LedgerMessage
from meshcron.core.membership import Membership, to_hear
from meshcron.core.roster import log_holders
from meshcron.core.runner import Runner
from meshcron.core.settings import Settings
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.core.voter import Committed
from meshcron.errors import NewerProtocol, NoLeader, NotLeader
from meshcron.messages import Endpoint, Fence, Heartbeat, Hello, MemberInfo, Profile, Wait, Welcome
from meshcron.model import SECOND_US, Instant, Member
from meshcron.rows import Loaded
from meshcron.vocabulary import FIRST, protocol_of

WAKE_MAX_US = SECOND_US
"""The longest time between two wake-ups: a step of the clock, or a suspension, is noticed within it."""

APPLY_SLICE = 200
"""Committed entries applied in one turn (PROTOCOL 8)."""

HEARTBEATS = "heartbeat"
"""The topic of heartbeats."""

REFUSED_EVERY_US = 600 * SECOND_US
"""How often an operator is told that a member refuses this agent."""

GATES_MAX = 5
"""Gates that a worker names to a newcomer: as many as there are voters."""

OUTLIVED_ROSTER = 1
"""What an outlived generation said of the members is older than anything the higher one says."""

FAREWELL_US = 3 * SECOND_US
"""The leader of a dissolved cluster stays so long, for the others to hear of it."""

FORGOTTEN = (
    "this agent's disk has lost entries that it had acknowledged: its database is set aside and it joins anew, under a "
    "new node id; look at the disk"
)

LEADERLESS_US = 30 * SECOND_US
"""An agent of an unused cluster that has known no leader for so long goes over to another cluster of its key."""

LEDGER_MESSAGES = (
    messages.PreVote
    | messages.PreVoteReply
    | messages.Vote
    | messages.VoteReply
    | messages.Append
    | messages.Appended
    | messages.TakeOver
    | messages.Forgotten
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
        self.endpoint = settings.endpoint
        """Where others reach it, as it now is."""
        self._catalog = Catalog(self.state)
        self._admission = Admission(
            settings.node_id,
            form_at_once=settings.form_at_once,
            expect=settings.expect,
            eligible=settings.eligible,
        )
        self._copies = Copies(settings.node_id, settings.session, settings.start_id, self.membership)
        self.is_copy = False
        """Another start of this data directory lives, and was there first: this agent ends."""
        self._leading: Leading | None = None
        self._persists = 0
        self._news: messages.RosterNews | None = None
        """The members as others know them: for one that does not hold the log, or lags behind."""
        self._endpoints: dict[str, Endpoint] = {}
        self._connected: Connect | None = None
        self._connect_basis: object = None
        self._beat_boot_us = 0
        self._leader_hint = ""
        self._protocol_hint = FIRST
        self._roster_cache: tuple[object, tuple[MemberInfo, ...]] = (None, ())
        self._infos: dict[str, MemberInfo] = {}
        """The same by node id: asked for with every message."""
        self._holders: tuple[object, frozenset[str]] = (None, frozenset())
        self._endpoint_changes = 0
        self._met_clusters: set[str] = set()
        self._farewell_boot_us = 0
        self._led_boot_us = 0
        """When a leader was last known."""
        self._refused_boot_us = 0
        self._echo = ""
        """What a gate wants to hear again."""
        self._over = False

    # what others ask

    @property
    def leading(self) -> bool:
        """Whether this agent leads and may take writes."""
        return self._leading is not None and self._leading.ready

    @property
    def leader(self) -> str:
        """Node id of whom this agent takes for the leader, "" when it knows none."""
        if self._leading is not None:
            return self._settings.node_id if self._leading.ready else ""
        if self.ledger.voters and self._settings.node_id in self._log_holders():
            return self.ledger.leader
        return self._leader_hint

    @property
    def cluster(self) -> str:
        """The cluster's id, "" before this agent is in one."""
        return self.state.cluster or (self._news.cluster if self._news and not self._is_forming() else "")

    def _is_forming(self) -> bool:
        """Whether our first entry is on its way to the disk: what another cluster says comes too late to be joined, and
        a leader of one must not pass for the leader of the other. They meet once both are there."""
        return self._leading is not None and not self.state.cluster

    @property
    def protocol(self) -> int:
        """What the cluster speaks, as far as this agent knows."""
        return max(self.state.protocol, self._protocol_hint)

    @property
    def generation(self) -> int:
        """The one this agent lives in; it never falls (messages.next_generation)."""
        return self.runner.fence.generation

    @property
    def holds_log(self) -> bool:
        """Whether reads may be answered from here: the log is here, and goes on to be written here."""
        return bool(self.state.cluster) and self._settings.node_id in self._log_holders()

    @property
    def stands_alone(self) -> bool:
        """Whether this agent is the only voter: nothing but its own disk can keep it from leading."""
        return self.ledger.voters == {self._settings.node_id}

    def roster(self) -> tuple[MemberInfo, ...]:
        """Every member, as far as this agent knows."""
        news = self._newer_news()
        key = self.state.roster_index, self._endpoint_changes, news
        if self._roster_cache[0] != key:
            known = news.members if news is not None else self._state_infos()
            self._roster_cache = key, tuple(replace(one, endpoint=self._endpoint_of(one)) for one in known)
            self._infos = {one.node_id: one for one in self._roster_cache[1]}
        return self._roster_cache[1]

    def _newer_news(self) -> messages.RosterNews | None:
        """What others know of the members, where that is more than our own log tells."""
        return self._news if self._news and self._news.roster_index > self.state.roster_index else None

    def _state_infos(self) -> list[MemberInfo]:
        return [
            MemberInfo(
                node_id=member.node_id,
                name=member.name,
                number=member.number,
                public_key=member.public_key,
                voter=member.voter,
                priority=member.priority,
                eligible=member.eligible,
            )
            for _, member in sorted(self.state.members.items())
        ]

    def _endpoint_of(self, info: MemberInfo) -> Endpoint | None:
        if info.node_id == self._settings.node_id:
            return self.endpoint
        return self._endpoints.get(info.node_id, info.endpoint)

    def _member(self, node_id: str) -> MemberInfo | None:
        self.roster()
        return self._infos.get(node_id)

    def may_command(self, node_id: str) -> bool:
        """Whether an order of this member's counts: one that may hold the log. A worker's key commands nobody."""
        member = self._member(node_id)
        return member is not None and member.eligible

    def _priority_of(self, node_id: str) -> int:
        member = self.state.member_of(node_id)
        return member.priority if member else self._settings.priority

    def _log_holders(self) -> frozenset[str]:
        news = self._newer_news()
        key = self.state.roster_index, self.ledger.voters, news, self.membership.failed
        if self._holders[0] != key:
            members = self.state.members.values() if news is None else news.members
            voters = self.ledger.voters if news is None else frozenset(one.node_id for one in news.members if one.voter)
            self._holders = key, log_holders(members, voters, self.membership.failed)
        return self._holders[1]

    def _may_hold_log(self) -> bool:
        """Whether what voters say is for us: by our own will, or because we are counted on until the cluster has heard
        of another one."""
        ours = self._member(self._settings.node_id)
        return self._settings.eligible or (ours is not None and ours.eligible)

    @property
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

    def is_heard(self, node_id: str, now: Instant) -> bool:
        """Whether a member spoke within the last beats; this agent always does."""
        return node_id == self._settings.node_id or self.membership.is_heard(node_id, now.boot_us)

    # the one door

    def start(self, now: Instant) -> list[Effect]:
        """The first call: take up what earlier sessions left, stand for leader if nobody else can."""
        turn = Turn(now)
        self._led_boot_us = now.boot_us
        self.membership.start(now.boot_us)
        self._admission.start(now.boot_us)
        self.runner.enter(self.state.cluster, max(self.state.generation, self._settings.generation), turn)
        self.runner.resume(turn, disown=bool(self._settings.generation))
        if self._is_recovering():
            self.ledger.recover()
        self.ledger.start(turn)
        self._consider_forming(turn)
        self._finish(turn)
        return self._close(turn)

    def _is_recovering(self) -> bool:
        """Whether an operator's recovery is not recorded yet. Once it is, this agent may lead again, with others."""
        recorded = [self.state.generation]
        recorded += [one.generation for one in self.ledger.waiting_entries() if isinstance(one, entries.Recovered)]
        return bool(self.state.cluster) and max(recorded) < self._settings.generation

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Take one event in; returns what to do, in order."""
        turn = Turn(now)
        if self._over:
            return []
        if self.ledger.check_lease(turn):
            self._stop_leading(turn)
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
            self._elected(clocks, turn)
        if self._leading is not None and not self.ledger.leads:
            self._stop_leading(turn)
        self._advance(turn)
        if self._leading is not None:
            self.ledger.send(turn, self._log_holders(), self.clock.cluster_us(turn.now))
        leader = self.runner.leader = self.leader
        if leader and self.is_heard(leader, turn.now):
            self._led_boot_us = turn.now.boot_us
        self._connect(turn)

    def next_wakeup(self, now: Instant) -> int:
        """When, on the suspend-counting clock, Woke is due at the latest."""
        wishes = [now.boot_us + WAKE_MAX_US]
        if (wish := self.ledger.next_wakeup(now.boot_us)) is not None:
            wishes.append(wish)
        if (wish := self.runner.next_wakeup()) is not None:
            wishes.append(wish)
        if (wish := self._admission.next_wakeup(now, member=bool(self.cluster))) is not None:
            wishes.append(wish)
        if self._leading is not None:
            wishes.append(self._leading.next_wakeup(now))
        if len(self.roster()) > 1:
            wishes.append(self._beat_boot_us + self._settings.timing.beat_us)
        return min(wishes)

    def _close(self, turn: Turn) -> list[Effect]:
        persists, effects = turn.close(self._persists)
        if persists != self._persists:
            self._persists = persists
        self.ledger.turn_closed(persists, turn.now.boot_us)
        return effects

    def _route(self, event: Event, turn: Turn) -> None:  # noqa: C901, PLR0912 - one arm a kind of event
        match event:
            case events.Woke():
                self._woke(turn)
            case events.Proposed():
                self._propose(Call(event.call_id, event.command, event.key), turn)
            case events.Persisted():
                self.ledger.persisted(event.n)
            case events.MessageReceived():
                self._message(event.sender, event.message, turn)
            case events.HigherGeneration():
                if self.may_command(event.sender):
                    self._outlived(event.generation, turn)
            case events.PeerGone():
                self.membership.gone(event.node_id)
                self.ledger.gone(event.node_id, turn)
                self._judge(turn)
            case events.Found():
                self._admission.found(event.host, event.port, event.node_id, turn.now.boot_us)
                self._knock(turn)
            case events.HelloHeard():
                self._hello(event.hello, turn)
            case events.KnockAnswered():
                self._knock_answered(event, turn)
            case events.SnapshotSent():
                self.ledger.snapshot_sent(event.to, arrived=event.arrived)
            case events.SnapshotArrived():
                self._snapshot_arrived(event, turn)
            case events.TagsChanged():
                self.tags = event.tags
                if self._leading is not None:
                    self._leading.tags_changed(event.tags, turn)
            case events.EndpointChanged():
                self._moved(event.endpoint, turn)
            case _:
                self.runner.process(event, turn)

    def _moved(self, endpoint: Endpoint, turn: Turn) -> None:
        """Others dial us where we no longer are. Those that we still reach learn it at their gates at once; the rest
        hear of it by mDNS, or when they knock at ours."""
        self.endpoint = endpoint
        self._endpoint_changes += 1
        hello = self._hello_of_ours()
        for one in self.roster():
            if one.endpoint is not None and one.node_id != self._settings.node_id:
                turn.at_once(Knock(one.endpoint.host, one.endpoint.gate_port, hello))

    # messages

    def _message(self, sender: str, message: messages.Message, turn: Turn) -> None:  # noqa: C901, PLR0912 - as above
        own = sender == self._settings.node_id
        if not own and self._member(sender) is None:
            return  # removed, or never a member
        match message:
            case messages.Heartbeat():
                self._heartbeat(sender, message, turn)
            case messages.Run() | messages.Stop() | messages.ResultAck():
                if own or self.may_command(sender):
                    self._order(sender, message, turn)
            case messages.RosterNews():
                if self.may_command(sender):
                    self._take_news(message)
            case messages.Admit():
                if self._leading is not None and self.may_command(sender):
                    self._leading.admit(message, turn)
            case messages.RunAck():
                if self._leading is not None:
                    self._leading.run_ack(sender, message, turn)
            case messages.StopAck():
                if self._leading is not None:
                    self._leading.stop_ack(sender, message)
            case messages.StartedReport():
                if self._leading is not None:
                    self._leading.started(sender, message, turn)
            case messages.Result():
                if self._leading is not None:
                    self._leading.result(sender, message)
            case _ if isinstance(message, LEDGER_MESSAGES):
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
        if not self._may_hold_log():
            return
        heard = self.ledger.message(sender, message, turn)
        if self.ledger.has_forgotten and not self._over:
            turn.at_once(Alarm("amnesia", FORGOTTEN))
            self._start_over("its log ends before what it has acknowledged", turn)
        if heard and isinstance(message, messages.Append):
            self.clock.hear(turn.now, message.cluster_us)
            if self._leading is not None:
                self._stop_leading(turn)

    def _heartbeat(self, sender: str, beat: Heartbeat, turn: Turn) -> None:
        before, silent = self.membership.beat_of(sender), not self.membership.is_heard(sender, turn.now.boot_us)
        if beat.profile.node_id != sender or not self.membership.heartbeat(beat, turn.now.boot_us):
            return
        self._learn_endpoint(sender, beat.profile.endpoint)
        anew = before is None or before.profile.session != beat.profile.session
        if self.leading and self._leading and (silent or anew):
            self._leading.heard_again(sender, turn, anew=anew)
        if beat.leader == sender and self.may_command(sender) and beat.fence >= self.runner.fence:
            self._settings.vocabulary.refuse_newer(beat.protocol)
            self._leader_hint = sender
            self._protocol_hint = max(self._protocol_hint, beat.protocol)
            if self._leading is None:
                self.membership.take_verdict(beat.failed)
                self.clock.hear(turn.now, beat.cluster_us)
        if self.leading and beat.roster_index < self.state.roster_index and sender not in self._log_holders():
            turn.at_once(Send(sender, self._roster_news()))

    def _roster_news(self) -> messages.RosterNews:
        return messages.RosterNews(
            fence=self._fence(),
            cluster=self.cluster,
            roster_index=self.state.roster_index,
            members=self.roster(),
        )

    def _take_news(self, news: messages.RosterNews) -> None:
        if self.cluster not in ("", news.cluster) or self._is_forming():
            return
        old = self._news
        if old is None or news.roster_index > old.roster_index:
            self._news = news
        elif news.roster_index == old.roster_index and news.members != old.members:
            self._news = news  # the same again is no news: `roster` looks for it at each message
        for member in news.members:
            if member.endpoint is not None and member.node_id not in self._endpoints:
                self._learn_endpoint(member.node_id, member.endpoint)
        if self.ledger.votes and self._newer_news() and not self._may_hold_log():
            self.ledger.stand_back(frozenset(one.node_id for one in news.members if one.voter))

    def _fence(self) -> Fence:
        return max(self.runner.fence, Fence(self.generation, self.ledger.term))

    def _learn_endpoint(self, node_id: str, endpoint: Endpoint) -> None:
        if node_id != self._settings.node_id and endpoint.mesh_port and self._endpoints.get(node_id) != endpoint:
            self._endpoints[node_id] = endpoint
            self._endpoint_changes += 1

    # each turn

    def _woke(self, turn: Turn) -> None:
        self.runner.woke(turn)
        self.ledger.woke(turn)
        if self._leading is not None:
            self._leading.woke(turn)
        self._consider_forming(turn)
        self._knock(turn)
        if len(self.roster()) > 1 and turn.now.boot_us >= self._beat_boot_us + self._settings.timing.beat_us:
            self._judge(turn)
            self._beat(turn)
        if self._farewell_boot_us and turn.now.boot_us >= self._farewell_boot_us:
            self._start_over(f"this cluster joins {self.state.dissolved}", turn)

    def _judge(self, turn: Turn) -> None:
        if self._leading is not None:
            self._leading.running = self.runner.running
            if self._leading.judge(turn):
                self._beat(turn)

    def _beat(self, turn: Turn) -> None:
        self._beat_boot_us = turn.now.boot_us
        leads = self.leading
        others = to_hear(self._settings.node_id, self.roster(), self.leader)
        beat = Heartbeat(
            profile=self.profile,
            fence=self._fence(),
            leader=self.leader,
            cluster_us=self.clock.cluster_us(turn.now) if leads else 0,
            wall_us=turn.now.wall_us,
            running=self.runner.running,
            applied_index=self.state.applied[0],
            roster_index=max(self.state.roster_index, self._news.roster_index if self._news else 0),
            protocol=self.protocol,
            suspects=self.membership.suspects(others, turn.now.boot_us),
            failed=tuple(sorted(self.membership.failed)) if leads else (),
        )
        turn.at_once(Publish(HEARTBEATS, beat))

    def _advance(self, turn: Turn) -> None:
        """Apply what is committed; then, as the leader, decide what is due."""
        for _ in range(APPLY_SLICE):
            if not self.ledger.has_committed():
                break
            self._apply(self.ledger.take_committed(), turn)
        if self._leading is not None:
            self._leading.decide(turn)
        self.ledger.cut(turn)

    def _apply(self, committed: Committed, turn: Turn) -> None:
        applied, rows = self._catalog.apply(committed)
        turn.write_all(rows)
        if isinstance(committed.entry, entries.Formed):
            self._admission.formed(turn.now.boot_us)
        if self.state.dissolved and not self._farewell_boot_us:
            self._farewell_boot_us = turn.now.boot_us + (FAREWELL_US if self._leading is not None else 1)
        if isinstance(committed.entry, entries.Noop | entries.Intents):
            self.clock.offset_us = committed.entry.wall_offset_us if self._leading is None else self.clock.offset_us
        if self._leading is None:
            return
        if self._leading.ready:
            self._leading.applied(committed, applied, rows, turn)
        elif committed.index >= self.ledger.first_index and self._is_current():
            self._leading.begin(turn)

    def _is_current(self) -> bool:
        """Whether the state names this agent, and says of a recovery what it has lost: nothing is done before."""
        ours = self.state.member_of(self._settings.node_id)
        return ours is not None and self.state.generation >= self._settings.generation

    def _connect(self, turn: Turn) -> None:
        """Tell the shell whom to let in and whom to dial, whenever that changes."""
        cluster = self.cluster
        if not cluster or (not self._settings.public_key and len(self.roster()) < 2):
            return
        members = self.roster()
        basis = cluster, self.generation, members, self.leader
        if basis == self._connect_basis:
            return
        self._connect_basis = basis
        dial = to_hear(self._settings.node_id, members, self.leader)
        wanted = Connect(cluster, self.generation, members, dial)
        if wanted != self._connected:
            self._connected = wanted
            self.membership.forget_others(frozenset(one.node_id for one in members))
            turn.at_once(wanted)

    # leading

    def _elected(self, clocks: Clocks, turn: Turn) -> None:
        self.ledger.lead(turn)
        reading = self.state.clock[:3]
        for entry in self.ledger.waiting_entries():
            if isinstance(entry, entries.Noop | entries.Intents):
                reading = entry.cluster_us, entry.wall_us, entry.wall_offset_us
            elif isinstance(entry, entries.ClockStep):
                reading = entry.cluster_us, entry.wall_us, entry.to_offset_us
        walls = sorted(clocks.walls_us.values())
        median_us = walls[(len(walls) - 1) // 2]
        self.clock.lead(turn.now, reading, clocks.marks_cluster_us.values(), median_us)
        self._leading = Leading(self._settings, self.state, self.clock, self.ledger, self.membership, self.generation)
        self._leading.tags = self.tags
        first: list[entries.Entry] = []
        member = self._ourselves()
        if self._is_recovering():
            until_us = self.clock.wall_us(turn.now) + 2 * self._settings.horizon_us
            first.append(entries.Recovered(member, until_us, self.generation))
        if not self.state.cluster and not any(isinstance(one, entries.Formed) for one in self.ledger.waiting_entries()):
            first.append(entries.Formed(self._settings.cluster, member, self._settings.tokens))
            self._news = None
        self._leading.open(turn, first)

    def _ourselves(self) -> Member:
        settings = self._settings
        return Member(
            node_id=settings.node_id,
            name=settings.name,
            number=1,
            public_key=settings.public_key,
            priority=settings.priority,
            eligible=settings.eligible,
        )

    def _stop_leading(self, turn: Turn) -> None:
        if self._leading is not None:
            self._leading.end(turn)
            self._leading = None
            self.clock.follow(turn.now)

    def _propose(self, call: Call, turn: Turn) -> None:
        if self._leading is not None:
            self._leading.propose_call(call, turn)
        elif self.leader:
            turn.at_once(Answer(call.call_id, NotLeader("this agent does not lead")))
        else:
            turn.at_once(Answer(call.call_id, NoLeader("no leader at the moment; try again")))

    # finding each other

    def _hello_of_ours(self) -> Hello:
        return Hello(
            self.profile,
            self.cluster,
            self.generation,
            virgin=self.state.is_virgin(),
            token=self._settings.local_token,
            echo=self._echo,
        )

    def _knock(self, turn: Turn) -> None:
        self._admission.knock(self._hello_of_ours(), lambda node_id: self._is_in_touch(node_id, turn.now), turn)

    def _is_in_touch(self, node_id: str, now: Instant) -> bool:
        """Whether a knock would tell us nothing: it is heard; or, in a large cluster, it is a member that others listen
        to, and we hear any of those we listen to."""
        if self.is_heard(node_id, now):
            return True
        if self._connected is None or node_id in self._connected.dial or self._member(node_id) is None:
            return False
        return any(self.is_heard(one, now) for one in self._connected.dial)

    def _consider_forming(self, turn: Turn) -> None:
        if not self.cluster and not self.ledger.voters and self._admission.should_form(turn.now.boot_us):
            self.ledger.form(turn)

    def answer(self, hello: Hello, now: Instant) -> messages.GateMessage:
        """Our gate's answer to a Hello; the event HelloHeard carries what follows from it."""
        profile, ours = self.profile, self.cluster
        if not ours:
            return self._admission.answer_as_newcomer(profile)
        if hello.cluster == ours and hello.generation > self.generation:
            return Wait(profile, ours, "it lives in a higher generation", virgin=False)
        member = self._member(hello.profile.node_id)
        if member is not None and member.public_key != hello.profile.public_key:
            return messages.Refused("this node id is known with another key; start with an empty data directory")
        if hello.cluster in ("", ours) and hello.profile.protocol < self.protocol:
            why = f"the cluster speaks protocol {self.protocol}, this agent only {hello.profile.protocol}"
            return messages.Refused(f"{why}; upgrade meshcron on its machine")
        judged = self._copies.judge(hello.profile, hello.echo, now.boot_us)
        if judged == "copy":
            return refusal(hello.profile.name)
        if judged:
            nonce = self._copies.nonce(now.boot_us) if judged == "unproven" else ""
            return Wait(profile, ours, "another start of this agent was heard", nonce=nonce)
        if member is not None and hello.cluster in ("", ours):
            return Welcome(
                profile=profile,
                cluster=ours,
                generation=self.generation,
                roster_index=max(self.state.roster_index, self._news.roster_index if self._news else 0),
                members=self.roster(),
                leader=self.leader,
                last_index=self.ledger.last_index,
                last_term=self.ledger.last_term,
            )
        if hello.cluster == ours:
            return self._no_member_any_more(hello)
        if hello.cluster:
            why = "this is another cluster of the same key"
            return Wait(profile, ours, why, self.state.is_virgin(), led=bool(self.leader))
        holder = next((one for one in self.roster() if one.name == hello.profile.name), None)
        if holder is not None and self.is_heard(holder.node_id, now):
            return messages.Refused(f"a member named {holder.name!r} is alive; choose another name with --name")
        if not self._settings.eligible:
            return Wait(profile, ours, "others admit it", self.state.is_virgin(), self._admitting_gates())
        return Wait(profile, ours, "it is being admitted", self.state.is_virgin())

    def _admitting_gates(self) -> tuple[Endpoint, ...]:
        """Of those whose word about newcomers counts, voters first."""
        able = sorted((one for one in self.roster() if one.eligible), key=lambda one: (not one.voter, one.number))
        return tuple(one.endpoint for one in able if one.endpoint is not None)[:GATES_MAX]

    def _no_member_any_more(self, hello: Hello) -> messages.Refused:
        if hello.generation < self.generation:
            why = "its cluster was recovered without it: start with an empty data directory"
            return messages.Refused(why, cluster=self.cluster, generation=self.generation)
        return messages.Refused("it was removed from this cluster; start with an empty data directory")

    def _hello(self, hello: Hello, turn: Turn) -> None:
        profile = hello.profile
        if not self.cluster:
            if hello.cluster:
                self._admission.called(profile, turn.now.boot_us)
            else:
                self._admission.heard_newcomer(profile, turn.now.boot_us)
            return
        if self._copies.judge(profile, hello.echo, turn.now.boot_us):
            self._copies.met(profile, hello.echo, turn)
            return
        if hello.cluster == self.cluster and hello.generation > self.generation:
            # Only an answer to a question of ours is believed: ask there.
            self._admission.found(profile.endpoint.host, profile.endpoint.gate_port, profile.node_id, turn.now.boot_us)
            self._knock(turn)
            return
        member = self._member(profile.node_id)
        if member is not None and member.public_key == profile.public_key and hello.cluster in ("", self.cluster):
            self._learn_endpoint(profile.node_id, profile.endpoint)
        elif not hello.cluster:
            request = messages.Admit(profile, hello.token)
            if self._leading is not None:
                self._leading.admit(request, turn)
            elif self.leader and self._settings.eligible:
                turn.at_once(Send(self.leader, request))
        elif hello.cluster != self.cluster:
            self._met(hello.cluster, turn, virgin=hello.virgin)

    def _knock_answered(self, event: events.KnockAnswered, turn: Turn) -> None:  # noqa: C901, PLR0912 - as above
        message = event.message
        if isinstance(message, Welcome | Wait) and self._copies.is_ours(message.profile):
            message = refusal(self._settings.name)
        match message:
            case Welcome() as welcome:
                if self._copies.judge(welcome.profile, "", turn.now.boot_us):
                    return  # where it listens is no place to dial; it hears so when it knocks
                self._admission.answered(event.host, event.port, welcome.profile, turn)
                self._welcomed(welcome, turn)
            case Wait() as wait:
                if wait.nonce and wait.nonce != self._echo:
                    self._echo = wait.nonce
                    turn.at_once(Knock(event.host, event.port, self._hello_of_ours()))
                    return
                self._admission.answered(event.host, event.port, wait.profile, turn)
                for gate in wait.gates[:GATES_MAX]:
                    self._admission.learn(gate.host, gate.gate_port, "", turn.now.boot_us)
                if self._is_left_behind(wait, turn.now):
                    self._start_over("its cluster was dissolved while this agent did not hear of it", turn)
                elif self.cluster and wait.cluster not in ("", self.cluster):
                    self._met(wait.cluster, turn, virgin=wait.virgin)
                    if wait.led:
                        self._go_over(wait, turn)
                elif not self.cluster and wait.cluster:
                    self._admission.heard_of_cluster(turn.now.boot_us)
                elif not self.cluster:
                    self._admission.heard_newcomer(wait.profile, turn.now.boot_us)
            case messages.Refused(is_copy=True) as no:
                self.is_copy = True
                turn.at_once(Halt(no.why))
            case messages.Refused() as no:
                if self.cluster and no.cluster == self.cluster and no.generation > self.generation:
                    self._outlived(no.generation, turn, expelled=True)
                elif turn.now.boot_us >= self._refused_boot_us:
                    self._refused_boot_us = turn.now.boot_us + REFUSED_EVERY_US
                    refused(no, turn)
            case _:
                return

    def _outlived(self, generation: int, turn: Turn, *, expelled: bool = False) -> None:
        """The cluster was recovered without us (PROTOCOL 2). Whoever may hold the log holds an old one, and begins anew
        under another node id; the others follow. `expelled`: it knows us no more."""
        if generation <= self.generation:
            return
        number = messages.generation_number(generation)
        if expelled or self._settings.eligible or self.state.cluster:
            turn.at_once(Alarm("outlived", f"this cluster was recovered (generation {number}): its old log ends here"))
            self._start_over("this cluster was recovered without this agent", turn)
            return
        turn.at_once(Alarm("recovered", f"this cluster was recovered (generation {number}): this agent follows"))
        self.runner.enter(self.cluster, generation, turn)
        if self._news is not None:
            self._news = replace(self._news, roster_index=OUTLIVED_ROSTER)

    def _welcomed(self, welcome: Welcome, turn: Turn) -> None:
        if self._is_forming() or (self.cluster and welcome.cluster != self.cluster):
            return
        if self.cluster:
            self._outlived(welcome.generation, turn)
        else:
            self.runner.enter(welcome.cluster, welcome.generation, turn)
        if self._over or welcome.generation < self.generation:
            return
        self._learn_endpoint(welcome.profile.node_id, welcome.profile.endpoint)
        news = messages.RosterNews(
            fence=Fence(), cluster=welcome.cluster, roster_index=welcome.roster_index, members=welcome.members
        )
        self._take_news(news)

    def _met(self, other: str, turn: Turn, *, virgin: bool) -> None:
        """Another cluster of our key."""
        if not self.leading or self.state.dissolved:
            return
        what = meets(self.cluster, self.state.is_virgin(), other, virgin)
        if what == "dissolve" and self.ledger.can_propose(turn.now.boot_us):
            self.ledger.propose(entries.Dissolve(other), turn)
        elif what == "alarm" and other not in self._met_clusters:
            self._met_clusters.add(other)
            turn.at_once(
                Alarm("two_clusters", "another cluster with this key has jobs of its own: back up one and rejoin it")
            )

    def _go_over(self, wait: Wait, turn: Turn) -> None:
        """Our cluster may have dissolved while we were cut off: then nobody is left to tell us so."""
        if not self.state.cluster or (self.leader and self.is_heard(self.leader, turn.now)):
            return
        what = meets(self.cluster, self._is_unused(), wait.cluster, wait.virgin)
        if what == "dissolve" and turn.now.boot_us - self._led_boot_us >= LEADERLESS_US:
            self._start_over(f"its cluster has no leader any more; it joins {wait.cluster}", turn)

    def _is_unused(self) -> bool:
        """As far as our own log tells: what was committed, and is missing here, does not need us."""
        waiting = self.ledger.waiting_entries()
        jobs = any(isinstance(one, entries.JobPut) for one in waiting)
        tokens = any(isinstance(one, entries.TokenPut) and not one.token.node_id for one in waiting)
        return self.state.is_virgin() and not jobs and not tokens

    def _is_left_behind(self, wait: Wait, now: Instant) -> bool:
        """Whether our cluster was dissolved: who holds no log is told by nobody. It never gave us an order, none of
        those that hold its log is heard, and the machine of one of them belongs to another cluster."""
        if (
            self.state.cluster
            or self._news is None
            or self.runner.fence > Fence()
            or wait.cluster in ("", self.cluster)
        ):
            return False
        able = [one for one in self._news.members if one.eligible]
        moved = any(one.name == wait.profile.name and one.node_id != wait.profile.node_id for one in able)
        return moved and not any(self.is_heard(one.node_id, now) for one in able)

    def _start_over(self, why: str, turn: Turn) -> None:
        """Nothing is done any more; the next start is a newcomer's."""
        self._stop_leading(turn)
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
        voters = frozenset(one.node_id for one in self.state.members.values() if one.voter)
        self.ledger.installed(event.index, event.term, event.crc, voters)
        turn.install(event.index, event.term, event.crc)

    # invariants

    def check(self) -> None:
        """What must hold after every event; raises AssertionError with what does not."""
        self.runner.check()
        if self._leading is not None:
            self._leading.check()
        for uid, job in self.state.jobs.items():
            held = {id_ for id_, execution in self.state.open.items() if execution.uid == uid}
            assert held == set(job.open_ids), f"open executions of job {uid} are counted wrong"
            edited = any(self.state.open[id_].revision != job.revision for id_ in job.open_ids)
            if job.job.concurrency == "forbid" and not edited:
                runs = {self.state.open[id_].run_id for id_ in job.open_ids}
                assert len(runs) <= 1, f"runs of job {uid} overlap under forbid: {runs}"
