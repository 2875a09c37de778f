"""The threads in which trampolines are started: each start waits for the kernel, and the agent's loop must not."""

from __future__ import annotations

import os
import time
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread

from meshcron.runtime.launch import Plan
from meshcron.runtime.process_spawn import spawn
from meshcron.runtime.process_table import process_stat

THREADS = 4
"""Starts at once. Each is a wait, for as long as the machine has others to run: 0.3 ms to several; together they take
no more of a processor than one after the other."""

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
"""The unit of a process's start time (proc(5), field 22)."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A trampoline that has been exec'ed."""

    pid: int
    start: int
    """In clock ticks since boot, as /proc shows it; where that could not be asked a little less, never 0: its timeout
    would have passed before it began."""
    pidfd: int
    """-1: no descriptor was left for it. Whoever gets this closes it."""
    wall_us: int
    """When it had been started."""


Outcome = Spawned | OSError


@dataclass(frozen=True, slots=True)
class _Wanted:
    execution_id: str
    plan: Plan
    folder: str


class Spawner:
    """Starts trampolines beside the loop; `done(execution_id, outcome)` is told in the loop's thread how each went."""

    def __init__(self, done: Callable[[str, Outcome], None], wall_clock_us: Callable[[], int]) -> None:
        self._done = done
        self._wall_clock_us = wall_clock_us
        self._wanted: SimpleQueue[_Wanted | None] = SimpleQueue()
        self._outcomes: deque[tuple[str, Outcome]] = deque()
        self._threads: list[Thread] = []
        self._coming = False
        self._loop: AbstractEventLoop

    def start(self, loop: AbstractEventLoop) -> None:
        """Learn the loop. An agent that runs nothing gets no threads."""
        self._loop = loop

    def spawn(self, execution_id: str, plan: Plan, folder: str) -> None:
        """Start the trampoline of `plan` soon; those of several calls begin in their order."""
        if not self._threads:
            self._threads = [Thread(target=self._run, name=f"spawner-{n}", daemon=True) for n in range(THREADS)]
            for thread in self._threads:
                thread.start()
        self._wanted.put(_Wanted(execution_id, plan, folder))

    def close(self) -> None:
        """Wait for what was asked for, a few milliseconds; `done` hears of it before this returns, of nothing later."""
        for _ in self._threads:
            self._wanted.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._deliver()

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            self._outcomes.append((wanted.execution_id, self._start(wanted)))
            if not self._coming:
                self._coming = True
                with suppress(RuntimeError):  # the loop is closed; so is this, or about to be
                    self._loop.call_soon_threadsafe(self._deliver)

    def _start(self, wanted: _Wanted) -> Outcome:
        before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        try:
            pid = spawn(wanted.plan, wanted.folder)
        except OSError as error:
            return error
        after_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall_us, start, pidfd = self._wall_clock_us(), _start_ticks(pid, before_ns, after_ns), -1
        with suppress(OSError):  # no descriptor left: it runs all the same, and the watch will see its end
            pidfd = os.pidfd_open(pid)
        return Spawned(pid, start, pidfd, wall_us)

    def _deliver(self) -> None:
        # Lowered first: what is put in from now on is either found here or brings another call.
        self._coming = False
        while self._outcomes:
            self._done(*self._outcomes.popleft())


def _start_ticks(pid: int, before_ns: int, after_ns: int) -> int:
    """The start time of a process that was forked between two readings of CLOCK_BOOTTIME: the kernel cuts the same
    clock to ticks. Where both lie in one tick there is no need to ask /proc, which takes as long as the fork, and where
    /proc cannot be read, for want of a descriptor, the first has to do."""
    start = before_ns // _TICK_NS
    if start == after_ns // _TICK_NS:
        return start
    stat = process_stat(pid)
    return stat.start if stat else start
