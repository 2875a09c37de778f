"""Leader: who belongs to the cluster and who votes in it (PROTOCOL 1, 2, 4).

Lets newcomers in, gives and takes seats, makes way for a better leader, lets members go, and raises the protocol once
all speak it. One entry of a kind at a time: what is wished meanwhile is looked at again once that one is applied.
"""

from __future__ import annotations

from msgspec.structs import replace

from meshcron import entries
from meshcron.core.clocks import ClusterClock
from meshcron.core.fold import Applied, DecideAgain
from meshcron.core.ledger import Ledger
from meshcron.core.membership import Membership
from meshcron.core.roster import Health, log_holders, next_voters
from meshcron.core.settings import Settings
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.entries import Entry
from meshcron.messages import Admit, Profile
from meshcron.model import SECOND_US, Member, Role, Token

NAME_SILENCE_US = 30 * SECOND_US
"""A name is free for a newcomer once its holder has been silent for so long (PROTOCOL 1)."""

ADMIT_US = 2 * SECOND_US
"""An admission not seen applied within this is proposed again."""

ADMITS_WAITING_MAX = 64
"""Newcomers remembered while another one is being admitted; the rest knock again."""

DRAIN_US = 600 * SECOND_US
"""A member that leaves is waited for so long to end what is open on it: an operator who takes a machine out means to
wait for minutes, as for the seat of a dead voter, not for a command that never ends."""

HAND_OVER_STABLE_US = 30 * SECOND_US
"""A voter of higher priority is made way for once it has been heard for so long (PROTOCOL 4)."""


