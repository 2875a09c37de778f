"""Lists of executions: which part, in which order, read and rendered slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

from meshcron.api import views
from meshcron.api.handler import LIST_SLICE
from meshcron.api.query import Page
from meshcron.api.views import Shown
from meshcron.errors import InvalidRequest
from meshcron.model import Execution
from meshcron.service import Service

NATURAL = frozenset({"id", "started_at", "scheduled_at", "group", "run_id"})
"""Columns by which executions lie in order anyway: the order in which they were decided."""

SORTED_MAX = 1000
"""So many are sorted by another column; the usual history of a job is 100 runs."""

COLUMNS = ("finished_at", "node_name", "status", "success", "attempt", "trigger", "duration_ms", "lateness_ms")
"""The other columns to sort by."""


def slices(service: Service, executions: Sequence[Execution], limit: int | None) -> Iterator[list[Shown]]:
    """Executions of any jobs as answers, `LIST_SLICE` at a time."""
    for at in range(0, len(executions), LIST_SLICE):
        yield [
            views.execution(each, service.job_name(each.uid), output_limit=limit)
            for each in executions[at : at + LIST_SLICE]
        ]


def of_job(service: Service, name: str, page: Page, limit: int | None) -> tuple[Iterator[list[Shown]], int]:
    """A page of one job's executions, and how many there are. Raises UnknownJob, InvalidRequest."""
    if page.sort and page.sort not in NATURAL:
        return _sorted(service, name, page, limit)
    first, total = _read(service, name, page, page.start)
    return _pages(service, name, page, first, limit), total


def _read(service: Service, name: str, page: Page, offset: int) -> tuple[list[Execution], int]:
    most = LIST_SLICE if page.end is None else max(0, min(LIST_SLICE, page.end - offset))
    return service.executions(name, newest_first=page.descending, offset=offset, limit=most)


def _pages(service: Service, name: str, page: Page, first: list[Execution], limit: int | None) -> Iterator[list[Shown]]:
    some, offset = first, page.start
    while some:
        yield [views.execution(each, name, output_limit=limit) for each in some]
        offset += len(some)
        some = _read(service, name, page, offset)[0] if len(some) == LIST_SLICE else []


def _sorted(service: Service, name: str, page: Page, limit: int | None) -> tuple[Iterator[list[Shown]], int]:
    if page.sort not in COLUMNS:
        raise InvalidRequest("_sort", "is not a column to sort by", "one of id, " + ", ".join(COLUMNS))
    found, total = service.executions(name, newest_first=page.descending, offset=0, limit=SORTED_MAX)
    if total > SORTED_MAX:
        raise InvalidRequest("_sort", f"sorts at most {SORTED_MAX} executions, of {total}", "_sort=started_at")
    shown = [views.execution(each, name, output_limit=limit) for each in found]
    column: Callable[[Shown], Any] = itemgetter(page.sort)  # all of one type
    shown.sort(key=column, reverse=page.descending)
    return iter([shown[page.start : page.end]]), total
