"""add: what of the command line reaches the job, and what is refused before anything is stored."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.api.app import refusal
from meshcron.cli import add
from meshcron.cli.add import command_line
from meshcron.errors import Conflict, InvalidRequest, InvalidSchedule, MeshcronError, PreconditionFailed, TooLarge
from meshcron.model import Job


def stored(agent: Any, name: str = "hello") -> dict[str, Any]:
    """The body of the last request that writes."""
    posts = [each for each in agent.requests if each.method == "POST"]
    assert posts[-1].body["name"] == name
    return {key: value for key, value in posts[-1].body.items() if key != "name"}


def test_the_shortest_add(cli: Any, agent: Any) -> None:
    """Only what was said is sent: all else is the agent's default. Without tags it runs on every agent, said so."""
    result = cli("add", "hello", "@every 10s", "--", "echo", "hello")
    assert result.exit_code == 0
    assert stored(agent) == {"schedule": "@every 10s", "command": "echo hello"}
    assert result.stdout == 'added "hello" on every agent (--one for a single one), next -\n'


def test_every_option_reaches_its_field(cli: Any, agent: Any) -> None:
    """Each option is the field of the job it is named for."""
    cli(
        *("add", "hello", "0 3 * * *", "--tag", "role=web:2", "--tag", "os=linux", "--tz", "Europe/Berlin"),
        *("--concurrency", "forbid", "--timeout", "10m", "--retries", "2", "--retry-delay", "5s"),
        *("--retry-backoff", "1.5", "--retry-on", "other", "--user", "www", "--env", "A=1=2", "--env", "B="),
        *("--cwd", "/srv", "--catch-up", "all", "--start-deadline", "2h", "--on-lost", "rerun", "--owner", "Ann"),
        *("--owner-email", "ann@x.org", "--display-name", "Hello", "--meta", "team=ops", "--parent", "p1"),
        *("--parent", "p2", "--when", "always", "--success-code", "0", "--success-code", "3", "--nice", "5"),
        *("--starts-at", "2030-01-01T00:00:00Z", "--expires-at", "2031-01-01T00:00:00Z", "--ephemeral"),
        *("--disabled", "--no-shell", "--", "echo"),
    )
    assert stored(agent) == {
        "schedule": "0 3 * * *",
        "command": "echo",
        "tags": {"role": "web:2", "os": "linux"},
        "timezone": "Europe/Berlin",
        "concurrency": "forbid",
        "timeout": "10m",
        "retries": 2,
        "retry_delay": "5s",
        "retry_backoff": 1.5,
        "retry_on": "other",
        "run_as_user": "www",
        "env": {"A": "1=2", "B": ""},
        "cwd": "/srv",
        "catch_up": "all",
        "start_deadline": "2h",
        "on_lost": "rerun",
        "owner": "Ann",
        "owner_email": "ann@x.org",
        "displayname": "Hello",
        "metadata": {"team": "ops"},
        "parent_jobs": ["p1", "p2"],
        "when": "always",
        "success_exit_codes": [0, 3],
        "nice": 5,
        "starts_at": "2030-01-01T00:00:00Z",
        "expires_at": "2031-01-01T00:00:00Z",
        "ephemeral": True,
        "disabled": True,
        "shell": False,
    }


def test_zero_is_said_and_sent(cli: Any, agent: Any) -> None:
    """An option given as 0 is not an option left out."""
    cli("add", "hello", "@daily", "--retries", "0", "--shell", "--", "true")
    assert stored(agent) == {"schedule": "@daily", "command": "true", "retries": 0, "shell": True}


def test_one_word_is_a_shell_line_as_it_stands() -> None:
    """Quoted by the person as one word, pipes and variables mean what they say."""
    assert command_line(("date | wc > $HOME/n",)) == "date | wc > $HOME/n"


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")), min_size=2))
def test_several_words_stay_what_they_are(words: list[str]) -> None:
    """A shell that reads the command sees exactly the words the person's shell handed over."""
    assert shlex.split(command_line(tuple(words))) == words


