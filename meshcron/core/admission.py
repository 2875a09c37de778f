"""How agents of one key find each other: look around, form a cluster, join one, meet another (PROTOCOL 1, 2).

Addresses are hints. Who belongs to the cluster is a committed entry; what a gate says only tells where to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from meshcron.core.effects import Knock
from meshcron.core.turn import Turn
from meshcron.messages import Hello, Profile, Refused, Wait
from meshcron.model import SECOND_US, Instant

LOOK_AROUND_US = 2 * SECOND_US
"""So long a newcomer with a key looks for others before it forms a cluster."""

MISS_US = 600 * SECOND_US
"""So long one that remembers a cluster, and holds nothing of its log, looks for that before it forms another one. After
a power cut it may be the first that is back, and would give up its node id, and with it its runs, once the others are:
ours, longer than machines and switches take to start."""

KNOCK_MIN_US = SECOND_US // 4
LOOK_US = SECOND_US
"""How often is asked whether the agents at known addresses are heard."""

KNOCK_BACK_US = SECOND_US // 50
"""Whom a cluster's gate has told of itself knocks there so soon, if it has not within KNOCK_MIN_US."""

KNOCK_MAX_US = 15 * SECOND_US
"""Between two knocks at a gate that does not lead anywhere: mDNS announces the dead for 75 minutes. At one that anybody
may have invented it becomes an eighth of the time that it has been silent."""

FORMING_US = 3 * SECOND_US // 2
"""A newcomer that knocked within this is still forming."""

WAIT_US = 3 * SECOND_US
"""Having heard of a cluster, a newcomer forms none of its own for so long."""

NEWCOMERS_KNOCKS_MAX = 8
"""At once, each second: a handshake costs both ends milliseconds, and thirty newcomers on one machine would do nothing
but shake hands. Any gate of a cluster lets one in or names one that does."""

ADDRESSES_MAX = 1000
"""Remembered: whoever announces more on mDNS is not helping. A new one takes the place of a stranger's."""

ADDRESSES_OF_ONE_MAX = 8
"""Of one agent, as many as one announcement may name: the older ones are of earlier starts, on other ports."""

STRANGER_FORGOTTEN_US = 75 * 60 * SECOND_US
"""An address that nobody has vouched for is forgotten so long after it was last announced: that is how long mDNS
announces the dead."""

FORGOTTEN_US = 24 * 3600 * SECOND_US
"""One at which somebody with the key was, so long after he was last heard of: a cut of a night heals by itself."""

STRANGERS_AT_ONCE = 6
"""Knocks of a member at addresses that anybody may have invented; some of those that are under way at once
(runtime/mesh.py, KNOCKS_MAX) are left for others."""

KNOCK_TAKES_US = 2 * SECOND_US
"""After this a knock that is not answered is over (net/curve.py, handshake_ms)."""


