"""The kernel's table of processes, as /proc shows it: who is who, who came from whom.

A pid alone names nobody for long. A pid with its start time does, and so does a trampoline's argument vector, which
names the folder of its execution.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

ENV_MARK = "MESHCRON_EXECUTION"
"""The variable by which a process that left its session is known for a job's."""

_READ_BYTES = 4096
"""Enough for any /proc/PID/stat."""


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The part of /proc/PID/stat (proc(5)) that is used here. `start` is in clock ticks since boot."""

    pid: int
    state: str
    parent: int
    session: int
    start: int


def parse_stat(data: bytes) -> ProcessStat:
    """Read a line of /proc/PID/stat; the name in it may hold anything, brackets and spaces included."""
    pid, _, rest = data.partition(b" ")
    fields = rest[rest.rindex(b")") + 2 :].split()
    return ProcessStat(int(pid), fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def process_stat(pid: int) -> ProcessStat | None:
    """What the kernel says of a process; None when there is none (any more)."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return parse_stat(os.read(fd, _READ_BYTES))
    except OSError:  # it ended between the two calls
        return None
    finally:
        os.close(fd)


def children() -> list[ProcessStat]:
    """The processes whose parent is this one, also those that have ended and were not waited for (state Z)."""
    own = os.getpid()
    return [stat for stat in map(process_stat, _pids()) if stat and stat.parent == own]


def signal_process(stat: ProcessStat, number: int) -> None:
    """Signal exactly this process, not another that got its number; one that is gone or not ours to signal is left."""
    try:
        pidfd = os.pidfd_open(stat.pid)
    except OSError:
        return
    try:
        now = process_stat(stat.pid)
        if now and now.start == stat.start:
            signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        os.close(pidfd)


def is_trampoline(pid: int, folder: str) -> bool:
    """Whether a process is the trampoline of the execution with this folder.

    Its arguments name the folder; any user of the machine may start something that does too, so where the kernel lets
    us look, its standard error must be the folder's status file. One in the middle of its exec shows no arguments: on
    a busy machine a spawn returns milliseconds before it does (fs/exec.c: the parent is let go with the old memory).
    """
    words = _words(pid)
    if any(words) and os.fsencode(folder) not in words:
        return False
    try:
        return (PROC / str(pid) / "fd" / "2").samefile(Path(folder, "status"))
    except PermissionError:
        return any(words)
    except OSError:
        return False


