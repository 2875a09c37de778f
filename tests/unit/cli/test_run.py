"""run: starting a job, following it to its end, and the exit code that comes of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from meshcron.cli import client, run
from meshcron.cli.run import decisive, exit_code

NEVER = "0001-01-01T00:00:00Z"


def execution(ident: str = "1-one", **more: Any) -> dict[str, Any]:
    return {
        "id": ident,
        "job_name": "hello",
        "run_id": "run-1",
        "started_at": "2026-01-31T11:59:00Z",
        "finished_at": "2026-01-31T12:00:00Z",
        "node_name": "one",
        "attempt": 1,
        "status": "success",
        "reason": "",
        "exit_code": 0,
        "signal": None,
        **more,
    }


def job(**more: Any) -> dict[str, Any]:
    return {"name": "hello", "status": "running", "retries": 0, "retry_delay": "0s", "retry_backoff": 1.0, **more}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stories need no time between two looks."""
    monkeypatch.setattr(run, "LOOK_SECONDS", 0.0)


def script(agent: Any, *looks: Callable[[], object]) -> None:
    """What happens before each look at the run."""
    agent.jobs["hello"] = job()
    steps = iter(looks)

    def step(_: Any) -> None:
        next(steps, lambda: None)()

    agent.on_look = step


def test_run_answers_at_once(cli: Any, agent: Any) -> None:
    """Without --wait nobody looks at the run; parameters are sent along."""
    agent.jobs["hello"] = job()
    result = cli("run", "hello", "--env", "A=1", "--env", "B=x=y")
    assert result.exit_code == 0
    assert result.stdout == '"hello" was started; meshcron output hello -f shows what it writes\n'
    assert agent.requests[-1].body == {"env": {"A": "1", "B": "x=y"}}


def test_run_json_has_the_run_id(cli: Any, agent: Any) -> None:
    """The header of the answer is part of what programs get."""
    agent.jobs["hello"] = job()
    assert json.loads(cli("run", "hello", "--json").stdout)["run_id"] == "run-1"


def test_wait_streams_and_ends_as_the_job(cli: Any, agent: Any) -> None:
    """Output appears piece by piece, each piece once, and the code is the job's own."""
    script(
        agent,
        lambda: agent.executions.append(execution(status="armed", started_at=NEVER, exit_code=None)),
        lambda: agent.executions[0].update(status="running", started_at="2026-01-31T11:59:00Z"),
        lambda: agent.outputs.update({"1-one": b"first\n"}),
        lambda: agent.outputs.update({"1-one": b"first\nsecond\n"}),
        lambda: agent.executions[0].update(status="failed", exit_code=7),
    )
    result = cli("run", "hello", "--wait")
    assert result.stdout == "first\nsecond\n"
    assert result.stderr == "one: failed, attempt 1\n"
    assert result.exit_code == 7
    offsets = [each.query["offset"] for each in agent.requests if each.path.endswith("/output")]
    assert offsets == [["0"], ["0"], ["6"], ["13"]]


def test_what_is_not_kept_is_told_once(cli: Any, agent: Any) -> None:
    """The line that says so is shorter than what it stands for: the agent says where to go on."""
    agent.not_kept = 1000
    script(
        agent,
        lambda: (
            agent.executions.append(execution(status="running", exit_code=None)),
            agent.outputs.update({"1-one": b"[1000 bytes not kept]\n"}),
        ),
        lambda: agent.outputs.update({"1-one": b"[1000 bytes not kept]\ntail\n"}),
        lambda: None,
        lambda: agent.executions[0].update(status="success", exit_code=0),
    )
    assert cli("run", "hello", "--wait").stdout == "[1000 bytes not kept]\ntail\n"


def test_wait_waits_while_the_run_is_queued(cli: Any, agent: Any) -> None:
    """A run behind another one of its job has no execution yet; that is no error."""
    script(
        agent,
        lambda: agent.__dict__.update(goes_on=True),
        lambda: None,
        lambda: (agent.__dict__.update(goes_on=False), agent.executions.append(execution())),
    )
    assert cli("run", "hello", "--wait").exit_code == 0


def test_a_run_that_is_gone_is_an_error(cli: Any, agent: Any) -> None:
    """Nothing of the job is open and the agent knows no such run: waiting on would be for ever."""
    agent.jobs["hello"] = job(status="")
    assert cli("run", "hello", "--wait").exit_code == 3


