"""How many `true` a second: `Processes` against a bare trampoline loop, turn by turn in one run.

    python tests/bench/room_processes.py [--folder DIR] [--command SH] [--runs N] [--in-flight N] [--rounds N]

The bare loop is the limit of this machine for a shell that runs a shell and writes a status file: no events, no
output, no adoption. Both keep the same number in flight. `loop` is the CPU time of this process alone. Nothing is
removed before the end: ext4 makes files slowly where many were removed in the last minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from trampolines import Spawner, trampolines

from meshcron.core.events import Event, ProcessEnded, ProcessStarted
from meshcron.model import Launch, Limits
from meshcron.runtime.launch import RunAsPolicy
from meshcron.runtime.process import Processes


@dataclass
class Figures:
    rate: list[float]
    loop_us: list[float]

    def add(self, runs: int, seconds: float, cpu: float) -> None:
        self.rate.append(runs / seconds)
        self.loop_us.append(cpu / runs * 1e6)

    def line(self, name: str) -> str:
        return f"{name:10} {statistics.median(self.rate):6.0f}/s   loop {statistics.median(self.loop_us):4.0f} us each"


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def bare(folder: Path, runs: int, in_flight: int, figures: Figures, command: str) -> None:
    spawner = Spawner()
    cpu = cpu_seconds()
    rate = spawner.rate(trampolines(folder, runs, command), in_flight)
    figures.add(runs, runs / rate, cpu_seconds() - cpu)
    spawner.close()


async def ours(folder: Path, runs: int, in_flight: int, figures: Figures, command: str) -> None:
    done = asyncio.get_running_loop().create_future()
    left, unlaunched = runs, runs
    emitted: dict[type, int] = {}

    def launch_next() -> None:
        nonlocal unlaunched
        if unlaunched:
            unlaunched -= 1
            processes.launch(
                Launch(
                    execution_id=f"{unlaunched:032x}",
                    command=command,
                    shell=True,
                    env={"MESHCRON_EXECUTION": f"{unlaunched}", "MESHCRON_JOB": "bench"},
                    cwd="",
                    run_as_user="",
                    payload="",
                    nice=0,
                    limits=Limits(),
                )
            )

    def emit(event: Event) -> None:
        nonlocal left
        emitted[type(event)] = emitted.get(type(event), 0) + 1
        if isinstance(event, ProcessEnded):
            left -= 1
            processes.forget(event.execution_id)
            launch_next()
            if not left:
                done.set_result(None)

    processes = Processes(folder, emit, policy=RunAsPolicy(), wall_clock_us=lambda: time.time_ns() // 1000)
    processes.start()
    began, cpu = time.perf_counter(), cpu_seconds()
    for _ in range(in_flight):
        launch_next()
    await done
    figures.add(runs, time.perf_counter() - began, cpu_seconds() - cpu)
    processes.close()
    assert emitted == {ProcessStarted: runs, ProcessEnded: runs}, emitted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--command", default="true", help="both sides run this; `echo x` leaves an output to keep")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="our side alone, under cProfile")
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="meshcron-spawn-", dir=options.folder))
    limit, mine = Figures([], []), Figures([], [])
    try:
        if options.profile:
            profile(base, options.runs, options.in_flight, options.command)
            return
        for number in range(options.rounds):
            gc.collect()
            bare(base / f"bare{number}", options.runs, options.in_flight, limit, options.command)
            asyncio.run(ours(base / f"ours{number}", options.runs, options.in_flight, mine, options.command))
    finally:
        shutil.rmtree(base)
    print(limit.line("trampoline"))
    print(mine.line("Processes"))
    ratios = [ours_ / bare_ for ours_, bare_ in zip(mine.rate, limit.rate, strict=True)]
    print(f"ratio      {statistics.median(ratios):6.2f}     each round: {' '.join(f'{ratio:.2f}' for ratio in ratios)}")


def profile(base: Path, runs: int, in_flight: int, command: str) -> None:
    import cProfile
    import pstats

    with cProfile.Profile() as profiler:
        asyncio.run(ours(base / "ours", runs, in_flight, Figures([], []), command))
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
