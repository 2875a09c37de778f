"""Commands about the keys to the API: token list, add, rm, netrc."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import click

from meshcron.cli import local
from meshcron.cli.client import Client, url_path
from meshcron.cli.failures import JOB_FAILED, NOT_FOUND, Failure
from meshcron.cli.options import filled, prints, talks
from meshcron.cli.screen import Screen

Token = dict[str, Any]
"""A token as the API answers it."""

ROLES = ("viewer", "operator", "editor", "admin")
"""Weakest first (API.md, Who may)."""


@click.group()
def token() -> None:
    """Manage the keys to the API.

    viewer looks, operator runs, kills and toggles, editor writes jobs, admin does all.
    """


@token.command("list")
@prints
@talks
def list_(client: Client, screen: Screen) -> None:
    """List the tokens; their secrets are stored nowhere."""
    tokens: list[Token] = client.get(url_path("tokens"))
    if screen.as_json:
        screen.data(tokens)
        return
    screen.table(
        ("NAME", "ROLE", "MADE", "EXPIRES", "ID"),
        [
            (each["name"], each["role"], screen.when(each["created_at"]), screen.when(each["expires_at"]), each["id"])
            for each in tokens
        ],
    )


@token.command()
@click.argument("name", callback=filled)
@click.option("--role", type=click.Choice(ROLES), default="viewer", show_default=True, help="What it may do.")
@click.option("--expires", "expires_in", metavar="TIME", help="Valid for so long, such as 90d (for ever).")
@prints
@talks
def add(client: Client, screen: Screen, name: str, role: str, expires_in: str | None) -> None:
    """Make a token and print its secret, this once."""
    asked = {"name": name, "role": role, "expires_in": expires_in}
    made: Token = client.call("POST", url_path("tokens"), body={k: v for k, v in asked.items() if v is not None}).value
    if "token" not in made:  # a repeated request is answered with the first one's token, never with its secret
        lost = f'token "{name}" was made but its secret was lost on the way'
        raise Failure(f"{lost}; meshcron token rm {name}, then add it again", JOB_FAILED)
    if screen.as_json:
        screen.data(made)
        return
    screen.line(made["token"])
    screen.aside(f'token "{name}" ({role}): keep the line above, it is not shown again')


@token.command()
@click.argument("names", metavar="NAME|ID...", nargs=-1, required=True, callback=filled)
@prints
@talks
def rm(client: Client, screen: Screen, names: tuple[str, ...]) -> None:
    """Remove tokens; who holds one is refused from now on.

    Of several the others are removed where one does not exist; the exit code is 3 then.
    """
    removed: list[Token] = []
    missing: list[str] = []
    for name in names:
        found = _find(client.get(url_path("tokens")), name)
        if found is None:
            missing.append(name)
            continue
        removed.append(client.call("DELETE", url_path("tokens", found["id"])).value)
        if not screen.as_json:
            screen.line(f'removed token "{found["name"]}" ({found["role"]})')
    if screen.as_json:
        screen.data(removed)
    if missing:
        named = ", ".join(f'"{name}"' for name in missing)
        raise Failure(f'no token {named}; "meshcron token list" lists them', NOT_FOUND)


def _find(tokens: list[Token], wanted: str) -> Token | None:
    return next((each for each in tokens if wanted in {each["id"], each["name"]}), None)


@token.command()
@prints
@talks
def netrc(client: Client, screen: Screen) -> None:
    """Print the line for ~/.netrc that lets "curl -n" talk to this agent."""
    endpoint = client.endpoint
    if not endpoint.token:
        raise local.no_token(endpoint)
    entry = {"machine": urlsplit(endpoint.url).hostname, "login": "meshcron", "password": endpoint.token}
    if screen.as_json:
        screen.data(entry)
    else:
        click.echo(" ".join(f"{key} {value}" for key, value in entry.items()))
