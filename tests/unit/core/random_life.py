"""Whole lives of one agent, step by step: what people ask, what processes do, what breaks."""

from __future__ import annotations

from typing import ClassVar

from meshcron import commands
from meshcron.model import SECOND_US, Job
from tests.unit.core.lab import Lab

NAMES = "abc"

SLOW_SECONDS = 0.05
"""How long a slow disk takes for a write, and some more."""


class RandomLife:
    """A lab and three jobs; job `n` has the concurrency `policies[n]` for good. The agent checks its invariants after
    every event."""

    STEPS: ClassVar[tuple[str, ...]] = (
        *("put", "put", "run", "run", "end", "end", "end", "wait", "wait", "wait"),
        *("stop", "pause", "unpause", "delete", "clear", "crash", "slow", "fast", "lose", "step_clock"),
    )
    """By weight; each takes a number from 0 to 5 that says how."""

    def __init__(self, policies: list[str]) -> None:
        self._lab = Lab().start()
        self._policies = policies

    def live(self, steps: list[tuple[str, int]]) -> Lab:
        """Take each step in turn; returns the lab as it stands then."""
        for what, n in steps:
            getattr(self, what)(n)
        return self._lab

    # people

    def put(self, n: int) -> None:
        name = NAMES[n % 3]
        job = Job(
            name=name,
            schedule=("* * * * * *", "*/3 * * * * *", "@manually")[n % 3],
            concurrency=self._policies[n % 3],  # type: ignore[arg-type] # one of the four
            retries=n % 2,
            disabled=n == 5,
            parent_jobs=("a",) if name == "c" and self._lab.agent.state.named("a") else (),
            on_lost="rerun" if n == 1 else "lost",
            timeout_us=(0, 5 * SECOND_US)[n % 2],
        )
        self._lab.ask(commands.PutJob(job))

    def run(self, n: int) -> None:
        self._lab.ask(commands.RunJob(NAMES[n % 3]))

    def stop(self, n: int) -> None:
        runs = sorted(one.run_id for one in self._lab.agent.state.open.values())
        if runs:
            self._lab.ask(commands.StopRun(runs[n % len(runs)]))

    def delete(self, n: int) -> None:
        self._lab.ask(commands.DeleteJob(NAMES[n % 3]))

    def clear(self, n: int) -> None:
        self._lab.ask(commands.ClearHistory(NAMES[n % 3]))

    def pause(self, n: int) -> None:
        self._lab.ask(commands.SetPaused(True))

    def unpause(self, n: int) -> None:
        self._lab.ask(commands.SetPaused(False))

    # the world

    def end(self, n: int) -> None:
        for execution_id in sorted(self._lab.running)[: n + 1]:
            self._lab.end(execution_id, code=n % 2)

    def wait(self, n: int) -> None:
        seconds = (0.2, 1, 1.3, 3, 15, 40)[n]
        self._lab.advance(seconds if self._lab.disk_answers else SLOW_SECONDS)

    def crash(self, n: int) -> None:
        self._lab.crash(seconds_down=(0, 1, 5, 30, 100, 400)[n])

    def slow(self, n: int) -> None:
        self._lab.disk_answers = False

    def fast(self, n: int) -> None:
        self._lab.disk_answers = True
        self._lab.sync()

    def lose(self, n: int) -> None:
        lab = self._lab
        lab.loses = lambda message: n > 2 and len(lab.sent) % n == 0

    def step_clock(self, n: int) -> None:
        self._lab.wall_shift_us += (-3600, -40, -5, 5, 40, 3600)[n] * SECOND_US
