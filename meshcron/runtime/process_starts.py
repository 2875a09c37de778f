"""From a launch to a process: what waits for its start, and the starts under way."""

from __future__ import annotations

import os
from asyncio import AbstractEventLoop
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from meshcron.core.events import Event, ProcessLost, ProcessNotStarted
from meshcron.errors import InvalidRequest
from meshcron.model import Launch
from meshcron.runtime.launch import Plan, Planner, why_not
from meshcron.runtime.output import OutputFile
from meshcron.runtime.process_folder import Folders
from meshcron.runtime.process_record import Process
from meshcron.runtime.process_spawner import Outcome, Spawned, Spawner

UNDER_WAY_MAX = 32
"""Starts handed to the spawner's threads, enough to last them through a long turn of the loop. What is not handed over
yet can be withdrawn as if it had never been asked for."""

TURN_SECONDS = 0.003
"""No further start is prepared in a turn of the loop that took this long already; each takes some 0.1 ms."""


@dataclass(slots=True)
class _UnderWay:
    """A start that the kernel has not answered yet."""

    plan: Plan
    output: OutputFile
    number: int
    """Starts are counted in the order in which they were handed over."""
    stop: bool | None = None
    """A signal that came too early for a pid: forced or not."""


Started = Callable[[Process, int, bool | None], None]
"""Takes over a child that was started, when that was (wall clock), and the stop that waits for it, forced or not."""


class Starts:
    """Starts the processes of launches, each execution id at most once, in the order of the launches.

    `started` gets each process, `emit` hears of each launch that led to none; both come from the loop.
    """

    def __init__(
        self,
        folders: Folders,
        open_output: Callable[[str], OutputFile],
        started: Started,
        emit: Callable[[Event], None],
        wall_clock_us: Callable[[], int],
    ) -> None:
        self._folders = folders
        self._open_output = open_output
        self._started = started
        self._emit = emit
        self._spawner = Spawner(self._spawned, wall_clock_us)
        self._queue: OrderedDict[str, Launch] = OrderedDict()
        self._under_way: OrderedDict[str, _UnderWay] = OrderedDict()
        self._count = 0
        self._stranger = 0, 0
        self._coming = False
        self._closed = False
        self._loop: AbstractEventLoop
        self._planner: Planner

    def __contains__(self, execution_id: str) -> bool:
        return execution_id in self._queue or execution_id in self._under_way

    def start(self, loop: AbstractEventLoop, planner: Planner) -> None:
        """Learn where and as what the processes are to run."""
        self._loop, self._planner = loop, planner
        self._spawner.start(loop)

    def close(self) -> None:
        """Start nothing more. What is under way is waited for and let go: it runs on, and nobody is told."""
        self._closed = True
        self._queue.clear()
        self._spawner.close()

    def launch(self, launch: Launch) -> None:
        """Start it from one of the next turns of the loop."""
        self._queue[launch.execution_id] = launch
        self._start_soon()

    def stop(self, execution_id: str, *, force: bool) -> None:
        """One that still waits is not started any more; one under way is handed over to be stopped at once."""
        if self._queue.pop(execution_id, None):
            self._emit(ProcessNotStarted(execution_id, "stopped before it was started"))
        elif asked := self._under_way.get(execution_id):
            asked.stop = force or bool(asked.stop)

    def may_have_made(self, pid: int) -> bool:
        """Whether a child that has ended, and that nobody knows, may be one whose start is not reported yet.

        It may be until every start that was under way when it was first asked for has been.
        """
        if self._stranger[0] != pid:
            self._stranger = pid, self._count
        oldest = next(iter(self._under_way.values()), None)
        if oldest is not None and oldest.number <= self._stranger[1]:
            return True
        self._stranger = 0, 0
        return False

    def _start_soon(self) -> None:
        if self._queue and not self._coming and len(self._under_way) < UNDER_WAY_MAX:
            self._coming = True
            self._loop.call_soon(self._start_some)

    def _start_some(self) -> None:
        self._coming = False
        until = self._loop.time() + TURN_SECONDS
        while self._queue and len(self._under_way) < UNDER_WAY_MAX and self._loop.time() < until:
            self._start(self._queue.popitem(last=False)[1])
        self._start_soon()

    def _start(self, launch: Launch) -> None:
        execution_id = launch.execution_id
        try:
            folder = self._folders.path(execution_id)
            plan = self._planner.plan(launch, folder)
            self._folders.take(execution_id, plan.uid)
        except FileExistsError:
            self._emit(ProcessLost(execution_id, "it was started before, and is not started twice"))
            return
        except (InvalidRequest, ValueError, OSError) as error:
            self._emit(ProcessNotStarted(execution_id, why_not(error)))
            return
        try:
            output = self._output(plan, folder)
        except OSError as error:
            self._failed(execution_id, error)
            return
        self._count += 1
        self._under_way[execution_id] = _UnderWay(plan, output, self._count)
        self._spawner.spawn(execution_id, plan, folder)

    def _output(self, plan: Plan, folder: str) -> OutputFile:
        output = self._open_output(folder)
        if output.total_bytes:  # a spare one that somebody has written into since: it is no output of this execution
            output.close()
            os.unlink(f"{folder}/output")  # noqa: PTH108 - as all paths of a launch
            output = self._open_output(folder)
        try:
            if plan.gid is not None:
                output.give_to(plan.uid, plan.gid)
        except OSError:
            output.close()
            raise
        return output

    def _failed(self, execution_id: str, error: OSError) -> None:
        self._folders.retire(execution_id, empty=True, owner=None)
        self._emit(ProcessNotStarted(execution_id, why_not(error)))

    def _spawned(self, execution_id: str, outcome: Outcome) -> None:
        asked = self._under_way.pop(execution_id)
        if self._closed:
            _let_go(asked, outcome)
            return
        if isinstance(outcome, OSError):
            asked.output.close()
            self._failed(execution_id, outcome)
        else:
            process = Process(execution_id, outcome.pid, outcome.start, outcome.pidfd, asked.output, child=True)
            process.uid, process.mark = asked.plan.uid, asked.plan.mark
            self._stranger = 0, 0  # it may have been this one, and its number may be another's later
            self._started(process, outcome.wall_us, asked.stop)
        self._start_soon()


def _let_go(asked: _UnderWay, outcome: Outcome) -> None:
    asked.output.close()
    if isinstance(outcome, Spawned) and outcome.pidfd >= 0:
        os.close(outcome.pidfd)
