"""status and members."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def member(name: str, **more: Any) -> dict[str, Any]:
    return {
        "Name": name,
        "Addr": "10.0.0.1",
        "Port": 8947,
        "Tags": {},
        "Status": 1,
        "voter": True,
        "leader": False,
        "version": "0.1.0",
        "running": 0,
        "clock_skew_ms": 3,
        **more,
    }


def test_status_in_words(cli: Any, agent: Any) -> None:
    """Who, where, how many, and whether it can take a write."""
    agent.mesh = {"leader": "one", "term": 4, "jobs": 7, "cluster": "c1", "fingerprint": "ab", "encrypted": True}
    agent.mesh["applied_index"] = 9
    agent.members = [member("one", leader=True, running=2), member("two", Status=4), member("three", voter=False)]
    result = cli("status")
    assert result.exit_code == 0
    shown = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert shown == {
        "agent": f"one (meshcron 0.1.0) at {agent.url}",
        "state": "ready",
        "leader": "one",
        "term": "4",
        "members": "3 (2 alive, 1 failed; 2 voters)",
        "jobs": "7",
        "running": "2",
        "tags": "role=db",
        "cluster": "c1",
        "fingerprint": "ab",
    }
    agent.mesh |= {"jobs": 0, "applied_index": 0}
    assert "jobs" not in cli("status").stdout  # an agent without the log does not know


def test_status_without_a_leader(cli: Any, agent: Any) -> None:
    """It is not waited for, and shown in full; the code is 4, for scripts; warnings go to stderr."""
    agent.mesh = {"leader": "", "paused": True, "encrypted": False, "warnings": ["the API is open"]}
    error = {"code": "no_leader", "message": "no quorum: 1 of 3 voters", "hint": ""}
    reply = type("R", (), {"status": 503, "value": {"error": error}, "headers": {}})()
    agent.will_answer("GET", "/ready", reply, reply)
    result = cli("status")
    assert result.exit_code == 4
    assert "state       not ready: no quorum: 1 of 3 voters\n" in result.stdout
    assert "leader      nobody\n" in result.stdout
    assert "scheduling  paused for the whole cluster\n" in result.stdout
    assert result.stderr == "warning: the API is open\n"
    result = cli("status", "--json")
    page = json.loads(result.stdout)
    assert (result.exit_code, page["ready"], page["reason"]) == (4, False, "no quorum: 1 of 3 voters")


def test_status_without_the_log_and_without_a_leader(cli: Any, agent: Any) -> None:
    """Nobody can judge the token: at once, with why there is no leader."""
    for path, message in (("/ready", "no majority of the voters: two not heard for 9 s"), ("/v1/", "no leader")):
        error = {"code": "no_leader", "message": message, "hint": ""}
        reply = type("R", (), {"status": 503, "value": {"error": error}, "headers": {}})()
        agent.will_answer("GET", path, reply)
    result = cli("status")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == "meshcron: not ready: no majority of the voters: two not heard for 9 s\n"


def test_status_json_adds_readiness(cli: Any, agent: Any) -> None:
    """The API's status page, and whether it is ready."""
    page = json.loads(cli("status", "--json").stdout)
    assert page["agent"] == {"name": "one", "version": "0.1.0"}
    assert page["ready"] is True


def test_members(cli: Any, agent: Any) -> None:
    """One line a member, by name; IPv6 in brackets, a clock that is off is said."""
    agent.members = [
        member("two", Status=4, voter=False, Addr="fe80::1", clock_skew_ms=-300, Tags={"role": "web"}),
        member("one", leader=True, running=2),
    ]
    lines = [line.split() for line in cli("members").stdout.splitlines()]
    assert lines == [
        ["NAME", "STATE", "ROLE", "ADDRESS", "RUNNING", "CLOCK", "VERSION", "TAGS"],
        ["one", "alive", "leader", "10.0.0.1:8947", "2", "ok", "0.1.0", "-"],
        ["two", "failed", "agent", "[fe80::1]:8947", "0", "-300", "ms", "0.1.0", "role=web"],
    ]


