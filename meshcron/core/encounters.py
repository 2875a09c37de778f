"""Meeting another cluster of our key, or a higher generation of our own: who stays, who goes over, who begins anew
(PROTOCOL 2)."""

from __future__ import annotations

from collections.abc import Callable

from meshcron import entries, messages
from meshcron.core.admission import meets
from meshcron.core.effects import Alarm
from meshcron.core.known_members import KnownMembers
from meshcron.core.leadership import Leadership
from meshcron.core.ledger import Ledger
from meshcron.core.runner import Runner
from meshcron.core.settings import Settings
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.messages import Fence, Wait
from meshcron.model import SECOND_US, Instant

FAREWELL_US = 3 * SECOND_US
"""The leader of a dissolved cluster stays so long, for the others to hear of it."""

LEADERLESS_US = 30 * SECOND_US
"""An agent of an unused cluster that has known no leader for so long goes over to another cluster of its key."""


class Encounters:
    """What becomes of this agent's cluster, and of this agent, once there is another one."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        ledger: Ledger,
        runner: Runner,
        known: KnownMembers,
        leadership: Leadership,
        *,
        start_over: Callable[[str, Turn], None],
    ) -> None:
        """`start_over`: how this agent begins anew, and why."""
        self._settings = settings
        self._state = state
        self._ledger = ledger
        self._runner = runner
        self._known = known
        self._leadership = leadership
        self._start_over = start_over
        self._met_clusters: set[str] = set()
        self._farewell_boot_us = 0

    # another cluster

    def met(self, other: str, turn: Turn, *, virgin: bool) -> None:
        """Another cluster of our key."""
        if not self._leadership.leading or self._state.dissolved:
            return
        what = meets(self._known.cluster, self._state.is_virgin(), other, virgin)
        if what == "dissolve" and self._ledger.can_propose(turn.now.boot_us):
            self._ledger.propose(entries.Dissolve(other), turn)
        elif what == "alarm" and other not in self._met_clusters:
            self._met_clusters.add(other)
            turn.at_once(
                Alarm("two_clusters", "another cluster with this key has jobs of its own: back up one and rejoin it")
            )

    def told_to_wait(self, wait: Wait, turn: Turn) -> None:
        """A gate did not welcome us: it may belong to another cluster."""
        if self._is_left_behind(wait, turn.now):
            self._start_over("its cluster was dissolved while this agent did not hear of it", turn)
        elif self._known.cluster and wait.cluster not in ("", self._known.cluster):
            self.met(wait.cluster, turn, virgin=wait.virgin)
            if wait.led:
                self._go_over(wait, turn)

    def _go_over(self, wait: Wait, turn: Turn) -> None:
        """Our cluster may have dissolved while we were cut off: then nobody is left to tell us so."""
        leader = self._leadership.leader
        if not self._state.cluster or (leader and self._known.is_heard(leader, turn.now)):
            return
        what = meets(self._known.cluster, self._is_unused(), wait.cluster, wait.virgin)
        if what == "dissolve" and turn.now.boot_us - self._leadership.led_boot_us >= LEADERLESS_US:
            self._start_over(f"its unused cluster has no leader any more, and {wait.cluster} has one", turn)

    def _is_unused(self) -> bool:
        """As far as our own log tells: what was committed, and is missing here, does not need us."""
        waiting = self._ledger.waiting_entries()
        jobs = any(isinstance(one, entries.JobPut) for one in waiting)
        tokens = any(isinstance(one, entries.TokenPut) and not one.token.node_id for one in waiting)
        return self._state.is_virgin() and not jobs and not tokens

    def _is_left_behind(self, wait: Wait, now: Instant) -> bool:
        """Whether our cluster was dissolved: who holds no log is told by nobody. It never gave us an order, none of
        those that hold its log is heard, and the machine of one of them belongs to another cluster."""
        news = self._known.news
        if (
            self._state.cluster
            or news is None
            or self._runner.fence > Fence()
            or wait.cluster in ("", self._known.cluster)
        ):
            return False
        able = [one for one in news.members if one.eligible]
        moved = any(one.name == wait.profile.name and one.node_id != wait.profile.node_id for one in able)
        return moved and not any(self._known.is_heard(one.node_id, now) for one in able)

    # our own, dissolved

    def applied(self, turn: Turn) -> None:
        """An entry was applied: after the one that dissolves our cluster we go, the leader last."""
        if self._state.dissolved and not self._farewell_boot_us:
            self._farewell_boot_us = turn.now.boot_us + (FAREWELL_US if self._leadership.ours is not None else 1)

    def woke(self, turn: Turn) -> None:
        """Time has passed."""
        if self._farewell_boot_us and turn.now.boot_us >= self._farewell_boot_us:
            self._start_over(f"its cluster was dissolved into {self._state.dissolved}", turn)

    # our own, recovered

    def outlived(self, generation: int, turn: Turn, *, expelled: bool = False) -> bool:
        """The cluster was recovered without us (PROTOCOL 2). Whoever may hold the log holds an old one, and begins anew
        under another node id: then True; the others follow. `expelled`: it knows us no more."""
        if generation <= self._runner.fence.generation:
            return False
        number = messages.generation_number(generation)
        if expelled or self._settings.eligible or self._state.cluster:
            turn.at_once(Alarm("outlived", f"this cluster was recovered (generation {number}): its old log ends here"))
            self._start_over("its cluster was recovered without it", turn)
            return True
        turn.at_once(Alarm("recovered", f"this cluster was recovered (generation {number}): this agent follows"))
        self._runner.enter(self._known.cluster, generation, turn)
        self._known.outlive_news()
        return False
