"""How many events the simulator of tests/simulation handles in a second of processor time, each followed by the
invariants' check: seeds of one agent, or of clusters. It is one process without input or output: on a quiet machine
that is a second."""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Iterator

from bench import Bench
from failed import Failed
from goals import SIMULATOR_EVENTS_PER_S
from table import Figure, per_second

from tests.simulation import test_cluster_seeds, test_seeds

SECONDS = 6.0
BARE_EVENTS = 200_000
BARE_PENDING = 100
"""Events that wait at any time, about as many as in a seed."""


def events_of(seed: int, *, clusters: bool) -> int:
    """Live through one seed, faults and all."""
    story = test_cluster_seeds.keeps_its_promise if clusters else test_seeds.live_through
    try:
        return story(seed).events
    except Exception as failure:  # whatever a seed dies of; the other figures are measured all the same
        first = f"{type(failure).__name__}: {failure}".splitlines()[0]
        raise Failed(f"seed {seed}: {first}") from failure


def bare_rate() -> float:
    """Events a second of processor time where each only has the next one queued, as the simulator queues them."""
    dice, queue = random.Random(0), [(number, number, int) for number in range(BARE_PENDING)]
    began = time.process_time()
    for number in range(BARE_PENDING, BARE_PENDING + BARE_EVENTS):
        now, _, act = heapq.heappop(queue)
        act()
        heapq.heappush(queue, (now + dice.randrange(80, 500), number, int))
    return BARE_EVENTS / (time.process_time() - began)


def measure(bench: Bench) -> Iterator[Figure]:
    """Whole seeds, one after another on one processor; with several agents those of scripts/seeds."""
    clusters = bench.goals.agents > 1
    bare = bare_rate()
    seed, handled, began = 0, 0, time.process_time()
    while time.process_time() - began < SECONDS:
        handled += events_of(seed, clusters=clusters)
        seed += 1
    rate = handled / (time.process_time() - began)
    goal = SIMULATOR_EVENTS_PER_S
    yield Figure(
        f"simulator{', clusters' if clusters else ''}",
        f"{rate:,.0f} events/s ({seed} seeds)",
        f">= {goal:,.0f}/s",
        f"events that do nothing {per_second(bare)}",
        rate >= goal,
    )
