"""Clusters under random faults from a seed: crashes, pauses, cuts, loss, slow disks, clocks that step, people."""

from __future__ import annotations

import os

import msgspec
import pytest
from cluster import Cluster, Host, Weather  # type: ignore[import-not-found] # conftest.py adds this folder
from world import unaccounted_ticks  # type: ignore[import-not-found]

from meshcron import commands
from meshcron.core.state import State
from meshcron.model import SECOND_US, Job, Status

SEEDS = int(os.environ.get("MESHCRON_SEEDS", "200"))
FIRST = int(os.environ.get("MESHCRON_FIRST_SEED", "0"))
BATCH = 10
POLICIES = ("allow", "forbid", "queue", "replace")


def formed(world: Cluster, seconds: float = 40) -> None:
    """Everyone is a member, and as many vote as should."""
    hosts = world.hosts
    wanted = next(size for size in (5, 3, 1) if size <= max(1, sum(host.eligible for host in hosts)))

    def ready() -> bool:
        leader = world.leader()
        if leader is None or leader.agent is None:
            return False
        return len(leader.agent.state.members) == len(hosts) and len(leader.agent.ledger.voters) == wanted

    assert world.run_until(ready, seconds), f"no cluster of {wanted} voters after {seconds} s:\n{world.describe()}"


def some_jobs(world: Cluster) -> None:
    dice = world.random
    for policy in POLICIES:
        job = Job(
            name=policy,
            schedule=dice.choice(("* * * * * *", "*/2 * * * * *", "@every 3s")),
            command="true",
            tags=dice.choice((None, {"role": "web"}, {"role": "web:1"})),
            concurrency=policy,  # type: ignore[arg-type]
            retries=dice.choice((0, 0, 2)),
            retry_delay_us=dice.choice((0, SECOND_US)),
            on_lost=dice.choice(("lost", "rerun")),
            catch_up=dice.choice(("skip", "latest", "all")),
            timeout_us=dice.choice((0, 0, 2 * SECOND_US)),
            start_deadline_us=dice.choice((3, 20, 3600)) * SECOND_US,
            history=msgspec.structs.replace(Job(name="x", schedule="x").history, runs=100_000),
        )
        call = world.ask(commands.PutJob(job))
        assert world.run_until(lambda call=call: call in world.answers, 5), "no answer to a write"
        assert isinstance(world.answers[call], commands.JobAnswer), world.answers[call]


def trouble(world: Cluster) -> None:
    """One thing goes wrong, or right again."""
    dice = world.random
    host: Host = dice.choice(world.hosts)
    match dice.choice(("crash", "crash", "start", "start", "pause", "cut", "split", "heal", "weather", "disk", "ask")):
        case "crash" if host.agent is not None:
            host.crash()
        case "start" if host.agent is None:
            host.start()
        case "pause" if host.agent is not None and not host.paused_until_us:
            host.pause(dice.choice((300_000, 2 * SECOND_US, 10 * SECOND_US)))
        case "cut":
            world.cuts.add((host, dice.choice(world.hosts)))
        case "split":
            shuffled = dice.sample(world.hosts, len(world.hosts))
            world.split(shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :])
        case "heal":
            world.cuts.clear()
        case "weather":
            world.weather = dice.choice(
                (
                    Weather(),
                    Weather(loss=0.2),
                    Weather(delay_us=(5_000, 300_000)),
                    Weather(duplicate=0.3, straggle=0.02, straggle_us=30 * SECOND_US),
                )
            )
        case "disk":
            host.slow_disk = not host.slow_disk
        case "ask":
            world.ask(commands.RunJob(dice.choice(POLICIES)))
        case _:
            pass


def live_through(seed: int) -> Cluster:
    """A cluster forms, has 40 seconds of trouble, then quiet."""
    world = Cluster(seed)
    dice = world.random
    voters = dice.choice((1, 3, 3, 3, 5))
    for _ in range(voters):
        world.add()
    for _ in range(dice.choice((0, 0, 1, 3))):
        world.add(eligible=False)
    for host in world.hosts:
        host.start()
        world.run_for(dice.choice((0, 0.01, 0.5)))
    formed(world)
    some_jobs(world)
    world.run_for(2)
    world.crash_chance = dice.choice((0, 0, 0.0002, 0.001))
    ends = world.now_us + 40 * SECOND_US
    while world.now_us < ends:
        world.run_for(dice.random() * 2)
        trouble(world)
    world.heal()
    world.run_for(11)  # the longest pause
    for host in world.hosts:
        if host.agent is None:
            host.start()
    assert world.run_until(lambda: world.leader() is not None, 10), f"18: no leader\n{world.describe()}"
    world.run_for(35)
    return world


def check(world: Cluster) -> None:
    """The invariants of PROTOCOL 10 that are seen at the end."""
    leader = world.leader()
    assert leader is not None, f"18: no leader\n{world.describe()}"
    assert leader.agent is not None
    settled_us = leader.now().wall_us - 30 * SECOND_US
    call = world.ask(commands.SetPaused(paused=True))
    world.run_for(15)
    assert world.answers.get(call) is True, f"no answer to a write: {world.answers.get(call)}\n{world.describe()}"
    leader = world.leader()
    assert leader is not None
    assert leader.agent is not None
    for uid, state in leader.agent.state.jobs.items():
        wrong = unaccounted_ticks(leader, uid, settled_us)
        assert not wrong, f"P2: job {state.job.name} has ticks without exactly one record: {wrong[:5]}"
    for execution in leader.disk.executions.values():
        old = execution.scheduled_wall_us < settled_us and not execution.status.final
        host = world.by_node(execution.node_id)
        lives = host is not None and execution.id in host.processes
        assert not old or lives, f"11: {execution} is open for ever"
        if execution.status is Status.SUCCESS:
            assert world.starts[execution.id] == 1
    reference = leader.agent.state
    for host in world.hosts:
        if host.agent is None or not host.agent.holds_log:
            continue
        ours = host.agent.state
        assert ours.applied == reference.applied, f"{host.name} lags\n{world.describe()}"
        assert ours.jobs == reference.jobs, f"5: the jobs of {host.name} differ"
        assert ours.owed == reference.owed
        assert list(ours.calls.items()) == list(reference.calls.items())
        assert ours.open == reference.open
        assert ours.members == reference.members
        loaded = State.load(host.disk.load())
        assert loaded.jobs == reference.jobs, f"5: the rows on the disk of {host.name} are not the state"
        assert host.disk.executions == leader.disk.executions, f"5: the records of {host.name} differ"


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, BATCH))
def test_a_cluster_keeps_its_promise(first: int) -> None:
    """Whatever the seed does, each tick has one record a target and no execution starts twice."""
    for seed in range(first, min(first + BATCH, FIRST + SEEDS)):
        try:
            check(live_through(seed))
        except AssertionError as failure:
            replay = f"MESHCRON_FIRST_SEED={seed} MESHCRON_SEEDS=1 scripts/test tests/simulation/test_cluster_seeds.py"
            raise AssertionError(f"seed {seed}: {failure}\nreplay: {replay}") from failure
