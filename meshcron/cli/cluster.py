"""Commands about the cluster: status, members."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import click
from click.core import ParameterSource

from meshcron.cli.client import PASSING_CODES, Client, url_path
from meshcron.cli.failures import NO_AGENT, NOT_ALLOWED, NOT_FOUND, Failure, Refusal, nearest
from meshcron.cli.options import filled, may_talk, prints, talks
from meshcron.cli.screen import Screen, pairs

Member = dict[str, Any]
"""A member as the API answers it."""

STATUS_WORDS = {1: "alive", 2: "leaving", 3: "left", 4: "failed"}
"""Serf's numbers (API.md, Both dialects, 12)."""

SKEW_MS_SHOWN = 50
"""Clocks of a LAN differ by less; what is below says nothing (PROTOCOL 7 warns from 250 ms on)."""


@click.command()
@prints
@talks
@click.pass_context
def status(ctx: click.Context, client: Client, screen: Screen) -> None:
    """Show this agent and its place in the cluster.

    The exit code is 4 where the agent cannot take a write.
    """
    reason = why_not_ready(client)
    try:
        page = client.get(url_path(""), patient=not reason)
        members: list[Member] = client.get(url_path("members"), patient=not reason)
    except Refusal as refusal:
        if not reason or refusal.code not in PASSING_CODES:
            raise
        raise Failure(f"not ready: {reason}", NO_AGENT) from None  # without the log it knows no token
    if screen.as_json:
        screen.data({**page, "ready": not reason, "reason": reason})
    else:
        _show(client, screen, page, members, reason)
    ctx.exit(NO_AGENT if reason else 0)


def _show(client: Client, screen: Screen, page: dict[str, Any], members: list[Member], reason: str) -> None:
    mesh = page.get("mesh", {})
    screen.fields(
        [
            ("agent", f"{page['agent']['name']} (meshcron {page['agent']['version']}) at {client.endpoint.url}"),
            ("state", f"not ready: {reason}" if reason else "ready"),
            ("scheduling", "paused for the whole cluster" if mesh.get("paused") else ""),
            ("leader", mesh.get("leader") or "nobody"),
            ("term", mesh.get("term")),
            ("members", _census(members)),
            ("jobs", mesh.get("jobs") if mesh.get("applied_index") else ""),  # 0: this agent does not hold the log
            ("running", sum(int(member.get("running", 0)) for member in members) or "nothing"),
            ("tags", pairs(page.get("tags"))),
            ("cluster", mesh.get("cluster")),
            ("fingerprint", mesh.get("fingerprint")),
            ("encrypted", "" if mesh.get("encrypted", True) else "no: anybody on the network can read the mesh"),
        ]
    )
    for warning in mesh.get("warnings", []):
        screen.warning(warning)
    _hint_at_a_third(screen, members)


def _census(members: list[Member]) -> str:
    """`3 (3 alive, 3 voters)`: how many of each state."""
    counts = {word: sum(_state(member) == word for member in members) for word in STATUS_WORDS.values()}
    voters = sum(bool(member.get("voter")) for member in members)
    states = [f"{count} {word}" for word, count in counts.items() if count]
    return f"{len(members)} ({', '.join(states)}; {voters} {'voter' if voters == 1 else 'voters'})"


def _hint_at_a_third(screen: Screen, members: list[Member]) -> None:
    """Two look safe and are not: one of them has the only vote."""
    voters = [member["Name"] for member in members if member.get("voter")]
    leaving = any(_state(member) == "leaving" for member in members)
    if len(members) == 2 and len(voters) == 1 and not leaving:
        screen.aside(
            f'two agents, and only "{voters[0]}" votes: while it is down the other one starts nothing new; '
            "with a third agent any one may die"
        )


def why_not_ready(client: Client) -> str:
    """Why the agent cannot take writes now, "" when it can."""
    try:
        client.get("/ready", patient=False)
    except Refusal as refusal:
        if refusal.status != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return refusal.reason
    return ""


