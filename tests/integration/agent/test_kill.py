"""The agent is killed -9 again and again: no tick disappears, none is doubled, what ran is adopted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent.real_agent import RealAgent, wait_for
from tests.integration.agent.ticks import Ticks, seconds_of

LONG_SECONDS = 18
"""Some ticks then are neither armed (3 s ahead) nor so young that they run late (10 s)."""

RECENT_SECONDS = 10
"""A tick that is decided within this of its time runs, merely late; catch_up decides about older ones."""

FAR_SECONDS = 5
"""Beyond the horizon: a tick that is not armed yet."""


def kill_story(agent: RealAgent, ticks: Ticks, downs: Sequence[int], ticks_between: int) -> dict[int, str]:
    """Killed every so many ticks, down for so many seconds each time: within the horizon every tick is started, late,
    unless nobody can know whether it was. Returns the state of each tick."""
    for down in downs:
        ticks.wait_for_more(ticks_between)
        agent.kill()
        ticks.pass_by(down)
        agent.start()
    ticks.wait_for_more(ticks_between)
    return ticks.check()


def test_three_kills(agent: RealAgent, tmp_path: Path) -> None:
    """A short dose for every run of the tests."""
    ticks = Ticks(agent, tmp_path / "ticks")
    ticks.begin()
    states = list(kill_story(agent, ticks, downs=(1, 1, 1), ticks_between=2).values())
    assert set(states) <= {"success", "lost"}
    assert states.count("lost") <= 3


def burst(agent: RealAgent) -> list[int]:
    """Add a job with three ticks in a minute, the first of them in some seconds; returns when they are."""
    first = int(time.time()) + FAR_SECONDS
    ticks = [first, first + 1, first + 2]
    agent.add("burst", "true", f"{','.join(str(tick % 60) for tick in ticks)} * * * * *", timezone="UTC")
    return ticks


@pytest.mark.slow
def test_five_kills_in_two_minutes(agent: RealAgent, tmp_path: Path) -> None:
    """The full dose. Once it is away for 18 s: of its ticks in that time those run, late, that were armed or are no
    older than 10 s, and the rest are one range, recorded as skipped. A job whose ticks are all older is caught up with
    (`latest`): its last one runs, marked so, and those before it are one range."""
    ticks = Ticks(agent, tmp_path / "ticks")
    ticks.begin()
    assert set(kill_story(agent, ticks, downs=(1, 1), ticks_between=19).values()) <= {"success", "lost"}
    missed = burst(agent)
    agent.kill()
    killed = int(time.time())
    ticks.pass_by(LONG_SECONDS)
    agent.start()
    back = int(time.time())
    one_range, made_up = wait_for(lambda: both_ended(agent.executions("burst")), "the ticks of the burst")
    assert (one_range["status"], one_range["reason"]) == ("skipped", "missed: a later tick makes up for it")
    assert (seconds_of(one_range["scheduled_at"]), one_range["count"]) == (missed[0], 2)
    assert (made_up["status"], made_up["trigger"]) == ("success", "catch_up")
    assert seconds_of(made_up["scheduled_at"]) == missed[2]
    agent.call("DELETE", "/v1/jobs/burst")
    states = kill_story(agent, ticks, downs=(1, 1), ticks_between=19)
    (skipped,) = [one for one in agent.executions("tick") if one["status"] == "skipped"]
    first = seconds_of(skipped["scheduled_at"])
    assert skipped["reason"] == "missed: nobody could run it in time"
    assert killed < first < first + skipped["count"] - 1 <= back + 1 - RECENT_SECONDS
    assert list(states.values()).count("lost") <= 5
    assert {states[tick] for tick in states if not first <= tick < first + skipped["count"]} <= {"success", "lost"}


def both_ended(executions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The two of them, oldest first, once neither is open."""
    open_ = any(one["status"] in {"armed", "running"} for one in executions)
    return executions if len(executions) == 2 and not open_ else []


def test_a_terminated_agent_goes_on_where_it_was(agent: RealAgent, tmp_path: Path) -> None:
    """TERM ends it with code 0 and loses nothing at all, not even the fate of one tick."""
    ticks = Ticks(agent, tmp_path / "ticks")
    ticks.begin()
    for _ in range(2):
        ticks.wait_for_more(1)
        assert agent.stop() == 0
        assert not (agent.folder / "agent.json").exists()
        agent.start()
    ticks.wait_for_more(2)
    assert set(ticks.check().values()) == {"success"}