def hears_by_default(pid: int, number: int) -> bool:
    """Whether a process would simply die of a signal: neither caught, ignored nor blocked. False when it is gone."""
    try:
        lines = (PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return False
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigBlk:", "SigIgn:", "SigCgt:"))]
    return bool(masks) and not any(mask >> (number - 1) & 1 for mask in masks)


@dataclass(frozen=True, slots=True)
class Quarry:
    """What is known of an execution whose processes are looked for."""

    session: int
    """The pid of its trampoline; 0 once that is gone and reaped: the number may be another's session by then."""
    start: int
    """When the trampoline started: nothing older belongs to it."""
    output: tuple[int, int]
    """st_dev and st_ino of its output file."""
    mark: bytes
    """The entry of its environment that names it; empty = unknown."""


class Table:
    """The living processes of the machine at one moment. Taking it costs about 10 us a process, asking it little."""

    def __init__(self, stats: Iterable[ProcessStat]) -> None:
        self._by_pid: dict[int, ProcessStat] = {}
        self._by_parent: defaultdict[int, list[ProcessStat]] = defaultdict(list)
        self._by_session: defaultdict[int, list[ProcessStat]] = defaultdict(list)
        self._traces: dict[int, _Trace] = {}
        for stat in stats:
            if stat.state != "Z":
                self._by_pid[stat.pid] = stat
                self._by_parent[stat.parent].append(stat)
                self._by_session[stat.session].append(stat)

    @staticmethod
    def taken() -> Table:
        """The processes of now."""
        return Table(stat for stat in map(process_stat, _pids()) if stat)

    def trampolines(self, prefix: str) -> dict[str, int]:
        """The pids of all trampolines whose folder begins with `prefix`, by folder.

        A trampoline's child carries the same arguments between fork and exec, but leads no session.
        """
        start = os.fsencode(prefix)
        leaders = (stat.pid for stat in self._by_pid.values() if stat.session == stat.pid)
        named = ((os.fsdecode(word), pid) for pid in leaders for word in _folders(pid) if word.startswith(start))
        return {folder: pid for folder, pid in named if is_trampoline(pid, folder)}

    def job(self, pid: int) -> int:
        """The pid of the command under the trampoline `pid`; 0 as long as that has not executed it."""
        for child in self._by_parent[pid]:
            if _words(child.pid) != _words(pid):  # between fork and exec they are the same
                return child.pid
        return 0

    def mark(self, pid: int) -> bytes:
        """The entry of the environment of the command under the trampoline `pid` that names its execution."""
        start = os.fsencode(f"{ENV_MARK}=")
        job = self.job(pid)
        return next((entry for entry in self._trace(job).environment if entry.startswith(start)), b"") if job else b""

    def family(self, quarry: Quarry, known: Iterable[ProcessStat] = ()) -> frozenset[ProcessStat]:
        """The processes of an execution: its session, and those that left it (setsid) and are still descendants, or,
        orphaned, still write its output or carry its mark. `known` were found to be of it before.

        Never the agent, its session or process 1. What left, closed and cleared everything cannot be found.
        """
        found = {stat for stat in known if self._by_pid.get(stat.pid, stat).start == stat.start}
        if quarry.session:
            found.update(self._by_session[quarry.session])
        found.update(orphan for orphan in self._orphans(quarry) if self._trace(orphan.pid).leads_to(quarry))
        fresh = found
        while fresh:
            fresh = {child for stat in fresh for child in self._by_parent[stat.pid]} - found
            found |= fresh
        own_session = os.getsid(0)
        return frozenset(
            stat
            for stat in found
            if stat.pid in self._by_pid and stat.pid != 1 and stat.session != own_session and stat.start >= quarry.start
        )

    def _orphans(self, quarry: Quarry) -> list[ProcessStat]:
        """Those whose parent is gone: children of the agent, of process 1, or of whoever inherits in between."""
        heirs = {os.getpid(), 1}
        if trampoline := self._by_pid.get(quarry.session):
            heirs.add(trampoline.parent)
        return [stat for heir in heirs for stat in self._by_parent[heir] if stat.start >= quarry.start]

    def _trace(self, pid: int) -> _Trace:
        if pid not in self._traces:
            self._traces[pid] = _Trace.of(pid)
        return self._traces[pid]


@dataclass(frozen=True, slots=True)
class _Trace:
    """By what an orphan can be known: the files it writes to, its environment."""

    files: tuple[tuple[int, int], ...]
    environment: frozenset[bytes]

    @staticmethod
    def of(pid: int) -> _Trace:
        files = tuple(file for fd in (1, 2) if (file := _file_of(pid, fd)))
        try:
            environment = (PROC / str(pid) / "environ").read_bytes()
        except OSError:
            environment = b""
        return _Trace(files, frozenset(environment.split(b"\0")))

    def leads_to(self, quarry: Quarry) -> bool:
        return quarry.output in self.files or (bool(quarry.mark) and quarry.mark in self.environment)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]  # noqa: PTH208 - names only, no paths


def _words(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _folders(pid: int) -> list[bytes]:
    """The words among which a trampoline's folder is; in the middle of its exec only its status file tells it."""
    words = _words(pid)
    if any(words):
        return words
    try:
        return [os.fsencode((PROC / str(pid) / "fd" / "2").readlink().parent)]
    except OSError:
        return []


def _file_of(pid: int, fd: int) -> tuple[int, int] | None:
    try:
        found = (PROC / str(pid) / "fd" / str(fd)).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
