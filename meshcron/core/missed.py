"""Ticks that nobody could run in time: which of them are made up for, and which are too old (API.md, `catch_up`)."""

from __future__ import annotations

from meshcron.core.schedule import Schedule
from meshcron.model import SECOND_US, Job

RECENT_US = 10 * SECOND_US
"""A tick decided within this of its time runs, merely late; older ones are missed, catch_up decides (PROTOCOL 7)."""

CATCH_UP_MOST = 100
"""`catch_up: all` makes up at most so many ticks (API.md, Jobs)."""


def recent_us(job: Job, schedule: Schedule) -> int:
    """How late a tick of this job may be decided and is not missed."""
    if schedule.kind == "at":  # "late by less than start_deadline: runs" (API.md, @at)
        return job.start_deadline_us
    return min(RECENT_US, job.start_deadline_us)


def last_due(job: Job, schedule: Schedule, tick: int, wall_us: int) -> int:
    """The last tick up to now, from `tick` on, and within the job's `expires_at`."""
    until_us = min(wall_us, job.expires_at_wall_us or wall_us)
    return max(tick, schedule.latest_before(until_us, tick - 1) or tick)


def last_missed(job: Job, schedule: Schedule, tick: int, last: int, wall_us: int) -> int:
    """The last tick that is too old to run merely late."""
    recent = min(RECENT_US, job.start_deadline_us)
    if wall_us - last > recent:
        return last
    return schedule.latest_before(wall_us - recent - 1, tick - 1) or tick


def made_up(job: Job, schedule: Schedule, tick: int, last: int, wall_us: int) -> list[int]:
    """The missed ticks from `tick` to `last` that run after all, oldest first; recent ones count as such for
    `latest`."""
    oldest = wall_us - job.start_deadline_us
    recent = wall_us - last <= min(RECENT_US, job.start_deadline_us)
    if job.catch_up == "skip" or last < oldest:
        return []
    if job.catch_up == "latest":
        return [] if recent else [last]
    ticks = [last]
    while len(ticks) < CATCH_UP_MOST:
        before = schedule.latest_before(ticks[-1] - 1, tick - 1)
        if before is None or before < oldest:
            break
        ticks.append(before)
    return ticks[::-1]
