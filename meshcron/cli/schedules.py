"""Commands about schedules: next, explain. What a schedule means is computed here, so that no agent need run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import click

from meshcron.cli.client import Client
from meshcron.cli.failures import USAGE, Failure
from meshcron.cli.jobs import Job, get_job
from meshcron.cli.options import filled, job_names, may_talk, prints
from meshcron.cli.screen import Screen
from meshcron.cli.times import iso, read
from meshcron.core.schedule import EverySchedule, Schedule, check_fires, next_n, parse

TICKS_MAX = 1000
"""Most ticks shown at once; rare ones cost up to a millisecond each."""

COUNT = click.option(
    "-n", "--count", type=click.IntRange(1, TICKS_MAX), default=5, show_default=True, help="How many ticks."
)
ZONE = click.option("--tz", metavar="ZONE", default="", help="Time zone of the schedule, such as Europe/Berlin (UTC).")


@click.command("next")
@click.argument("schedule", metavar="SCHEDULE|NAME", callback=filled, shell_complete=job_names)
@COUNT
@ZONE
@prints
@may_talk
def next_(connect: Callable[[], Client], screen: Screen, schedule: str, count: int, tz: str) -> None:
    """Show when a job or a schedule fires next.

    Only a job's NAME needs an agent. The phase of "@every" is that of a job created now.
    """
    if is_name(schedule):
        job = get_job(connect(), schedule)
        _print_ticks(screen, job_ticks(job, screen.now_us, count), _why_never(screen, job))
    else:
        parsed = _parsed(schedule, tz, screen.now_us)
        _print_ticks(screen, next_n(parsed, screen.now_us, count), "it fires when asked to, or when an agent starts")


@click.command()
@click.argument("schedule")
@COUNT
@ZONE
@click.option("--job", "name", metavar="NAME", default="", help="The job's name, which H and ~ are spread by.")
@prints
def explain(screen: Screen, schedule: str, count: int, tz: str, name: str) -> None:
    """Say in words what a schedule means.

    Needs no agent.
    """
    parsed = _parsed(schedule, tz, screen.now_us, name)
    ticks = next_n(parsed, screen.now_us, count)
    if screen.as_json:
        screen.data(
            {
                "schedule": schedule,
                "timezone": parsed.timezone,
                "words": parsed.describe(),
                "next": [iso(tick) for tick in ticks],
            }
        )
        return
    screen.line(f"{parsed.describe()} (time zone {parsed.timezone})")
    for tick in ticks:
        screen.line(f"  {screen.moment(tick)}")


def is_name(text: str) -> bool:
    """True for what can only be a job's name: no schedule is a single word without "@" (API.md, Schedules)."""
    return not text.startswith("@") and len(text.split()) == 1


def job_ticks(job: Job, now_us: int, count: int) -> list[int]:
    """A job's next ticks, up to its `expires_at`. The first is the cluster's own word; the phase of `@every` follows
    from it."""
    first = read(job["next"])
    if first is None:
        return []
    schedule = parse(job["schedule"], timezone=job["timezone"], name=job["name"])
    if isinstance(schedule, EverySchedule):
        schedule = replace(schedule, anchor_us=first)
    ticks = next_n(schedule, max(first, now_us), count - 1)
    expires = read(job["expires_at"])
    return [first, *(tick for tick in ticks if expires is None or tick <= expires)]


def _parsed(text: str, zone: str, now_us: int, name: str = "") -> Schedule:
    if is_name(text):
        raise Failure(f'schedule: "{text}" is not a schedule; such as "0 3 * * *", @daily or "@every 1h"', USAGE)
    schedule = parse(text, timezone=zone, name=name, anchor_us=now_us)
    check_fires(schedule, now_us)
    return schedule


def _why_never(screen: Screen, job: Job) -> str:
    name = job["name"]
    if job["disabled"]:
        return f'"{name}" is disabled: meshcron enable {name}'
    which = "next tick"
    if read(job["expires_at"]) is not None:
        which = f"tick up to its expires_at, {screen.when(job['expires_at'])}"
    return f'"{name}" has no {which}: meshcron run {name} runs it now'


def _print_ticks(screen: Screen, ticks: list[int], why_none: str) -> None:
    if screen.as_json:
        screen.data([iso(tick) for tick in ticks])
    elif ticks:
        for tick in ticks:
            screen.line(screen.moment(tick))
    else:
        screen.aside(why_none)
