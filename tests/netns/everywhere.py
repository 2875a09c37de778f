"""A job each second on every machine, under the checker (tests/checker.py): each start is written down outside of
meshcron, and starts, ticks and records are matched one to one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.checker import (
    COMMAND,
    SECOND_US,
    SETTLE_US,
    Down,
    Findings,
    Job,
    Record,
    Start,
    checked,
    read_records,
    read_starts,
)
from tests.integration.agent.real_agent import wait_for
from tests.netns.machines import Lan, Machine

SETTLED_SECONDS = 30.0
"""What an agent missed while it was cut off is sent to it again within as long as it was, and runs then, late."""

HORIZON_SECONDS = 3
"""Ticks are decided so far ahead (`--horizon`), without those that are not heard then."""

RUNS_MAX = 5000
"""Of one job in the history, and in one answer."""


class Told(NamedTuple):
    """A story that was found clean, for what else it must show."""

    found: Findings
    starts: list[Start]
    records: list[Record]

    def states(self, machines: Iterable[Machine], ticks: Collection[int] | None = None) -> Counter[str]:
        """How the ticks ended on these machines: all, or those of these seconds."""
        names = {one.name for one in machines}
        mine = (one for one in self.records if one.agent in names)
        return Counter(one.status for one in mine if ticks is None or one.tick_us // SECOND_US in ticks)

    def lateness_p99_ms(self, machines: Iterable[Machine]) -> int:
        """By how much the starts on these machines were late, but for one in a hundred, as the jobs say."""
        names = {one.name for one in machines}
        late = sorted((one.start_us - one.tick_us) // 1000 for one in self.starts if one.agent in names)
        return late[len(late) * 99 // 100]


class Everywhere:
    """The job `name`, on all machines of a network."""

    def __init__(self, lan: Lan, name: str, file: Path) -> None:
        self.name = name
        self._lan = lan
        self._file = file
        self._down: list[Down] = []
        self._away: dict[str, int] = {}

    def begin(self) -> None:
        """Add the job, and wait until it starts everywhere."""
        self._file.touch()
        body = {
            "name": self.name,
            "schedule": "* * * * * *",
            "command": COMMAND.format(file=self._file),
            "concurrency": "allow",
            "history": {"runs": RUNS_MAX, "days": 1},
        }
        answer = self._lan.machines[0].ask("POST", "/v1/jobs", body)
        assert answer.status == 201, answer
        names = {one.name for one in self._lan.machines}
        wait_for(lambda: {one.agent for one in self.starts()} == names, f"a start of {self.name} everywhere")

    def end(self) -> None:
        """Remove the job."""
        answer = self._lan.machines[0].ask("DELETE", f"/v1/jobs/{self.name}")
        assert answer.status == 200, answer

    def starts(self) -> list[Start]:
        """All that wrote themselves down."""
        return read_starts(self._file)

    def away(self, *machines: Machine) -> None:
        """From now on what is open there may be lost or skipped; on all others nothing may."""
        now_us = int(time.time()) * SECOND_US
        self._away |= {one.name: now_us - SECOND_US for one in machines}

    def back(self, *machines: Machine) -> None:
        """They are heard again, and have their share in what is decided from now on. Returns once a tick of that has
        started everywhere: before it they are excused, after it no more."""
        now = int(time.time())
        self._down += [
            Down(one.name, self._away.pop(one.name), (now + HORIZON_SECONDS) * SECOND_US) for one in machines
        ]
        self._wait_until_together(now + HORIZON_SECONDS)

    def _wait_until_together(self, since: int) -> None:
        names = {one.name for one in self._lan.machines}

        def together() -> bool:
            starts = {(one.tick_us // SECOND_US, one.agent) for one in self.starts()}
            later = {tick for tick, _ in starts if tick > since}
            return any(all((tick, name) in starts for name in names) for tick in later)

        wait_for(together, f"a tick of {self.name} on {sorted(names)}")

    def pass_by(self, seconds: float, watch: Callable[[], object] = bool) -> None:
        """Let so much time go by; `watch` is called again and again meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            watch()
            time.sleep(0.05)

    def check(self) -> Told:
        """Every tick up to a moment ago is a success with exactly one start on each machine, but for those that are
        away; there, too, nothing is missing and nothing doubled."""
        assert not self._away, f"{self._away} never came back"
        until_us = int(time.time()) * SECOND_US - SETTLE_US
        job = Job(self.name, frozenset(one.name for one in self._lan.machines))
        answers: list[dict[str, Any]] = []

        def executions(name: str) -> list[dict[str, Any]]:
            answers[:] = self._lan.leader().executions(name)
            return answers

        found = checked([job], self._file, executions, self._down, SETTLED_SECONDS)
        print(f"{found.line}, {len(found.excused)} excused")
        assert found.clean, found.story()
        records = [one for one in read_records(answers) if one.tick_us < until_us]
        return Told(found, self.starts(), records)
