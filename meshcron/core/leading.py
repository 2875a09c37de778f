"""What an agent does while it leads: answer calls, decide ticks, give orders, gather outcomes, watch over members.

One object a term: whatever it waited for is void when the term ends, and the next leader finds all it needs in the log.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from meshcron import commands, entries
from meshcron.core.answers import first_answer, outcome_of
from meshcron.core.clocks import ClusterClock, agreed_wall_us
from meshcron.core.dispatch import Dispatch
from meshcron.core.effects import Alarm, Answer
from meshcron.core.fold import Applied, DecideAgain
from meshcron.core.intents import Intents
from meshcron.core.ledger import Ledger
from meshcron.core.membership import Membership
from meshcron.core.proposals import Proposals
from meshcron.core.reboots import Reboots
from meshcron.core.reports import Reports, bounded
from meshcron.core.scheduler import Scheduler
from meshcron.core.selector import Candidate
from meshcron.core.settings import Settings
from meshcron.core.state import JobState, State
from meshcron.core.stewardship import Stewardship
from meshcron.core.turn import Turn
from meshcron.core.voter import Committed
from meshcron.entries import Entry
from meshcron.errors import MeshcronError, NoLeader, OutcomeUnknown
from meshcron.messages import Admit, Fence, Result, RunAck, StartedReport, StopAck
from meshcron.model import SECOND_US, Instant
from meshcron.rows import Row

WATCH_US = SECOND_US
"""How often clocks, roster and the fate of silent agents are looked at."""

PATIENCE_US = 4 * SECOND_US
"""So long a call waits for the ticks that come before it, or is decided anew because the state moved on meanwhile."""

PRUNE_EVERY_US = 6 * 3600 * SECOND_US
"""How often every job is looked at for records older than its `history.days`."""

PRUNES_PER_LOOK = 20

SPREAD_HISTORY = 10
"""A job's history is pruned when it exceeds its limit by a tenth, and at least this many: pruning has its price too."""

HEARING_US = 10 * SECOND_US
"""After a cold start members are given so long to be heard before ticks are decided without them (PROTOCOL 6)."""

HEARING_NEW_US = 3 * SECOND_US // 2
"""The same for a new leader; what falls due meanwhile was armed by the old one."""


class Call(Struct):
    """A command on its way through the log."""

    call_id: str
    command: commands.Command
    key: str = ""
    asked_boot_us: int = 0


