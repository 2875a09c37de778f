"""The agent is killed -9 again and again: no tick disappears, none is doubled, what ran is adopted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.agent.real_agent import RealAgent
from tests.integration.agent.ticks import Ticks


def kill_story(agent: RealAgent, ticks: Ticks, kills: int, ticks_between: int) -> None:
    """Killed every so many ticks, a second or two down each time: within the horizon, so every tick is started, late,
    unless nobody can know whether it was."""
    ticks.begin()
    for _ in range(kills):
        ticks.wait_for_more(ticks_between)
        agent.kill()
        ticks.pass_by(1)
        agent.start()
    ticks.wait_for_more(ticks_between)
    states = ticks.check()
    assert set(states.values()) <= {"success", "lost"}
    assert list(states.values()).count("lost") <= kills


def test_three_kills(agent: RealAgent, tmp_path: Path) -> None:
    """A short dose for every run of the tests."""
    kill_story(agent, Ticks(agent, tmp_path / "ticks"), kills=3, ticks_between=2)


@pytest.mark.slow
def test_five_kills_in_two_minutes(agent: RealAgent, tmp_path: Path) -> None:
    """The full dose."""
    kill_story(agent, Ticks(agent, tmp_path / "ticks"), kills=5, ticks_between=19)


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
