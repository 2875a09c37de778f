"""A job each second that writes down each of its starts outside of meshcron, and the checker (after Jepsen's Chronos
test): ticks against starts against records, one to one."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.integration.agent.real_agent import RealAgent, wait_for

STARTED = {"success", "failed", "timeout", "killed", "lost"}
"""States of a tick that started, or may have."""


class Ticks:
    """The job `tick` of one agent, and the file that its command appends to."""

    def __init__(self, agent: RealAgent, file: Path) -> None:
        self._agent = agent
        self._file = file
        self.first = 0

    def begin(self) -> None:
        """Add the job, and wait for its first start."""
        self._file.touch()
        command = f'echo "$MESHCRON_SCHEDULED_AT" >> {self._file}'
        self._agent.add("tick", command, "* * * * * *", history={"runs": 1000, "days": 30})
        self.wait_for_more(1)
        self.first = min(self.starts())

    def starts(self) -> Counter[int]:
        """How often each tick started, by its second."""
        return Counter(seconds_of(line) for line in self._file.read_text().split())

    def wait_for_more(self, count: int) -> None:
        """Until so many more have started."""
        wanted = self._file.read_text().count("\n") + count
        wait_for(lambda: self._file.read_text().count("\n") >= wanted, f"{count} more ticks", count + 20.0)

    def pass_by(self, count: int) -> None:
        """Until so many more have fallen due, whether or not anybody could start them."""
        until = time.time() + count
        wait_for(lambda: time.time() > until, seconds=count + 5.0)

    def check(self) -> dict[int, str]:
        """Every tick up to a moment ago has exactly one record, none started twice, and what started is not recorded
        as skipped. Returns the state of each tick."""
        end = int(time.time()) - 1
        records = wait_for(lambda: self._settled(end), "a record of every tick")
        states: dict[int, str] = {}
        for one in records:
            begin = seconds_of(one["scheduled_at"])
            for tick in range(begin, begin + max(1, one["count"])):
                assert tick not in states, f"two records of tick {tick}: {states[tick]}, {one}"
                states[tick] = one["status"]
        starts = self.starts()
        assert max(starts.values()) == 1, f"doubled: {starts}"
        gone = set(range(self.first, end)) - states.keys()
        assert not gone, f"ticks without a record: {sorted(gone)}"
        untold = {tick: states[tick] for tick in starts if tick < end and states[tick] not in STARTED}
        assert not untold, f"started, but recorded as {untold}"
        untrue = [tick for tick, state in states.items() if state == "success" and tick not in starts]
        assert not untrue, f"recorded as success, but never started: {untrue}"
        return {tick: state for tick, state in states.items() if self.first <= tick < end}

    def _settled(self, before: int) -> list[dict[str, Any]]:
        """All records, once none of a tick before that second is open."""
        found = self._agent.executions("tick")
        open_ = [one for one in found if one["status"] in {"armed", "running"}]
        return [] if any(seconds_of(one["scheduled_at"]) < before for one in open_) else found


def seconds_of(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())