def test_an_existing_job_is_not_overwritten(cli: Any, agent: Any) -> None:
    """Without --replace the agent is asked to store only where there is none, in one request, without a race."""
    agent.jobs["hello"] = {"name": "hello"}
    result = cli("add", "hello", "@daily", "--", "true")
    assert result.exit_code == 2
    assert result.stderr == 'meshcron: there is a job "hello" already; --replace overwrites it\n'
    assert agent.jobs["hello"] == {"name": "hello"}
    assert agent.requests[-1].headers["If-None-Match"] == "*"


def test_replace_overwrites(cli: Any, agent: Any) -> None:
    """With --replace the new definition counts."""
    agent.jobs["hello"] = {"name": "hello"}
    result = cli("add", "hello", "@daily", "--replace", "--", "true")
    assert result.exit_code == 0
    assert result.stdout.startswith('stored "hello" on every agent')
    assert agent.jobs["hello"]["schedule"] == "@daily"
    assert "If-None-Match" not in agent.requests[-1].headers


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InvalidSchedule("minute 60 is above 59", "0-59", 1), "schedule: minute 60 is above 59 (column 1); 0-59"),
        (
            InvalidRequest("tags.role", "'web:0' ends in no count", "1 to 9"),
            "tags.role: 'web:0' ends in no count; 1 to 9",
        ),
        (TooLarge("command", "makes the job 70000 bytes", "65536"), "command: makes the job 70000 bytes; 65536"),
        (Conflict("name", "the name is taken", "choose another"), "name: the name is taken; choose another"),
        (PreconditionFailed("'hello' is at revision 3, not 2"), "'hello' is at revision 3, not 2"),
    ],
)
def test_the_agents_refusal_names_field_and_remedy(cli: Any, agent: Any, error: MeshcronError, line: str) -> None:
    """What the agent finds wrong is one line, with its field once and its hint, and code 2."""
    told = refusal(error)
    value = {"error": told.error}
    agent.will_answer("POST", "/v1/jobs", type("R", (), {"status": told.status, "value": value, "headers": {}})())
    result = cli("add", "hello", "60 * * * *", "--replace", "--", "true")
    assert result.exit_code == 2
    assert result.stderr == f"meshcron: {line}\n"


def test_a_missing_command_is_explained(cli: Any, agent: Any) -> None:
    """Nothing after --: nothing is sent."""
    result = cli("add", "hello", "@daily")
    assert result.exit_code == 2
    assert result.stderr == (
        'meshcron: the command is missing; it stands at the end, after --; see "meshcron add --help"\n'
    )
    assert agent.requests == []


def test_a_forgotten_dash_dash_is_explained(cli: Any) -> None:
    """`meshcron add x @daily ls -l`: the option belongs to the command, which the person is told to set apart."""
    result = cli("add", "hello", "@daily", "ls", "--color")
    assert result.exit_code == 2
    assert 'no option "--color"' in result.stderr
    assert "put -- before the command" in result.stderr


def test_one_without_tags_counts_a_tag_that_all_have(cli: Any, agent: Any) -> None:
    """`--one`: the tag every agent has by itself, with a count of one, is written out in the job."""
    result = cli("add", "hello", "@daily", "--one", "--", "true")
    assert stored(agent)["tags"] == {"meshcron.os": "linux:1"}
    assert "on meshcron.os=linux:1, next" in result.stdout


def test_one_counts_the_members_that_were_heard(cli: Any, agent: Any) -> None:
    """Of one that is silent since the agent's start nothing is known. The agent itself has its facts, unless it was
    removed meanwhile."""
    silent = {**agent.members[0], "facts": {}}
    agent.members = [silent, silent, *agent.members]
    cli("add", "hello", "@daily", "--one", "--", "true")
    assert stored(agent)["tags"] == {"meshcron.os": "linux:1"}
    agent.members = [silent]
    result = cli("add", "other", "@daily", "--one", "--", "true")
    said = "meshcron: no agent says yet which system it has; try again, or name a --tag\n"
    assert (result.exit_code, result.stderr) == (4, said)


@pytest.mark.parametrize(("tag", "narrowed"), [("role=web", "web:1"), ("role=web:3", "web:1")])
def test_one_with_tags_narrows_them(cli: Any, agent: Any, tag: str, narrowed: str) -> None:
    """`--one --tag role=web` is role=web:1."""
    cli("add", "hello", "@daily", "--one", "--tag", tag, "--", "true")
    assert stored(agent)["tags"] == {"role": narrowed}


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(add, "_on_a_terminal", lambda: True)


