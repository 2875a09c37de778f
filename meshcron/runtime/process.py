"""Runs commands: each in its own session under a trampoline, found again after a restart of the agent.

What to start, when to signal and how to judge an ending is decided elsewhere (core/runner.py). Everything here happens
on the loop's thread and ends as an event.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from meshcron.core.events import Event, ProcessEnded, ProcessLost, ProcessStarted
from meshcron.model import Launch
from meshcron.runtime.launch import Planner, RunAsPolicy, Tools, User
from meshcron.runtime.output import OUTPUT_BYTES_MIN, OutputFile
from meshcron.runtime.process_ending import ending_of
from meshcron.runtime.process_folder import Folders, Remains
from meshcron.runtime.process_outputs import Outputs
from meshcron.runtime.process_reaper import Reaper
from meshcron.runtime.process_record import Process
from meshcron.runtime.process_spawn import become_subreaper, guard_descriptors
from meshcron.runtime.process_starts import Starts
from meshcron.runtime.process_table import Table, is_trampoline, process_stat
from meshcron.runtime.trampoline import read_status, shell_reports_deaths

WATCH_SECONDS = 0.1
"""How often the outputs of what runs are looked at (PROTOCOL 6, Runner)."""

WATCH_FAST_SECONDS = 0.01
"""The same once one has passed its cap: at 1 GB/s it gains 10 MB in this time."""

WATCH_FAST_FOR_SECONDS = 1.0
"""For so long after it last did: who writes so much seldom stops for good."""

WATCH_IDLE_SECONDS = 1.0
"""How often orphans are reaped when nothing runs but the agent still has children (a daemon that a job left, or what
was there before the agent)."""

START_LATE_TICKS = 100
"""The true start of a process may be later than the one written down, which the spawner could not ask for, by as long
as a fork takes: a second, generously."""

_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What passes: it is asked again later. Any other error of a disk stays, and nothing may wait for its end."""