def test_an_ephemeral_job_goes_with_its_success(cli: Any, agent: Any) -> None:
    """The job and its run are gone in the moment that it succeeds: that is the success."""
    script(agent, lambda: agent.executions.append(execution(status="running")), agent.executions.clear)
    agent.jobs["hello"] |= {"ephemeral": True}
    result = cli("run", "hello", "--wait")
    assert (result.exit_code, result.stderr) == (0, '"hello" is gone, as an ephemeral job is after its success\n')


def test_several_agents_share_no_line(cli: Any, agent: Any) -> None:
    """Lines of several agents carry their names, and a half line waits for its other half."""
    script(
        agent,
        lambda: agent.executions.extend(
            [execution(status="running"), execution("1-two", node_name="two", status="running")]
        ),
        lambda: agent.outputs.update({"1-one": b"from one\nhal", "1-two": b"from two"}),
        lambda: (
            agent.outputs.update({"1-one": b"from one\nhalf\n"}),
            agent.executions[0].update(status="success"),
            agent.executions[1].update(status="failed", exit_code=3),
        ),
    )
    result = cli("run", "hello", "--wait")
    assert result.stdout == "one: from one\none: half\ntwo: from two\n"
    assert result.exit_code == 3


@pytest.mark.parametrize(
    "first",
    [
        execution(status="failed", exit_code=1),
        execution(status="failed", exit_code=None, started_at=NEVER, finished_at=NEVER),
        execution(status="lost", exit_code=None, finished_at=NEVER),
    ],
    ids=["failed", "never started", "lost"],
)
def test_a_retry_that_succeeds_is_a_success(cli: Any, agent: Any, first: dict[str, Any]) -> None:
    """The last attempt decides: after a first one, whatever became of it, the command waits for the second, for as
    long as the agent says that there will be one."""
    script(
        agent,
        lambda: (agent.__dict__.update(goes_on=True), agent.executions.append(first)),
        lambda: None,
        lambda: (agent.__dict__.update(goes_on=False), agent.executions.append(execution("2-one", attempt=2))),
    )
    result = cli("run", "hello", "--wait")
    assert result.exit_code == 0
    assert result.stderr == f"one: {first['status']}, attempt 1\n"


def test_a_retry_that_is_not_to_be_is_not_waited_for(cli: Any, agent: Any) -> None:
    """The job is disabled, so nothing is owed, whatever its retries say: the command ends."""
    script(agent, lambda: agent.executions.append(execution(status="failed", exit_code=4)))
    agent.jobs["hello"] |= {"retries": 3, "disabled": True}
    assert cli("run", "hello", "--wait").exit_code == 4


def test_a_retry_that_was_stopped_is_no_success(cli: Any, agent: Any) -> None:
    """Its record, without an agent, stands for the first attempt."""
    stopped = execution("1-none", status="skipped", reason="stopped", node_name="", attempt=2, started_at=NEVER)
    script(agent, lambda: agent.executions.extend([execution(status="failed", exit_code=4), stopped]))
    result = cli("run", "hello", "--wait")
    assert result.exit_code == 1
    assert "no agent: skipped (stopped), attempt 2" in result.stderr


def test_wait_json_prints_the_decisive_executions(cli: Any, agent: Any) -> None:
    """For programs: no output in between, the executions at the end, the same exit code."""
    script(agent, lambda: agent.executions.append(execution(status="timeout", exit_code=None, signal=15)))
    result = cli("run", "hello", "--wait", "--json")
    assert [each["id"] for each in json.loads(result.stdout)] == ["1-one"]
    assert result.exit_code == 124


def refused(status: int, code: str) -> Any:
    error = {"code": code, "message": "no leader at the moment", "field": "", "hint": ""}
    return type("R", (), {"status": status, "value": {"error": error}, "headers": {}})()


