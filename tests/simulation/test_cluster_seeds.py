"""Clusters under random faults from a seed (faults.py), then quiet, then the invariants (invariants.py).

A seed is about 60 virtual seconds with the long times of the protocol divided by 20; one in a hundred has up to 50
agents; one in fifty is 2 hours long with every time as it is in the product.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import meshcron.core
from meshcron import commands
from meshcron.core.timing import LAN, SLOW, Timing
from meshcron.model import SECOND_US
from tests.simulation.cluster import Cluster, Weather, own_dice
from tests.simulation.faults import POLICIES, ROLES, Faults, some_jobs
from tests.simulation.invariants import check_all
from tests.simulation.replay import replayed

SEEDS = int(os.environ.get("MESHCRON_SEEDS", "200"))
FIRST = int(os.environ.get("MESHCRON_FIRST_SEED", "0"))
BATCH = 10

LONG_EVERY = 50
"""One seed in so many is 2 hours long."""

LAN_EVERY = 3
"""One in so many of those has the times of a LAN: with ten appends a second they take the longest, so three vote at
most."""

LONG_AGENTS_MAX = 5
"""What they say to one another grows with the square: 2 hours of seven take a minute."""

LONG_CRASH_CHANCES = (0, 0.0002, 0.001)
"""Of a burst of trouble in them: how likely a machine crashes before an effect."""

SILENT_CHANCE = 0.5
"""How likely a crash is one that nobody sees: the power fails."""

LARGE_EVERY = 100
"""One seed in so many has up to 50 agents."""

AGENTS_MAX = 50

SCALE = 20
"""The long times are divided by it: half a minute and more in the product."""

LONG_TIMES_US = {
    "meshcron.core.stewardship.NAME_SILENCE_US": 30 * SECOND_US,
    "meshcron.core.stewardship.HAND_OVER_STABLE_US": 30 * SECOND_US,
    "meshcron.core.stewardship.DRAIN_US": 600 * SECOND_US,
    "meshcron.core.intents.START_WINDOW_US": 120 * SECOND_US,
    "meshcron.core.roster.DEAD_US": 600 * SECOND_US,
    "meshcron.core.encounters.LEADERLESS_US": 30 * SECOND_US,
    "meshcron.core.answers.REPEAT_US": 600 * SECOND_US,
    "meshcron.core.specs.SPEC_KEPT_US": 3600 * SECOND_US,
    "meshcron.core.specs.SPEC_LOOK_US": 60 * SECOND_US,
    "meshcron.core.gate.REFUSED_EVERY_US": 600 * SECOND_US,
    "meshcron.core.admission.STRANGER_FORGOTTEN_US": 75 * 60 * SECOND_US,
    "meshcron.core.admission.FORGOTTEN_US": 24 * 3600 * SECOND_US,
    "meshcron.core.pruning.PRUNE_EVERY_US": 6 * 3600 * SECOND_US,
    "meshcron.core.digest.COMPARE_US": 60 * SECOND_US,
    "meshcron.core.catalog_members.HOLD_DOWN_US": 300 * SECOND_US,
    "meshcron.core.catalog_members.HOLD_DOWN_MAX_US": 3600 * SECOND_US,
}
UNSCALED_US = {
    "meshcron.core.clocks.STEP_US": "clocks step in seeds by up to an hour, as people set them",
    "meshcron.core.scheduler.RESEAT_STEP_US": "the same; what lies three hours ahead is for directed stories",
    "meshcron.core.catalog_outcomes.RETRY_DELAY_MAX_US": "a bound of what a job may ask for",
    "meshcron.core.catalog_cluster.FAR_WALL_US": "means never",
    "meshcron.core.dispatch.LAST_US": "means after all others",
    "meshcron.core.admission.MISS_US": "whom it misses comes back in a seed; if not, that is for directed stories",
    "meshcron.core.pruning.DAY_US": "a day is one, whatever `history.days` says",
}
"""Long times that stay as they are, and why."""

CONTAINED = ("snapshot", "dead voter replaced", "silent death")
"""What is to happen in seeds (`Cluster.happened`)."""

SCALED = Timing(stable_us=LAN.stable_us // SCALE, lost_us=LAN.lost_us // SCALE)

KEPT_ENTRIES = (20, 200, 10_000)
"""So many entries a log keeps behind its catalog, by the seed: where they are few, who was away gets a snapshot."""

DEAD_US = (6 * SECOND_US, 30 * SECOND_US)
"""When a silent voter is replaced, by the seed: soon, so that it happens during the trouble, or as all is scaled."""

TROUBLE_S = 30
LONG_TROUBLE_S = 7_000
HOUR_US = 3_600 * SECOND_US
"""So late messages come: in 2 hours as they stand, else scaled or within half a minute."""

LED_S = 10
"""Within so much quiet somebody leads."""

DRAINED_S = 150
"""Within so much quiet everything that was due during the trouble is over. The longest is a queue's backlog, and
`on_lost: rerun` where the only agent that matches is gone: ten attempts, each given START_WINDOW_US."""


@contextmanager
def scaled(seed: int) -> Iterator[None]:
    """The long times of the protocol made short, so that a seed sees them in a minute, and its log, in some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meshcron.core.log.KEPT_ENTRIES", own_dice(seed, "kept entries").choice(KEPT_ENTRIES))
        for target, us in LONG_TIMES_US.items() if not is_long(seed) else ():
            patch.setattr(target, us // SCALE)
        if not is_long(seed):
            patch.setattr("meshcron.core.roster.DEAD_US", own_dice(seed, "dead").choice(DEAD_US))
        yield


def is_long(seed: int) -> bool:
    """Whether it is 2 hours long, with every time as it is in the product."""
    return seed % LONG_EVERY == LONG_EVERY - 1


def formed(world: Cluster) -> None:
    """Everyone is a member, in one cluster, and as many vote as should."""
    seconds = 60 + 2 * world.timing.stable_us // SECOND_US
    hosts = world.hosts
    wanted = next(size for size in (5, 3, 1) if size <= max(1, sum(host.eligible for host in hosts)))

    def ready() -> bool:
        leader = world.leader()
        if leader is None or not leader.is_up:
            return False
        if any(not host.is_up or host.agent.cluster != leader.agent.cluster for host in hosts):
            return False  # two clusters may have met, with a word for the other one's agent on its way
        members = {one.node_id for one in leader.agent.state.members.values()}
        return members >= {host.node_id for host in hosts} and len(leader.agent.ledger.voters) == wanted

    assert world.run_until(ready, seconds), f"no cluster of {wanted} voters after {seconds} s:\n{world.describe()}"


def form(world: Cluster, *, voters: int, workers: int, spare: int = 0) -> None:
    """All start at about the same time; some of them see each other only after each side has a cluster of its own.
    `spare`: so many more may vote than have a seat."""
    dice = world.random
    for at in range(voters + spare):
        world.add({"role": dice.choice(ROLES) if at else "web"})
    for _ in range(workers):
        world.add({"role": dice.choice(ROLES)}, eligible=False)
    for host in world.hosts:
        host.slots = dice.choice((4, 8))
    apart = len(world.hosts) > 1 and dice.random() < 0.2
    if apart:
        hosts = dice.sample(world.hosts, len(world.hosts))
        world.split(hosts[: len(hosts) // 2], hosts[len(hosts) // 2 :])
    spread = dice.choice((0, 0.01, 0.5))
    for host in world.hosts:
        host.start()
        world.run_for(spread * dice.random())
    if apart:
        world.run_for(dice.choice((2.0, 2.5, 4)))
        world.cuts.clear()
    formed(world)
    leader = world.leader()
    assert leader is not None
    world.home = leader.agent.cluster


def live_through(seed: int) -> Cluster:
    """A cluster forms, has trouble, then quiet. Everything follows from the seed."""
    if is_long(seed):
        return _two_hours(seed)
    world = Cluster(seed, SCALED)
    dice = world.random
    large = seed % LARGE_EVERY == LARGE_EVERY // 2
    voters = 5 if large else dice.choice((1, 3, 3, 3, 5))
    spare = own_dice(seed, "spare").choice((0, 1, 3, 6) if large else (0, 0, 1))
    form(
        world,
        voters=voters,
        spare=spare,
        workers=dice.randrange(15, AGENTS_MAX - voters - spare + 1) if large else dice.choice((0, 0, 1, 3)),
    )
    schedules = ("*/10 * * * * *",) if large else ("* * * * * *", "*/2 * * * * *", "@every 3s")
    world.silent_chance = SILENT_CHANCE
    some_jobs(world, schedules, deadlines_s=(3, 20, 3600))
    world.run_for(1)
    world.crash_chance = dice.choice((0, 0, 0.0002, 0.001))
    straggle_us = dice.choice((30, 30, 3600 // SCALE)) * SECOND_US
    hosts_max = AGENTS_MAX if large else len(world.hosts) + 2
    faults = Faults(world, hosts_max=hosts_max, schedules=schedules, straggle_us=straggle_us, scale=SCALE)
    ends = world.now_us + TROUBLE_S * SECOND_US
    while world.now_us < ends:
        world.run_for(dice.random() * 2)
        faults.strike()
    _quiet(world, faults)
    return world


def _two_hours(seed: int) -> Cluster:
    """Every time as in the product; trouble comes now and then, and goes before the next."""
    dice_timing = LAN if seed // LONG_EVERY % LAN_EVERY == 0 else SLOW
    world = Cluster(seed, dice_timing)
    dice = world.random
    voters = dice.choice((1, 1, 3, 3) if dice_timing is LAN else (1, 3, 3, 5))
    workers = 0 if dice_timing is LAN else dice.choice((0, 2))
    form(world, voters=voters, workers=min(workers, LONG_AGENTS_MAX - voters))
    schedules = ("*/5 * * * *", "@every 10m", "0 * * * *", "*/2 * * * *")
    world.silent_chance = SILENT_CHANCE
    some_jobs(world, schedules, deadlines_s=(60, 3600))
    faults = Faults(world, hosts_max=len(world.hosts) + 1, schedules=schedules, straggle_us=HOUR_US, scale=1)
    late = own_dice(seed, "late")
    ends = world.now_us + LONG_TROUBLE_S * SECOND_US
    while world.now_us < ends:
        world.crash_chance = dice.choice(LONG_CRASH_CHANCES)
        for _ in range(dice.randrange(1, 8)):
            faults.strike()
            world.run_for(dice.random() * 10)
        world.crash_chance = 0.0
        if dice.random() < 0.7:
            repair(world, faults)
        if late.random() < 0.7:
            world.weather = Weather(straggle=0.02, straggle_us=HOUR_US)
        world.run_for(dice.random() * 600)
    _quiet(world, faults)
    return world


def repair(world: Cluster, faults: Faults) -> None:
    """All is as it should be again, and a leader is found: within 10 s, whatever the times are divided by."""
    faults.end()
    assert world.run_until(lambda: world.leader() is not None, LED_S), f"18: no leader\n{world.describe()}"


def _quiet(world: Cluster, faults: Faults) -> None:
    """All is repaired, and in bounded time everything due until then is decided and over."""
    repair(world, faults)
    world.healed_us = world.now_us
    world.healed_steps = world.alarms["clock_step"]
    _wait(world, lambda: _told(world, commands.SetPaused(paused=False)), 20, "18: nobody takes a write")

    def calm() -> bool:
        faults.replace_leavers()
        leader = world.leader()
        if leader is None or not leader.is_up or faults.leaving():
            return False
        clock, state, ago_us = leader.agent.clock, leader.agent.state, world.now_us - world.healed_us
        wall_us, cluster_us = clock.wall_us(leader.now()) - ago_us, clock.cluster_us(leader.now()) - ago_us
        behind = any(0 < one.next_wall_us <= wall_us for one in state.jobs.values())
        waits = any(one.kind != "late" and one.scheduled_wall_us <= wall_us for one in state.owed.values())
        if behind or waits or any(one.due_cluster_us <= cluster_us for one in state.open.values()):
            return False
        world.settled_wall_us = wall_us
        return True

    world.run_for(6)
    _wait(world, calm, DRAINED_S, "11: what was due before the quiet is not over")


def _told(world: Cluster, command: commands.Command) -> bool:
    """Whether a write is taken; asked again until it is."""
    call = world.ask(command)
    world.run_for(1)
    return not isinstance(world.answers.get(call, KeyError()), Exception)


def _wait(world: Cluster, condition: Callable[[], bool], seconds: float, what: str) -> None:
    until = world.now_us + int(seconds * SECOND_US)
    while not condition():
        assert world.now_us < until, f"{what}\n{world.describe()}"
        world.run_for(0.5)


def check(world: Cluster) -> None:
    """People stop everything, what runs ends, and then the invariants hold that are seen at the end."""
    _wait(world, lambda: _told(world, commands.SetPaused(paused=True)), 20, "18: nobody takes a write")

    def still() -> bool:
        leader = world.leader()
        if leader is None or not leader.is_up:
            return False
        state = leader.agent.state
        holders = [
            host.agent.state.applied
            for host in world.hosts
            if host.is_up and host.node_id in leader.agent.known.log_holders()
        ]
        empty = not any(host.agent.runner._outbox for host in world.hosts if host.is_up)
        return empty and not state.open and all(applied == state.applied for applied in holders)

    _wait(world, still, DRAINED_S, "11: something runs or waits for ever")
    world.run_for(2)
    _wait(world, still, LED_S, "18: no leader")  # a hand-over may fall into this very instant
    leader = world.leader()
    assert leader is not None
    stepped = leader.agent.state.epoch > 0 or world.alarms["clock_step"] > world.healed_steps
    check_all(world, leader, world.settled_wall_us, POLICIES, accounted=not stepped)


def keeps_its_promise(seed: int) -> Cluster:
    """The whole of one seed; raises AssertionError with the number of the invariant that does not hold."""
    with scaled(seed):
        check(world := live_through(seed))
        return world


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, BATCH))
def test_a_cluster_keeps_its_promise(first: int) -> None:
    """Whatever the seed does, each tick has one record a target and no execution starts twice."""
    for seed in range(first, min(first + BATCH, FIRST + SEEDS)):
        with replayed(seed, f"scripts/seeds 1 {seed}"):
            keeps_its_promise(seed)


def test_a_leader_is_found_again_after_each_burst() -> None:
    """Not only at the end of a seed."""
    world = Cluster(5)
    form(world, voters=3, workers=0)
    faults = Faults(world, hosts_max=3, schedules=(), straggle_us=SECOND_US, scale=1)
    for _ in range(3):
        leader = world.leader()
        assert leader is not None
        leader.crash()
        world.run_for(world.random.random())
        repair(world, faults)


def test_what_seeds_are_to_contain_happens() -> None:
    """Twenty of them have each of it: what never happens proves nothing."""
    happened = sum((keeps_its_promise(seed).happened for seed in range(20)), Counter())
    assert all(happened[what] for what in CONTAINED), happened


def test_every_long_time_of_the_core_is_scaled_or_has_a_reason_not_to_be() -> None:
    """What is half a minute or more in the product would not happen within the minute of a seed."""
    found: dict[str, int] = {}
    for module in pkgutil.iter_modules(meshcron.core.__path__, "meshcron.core."):
        source = importlib.import_module(module.name)
        for name in re.findall(r"^([A-Z_]+_US)\b.*=", inspect.getsource(source), re.MULTILINE):
            if (us := getattr(source, name)) >= 30 * SECOND_US:
                found[f"{module.name}.{name}"] = us
    assert found == LONG_TIMES_US | {name: found[name] for name in UNSCALED_US}


def test_whatever_a_seed_dies_of_its_replay_is_told() -> None:
    """Not only what an assertion finds."""
    with pytest.raises(AssertionError) as failure, replayed(7, "scripts/seeds 1 7"):
        raise KeyError("no such member")
    assert str(failure.value) == "seed 7: KeyError: 'no such member'\nreplay: scripts/seeds 1 7"
