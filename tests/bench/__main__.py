"""The speed table of the design, as this machine meets it: each figure beside the limit measured in the same run.

Real agents on 127.0.0.1 with free ports, or in network namespaces made for it, in temporary folders; only processes
that were started here are ended.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import burst
import cut
import failover
import forming
import http_get
import http_post
import idle
import lateness
import limits
import loss
import many_jobs
import ring
import simulator
import starting
import sustained
import tick_cost
from bench import Bench
from failed import Failed
from goals import ONE_AGENT, THREE_VOTERS, Goals
from machine import description, how_quiet
from table import Figure, table, verdict

Measure = Callable[[Bench], Iterable[Figure]]

SHARED: dict[str, Measure] = {
    "limits": limits.measure,
    "lateness": lateness.measure,
    "burst": burst.measure,
    "sustained": sustained.measure,
    "get": http_get.measure,
    "post": http_post.measure,
    "idle": idle.measure,
    "many": many_jobs.measure,
    "tick": tick_cost.measure,
    "simulator": simulator.measure,
}
ALONE: dict[str, Measure] = {"starting": starting.measure}
TOGETHER: dict[str, Measure] = {
    "forming": forming.measure,
    "failover": failover.measure,
    "cut": cut.measure,
    "loss": loss.measure,
}
COLUMNS: dict[str, tuple[Goals, dict[str, Measure]]] = {
    "one": (ONE_AGENT, SHARED | ALONE),
    "three": (THREE_VOTERS, SHARED | TOGETHER),
}
FIGURES = SHARED | ALONE | TOGETHER


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"some of: {' '.join(FIGURES)} (all)")
    parser.add_argument(
        "--column", choices=[*COLUMNS, "all"], default="one", help="one agent (5 minutes), three voters (16), or all"
    )
    parser.add_argument(
        "--folder", type=Path, help="where to write: a disk, not a tmpfs (the system's temporary folder)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="only plot the ring in virtual time as an SVG (15 s)")
    parser.add_argument("--keep", action="store_true", help="leave the folder with data directories and logs")
    chosen = parser.parse_args()
    known = FIGURES if chosen.column == "all" else COLUMNS[chosen.column][1]
    if unknown := set(chosen.figures) - known.keys():
        parser.error(f"no such figure in this column: {', '.join(sorted(unknown))}")
    return chosen


def measured(name: str, measure: Measure, bench: Bench) -> list[Figure]:
    """One figure's rows; what cannot be measured is not met."""
    began = time.perf_counter()
    try:
        return list(measure(bench))
    except Failed as failure:
        return [Figure(name, f"failed: {failure}", met=False)]
    finally:
        print(f"{bench.goals.column}, {name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)


def column(name: str, chosen: Sequence[str], folder: Path) -> list[Figure]:
    """Measure and print one column: all of its figures, or those of them that are chosen."""
    began, before = time.perf_counter(), how_quiet()
    goals, known = COLUMNS[name]
    bench = Bench(folder / name, folder / "bytecode", goals)
    bench.folder.mkdir()
    figures = [row for one in known if not chosen or one in chosen for row in measured(one, known[one], bench)]
    print(f"{goals.column}: {description()}")
    print(f"machine before: {before}; after: {how_quiet()}; took {time.perf_counter() - began:.0f} s\n")
    print(table(figures))
    print(f"\n{verdict(figures)}\n", flush=True)
    return figures


def main() -> int:
    """Returns 1 where something is not met."""
    chosen = arguments()
    if chosen.plot:
        print(ring.plot(chosen.plot))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="meshcron-bench-", dir=chosen.folder))
    figures: list[Figure] = []
    try:
        # An installed agent has its bytecode; compiling takes time and memory.
        with Bench(folder / "compiled", folder / "bytecode", ONE_AGENT).running("compiled"):
            pass
        for name in COLUMNS if chosen.column == "all" else [chosen.column]:
            figures += column(name, chosen.figures, folder)
    finally:
        if not chosen.keep:
            shutil.rmtree(folder)
    if chosen.keep:
        print(f"kept: {folder}")
    return int(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
