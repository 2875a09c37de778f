"""What executions leave: their output from the end of the process until the record is pruned."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from meshcron.runtime.output import read_output
from meshcron.runtime.process_folder import Folders, Remains
from meshcron.runtime.process_record import Process

DROPS_PER_TURN = 50
"""Removed outputs a turn of the loop, some 50 us each."""


@dataclass(frozen=True, slots=True)
class _Left:
    """What is known of an execution that ended in this session and is not forgotten yet."""

    empty: bool
    owner: int | None
    """The uid that may have the empty output again; None when something may still write it."""
    bytes: int
    """What its output takes of the disk, about."""


class Outputs:
    """The outputs of executions that are over. Something may still write them (`sleep 9 &`): then they stay bounded."""

    def __init__(self, folders: Folders, bytes_max: int) -> None:
        self._folders = folders
        self._bytes_max = bytes_max
        self._left: dict[str, _Left] = {}
        self._written: dict[str, Process] = {}
        self._drops: list[str] = []
        self.kept_bytes = 0
        """Of the outputs kept by `forget` in this session, about; it only grows."""

    def close(self) -> None:
        """Let go of the descriptors."""
        for process in self._written.values():
            process.output.close()
        self._written.clear()

    def written(self, execution_id: str) -> Process | None:
        """An execution that is over while something of it still writes."""
        return self._written.get(execution_id)

    def settle(self, process: Process) -> None:
        """The trampoline of `process` is gone: keep watching an output that something still writes, close any other."""
        process.over = True
        writers = process.still_written()
        size = min(process.output.total_bytes, self._bytes_max)
        if writers:
            self._left[process.execution_id] = _Left(empty=False, owner=None, bytes=size)
            self._written[process.execution_id] = process
            return
        self._left[process.execution_id] = _Left(size == 0, process.uid if writers is False else None, size)
        process.output.close()

    def look(self) -> tuple[bool, bool]:
        """Keep bounded what is still written. Whether there is such a one, and whether one fills fast."""
        fast = [process for process in self._written.values() if process.keep_bounded()]
        for process in [process for process in self._written.values() if not process.still_written()]:
            self._let_go(process)
        return bool(self._written), bool(fast)

    def _let_go(self, process: Process) -> None:
        execution_id = process.execution_id
        del self._written[execution_id]
        size = min(process.output.total_bytes, self._bytes_max)
        process.output.close()
        if execution_id in self._left:
            self._left[execution_id] = _Left(size == 0, owner=None, bytes=size)
        elif not size:
            self._folders.drop(execution_id)

    def path(self, execution_id: str) -> Path | None:
        """The file with an execution's output, also of one that runs; None when there is none (any more)."""
        return self._folders.output(execution_id)

    def read(self, execution_id: str, offset: int, most: int) -> tuple[bytes, int, bool]:
        """As `output.read_output`; an unknown execution reads as empty."""
        path = self.path(execution_id)
        return read_output(path, offset, most, self._bytes_max) if path else (b"", offset, True)

    def forget(self, execution_id: str) -> None:
        """Keep the output if there is any, and release the folder."""
        left = self._left.pop(execution_id, None)
        if left is None:  # it ended in an earlier session
            path = self.path(execution_id)
            size = path.stat().st_size if path else 0
            left = _Left(size == 0, owner=None, bytes=min(size, self._bytes_max))
        self.kept_bytes += left.bytes
        self._folders.retire(execution_id, empty=left.empty, owner=left.owner)

    def remains(self) -> Iterator[Remains]:
        """As `Folders.remains`."""
        return self._folders.remains()

    def is_left(self, execution_id: str) -> bool:
        """Whether it ended in this session and is not forgotten yet, or is still written."""
        return execution_id in self._left or execution_id in self._written

    def drop(self, execution_ids: Iterable[str], loop: AbstractEventLoop) -> None:
        """Remove what is kept of these; in slices, from the next turns of the loop."""
        self._drops.extend(execution_ids)
        loop.call_soon(self._drop_some, loop)

    def _drop_some(self, loop: AbstractEventLoop) -> None:
        slice_, self._drops = self._drops[:DROPS_PER_TURN], self._drops[DROPS_PER_TURN:]
        for execution_id in slice_:
            self._left.pop(execution_id, None)
            self._folders.drop(execution_id)
        if self._drops:
            loop.call_soon(self._drop_some, loop)
