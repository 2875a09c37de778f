"""Leader: who should vote. Odd at rest: 1, 3 or 5; one change at a time, committed before the next (PROTOCOL 2).

The majorities of two rosters that differ by one voter overlap (Raft's single-server change), and nothing changes before
an entry of the own term is committed (its correction of 2015). Hearsay alone never changes who votes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct

from meshcron.core.timing import Timing
from meshcron.messages import MemberInfo
from meshcron.model import SECOND_US, Member

FRESH_BEATS = 2
"""Whom a change of who votes counts on was heard within so many beats at that moment (PROTOCOL 2: 500 ms)."""

DEAD_US = 600 * SECOND_US
"""A voter silent for so long is replaced by a live learner."""

LAG_MAX = 100
"""A learner that lacks more entries than this is not caught up."""

SIZES = (5, 3, 1)
"""How many voters, the most that there are members for."""

SMALL = 8
"""Up to so many members everyone eligible holds the log; above, voters and a few learners."""

LEARNERS = 3


class Health(Struct, frozen=True):
    """What the leader knows of a member besides committed facts."""

    silent_us: int
    """Since it was last heard."""
    stable_us: int
    """For how long it has been heard without a gap."""
    lag: int | None
    """Entries it lacks; None = it holds no log yet."""


def log_holders(
    members: Collection[Member | MemberInfo], voters: frozenset[str], failed: frozenset[str]
) -> frozenset[str]:
    """Node ids of those that hold the log. Where a few do, one that has `failed` is no learner while another one can
    be: a dead one will never vote."""
    eligible = [member for member in members if member.eligible]
    if len(members) <= SMALL:
        return frozenset(member.node_id for member in eligible) | voters
    others = (one for one in eligible if one.node_id not in voters)
    spare = sorted(others, key=lambda one: (one.node_id in failed, one.number))
    return voters | {one.node_id for one in spare[:LEARNERS]}


def next_voters(
    leader: str, voters: frozenset[str], members: Mapping[int, Member], health: Mapping[str, Health], timing: Timing
) -> frozenset[str] | None:
    """The next single change of who votes; None = it is right as it is. Nobody votes before it was heard for
    `timing.stable_us` without a gap."""
    eligible = {one.node_id: one for one in members.values() if one.eligible and not one.leaving}
    away = sorted(voters - eligible.keys() - {leader})
    smaller = [voters - {one} for one in away if len(voters) > 2]
    dead = sorted(one for one in voters - {leader} if one in health and health[one].silent_us >= DEAD_US)
    ready = sorted(
        (one for id_, one in eligible.items() if id_ not in voters and _is_ready(health.get(id_), timing)),
        key=lambda one: (-one.priority, one.number),
    )
    if smaller:
        carried = (some for some in smaller if _is_carried(leader, some, health, timing))
        return next(carried, voters | {ready[0].node_id} if ready else None)
    if leader not in eligible:
        return _make_way(voters, ready)
    if len(voters) % 2 == 0:
        return _make_odd(leader, voters, [*away, *dead], ready)
    if dead and ready:
        return voters | {ready[0].node_id}
    alive = len(voters) - len(dead)
    target = next(size for size in SIZES if size <= max(1, alive + len(ready)))
    if len(voters) < target and len(ready) >= 2:
        return voters | {ready[0].node_id}
    return None


def _make_way(voters: frozenset[str], ready: list[Member]) -> frozenset[str] | None:
    """A leader that leaves hands over; where it votes alone, somebody has to be there to hand over to."""
    return voters | {ready[0].node_id} if len(voters) == 1 and ready else None


def _make_odd(leader: str, voters: frozenset[str], dead: list[str], ready: list[Member]) -> frozenset[str] | None:
    """The second half of a change: it follows the first at once."""
    if dead:
        return voters - {dead[0]}
    if ready and len(voters) < SIZES[0]:
        return voters | {ready[0].node_id}
    return voters - {min(voters - {leader})}


def _is_carried(leader: str, voters: frozenset[str], health: Mapping[str, Health], timing: Timing) -> bool:
    """Whether a majority of them is heard: who leaves while others are dead must not take the last majority along, nor
    while one has died that is not yet called so."""
    alive = sum(one == leader or (one in health and _is_fresh(health[one], timing)) for one in voters)
    return 2 * alive > len(voters)


def _is_ready(health: Health | None, timing: Timing) -> bool:
    if health is None or health.lag is None:
        return False
    return health.lag <= LAG_MAX and _is_fresh(health, timing) and health.stable_us >= timing.stable_us


def _is_fresh(health: Health, timing: Timing) -> bool:
    return health.stable_us > 0 and health.silent_us <= FRESH_BEATS * timing.beat_us
