"""Commands outlive their agent, however it ends: the next one finds them and records how they really ended."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.agent.real_agent import RealAgent, until_there, wait_for

ENDINGS = {
    "fine": ("exit 0", "success", 0, None),
    "seven": ("exit 7", "failed", 7, None),
    "allowed": ("exit 3", "success", 3, None),
    "shot": ("kill -TERM $$; sleep 60", "failed", None, 15),
}
"""How a command ends -> status, exit code and signal on record."""


def begin(agent: RealAgent, folder: Path) -> dict[str, dict[str, Any]]:
    """One command for each ending, all of them running; they end once the file `go` is there."""
    for name, (ending, *_) in ENDINGS.items():
        command = f"echo begun $$; {until_there(folder / 'go')}; echo ended; {ending}"
        agent.add(name, command, success_exit_codes=[0, 3])
        agent.call("POST", f"/v1/jobs/{name}/run")
    return {name: wait_for(partial(running, agent, name), f"{name} runs") for name in ENDINGS}


def running(agent: RealAgent, name: str) -> dict[str, Any] | None:
    """The one execution of a job, once it runs and its first line is there."""
    found = agent.executions(name)
    if [one["status"] for one in found] != ["running"]:
        return None
    written = agent.client("GET", f"/v1/executions/{name}/{found[0]['id']}/output").body
    return found[0] if b"begun" in written else None


def ended(agent: RealAgent, name: str) -> dict[str, Any] | None:
    """The one execution of a job, once it has ended."""
    [found] = agent.executions(name)
    return found if found["status"] not in {"armed", "running"} else None


def output(agent: RealAgent, name: str) -> str:
    """All that the one execution of a job wrote."""
    [found] = agent.executions(name)
    return agent.client("GET", f"/v1/executions/{name}/{found['id']}/output").body.decode()


def kill(agent: RealAgent) -> None:
    agent.kill()


def stop(agent: RealAgent) -> None:
    assert agent.stop() == 0


@pytest.mark.parametrize("end_agent", [kill, stop], ids=["kill -9", "TERM"])
@pytest.mark.parametrize("while_down", [True, False], ids=["ends while it is down", "ends later"])
def test_commands_outlive_their_agent(
    agent: RealAgent, tmp_path: Path, end_agent: Callable[[RealAgent], None], while_down: bool
) -> None:
    """Four run when the agent goes. Each is started once, keeps its process, and ends as itself on record."""
    before = begin(agent, tmp_path)
    pids = {name: int(output(agent, name).split()[1]) for name in ENDINGS}
    end_agent(agent)
    assert all(Path(f"/proc/{pid}").exists() for pid in pids.values())
    if while_down:
        (tmp_path / "go").touch()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()), "they end")
    agent.start()
    if not while_down:
        assert [running(agent, name) is not None for name in ENDINGS] == [True] * 4
        (tmp_path / "go").touch()
    for name, (_, status, exit_code, signal) in ENDINGS.items():
        found = wait_for(partial(ended, agent, name), f"the end of {name}")
        assert (found["status"], found["exit_code"], found["signal"]) == (status, exit_code, signal)
        same = ("id", "run_id", "attempt", "node_name", "trigger")
        assert [found[key] for key in same] == [before[name][key] for key in same]
        assert before[name]["started_at"] <= found["started_at"] < found["finished_at"]
        assert output(agent, name) == f"begun {pids[name]}\nended\n"


def test_an_adopted_command_can_be_killed(agent: RealAgent, tmp_path: Path) -> None:
    """The next agent is no parent of it, and ends it all the same."""
    agent.add("endless", "echo begun; sleep 60")
    agent.call("POST", "/v1/jobs/endless/run")
    found = wait_for(lambda: running(agent, "endless"), "it runs")
    agent.kill()
    agent.start()
    agent.call("POST", f"/v1/executions/endless/{found['id']}/kill")
    after = wait_for(lambda: ended(agent, "endless"), "it is killed")
    assert (after["id"], after["status"], after["success"]) == (found["id"], "killed", False)


def test_an_adopted_command_meets_its_timeout(agent: RealAgent) -> None:
    """The time it ran under the agent that died counts."""
    agent.add("slow", "echo begun; sleep 60", timeout="2s")
    agent.call("POST", "/v1/jobs/slow/run")
    wait_for(lambda: running(agent, "slow"), "it runs")
    agent.kill()
    agent.start()
    after = wait_for(lambda: ended(agent, "slow"), "its time is up")
    assert (after["status"], after["success"]) == ("timeout", False)
    assert 1500 < after["duration_ms"] < 10_000
