"""Housekeeping on the disk: the outputs of executions whose records are gone, and of more than the disk should hold.

The records go by `Prune` entries; what they leave on this agent's disk goes here. Once an hour what lies there is
compared with the records, a few at a time with pauses in between, so that no turn of the loop notices (PROTOCOL 8).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Protocol

import structlog

from meshcron.model import Execution
from meshcron.runtime.process_folder import Remains

SWEEP_SECONDS = 3600.0
"""From the end of one sweep to the next: pruned outputs may take up room for so long."""

FIRST_SWEEP_SECONDS = 60.0
"""From the start on: what an earlier session left is in nobody's way, a start-up has better things to do."""

LOOK_SECONDS = 10.0
"""How often what was written since the last sweep is held against the cap."""

CAP_SWEEP_SECONDS = 60.0
"""The least time between two sweeps for the cap."""

SLICE = 50
"""Executions looked at in one turn of the loop: 50 us each for the record, 5 for the file, 50 where it is removed."""

PAUSE_SECONDS = 0.02
"""Between two slices: a sweep takes a tenth of the loop at most, and a hundred thousand outputs take a minute."""

AFTER_CAP = 0.9
"""Where the cap is passed so much of it is left in use, so that not each further output starts another sweep."""

MINUTE_US = 60_000_000

log = structlog.get_logger("meshcron")


class Outputs(Protocol):
    """What executions have left on this agent's disk (`process.Processes`)."""

    @property
    def kept_bytes(self) -> int: ...
    def remains(self) -> Iterator[Remains]: ...
    def is_over(self, execution_id: str) -> bool: ...
    def forget(self, execution_id: str) -> None: ...
    def drop_output(self, execution_ids: Iterable[str]) -> None: ...


class Housekeeping:
    """Removes outputs, from `start` to `close`. Touches nothing that runs, is still written or waits to be committed.

    - `record`: what the cluster knows of an execution. An output without a record goes; if it was written before
      `recovered_wall_us`, only `orphan_age_us` after it was written: a damaged database may have lost that record. So
      do all where this agent does not hold the log (`holds_log`), and knows of no record.
    - Over `total_bytes_max` in all, the outputs written longest ago go, to the minute; their records stay.
    """

    def __init__(
        self,
        outputs: Outputs,
        record: Callable[[str], Execution | None],
        *,
        holds_log: Callable[[], bool],
        recovered_wall_us: Callable[[], int],
        orphan_age_us: int,
        total_bytes_max: int,
        wall_clock_us: Callable[[], int],
    ) -> None:
        self._outputs = outputs
        self._record = record
        self._holds_log = holds_log
        self._recovered_wall_us = recovered_wall_us
        self._orphan_age_us = orphan_age_us
        self._total_bytes_max = total_bytes_max
        self._wall_clock_us = wall_clock_us
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle
        self._next_sweep = 0.0
        self._swept = 0.0
        self._total_bytes = 0
        """What lay there at the end of the last sweep."""
        self._kept_bytes = 0
        """`Outputs.kept_bytes` at its beginning."""

    def start(self) -> None:
        """Begin; needs the running loop."""
        self._loop = asyncio.get_running_loop()
        self._swept = self._loop.time()
        self._next_sweep = self._swept + FIRST_SWEEP_SECONDS
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def close(self) -> None:
        """Do nothing from now on."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        grown_bytes = self._outputs.kept_bytes - self._kept_bytes
        over = grown_bytes > 0 and self._total_bytes + grown_bytes > self._total_bytes_max
        if now >= self._next_sweep or (over and now >= self._swept + CAP_SWEEP_SECONDS):
            self._step(self.sweep())
        else:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _step(self, slices: Iterator[None]) -> None:
        try:
            next(slices)
        except StopIteration:
            self._done()
        except OSError as error:
            log.warning("outputs of past executions could not be looked through", why=str(error))
            self._done()
        except BaseException:
            self._done()  # whatever it was, the next sweep comes
            raise
        else:
            self._timer = self._loop.call_later(PAUSE_SECONDS, self._step, slices)

    def _done(self) -> None:
        self._swept = self._loop.time()
        self._next_sweep = self._swept + SWEEP_SECONDS
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    # one sweep

    def sweep(self) -> Iterator[None]:
        """Look through everything once; does a slice for each `next`. Raises OSError."""
        self._kept_bytes = self._outputs.kept_bytes
        written: Counter[int] = Counter()
        for some in _slices(self._outputs.remains()):
            self._compare(some, written)
            yield
        self._total_bytes = sum(written.values())
        if self._total_bytes > self._total_bytes_max:
            yield from self._make_room(written)

    def _compare(self, some: list[Remains], written: Counter[int]) -> None:
        """Drop what has no record. Adds what stays to `written`: bytes by the minute they were written in."""
        gone = []
        for remains in some:
            over = self._outputs.is_over(remains.execution_id)
            record = self._record(remains.execution_id)
            if over and record is None and self._may_go(remains):
                gone.append(remains.execution_id)
                continue
            if over and record is not None and record.status.final and remains.folder:
                self._outputs.forget(remains.execution_id)  # an earlier session ended before it could
            written[remains.wall_us // MINUTE_US] += remains.bytes
        self._outputs.drop_output(gone)

    def _may_go(self, remains: Remains) -> bool:
        if self._holds_log() and remains.wall_us >= self._recovered_wall_us():
            return True
        return self._wall_clock_us() - remains.wall_us >= self._orphan_age_us

    def _make_room(self, written: Counter[int]) -> Iterator[None]:
        """Drop what was written longest ago until enough of the cap is free again."""
        target_bytes = int(self._total_bytes_max * AFTER_CAP)
        last, left_bytes = 0, self._total_bytes
        for minute in sorted(written):
            if left_bytes <= target_bytes:
                break
            last, left_bytes = minute, left_bytes - written[minute]
        dropped = 0
        for some in _slices(self._outputs.remains()):
            gone = []
            for remains in some:
                if self._total_bytes <= target_bytes:
                    break
                if remains.wall_us // MINUTE_US <= last and self._outputs.is_over(remains.execution_id):
                    gone.append(remains.execution_id)
                    self._total_bytes -= remains.bytes
            self._outputs.drop_output(gone)
            dropped += len(gone)
            yield
        if dropped:
            log.info("old outputs removed: output_total_max is reached", outputs=dropped, left_bytes=self._total_bytes)


def _slices(remains: Iterator[Remains]) -> Iterator[list[Remains]]:
    while some := list(islice(remains, SLICE)):
        yield some
