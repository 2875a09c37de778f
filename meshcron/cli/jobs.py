"""Commands about jobs that are there: ls, show, rm, toggle, enable, disable."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import click

from meshcron.cli.client import Answer, Client, url_path
from meshcron.cli.failures import NOT_FOUND, Failure, Refusal, nearest
from meshcron.cli.options import NAME, filled, job_names, pair, prints, talks
from meshcron.cli.screen import NOTHING, Screen, pairs
from meshcron.cli.times import NEVER, read

Job = dict[str, Any]
"""A job as the API answers it."""

SWITCH_TRIES = 5
"""So often a job is read and toggled while somebody else changes it."""

EVERY_AGENT = "every agent"
"""What no tags mean (API.md, Jobs)."""

FIRST_JOB = "no jobs yet: meshcron add hello '@every 10s' -- echo hello"

SHOWN_ELSEWHERE = frozenset(
    {"id", "name", "tags", "success_count", "error_count", "executor", "executor_config", "parent_job"}
)
"""Keys of a job that `show` words in its own way or that repeat another key."""

TIMES = frozenset({"next", "last_success", "last_error", "starts_at", "expires_at", "created_at"})
"""Keys of a job that hold an instant."""


@click.command()
@click.argument("text", required=False)
@click.option(
    "--tag", "tags", metavar="K=V", multiple=True, callback=pair, help="Only jobs with this tag (repeatable)."
)
@click.option("--status", metavar="STATUS", help="Only jobs whose last run ended so: success, failed, untriggered.")
@click.option("--disabled/--enabled", default=None, help="Only disabled or only enabled jobs.")
@prints
@talks
def ls(
    client: Client, screen: Screen, text: str | None, tags: dict[str, str], status: str | None, disabled: bool | None
) -> None:
    """List the jobs, when each runs next and how it went last.

    TEXT keeps those with it in their name.
    """
    query: dict[str, str] = {f"tags[{key}]": value for key, value in tags.items()}
    if text:
        query["q"] = text
    if status:
        query["status"] = status
    if disabled is not None:
        query["disabled"] = "true" if disabled else "false"
    jobs: list[Job] = client.get(url_path("jobs"), query)
    if screen.as_json:
        screen.data(jobs)
    elif jobs:
        screen.table(
            ("NAME", "SCHEDULE", "STATE", "NEXT", "LAST RUN", "OK", "FAILED", "WHERE"),
            [_row(screen, job) for job in sorted(jobs, key=lambda job: str(job["name"]))],
        )
    else:
        screen.aside("no job is like that: meshcron ls" if query else FIRST_JOB)


def _row(screen: Screen, job: Job) -> tuple[object, ...]:
    return (
        job["name"],
        job["schedule"],
        "disabled" if job["disabled"] else job["status"],
        screen.when(job["next"]),
        last_run(screen, job),
        job["success_count"],
        job["error_count"],
        where(job),
    )


def where(job: Job) -> str:
    """The agents a job runs on, in words."""
    return pairs(job["tags"]) or EVERY_AGENT


def last_run(screen: Screen, job: Job) -> str:
    """When a job last ended, relative to now."""
    ended = [instant for key in ("last_success", "last_error") if (instant := read(job[key])) is not None]
    return screen.ago(max(ended)) if ended else NOTHING


@click.command()
@NAME
@prints
@talks
def show(client: Client, screen: Screen, name: str) -> None:
    """Show all that is known of one job."""
    job = get_job(client, name)
    if screen.as_json:
        screen.data(job)
        return
    runs = f"{job['success_count']} succeeded, {job['error_count']} failed"
    screen.fields([("name", job["name"]), ("where", where(job)), *_details(screen, job), ("runs", runs)])


def _details(screen: Screen, job: Job) -> list[tuple[str, object]]:
    """Every key with a value, the ones of a person's own words first, as the API orders them."""
    rows: list[tuple[str, object]] = []
    for key, value in job.items():
        if key in SHOWN_ELSEWHERE or _says_nothing(value):
            continue
        if key in TIMES:
            rows.append((key, screen.when(value)))
        elif isinstance(value, dict):
            rows.append((key, pairs(value)))
        elif isinstance(value, list):
            rows.append((key, ", ".join(str(item) for item in value)))
        else:
            rows.append((key, "yes" if value is True else value))
    return rows