class Stewardship:
    """One term's care for members and seats. To be called only once the term's first entry is applied."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        clock: ClusterClock,
        ledger: Ledger,
        membership: Membership,
        watch_us: int,
    ) -> None:
        """`watch_us`: how often `watch` is called."""
        self._settings = settings
        self._state = state
        self._clock = clock
        self._ledger = ledger
        self._membership = membership
        self._watch_us = watch_us
        self.roster_due_boot_us = 0
        """When to look who should vote before the next look at everything; 0 = no earlier."""
        self._admitting: dict[str, int] = {}
        self._to_admit: dict[str, Admit] = {}
        """Who knocked meanwhile."""
        self._removed_index = state.roster_index
        """Up to which roster change somebody may have been removed."""
        self._newcomers: dict[str, Profile] = {}
        self._draining: dict[str, int] = {}
        """Members that leave and have something open: until when they are waited for."""
        self._reshaping = False
        """A Roster or HandOver entry of ours is on its way."""
        self._restating = False
        """A MemberPut of ours with what a member says of itself is on its way."""
        self._upgrading = False
        """A Config entry of ours is on its way."""

    def newcomer(self, node_id: str) -> Profile | None:
        """What one whom we admitted said of itself, until it is heard as a member."""
        return self._newcomers.get(node_id)

    # watching

    def watch(self, turn: Turn) -> None:
        """Look at everything."""
        self._watch_facts(turn)
        self._watch_roster(turn)
        self._watch_protocol(turn)

    def woke(self, turn: Turn) -> None:
        """The one look that cannot wait for the next `watch`."""
        if 0 < self.roster_due_boot_us <= turn.now.boot_us:
            self._watch_roster(turn)

    def _says(self, member: Member) -> Member:
        """A member with the priority and the eligibility that it last gave itself; as it is, where it was not heard. No
        worker becomes eligible by its own word: that takes the cluster key, which it need not have (SECURITY.md)."""
        said: Settings | Profile = self._settings
        if member.node_id != self._settings.node_id:
            beat = self._membership.beat_of(member.node_id)
            if beat is None:
                return member
            said = beat.profile
        eligible = said.eligible and (member.eligible or member.voter)
        if (said.priority, eligible) == (member.priority, member.eligible):
            return member
        return replace(member, priority=said.priority, eligible=eligible)

    def _watch_facts(self, turn: Turn) -> None:
        """A member came back with another priority or another `voter`: one of them at a time, once. A voter that wants
        no vote gives up its seat first (`_watch_roster`): until then its copies and its votes are counted on."""
        if self._restating or not self._ledger.can_propose(turn.now.boot_us):
            return
        for _, member in sorted(self._state.members.items()):
            said = self._says(member)
            if member.voter or member.node_id in self._ledger.voters:
                said = replace(said, eligible=said.eligible or member.eligible)
            if said == member or member.leaving:
                continue
            self._restating = True
            role = _local_role(eligible=said.eligible)
            tokens = [one for one in self._state.token_map.values() if one.node_id == member.node_id]
            changed = tuple(replace(one, role=role) for one in tokens if one.role != role)
            self._ledger.propose(entries.MemberPut(said, changed), turn)
            return

    def _watch_roster(self, turn: Turn) -> None:
        self.roster_due_boot_us = 0
        if self._reshaping or not self._ledger.roster_may_change() or not self._ledger.can_propose(turn.now.boot_us):
            return
        health = self._health(turn)
        members = {number: self._says(member) for number, member in self._state.members.items()}
        own, timing = self._settings.node_id, self._settings.timing
        voters = next_voters(own, self._ledger.voters, members, health, timing)
        if voters is not None:
            self._reshaping = True
            self._ledger.propose(entries.Roster(tuple(sorted(voters))), turn)
            return
        left = (timing.stable_us - one.stable_us for one in health.values() if one.stable_us)
        soon = min((some for some in left if 0 < some < self._watch_us), default=0)
        if soon:
            self.roster_due_boot_us = turn.now.boot_us + soon
        health = {
            one.node_id: health[one.node_id] for one in members.values() if one.node_id in health and one.eligible
        }
        if self._let_leave(members, health, turn):
            return
        last_us, hold_us = self._state.hand_over
        if self._clock.cluster_us(turn.now) < last_us + hold_us:
            return
        priorities = {member.node_id: member.priority for member in self._state.members.values()}
        better = self._ledger.hand_over_to(priorities, health, HAND_OVER_STABLE_US)
        if better:
            self._reshaping = True
            self._ledger.propose(entries.HandOver(better, self._clock.cluster_us(turn.now)), turn)

    def _let_leave(self, members: dict[int, Member], health: dict[str, Health], turn: Turn) -> bool:
        """Members on their way out: the leader hands over to one that stays, who has no vote (any more) is removed once
        what is open on it has ended. A leader that wants no vote hands over, too."""
        for number, member in sorted(members.items()):
            if member.node_id == self._settings.node_id:
                stay = {one.node_id for one in members.values() if not one.leaving}
                able = {node_id: one for node_id, one in health.items() if node_id in stay}
                if (member.leaving or not member.eligible) and (heir := self._ledger.heir(able)):
                    self._ledger.hand_over(heir, turn)
                    return True
            elif member.leaving and not member.voter and self._is_drained(member, turn):
                self._ledger.propose(entries.MemberRemove(number, self._clock.cluster_us(turn.now)), turn)
                return True
        return False

    def _is_drained(self, member: Member, turn: Turn) -> bool:
        """Whether nothing is open on a member that gets no new runs, or on its way to be, or it is in vain to wait."""
        node_id, now_us = member.node_id, turn.now.boot_us
        if node_id in self._membership.failed or now_us >= self._draining.setdefault(node_id, now_us + DRAIN_US):
            return True
        waiting = (one for one in self._ledger.waiting_entries() if isinstance(one, entries.Intents))
        if any(member.number in item.targets for one in waiting for item in one.items):
            return False
        return all(one.node_id != node_id for one in self._state.open.values())

    def _health(self, turn: Turn) -> dict[str, Health]:
        now_us, own = turn.now.boot_us, self._settings.node_id
        return {
            member.node_id: Health(
                self._membership.silent_us(member.node_id, now_us),
                self._membership.stable_us(member.node_id, now_us),
                self._ledger.lag(member.node_id),
            )
            for member in self._state.members.values()
            if member.node_id != own
        }

    def _watch_protocol(self, turn: Turn) -> None:
        """Speak what all speak: whoever holds the log has to be there and say so, of the others those we hear."""
        spoken = [self._settings.vocabulary.protocol]
        if self._upgrading or spoken[0] <= self._state.protocol or not self._ledger.can_propose(turn.now.boot_us):
            return
        holders = log_holders(self._state.members.values(), self._ledger.voters, self._membership.failed)
        members = {member.node_id for member in self._state.members.values()}
        for node_id in (holders | members) - {self._settings.node_id}:
            beat = self._membership.beat_of(node_id)
            if beat is not None and self._membership.is_heard(node_id, turn.now.boot_us):
                spoken.append(beat.profile.protocol)
            elif node_id in holders:
                return
        if min(spoken) > self._state.protocol:
            self._upgrading = True
            self._ledger.propose(entries.Config(min(spoken)), turn)

    # admission

    def admit(self, message: Admit, turn: Turn) -> None:
        """Somebody with the key knocked: commit it as a member."""
        profile = message.profile
        if profile.protocol < self._state.protocol:
            return  # the gate that it knocked at was behind; the next one says so
        if 0 <= message.roster_index < self._removed_index:
            return  # a word that hung: it may be of somebody who was removed since. Who lives knocks again
        if self._state.dissolved or not self._ledger.can_propose(turn.now.boot_us):
            return
        if any(one.public_key == profile.public_key != "" for one in self._state.members.values()):
            return  # it is one already; under a second name it would be what it may not become (SECURITY.md)
        since = self._admitting.get(profile.node_id)
        if self._state.member_of(profile.node_id) or (since and turn.now.boot_us - since < ADMIT_US):
            return
        if any(turn.now.boot_us - at < ADMIT_US for at in self._admitting.values()):
            if len(self._to_admit) < ADMITS_WAITING_MAX:
                self._to_admit[profile.node_id] = message
            return  # one at a time: each takes the next number
        replaces = self._silent_holder(profile, turn)
        if replaces is None:
            return
        self._admitting = {profile.node_id: turn.now.boot_us}
        member = Member(
            node_id=profile.node_id,
            name=profile.name,
            number=self._state.last_number + 1,
            public_key=profile.public_key,
            priority=profile.priority,
            eligible=profile.eligible,
            voter=False,
        )
        nodes = {one.node_id for one in self._state.members.values()}
        unheard = {id_: one for id_, one in self._newcomers.items() if not self._membership.beat_of(id_)}
        self._newcomers = {id_: one for id_, one in unheard.items() if id_ in nodes} | {profile.node_id: profile}
        tokens = (_local_token(message.token, profile),) if message.token else ()
        cluster_us = self._clock.cluster_us(turn.now) if replaces >= 0 else 0
        self._ledger.propose(entries.MemberPut(member, tokens, replaces, cluster_us=cluster_us), turn)

    def _admit_next(self, turn: Turn) -> None:
        """Who knocked while another one was being admitted."""
        while self._to_admit and not self._admitting:
            self.admit(self._to_admit.pop(next(iter(self._to_admit))), turn)

    def _silent_holder(self, profile: Profile, turn: Turn) -> int | None:
        """The number of the silent member whose name a newcomer takes, -1 where the name is free, None = it lives."""
        holder = next((one for one in self._state.members.values() if one.name == profile.name), None)
        if holder is None:
            return -1
        alive = holder.node_id == self._settings.node_id
        silent_us = self._membership.silent_us(holder.node_id, turn.now.boot_us)
        return None if alive or silent_us < NAME_SILENCE_US else holder.number

    # what an applied entry asks for

    def applied(self, entry: Entry, applied: Applied, turn: Turn) -> None:
        """An entry is applied: ours is on its way no more."""
        match entry:
            case entries.MemberPut() | entries.MemberRemove():
                if isinstance(entry, entries.MemberRemove) or entry.replaces >= 0:
                    self._removed_index = self._state.roster_index
                self._admitting.clear()
                self._restating = False
                self._admit_next(turn)
            case entries.Roster():
                self._reshaping = False
                self.roster_due_boot_us = turn.now.boot_us
            case entries.Config():
                self._upgrading = False
            case entries.HandOver():
                self._reshaping = False
                if not isinstance(applied.outcome, DecideAgain):
                    self._ledger.hand_over(entry.to, turn)
            case _:
                pass


def _local_token(token: Token, profile: Profile) -> Token:
    """A newcomer's own token, as the cluster stores it: whatever it says of itself, it is valid on that agent alone,
    and a worker's opens nothing but what the worker may know (PROTOCOL 1)."""
    short = profile.node_id[:12]
    role = _local_role(eligible=profile.eligible)
    return replace(token, id=f"local-{short}", name=f"local {short}", role=role, node_id=profile.node_id)


def _local_role(*, eligible: bool) -> Role:
    return "admin" if eligible else "local"
