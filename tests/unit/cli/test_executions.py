"""history, output, kill."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshcron.api.executions import WAITING
from meshcron.cli import executions
from meshcron.cli.executions import LOOKED_AT, OPEN, STATUSES
from meshcron.model import Status

NEVER = "0001-01-01T00:00:00Z"


def execution(ident: str, **more: Any) -> dict[str, Any]:
    return {
        "id": ident,
        "job_name": "hello",
        "run_id": "run-1",
        "started_at": "2026-01-31T12:00:00Z",
        "finished_at": "2026-01-31T12:00:01.5Z",
        "scheduled_at": "2026-01-31T12:00:00Z",
        "node_name": "one",
        "attempt": 1,
        "status": "success",
        "reason": "",
        "trigger": "schedule",
        "exit_code": 0,
        "signal": None,
        "duration_ms": 1500,
        "count": 1,
        **more,
    }


@pytest.fixture(autouse=True)
def a_job(agent: Any) -> None:
    agent.jobs["hello"] = {"name": "hello", "status": ""}


def rows(output: str) -> list[list[str]]:
    """The cells of a table, split where two blanks or more stand."""
    return [[cell for cell in line.replace("  ", "\0").split("\0") if cell] for line in output.splitlines()]


def test_history_of_nothing(cli: Any) -> None:
    """Nothing has run: stdout is empty, the person is told how to begin."""
    result = cli("history")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing has run yet: meshcron run NAME\n")
    assert cli("history", "hello").stderr == "nothing has run yet: meshcron run hello\n"
    assert json.loads(cli("history", "--json").stdout) == []


@pytest.mark.parametrize("filters", [["--agent", "nobody"], ["--status", "lost"], ["--since", "2h"]])
def test_history_of_nothing_that_matches(cli: Any, filters: list[str]) -> None:
    """Something may have run all the same: it is not called nothing."""
    assert cli("history", *filters).stderr == "nothing that ran is like that: meshcron history\n"
    assert cli("history", "hello", *filters).stderr == "nothing that ran is like that: meshcron history hello\n"


@pytest.mark.parametrize("since", ["5", "yesterday", ""])
def test_history_since_no_time(cli: Any, since: str) -> None:
    """Code 2, with an example of each that would do."""
    result = cli("history", "--since", since)
    said = f'meshcron: --since: "{since}" is no time; say 2h (that long ago) or 2030-01-31T12:00:00Z\n'
    assert (result.exit_code, result.stderr) == (2, said)


def test_history_shows_how_each_ended(cli: Any, agent: Any) -> None:
    """One line an execution; what never started shows when it was due and why it did not."""
    agent.executions = [
        execution("3-one", status="failed", exit_code=7),
        execution("2-one", status="timeout", exit_code=None, signal=15),
        execution(
            "1-none", status="skipped", started_at=NEVER, finished_at=NEVER, node_name="", exit_code=None, count=4,
            reason="overlap", duration_ms=0,
        ),
    ]  # fmt: skip
    result = cli("history", "--utc")
    titles, *lines = [[cell.strip() for cell in row] for row in rows(result.stdout)]
    assert titles == ["WHEN", "JOB", "AGENT", "STATE", "EXIT", "TOOK", "BY", "ID", "REASON"]
    assert [line[0].split(" (")[0] for line in lines] == ["2026-01-31 12:00:00Z"] * 3
    assert [line[1:] for line in lines] == [
        ["hello", "one", "failed", "7", "1.5s", "schedule", "3-one", "-"],
        ["hello", "one", "timeout", "signal 15", "1.5s", "schedule", "2-one", "-"],
        ["hello", "-", "skipped", "-", "-", "schedule", "1-none", "overlap (4 ticks)"],
    ]


def test_history_asks_for_what_was_wanted(cli: Any, agent: Any) -> None:
    """Filters and length are the agent's to apply: it may hold millions."""
    cli("history", "hello", "-n", "5", "--status", "failed", "--agent", "two", "--since", "2030-01-01T00:00:00Z")
    assert agent.requests[-1].path == "/v1/history"
    assert agent.requests[-1].query == {
        "job": ["hello"],
        "status": ["failed"],
        "agent": ["two"],
        "_start": ["0"],
        "_end": ["5"],
        "since": ["2030-01-01T00:00:00Z"],
        "output_size_limit": ["0"],
    }


