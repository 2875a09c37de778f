"""ls, show, rm, toggle, enable, disable against an agent that has a few jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest


def with_jobs(agent: Any, *names: str, **more: Any) -> None:
    for name in names:
        agent.jobs[name] = agent_job(name, **more)


def agent_job(name: str, **more: Any) -> dict[str, Any]:
    never = "0001-01-01T00:00:00Z"
    return {
        "name": name,
        "schedule": "@every 10s",
        "timezone": "",
        "command": "true",
        "disabled": False,
        "tags": {},
        "status": "",
        "next": never,
        "last_success": never,
        "last_error": never,
        "success_count": 0,
        "error_count": 0,
        **more,
    }


def test_ls_without_jobs_says_how_to_make_one(cli: Any) -> None:
    """A new cluster: stdout stays empty for pipes, the person is told what to type."""
    result = cli("ls")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "no jobs yet: meshcron add hello '@every 10s' -- echo hello\n"


def test_ls_json_without_jobs_is_an_empty_list(cli: Any) -> None:
    """Programs get the API's own answer."""
    result = cli("ls", "--json")
    assert (result.exit_code, json.loads(result.stdout), result.stderr) == (0, [], "")


def test_ls_shows_state_and_place(cli: Any, agent: Any) -> None:
    """One line a job, by name; a disabled one says so, tags say where."""
    with_jobs(agent, "b", status="failed", error_count=3, tags={"role": "web:1"})
    with_jobs(agent, "a", disabled=True, status="success", last_success="2026-01-31T12:00:00Z", success_count=12)
    result = cli("ls", "--utc")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["NAME", "SCHEDULE", "STATE", "NEXT", "LAST", "RUN", "OK", "FAILED", "WHERE"],
        ["a", "@every", "10s", "disabled", "-", "2026-01-31", "12:00:00Z", "12", "0", "every", "agent"],
        ["b", "@every", "10s", "failed", "-", "-", "0", "3", "role=web:1"],
    ]


def test_ls_asks_the_agent_to_filter(cli: Any, agent: Any) -> None:
    """Filters become the API's own, encoded."""
    result = cli("ls", "back", "--tag", "role=a b&c", "--status", "failed", "--disabled")
    assert agent.requests[-1].query == {
        "tags[role]": ["a b&c"],
        "q": ["back"],
        "status": ["failed"],
        "disabled": ["true"],
    }
    assert result.stderr == "no job is like that: meshcron ls\n"


def test_show_lists_what_is_set(cli: Any, agent: Any) -> None:
    """Defaults are left out, times are readable, tags are words."""
    with_jobs(
        agent,
        "a",
        owner="Ann",
        retries=2,
        env={"A": "1"},
        shell=True,
        cwd="",
        timeout="0s",
        limits={"memory": 0},
        last_error="2026-01-31T12:00:00Z",
    )
    result = cli("show", "a", "--utc")
    assert result.exit_code == 0
    shown = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert shown["where"] == "every agent"
    assert shown["owner"] == "Ann"
    assert shown["env"] == "A=1"
    assert shown["shell"] == "yes"
    assert shown["last_error"].startswith("2026-01-31 12:00:00Z (")
    assert shown["runs"] == "0 succeeded, 0 failed"
    assert not shown.keys() & {"cwd", "next", "limits", "timeout"}


@pytest.mark.parametrize(
    "command", ["show", "rm", "toggle", "enable", "disable", "run", "history", "output", "kill", "next"]
)
def test_an_unknown_job_is_named_with_its_nearest(cli: Any, agent: Any, command: str) -> None:
    """Every command that takes a NAME answers a wrong one alike, with code 3."""
    with_jobs(agent, "backup", "report")
    result = cli(command, "bakup")
    assert result.exit_code == 3
    assert result.stderr == 'meshcron: no job named "bakup", did you mean "backup"?\n'


