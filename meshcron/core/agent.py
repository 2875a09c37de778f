"""The core of one agent: routes each event to its machine and gathers what they ask for. The only mutator of the core.

It reads no clock, opens nothing, draws nothing: `handle(event, now)` is all there is, and `next_wakeup` says when to
call it with Woke.
"""

from __future__ import annotations

from typing import assert_never

import msgspec
from msgspec import Struct

from meshcron import commands, entries
from meshcron.core import events
from meshcron.core.catalog import Applied, Catalog, DecideAgain
from meshcron.core.clocks import ClusterClock
from meshcron.core.dispatch import Dispatch
from meshcron.core.effects import Alarm, Answer, Effect
from meshcron.core.events import Event
from meshcron.core.proposals import Proposals
from meshcron.core.replication import Committed, Leader, Ledger
from meshcron.core.runner import Runner
from meshcron.core.scheduler import SPREAD_HISTORY, Scheduler
from meshcron.core.selector import Candidate
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.entries import Entry
from meshcron.errors import MeshcronError, NoLeader
from meshcron.messages import (
    Fence,
    Result,
    ResultAck,
    ResultItem,
    Run,
    RunAck,
    StartedItem,
    StartedReport,
    Stop,
    StopAck,
)
from meshcron.model import SECOND_US, Instant, Member, Token
from meshcron.rows import Loaded, Row

CLOCK_CHECK_US = SECOND_US
"""How often the wall clock is compared with ours, and the longest time between two wake-ups."""

STARTED_DELAY_US = 100_000
"""How long a Started is held back: most commands end before it, and then their Result says it all."""

RESULTS_BYTES_MAX = 200_000
"""Of one Results entry, below the 256 KiB of an entry."""

TRIES_MAX = 50
"""How often a call is decided anew because the state moved on meanwhile."""

APPLY_SLICE = 200
"""Committed entries applied in one turn (PROTOCOL 8)."""


class Settings(Struct, frozen=True, kw_only=True):
    """What an agent is told at start and never changes while it runs."""

    node_id: str
    name: str
    session: int
    """The number of this start (PROTOCOL 1)."""
    tags: dict[str, str]
    facts: dict[str, str]
    slots: int
    horizon_us: int
    cluster: str
    """Random id for the cluster, used if this agent forms one."""
    tokens: tuple[Token, ...]
    """The first tokens, used likewise."""
    recovering: bool = False
    """The data directory was salvaged: this agent goes on alone, under a new node id."""


class Call(Struct):
    """A command on its way through the log."""

    call_id: str
    command: commands.Command
    tries: int = 0