def test_output_is_the_jobs_own_bytes(cli: Any, agent: Any) -> None:
    """Of the last execution that had any, unchanged, also where it is no text."""
    none_yet = [execution(f"3-{word}", status=word) for word in ("armed", "waiting", "skipped")]
    agent.executions = [*none_yet, execution("2-one"), execution("1-one")]
    agent.outputs["2-one"] = b"\xff\x00\x1b[31mred\n no newline"
    result = cli("output", "hello")
    assert result.exit_code == 0
    assert result.stdout_bytes == agent.outputs["2-one"]
    agent.outputs["1-one"] = b"older\n"
    assert cli("output", "hello", "1-one").stdout == "older\n"


@pytest.mark.parametrize("status", ["skipped", "armed", "waiting"])
@pytest.mark.parametrize("before", [LOOKED_AT - 1, LOOKED_AT, 2 * LOOKED_AT + 1])
def test_output_of_what_started_long_ago(cli: Any, agent: Any, status: str, before: int) -> None:
    """It runs on while tick after tick is skipped, or every agent has its next ones armed. Where it is none of the
    job's, the search ends with the list."""
    agent.executions = [*(execution(f"{n}-one", status=status) for n in range(before)), execution("1-one")]
    agent.outputs["1-one"] = b"still at it\n"
    assert cli("output", "hello").stdout == "still at it\n"
    del agent.executions[-1]
    assert cli("output", "hello").exit_code == 3


def test_output_of_what_was_asked_for_and_waits(cli: Any, agent: Any) -> None:
    """Right after `run`, with no free slot: the output is an earlier one's, which is said. The next tick that a
    schedule has armed is no news."""
    ticks = [execution("5-one", status="armed"), execution("4-one", status="skipped", trigger="manual")]
    agent.executions = [*ticks, execution("1-one")]
    agent.outputs["1-one"] = b"older\n"
    result = cli("output", "hello")
    assert (result.stdout, result.stderr) == ("older\n", "")
    agent.executions[1:1] = [execution(f"{n}-one", status="waiting", trigger="manual") for n in (3, 2)]
    result = cli("output", "hello")
    assert (result.stdout, result.stderr) == ("older\n", "3-one has not started yet; 1-one wrote:\n")


def test_output_follow_asks_to_follow(cli: Any, agent: Any) -> None:
    """--follow is one long answer of the agent's."""
    agent.executions = [execution("2-one", status="running")]
    agent.outputs["2-one"] = b"so far\n"
    assert cli("output", "hello", "--follow").stdout == "so far\n"
    assert agent.requests[-1].query == {"offset": ["0"], "follow": ["true"]}


def test_output_as_json(cli: Any, agent: Any) -> None:
    """The execution as the API shows it, its output in it; with --follow once nothing more will come."""
    agent.executions = [execution("2-one", output="a\n")]
    agent.outputs["2-one"] = b"a\n"
    assert json.loads(cli("output", "hello", "--json").stdout) == agent.executions[0]
    assert agent.requests[-1].path == "/v1/executions/hello/2-one"
    assert json.loads(cli("output", "hello", "--json", "--follow").stdout) == agent.executions[0]
    assert agent.requests[-2].query == {"offset": ["0"], "follow": ["true"]}


