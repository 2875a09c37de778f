"""How many events the simulator of tests/simulation handles in a second of processor time, each followed by the
invariants' check. It is one process without input or output: on a quiet machine that is a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import Bench
from goals import SIMULATOR_EVENTS_PER_S
from table import Figure

SECONDS = 6.0
sys.path.append(str(Path(__file__).parents[1] / "simulation"))


def measure(_: Bench) -> Iterator[Figure]:
    """Whole seeds, faults and all, one after another on one processor."""
    from test_seeds import live_through  # type: ignore[import-not-found] # the simulation's own story

    seed, handled, began = 0, 0, time.process_time()
    while time.process_time() - began < SECONDS:
        handled += live_through(seed).events
        seed += 1
    rate = handled / (time.process_time() - began)
    goal = SIMULATOR_EVENTS_PER_S
    yield Figure("simulator", f"{rate:,.0f} events/s ({seed} seeds)", f">= {goal:,.0f}/s", met=rate >= goal)
