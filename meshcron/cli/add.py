"""The command add: a job from a command line. Each option is named for the field of the job it sets (API.md, Jobs)."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from meshcron.cli.client import Answer, Client, url_path
from meshcron.cli.failures import NO_AGENT, USAGE, Failure, Refusal
from meshcron.cli.jobs import EVERY_AGENT, where
from meshcron.cli.options import filled, pair, prints, talks
from meshcron.cli.screen import Screen

EXAMPLES = """\b
meshcron add hello '@every 10s' -- echo hello
meshcron add backup '0 3 * * *' --tag role=db:1 --timeout 2h -- \\
    'pg_dumpall | gzip > /srv/backup.gz'
"""
"""Below the help; \\b keeps click from filling the lines."""

OS_FACT = "meshcron.os"
"""A tag that every agent has by itself (API.md, Jobs): with a count it selects one of them all."""

STDIN = "-"

HOLDS_FROM = "X-Meshcron-From"
"""Header with the first tick that an edit holds for (API.md, Both dialects, 2)."""

EXISTS_STATUSES = frozenset({409, 412})
"""What the API answers to `If-None-Match: *` where there is such a job."""

WORDS = {
    "concurrency": ("allow", "forbid", "queue", "replace"),
    "catch_up": ("skip", "latest", "all"),
    "on_lost": ("lost", "rerun"),
    "retry_on": ("same", "other"),
    "when": ("success", "failure", "always"),
}
"""Fields that hold one of a few words (model.Job)."""


def _text(flag: str, field: str, metavar: str, help_: str) -> Callable[..., Any]:
    return click.option(flag, field, metavar=metavar, help=help_)


def _word(flag: str, field: str, help_: str) -> Callable[..., Any]:
    return click.option(flag, field, type=click.Choice(WORDS[field]), help=help_)


def _count(flag: str, field: str, help_: str) -> Callable[..., Any]:
    return click.option(flag, field, metavar="N", type=int, help=help_)


def _pairs(flag: str, field: str, metavar: str, help_: str) -> Callable[..., Any]:
    return click.option(flag, field, metavar=metavar, multiple=True, callback=pair, help=f"{help_} (repeatable).")


FIELDS = (
    _pairs("--tag", "tags", "K=V[:N]", "Run on agents with this tag, on at most N of them"),
    _text("--tz", "timezone", "ZONE", "Time zone of the schedule, such as Europe/Berlin (UTC)."),
    _word("--concurrency", "concurrency", "What a tick does while a run is open."),
    _text("--timeout", "timeout", "TIME", "Kill a run that takes longer, such as 10m."),
    _count("--retries", "retries", "Attempts after a failed one."),
    _text("--retry-delay", "retry_delay", "TIME", "Pause before another attempt."),
    click.option("--retry-backoff", type=float, metavar="X", help="Multiply the pause by this after each attempt."),
    _word("--retry-on", "retry_on", "Which agent takes another attempt."),
    _text("--user", "run_as_user", "USER", "Run as this user (the agent's --run-as must allow it)."),
    _pairs("--env", "env", "K=V", "Add to the environment"),
    _text("--cwd", "cwd", "DIR", "Run in this folder."),
    _word("--catch-up", "catch_up", "What happens to ticks that were missed."),
    _text("--start-deadline", "start_deadline", "TIME", "Skip what could not start within this time (1h)."),
    _word("--on-lost", "on_lost", "What happens to a run of unknown fate."),
    _text("--owner", "owner", "NAME", "Whose job it is."),
    _text("--owner-email", "owner_email", "MAIL", "Where notifications go."),
    _text("--display-name", "displayname", "TEXT", "What people call it."),
    _pairs("--meta", "metadata", "K=V", "A note to search by"),
    click.option("--parent", "parent_jobs", metavar="NAME", multiple=True, help="Run after this job (repeatable)."),
    _word("--when", "when", "After which endings of the parents."),
    click.option("--success-code", "success_exit_codes", type=int, multiple=True, help="Exit code of success (0)."),
    _count("--nice", "nice", "Added to the niceness that the agent has, 0 to 19."),
    _text("--starts-at", "starts_at", "TIME", "First tick not before, such as 2030-01-31T12:00:00Z."),
    _text("--expires-at", "expires_at", "TIME", "No tick after."),
    click.option("--ephemeral", is_flag=True, default=None, help="Remove the job after its first success."),
    click.option("--disabled", is_flag=True, default=None, help="Do not let it run on its schedule yet."),
    click.option(
        "--shell/--no-shell", default=None, help="Run it by /bin/sh (default), or split it and run it as it is."
    ),
)
"""The options whose value goes into the job as it is; the agent checks it and names the field."""


def _fields(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(FIELDS):
        command = option(command)
    return command


@click.command(epilog=EXAMPLES)
@click.argument("name", callback=filled)
@click.argument("schedule")
@click.argument("command", metavar="-- COMMAND...", nargs=-1)
@_fields
@click.option("--payload-file", metavar="FILE", help="Text for the standard input of the command; - reads it now.")
@click.option("--one/--all", "one", default=None, help="Run on one agent, or on every agent that matches.")
@click.option("--run-now", is_flag=True, help="Run it once at once, too.")
@click.option("--replace", is_flag=True, help="Overwrite the job of this name.")
@prints
@talks
def add(
    client: Client,
    screen: Screen,
    /,
    name: str,
    schedule: str,
    command: tuple[str, ...],
    payload_file: str | None,
    one: bool | None,
    run_now: bool,
    replace: bool,
    **fields: Any,
) -> None:
    """Add a job: what runs when, and where.

    One word after -- is a command for the shell as it stands; several words are quoted, so that each stays one.
    """
    job = {key: value for key, value in fields.items() if value not in (None, (), {})}
    job |= {"name": name, "schedule": schedule, "command": command_line(command)}
    if payload_file is not None:
        job["payload"] = _payload(payload_file)
    if _on_one(client, one, has_tags="tags" in job):
        job["tags"] = _one_of(client, job.get("tags", {}))
    answer = _put(client, job, replace=replace, run_now=run_now)
    if screen.as_json:
        screen.data(answer.value)
    else:
        screen.line(_said(screen, answer.value, answer.headers.get(HOLDS_FROM, "") if replace else None))


def command_line(words: tuple[str, ...]) -> str:
    """The words after `--` as one command: a single one as it stands, several quoted."""
    if not words:
        raise click.UsageError("the command is missing; it stands at the end, after --", click.get_current_context())
    return words[0] if len(words) == 1 else shlex.join(words)


def _payload(file: str) -> str:
    if file == STDIN and sys.stdin is None:
        raise Failure("cannot read - (standard input is closed); name another --payload-file", USAGE)
    try:
        return sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot read {file} ({error.strerror}); name another --payload-file", USAGE) from None
    except UnicodeDecodeError:
        raise Failure(f"{file} is not text in UTF-8; a payload is text", USAGE) from None


def _on_one(client: Client, one: bool | None, *, has_tags: bool) -> bool:
    """Whether one agent is to run it. A person who has not said where is asked, once there is more than one agent."""
    if one is not None or has_tags or not _on_a_terminal():
        return bool(one)
    count = len(client.get(url_path("members")))
    if count < 2:
        return False
    question = f"run it on one agent, or on all {count}?"
    return bool(click.prompt(question, type=click.Choice(["one", "all"]), default="all", err=True) == "one")


def _on_a_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))  # None: it is closed


def _one_of(client: Client, tags: dict[str, str]) -> dict[str, str]:
    """The tags, narrowed to one agent: the lowest count wins (API.md, Jobs), so one tag with `:1` is enough."""
    if tags:
        key = min(tags)
        return {**tags, key: tags[key].rpartition(":")[0] + ":1" if ":" in tags[key] else f"{tags[key]}:1"}
    members = client.get(url_path("members"))
    systems = Counter(str(each["facts"][OS_FACT]) for each in members if OS_FACT in each["facts"])
    if not systems:
        raise Failure("no agent says yet which system it has; try again, or name a --tag", NO_AGENT)
    return {OS_FACT: f"{systems.most_common(1)[0][0]}:1"}


def _put(client: Client, job: dict[str, Any], *, replace: bool, run_now: bool) -> Answer:
    try:
        return client.call(
            "POST",
            url_path("jobs"),
            query={"runoncreate": "true"} if run_now else None,
            body=job,
            headers={} if replace else {"If-None-Match": "*"},
        )
    except Refusal as refusal:
        if not replace and refusal.status in EXISTS_STATUSES:
            raise Failure(f'there is a job "{job["name"]}" already; --replace overwrites it', USAGE) from None
        raise


def _said(screen: Screen, job: dict[str, Any], holds_from: str | None) -> str:
    """What was stored; for --replace also the first tick it holds for (`holds_from`, an instant or ""), since those
    that are armed already run as they were."""
    done = f'{"added" if holds_from is None else "stored"} "{job["name"]}" on {where(job)}'
    if where(job) == EVERY_AGENT:
        done += " (--one for a single one)"
    done += ", disabled" if job["disabled"] else f", next {screen.when(job['next'])}"
    return f"{done}; holds from {screen.when(holds_from)} on" if holds_from else done
