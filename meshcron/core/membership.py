"""The ring: who watches whom, who was heard, who is suspected and who counts as failed (PROTOCOL 3).

Its word is advice: for choosing targets, for the page, for asking whether to stand. It never makes a leader, frees a
lock or reruns anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from hashlib import sha256

from msgspec import Struct

from meshcron.core.timing import Timing
from meshcron.messages import Heartbeat, MemberInfo

SUSPECT_BEATS = 4
"""So many missed beats make a suspect."""

REFUTE_BEATS = 2
"""So long (500 ms) a suspicion that others share stands before it is the verdict."""

SMALL = 8
"""Up to so many members everyone hears everyone."""

PREDECESSORS = 3
"""Above that, each hears so many before it in the ring, and all voters; voters hear everyone."""

ALONE_BEATS = 40
"""Silent for so long a member is taken for gone by one agent alone, which has nobody's word besides its own ears: 10 s
in a LAN. Where a fifth of all packets is lost, six beats in a row are missed now and then (tests/netns)."""

UNHEARD_US = 10_000_000
"""A member never heard counts as alive for so long after a start: it may be starting too. Then those who listened for
it in vain suspect it as well: where all others were restarted since it died, nobody would ever agree."""


class Heard(Struct):
    """What one member last said, and when."""

    beat: Heartbeat
    last_boot_us: int
    since_boot_us: int
    """Heard without a gap since then."""


class Membership:
    """What this agent has heard of the others."""

    def __init__(self, node_id: str, timing: Timing) -> None:
        self._node_id = node_id
        self._timing = timing
        self._heard: dict[str, Heard] = {}
        self._suspected_boot_us: dict[str, int] = {}
        self._awaited_boot_us: dict[str, int] = {}
        """Members that should be heard and never were: since when they are waited for."""
        self._gone: set[str] = set()
        self._failed: frozenset[str] = frozenset()
        self.started_boot_us = 0
        self._woke_boot_us = 0

    def start(self, now_boot_us: int) -> None:
        """The first call."""
        self.started_boot_us = self._woke_boot_us = now_boot_us

    # hearing

    def heartbeat(self, beat: Heartbeat, now_boot_us: int) -> bool:
        """Take in a beat. False: it is an earlier session's and says nothing."""
        node_id = beat.profile.node_id
        known = self._heard.get(node_id)
        if known is not None and beat.profile.session < known.beat.profile.session:
            return False
        fresh = known is None or beat.profile.session > known.beat.profile.session
        if known is None or fresh or self._is_silent(known, now_boot_us):
            self._heard[node_id] = Heard(beat, now_boot_us, now_boot_us)
        else:
            known.beat, known.last_boot_us = beat, now_boot_us
        self._gone.discard(node_id)
        self._suspected_boot_us.pop(node_id, None)
        self._awaited_boot_us.pop(node_id, None)
        return True

    def gone(self, node_id: str) -> None:
        """Its process is gone: no need to miss beats."""
        self._gone.add(node_id)

    def forgive_own_pause(self, now_boot_us: int) -> None:
        """An agent whose own loop stood still accuses nobody of it (Lifeguard). Once a turn, before anything else."""
        pause_us = now_boot_us - self._woke_boot_us - 2 * self._timing.beat_us
        self._woke_boot_us = now_boot_us
        if pause_us > 0:
            for one in self._heard.values():
                one.last_boot_us = min(now_boot_us, one.last_boot_us + pause_us)
            for waiting in (self._suspected_boot_us, self._awaited_boot_us):
                waiting.update(dict.fromkeys(waiting, now_boot_us))

    # asking

    def beat_of(self, node_id: str) -> Heartbeat | None:
        """Its last beat in our session."""
        found = self._heard.get(node_id)
        return found.beat if found else None

    def silent_us(self, node_id: str, now_boot_us: int) -> int:
        """Since when it has not been heard; one never heard counts from our start."""
        found = self._heard.get(node_id)
        return now_boot_us - (found.last_boot_us if found else self.started_boot_us)

    def stable_us(self, node_id: str, now_boot_us: int) -> int:
        """For how long it has been heard without a gap; 0 where it is silent."""
        found = self._heard.get(node_id)
        if found is None or node_id in self._gone or self._is_silent(found, now_boot_us):
            return 0
        return now_boot_us - found.since_boot_us

    def is_heard(self, node_id: str, now_boot_us: int) -> bool:
        """Whether it spoke within the last beats."""
        found = self._heard.get(node_id)
        return found is not None and node_id not in self._gone and not self._is_silent(found, now_boot_us)

    def _is_silent(self, one: Heard, now_boot_us: int) -> bool:
        return now_boot_us - one.last_boot_us > SUSPECT_BEATS * self._timing.beat_us

    def suspects(self, node_ids: Iterable[str], now_boot_us: int) -> tuple[str, ...]:
        """Those of them we should hear and do not."""
        return tuple(sorted(one for one in node_ids if self._is_suspect(one, now_boot_us)))

    def _is_suspect(self, node_id: str, now_boot_us: int) -> bool:
        if node_id in self._heard:
            return not self.is_heard(node_id, now_boot_us)
        return now_boot_us - self._awaited_boot_us.setdefault(node_id, now_boot_us) > UNHEARD_US

    def is_missing(self, node_id: str, now_boot_us: int) -> bool:
        """Whether one that this agent should hear is gone, as far as it can tell alone."""
        if node_id in self._gone:
            return True
        patience_us = ALONE_BEATS * self._timing.beat_us if node_id in self._heard else UNHEARD_US
        return self.silent_us(node_id, now_boot_us) > patience_us

    @property
    def failed(self) -> frozenset[str]:
        """The leader's verdict, as last decided here or heard from it."""
        return self._failed

    def take_verdict(self, failed: Iterable[str]) -> None:
        """The leader says who has failed."""
        self._failed = frozenset(failed)

    def forget_others(self, node_ids: frozenset[str]) -> None:
        """Only these are members."""
        for node_id in self._heard.keys() - node_ids:
            del self._heard[node_id]
        for node_id in self._awaited_boot_us.keys() - node_ids:
            del self._awaited_boot_us[node_id]
        self._gone &= node_ids
        self._failed &= node_ids

    # the leader's verdict

    def judge(self, node_ids: frozenset[str], led_boot_us: int, now_boot_us: int) -> bool:
        """Decide who has failed; True when that changed."""
        before = self._failed
        self._failed = frozenset(one for one in node_ids if self._has_failed(one, node_ids, led_boot_us, now_boot_us))
        return before != self._failed

    def _has_failed(self, node_id: str, node_ids: frozenset[str], led_boot_us: int, now_boot_us: int) -> bool:
        if node_id == self._node_id:
            return False
        if node_id in self._gone:
            return True
        if node_id not in self._heard:
            return now_boot_us - max(led_boot_us, self.started_boot_us) > UNHEARD_US
        if self.is_heard(node_id, now_boot_us):
            self._suspected_boot_us.pop(node_id, None)
            return False
        watchers = [
            one for one in node_ids - {node_id, self._node_id} if one in self._heard and self.is_heard(one, now_boot_us)
        ]
        agreed = not watchers or any(node_id in self._heard[one].beat.suspects for one in watchers)
        if not agreed:
            return False
        since = self._suspected_boot_us.setdefault(node_id, now_boot_us)
        return now_boot_us - since >= REFUTE_BEATS * self._timing.beat_us


@cache
def ring_place(node_id: str) -> str:
    """Where a member stands in the ring: by a hash, so that neighbours are strangers."""
    return sha256(node_id.encode()).hexdigest()


def to_hear(node_id: str, members: Iterable[MemberInfo], leader: str) -> frozenset[str]:
    """Whom an agent listens to, and whom it dials."""
    everyone = sorted((one.node_id for one in members), key=ring_place)
    voters = {one.node_id for one in members if one.voter}
    if len(everyone) <= SMALL or node_id in voters or node_id not in everyone:
        return frozenset(everyone) - {node_id}
    at = everyone.index(node_id)
    before = {everyone[(at - step) % len(everyone)] for step in range(1, PREDECESSORS + 1)}
    return frozenset(voters | before | ({leader} if leader else set())) - {node_id}
