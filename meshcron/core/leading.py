"""What an agent does while it leads: answer calls, decide ticks, give orders, gather outcomes, watch over members.

One object a term: whatever it waited for is void when the term ends, and the next leader finds all it needs in the log.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshcron import entries
from meshcron.core.calls import Asked, Calls
from meshcron.core.clocks import ClusterClock, WrongClocks, agreed_wall_us
from meshcron.core.dispatch import Dispatch
from meshcron.core.effects import Alarm, Answer
from meshcron.core.fold import Applied
from meshcron.core.intents import Intents
from meshcron.core.ledger import Ledger
from meshcron.core.membership import Membership
from meshcron.core.proposals import Proposals
from meshcron.core.pruning import Pruning
from meshcron.core.reboots import Reboots
from meshcron.core.reports import Reports, bounded
from meshcron.core.scheduler import Scheduler
from meshcron.core.selector import Candidate
from meshcron.core.settings import Settings
from meshcron.core.state import State
from meshcron.core.stewardship import Stewardship
from meshcron.core.turn import Turn
from meshcron.core.voter import Committed
from meshcron.entries import Entry
from meshcron.errors import NoLeader
from meshcron.messages import Admit, Fence, Result, RunAck, StartedReport, StopAck
from meshcron.model import SECOND_US, Instant
from meshcron.rows import Row

WATCH_US = SECOND_US
"""How often clocks, roster and the fate of silent agents are looked at."""

HEARING_US = 10 * SECOND_US
"""After a cold start members are given so long to be heard before ticks are decided without them (PROTOCOL 6)."""

HEARING_NEW_US = 3 * SECOND_US // 2
"""The same for a new leader; what falls due meanwhile was armed by the old one."""


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
        self._calls = Calls(state, clock, ledger, Proposals(state, clock, self._scheduler, self._intents))
        self._pruning = Pruning(state, clock, ledger)
        self._reports = Reports(settings.node_id, state, clock, ledger)
        self._stewardship = Stewardship(settings, state, clock, ledger, membership, WATCH_US)
        self.ready = False
        """The term's first entry is applied: the state is current, decisions may be taken."""
        self.tags = settings.tags
        """This agent's own, which keeps them current."""
        self._led_boot_us = 0
        self._watched_boot_us = 0
        self._cold = False
        """Some members were never heard since we began to lead, and it is early yet."""
        self._about: dict[int, set[int]] = {}
        """Which jobs an entry of ours on its way through the log is about."""
        self._disagree = False
        self._wrong_clocks = WrongClocks()

    def _start_of(self, node_id: str) -> str:
        if node_id == self._settings.node_id:
            return self._settings.start_id
        beat = self._membership.beat_of(node_id)
        return beat.profile.start_id if beat else ""

    # the term's beginning and end

    def open(self, turn: Turn, first: Iterable[Entry]) -> None:
        """Elected: the term's first entries. They are one Persist, so that none is there without the others."""
        self._led_boot_us = self._watched_boot_us = turn.now.boot_us
        self._pruning.lead(turn.now.boot_us)
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
        """No longer leader."""
        self._calls.end(turn)

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
        if not self._cold and not self._calls.stepping and (tick := self._scheduler.next_wakeup(now)) is not None:
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
            self._pruning.watch(turn)

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
                found.append(Candidate(number, self.tags, self._settings.facts, node_id=member.node_id))
            elif beat := self._membership.beat_of(member.node_id):
                tags, facts, down = beat.profile.tags, beat.profile.facts, member.node_id in failed
                found.append(Candidate(number, tags, facts, down, member.node_id))
            elif newcomer := self._stewardship.newcomer(member.node_id):
                tags, facts, down = newcomer.tags, newcomer.facts, member.node_id in failed
                found.append(Candidate(number, tags, facts, down, member.node_id))
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
        if self._calls.stepping or not self._ledger.can_propose(turn.now.boot_us):
            return
        voters = self._ledger.voters
        wall_us = agreed_wall_us(self._walls_us(voters, turn.now).values(), len(voters))
        if wall_us is None:
            if not self._disagree:
                turn.at_once(Alarm("clocks_disagree", "the voters' clocks do not agree within 2 s; wall time is kept"))
            self._disagree = True
            return
        self._disagree = False
        self._name_wrong_clocks(wall_us, turn)
        step_us = self._clock.slew(turn.now, wall_us)
        if step_us:
            self._calls.stepping = True
            offset_us = self._clock.offset_us
            entry = entries.ClockStep(self._clock.cluster_us(turn.now), wall_us, offset_us, offset_us + step_us)
            self._ledger.propose(entry, turn)
            turn.at_once(Alarm("clock_step", f"the wall clock stepped by {step_us / SECOND_US:+.1f} s"))

    def _name_wrong_clocks(self, wall_us: int, turn: Turn) -> None:
        names = {member.node_id: member.name for member in self._state.members.values()}
        walls_us = self._walls_us((one for one in names if self._has_news_of(one, turn.now)), turn.now)
        ahead_us = {node_id: wall - wall_us for node_id, wall in walls_us.items()}
        for node_id in self._wrong_clocks.look(ahead_us):
            ahead = ahead_us[node_id] / SECOND_US
            text = f"the clock of {names[node_id]!r} is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'}"
            turn.at_once(Alarm("clock_wrong", f"{text} the voters' median: set it, and see that NTP runs there"))

    def _has_news_of(self, node_id: str, now: Instant) -> bool:
        """Heard since the last look; a heartbeat counts once, as it may be old."""
        return node_id == self._settings.node_id or self._membership.silent_us(node_id, now.boot_us) < WATCH_US

    def _walls_us(self, node_ids: Iterable[str], now: Instant) -> dict[str, int]:
        """What the wall clocks of those that are heard show now."""
        walls: dict[str, int] = {}
        for node_id in node_ids:
            if node_id == self._settings.node_id:
                walls[node_id] = now.wall_us
            elif self._membership.is_heard(node_id, now.boot_us) and (beat := self._membership.beat_of(node_id)):
                walls[node_id] = beat.wall_us + self._membership.silent_us(node_id, now.boot_us)
        return walls

    def _watch_silent(self, turn: Turn) -> None:
        members = {member.node_id for member in self._state.members.values()}

        def silent_us(node_id: str) -> int:
            if node_id == self._settings.node_id:
                return 0
            since_us = self._membership.silent_us(node_id, turn.now.boot_us)
            # A leader counts from its own beginning: before, it may have heard nothing for reasons of its own.
            return min(since_us, turn.now.boot_us - self._led_boot_us) if node_id in members else 1 << 62

        self._reports.lost(self._dispatch.lost(silent_us, turn))

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
        self._calls.retry(turn)
        self._reports.flush(turn)
        if not self._calls.stepping and not self._cold:
            for uids, entry in self._scheduler.decide(turn.now):
                self._propose(entry, turn, uids)

    def propose_call(self, call: Asked, turn: Turn) -> None:
        """A command: into the log, or refused."""
        if self.ready:
            self._calls.propose(call, turn)
        else:
            turn.at_once(Answer(call.call_id, NoLeader("the leader is only beginning; try again")))

    def _propose(self, entry: Entry, turn: Turn, uids: set[int]) -> None:
        index = self._ledger.propose(entry, turn)
        if uids:
            self._about[index] = uids
            self._scheduler.proposed(uids, index)

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
            case entries.Intents():
                self._intents.applied(entry.items)
            case entries.Results():
                self._dispatch.results_applied(entry, turn)
            case entries.ClockStep():
                self._calls.stepping = False
                self._clock.step(turn.now, entry.to_offset_us)
                self._scheduler.clock_stepped()
            case entries.MemberPut() | entries.MemberRemove():
                self._name_candidates(turn)
            case _:
                pass
        self._stewardship.applied(entry, applied, turn)
        self._calls.applied(committed.index, applied.outcome, turn)
        self._pruning.applied(entry, applied, turn)

    def check(self) -> None:
        """Invariants of the orders; raises AssertionError with what does not hold."""
        self._dispatch.check()
