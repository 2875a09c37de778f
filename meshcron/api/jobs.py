"""Jobs: list, show, create, replace, change, delete."""

from __future__ import annotations

from typing import ClassVar

from meshcron.api import fields, forms, job_list, runs, views
from meshcron.api.handler import LIST_SLICE, Handler
from meshcron.api.job_answers import show, show_answer
from meshcron.api.job_edits import edit, put, toggled
from meshcron.api.preconditions import if_revision
from meshcron.commands import DeleteJob


class Jobs(Handler):
    """`/v1/jobs`: all jobs. POST, and PATCH as Dkron has it, create or replace one."""

    NEEDS: ClassVar = {"GET": "viewer", "POST": "editor", "PATCH": "editor"}

    async def get(self) -> None:
        """The jobs, filtered, sorted and paged as API.md, point 7 says."""
        chosen, total = await job_list.choose(self.context.service.jobs(), self.query)
        slices = (
            [views.job(view) for view in chosen[at : at + LIST_SLICE]] for at in range(0, len(chosen), LIST_SLICE)
        )
        await self.show_list(slices, total)

    async def post(self) -> None:
        """Creates or replaces the job that the body describes."""
        await put(self, self.body(), None)

    async def patch(self) -> None:
        """The same, for Dkron's clients."""
        await put(self, self.body(), None)


class OneJob(Handler):
    """`/v1/jobs/{name}`. POST runs it."""

    NEEDS: ClassVar = {"GET": "viewer", "PUT": "editor", "PATCH": "editor", "DELETE": "editor", "POST": "operator"}

    def get(self, name: str) -> None:
        """The job and what the cluster knows of it."""
        show(self, self.context.service.job(fields.name(name, "name")))

    async def put(self, name: str) -> None:
        """Creates or replaces it."""
        await put(self, self.body(), fields.name(name, "name"))

    async def patch(self, name: str) -> None:
        """Changes what the body mentions (RFC 7396)."""
        body = self.body()
        show_answer(self, await edit(self, fields.name(name, "name"), lambda job: forms.job_patch(body, job)))

    async def delete(self, name: str) -> None:
        """Deletes it with its history; answers with the job as it was."""
        command = DeleteJob(
            name=fields.name(name, "name"), if_revision=if_revision(self.request.headers), actor=self.actor
        )
        show_answer(self, await self.context.service.delete_job(command, self.key))

    async def post(self, name: str) -> None:
        """Runs it now."""
        await runs.start(self, name)


class Toggle(Handler):
    """`POST /v1/jobs/{name}/toggle`: disables an enabled job, enables a disabled one."""

    NEEDS: ClassVar = {"POST": "operator"}

    async def post(self, name: str) -> None:
        """Answers with the job as it now is."""
        show_answer(self, await edit(self, fields.name(name, "name"), toggled))
