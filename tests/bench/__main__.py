"""The speed table of the design, as this machine meets it: each figure beside the limit measured in the same run.

Real agents on 127.0.0.1 with free ports, in temporary folders; only processes that were started here are ended.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import burst
import http_get
import http_post
import idle
import lateness
import limits
import many_jobs
import simulator
import starting
import sustained
import tick_cost
from bench import Bench
from failed import Failed
from goals import ONE_AGENT
from machine import description, how_quiet
from table import Figure, table, verdict

FIGURES: dict[str, Callable[[Bench], Iterable[Figure]]] = {
    "limits": limits.measure,
    "lateness": lateness.measure,
    "burst": burst.measure,
    "sustained": sustained.measure,
    "get": http_get.measure,
    "post": http_post.measure,
    "idle": idle.measure,
    "starting": starting.measure,
    "many": many_jobs.measure,
    "tick": tick_cost.measure,
    "simulator": simulator.measure,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"some of: {' '.join(FIGURES)} (all)")
    parser.add_argument(
        "--folder", type=Path, help="where to write: a disk, not a tmpfs (the system's temporary folder)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder with data directories and logs")
    chosen = parser.parse_args()
    if unknown := set(chosen.figures) - FIGURES.keys():
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    return chosen


def measured(name: str, bench: Bench) -> list[Figure]:
    """One figure's rows; what cannot be measured is not met."""
    began = time.perf_counter()
    try:
        return list(FIGURES[name](bench))
    except Failed as failure:
        return [Figure(name, f"failed: {failure}", met=False)]
    finally:
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)


def main() -> int:
    """Returns 1 where something is not met."""
    chosen = arguments()
    folder = Path(tempfile.mkdtemp(prefix="meshcron-bench-", dir=chosen.folder))
    began, before = time.perf_counter(), how_quiet()
    bench = Bench(folder, ONE_AGENT)
    figures: list[Figure] = []
    try:
        with bench.running("compiled"):  # an installed agent has its bytecode; compiling takes time and memory
            pass
        for name in chosen.figures or FIGURES:
            figures += measured(name, bench)
    finally:
        if not chosen.keep:
            shutil.rmtree(folder)
    print(f"{bench.goals.column}: {description()}")
    print(f"machine before: {before}; after: {how_quiet()}; took {time.perf_counter() - began:.0f} s\n")
    print(table(figures))
    print(f"\n{verdict(figures)}")
    if chosen.keep:
        print(f"kept: {folder}")
    return int(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
