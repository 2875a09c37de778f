"""Which jobs a list shows, and in which order. In slices: a hundred thousand of them must not hold up a tick."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Any

from meshcron.api import fields
from meshcron.api.query import Query
from meshcron.commands import JobView
from meshcron.errors import InvalidRequest
from meshcron.model import Status

SLICE = 2000
"""Jobs looked at in one turn of the loop: 1-2 ms."""

UNTRIGGERED = "untriggered"
"""How a query says "has no status yet", which is ""."""

STATUSES = (UNTRIGGERED, *(str(status) for status in Status if status is not Status.ARMED))
"""What a job's status may be asked to be: how its last run ended, or that one runs."""

Key = Callable[[JobView], Any]

COLUMNS: Mapping[str, Key] = {
    "id": lambda view: view.job.name,
    "name": lambda view: view.job.name,
    "displayname": lambda view: view.job.displayname,
    "schedule": lambda view: view.job.schedule,
    "timezone": lambda view: view.job.timezone,
    "command": lambda view: view.job.command,
    "owner": lambda view: view.job.owner,
    "owner_email": lambda view: view.job.owner_email,
    "run_as_user": lambda view: view.job.run_as_user,
    "disabled": lambda view: view.job.disabled,
    "retries": lambda view: view.job.retries,
    "parent_job": lambda view: view.job.parent_jobs,
    "concurrency": lambda view: view.job.concurrency,
    "executor": lambda view: view.job.executor,
    "timeout": lambda view: view.job.timeout_us,
    "ephemeral": lambda view: view.job.ephemeral,
    "starts_at": lambda view: view.job.starts_at_wall_us,
    "expires_at": lambda view: view.job.expires_at_wall_us,
    "success_count": lambda view: view.success_count,
    "error_count": lambda view: view.error_count,
    "last_success": lambda view: view.last_success_wall_us,
    "last_error": lambda view: view.last_error_wall_us,
    "status": lambda view: view.last_status,
    "next": lambda view: view.next_wall_us or 0,
}
"""Columns to sort by; what is a map or a list has no order."""


async def choose(jobs: Sequence[JobView], query: Query) -> tuple[Sequence[JobView], int]:
    """The page of jobs that a query asks for, and how many pass its filters. `jobs` come by name."""
    page = query.page()
    wanted = _filter(query)
    if page.sort and page.sort not in COLUMNS:
        raise InvalidRequest("_sort", "is not a column to sort by", "one of " + ", ".join(COLUMNS))
    key = COLUMNS[page.sort] if page.sort else None
    if key is None and wanted is None and not page.descending:
        return jobs[page.start : page.end], len(jobs)
    slices: list[list[JobView]] = []
    for at in range(0, len(jobs), SLICE):
        some = [view for view in jobs[at : at + SLICE] if wanted is None or wanted(view)]
        slices.append(sorted(some, key=key or COLUMNS["name"], reverse=page.descending))
        await asyncio.sleep(0)
    total = sum(map(len, slices))
    merged = merge(*slices, key=key or COLUMNS["name"], reverse=page.descending)
    ordered: list[JobView] = []
    while some := list(islice(merged, SLICE)):
        ordered += some
        if page.end is not None and len(ordered) >= page.end:
            break
        await asyncio.sleep(0)
    return ordered[page.start : page.end], total


def _filter(query: Query) -> Callable[[JobView], bool] | None:
    """What a job must be to be shown (API.md, point 7), None where everything passes."""
    tests: list[Callable[[JobView], bool]] = []
    if words := (query.text("q") or "").casefold():
        tests.append(lambda view: words in view.job.name.casefold() or words in view.job.displayname.casefold())
    if names := frozenset(query.all("id")):
        tests.append(lambda view: view.job.name in names)
    if status := query.text("status"):
        fields.choice(*STATUSES)(status, "status")
        status = "" if status == UNTRIGGERED else status
        tests.append(lambda view: view.last_status == status)
    if given := query.text("disabled"):
        disabled = fields.flag_word(given, "disabled")
        tests.append(lambda view: view.job.disabled is disabled)
    if tags := set(query.members("tags")):
        tests.append(lambda view: tags <= (view.job.tags or {}).items())
    if metadata := set(query.members("metadata")):
        tests.append(lambda view: metadata <= (view.job.metadata or {}).items())
    return (lambda view: all(test(view) for test in tests)) if tests else None