class Address(Struct):
    """A place where a gate may be."""

    node_id: str = ""
    next_boot_us: int = 0
    heard_boot_us: int = 0
    """When somebody last said that it is there, or its agent was heard."""
    delay_us: int = KNOCK_MIN_US
    knocked_boot_us: int = -KNOCK_TAKES_US
    vouched: bool = False
    """Somebody who has the key has answered there, or named it."""
    joined: bool = False
    """The operator named it: it is never forgotten."""

    @property
    def is_strange(self) -> bool:
        """Whether anybody on the network may have invented it."""
        return not self.vouched and not self.joined

    def pause_max_us(self, now_boot_us: int) -> int:
        """Between two knocks of a member; at a stranger's that stays silent it grows."""
        return max(KNOCK_MAX_US, (now_boot_us - self.heard_boot_us) // 8 if self.is_strange else 0)

    def is_forgotten(self, now_boot_us: int) -> bool:
        """Whether it has been silent for too long."""
        kept_us = STRANGER_FORGOTTEN_US if self.is_strange else FORGOTTEN_US
        return not self.joined and now_boot_us - self.heard_boot_us > kept_us


_Placed = tuple[tuple[str, int], Address]


class Admission:
    """This agent's way into a cluster, and what it does at its own gate before it is in one."""

    def __init__(
        self, node_id: str, *, form_at_once: bool, expect: int, eligible: bool, remembers: Callable[[], str]
    ) -> None:
        """`remembers`: the cluster of which this agent was a member before, without its log; "" = none."""
        self._remembers = remembers
        self._node_id = node_id
        self._form_at_once = form_at_once
        self._expect = expect
        self._eligible = eligible
        self._addresses: dict[tuple[str, int], Address] = {}
        self._forming: dict[str, tuple[int, bool]] = {}
        """Others that look for a cluster: when they were heard, and whether they could form one."""
        self._looking_boot_us = 0
        self._wait_until_us = 0
        self._knock_boot_us = 0

    def start(self, now_boot_us: int) -> None:
        """The first call."""
        self._looking_boot_us = now_boot_us

    # addresses

    def found(self, host: str, port: int, node_id: str, now_boot_us: int, *, joined: bool = False) -> None:
        """Discovery says a gate is there, or the operator (`joined`): try it soon."""
        self.learn(host, port, node_id, now_boot_us, vouched=False)
        if known := self._addresses.get((host, port)):
            known.joined |= joined
            known.delay_us = KNOCK_MIN_US
            known.next_boot_us = min(known.next_boot_us, now_boot_us + KNOCK_MIN_US)
            self._knock_boot_us = min(self._knock_boot_us, known.next_boot_us)

    def learn(self, host: str, port: int, node_id: str, now_boot_us: int, *, vouched: bool = True) -> None:
        """Somebody's gate may be there: a new address is tried at once, a known one when its time comes. `vouched`: who
        says so has the key."""
        if node_id == self._node_id or not port:
            return
        known = self._addresses.get((host, port))
        if known is None:
            if not self._make_room(node_id, vouched=vouched):
                return
            known = self._addresses[host, port] = Address(node_id, now_boot_us)
            self._knock_boot_us = min(self._knock_boot_us, now_boot_us)
        known.node_id = node_id or known.node_id
        known.heard_boot_us = now_boot_us
        known.vouched |= vouched

    def _make_room(self, node_id: str, *, vouched: bool) -> bool:
        """Forget an older address of this agent, or the oldest stranger's, where there are too many. False: there is no
        room for this one."""
        places = [place for place, one in self._addresses.items() if not one.joined]
        same = [place for place in places if node_id and self._addresses[place].node_id == node_id]
        if len(same) >= ADDRESSES_OF_ONE_MAX:
            del self._addresses[min(same, key=self._worth)]
        elif len(self._addresses) >= ADDRESSES_MAX:
            less = [place for place in places if vouched or self._addresses[place].is_strange]
            if not less:
                return False
            del self._addresses[min(less, key=self._worth)]
        return True

    def _worth(self, place: tuple[str, int]) -> tuple[bool, int]:
        """The least goes first; of equals the one that has not answered for longest, which stands first."""
        one = self._addresses[place]
        return one.vouched, one.heard_boot_us

    def next_wakeup(self, now: Instant, *, member: bool) -> int | None:
        """On the suspend-counting clock: the next knock, or the moment to form."""
        wishes = [self._knock_boot_us] if self._addresses else []
        if not member and self._eligible:
            ready = self._ready_boot_us()
            wishes.append(ready if ready > now.boot_us else now.boot_us + KNOCK_MIN_US)
        return min(wishes, default=None)

    def knock(self, hello: Hello, is_in_touch: Callable[[str], bool], turn: Turn) -> None:
        """Knock where somebody may be whom we are not in touch with."""
        now_us = turn.now.boot_us
        if now_us < self._knock_boot_us:
            return
        for place in [place for place, one in self._addresses.items() if one.is_forgotten(now_us)]:
            del self._addresses[place]
        due = []
        for place, one in self._addresses.items():
            if one.next_boot_us > now_us:
                continue
            if one.node_id and is_in_touch(one.node_id):
                one.next_boot_us, one.delay_us, one.heard_boot_us = now_us + LOOK_US, KNOCK_MIN_US, now_us
            else:
                due.append((place, one))
        # Who was not tried yet comes before who was.
        due.sort(key=lambda item: item[1].knocked_boot_us)
        due = self._some_strangers(due, now_us) if hello.cluster else due[:NEWCOMERS_KNOCKS_MAX]
        for (host, port), one in due:
            turn.at_once(Knock(host, port, hello))
            one.knocked_boot_us = now_us
            one.next_boot_us = now_us + one.delay_us
            one.delay_us = min(one.pause_max_us(now_us) if hello.cluster else SECOND_US, one.delay_us * 2)
        # One that is heard is looked at now and then; whoever falls silent is knocked at from then on.
        soon = now_us + LOOK_US
        coming = (one.next_boot_us for one in self._addresses.values() if one.next_boot_us > now_us)
        self._knock_boot_us = min([soon, *coming]) if len(due) < NEWCOMERS_KNOCKS_MAX or hello.cluster else soon

    def _some_strangers(self, due: list[_Placed], now_us: int) -> list[_Placed]:
        """All that are due of those that somebody vouches for, and a few of the others."""
        under_way = sum(
            one.is_strange and now_us - one.knocked_boot_us < KNOCK_TAKES_US for one in self._addresses.values()
        )
        strangers = [item for item in due if item[1].is_strange][: max(0, STRANGERS_AT_ONCE - under_way)]
        return [item for item in due if not item[1].is_strange] + strangers

    def answered(self, host: str, port: int, profile: Profile, turn: Turn) -> None:
        """A gate told whose it is."""
        if one := self._addresses.pop((host, port), None):
            one.node_id, one.vouched, one.heard_boot_us = profile.node_id, True, turn.now.boot_us
            one.delay_us = min(one.delay_us, SECOND_US)
            if profile.node_id != self._node_id:
                self._addresses[host, port] = one
        self.learn(profile.endpoint.host or host, profile.endpoint.gate_port, profile.node_id, turn.now.boot_us)

    # looking for a cluster

    def heard_newcomer(self, profile: Profile, remembers: str, now_boot_us: int) -> None:
        """Another one is looking too. For one that looks for a cluster of its own only such another one waits."""
        may_form = profile.eligible and (not remembers or bool(self._remembers()))
        self._forming[profile.node_id] = now_boot_us, may_form
        self.learn(profile.endpoint.host, profile.endpoint.gate_port, profile.node_id, now_boot_us)

    def heard_of_cluster(self, now_boot_us: int) -> None:
        """There is a cluster: form none."""
        self._wait_until_us = now_boot_us + WAIT_US

    def called(self, profile: Profile, now_boot_us: int) -> None:
        """A cluster knocks at our gate: form none, and knock at its own."""
        self.heard_of_cluster(now_boot_us)
        place = profile.endpoint.host, profile.endpoint.gate_port
        self.learn(*place, profile.node_id, now_boot_us)
        if known := self._addresses.get(place):
            soon = max(now_boot_us + KNOCK_BACK_US, known.knocked_boot_us + KNOCK_MIN_US)
            known.delay_us = KNOCK_MIN_US
            known.next_boot_us = min(known.next_boot_us, soon)
            self._knock_boot_us = min(self._knock_boot_us, known.next_boot_us)

    def formed(self, now_boot_us: int) -> None:
        """We are a cluster: those that looked around with us hear of it now, not when they knock again."""
        waiting = sorted(self._addresses.values(), key=lambda one: one.next_boot_us)[:NEWCOMERS_KNOCKS_MAX]
        for one in waiting:
            one.next_boot_us, one.delay_us = now_boot_us, KNOCK_MIN_US
        self._knock_boot_us = now_boot_us

    def should_form(self, now_boot_us: int) -> bool:
        """Whether this newcomer forms a cluster now: nobody is there to join, and it has the lowest id of those that
        look around."""
        if not self._eligible:
            return False
        if self._form_at_once:
            return True
        if now_boot_us < self._ready_boot_us():
            return False
        forming = {one: able for one, (seen, able) in self._forming.items() if now_boot_us - seen <= FORMING_US}
        if len(forming) + 1 < self._expect:
            return False
        return all(self._node_id < other for other, able in forming.items() if able)

    def _ready_boot_us(self) -> int:
        look_us = MISS_US if self._remembers() else LOOK_AROUND_US
        return max(self._looking_boot_us + look_us, self._wait_until_us)

    def answer_as_newcomer(self, profile: Profile) -> Wait:
        """At our gate while we have no cluster."""
        return Wait(profile, "", "looking for a cluster too", remembers=self._remembers())


def refusal_text(message: Refused) -> str:
    """A gate sent us away: what is told to the person who has to act."""
    return f"a member refuses this agent: {message.why}"


def meets(ours: str, our_virgin: bool, theirs: str, their_virgin: bool) -> Literal["stay", "dissolve", "alarm"]:
    """Two clusters of one key have met: what ours does. A virgin one dissolves into a lived-in one; between two virgins
    the larger id; two lived-in ones never merge by themselves."""
    if not our_virgin:
        return "stay" if their_virgin else "alarm"
    if not their_virgin or ours > theirs:
        return "dissolve"
    return "stay"
