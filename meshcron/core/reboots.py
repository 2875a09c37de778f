"""Leader: what a start of an agent owes to `@reboot` jobs (PROTOCOL 6): one run each, on that agent."""

from __future__ import annotations

from collections.abc import Iterable

from meshcron import entries
from meshcron.core.clocks import ClusterClock
from meshcron.core.ledger import Ledger
from meshcron.core.membership import Membership
from meshcron.core.selector import Candidate, matches
from meshcron.core.settings import Settings
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.model import Member

JOBS_MAX = 20_000
"""Of one start: with uids of twelve digits they fill an entry (256 KiB), with those of a log of 100,000 half of it."""


class Reboots:
    """One term's watch over starts. Which start of a member is known stands in the log, so none is taken twice, and a
    new leader is no start."""

    def __init__(
        self, settings: Settings, state: State, clock: ClusterClock, ledger: Ledger, membership: Membership
    ) -> None:
        self._settings = settings
        self._state = state
        self._clock = clock
        self._ledger = ledger
        self._membership = membership
        self._proposed: dict[str, int] = {}
        """By node id, the start of which an entry of ours is in the log."""

    def watch(self, candidates: Iterable[Candidate], turn: Turn) -> None:
        """Propose what nobody has recorded yet. Only once the term's first entry is applied."""
        if not self._ledger.can_propose(turn.now.boot_us):
            return
        for one in candidates:
            member = self._state.members.get(one.number)
            if member is None:
                continue
            start = self._start_of(member)
            if start > max(member.started, self._proposed.get(member.node_id, 0)):
                self._proposed[member.node_id] = start
                self._ledger.propose(self._entry(one, start, turn), turn)

    def _start_of(self, member: Member) -> int:
        """The number of its present start, 0 = not heard of."""
        if member.node_id == self._settings.node_id:
            return self._settings.session
        beat = self._membership.beat_of(member.node_id)
        return beat.profile.session if beat else 0

    def _entry(self, one: Candidate, start: int, turn: Turn) -> entries.MemberStarted:
        jobs = (self._state.jobs[uid] for uid in sorted(self._state.reboots))
        uids = (job.uid for job in jobs if not job.job.disabled and matches(job.job.tags, one))
        return entries.MemberStarted(
            number=one.number,
            start=start,
            cluster_us=self._clock.cluster_us(turn.now),
            wall_us=self._clock.wall_us(turn.now),
            uids=tuple(uids)[:JOBS_MAX],
        )
