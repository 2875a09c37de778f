"""Runs: start one, wait for it, look at one, kill one."""

from __future__ import annotations

import re
from typing import ClassVar

from msgspec.structs import replace

from meshcron.api import execution_list, fields, forms, job_answers
from meshcron.api.handler import LIST_SLICE, Handler
from meshcron.api.views import Shown
from meshcron.commands import JobAnswer, RunJob, StopRun
from meshcron.errors import Forbidden, InvalidRequest, UnknownJob

WAIT_SECONDS_MAX = 3600.0
"""How long `?wait=` may wait; longer than that nobody holds a connection open."""

VIA_WAIT_SECONDS = 4.0
"""And where another agent passed the request on: that one waits for 6 s in all (runtime/calls), the commit included."""

LOOK_SECONDS_MIN = 0.02
LOOK_SECONDS_MAX = 0.5
"""Pause between two looks at a run that is waited for, from the first to the usual."""

DISK_SECONDS = 10.0
"""How long the answer about one run waits for the disk to show its end; a write takes milliseconds."""

OVER = "X-Meshcron-Over"
"""On a run, or a piece of an output: whether nothing more of it will come, and all of it is shown."""

INTERPRETED = re.compile(
    r"LD_|DYLD_|GCONV_|BASH_|PYTHON|PERL|RUBY|NODE_|_?JAVA_|JDK_|CLASSPATH$|LUA_|PHP|TCL|GIT_|OPENSSL_|XDG_|HOME$"
    r"|(CD|F)?PATH$|IFS$|ENV$|SHELL$|SHELLOPTS$|BASHOPTS$|PS4$|PROMPT_COMMAND$"
    r"|TAR_OPTIONS$|(GNU)?MAKEFLAGS$|MAKEFILES$|RCLONE_|RSYNC_CONNECT_PROG$|SVN_SSH$|\w+_RSH$|LESS(OPEN|CLOSE)$|VISUAL$"
    r"|\w*(EDITOR|PAGER|ASKPASS|PASSCOMMAND|PASSWORD_COMMAND)$"
)
"""Variables that make a shell, loader, interpreter or one of the usual tools run other code, by themselves or by the
files that it then reads: to set them is to edit the command."""


class StartRun(Handler):
    """`POST /v1/jobs/{name}/run`."""

    NEEDS: ClassVar = {"POST": "operator"}

    async def post(self, name: str) -> None:
        """Runs it now."""
        await start(self, name)


class OpenRuns(Handler):
    """`GET /v1/jobs/{name}/runs`: the runs of a job that are not over."""

    NEEDS: ClassVar = {"GET": "viewer"}

    async def get(self, name: str) -> None:
        """Each with its open executions, in the shape that a kill answers; one that only waits has none."""
        found = self.context.service.runs(fields.name(name, "name"))
        shown: list[Shown] = [{"run_id": run_id, "executions": public_ids} for run_id, public_ids in found.items()]
        chosen = self.query.page(()).of(shown)
        await self.show_list((chosen[at : at + LIST_SLICE] for at in range(0, len(chosen), LIST_SLICE)), len(shown))


class OneRun(Handler):
    """`GET /v1/runs/{id}`: all executions of a run, every attempt, oldest first."""

    NEEDS: ClassVar = {"GET": "viewer"}

    async def get(self, run_id: str) -> None:
        """Answers as the lists of executions do; a header says whether that is all."""
        service = self.context.service
        over = await _is_over(self, run_id, DISK_SECONDS)
        found = service.run(run_id)
        self.set_header(OVER, "true" if over else "false")
        page, limit = self.query.page(execution_list.NATURAL), self.query.whole("output_size_limit")
        await self.show_list(execution_list.slices(service, page.of(found), limit), len(found))


class KillRun(Handler):
    """`POST /v1/runs/{id}/kill`."""

    NEEDS: ClassVar = {"POST": "operator"}

    async def post(self, run_id: str) -> None:
        """Kills what runs of it and stops what is armed; answers with the executions that were open."""
        self.context.service.run(run_id)
        answer = await self.context.service.stop_run(StopRun(run_id=run_id, actor=self.actor), self.key)
        self.show({"run_id": answer.run_id, "executions": answer.public_ids})


async def start(handler: Handler, name: str) -> None:
    """Starts a run and answers with the job: at once, or with `?wait=SECONDS` when the run has ended."""
    env = forms.run_form(handler.optional_body())
    _check_env(handler, env)
    wait_seconds = _wait_seconds(handler)
    command = RunJob(name=fields.name(name, "name"), env=env, actor=handler.actor)
    answer = await handler.context.service.run_job(command, handler.key)
    if wait_seconds and await _wait(handler, answer.run_id, wait_seconds):
        answer = _as_it_now_is(handler, answer)
    job_answers.show_answer(handler, answer)


def _as_it_now_is(handler: Handler, answer: JobAnswer) -> JobAnswer:
    """The answer with the job after the run; as it was where it is gone, as an ephemeral one is after a success."""
    try:
        return replace(answer, view=handler.context.service.job(answer.view.job.name))
    except UnknownJob:
        return answer


async def _wait(handler: Handler, run_id: str, seconds: float) -> bool:
    """Waits for the end of a run, looking less and less often. False: it goes on, or nobody waits any more."""
    deadline = handler.context.monotonic() + seconds
    pause = LOOK_SECONDS_MIN
    while not await _is_over(handler, run_id, deadline - handler.context.monotonic()):
        left = deadline - handler.context.monotonic()
        if left <= 0 or await handler.pause(min(pause, left)):
            return False
        pause = min(pause * 2, LOOK_SECONDS_MAX)
    return True


async def _is_over(handler: Handler, run_id: str, seconds: float) -> bool:
    """Whether nothing more of a run will come. True only once its executions are shown as they ended: what is known
    of them in memory may be a write ahead of the disk, and an attempt missing there would be missed by who asked.
    `seconds`: how long it waits for that."""
    service = handler.context.service
    if service.run_goes_on(run_id):
        return False
    index, deadline = service.index(), handler.context.monotonic() + seconds
    while service.index_on_disk() < index:
        if handler.context.monotonic() >= deadline or await handler.pause(LOOK_SECONDS_MIN):
            return False
    return True


def _wait_seconds(handler: Handler) -> float:
    given = handler.query.text("wait")
    if given is None:
        return 0.0
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", given):
        raise InvalidRequest("wait", "is not a number of seconds", f"0 to {WAIT_SECONDS_MAX:g}")
    wanted = fields.number(0, WAIT_SECONDS_MAX)(float(given), "wait")
    return min(wanted, VIA_WAIT_SECONDS) if handler.admission.via else wanted


def _check_env(handler: Handler, env: dict[str, str] | None) -> None:
    """An operator may run what an editor wrote, not make it run something else."""
    caller = handler.admission.caller
    taken = next((key for key in env or {} if INTERPRETED.match(key)), None)
    if taken is not None and not (caller and caller.may("editor")):
        raise Forbidden(f"env.{taken} can change which code runs: this needs a token with the role editor")
