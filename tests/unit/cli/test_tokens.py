"""token list, add, rm, netrc."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshcron.cli import tokens
from meshcron.model import ROLES


def test_add_prints_the_secret_alone(cli: Any, agent: Any) -> None:
    """stdout is the secret and nothing else, so that `TOKEN=$(meshcron token add ci)` works."""
    result = cli("token", "add", "ci", "--role", "editor", "--expires", "90d")
    assert (result.exit_code, result.stdout) == (0, "the-secret\n")
    assert "not shown again" in result.stderr
    assert agent.requests[-1].body == {"name": "ci", "role": "editor", "expires_in": "90d"}


def test_a_secret_that_was_lost_is_said(cli: Any, agent: Any) -> None:
    """The answer came only to the repeated request, without the secret: nothing to print, and what to do."""
    made = {"id": "t1", "name": "ci", "role": "viewer"}
    agent.will_answer("POST", "/v1/tokens", type("Reply", (), {"status": 201, "value": made, "headers": {}})())
    result = cli("token", "add", "ci")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "meshcron token rm ci" in result.stderr


def test_the_default_role_is_the_weakest(cli: Any, agent: Any) -> None:
    """Who does not say what a token may do gets one that may look."""
    cli("token", "add", "ci")
    assert agent.requests[-1].body == {"name": "ci", "role": "viewer"}


def test_an_empty_expiry_is_sent_as_it_is(cli: Any, agent: Any) -> None:
    """A script's unset variable: the agent refuses it, where leaving it out would make a key for all time."""
    cli("token", "add", "ci", "--expires", "")
    assert agent.requests[-1].body == {"name": "ci", "role": "viewer", "expires_in": ""}


def test_list_and_rm_by_name_and_id(cli: Any, agent: Any) -> None:
    """Tokens are named by either; a removed one is gone from the list."""
    cli("token", "add", "ci", "--role", "admin")
    listed = cli("token", "list", "--utc").stdout.splitlines()
    assert listed[0].split() == ["NAME", "ROLE", "MADE", "EXPIRES", "ID"]
    assert listed[1].split()[:2] == ["ci", "admin"]
    assert cli("token", "rm", "ci").stdout == 'removed token "ci" (admin)\n'
    assert json.loads(cli("token", "list", "--json").stdout) == []
    cli("token", "add", "ci")
    assert cli("token", "rm", "t1").exit_code == 0


def test_rm_removes_the_others_where_one_is_missing(cli: Any, agent: Any) -> None:
    """Code 3, and the missing ones are named."""
    cli("token", "add", "ci")
    result = cli("token", "rm", "x", "ci", "y")
    assert (result.exit_code, result.stdout) == (3, 'removed token "ci" (viewer)\n')
    assert result.stderr == 'meshcron: no token "x", "y"; "meshcron token list" lists them\n'
    assert not agent.tokens


def test_rm_of_an_unknown_token(cli: Any) -> None:
    """Code 3, and where to look."""
    result = cli("token", "rm", "nobody")
    assert result.exit_code == 3
    assert result.stderr == 'meshcron: no token "nobody"; "meshcron token list" lists them\n'


@pytest.mark.parametrize(
    ("url", "host"), [("http://127.0.0.1:8080", "127.0.0.1"), ("https://node.example", "node.example")]
)
def test_netrc(cli: Any, url: str, host: str) -> None:
    """The line curl -n reads: the host without its port."""
    result = cli("token", "netrc", "--url", url, env={"MESHCRON_TOKEN": "s3cret"})
    assert result.stdout == f"machine {host} login meshcron password s3cret\n"


def test_netrc_as_json(cli: Any) -> None:
    """The same three words for programs."""
    result = cli("token", "netrc", "--json", "--url", "http://127.0.0.1:8080", env={"MESHCRON_TOKEN": "s3cret"})
    assert json.loads(result.stdout) == {"machine": "127.0.0.1", "login": "meshcron", "password": "s3cret"}


def test_the_roles_are_the_models() -> None:
    """Repeated for a fast start, held here to the one place that defines them."""
    assert tokens.ROLES == ROLES