class Processes:
    """Starts, adopts, signals and watches the processes of executions; keeps their output below `folder`.

    `emit` hears how each went, from within `adopt` and `signal` or later from the loop. At most one process is ever
    started under one execution id. Reaps the orphans of jobs: who else starts processes in the agent must leave them
    in the agent's session, and wait for them (process_reaper.py).
    """

    def __init__(
        self,
        folder: Path,
        emit: Callable[[Event], None],
        *,
        policy: RunAsPolicy,
        output_bytes_max: int = 10 * 1024 * 1024,
        wall_clock_us: Callable[[], int],
        open_files: int | None = None,
    ) -> None:
        """`open_files`: the soft limit on open files that jobs get; None = the agent's own."""
        self._folders = Folders(folder.absolute())
        self._emit = emit
        self._policy = policy
        self._open_files = open_files
        self._output_bytes_max = max(output_bytes_max, OUTPUT_BYTES_MIN)
        self._outputs = Outputs(self._folders, self._output_bytes_max)
        self._wall_clock_us = wall_clock_us
        self._starts = Starts(self._folders, self._open_output, self._started, emit, wall_clock_us)
        self._running: dict[str, Process] = {}
        self._children: dict[int, Process] = {}
        self._table: Table | None = None
        self._reaper: Reaper
        self._watch: asyncio.TimerHandle | None = None
        self._fast_until = 0.0
        self._loop: asyncio.AbstractEventLoop
        self._shell_reports: bool
        self._adoptions: dict[str, asyncio.TimerHandle] = {}
        """Those that have to be tried again."""

    def start(self) -> None:
        """Make the folders, become the reaper of orphans, learn what this machine has. Needs the running loop.

        Raises OSError when the folder cannot be made.
        """
        self._loop = asyncio.get_running_loop()
        guard_descriptors()
        become_subreaper()
        self._folders.start()
        planner = Planner(self._policy, User.own(), Tools.found(), self._open_files)
        self._starts.start(self._loop, planner)
        self._shell_reports = shell_reports_deaths()
        self._reaper = Reaper(self._ended, self._starts.may_have_made, self._loop.time)
        self._watch_within(WATCH_IDLE_SECONDS)

    def close(self) -> None:
        """Let go of everything; processes run on and are adopted by the next session. Emits nothing from now on."""
        for adoption in self._adoptions.values():
            adoption.cancel()
        self._starts.close()
        if self._watch:
            self._watch.cancel()
        for process in list(self._running.values()):
            self._leave(process)
            process.output.close()
        self._outputs.close()

    # Starting

    def launch(self, launch: Launch) -> None:
        """Start a process from one of the next turns of the loop. A second launch of an id changes nothing."""
        if self._is_open(launch.execution_id):
            return
        self._starts.launch(launch)

    def _started(self, process: Process, wall_us: int, stop: bool | None) -> None:
        self._children[process.pid] = process
        self._enter(process)
        self._watch_within(WATCH_SECONDS)
        self._emit(ProcessStarted(process.execution_id, process.pid, process.start, wall_us))
        if stop is not None:
            self.signal(process.execution_id, stop)

    def _enter(self, process: Process) -> None:
        self._running[process.execution_id] = process
        if process.pidfd >= 0:
            self._loop.add_reader(process.pidfd, self._exited, process)

    # Finding again

    def adopt(self, execution_id: str, pid: int, process_start: int) -> None:
        """Find out what became of a process of an earlier session (`effects.AdoptProcess`)."""
        self._adoptions.pop(execution_id, None)
        try:
            self._adopt(execution_id, pid, process_start)
        except OSError as error:
            if error.errno not in _SHORT:
                self._emit(ProcessLost(execution_id, f"what is left of it cannot be read: {error.strerror}"))
                return
            # Later, for nobody asks again.
            self._adoptions[execution_id] = self._loop.call_later(
                WATCH_SECONDS, self.adopt, execution_id, pid, process_start
            )

    def _adopt(self, execution_id: str, pid: int, process_start: int) -> None:
        if self._is_open(execution_id):
            return
        try:
            folder = self._folders.path(execution_id)
            started_wall_us = Path(folder).stat().st_ctime_ns // 1000  # it changes last when it is taken
        except (OSError, ValueError):
            self._emit(ProcessLost(execution_id, "there is no trace of it: the agent ended before it started it"))
            return
        status = read_status(Path(folder, "status"), execution_id)
        process = self._find(execution_id, folder, pid, process_start) if status.code is None else None
        if process:
            self._enter(process)
            self._watch_within(WATCH_SECONDS)
            self._emit(ProcessStarted(execution_id, process.pid, process.start, started_wall_us))
            return
        self._conclude(Process(execution_id, 0, 0, -1, self._open_output(folder)), started_wall_us)

    def _find(self, execution_id: str, folder: str, pid: int, process_start: int) -> Process | None:
        """The living trampoline of an execution, held by a pidfd: from then on its number cannot become another's."""
        pid = pid or self._processes().trampolines(self._folders.prefix).get(folder, 0)
        try:
            pidfd = os.pidfd_open(pid) if pid else -1
        except OSError:
            return None
        stat = process_stat(pid) if pid else None
        late = stat.start - process_start if stat and process_start else 0
        # The folder among its words also tells it from one that has its pid and start by chance after a reboot.
        if stat is None or not 0 <= late <= START_LATE_TICKS or not is_trampoline(pid, folder):
            if pidfd >= 0:
                os.close(pidfd)
            return None
        try:
            output = self._open_output(folder)
        except OSError:
            if pidfd >= 0:
                os.close(pidfd)
            raise
        return Process(execution_id, pid, stat.start, pidfd, output)

    def _processes(self) -> Table:
        """The processes of the machine, looked at once in a turn of the loop, however often they are asked for."""
        if self._table is None:
            self._table = Table.taken()
            self._loop.call_soon(self._lose_table)
        return self._table

    def _lose_table(self) -> None:
        self._table = None

    def _open_output(self, folder: str) -> OutputFile:
        return OutputFile.open(f"{folder}/output", self._output_bytes_max)

    # Signalling

    def signal(self, execution_id: str, force: bool) -> None:
        """TERM to the process group of an execution; with `force` KILL, and also to what left the group.

        One still waiting for its turn to be spawned is not started any more; of an unknown one nothing happens.
        """
        if execution_id in self._starts:
            self._starts.stop(execution_id, force=force)
            return
        process = self._running.get(execution_id) or self._outputs.written(execution_id)
        if process is None:
            return
        try:
            table = self._processes()
        except OSError:  # no descriptor left to look with, and nobody asks again: hunt and insist look later
            table = None
        if force:
            process.signal(signal.SIGKILL, table)
            process.hunt(self._loop, self._processes)
        else:
            process.signal(signal.SIGTERM, table)
            process.insist(self._loop, self._processes)

    # Ending

    def _exited(self, process: Process) -> None:
        """The trampoline is no more: reap it where it is ours."""
        if process.child:
            try:
                pid, process.waited = os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:  # reaped by somebody else: its file has to say it
                pid, process.waited = process.pid, None
            if not pid:
                return
        self._leave(process)
        self._conclude(process)

    def _leave(self, process: Process) -> None:
        self._running.pop(process.execution_id, None)
        self._children.pop(process.pid, None)
        if process.pidfd >= 0:
            self._loop.remove_reader(process.pidfd)
            os.close(process.pidfd)
            process.pidfd = -1

    def _conclude(self, process: Process, started_wall_us: int = 0) -> None:
        """Tell how a trampoline that is gone ended, as far as anybody can know."""
        folder = self._folders.path(process.execution_id)
        why = "its process is gone and left no exit status"
        try:
            ending = ending_of(process, folder, self._wall_clock_us(), self._shell_reports)
        except OSError as error:
            if error.errno in _SHORT:
                self._loop.call_later(WATCH_SECONDS, self._conclude, process, started_wall_us)
                return
            ending, why = None, f"its process is gone, and its exit status cannot be read: {error.strerror}"
        self._outputs.settle(process)
        self._watch_within(WATCH_SECONDS)
        if ending:
            self._emit(ProcessEnded(process.execution_id, ending, started_wall_us))
        else:
            self._emit(ProcessLost(process.execution_id, why))

    # Watching

    def _watch_within(self, seconds: float) -> None:
        when = self._loop.time() + seconds
        if self._watch is None or self._watch.when() > when:
            if self._watch:
                self._watch.cancel()
            self._watch = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        """Reap orphans, keep outputs bounded; come back as soon as anything gives reason to."""
        self._watch = None
        parent = self._reaper.look()
        written, fast = self._outputs.look()
        for process in self._running.values():
            fast |= process.keep_bounded()
        if fast:
            self._fast_until = self._loop.time() + WATCH_FAST_FOR_SECONDS
        if self._loop.time() < self._fast_until:
            self._watch_within(WATCH_FAST_SECONDS)
        elif self._running or written:
            self._watch_within(WATCH_SECONDS)
        elif parent:
            self._watch_within(WATCH_IDLE_SECONDS)

    def _ended(self, pid: int) -> bool:
        process = self._children.get(pid)
        if process is None:
            return False
        self._exited(process)
        return True

    # Output, and the end of it

    def output_path(self, execution_id: str) -> Path | None:
        """The file with an execution's output; None when there is none (any more)."""
        return self._outputs.path(execution_id)

    def read_output(self, execution_id: str, offset: int, most: int) -> tuple[bytes, int, bool]:
        """A part of an output from `offset` of its stream on, the offset to go on from, and whether nothing more will
        come. What is not kept appears once, as a line that says how much. An unknown execution reads as empty."""
        data, reached, last = self._outputs.read(execution_id, offset, most)
        return data, reached, last and not self._is_open(execution_id)

    def forget(self, execution_id: str) -> None:
        """The outcome is committed: keep the output if there is any, release all else. A running one stays as it is."""
        if not self._is_open(execution_id):
            self._outputs.forget(execution_id)

    def remains(self) -> Iterator[Remains]:
        """What lies on the disk of executions, also of those that run; it may be taken slowly. Raises OSError."""
        return self._outputs.remains()

    def is_over(self, execution_id: str) -> bool:
        """Whether nothing runs or writes of an execution, and its outcome is not waiting to be committed."""
        return not self._is_open(execution_id) and not self._outputs.is_left(execution_id)

    @property
    def kept_bytes(self) -> int:
        """How much output executions have left on the disk in this session, about; it only grows."""
        return self._outputs.kept_bytes

    def drop_output(self, execution_ids: Iterable[str]) -> None:
        """Remove what is kept of executions whose records are pruned, during the next turns of the loop."""
        self._outputs.drop([which for which in execution_ids if not self._is_open(which)], self._loop)

    def _is_open(self, execution_id: str) -> bool:
        return execution_id in self._running or execution_id in self._starts
