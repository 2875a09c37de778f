"""What the kernel says of this machine and of one process (proc(5))."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LOOK_SECONDS = 1.0
"""How long the machine is watched to say how busy others keep it."""


def cpu_ns(pid: int) -> int:
    """Processor time of all threads a process has now, user and system. Its children's is not in it."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def rss_bytes(pid: int) -> int:
    """Resident memory, shared libraries included."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


@dataclass(frozen=True)
class Stat:
    """Jiffies of all processors since the start."""

    busy: int
    stolen: int
    total: int

    @staticmethod
    def now() -> Stat:
        user, nice, system, idle, iowait, irq, softirq, steal = map(
            int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        )
        busy = user + nice + system + irq + softirq
        return Stat(busy, steal, busy + idle + iowait + steal)


def load_averages() -> str:
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


def how_quiet() -> str:
    """How busy the machine is while nothing of ours runs. Takes a second."""
    before = Stat.now()
    time.sleep(LOOK_SECONDS)
    after = Stat.now()
    total = max(1, after.total - before.total)
    busy, stolen = (after.busy - before.busy) / total, (after.stolen - before.stolen) / total
    return f"{busy:.0%} busy, {stolen:.0%} stolen, load {load_averages()}"


def description() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    processors = f"{os.cpu_count()} processors ({', '.join(sorted(models)) or platform.machine()})"
    return f"{processors}, Linux {platform.release()}, Python {platform.python_version()}"
