"""The command line against the real API in a process of its own, with a cluster in memory behind it: do both speak
the same contract? What a real agent does with it is test_real_agent.py's story."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from meshcron.cli.root import root

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "tests" / "unit" / "api" / "api_fake.py"

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def api() -> Iterator[dict[str, str]]:
    """Where the API is and a token of an admin; it ends when its standard input does."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()
        process.wait(10)


@pytest.fixture
def cli(api: dict[str, str]) -> Cli:
    def run(*args: str, code: int = 0, token: str = "") -> Result:
        env = {"MESHCRON_URL": api["url"], "MESHCRON_TOKEN": token or api["token"]}
        result = CliRunner().invoke(root, args, env=env, prog_name="meshcron")
        assert result.exit_code == code, result.output
        assert "defect" not in result.stderr
        return result

    return run


def data(result: Result) -> Any:
    return json.loads(result.stdout)


def test_the_life_of_a_job(cli: Cli) -> None:
    """Every command on jobs and runs understands what the API answers, as a table and as JSON."""
    cli("add", "life", "@every 10s", "--env", "A=1", "--timeout", "90s", "--", "echo", "a b")
    assert data(cli("show", "life", "--json"))["command"] == "echo 'a b'"
    assert data(cli("show", "life", "--json"))["timeout"] == "1m30s"
    assert "life" in cli("ls", "li").stdout
    assert "timeout" in cli("show", "life").stdout
    assert "there is a job" in cli("add", "life", "@daily", "--", "true", code=2).stderr
    assert "holds from" in cli("add", "life", "@daily", "--replace", "--", "true").stdout
    cli("run", "life", "--wait")
    assert "success" in cli("history", "life", "--since", "90000h").stdout
    assert cli("output", "life").stdout == cli("output", "life", "--follow").stdout != ""
    assert "nothing of" in cli("kill", "life", code=3).stderr
    cli("disable", "life")
    assert data(cli("toggle", "life", "--json"))["disabled"] is False
    cli("rm", "life")
    cli("show", "life", code=3)


def test_every_field_is_understood(cli: Cli) -> None:
    """The API takes each option of add."""
    cli(
        *("add", "full", "0 3 * * *", "--tag", "role=web:2", "--tz", "Europe/Berlin", "--concurrency", "forbid"),
        *("--retries", "2", "--retry-delay", "5s", "--retry-backoff", "1.5", "--retry-on", "other", "--user", "nobody"),
        *("--cwd", "/tmp", "--catch-up", "all", "--start-deadline", "2h", "--on-lost", "rerun", "--owner", "Ann"),
        *("--owner-email", "ann@example.org", "--display-name", "Full", "--meta", "team=ops", "--when", "always"),
        *("--success-code", "3", "--nice", "5", "--starts-at", "2030-01-01T00:00:00Z", "--ephemeral", "--disabled"),
        *("--expires-at", "2031-01-01T00:00:00Z", "--no-shell", "--run-now", "--", "true"),
    )
    job = data(cli("show", "full", "--json"))
    expected = {
        "tags": {"role": "web:2"}, "timezone": "Europe/Berlin", "concurrency": "forbid", "retries": 2,
        "retry_delay": "5s", "retry_backoff": 1.5, "retry_on": "other", "run_as_user": "nobody", "cwd": "/tmp",
        "catch_up": "all", "start_deadline": "2h0m0s", "on_lost": "rerun", "owner": "Ann",
        "owner_email": "ann@example.org", "displayname": "Full", "metadata": {"team": "ops"}, "when": "always",
        "success_exit_codes": [3], "nice": 5, "starts_at": "2030-01-01T00:00:00Z",
        "expires_at": "2031-01-01T00:00:00Z", "ephemeral": True, "disabled": True, "shell": False,
    }  # fmt: skip
    assert {key: job[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ["add", "a/b", "@daily", "--", "true"],
            "name: holds '/', which no name may; 1-128 bytes of letters, digits, _ - . and no dot at the front",
        ),
        (
            ["add", "x", "@daily", "--tag", "role=web:0", "--", "true"],
            "tags.role: 'web:0' ends in no count; \"web:2\"; 1 to 1000000",
        ),
        (
            ["add", "x", "@daily", "--env", "MESHCRON_JOB=x", "--", "true"],
            "env.MESHCRON_JOB: names that start with MESHCRON_ are set by the agent; rename it",
        ),
        (
            ["history", "--since", "soon"],
            '--since: "soon" is no time; say 2h (that long ago) or 2030-01-31T12:00:00Z',
        ),
        (["add", "x", "60 * * * *", "--", "true"], "schedule: minute 60 is above 59 (column 3); 0-59"),
    ],
)
def test_refusals_name_the_field(cli: Cli, args: list[str], line: str) -> None:
    """What the API or the command itself refuses is one line with its field once, and code 2."""
    assert cli(*args, code=2).stderr == f"meshcron: {line}\n"


def test_tokens_and_roles(cli: Cli) -> None:
    """A viewer's token looks and no more; a removed one is refused."""
    secret = cli("token", "add", "looker", "--expires", "1d").stdout.strip()
    cli("ls", token=secret)
    assert "editor" in cli("add", "x", "@daily", "--", "true", token=secret, code=5).stderr
    assert "looker" in cli("token", "list").stdout
    cli("token", "rm", "looker")
    cli("ls", token=secret, code=5)


def test_the_cluster(cli: Cli) -> None:
    """Status and members, as a table and as JSON."""
    assert "ready" in cli("status").stdout
    assert data(cli("status", "--json"))["ready"] is True
    assert "leader" in cli("members").stdout
    assert len(data(cli("members", "--json"))) == 2
