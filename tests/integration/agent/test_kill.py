"""The agent is killed -9 again and again: no tick disappears, none is doubled, what ran is adopted."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest


def seconds_of(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def check(agent: Any, file: Path, first: int, last: int) -> None:
    """Starts in the file against ticks, one to one, and against the API's records."""
    starts = Counter(seconds_of(line) for line in file.read_text().split())
    doubled = [tick for tick, count in starts.items() if count > 1]
    assert not doubled, f"doubled: {doubled}"
    records: Counter[int] = Counter()
    ran: set[int] = set()
    for one in agent.call("GET", "/v1/jobs/tick/executions?_start=0&_end=2000"):
        begin = seconds_of(one["scheduled_at"])
        count = one.get("count", 1)
        for tick in range(begin, begin + max(1, count)):
            records[tick] += 1
        if one["status"] in {"success", "failed", "lost"}:
            ran.add(begin)
    wrong = {tick: records[tick] for tick in range(first, last + 1) if records[tick] != 1}
    assert not wrong, f"ticks without exactly one record: {wrong}"
    assert set(starts) <= ran, f"started, but recorded as not started: {sorted(set(starts) - ran)}"
    # Each was down for under 10 s: every tick is made up, late, unless its fate is unknown.
    missing = set(range(first, last + 1)) - set(starts)
    lost = {tick for tick in ran if tick not in starts}
    assert missing <= lost, f"missing: {sorted(missing - lost)}"


def kill_story(agent: Any, tmp_path: Path, kills: int, seconds: float) -> None:
    """A job each second over some time with some kills, then the checker."""
    file = tmp_path / "ticks"
    file.touch()
    command = f'echo "$MESHCRON_SCHEDULED_AT" >> {file}'
    history = {"runs": 1000, "days": 30}
    agent.call("POST", "/v1/jobs", {"name": "tick", "schedule": "* * * * * *", "command": command, "history": history})
    agent.call("POST", "/v1/jobs", {"name": "long", "schedule": "@manually", "command": "sleep 6; exit 7"})
    first = int(time.time()) + 1
    for number in range(kills):
        time.sleep(seconds / (kills + 1) - 1.0)
        if number == kills - 1:
            agent.call("POST", "/v1/jobs/long/run")
            time.sleep(0.5)
        agent.kill()
        time.sleep(1.0)
        agent.start()
    time.sleep(max(seconds / (kills + 1), 8))
    last = int(time.time()) - 2
    check(agent, file, first, last)
    (long,) = agent.call("GET", "/v1/executions/long")
    assert (long["status"], long["exit_code"]) == ("failed", 7), "the long job was not adopted"


def test_two_kills(agent: Any, tmp_path: Path) -> None:
    """A short dose for every run of the tests."""
    kill_story(agent, tmp_path, kills=2, seconds=9)


@pytest.mark.slow
def test_five_kills_in_two_minutes(agent: Any, tmp_path: Path) -> None:
    """The full dose."""
    kill_story(agent, tmp_path, kills=5, seconds=120)