@click.group(invoke_without_command=True)
@click.pass_context
@prints
@may_talk
def members(connect: Callable[[], Client], screen: Screen, ctx: click.Context) -> None:
    """List the agents of the cluster.

    `members rm NAME` takes one out for good: its seat as a voter goes to another agent, and what runs there may end
    within 10 minutes.
    """
    if ctx.invoked_subcommand is None:
        _list(connect(), screen)
        return
    given = [each for each in ctx.command.params if ctx.get_parameter_source(str(each.name)) != ParameterSource.DEFAULT]
    if given:  # lost there, --url would have another cluster lose its agent
        raise click.UsageError(f"put {given[0].opts[0]} behind {ctx.invoked_subcommand}", ctx)


@members.command("rm")
@click.argument("name", callback=filled)
@prints
@talks
def remove(client: Client, screen: Screen, name: str) -> None:
    """Take an agent out of the cluster for good; the cluster key is still known on its machine."""
    try:
        answer = client.call("DELETE", url_path("members", name))
    except Refusal as refusal:
        raise _with_nearest(client, name, refusal) from None
    _left(screen, answer.value)
    if not screen.as_json:
        screen.line("Its machine still knows the cluster key, and may join again with it.")


def _with_nearest(client: Client, name: str, refusal: Refusal) -> Failure:
    """A refusal as it is; where it says that there is no such member, with the name that may have been meant."""
    if refusal.status != HTTPStatus.NOT_FOUND:
        return refusal
    close = nearest(name, [str(member["Name"]) for member in client.get(url_path("members"))])
    next_step = f'did you mean "{close}"?' if close else '"meshcron members" lists them'
    return Failure(f'no member named "{name}"{"," if close else ";"} {next_step}', NOT_FOUND)


@click.command()
@prints
@talks
def leave(client: Client, screen: Screen) -> None:
    """Take the agent on this machine out of its cluster for good."""
    try:
        answer = client.call("POST", url_path("leave"))
    except Refusal as refusal:
        if refusal.status != HTTPStatus.FORBIDDEN:
            raise
        said = f'{refusal.reason}; "meshcron members rm NAME" on another machine takes this one out as well'
        raise Failure(said, NOT_ALLOWED) from None
    _left(screen, answer.value)


def _left(screen: Screen, answer: Member) -> None:
    if screen.as_json:
        screen.data(answer)
        return
    name = answer["name"]  # cut off once it is gone, it is the last to hear of that
    screen.line(f'{name} is leaving; once it is gone from "meshcron members" on another machine, end its agent')


def _list(client: Client, screen: Screen) -> None:
    found: list[Member] = client.get(url_path("members"))
    if screen.as_json:
        screen.data(found)
        return
    screen.table(
        ("NAME", "STATE", "ROLE", "ADDRESS", "RUNNING", "CLOCK", "VERSION", "TAGS"),
        [_row(member) for member in sorted(found, key=lambda member: str(member["Name"]))],
    )
    if len(found) == 1:
        screen.aside(
            'one agent only: start "meshcron up" with the same key on the next machine (meshcron key show --secret)'
        )
    _hint_at_a_third(screen, found)


def _row(member: Member) -> tuple[object, ...]:
    address = str(member["Addr"])
    return (
        member["Name"],
        _state(member),
        _role(member),
        f"[{address}]:{member['Port']}" if ":" in address else f"{address}:{member['Port']}",
        str(member.get("running", "")),
        _clock(int(member.get("clock_skew_ms", 0))),
        member.get("version", ""),
        pairs(member["Tags"]),
    )


def _state(member: Member) -> str:
    return STATUS_WORDS.get(member["Status"], "unknown")


def _role(member: Member) -> str:
    if member.get("leader"):
        return "leader"
    return "voter" if member.get("voter") else "agent"


def _clock(skew_ms: int) -> str:
    return f"{skew_ms:+d} ms" if abs(skew_ms) >= SKEW_MS_SHOWN else "ok"