class Agent:
    """One agent, as a deterministic machine."""

    def __init__(self, settings: Settings, loaded: Loaded) -> None:
        self._settings = settings
        self.state = State.load(loaded)
        self.clock = ClusterClock()
        self.ledger = Ledger(settings.node_id, loaded.ballot, loaded.log, self.state.applied)
        self.runner = Runner(settings.node_id, settings.name, settings.session, settings.slots, loaded)
        self.leading = False
        self.tags = settings.tags
        """This agent's tags as they now are."""
        self._catalog = Catalog(self.state)
        self._scheduler = Scheduler(self.state, self.clock, settings.horizon_us)
        self._dispatch = Dispatch(self.state, self.clock)
        self._proposals = Proposals(self.state, self.clock, self._scheduler)
        self._persists = 0
        self._calls: dict[int, Call] = {}
        self._again: list[Call] = []
        self._about: dict[int, set[int]] = {}
        """Which jobs an entry of ours on its way through the log is about."""
        self._results: list[tuple[str, ResultItem]] = []
        self._started: dict[str, StartedItem] = {}
        self._started_boot_us = 0
        self._pruning: set[int] = set()
        self._clock_boot_us = 0
        self._stepping = False

    # the one door

    def start(self, now: Instant) -> list[Effect]:
        """The first call: take up what earlier sessions left, stand for leader."""
        turn = Turn(now)
        self.runner.resume(turn, disown=self._settings.recovering)
        self.ledger.stand(turn)
        self._clock_boot_us = now.boot_us
        return self._close(turn)

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Take one event in; returns what to do, in order."""
        turn = Turn(now)
        self._route(event, turn)
        self._advance(turn)
        return self._close(turn)

    def next_wakeup(self, now: Instant) -> int:
        """When, on the suspend-counting clock, Woke is due at the latest."""
        wishes = [self._clock_boot_us + CLOCK_CHECK_US]
        if self.ledger.has_committed() or self._again:
            wishes.append(now.boot_us)
        if self._started and not self.ledger.syncing:  # else Persisted will find them
            wishes.append(self._started_boot_us + STARTED_DELAY_US)
        parts = [self.runner.next_wakeup(), self._dispatch.next_wakeup()]
        if self.leading:
            parts.append(self._scheduler.next_wakeup(now))
        return min(*wishes, *(wish for wish in parts if wish is not None), now.boot_us + CLOCK_CHECK_US)

    def _route(self, event: Event, turn: Turn) -> None:
        match event:
            case events.Woke():
                self._woke(turn)
            case events.Proposed():
                self._propose_call(Call(event.call_id, event.command), turn)
            case events.Persisted():
                self._persisted(event.n, turn)
            case events.MessageReceived():
                self._message(event, turn)
            case events.TagsChanged():
                self.tags = event.tags
                self._name_candidates()
            case events.ProcessStarted():
                self.runner.process_started(event, turn)
            case events.ProcessNotStarted():
                self.runner.process_not_started(event, turn)
            case events.ProcessEnded():
                self.runner.process_ended(event, turn)
            case events.ProcessLost():
                self.runner.process_lost(event, turn)
            case _:
                assert_never(event)

    def _message(self, event: events.MessageReceived, turn: Turn) -> None:
        match event.message:
            case Run() as message:
                self.runner.run(event.sender, message, turn)
            case Stop() as message:
                self.runner.stop(event.sender, message, turn)
            case ResultAck() as message:
                self.runner.result_ack(event.sender, message, turn)
            case RunAck() as message:
                self._results += [("", item) for item in self._dispatch.run_ack(message, turn)]
            case StopAck() as message:
                self._results += [("", item) for item in self._dispatch.stop_ack(message)]
            case StartedReport() as message:
                if not self._started:
                    self._started_boot_us = turn.now.boot_us
                self._started.update({item.execution_id: item for item in message.items})
            case Result() as message:
                self._results += [(event.sender, item) for item in message.items]
            case _:
                return  # between agents only; nobody but this one is there yet

    def _close(self, turn: Turn) -> list[Effect]:
        persists, effects = turn.close(self._persists)
        self._persists = persists
        self.ledger.turn_closed(persists)
        return effects

    # leading

    def _persisted(self, n: int, turn: Turn) -> None:
        if self.ledger.elected_by(n):
            self._elected(turn)
        self.ledger.persisted(n)

    def _elected(self, turn: Turn) -> None:
        cluster_us, wall_us, offset_us, _ = self.state.clock
        for entry in self.ledger.waiting_entries():
            if isinstance(entry, entries.Noop | entries.Intents):
                cluster_us, wall_us, offset_us = entry.cluster_us, entry.wall_us, entry.wall_offset_us
            elif isinstance(entry, entries.ClockStep):
                cluster_us, wall_us, offset_us = entry.cluster_us, entry.wall_us, entry.to_offset_us
        self.clock.start(turn.now, cluster_us, wall_us, offset_us)
        now_us = self.clock.cluster_us(turn.now)
        self.ledger.lead(entries.Noop(now_us, turn.now.wall_us, self.clock.offset_us), turn)
        member = Member(node_id=self._settings.node_id, name=self._settings.name, number=1)
        if self._settings.recovering:
            until_us = self.clock.wall_us(turn.now) + 2 * self._settings.horizon_us
            self.ledger.propose(entries.Recovered(member, until_us), turn)
        if not self.state.cluster:
            self.ledger.propose(entries.Formed(self._settings.cluster, member, self._settings.tokens), turn)

    def _is_member(self) -> bool:
        return any(member.node_id == self._settings.node_id for member in self.state.members.values())

    def _lead(self, turn: Turn) -> None:
        """Our own first entry is applied, and the cluster has its id: act on the state from here on."""
        self.leading = True
        self._name_candidates()
        self._dispatch.lead(Fence(0, self.ledger.term), turn)
        self._scheduler.lead(f"{self._settings.node_id[:8]}-{self._settings.session}")

    def _name_candidates(self) -> None:
        """Who may be chosen for a run: this agent, as it now describes itself."""
        ours = [member for member in self.state.members.values() if member.node_id == self._settings.node_id]
        self._scheduler.candidates = [Candidate(one.number, self.tags, self._settings.facts) for one in ours]

    # each turn

    def _woke(self, turn: Turn) -> None:
        self.runner.woke(turn)
        if self.leading:
            self._dispatch.woke(turn)
        if turn.now.boot_us >= self._clock_boot_us + CLOCK_CHECK_US:
            self._clock_boot_us = turn.now.boot_us
            self._check_clock(turn)

    def _check_clock(self, turn: Turn) -> None:
        if not self.leading or self._stepping:
            return
        step_us = self.clock.slew(turn.now)
        if step_us:
            self._stepping = True
            offset_us = self.clock.offset_us
            entry = entries.ClockStep(self.clock.cluster_us(turn.now), turn.now.wall_us, offset_us, offset_us + step_us)
            self.ledger.propose(entry, turn)
            turn.at_once(Alarm("clock_step", f"the wall clock stepped by {step_us / SECOND_US:+.1f} s"))

    def _advance(self, turn: Turn) -> None:
        """Apply what is committed; then, as the leader, decide what is due."""
        for _ in range(APPLY_SLICE):
            if not self.ledger.has_committed():
                break
            self._apply(self.ledger.take_committed(), turn)
        if not self.leading:
            return
        self._retry_calls(turn)
        self._flush_outcomes(turn)
        if not self._stepping:
            for uids, entry in self._scheduler.decide(turn.now):
                self._propose(entry, turn, uids)
        self.ledger.cut(self.state.applied[0], turn)

    def _propose(self, entry: Entry, turn: Turn, uids: set[int]) -> None:
        index = self.ledger.propose(entry, turn)
        if uids:
            self._about[index] = uids
            self._scheduler.proposed(uids, index)

    def _flush_outcomes(self, turn: Turn) -> None:
        """Outcomes gather while the log is being written, so that under load one entry carries many."""
        if self._results and not self.ledger.syncing:
            self._flush_results(turn)
        due = turn.now.boot_us >= self._started_boot_us + STARTED_DELAY_US
        if self._started and due and not self.ledger.syncing:
            self.ledger.propose(entries.Started(tuple(self._started.values())), turn)
            self._started.clear()

    def _flush_results(self, turn: Turn) -> None:
        sender, size = self._results[0][0], 0
        items: list[ResultItem] = []
        for at, (whose, item) in enumerate(self._results):
            size += len(msgspec.json.encode(item))
            if items and (whose != sender or size > RESULTS_BYTES_MAX):
                del self._results[:at]
                break
            items.append(item)
            self._started.pop(item.execution_id, None)
        else:
            self._results.clear()
        self.ledger.propose(entries.Results(self.clock.cluster_us(turn.now), tuple(items), sender), turn)

    # calls

    def _propose_call(self, call: Call, turn: Turn) -> None:
        if not self.leading:
            turn.at_once(Answer(call.call_id, NoLeader("no leader yet: this agent is starting")))
            return
        call.tries += 1
        if self._proposals.undecided_tick(call.command, turn.now) and call.tries < TRIES_MAX:
            self._again.append(call)
            return
        index = 0
        try:
            for entry in self._proposals.entries_for(call.command, turn.now, call.call_id):
                index = self.ledger.propose(entry, turn)
        except MeshcronError as refused:
            turn.after_writes(Answer(call.call_id, refused))
            return
        self._calls[index] = call

    def _retry_calls(self, turn: Turn) -> None:
        again, self._again = self._again, []
        for call in again:
            self._propose_call(call, turn)

    def _answer(self, index: int, outcome: object, turn: Turn) -> None:
        call = self._calls.pop(index, None)
        if call is None:
            return
        if isinstance(outcome, DecideAgain):
            if call.tries < TRIES_MAX:
                self._again.append(call)
                return
            outcome = NoLeader("the job changes all the time; try again")
        turn.after_writes(Answer(call.call_id, outcome))
        put = call.command
        if isinstance(put, commands.PutJob) and put.run_on_create and isinstance(outcome, commands.JobAnswer):
            self._propose_call(Call(f"{call.call_id}+run", commands.RunJob(put.job.name)), turn)

    # applying

    def _apply(self, committed: Committed, turn: Turn) -> None:
        applied, rows = self._catalog.apply(committed)
        turn.write_all(rows)
        role = self.ledger.role
        if not self.leading:
            if isinstance(role, Leader) and committed.index >= role.first_index and self._is_member():
                self._lead(turn)
            return
        self._follow_up(committed, applied, rows, turn)

    def _follow_up(self, committed: Committed, applied: Applied, rows: list[Row], turn: Turn) -> None:
        """What the leader does about an applied entry."""
        entry = committed.entry
        self._dispatch.closed(applied.closed)
        self._dispatch.opened(applied.opened, turn)
        if applied.stopping:
            self._dispatch.stopping(applied.stopping, turn)
        self._scheduler.touched(applied.touched | self._about.pop(committed.index, set()))
        self._scheduler.owed(rows)
        if isinstance(entry, entries.Results):
            self._dispatch.results_applied(entry, turn)
        elif isinstance(entry, entries.ClockStep):
            self._stepping = False
            self.clock.step(turn.now, entry.to_offset_us)
            self._scheduler.clock_stepped()
        elif isinstance(entry, entries.Prune):
            self._pruning.discard(entry.uid)
        self._answer(committed.index, applied.outcome, turn)
        self._prune(applied, turn)

    def _prune(self, applied: Applied, turn: Turn) -> None:
        for uid in {execution.uid for execution in applied.closed} - self._pruning:
            state = self.state.jobs.get(uid)
            if state is None:
                continue
            keep = state.job.history.runs
            if state.recorded > keep + max(SPREAD_HISTORY, keep // SPREAD_HISTORY):
                self._pruning.add(uid)
                days_us = state.job.history.days * 86_400 * SECOND_US
                self.ledger.propose(entries.Prune(uid, keep, self.clock.wall_us(turn.now) - days_us), turn)

    # invariants

    def check(self) -> None:
        """What must hold after every event; raises AssertionError with what does not."""
        self.runner.check()
        self._dispatch.check()
        for uid, job in self.state.jobs.items():
            held = {id_ for id_, execution in self.state.open.items() if execution.uid == uid}
            assert held == set(job.open_ids), f"open executions of job {uid} are counted wrong"
            if job.job.concurrency == "forbid":
                runs = {self.state.open[id_].run_id for id_ in job.open_ids}
                assert len(runs) <= 1, f"runs of job {uid} overlap under forbid: {runs}"
