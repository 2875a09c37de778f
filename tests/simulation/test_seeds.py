"""Random faults from a seed: crashes between any two effects, a slow disk, clocks that step, people who edit."""

from __future__ import annotations

import os

import msgspec
import pytest

from meshcron import commands
from meshcron.core.state import State
from meshcron.model import SECOND_US, Job, Status
from tests.simulation.invariants import check_recorded
from tests.simulation.replay import replayed
from tests.simulation.world import World, unaccounted_ticks

SEEDS = int(os.environ.get("MESHCRON_SEEDS", "200"))
FIRST = int(os.environ.get("MESHCRON_FIRST_SEED", "0"))
BATCH = 10
POLICIES = ("allow", "forbid", "queue", "replace")


def live_through(seed: int) -> World:
    """60 virtual seconds of trouble, then 30 quiet ones."""
    world = World(seed)
    dice = world.random
    world.start()
    world.run_for(1)
    for at, policy in enumerate(POLICIES):
        world.put(
            Job(
                name=f"{policy}",
                schedule=dice.choice(("* * * * * *", "*/2 * * * * *", "@every 3s")),
                command="true",
                concurrency=policy,  # type: ignore[arg-type]
                retries=dice.choice((0, 0, 2)),
                retry_delay_us=dice.choice((0, SECOND_US)),
                on_lost=dice.choice(("lost", "rerun")),
                catch_up=dice.choice(("skip", "latest", "all")),
                timeout_us=dice.choice((0, 0, 2 * SECOND_US)),
                history=msgspec.structs.replace(Job(name="x", schedule="x").history, runs=100_000),
            )
        )
        world.run_for(0.2 + at * 0.1)
    world.run_for(2)
    world.crash_chance = dice.choice((0.0005, 0.002, 0.01))
    trouble_ends = world.boot_us + 60 * SECOND_US
    while world.boot_us < trouble_ends:
        world.run_for(dice.random() * 3)
        if not world.is_up:
            world.run_for(dice.choice((0.05, 1, 5, 15)))
            world.start()
        elif dice.random() < 0.2:
            world.ask(f"run-{world.order}", commands.RunJob(dice.choice(POLICIES)))
        elif dice.random() < 0.05:
            world.ask(f"pause-{world.order}", commands.SetPaused(dice.random() < 0.5))
    world.crash_chance = 0.0
    if not world.is_up:
        world.start()
    world.run_for(5)  # it may have started a moment ago
    world.ask("unpause", commands.SetPaused(False))
    world.run_for(30)
    world.settled_us = world.now().wall_us - 15 * SECOND_US
    world.ask("pause", commands.SetPaused(True))
    world.run_for(15)
    return world


def check(world: World) -> None:
    """The invariants of PROTOCOL 10 that concern one agent."""
    assert world.is_up
    assert world.agent.leading, "18: after 10 s without faults there is a leader"
    settled_us = world.settled_us
    for uid, state in world.agent.state.jobs.items():
        wrong = unaccounted_ticks(world.disk, uid, settled_us)
        assert not wrong, f"P2: job {state.job.name} has ticks without exactly one record: {wrong[:5]}"
    for execution in world.disk.executions.values():
        # 11: in bounded time every open intent is final or running on an agent that lives.
        old = execution.scheduled_wall_us < settled_us and not execution.status.final
        assert not old or execution.id in world.alive, f"11: {execution} is open for ever"
        if execution.status is Status.SUCCESS:
            assert world.starts[execution.id] == 1
    check_recorded(world.disk)
    loaded = State.load(world.disk.load())
    assert loaded.jobs == world.agent.state.jobs, "5: the rows on disk are not the state in memory"
    assert loaded.owed == world.agent.state.owed
    assert loaded.calls == world.agent.state.calls
    assert set(loaded.open) == set(world.agent.state.open)


def keeps_its_promise(seed: int) -> World:
    """The whole of one seed; raises AssertionError with what does not hold."""
    check(world := live_through(seed))
    return world


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, BATCH))
def test_no_tick_disappears_and_none_is_doubled(first: int) -> None:
    """Whatever the seed does, each tick has one record and no execution starts twice."""
    for seed in range(first, min(first + BATCH, FIRST + SEEDS)):
        with replayed(seed, f"scripts/seeds --alone 1 {seed}"):
            keeps_its_promise(seed)
