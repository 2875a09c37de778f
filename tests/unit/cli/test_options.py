"""Options that many commands share, and the completion of names."""

from __future__ import annotations

from typing import Any

import pytest

from meshcron.cli.root import COMMANDS


def complete(cli: Any, words: str, **env: str) -> list[str]:
    """What the shell would offer after these words."""
    position = str(len(words.split(" ")) - 1)
    variables = {"_MESHCRON_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": position, **env}
    return [line.split(",")[1] for line in cli(env=variables).stdout.splitlines() if line]


@pytest.mark.parametrize("command", ["show", "rm", "run", "output", "kill", "toggle", "history", "next"])
def test_names_of_jobs_complete(cli: Any, agent: Any, command: str) -> None:
    """After a command that takes a NAME, the names the cluster knows."""
    agent.jobs = {name: {"name": name, "schedule": "@daily"} for name in ("backup", "banner", "report")}
    assert complete(cli, f"meshcron {command} ba") == ["backup", "banner"]


def test_completion_without_an_agent_is_silent(cli: Any) -> None:
    """No agent: no names, no complaint into the person's prompt."""
    assert complete(cli, "meshcron show b", MESHCRON_URL="http://127.0.0.1:1") == []


def test_commands_complete(cli: Any) -> None:
    """All commands, and those with a beginning."""
    assert complete(cli, "meshcron ") == list(COMMANDS)
    assert complete(cli, "meshcron di") == ["disable"]


@pytest.mark.parametrize("variable", ["NO_COLOR"])
def test_no_colour_where_none_is_wanted(cli: Any, agent: Any, variable: str) -> None:
    """A pipe gets no colours, whatever; a terminal gets none with NO_COLOR."""
    agent.jobs["a"] = {
        "name": "a", "schedule": "@daily", "disabled": True, "tags": {}, "next": "", "last_success": "",
        "last_error": "", "success_count": 0, "error_count": 0,
    }  # fmt: skip
    assert "\x1b" not in cli("ls").stdout
    assert "\x1b" in cli("ls", color=True).stdout
    assert "\x1b" not in cli("ls", env={variable: "1"}).stdout


def test_a_pair_without_a_key_is_refused(cli: Any) -> None:
    """`=x` and `x` are no K=V; `k=` is one with an empty value."""
    assert cli("run", "a", "--env", "=x").exit_code == 2
    assert cli("run", "a", "--env", "x").exit_code == 2
    assert cli("run", "a", "--env", "x=").exit_code == 3


@pytest.mark.parametrize(
    ("words", "field"),
    [
        *[([command, ""], "NAME") for command in "show rm toggle enable disable run kill history output".split()],
        (["rm", "a", ""], "NAME"),
        (["kill", "a", ""], "ID"),
        (["output", "a", ""], "ID"),
        (["add", "", "@daily", "--", "true"], "NAME"),
        (["next", ""], "SCHEDULE|NAME"),
        (["members", "rm", ""], "NAME"),
        (["token", "add", ""], "NAME"),
        (["token", "rm", ""], "NAME|ID"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_empty_name_is_refused(cli: Any, agent: Any, words: list[str], field: str) -> None:
    """`meshcron rm "$JOB"` with no JOB set: code 2, which field it is, and no request that could mean all."""
    agent.jobs["a"] = {"name": "a"}
    result = cli(*words)
    command = " ".join(words[: 2 if words[0] in {"members", "token"} else 1])
    assert result.exit_code == 2
    assert result.stderr == f'meshcron: invalid value for {field}: it is empty; see "meshcron {command} --help"\n'
    assert agent.requests == []
