"""What a tick costs the core, from its decision to its recorded outcome, with few and with many other jobs stored.

The core alone, or those of a cluster, in virtual time: on a real agent the cost of the process hides everything else.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Iterator

import msgspec
from bench import Bench
from failed import Failed
from stored_jobs import rows
from table import Figure
from virtual import VirtualAgent
from virtual_cluster import VirtualCluster

from meshcron.model import SECOND_US, Job
from meshcron.rows import BallotRow, JobRow, JobStateRow, Loaded, MarkRow

SIZES = (1_000, 10_000, 100_000)
TICKING = 20
"""Jobs among them that are due each second."""

WARM_UP_SECONDS = 10
WATCH_SECONDS = 150
ONE_OF_THEM = {"role": "web:1"}
"""The tags that the agents of the simulation have."""

START_WALL_US = 1_800_000_000 * SECOND_US

SLACK = 1.25
"""Cold caches and noise, beyond the logarithm."""


def stored(count: int, tags: dict[str, str]) -> tuple[list[JobRow], list[JobStateRow]]:
    """So many jobs, TICKING of which are due each second, for one of the agents with these tags."""
    others = list(itertools.islice(rows(count, START_WALL_US), count - TICKING))
    jobs, states = [job for job, _ in others], [state for _, state in others]
    for uid in range(1, TICKING + 1):
        job = Job(name=f"tick-{uid}", schedule="* * * * * *", command="true", tags=tags or None)
        jobs.append(JobRow(uid, uid, job.name, msgspec.json.encode(job).decode(), True, False, START_WALL_US))
        states.append(JobStateRow(uid, 0, START_WALL_US, START_WALL_US + 5 * SECOND_US, 0, 0, 0, 0, "", 0))
    return jobs, states


def loaded(count: int) -> Loaded:
    """A disk of one agent with these jobs."""
    jobs, states = stored(count, {})
    return Loaded(
        ballot=BallotRow(0, ""),
        log=[],
        meta={},
        jobs=jobs,
        job_states=states,
        open_executions=[],
        owed=[],
        members=[],
        tokens=[],
        calls=[],
        seen=[],
        specs=[],
        mark=MarkRow(0, 0, 0),
    )


def cost_alone(count: int) -> float:
    """Seconds of processor time."""
    agent = VirtualAgent(loaded(count), START_WALL_US)
    agent.run_until(agent.boot_us + WARM_UP_SECONDS * SECOND_US)
    gc.collect()
    before, began = agent.runs, time.process_time()
    agent.run_until(agent.boot_us + WATCH_SECONDS * SECOND_US)
    return per_run(time.process_time() - began, agent.runs - before)


def cost_together(count: int, agents: int) -> float:
    """Of all cores of a cluster."""
    cluster = VirtualCluster(agents, *stored(count, ONE_OF_THEM))
    cluster.run_for(WARM_UP_SECONDS)
    gc.collect()
    before, began_s = cluster.runs, cluster.used_s
    cluster.run_for(WATCH_SECONDS)
    return per_run(cluster.used_s - began_s, cluster.runs - before)


def per_run(used_s: float, runs: int) -> float:
    if runs != TICKING * WATCH_SECONDS:
        raise Failed(f"{runs} runs instead of {TICKING * WATCH_SECONDS}")
    return used_s / runs


def measure(bench: Bench) -> Iterator[Figure]:
    """O(log n): the cost grows no more than the logarithm of the jobs does."""
    agents = bench.goals.agents
    costs = [cost_together(count, agents) if agents > 1 else cost_alone(count) for count in SIZES]
    growth, most = costs[-1] / costs[0], SLACK * math.log(SIZES[-1]) / math.log(SIZES[0])
    yield Figure(
        f"{SIZES[-1]:,} jobs stored: cost of a tick",
        f"{growth:.2f} times that at {SIZES[0]:,} ({' / '.join(f'{cost * 1e6:.0f}' for cost in costs)} us)",
        f"O(log n): <= {most:.2f} times",
        met=growth <= most,
    )
