"""Who leads, as far as this agent knows; and its own term while that is this agent (`leading` is what it then does)."""

from __future__ import annotations

from meshcron import entries
from meshcron.core.calls import Asked
from meshcron.core.clocks import ClusterClock
from meshcron.core.effects import Answer
from meshcron.core.election import Clocks
from meshcron.core.fold import Applied
from meshcron.core.known_members import KnownMembers
from meshcron.core.leading import Leading
from meshcron.core.ledger import Ledger
from meshcron.core.membership import Membership
from meshcron.core.runner import Runner
from meshcron.core.settings import Settings
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.core.voter import Committed
from meshcron.errors import NoLeader, NotLeader
from meshcron.model import Member
from meshcron.rows import Row
from meshcron.vocabulary import FIRST


class Leadership:
    """The leader of this agent's cluster."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        clock: ClusterClock,
        ledger: Ledger,
        membership: Membership,
        runner: Runner,
        known: KnownMembers,
    ) -> None:
        self._settings = settings
        self._state = state
        self._clock = clock
        self._ledger = ledger
        self._membership = membership
        self._runner = runner
        self._known = known
        self.ours: Leading | None = None
        """What this agent does while it leads; None while it does not."""
        self.led_boot_us = 0
        """When a leader was last known."""
        self._leader_hint = ""
        self._protocol_hint = FIRST

    def start(self, now_boot_us: int) -> None:
        """The first call."""
        self.led_boot_us = now_boot_us

    # who

    @property
    def leading(self) -> bool:
        """Whether this agent leads and may take writes."""
        return self.ours is not None and self.ours.ready

    @property
    def leader(self) -> str:
        """Node id of whom this agent takes for the leader, "" when it knows none."""
        if self.ours is not None:
            return self._settings.node_id if self.ours.ready else ""
        if self._ledger.voters and self._known.holds_log:
            return self._ledger.leader
        return self._leader_hint

    @property
    def protocol(self) -> int:
        """What the cluster speaks, as far as this agent knows."""
        return max(self._state.protocol, self._protocol_hint)

    def says_so(self, node_id: str, protocol: int) -> None:
        """A member whose word counts says that it leads, and what its cluster speaks."""
        self._leader_hint = node_id
        self._protocol_hint = max(self._protocol_hint, protocol)

    def tell(self, turn: Turn) -> None:
        """What every turn ends with: the runner hears whom to report to."""
        leader = self._runner.leader = self.leader
        if leader and self._known.is_heard(leader, turn.now):
            self.led_boot_us = turn.now.boot_us

    # our own term

    def is_recovering(self) -> bool:
        """Whether an operator's recovery is not recorded yet. Once it is, this agent may lead again, with others."""
        recorded = [self._state.generation]
        recorded += [one.generation for one in self._ledger.waiting_entries() if isinstance(one, entries.Recovered)]
        return bool(self._state.cluster) and max(recorded) < self._settings.generation

    def elected(self, clocks: Clocks, tags: dict[str, str], turn: Turn) -> None:
        """This agent has won; `tags` are its own as they now are."""
        self._ledger.lead(turn)
        waiting = self._ledger.waiting_entries()
        reading = self._state.clock[:3]
        for entry in waiting:
            if isinstance(entry, entries.Noop | entries.Intents):
                reading = entry.cluster_us, entry.wall_us, entry.wall_offset_us
            elif isinstance(entry, entries.ClockStep):
                reading = entry.cluster_us, entry.wall_us, entry.to_offset_us
        walls = sorted(clocks.walls_us.values())
        median_us = walls[(len(walls) - 1) // 2]
        self._clock.lead(turn.now, reading, clocks.marks_cluster_us.values(), median_us)
        formed = next((one for one in waiting if isinstance(one, entries.Formed)), None)
        if not self._state.cluster:
            self._runner.enter(formed.cluster if formed else self._settings.cluster, 0, turn)
        generation = self._runner.fence.generation
        self.ours = Leading(self._settings, self._state, self._clock, self._ledger, self._membership, generation)
        self.ours.tags = tags
        first: list[entries.Entry] = []
        member = self._ourselves()
        if self.is_recovering():
            until_us = self._clock.wall_us(turn.now) + 2 * self._settings.horizon_us
            first.append(entries.Recovered(member, until_us, generation))
        if not self._state.cluster and formed is None:
            first.append(entries.Formed(self._settings.cluster, member, self._settings.tokens))
            self._known.forget_news()
        self.ours.open(turn, first)

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

    def end(self, turn: Turn) -> None:
        """Nothing is decided here any more."""
        if self.ours is not None:
            self.ours.end(turn)
            self.ours = None
            self._clock.follow(turn.now)

    def propose(self, call: Asked, turn: Turn) -> None:
        """Somebody asks for a write."""
        if self.ours is not None:
            self.ours.propose_call(call, turn)
        elif self.leader:
            turn.at_once(Answer(call.call_id, NotLeader("this agent does not lead")))
        else:
            turn.at_once(Answer(call.call_id, NoLeader("no leader at the moment; try again")))

    def judge(self, turn: Turn) -> bool:
        """Decide, as the leader, who has failed; True when that changed."""
        return self.ours is not None and self.ours.judge(turn)

    def applied(self, committed: Committed, applied: Applied, rows: list[Row], turn: Turn) -> None:
        """An entry was applied: go on from there, or begin with it."""
        if self.ours is None:
            return
        if self.ours.ready:
            self.ours.applied(committed, applied, rows, turn)
        elif committed.index >= self._ledger.first_index and self._is_current():
            self.ours.begin(turn)

    def _is_current(self) -> bool:
        """Whether the state names this agent, and says of a recovery what it has lost: nothing is done before."""
        ours = self._state.member_of(self._settings.node_id)
        return ours is not None and self._state.generation >= self._settings.generation
