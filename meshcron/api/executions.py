"""Executions: of one job, of all jobs, one of them; clear a history, kill what runs."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, ClassVar

from meshcron.api import execution_list, fields, job_answers, views
from meshcron.api.handler import LIST_SLICE, Handler
from meshcron.api.output import piece
from meshcron.api.query import Query
from meshcron.commands import ClearHistory, StopRun
from meshcron.errors import Conflict, InvalidRequest, NoLeader, UnknownExecution
from meshcron.model import OUTPUT_TAIL_BYTES, Execution, Status
from meshcron.service import Service

if TYPE_CHECKING:
    from meshcron.api.context import Context

HISTORY_DEFAULT = 100
HISTORY_MAX = 1000
"""Executions of all jobs in one answer; there may be a million (LIMITS 6)."""

WAITING = "waiting"
"""How an armed execution is shown that cannot start yet (`views.execution_status`)."""

OUTPUT_SHOWN_MAX = 1024 * 1024
"""Output shown within an execution; the rest is read at `.../output`."""

OUTPUT_SECONDS = 3.0
"""How long another agent may take to show it: whoever passed the request on waits for 6 s in all (runtime/calls)."""


class NewestFirst(Handler):
    """`/v1/jobs/{name}/executions`."""

    NEEDS: ClassVar = {"GET": "viewer", "DELETE": "editor"}
    DESCENDING: ClassVar[bool] = True

    async def get(self, name: str) -> None:
        """The job's executions, paged and sorted as API.md, point 7 says."""
        query = self.query
        page = query.page(descending=self.DESCENDING)
        limit = query.whole("output_size_limit")
        found, total = execution_list.of_job(self.context.service, fields.name(name, "name"), page, limit)
        await self.show_list(found, total)

    async def delete(self, name: str) -> None:
        """Forgets what has ended, and the counters, of exactly this job; answers with the job."""
        command = ClearHistory(name=fields.name(name, "name"), actor=self.actor)
        job_answers.show_answer(self, await self.context.service.clear_history(command, self.key))


class OldestFirst(NewestFirst):
    """`/v1/executions/{name}`, the reference's place and order."""

    DESCENDING: ClassVar[bool] = False


class OneExecution(Handler):
    """`.../executions/{id}`."""

    NEEDS: ClassVar = {"GET": "viewer"}

    async def get(self, name: str, execution_id: str) -> None:
        """The execution with its whole output, up to OUTPUT_SHOWN_MAX."""
        found = self.context.service.execution(fields.name(name, "name"), execution_id)
        output = await _whole_output(self.context, found)
        self.show(views.execution(found, name, output, self.query.whole("output_size_limit")))


class KillExecution(Handler):
    """`POST .../executions/{id}/kill`: TERM to its process group, KILL after a grace."""

    NEEDS: ClassVar = {"POST": "operator"}

    async def post(self, name: str, execution_id: str) -> None:
        """Answers with the executions that were open, when the kill is committed: none where only its own retry was
        given up. Raises Conflict where it has ended and is owed none."""
        service = self.context.service
        found = service.execution(fields.name(name, "name"), execution_id)
        command = StopRun(run_id=found.run_id, execution_id=found.id, actor=self.actor)
        try:
            answer = await service.stop_run(command, self.key)
        except UnknownExecution:  # found above, it has ended; the core calls it by an id that is never shown
            raise Conflict("", f"the execution {execution_id!r} has ended") from None
        self.show({"run_id": answer.run_id, "executions": answer.public_ids})


class History(Handler):
    """`GET /v1/history?job=&agent=&status=&since=&until=`: executions of all jobs, newest first."""

    NEEDS: ClassVar = {"GET": "viewer"}

    async def get(self) -> None:
        """One page; there is no total, since counting a million rows takes too long."""
        service, query = self.context.service, self.query
        page = query.page(execution_list.NATURAL, descending=True)
        if not page.descending:
            raise InvalidRequest("_order", "is DESC for a history", "narrow it with since and until")
        most = min(HISTORY_DEFAULT if page.length is None else page.length, HISTORY_MAX)
        filters = history_filters(service, query)
        if filters.get("status") is Status.ARMED:
            word = WAITING if query.text("status") == WAITING else str(Status.ARMED)
            found = (await _armed(service, filters, word, page.start + most))[page.start :]
        else:
            found = service.history(filters=filters, offset=page.start, limit=most)
        await self.show_list(execution_list.slices(service, found, query.whole("output_size_limit")))


class Busy(Handler):
    """`GET /v1/busy`: what runs at this moment, on every agent."""

    NEEDS: ClassVar = {"GET": "viewer"}

    async def get(self) -> None:
        """Oldest first, as Dkron's clients expect."""
        service = self.context.service
        found = service.history(filters={"status": Status.RUNNING}, offset=0, limit=HISTORY_MAX)
        found.reverse()
        page, limit = self.query.page(execution_list.NATURAL), self.query.whole("output_size_limit")
        await self.show_list(execution_list.slices(service, page.of(found), limit), len(found))


def history_filters(service: Service, query: Query) -> dict[str, object]:
    """The filters of a history as `service.history` takes them. Raises UnknownJob, InvalidRequest."""
    filters: dict[str, object] = {}
    if job := query.text("job"):
        filters["uid"] = service.job(fields.name(job, "job")).uid
    if agent := query.text("agent"):
        filters["agent"] = fields.line()(agent, "agent")
    if status := query.text("status"):
        word = fields.choice(*(str(each) for each in Status), WAITING)(status, "status")
        filters["status"] = Status.ARMED if word == WAITING else Status(word)
    if (since_us := query.instant("since")) is not None:
        filters["since_wall_us"] = since_us
    if (until_us := query.instant("until")) is not None:
        filters["until_wall_us"] = until_us
    return filters


async def _armed(service: Service, filters: dict[str, object], word: str, most: int) -> list[Execution]:
    """The newest of the armed executions that are shown by this word: only the agent knows which of them wait."""
    found: list[Execution] = []
    for offset in count(0, LIST_SLICE):
        some = service.history(filters=filters, offset=offset, limit=LIST_SLICE)
        found += [each for each in some if views.execution_status(each) == word]
        if len(some) < LIST_SLICE or len(found) >= most:
            break
        await asyncio.sleep(0)
    return found[:most]


async def _whole_output(context: Context, found: Execution) -> str | None:
    """All that an execution wrote, None where its record has it all or only its tail is to be had."""
    if not found.status.final or found.output_bytes <= OUTPUT_TAIL_BYTES:
        return None
    try:
        async with asyncio.timeout(OUTPUT_SECONDS):
            content = await _read_whole(context, found)
    except (UnknownExecution, NoLeader, TimeoutError):
        return None
    return content.decode("utf-8", "replace") if len(content) > OUTPUT_TAIL_BYTES else None


async def _read_whole(context: Context, found: Execution) -> bytes:
    """An output from its beginning to its end, nothing where it is longer than OUTPUT_SHOWN_MAX."""
    content, offset = b"", 0
    while (left := OUTPUT_SHOWN_MAX - len(content)) > 0:
        chunk = await piece(context, found, offset, left)
        content, offset = content + chunk.data, chunk.next_offset
        if chunk.ended:
            return content
        if not chunk.data:
            break
    return b""