def test_wait_outlives_what_passes(cli: Any, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent is restarted, or its leader: asked again, and nothing is printed twice."""
    monkeypatch.setattr(client, "RETRY_SECONDS", 0.0)
    script(
        agent,
        lambda: (agent.executions.append(execution(status="running")), agent.outputs.update({"1-one": b"first\n"})),
        lambda: agent.will_answer("GET", "/v1/executions/hello/1-one/output", *[refused(503, "no_leader")] * 2),
        lambda: agent.will_answer("GET", "/v1/runs/run-1", *[refused(503, "no_leader")] * 3),
        lambda: (agent.executions[0].update(status="success"), agent.outputs.update({"1-one": b"first\nlast\n"})),
    )
    result = cli("run", "hello", "--wait")
    assert (result.exit_code, result.stdout) == (0, "first\nlast\n")


def test_an_agent_that_dies_holds_up_nobody(cli: Any, agent: Any) -> None:
    """Its output is not to be had, for longer than a restart takes: that of the other agent comes meanwhile, and once
    its execution counts as lost the run ends with that."""
    both = [execution(status="running"), execution("1-two", node_name="two", status="running")]
    script(
        agent,
        lambda: (agent.executions.extend(both), agent.outputs.update({"1-one": b"a\n"})),
        lambda: agent.will_answer("GET", "/v1/executions/hello/1-one/output", *[refused(503, "no_leader")] * 3),
        lambda: agent.outputs.update({"1-two": b"b\n"}),
        lambda: (
            agent.executions[0].update(status="lost", exit_code=None),
            agent.executions[1].update(status="success"),
        ),
    )
    result = cli("run", "hello", "--wait")
    assert (result.exit_code, result.stdout) == (1, "one: a\ntwo: b\n")
    said = "one: the rest of the output is not to be had; meshcron output hello 1-one may show it later\n"
    assert result.stderr == said + "one: lost, attempt 1\n"
    assert [each.path for each in agent.requests].count("/v1/runs/run-1") == 4


def test_wait_gives_up_and_says_that_the_job_runs_on(cli: Any, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers for too long: code 4, and how to go on watching."""
    monkeypatch.setattr(client, "RESTART_SECONDS", 0.0)
    monkeypatch.setattr(client, "RETRY_SECONDS", 0.0)
    script(agent, lambda: agent.executions.append(execution(status="running")))
    agent.will_answer("GET", "/v1/runs/run-1", *[refused(503, "no_leader")] * 1_000)
    result = cli("run", "hello", "--wait")
    assert result.exit_code == 4
    assert result.stderr.endswith('; "hello" runs on; meshcron output hello -f shows it\n')


def test_an_interrupt_ends_the_watching_only(cli: Any, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C: code 130; the run goes on, and the person is told how to see or end it."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    script(agent, lambda: agent.executions.append(execution(status="running")))
    monkeypatch.setattr(time, "sleep", interrupted)
    result = cli("run", "hello", "--wait")
    assert result.exit_code == 130
    assert result.stderr == (
        'meshcron: "hello" runs on; meshcron output hello -f shows it, meshcron kill hello ends it\n'
    )


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ({"status": "success", "exit_code": 0}, 0),
        ({"status": "success", "exit_code": 3}, 0),
        ({"status": "failed", "exit_code": 3}, 3),
        ({"status": "failed", "exit_code": 0}, 1),
        ({"status": "failed", "exit_code": None}, 1),
        ({"status": "failed", "exit_code": None, "signal": 11}, 139),
        ({"status": "killed", "exit_code": None, "signal": 9}, 137),
        ({"status": "killed", "exit_code": None}, 1),
        ({"status": "timeout", "exit_code": None, "signal": 15}, 124),
        ({"status": "lost", "exit_code": None}, 1),
        ({"status": "skipped", "exit_code": None}, 1),
    ],
)
def test_exit_codes(ending: dict[str, Any], code: int) -> None:
    """What the shell gets for each way to end."""
    assert exit_code([execution(**ending)]) == code


def test_of_several_the_first_failure_counts() -> None:
    """One bad agent among good ones is a failure."""
    assert (
        exit_code([execution(), execution(status="failed", exit_code=4), execution(status="failed", exit_code=5)]) == 4
    )


def test_decisive_are_those_without_a_later_attempt() -> None:
    """On the same agent its own second attempt stands for the first; with retry_on other, another agent's does."""
    first = [execution("1-one", status="failed"), execution("1-two", node_name="two", status="failed")]
    again = execution("2-two", node_name="two", attempt=2)
    assert [each["id"] for each in decisive([again, *first])] == ["1-one", "2-two"]
    elsewhere = execution("2-three", node_name="three", attempt=2)
    assert [each["id"] for each in decisive([*first, elsewhere])] == ["1-two", "2-three"]