def _says_nothing(value: object) -> bool:
    """True for what is empty, zero or never, and for an object of nothing else."""
    if isinstance(value, dict):
        return all(map(_says_nothing, value.values()))
    return value in ("", NEVER, "0s", None, False, 0) or value == []


def get_job(client: Client, name: str) -> Job:
    """One job. Raises Failure with the nearest name where there is none."""
    job: Job = _read_job(client, name).value
    return job


def _read_job(client: Client, name: str) -> Answer:
    try:
        return client.call("GET", url_path("jobs", name))
    except Refusal as refusal:
        raise with_nearest(client, name, refusal) from None


def with_nearest(client: Client, name: str, refusal: Refusal) -> Failure:
    """A refusal as it is; where it says that there is no such job, with the name that may have been meant."""
    if refusal.exit_code != NOT_FOUND:
        return refusal
    close = nearest(name, [str(job["name"]) for job in client.get(url_path("jobs"))])
    return Failure(f'no job named "{name}", did you mean "{close}"?', NOT_FOUND) if close else refusal


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, callback=filled, shell_complete=job_names)
@prints
@talks
def rm(client: Client, screen: Screen, names: tuple[str, ...]) -> None:
    """Remove jobs and their history.

    What runs goes on to its end; "meshcron kill" first stops it. Of several the others are removed where one does not
    exist; the exit code is 3 then.
    """
    removed: list[Job] = []
    missing: dict[str, Refusal] = {}
    for name in names:
        try:
            answer = client.call("DELETE", url_path("jobs", name))
        except Refusal as refusal:
            if refusal.exit_code != NOT_FOUND:
                raise
            missing[name] = refusal
            continue
        removed.append(answer.value)
        if not screen.as_json:
            screen.line(f'removed "{name}"' + _still_open(answer.headers.get("X-Meshcron-Open", "")))
    if screen.as_json:
        screen.data(removed)
    if len(missing) == 1:
        raise with_nearest(client, *missing.popitem())
    if missing:
        named = ", ".join(f'"{name}"' for name in missing)
        raise Failure(f'no job named {named}; "meshcron ls" lists the jobs', NOT_FOUND)


@click.command()
@NAME
@prints
@talks
def toggle(client: Client, screen: Screen, name: str) -> None:
    """Disable an enabled job, enable a disabled one."""
    _switch(client, screen, name, None)


@click.command()
@NAME
@prints
@talks
def enable(client: Client, screen: Screen, name: str) -> None:
    """Let a job run on its schedule."""
    _switch(client, screen, name, False)


@click.command()
@NAME
@prints
@talks
def disable(client: Client, screen: Screen, name: str) -> None:
    """Keep a job from running on its schedule.

    "meshcron run" still runs it: a person asked.
    """
    _switch(client, screen, name, True)


def _switch(client: Client, screen: Screen, name: str, disabled: bool | None) -> None:
    """Toggle a job until it is as wanted: an operator may toggle, only an editor may write the field itself."""
    job, still_open = _switched(client, name, disabled)
    if screen.as_json:
        screen.data(job)
    elif job["disabled"]:
        screen.line(f'"{name}" is disabled' + _still_open(still_open))
    else:
        screen.line(f'"{name}" is enabled, next {screen.when(job["next"])}')


def _switched(client: Client, name: str, disabled: bool | None) -> tuple[Job, str]:
    """The job as it then is, and what still runs. Toggled at the revision that was read: of two who disable a job at
    the same time, the second would enable it again."""
    tries_left = SWITCH_TRIES
    while True:
        read_job = _read_job(client, name)
        if read_job.value["disabled"] is disabled:
            return read_job.value, ""
        tries_left -= 1
        revision = {"If-Match": read_job.headers["ETag"]}
        try:
            answer = client.call("POST", url_path("jobs", name, "toggle"), headers=revision)
        except Refusal as refusal:
            if refusal.status != HTTPStatus.PRECONDITION_FAILED or not tries_left:
                raise
        else:
            return answer.value, answer.headers.get("X-Meshcron-Open", "")


def _still_open(header: str) -> str:
    """The end of a sentence about runs that go on."""
    ids = [unquote(item) for item in header.split(",") if item]
    return f"; still running: {', '.join(ids)}" if ids else ""