def test_an_unknown_job_unlike_any_other(cli: Any) -> None:
    """Nothing is alike: the message says how to see what there is."""
    result = cli("show", "x")
    assert result.exit_code == 3
    assert result.stderr == "meshcron: no job named 'x'; \"meshcron ls\" lists the jobs\n"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/b", "/v1/jobs/a%2Fb"),
        ("..", "/v1/jobs/%2E%2E"),
        ("a b?c#d", "/v1/jobs/a%20b%3Fc%23d"),
        ("nächtlich", "/v1/jobs/n%C3%A4chtlich"),
        ("100%", "/v1/jobs/100%25"),
    ],
)
def test_names_are_encoded_whole(cli: Any, agent: Any, name: str, path: str) -> None:
    """No name, however odd, becomes another path, a query or a traversal."""
    cli("show", name)
    assert agent.requests[0].path == path


def test_rm_removes_each(cli: Any, agent: Any) -> None:
    """Several names in one go, each confirmed."""
    with_jobs(agent, "a", "b", "c")
    result = cli("rm", "a", "b")
    assert (result.exit_code, result.stdout) == (0, 'removed "a"\nremoved "b"\n')
    assert list(agent.jobs) == ["c"]


def test_rm_removes_the_others_where_one_is_missing(cli: Any, agent: Any) -> None:
    """Code 3, and each missing one is named."""
    with_jobs(agent, "backup", "b", "c")
    result = cli("rm", "x", "b", "bakup", "c")
    assert (result.exit_code, result.stdout) == (3, 'removed "b"\nremoved "c"\n')
    assert result.stderr == 'meshcron: no job named "x", "bakup"; "meshcron ls" lists the jobs\n'
    agent.jobs["b"] = agent.jobs["backup"] | {"name": "b"}
    result = cli("rm", "bakup", "b", "--json")
    assert (result.exit_code, [job["name"] for job in json.loads(result.stdout)]) == (3, ["b"])
    assert result.stderr == 'meshcron: no job named "bakup", did you mean "backup"?\n'
    assert list(agent.jobs) == ["backup"]


def test_rm_says_what_still_runs(cli: Any, agent: Any) -> None:
    """A removed job's open runs go on; their ids are named."""
    with_jobs(agent, "a")
    reply = type(
        "Reply", (), {"status": 200, "value": agent.jobs["a"], "headers": {"X-Meshcron-Open": "17-one,18-zw%C3%B6lf"}}
    )
    agent.will_answer("DELETE", "/v1/jobs/a", reply())
    assert cli("rm", "a").stdout == 'removed "a"; still running: 17-one, 18-zwölf\n'


def test_enable_and_disable_are_idempotent(cli: Any, agent: Any) -> None:
    """Asked twice, the second asks the agent for nothing; toggle always turns."""
    with_jobs(agent, "a")
    assert cli("disable", "a").stdout == '"a" is disabled\n'
    assert cli("disable", "a").stdout == '"a" is disabled\n'
    assert cli("enable", "a").stdout == '"a" is enabled, next -\n'
    assert cli("toggle", "a").stdout == '"a" is disabled\n'
    assert [each.path for each in agent.requests if each.method == "POST"] == ["/v1/jobs/a/toggle"] * 3


def test_two_disable_a_job_at_the_same_time(cli: Any, agent: Any) -> None:
    """Both have read that it is enabled: the second reads again instead of enabling it."""
    with_jobs(agent, "a")

    def other(_: Any) -> None:
        agent.on_read = lambda _: None
        agent.toggle("a")

    agent.on_read = other
    assert cli("disable", "a").stdout == '"a" is disabled\n'
    assert agent.jobs["a"]["disabled"] is True
    agent.on_read = other
    assert cli("toggle", "a").stdout == '"a" is disabled\n'


def test_a_job_that_is_changed_all_the_time_is_given_up(cli: Any, agent: Any) -> None:
    """With the agent's own word, after a few tries."""
    with_jobs(agent, "a", disabled=True)
    agent.on_read = lambda _: (agent.toggle("a"), agent.toggle("a"))
    result = cli("enable", "a")
    assert (result.exit_code, result.stderr) == (2, "meshcron: the job is at another revision\n")
    assert len(agent.requests) == 10