def test_output_as_json_waits_for_the_record(cli: Any, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --follow: the output is at its end, and that the execution is, too, is committed a little later. Without, it
    is shown as it is."""
    monkeypatch.setattr(executions, "RETRY_SECONDS", 0)
    running, over = execution("2-one", status="running"), execution("2-one")
    agent.executions = [running]
    shown = [type("Reply", (), {"status": 200, "value": each, "headers": {}})() for each in (running, running, over)]
    agent.will_answer("GET", "/v1/executions/hello/2-one", *shown)
    assert json.loads(cli("output", "hello", "--json").stdout) == running
    assert json.loads(cli("output", "hello", "--json", "--follow").stdout) == over


def test_output_of_a_job_that_never_ran(cli: Any, agent: Any) -> None:
    """There is nothing to print: code 3 and what to do."""
    agent.executions = [execution("3-none", status="skipped")]
    result = cli("output", "hello")
    assert result.exit_code == 3
    assert result.stderr == 'meshcron: "hello" has not run yet; meshcron run hello\n'


def test_an_unknown_execution(cli: Any) -> None:
    """A wrong ID is not a wrong job."""
    result = cli("output", "hello", "9-x")
    assert result.exit_code == 3
    assert result.stderr == "meshcron: no execution named '9-x'; \"meshcron history\" lists the executions\n"


def test_kill_ends_what_is_open(cli: Any, agent: Any) -> None:
    """Without an ID all that is open of the job is killed, and nothing else."""
    agent.executions = [
        execution("4-one", status="running"),
        execution("4-two", status="armed", node_name="two"),
        execution("4-six", status="waiting", node_name="six", run_id="run-2"),
        execution("3-one"),
    ]
    result = cli("kill", "hello")
    assert (result.exit_code, result.stdout) == (0, "killed 4-one\nkilled 4-two\nkilled 4-six\n")
    assert [each["status"] for each in agent.executions] == ["killed", "killed", "killed", "success"]


def test_kill_ends_what_waits(cli: Any, agent: Any) -> None:
    """Between two attempts nothing runs, and a run in the queue has nothing yet: both are killed, and before what runs,
    in whose place they would start."""
    agent.waiting = ["run-8", "run-9"]
    agent.executions = [execution("4-one", status="running")]
    result = cli("kill", "hello", "--json")
    assert json.loads(result.stdout) == [
        {"run_id": "run-8", "executions": []},
        {"run_id": "run-9", "executions": []},
        {"run_id": "run-1", "executions": ["4-one"]},
    ]
    agent.waiting = ["run-9"]
    result = cli("kill", "hello")
    assert (result.exit_code, result.stdout) == (0, "killed run run-9, which waited\n")


def test_kill_of_what_ends_meanwhile(cli: Any, agent: Any) -> None:
    """One of two runs is over before it can be killed: the other one is, and that is enough."""
    agent.waiting = ["run-9"]
    agent.executions = [execution("4-one", status="running")]
    gone = {"error": {"code": "unknown_execution", "message": "no execution named 'run-9'"}}
    agent.will_answer("POST", "/v1/runs/run-9/kill", type("R", (), {"status": 404, "value": gone, "headers": {}})())
    result = cli("kill", "hello")
    assert (result.exit_code, result.stdout) == (0, "killed 4-one\n")


def test_kill_one(cli: Any, agent: Any) -> None:
    """With an ID only that one."""
    agent.executions = [execution("4-one", status="running"), execution("4-two", status="running")]
    assert cli("kill", "hello", "4-two").stdout == "killed 4-two\n"
    assert [each["status"] for each in agent.executions] == ["running", "killed"]


def test_kill_one_that_has_ended(cli: Any, agent: Any) -> None:
    """It is not killed any more: its retry is given up; where none waits, code 3 as with nothing running."""
    agent.executions = [execution("4-one", status="failed")]
    agent.waiting = ["run-1"]
    result = cli("kill", "hello", "4-one")
    assert (result.exit_code, result.stdout) == (0, "4-one has ended; its retry was given up\n")
    agent.waiting = []
    result = cli("kill", "hello", "4-one")
    said = "meshcron: the execution '4-one' has ended; \"meshcron history hello\" shows how\n"
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", said)


def test_kill_with_nothing_running(cli: Any, agent: Any) -> None:
    """Nothing to kill is said, with code 3."""
    agent.executions = [execution("3-one")]
    result = cli("kill", "hello")
    assert result.exit_code == 3
    assert result.stderr == 'meshcron: nothing of "hello" is running; "meshcron history hello" shows what ran\n'


def test_the_states_are_the_models() -> None:
    """The words are repeated for a fast start; here they are held to the one place that defines them."""
    assert set(STATUSES) == {*Status, WAITING}
    assert set(OPEN) == {status for status in Status if not status.final} | {WAITING}
