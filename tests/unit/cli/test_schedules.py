"""next and explain: schedules without an agent, jobs with one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from meshcron.cli.times import NEVER, iso
from tests.unit.cli.conftest import make_job

NO_AGENT = {"MESHCRON_URL": "http://127.0.0.1:1"}


def test_explain_needs_no_agent(cli: Any) -> None:
    """Words, zone and the next ticks, all computed here."""
    result = cli("explain", "0 3 * * *", "--tz", "Europe/Berlin", "-n", "2", "--utc", env=NO_AGENT)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].endswith("(time zone Europe/Berlin)")
    assert "03:00" in lines[0]
    assert len(lines) == 3


def test_explain_json(cli: Any) -> None:
    """The shape of GET /v1/explain."""
    found = json.loads(cli("explain", "@hourly", "-n", "3", "--json", env=NO_AGENT).stdout)
    assert found["schedule"] == "@hourly"
    assert found["timezone"] == "UTC"
    assert len(found["next"]) == 3
    assert all(tick.endswith(":00:00Z") for tick in found["next"])


@pytest.mark.parametrize("command", ["explain", "next"])
@pytest.mark.parametrize(
    ("schedule", "words"),
    [("61 * * * *", "column 1"), ("0 0 30 2 *", "never fires"), ("@evry 5s", "@evry"), ("* * *", "fields")],
)
def test_a_wrong_schedule_is_explained(cli: Any, command: str, schedule: str, words: str) -> None:
    """Code 2, what is wrong and where, in one line."""
    result = cli(command, schedule, env=NO_AGENT)
    assert result.exit_code == 2
    assert result.stderr.startswith("meshcron: schedule: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_word_is_no_schedule(cli: Any) -> None:
    """`explain daily`: the forms there are, rather than a lesson on fields."""
    result = cli("explain", "daily", env=NO_AGENT)
    assert result.exit_code == 2
    assert '"daily" is not a schedule' in result.stderr


def test_next_of_a_schedule_needs_no_agent(cli: Any) -> None:
    """As many ticks as asked for, one a line."""
    result = cli("next", "@minutely", "-n", "4", env=NO_AGENT)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 4


def test_next_of_a_schedule_looks_for_no_agent(cli: Any, tmp_path: Path) -> None:
    """Not even where a directory was named in which none runs; a NAME is refused there."""
    env = {"MESHCRON_URL": "", "MESHCRON_DATA_DIR": str(tmp_path)}
    assert cli("next", "@minutely", env=env).exit_code == 0
    assert cli("next", "a", env=env).exit_code == 4


def test_next_of_a_manual_schedule(cli: Any) -> None:
    """No tick is not an error."""
    result = cli("next", "@manually", env=NO_AGENT)
    assert (result.exit_code, result.stdout) == (0, "")


def test_next_of_a_job_keeps_its_phase(cli: Any, agent: Any) -> None:
    """The first tick is the cluster's own word; those of @every follow at its distance."""
    first_us = (time.time_ns() // 10**9 + 7) * 10**6
    agent.jobs["a"] = make_job("a", next=iso(first_us))
    ticks = json.loads(cli("next", "a", "-n", "3", "--json").stdout)
    assert ticks == [iso(first_us + k * 10_000_000) for k in range(3)]


def test_next_of_a_job_that_expires(cli: Any, agent: Any) -> None:
    """No tick after, one at that very instant; of one that has none left it is said why."""
    first_us = (time.time_ns() // 10**9 + 7) * 10**6
    ticks = [iso(first_us + k * 10_000_000) for k in range(3)]
    agent.jobs["a"] = make_job("a", next=ticks[0], expires_at=ticks[2])
    assert json.loads(cli("next", "a", "--json").stdout) == ticks
    agent.jobs["a"]["expires_at"] = iso(first_us + 19_999_999)
    assert json.loads(cli("next", "a", "--json").stdout) == ticks[:2]
    agent.jobs["a"] |= {"next": NEVER, "expires_at": "2026-01-31T12:00:00Z"}
    result = cli("next", "a", "--utc")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith('"a" has no tick up to its expires_at, 2026-01-31 12:00:00Z (')
    assert result.stderr.endswith("): meshcron run a runs it now\n")


def test_next_of_a_disabled_job(cli: Any, agent: Any) -> None:
    """Why there is none, and how to change it."""
    agent.jobs["a"] = make_job("a", disabled=True)
    assert cli("next", "a").stderr == '"a" is disabled: meshcron enable a\n'


def test_next_of_a_job_without_an_agent(cli: Any) -> None:
    """A NAME needs an agent: code 4."""
    result = cli("next", "a", env=NO_AGENT)
    assert result.exit_code == 4
    assert result.stderr == 'meshcron: no agent answers at http://127.0.0.1:1; start one with "meshcron up"\n'