class Leading:
    """One term of leadership."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        clock: ClusterClock,
        ledger: Ledger,
        membership: Membership,
        generation: int,
    ) -> None:
        self._settings = settings
        self._state = state
        self._clock = clock
        self._ledger = ledger
        self._membership = membership
        self._generation = generation
        self._intents = Intents(state, clock)
        self._scheduler = Scheduler(state, clock, self._intents, settings.horizon_us)
        self._reboots = Reboots(settings, state, clock, ledger, membership)
        self._dispatch = Dispatch(settings.node_id, state, clock, settings.timing.lost_us, self._start_of)
        self._proposals = Proposals(state, clock, self._scheduler, self._intents)
        self._reports = Reports(settings.node_id, state, clock, ledger)
        self._stewardship = Stewardship(settings, state, clock, ledger, membership, WATCH_US)
        self.ready = False
        """The term's first entry is applied: the state is current, decisions may be taken."""
        self.tags = settings.tags
        self.running = 0
        """Executions that hold a slot here; the agent keeps both current."""
        self._led_boot_us = 0
        self._watched_boot_us = 0
        self._cold = False
        """Some members were never heard since we began to lead, and it is early yet."""
        self._calls: dict[int, Call] = {}
        self._again: list[Call] = []
        self._about: dict[int, set[int]] = {}
        """Which jobs an entry of ours on its way through the log is about."""
        self._pruning: set[int] = set()
        self._pruned_boot_us = 0
        self._to_prune: list[int] = []
        self._stepping = False
        self._disagree = False

    def _start_of(self, node_id: str) -> str:
        if node_id == self._settings.node_id:
            return self._settings.start_id
        beat = self._membership.beat_of(node_id)
        return beat.profile.start_id if beat else ""

    # the term's beginning and end

    def open(self, turn: Turn, first: Iterable[Entry]) -> None:
        """Elected: the term's first entries. They are one Persist, so that none is there without the others."""
        self._led_boot_us = self._watched_boot_us = self._pruned_boot_us = turn.now.boot_us
        now_us = self._clock.cluster_us(turn.now)
        self._ledger.propose(entries.Noop(now_us, turn.now.wall_us, self._clock.offset_us), turn)
        for entry in first:
            self._ledger.propose(entry, turn)

    def begin(self, turn: Turn) -> None:
        """The first entry is applied: act on the state from here on."""
        self.ready = True
        self._name_candidates(turn)
        self._dispatch.lead(Fence(self._generation, self._ledger.term), turn)
        self._scheduler.lead()
        self._reboots.watch(self._intents.candidates, turn)

    def end(self, turn: Turn) -> None:
        """No longer leader: calls that stand in the log may take effect or not."""
        for call in self._calls.values():
            turn.at_once(Answer(call.call_id, OutcomeUnknown("the leader changed; the write may still take effect")))
        for call in self._again:
            turn.at_once(Answer(call.call_id, NoLeader("this agent does not lead any more")))

    # time

    def next_wakeup(self, now: Instant) -> int:
        """On the suspend-counting clock."""
        wishes = [self._watched_boot_us + WATCH_US]
        if not self.ready:
            return wishes[0]
        if self._stewardship.roster_due_boot_us:
            wishes.append(self._stewardship.roster_due_boot_us)
        if (reports := self._reports.next_wakeup()) is not None:
            wishes.append(reports)
        if (repeat := self._dispatch.next_wakeup()) is not None:
            wishes.append(repeat)
        if not self._cold and not self._stepping and (tick := self._scheduler.next_wakeup(now)) is not None:
            wishes.append(tick)
        return min(wishes)

    def woke(self, turn: Turn) -> None:
        """Timers."""
        if not self.ready:
            self._watched_boot_us = max(self._watched_boot_us, turn.now.boot_us - WATCH_US // 2)
            return
        self._dispatch.woke(turn)
        self._stewardship.woke(turn)
        if turn.now.boot_us >= self._watched_boot_us + WATCH_US:
            self._watched_boot_us = turn.now.boot_us
            self._watch_clocks(turn)
            self._stewardship.watch(turn)
            self._reboots.watch(self._intents.candidates, turn)
            self._watch_silent(turn)
            self._watch_history(turn)

    def judge(self, turn: Turn) -> bool:
        """Decide who has failed; True when that changed."""
        nodes = frozenset(member.node_id for member in self._state.members.values())
        changed = self._membership.judge(nodes, self._led_boot_us, turn.now.boot_us)
        if self.ready:
            self._name_candidates(turn)
        return changed

    def _name_candidates(self, turn: Turn) -> None:
        """Who may be chosen for a run, as they last described themselves."""
        found: list[Candidate] = []
        failed = self._membership.failed
        staying = {number: member for number, member in self._state.members.items() if not member.leaving}
        for number, member in staying.items():
            if member.node_id == self._settings.node_id:
                found.append(Candidate(number, self.tags, self._settings.facts, self.running, node_id=member.node_id))
            elif beat := self._membership.beat_of(member.node_id):
                profile = beat.profile
                found.append(
                    Candidate(
                        number, profile.tags, profile.facts, beat.running, member.node_id in failed, member.node_id
                    )
                )
            elif newcomer := self._stewardship.newcomer(member.node_id):
                tags, facts, down = newcomer.tags, newcomer.facts, member.node_id in failed
                found.append(Candidate(number, tags, facts, 0, down, member.node_id))
        self._intents.candidates, self._intents.failed = found, failed
        early = turn.now.boot_us < max(
            self._membership.started_boot_us + HEARING_US, self._led_boot_us + HEARING_NEW_US
        )
        self._cold = early and len(found) < len(staying)

    def tags_changed(self, tags: dict[str, str], turn: Turn) -> None:
        """This agent's own tags."""
        self.tags = tags
        if self.ready:
            self._name_candidates(turn)

    # watching

    def _watch_clocks(self, turn: Turn) -> None:
        if self._stepping or not self._ledger.can_propose(turn.now.boot_us):
            return
        wall_us = agreed_wall_us(self._walls_us(turn), len(self._ledger.voters))
        if wall_us is None:
            if not self._disagree:
                turn.at_once(Alarm("clocks_disagree", "the voters' clocks do not agree within 2 s; wall time is kept"))
            self._disagree = True
            return
        self._disagree = False
        step_us = self._clock.slew(turn.now, wall_us)
        if step_us:
            self._stepping = True
            offset_us = self._clock.offset_us
            entry = entries.ClockStep(self._clock.cluster_us(turn.now), wall_us, offset_us, offset_us + step_us)
            self._ledger.propose(entry, turn)
            turn.at_once(Alarm("clock_step", f"the wall clock stepped by {step_us / SECOND_US:+.1f} s"))

    def _walls_us(self, turn: Turn) -> list[int]:
        """What the voters' wall clocks show now."""
        now_us = turn.now.boot_us
        walls = [turn.now.wall_us] if self._settings.node_id in self._ledger.voters else []
        heard = (one for one in sorted(self._ledger.voters) if self._membership.is_heard(one, now_us))
        beats = ((node_id, self._membership.beat_of(node_id)) for node_id in heard)
        others = [beat.wall_us + self._membership.silent_us(node_id, now_us) for node_id, beat in beats if beat]
        return walls + others

    def _watch_silent(self, turn: Turn) -> None:
        members = {member.node_id for member in self._state.members.values()}

        def silent_us(node_id: str) -> int:
            if node_id == self._settings.node_id:
                return 0
            since_us = self._membership.silent_us(node_id, turn.now.boot_us)
            # A leader counts from its own beginning: before, it may have heard nothing for reasons of its own.
            return min(since_us, turn.now.boot_us - self._led_boot_us) if node_id in members else 1 << 62

        self._reports.lost(self._dispatch.lost(silent_us, turn))

    def _watch_history(self, turn: Turn) -> None:
        """Records grow old also where no new ones come."""
        if turn.now.boot_us >= self._pruned_boot_us + PRUNE_EVERY_US:
            self._pruned_boot_us = turn.now.boot_us
            self._to_prune = [uid for uid, state in self._state.jobs.items() if state.recorded]
        if not self._ledger.can_propose(turn.now.boot_us):
            return
        some, self._to_prune = self._to_prune[:PRUNES_PER_LOOK], self._to_prune[PRUNES_PER_LOOK:]
        for uid in some:
            if (state := self._state.jobs.get(uid)) and uid not in self._pruning:
                self._propose_prune(state, turn)

    def admit(self, message: Admit, turn: Turn) -> None:
        """Somebody with the key knocked."""
        if self.ready:
            self._stewardship.admit(message, turn)

    # outcomes

    def run_ack(self, sender: str, message: RunAck, turn: Turn) -> None:
        """Answers to orders."""
        self._reports.conclude(bounded(item) for item in self._dispatch.run_ack(sender, message, turn))

    def heard_again(self, node_id: str, turn: Turn, *, anew: bool) -> None:
        """A member that was silent, or has started `anew`, speaks."""
        self._dispatch.heard_again(node_id, turn, anew=anew)
        if anew:
            self._name_candidates(turn)
            self._reboots.watch(self._intents.candidates, turn)

    def stop_ack(self, sender: str, message: StopAck) -> None:
        """Answers to stops."""
        self._reports.conclude(self._dispatch.stop_ack(sender, message))

    def started(self, sender: str, message: StartedReport, turn: Turn) -> None:
        """Processes run."""
        self._reports.started(sender, message, turn)

    def result(self, sender: str, message: Result) -> None:
        """Final words from an outbox; it repeats them until they are acknowledged."""
        self._reports.result(sender, message)

    def decide(self, turn: Turn) -> None:
        """At the end of each turn: whatever can be proposed now."""
        if not self.ready or not self._ledger.can_propose(turn.now.boot_us):
            return
        self._retry_calls(turn)
        self._reports.flush(turn)
        if not self._stepping and not self._cold:
            for uids, entry in self._scheduler.decide(turn.now):
                self._propose(entry, turn, uids)

    def _propose(self, entry: Entry, turn: Turn, uids: set[int]) -> None:
        index = self._ledger.propose(entry, turn)
        if uids:
            self._about[index] = uids
            self._scheduler.proposed(uids, index)

    # calls

    def propose_call(self, call: Call, turn: Turn) -> None:
        """A command: into the log, or refused."""
        if not self.ready or not self._ledger.can_propose(turn.now.boot_us):
            turn.at_once(Answer(call.call_id, NoLeader("the leader is only beginning; try again")))
            return
        call.asked_boot_us = call.asked_boot_us or turn.now.boot_us
        once = entries.Once(call.key, self._clock.cluster_us(turn.now)) if call.key else None
        if once is not None and (known := first_answer(self._state, once)):
            self._say(call, outcome_of(known), turn)
            return
        stepping = self._stepping and isinstance(call.command, commands.PutJob)  # its cursor would be of the old time
        if stepping or self._proposals.undecided_tick(call.command, turn.now):
            self._take_up_again(call, turn)
            return
        index = 0
        try:
            for entry in self._proposals.entries_for(call.command, turn.now, call.call_id, once):
                index = self._ledger.propose(entry, turn)
        except MeshcronError as refused:
            turn.after_writes(Answer(call.call_id, refused))
            return
        self._calls[index] = call

    def _take_up_again(self, call: Call, turn: Turn) -> None:
        """Its turn comes again with the next applied entry, within PATIENCE_US."""
        if turn.now.boot_us - call.asked_boot_us > PATIENCE_US:
            turn.after_writes(Answer(call.call_id, NoLeader("the job's ticks are being decided; try again")))
        else:
            self._again.append(call)

    def _retry_calls(self, turn: Turn) -> None:
        again, self._again = self._again, []
        for call in again:
            self.propose_call(call, turn)

    def _answer(self, index: int, outcome: object, turn: Turn) -> None:
        call = self._calls.pop(index, None)
        if call is None:
            return
        if isinstance(outcome, DecideAgain):
            self._take_up_again(call, turn)
            return
        self._say(call, outcome, turn)

    def _say(self, call: Call, outcome: object, turn: Turn) -> None:
        """The answer, and the run that a put may have asked for: repeated, too, for a leader may have died between."""
        turn.after_writes(Answer(call.call_id, outcome))
        put = call.command
        if isinstance(put, commands.PutJob) and put.run_on_create and isinstance(outcome, commands.JobAnswer):
            key = f"{call.key}+run" if call.key else ""
            self.propose_call(Call(f"{call.call_id}+run", commands.RunJob(put.job.name), key), turn)

    # what an applied entry asks of the leader

    def applied(self, committed: Committed, applied: Applied, rows: list[Row], turn: Turn) -> None:
        """An entry is applied."""
        entry = committed.entry
        self._dispatch.closed(applied.closed)
        self._dispatch.opened(applied.opened, turn)
        if applied.stopping:
            self._dispatch.stopping(applied.stopping, turn)
        self._scheduler.touched(applied.touched | self._about.pop(committed.index, set()))
        self._scheduler.owed(rows)
        match entry:
            case entries.Results():
                self._dispatch.results_applied(entry, turn)
            case entries.ClockStep():
                self._stepping = False
                self._clock.step(turn.now, entry.to_offset_us)
                self._scheduler.clock_stepped()
            case entries.Prune():
                self._pruning.discard(entry.uid)
            case entries.MemberPut() | entries.MemberRemove():
                self._name_candidates(turn)
            case _:
                pass
        self._stewardship.applied(entry, applied, turn)
        self._answer(committed.index, applied.outcome, turn)
        self._prune(applied, turn)

    def _prune(self, applied: Applied, turn: Turn) -> None:
        if not self._ledger.can_propose(turn.now.boot_us):
            return
        for uid in {execution.uid for execution in applied.closed} - self._pruning:
            state = self._state.jobs.get(uid)
            if state is None:
                continue
            keep = state.job.history.runs
            if state.recorded > keep + max(SPREAD_HISTORY, keep // SPREAD_HISTORY):
                self._propose_prune(state, turn)

    def _propose_prune(self, state: JobState, turn: Turn) -> None:
        self._pruning.add(state.uid)
        history = state.job.history
        before_us = self._clock.wall_us(turn.now) - history.days * 86_400 * SECOND_US
        self._ledger.propose(entries.Prune(state.uid, history.runs, before_us), turn)

    def check(self) -> None:
        """Invariants of the orders; raises AssertionError with what does not hold."""
        self._dispatch.check()