@pytest.mark.parametrize(("answer", "tags"), [("one\n", {"meshcron.os": "linux:1"}), ("all\n", None), ("\n", None)])
def test_a_person_is_asked_one_or_all(
    cli: Any, agent: Any, monkeypatch: pytest.MonkeyPatch, answer: str, tags: dict[str, str] | None
) -> None:
    """With several agents and no word on where, a person is asked; "all" is what no answer means."""
    on_a_terminal(monkeypatch)
    agent.members *= 2
    result = cli("add", "hello", "@daily", "--", "true", input=answer)
    assert "run it on one agent, or on all 2?" in result.stderr
    assert stored(agent).get("tags") == tags


@pytest.mark.parametrize("said", [["--all"], ["--one"], ["--tag", "role=web"]])
def test_who_has_said_where_is_not_asked(
    cli: Any, agent: Any, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """Nor is anybody on a cluster of one."""
    on_a_terminal(monkeypatch)
    assert cli("add", "alone", "@daily", "--", "true").stderr == ""
    agent.members *= 2
    assert cli("add", "hello", "@daily", *said, "--", "true").stderr == ""


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        ([], 0, ""),
        (
            ["--payload-file", "-"],
            2,
            "meshcron: cannot read - (standard input is closed); name another --payload-file\n",
        ),
    ],
)
def test_closed_input_is_no_defect(agent: Any, options: list[str], code: int, line: str) -> None:
    """`<&-`: nobody can be asked, and nothing be read."""
    words = [sys.executable, "-m", "meshcron", "add", "hello", "@daily", *options, "--", "true"]
    env = os.environ | {"MESHCRON_URL": agent.url, "MESHCRON_TOKEN": agent.token}
    command = ["/bin/sh", "-c", '"$@" <&-', "sh", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (code, line)


def test_payload_from_a_file_and_from_stdin(cli: Any, agent: Any, tmp_path: Path) -> None:
    """Text goes in as it is; what is no text is refused before anything is stored."""
    file = tmp_path / "payload"
    file.write_text("zwölf\n", encoding="utf-8")
    cli("add", "hello", "@daily", "--payload-file", str(file), "--", "cat")
    assert stored(agent)["payload"] == "zwölf\n"
    cli("add", "hello", "@daily", "--replace", "--payload-file", "-", "--", "cat", input="from stdin")
    assert stored(agent)["payload"] == "from stdin"
    file.write_bytes(b"\xff\xfe")
    before = len(agent.requests)
    assert cli("add", "hello", "@daily", "--payload-file", str(file), "--", "cat").exit_code == 2
    assert cli("add", "hello", "@daily", "--payload-file", str(tmp_path / "none"), "--", "cat").exit_code == 2
    assert len(agent.requests) == before


def test_run_now_and_json(cli: Any, agent: Any) -> None:
    """--run-now is the API's runoncreate; --json prints the stored job."""
    result = cli("add", "hello", "@daily", "--run-now", "--json", "--", "true")
    assert agent.requests[-1].query == {"runoncreate": ["true"]}
    assert json.loads(result.stdout) == agent.jobs["hello"]


def test_replace_says_from_when_it_holds(cli: Any, agent: Any) -> None:
    """Ticks that are armed already run as they were; the answer says from which on the edit holds."""
    stored_job = {"name": "hello", "tags": {"role": "db"}, "disabled": True}
    headers = {"X-Meshcron-From": "2026-01-31T12:00:03Z"}
    agent.will_answer("POST", "/v1/jobs", type("R", (), {"status": 201, "value": stored_job, "headers": headers})())
    result = cli("add", "hello", "@daily", "--replace", "--utc", "--", "true")
    assert result.stdout.startswith('stored "hello" on role=db, disabled; holds from 2026-01-31 12:00:03Z (')


def test_the_words_are_the_models() -> None:
    """The choices are repeated for a fast start; here they are held to the one place that defines them."""
    for field, words in add.WORDS.items():
        assert get_args(get_type_hints(Job)[field]) == words
