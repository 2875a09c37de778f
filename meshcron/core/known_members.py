"""The members as this agent knows them: from its own log, or by the word of those that hold it (PROTOCOL 2, 3)."""

from __future__ import annotations

from msgspec.structs import replace

from meshcron.core.effects import Connect
from meshcron.core.ledger import Ledger
from meshcron.core.membership import Membership, to_hear
from meshcron.core.roster import log_holders
from meshcron.core.settings import Settings
from meshcron.core.state import State
from meshcron.core.turn import Turn
from meshcron.messages import Endpoint, Fence, MemberInfo, RosterNews
from meshcron.model import Instant

OUTLIVED_ROSTER = 1
"""What an outlived generation said of the members is older than anything the higher one says."""

HOST_CHARS_MAX = 255
"""Of an address: no DNS name is longer. All members' go into one message, so a longer one would keep it from all."""


class KnownMembers:
    """Who belongs to the cluster, where they are reached, and which of them hold the log."""

    def __init__(self, settings: Settings, state: State, ledger: Ledger, membership: Membership) -> None:
        self._settings = settings
        self._state = state
        self._ledger = ledger
        self._membership = membership
        self.endpoint = settings.endpoint
        """Where others reach this agent, as it now is."""
        self.news: RosterNews | None = None
        """The members as others know them: for one that does not hold the log, or lags behind."""
        self._endpoints: dict[str, Endpoint] = {}
        self._endpoint_changes = 0
        self._roster_cache: tuple[object, tuple[MemberInfo, ...]] = (None, ())
        self._infos: dict[str, MemberInfo] = {}
        """The same by node id: asked for with every message."""
        self._holders: tuple[object, frozenset[str]] = (None, frozenset())
        self._connected: Connect | None = None
        self._connect_basis: object = None

    # who

    @property
    def cluster(self) -> str:
        """The cluster's id, "" before this agent is in one."""
        return self._state.cluster or (self.news.cluster if self.news and not self.is_forming() else "")

    def is_forming(self) -> bool:
        """Whether our first entry is on its way to the disk: what another cluster says comes too late to be joined, and
        a leader of one must not pass for the leader of the other. They meet once both are there."""
        return self._ledger.leads and not self._state.cluster

    @property
    def roster_index(self) -> int:
        """The last change of the members that this agent knows of."""
        return max(self._state.roster_index, self.news.roster_index if self.news else 0)

    def roster(self) -> tuple[MemberInfo, ...]:
        """Every member, as far as this agent knows."""
        news = self._newer_news()
        key = self._state.roster_index, self._endpoint_changes, news
        if self._roster_cache[0] != key:
            known = news.members if news is not None else self._state_infos()
            self._roster_cache = key, tuple(replace(one, endpoint=self._endpoint_of(one)) for one in known)
            self._infos = {one.node_id: one for one in self._roster_cache[1]}
        return self._roster_cache[1]

    def _newer_news(self) -> RosterNews | None:
        """What others know of the members, where that is more than our own log tells."""
        return self.news if self.news and self.news.roster_index > self._state.roster_index else None

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
                leaving=member.leaving,
            )
            for _, member in sorted(self._state.members.items())
        ]

    def _endpoint_of(self, info: MemberInfo) -> Endpoint | None:
        if info.node_id == self._settings.node_id:
            return self.endpoint
        return self._endpoints.get(info.node_id, info.endpoint)

    def member(self, node_id: str) -> MemberInfo | None:
        """One of them; None = removed, or never a member."""
        self.roster()
        return self._infos.get(node_id)

    # whose word counts

    def may_command(self, node_id: str) -> bool:
        """Whether an order of this member's counts: one that may hold the log. A worker's key commands nobody."""
        member = self.member(node_id)
        return member is not None and member.eligible

    def log_holders(self) -> frozenset[str]:
        """Node ids of those that hold the log. What others tell of the voters takes none of them from a leader: whose
        copies it counts is in its log alone."""
        news, leads = self._newer_news(), self._ledger.leads
        key = self._state.roster_index, self._ledger.voters, leads, news, self._membership.failed
        if self._holders[0] != key:
            members = self._state.members.values() if news is None else news.members
            told = frozenset() if news is None else frozenset(one.node_id for one in news.members if one.voter)
            voters = self._ledger.voters | told if news is None or leads else told
            self._holders = key, log_holders(members, voters, self._membership.failed)
        return self._holders[1]

    @property
    def holds_log(self) -> bool:
        """Whether this agent is one of those."""
        return self._settings.node_id in self.log_holders()

    def may_hold_log(self) -> bool:
        """Whether what voters say is for us: by our own will, or because we are counted on until the cluster has heard
        of another one."""
        ours = self.member(self._settings.node_id)
        return self._settings.eligible or (ours is not None and ours.eligible)

    # who is heard

    def is_heard(self, node_id: str, now: Instant) -> bool:
        """Whether a member spoke within the last beats; this agent always does."""
        return node_id == self._settings.node_id or self._membership.is_heard(node_id, now.boot_us)

    def is_in_touch(self, node_id: str, now: Instant) -> bool:
        """Whether a knock would tell us nothing: it is heard; or, in a large cluster, it is a member that others listen
        to, and we hear any of those we listen to."""
        if self.is_heard(node_id, now):
            return True
        if self._connected is None or node_id in self._connected.dial or self.member(node_id) is None:
            return False
        return any(self.is_heard(one, now) for one in self._connected.dial)

    # what others say of them

    def our_news(self, fence: Fence) -> RosterNews:
        """What this agent tells one that knows less."""
        return RosterNews(fence=fence, cluster=self.cluster, roster_index=self.roster_index, members=self.roster())

    def take_news(self, news: RosterNews) -> None:
        """Somebody who may command tells who the members are."""
        if self.cluster not in ("", news.cluster) or self.is_forming():
            return
        old = self.news
        if old is None or news.roster_index > old.roster_index:
            self.news = news
        elif news.roster_index == old.roster_index and news.members != old.members:
            self.news = news  # the same again is no news: `roster` looks for it at each message
        for member in news.members:
            if member.endpoint is not None and member.node_id not in self._endpoints:
                self.learn_endpoint(member.node_id, member.endpoint)
        if self._ledger.votes and self._newer_news() and not self.may_hold_log():
            self._ledger.stand_back(frozenset(one.node_id for one in news.members if one.voter))

    def forget_news(self) -> None:
        """This agent forms a cluster: what was said of another one is not of this."""
        self.news = None

    def outlive_news(self) -> None:
        """A higher generation has begun: whatever it says of the members is newer."""
        if self.news is not None:
            self.news = replace(self.news, roster_index=OUTLIVED_ROSTER)

    # where they are

    def learn_endpoint(self, node_id: str, endpoint: Endpoint) -> None:
        """Another member says where it is reached."""
        if not endpoint.mesh_port or len(endpoint.host) > HOST_CHARS_MAX:
            return
        if node_id != self._settings.node_id and self._endpoints.get(node_id) != endpoint:
            self._endpoints[node_id] = endpoint
            self._endpoint_changes += 1

    def moved(self, endpoint: Endpoint) -> None:
        """This agent is reached elsewhere now."""
        self.endpoint = endpoint
        self._endpoint_changes += 1

    def connect(self, generation: int, leader: str, turn: Turn) -> None:
        """Tell the shell whom to let in and whom to dial, whenever that changes. Whoever holds the log is asked who the
        members are, and how they do: it hears everyone, as a voter does."""
        cluster = self.cluster
        if not cluster or (not self._settings.public_key and len(self.roster()) < 2):
            return
        members = self.roster()
        basis = cluster, generation, members, leader, self.holds_log
        if basis == self._connect_basis:
            return
        self._connect_basis = basis
        own = self._settings.node_id
        everyone = frozenset(one.node_id for one in members)
        dial = everyone - {own} if self.holds_log else to_hear(own, members, leader)
        wanted = Connect(cluster, generation, members, dial)
        if wanted != self._connected:
            self._connected = wanted
            self._membership.forget_others(everyone)
            turn.at_once(wanted)
