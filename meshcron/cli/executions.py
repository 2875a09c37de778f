"""Commands about what ran and runs: history, output, kill."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any

import click

from meshcron.cli.client import RETRY_SECONDS, Client, url_path
from meshcron.cli.failures import NOT_FOUND, Failure, Refusal
from meshcron.cli.jobs import get_job, with_nearest
from meshcron.cli.options import ID, NAME, filled, job_names, prints, talks
from meshcron.cli.screen import NOTHING, Screen, write
from meshcron.cli.times import duration, instant, read

Execution = dict[str, Any]
"""An execution as the API answers it."""

Killed = dict[str, Any]
"""A run with what was open of it, as the API answers a kill."""

OPEN = ("running", "waiting", "armed")
"""States in which something still happens."""

STATUSES = ("armed", "waiting", "running", "success", "failed", "timeout", "killed", "lost", "skipped")
"""The words of the API; named here because importing the model takes as long as all the rest."""

NOT_STARTED = frozenset({"skipped", "armed", "waiting"})
"""States without an output: skipped it never has one, armed or waiting not yet."""

SHOWN = 20
"""Lines of history that fit a terminal."""

SHOWN_MAX = 1000

LOOKED_AT = 100
"""Executions read at once in search of the last one that started: usually among the first few."""

MS_US = 1000


@click.command()
@click.argument("name", required=False, callback=filled, shell_complete=job_names)
@click.option(
    "-n", "--count", type=click.IntRange(1, SHOWN_MAX), default=SHOWN, show_default=True, help="How many at most."
)
@click.option("--status", type=click.Choice(STATUSES), help="Only those in this state.")
@click.option("--agent", metavar="NAME", help="Only those of this agent.")
@click.option("--since", metavar="TIME", help="Only those due since then: 2h (ago), or 2030-01-31T12:00:00Z.")
@prints
@talks
def history(
    client: Client,
    screen: Screen,
    name: str | None,
    count: int,
    status: str | None,
    agent: str | None,
    since: str | None,
) -> None:
    """List what ran, newest first.

    Of all jobs, or of one.
    """
    if name:
        get_job(client, name)
    asked = {
        "job": name,
        "status": status,
        "agent": agent,
        "since": instant(since, screen.now_us) if since is not None else None,
    }
    filters = {key: value for key, value in asked.items() if value}
    found: list[Execution] = client.get(
        url_path("history"), {**filters, "_start": 0, "_end": count, "output_size_limit": 0}
    )
    if screen.as_json:
        screen.data(found)
    elif found:
        screen.table(
            ("WHEN", "JOB", "AGENT", "STATE", "EXIT", "TOOK", "BY", "ID", "REASON"),
            [_row(screen, each) for each in found],
        )
    elif status or agent or since:
        screen.aside(f"nothing that ran is like that: meshcron history{f' {name}' if name else ''}")
    else:
        screen.aside(f"nothing has run yet: meshcron run {name or 'NAME'}")


def _row(screen: Screen, execution: Execution) -> tuple[object, ...]:
    started = execution["started_at"]
    return (
        screen.when(started if read(started) is not None else execution["scheduled_at"]),
        execution["job_name"],
        execution["node_name"],
        execution["status"],
        ending(execution),
        duration(int(execution["duration_ms"] or 0) * MS_US) if read(started) is not None else NOTHING,
        execution["trigger"],
        execution["id"],
        _reason(execution),
    )


def _reason(execution: Execution) -> str:
    """Why it ended so; of a range of ticks skipped together also how many they were."""
    count = int(execution.get("count", 1))
    ticks = {0: " (many ticks)", 1: ""}.get(count, f" ({count} ticks)")
    return f"{execution['reason']}{ticks}"


def ending(execution: Execution) -> str:
    """How its process ended: an exit code, or `signal 9`."""
    if execution.get("signal") is not None:
        return f"signal {execution['signal']}"
    return "" if execution.get("exit_code") is None else str(execution["exit_code"])


@click.command()
@NAME
@ID
@click.option("-f", "--follow", is_flag=True, help="Go on as it writes, until it ends.")
@prints
@talks
def output(client: Client, screen: Screen, name: str, execution_id: str | None, follow: bool) -> None:
    """Print what an execution wrote.

    Of the last one of a job, or of the one with this ID ("meshcron history NAME" lists them). With --json the
    execution itself, its output in it; with --follow once it has ended.
    """
    chosen = execution_id or last_execution(client, screen, name)
    if follow or not screen.as_json:
        for chunk in client.output(name, chosen, follow=follow):
            if not screen.as_json:
                write(chunk)
    if screen.as_json:
        found: Execution = client.get(url_path("executions", name, chosen))
        while follow and found["status"] in OPEN:  # its output has ended: how it ended is recorded a little later
            time.sleep(RETRY_SECONDS)
            found = client.get(url_path("executions", name, chosen))
        screen.data(found)


def last_execution(client: Client, screen: Screen, name: str) -> str:
    """The id of the newest execution of a job that has an output; hundreds that have none may stand before it. Whoever
    has just asked for one that has not started yet hears that this is an earlier one."""
    awaited = ""
    start, found = 0, list[Execution]()
    while start == 0 or len(found) == LOOKED_AT:
        found = executions(client, name, {"_start": start, "_end": start + LOOKED_AT, "_order": "DESC"})
        for execution in found:
            if execution["status"] not in NOT_STARTED:
                if awaited:
                    screen.aside(f"{awaited} has not started yet; {execution['id']} wrote:")
                return str(execution["id"])
            if execution["trigger"] == "manual" and execution["status"] in OPEN:
                awaited = awaited or execution["id"]
        start += LOOKED_AT
    raise Failure(f'"{name}" has not run yet; meshcron run {name}', NOT_FOUND)


def executions(client: Client, name: str, query: dict[str, str | int]) -> list[Execution]:
    """Executions of a job, without their output. Raises Failure with the nearest name where there is no such job."""
    try:
        found: list[Execution] = client.get(url_path("jobs", name, "executions"), {**query, "output_size_limit": 0})
    except Refusal as refusal:
        raise with_nearest(client, name, refusal) from None
    return found


@click.command()
@NAME
@ID
@prints
@talks
def kill(client: Client, screen: Screen, name: str, execution_id: str | None) -> None:
    """Kill what runs of a job.

    All of it, with attempts and runs that wait, or the execution with this ID and its own retry: TERM to its process
    group, KILL after 10 seconds.
    """
    answers = [_kill_one(client, name, execution_id)] if execution_id else _kill_runs(client, name)
    if screen.as_json:
        screen.data(answers)
        return
    for answer in answers:
        for target in answer["executions"]:
            screen.line(f"killed {target}")
        if not answer["executions"]:
            waited = f"killed run {answer['run_id']}, which waited"
            screen.line(f"{execution_id} has ended; its retry was given up" if execution_id else waited)


def _kill_one(client: Client, name: str, execution_id: str) -> Killed:
    """Raises Failure where it has ended and no retry of it waits, as where nothing of a job runs."""
    get_job(client, name)
    try:
        killed: Killed = client.call("POST", url_path("executions", name, execution_id, "kill")).value
    except Refusal as refusal:
        if refusal.status != HTTPStatus.CONFLICT:
            raise
        raise Failure(f'{refusal.reason}; "meshcron history {name}" shows how', NOT_FOUND) from None
    return killed


def _kill_runs(client: Client, name: str) -> list[Killed]:
    """Everything of a job that is not over, what only waits first: it would start in the place of what is killed.
    Raises Failure where there is nothing, or no such job."""
    try:
        runs: list[Killed] = client.get(url_path("jobs", name, "runs"))
    except Refusal as refusal:
        raise with_nearest(client, name, refusal) from None
    killed: list[Killed] = []
    for run in sorted(runs, key=lambda run: bool(run["executions"])):
        try:
            killed.append(client.call("POST", url_path("runs", run["run_id"], "kill")).value)
        except Refusal as refusal:
            if refusal.exit_code != NOT_FOUND:
                raise  # not found: it has ended by itself meanwhile
    if not killed:
        raise Failure(f'nothing of "{name}" is running; "meshcron history {name}" shows what ran', NOT_FOUND)
    return killed
