"""What this session knows of one execution's processes, and what can be done to them."""

from __future__ import annotations

import os
import signal
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from meshcron.runtime.output import OutputFile
from meshcron.runtime.process_table import ProcessStat, Quarry, Table, hears_by_default, signal_process

HUNT_SECONDS = 0.05
HUNTS_MAX = 20
"""After a KILL, what left the group is looked for again every HUNT_SECONDS until nothing is found, this often at most:
who forks faster than that needs a limit on its processes."""

INSIST_SECONDS = 0.02
INSISTS_MAX = 100
"""How long, and how often, a TERM waits for a command that its trampoline has not executed yet: 2 s, when usually it
takes a millisecond."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Process:
    """One trampoline, the job under it and what they write."""

    execution_id: str
    pid: int
    """Of the trampoline, its session and its group."""
    start: int
    """In clock ticks since boot."""
    pidfd: int
    """-1: none could be had, or it is closed."""
    output: OutputFile
    child: bool = False
    """False: adopted. Another reaper is its parent, and how it ended is only in its status file."""
    uid: int = 0
    """Of the job's user, who owns the output."""
    mark: bytes = b""
    """The entry of its environment that names it; of an adopted one it is looked up when it is signalled."""
    known: frozenset[ProcessStat] = frozenset()
    """Its processes as of the last signal: some lose their parent by it, and with it their trace."""
    fatal: int = 0
    """The signal of ours that ends the trampoline as well: KILL, or a TERM before it ran anything."""
    waited: int | None = None
    """The wait status of a child that was reaped."""
    over: bool = False
    """The trampoline is gone: its number may be another's by now, and nothing may be signalled by it."""
    unbounded: bool = False
    """Its output could not be kept below the cap; that is said once."""

    def signal(self, number: int, table: Table | None) -> None:
        """Signal its group; TERM is followed by CONT, for a stopped process hears nothing else.

        With KILL, or once the trampoline is gone, also what left the group, as far as `table` shows it. Without one the
        trampoline is taken to have no command yet.
        """
        if table:
            self.mark = self.mark or table.mark(self.pid)
            self.known = table.family(self._quarry(), self.known)
        if number == signal.SIGKILL or not table or not table.job(self.pid):
            self.fatal = number
        if not self.over:
            with suppress(ProcessLookupError, PermissionError):  # gone, or a set-user-id program of another's
                os.killpg(self.pid, number)
                if number == signal.SIGTERM:
                    os.killpg(self.pid, signal.SIGCONT)
        if number == signal.SIGKILL or self.over:
            for stat in self.known:
                signal_process(stat, number)

    def insist(self, loop: AbstractEventLoop, table: Callable[[], Table]) -> None:
        """After a TERM: see that it was not lost on a trampoline that had no command under it yet.

        The trampoline catches TERM to outlive its command, and a child forked in this very moment may have inherited
        that. So once there is a command that would die of TERM and lives, it gets another.
        """

        def again(left: int) -> None:
            if self.over:
                return
            try:
                job = table().job(self.pid)
            except OSError:  # no descriptor left to look with
                loop.call_later(INSIST_SECONDS, again, left)
                return
            if job and hears_by_default(job, signal.SIGTERM):
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGTERM)
            elif left:
                loop.call_later(INSIST_SECONDS, again, left - 1)

        if self.fatal == signal.SIGTERM:
            loop.call_later(INSIST_SECONDS, again, INSISTS_MAX)

    def hunt(self, loop: AbstractEventLoop, table: Callable[[], Table]) -> None:
        """After a KILL: do it again to what was forked meanwhile, until nothing is found."""
        quarry, known = self._quarry(), self.known

        def again(left: int) -> None:
            try:
                found = table().family(quarry, known)
            except OSError:  # no descriptor left to look with
                loop.call_later(HUNT_SECONDS, again, left)
                return
            for stat in found:
                signal_process(stat, signal.SIGKILL)
            if found and left:
                loop.call_later(HUNT_SECONDS, again, left - 1)

        loop.call_later(HUNT_SECONDS, again, HUNTS_MAX)

    def _quarry(self) -> Quarry:
        return Quarry(0 if self.over else self.pid, self.start, self.output.identity(), self.mark)

    def still_written(self) -> bool | None:
        """Whether anything still writes its output; None where the file system cannot tell and its group is gone."""
        writers = self.output.has_writers()
        if writers is None and self.pid:
            with suppress(ProcessLookupError):
                with suppress(PermissionError):  # what is left runs as somebody else (sudo -b)
                    os.killpg(self.pid, 0)
                return True
        return writers

    def keep_bounded(self) -> bool:
        """Keep its output below the cap; True when that gave something back (it is filling fast)."""
        try:
            return self.output.keep_bounded()
        except OSError as error:
            if not self.unbounded:
                self.unbounded = True
                _log.warning("output cannot be kept below its cap", execution=self.execution_id, why=str(error))
            return False
