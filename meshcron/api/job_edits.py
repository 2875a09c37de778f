"""Writes of one job: stored whole, or changed where it stands, however many others change it too."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import quote

import msgspec

from meshcron.api import forms
from meshcron.api.bodies import JsonObject
from meshcron.api.handler import Handler
from meshcron.api.job_answers import show_answer
from meshcron.api.preconditions import if_revision, must_exist
from meshcron.commands import JobAnswer, JobView, PutJob
from meshcron.errors import Conflict, PreconditionFailed, UnknownJob
from meshcron.model import Job

EDIT_TRIES = 5
"""How often a change is made anew because somebody else's came in between."""

EDIT_PAUSE_SECONDS = 0.05
"""Between two tries: this agent may still have to hear of the other change."""


def toggled(job: Job) -> Job:
    """The job with its switch turned."""
    return msgspec.structs.replace(job, disabled=not job.disabled)


async def put(handler: Handler, body: JsonObject, name: str | None) -> None:
    """Stores the job of a body: 201, also where it replaces one."""
    stored = current(handler, body.get("name") if name is None else name)
    store = _replace if must_exist(handler.request.headers) else _store
    answer = await store(handler, body, name, stored)
    handler.set_header("Location", f"/v1/jobs/{quote(answer.view.job.name)}")
    show_answer(handler, answer, HTTPStatus.CREATED)


async def _store(handler: Handler, body: JsonObject, name: str | None, stored: JobView | None) -> JobAnswer:
    command = PutJob(
        job=forms.job_form(body, stored.job if stored else None, name),
        if_revision=if_revision(handler.request.headers),
        run_on_create="runoncreate" in handler.query,
        actor=handler.actor,
    )
    return await handler.context.service.put_job(command, handler.key)


async def _replace(handler: Handler, body: JsonObject, name: str | None, stored: JobView | None) -> JobAnswer:
    """As an edit, so that a job that is deleted in the same moment is not made again."""
    run_now = "runoncreate" in handler.query
    if stored is not None:
        try:
            return await edit(handler, stored.job.name, lambda job: forms.job_form(body, job, name), run_now=run_now)
        except UnknownJob:
            pass
    raise PreconditionFailed("there is no such job, and If-Match wants one; leave it out to create the job")


async def edit(handler: Handler, name: str, change: Callable[[Job], Job], *, run_now: bool = False) -> JobAnswer:
    """Stores a change of a job, made anew where another change came in between. Raises Conflict where that persists."""
    wanted = if_revision(handler.request.headers)
    for _ in range(EDIT_TRIES):
        view = handler.context.service.job(name)
        command = PutJob(
            job=change(view.job),
            if_revision=view.revision if wanted is None else wanted,
            run_on_create=run_now,
            actor=handler.actor,
        )
        try:
            return await handler.context.service.put_job(command, handler.key)
        except PreconditionFailed:
            if wanted is not None or await handler.pause(EDIT_PAUSE_SECONDS):
                raise
    raise Conflict("name", f"the job {name!r} is being changed by somebody else", "try again")


def current(handler: Handler, name: object) -> JobView | None:
    """The job stored under a name, None where there is none."""
    if not isinstance(name, str):
        return None
    try:
        return handler.context.service.job(name)
    except UnknownJob:
        return None
