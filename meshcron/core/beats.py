"""This agent's heartbeats, and what it makes of those of others (PROTOCOL 3).

A beat says who leads and what the time is, who is not heard and who has failed.
"""

from __future__ import annotations

from collections.abc import Callable

from meshcron.core.clocks import ClusterClock
from meshcron.core.digest import Digest
from meshcron.core.effects import Alarm, Publish, Send
from meshcron.core.known_members import KnownMembers
from meshcron.core.leadership import Leadership
from meshcron.core.ledger import Ledger
from meshcron.core.membership import Membership, to_hear
from meshcron.core.runner import Runner
from meshcron.core.settings import Settings
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.messages import Fence, Heartbeat, Profile
from meshcron.model import SECOND_US

BEHIND_US = SECOND_US
"""So long whoever gets the log may lack a change of the members before it is told of it besides: an entry is there
within milliseconds, unless it comes from somebody whom that agent does not know. Told once in so long."""

HEARTBEATS = "heartbeat"
"""The topic of heartbeats."""

ODD = (
    "this agent's rows are not those of the majority of the voters: its database is set aside and it joins anew, under "
    "a new node id; look at its disk and its memory, and report it"
)


class Beats:
    """What is said each beat, and heard."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        clock: ClusterClock,
        ledger: Ledger,
        membership: Membership,
        runner: Runner,
        known: KnownMembers,
        leadership: Leadership,
        digest: Digest,
        *,
        profile: Callable[[], Profile],
        start_over: Callable[[str, Turn], None],
    ) -> None:
        """`profile`: what this agent says of itself. `start_over`: as a newcomer, and why."""
        self._settings = settings
        self._state = state
        self._clock = clock
        self._ledger = ledger
        self._membership = membership
        self._runner = runner
        self._known = known
        self._leadership = leadership
        self._digest = digest
        self._profile = profile
        self._start_over = start_over
        self._differing: frozenset[str] = frozenset()
        """Whose rows are not ours, as an operator was last told."""
        self._beat_boot_us = 0
        self._tell_boot_us: dict[str, int] = {}
        """When to tell a member who the members are, while it knows less of them than we do."""

    def next_wakeup(self) -> int | None:
        """On the suspend-counting clock: the next beat; None where nobody would hear it."""
        return self._beat_boot_us + self._settings.timing.beat_us if len(self._known.roster()) > 1 else None

    def announce(self, turn: Turn) -> None:
        """This agent has begun to lead: who holds no log learns it now, not a beat later (PROTOCOL 4)."""
        if self.next_wakeup() is not None:
            self.beat(turn)

    def beat(self, turn: Turn) -> None:
        """Tell everybody, now."""
        self._beat_boot_us = turn.now.boot_us
        leads, leader = self._leadership.leading, self._leadership.leader
        if leads:
            self._digest.name_index(turn.now.boot_us)
        others = to_hear(self._settings.node_id, self._known.roster(), leader)
        beat = Heartbeat(
            profile=self._profile(),
            fence=self._fence(),
            leader=leader,
            cluster_us=self._clock.cluster_us(turn.now) if leads else 0,
            wall_us=turn.now.wall_us,
            running=self._runner.running,
            applied_index=self._state.applied[0],
            roster_index=self._known.roster_index,
            protocol=self._leadership.protocol,
            digest_index=self._digest.asked_index,
            digest=self._digest.told,
            suspects=self._membership.suspects(others, turn.now.boot_us),
            failed=tuple(sorted(self._membership.failed)) if leads else (),
        )
        turn.at_once(Publish(HEARTBEATS, beat))

    def _fence(self) -> Fence:
        obeyed = self._runner.fence
        return max(obeyed, Fence(obeyed.generation, self._ledger.term))

    def heard(self, sender: str, beat: Heartbeat, turn: Turn) -> None:
        """A member's beat."""
        before, silent = self._membership.beat_of(sender), not self._membership.is_heard(sender, turn.now.boot_us)
        if beat.profile.node_id != sender or not self._membership.heartbeat(beat, turn.now.boot_us):
            return
        self._known.learn_endpoint(sender, beat.profile.endpoint)
        anew = before is None or before.profile.session != beat.profile.session
        ours = self._leadership.ours
        if ours is not None and ours.ready and (silent or anew):
            ours.heard_again(sender, turn, anew=anew)
        if beat.leader == sender and self._known.may_command(sender) and beat.fence >= self._runner.fence:
            self._settings.vocabulary.refuse_newer(beat.protocol)
            self._leadership.says_so(sender, beat.protocol)
            if ours is None:
                self._membership.take_verdict(beat.failed)
                self._digest.asked_index = beat.digest_index
                self._clock.hear(turn.now, beat.cluster_us)
        if self._digest.differs_from(beat):
            self._compare(turn)
        self._tell_behind(sender, beat, turn)

    def _compare(self, turn: Turn) -> None:
        """Whether the voters' rows are ours: who is alone with its own begins anew (PROTOCOL 5)."""
        voters, ours = self._ledger.voters, self._profile()
        beats = [beat for one in sorted(voters) if (beat := self._membership.beat_of(one)) is not None]
        alike = [
            beat for beat in beats if (beat.profile.version, beat.profile.protocol) == (ours.version, ours.protocol)
        ]
        verdict = self._digest.judge(alike, voters)
        if verdict.odd:
            turn.at_once(Alarm("rows_differ", ODD))
            self._start_over("its rows are not those of the others", turn)
        elif self._leadership.leading and not verdict.differ <= self._differing:
            names = ", ".join(sorted(one.name for one in self._known.roster() if one.node_id in verdict.differ))
            turn.at_once(Alarm("rows_differ", f"the rows of {names} are not those of this agent, after the same log"))
        self._differing |= verdict.differ

    def _tell_behind(self, sender: str, beat: Heartbeat, turn: Turn) -> None:
        """Whoever knows less of the members than our log tells hears who they are: from the leader at once, where it
        does not get the log; from all that hold it, where the log does not reach it. It may have been cut off while the
        voters changed, and take a leader whom it does not know for a stranger."""
        if beat.roster_index >= self._state.roster_index or not self._known.holds_log:
            self._tell_boot_us.pop(sender, None)
            return
        now_us = turn.now.boot_us
        at_once = self._leadership.leading and sender not in self._known.log_holders()
        if at_once or now_us >= self._tell_boot_us.setdefault(sender, now_us + BEHIND_US):
            self._tell_boot_us[sender] = now_us + BEHIND_US
            turn.at_once(Send(sender, self._known.our_news(self._fence())))