def test_rm_of_an_unknown_member(cli: Any, agent: Any) -> None:
    """Code 3, and the name that was meant, or where to look."""
    agent.members = [member("backup"), member("two")]
    for name, line in {
        "bakup": 'no member named "bakup", did you mean "backup"?',
        "x": 'no member named "x"; "meshcron members" lists them',
    }.items():
        error = {"code": "not_found", "message": f"no member named {name!r}", "field": "", "hint": ""}
        reply = type("R", (), {"status": 404, "value": {"error": error}, "headers": {}})()
        agent.will_answer("DELETE", f"/v1/members/{name}", reply)
        result = cli("members", "rm", name)
        assert (result.exit_code, result.stderr) == (3, f"meshcron: {line}\n")


@pytest.mark.parametrize(
    "options", [["--url", "http://other:8080"], ["--token-file", "t"], ["--data-dir", "d"], ["--json"], ["--utc"]]
)
def test_an_option_of_the_list_before_rm_is_refused(cli: Any, agent: Any, options: list[str]) -> None:
    """The agent meant by it would not be asked, but the one at hand, which would remove its own member for good."""
    result = cli("members", *options, "rm", "two")
    line = f'meshcron: put {options[0]} behind rm; see "meshcron members --help"\n'
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", line)
    assert agent.requests == []


def test_rm_looks_for_its_own_agent_only(cli: Any, agent: Any, tmp_path: Path) -> None:
    """The list's would be in a directory without an agent."""
    reply = type("R", (), {"status": 200, "value": {"name": "two"}, "headers": {}})
    agent.will_answer("DELETE", "/v1/members/two", reply())
    env = {"MESHCRON_URL": "", "MESHCRON_DATA_DIR": str(tmp_path)}
    result = cli("members", "rm", "two", "--url", agent.url, env=env)
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_lonely_agent_is_told_how_to_get_company(cli: Any) -> None:
    """One member: the next step, on stderr."""
    result = cli("members")
    assert "one agent only" in result.stderr
    assert "meshcron key show --secret" in result.stderr


def test_two_agents_with_one_vote_are_told_of_a_third(cli: Any, agent: Any) -> None:
    """They look safe. One short line on stderr, which a program never sees; none where no agent or two vote,
    or where one is about to go."""
    said = 'two agents, and only "one" votes: while it is down the other one starts nothing new; with a third agent'
    for votes, told in (((True, False), 1), ((True, True), 0), ((False, False), 0), ((True, False, False), 0)):
        agent.members = [member(name, voter=vote) for name, vote in zip(("one", "two", "three"), votes, strict=False)]
        for command in ("status", "members"):
            assert cli(command).stderr.count(said) == told
            assert cli(command, "--json").stderr == ""
    agent.members = [member("one"), member("two", Status=2, voter=False)]
    assert said not in cli("members").stderr


def test_who_leaves_is_told_to_ask_the_others(cli: Any, agent: Any) -> None:
    """Removed, an agent hears of nothing any more. Whoever removes another one is told of the key that stays there."""
    reply = type("R", (), {"status": 200, "value": {"name": "two"}, "headers": {}})
    agent.will_answer("POST", "/v1/leave", reply())
    agent.will_answer("DELETE", "/v1/members/two", reply())
    said = 'two is leaving; once it is gone from "meshcron members" on another machine, end its agent\n'
    assert cli("leave").stdout == said
    key = "Its machine still knows the cluster key, and may join again with it.\n"
    assert cli("members", "rm", "two").stdout == said + key


def test_a_worker_is_told_how_it_is_taken_out(cli: Any, agent: Any) -> None:
    """Its own token is no admin's."""
    error = {"code": "forbidden", "message": "this needs a token with the role admin", "field": "", "hint": ""}
    reply = type("R", (), {"status": 403, "value": {"error": error}, "headers": {}})
    agent.will_answer("POST", "/v1/leave", reply())
    result = cli("leave")
    said = "this needs a token with the role admin"
    said += '; "meshcron members rm NAME" on another machine takes this one out as well'
    assert (result.exit_code, result.stderr) == (5, f"meshcron: {said}\n")
