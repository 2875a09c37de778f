"""Runs many seeds on all processors (scripts/seeds): progress, what failed, a summary."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.simulation import test_cluster_seeds, test_seeds

PROGRESS_S = 30
CHUNK = 10
"""Seeds in one go of a process: a few seconds, so that progress shows soon."""


def run_some(first: int, count: int, *, alone: bool, whole: bool) -> tuple[list[tuple[int, str]], int]:
    """The failures among some seeds with their first line or as a `whole`, and how many events all of them handled."""
    story = test_seeds.keeps_its_promise if alone else test_cluster_seeds.keeps_its_promise
    failed: list[tuple[int, str]] = []
    events = 0
    for seed in range(first, first + count):
        try:
            events += story(seed).events
        except Exception as failure:  # noqa: BLE001 - whatever a seed dies of is its result
            line = f"{type(failure).__name__}: {failure}".splitlines()[0]
            failed.append((seed, traceback.format_exc() if whole else line))
    return failed, events


def main() -> int:
    """0 when every seed ran clean, else 1."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("count", type=int)
    parser.add_argument("first", type=int)
    wanted = parser.parse_args()
    processes = len(os.sched_getaffinity(0))
    alone = ["--alone"] if wanted.alone else []
    print(f"{wanted.count} seeds from {wanted.first} on, {processes} at a time", flush=True)
    began = shown = time.monotonic()
    done = events = 0
    failed: list[tuple[int, str]] = []
    end = wanted.first + wanted.count
    some = partial(run_some, alone=wanted.alone, whole=wanted.count == 1)
    with ProcessPoolExecutor(processes) as pool:
        work = {
            pool.submit(some, first, min(CHUNK, end - first)): min(CHUNK, end - first)
            for first in range(wanted.first, end, CHUNK)
        }
        for one in as_completed(work):
            found, handled = one.result()
            done, events = done + work[one], events + handled
            for seed, why in found:
                print(f"seed {seed} failed: {why}", flush=True)
            failed += found
            if time.monotonic() - shown > PROGRESS_S:
                shown = time.monotonic()
                print(f"{done} of {wanted.count}, {len(failed)} failed, {shown - began:.0f} s", flush=True)
    if failed:
        print(f"replay: {' '.join(['scripts/seeds', *alone, '1', str(min(failed)[0])])}")
    took = time.monotonic() - began
    print(f"{done} seeds, {len(failed)} failed, {events:,} events, {took:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
