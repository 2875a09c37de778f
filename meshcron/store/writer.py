"""The one thread that writes: whatever is queued becomes one transaction, and each durable group is told.

Set `sys.setswitchinterval(0.0005)` where it runs beside a busy loop: at the default a commit of 0.2 ms takes 20-40 ms
(PROTOCOL 5, measured).
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from meshcron.rows import BallotRow, ExecutionRow, JobRow, LogRow, Row
from meshcron.store.batch import Batch, fold
from meshcron.store.log import LogBase, write_base, write_log
from meshcron.store.shapes import CATALOG, ONLY
from meshcron.store.snapshot import Chunk, open_chunk
from meshcron.store.statements import write_rows
from meshcron.store.store import Store

GROUP_COST_MAX = 5000
"""Of one transaction, about 5 us each: a commit stays under 50 ms."""

EXECUTION_COST = 10
"""An execution stands in six indexes, of which three are scattered over the jobs."""

COST_BYTES = 512
"""Each further half kilobyte of a body or definition costs about as much as a row."""

FLOOR_SECONDS = 1.0
"""How often at most hard_state follows the database when the ballot has not changed (PROTOCOL 2, Amnesia)."""

CHECKPOINT_FRAMES = 1000
"""4 MiB, which a start scans in 70 ms."""

IDLE_CHECKPOINT_FRAMES = 250
"""When nothing has been written for FLOOR_SECONDS, a checkpoint disturbs nobody."""


class Hop(Protocol):
    """Has `callback(*arguments)` called soon in the loop's thread: `loop.call_soon_threadsafe`."""

    def __call__(self, callback: Callable[..., object], /, *arguments: object) -> object: ...


class _Rows(Struct, frozen=True):
    """What one Persist asks for."""

    n: int
    rows: tuple[Row, ...]


class _Install(Struct, frozen=True):
    """A snapshot in place of the catalog and the log."""

    n: int
    base: LogBase
    chunks: Sequence[Chunk]


class Writer:
    """The writing thread, between `start` and `close`.

    `on_persisted(n)`: all groups up to n are durable. `on_failure(error)`: a write or fsync failed; called once, after
    which nothing is written and nothing retried: the process must exit (FAULTS 23). `on_low_disk()`: the disk was
    full, the reserve was given back and the write done after all (FAULTS 22). All three come by way of `hop`. `clock`
    is any monotonic one, in seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_persisted: Callable[[int], object],
        on_failure: Callable[[BaseException], object],
        on_low_disk: Callable[[], object],
        hop: Hop,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._database = store.database
        self._on_persisted = on_persisted
        self._on_failure = on_failure
        self._on_low_disk = on_low_disk
        self._hop = hop
        self._clock = clock
        self._queue: SimpleQueue[_Rows | _Install | None] = SimpleQueue()
        self._held: list[_Rows | _Install | None] = []
        self._thread = Thread(target=self._run, name="store-writer", daemon=True)
        self._proved_at = 0.0
        self._proof_due = False
        self._tried_frames = 0

    def start(self) -> None:
        """Begin to write what is submitted."""
        self._proved_at = self._clock()
        self._thread.start()

    def submit(self, n: int, rows: tuple[Row, ...]) -> None:
        """Have these rows written in this order, all or nothing; `on_persisted(n)` or a higher n will say so. Never
        blocks. Groups of several calls are committed together, never out of order."""
        self._queue.put(_Rows(n, rows))

    def install(self, n: int, base: LogBase, chunks: Sequence[Chunk]) -> None:
        """Have a snapshot take the place of catalog and log, all or nothing; the log goes on after `base`. The chunks
        are whole and were opened once (snapshot.py: is_whole, open_chunk). Never blocks."""
        self._queue.put(_Install(n, base, chunks))

    def close(self) -> None:
        """Write what was submitted, checkpoint, and end the thread; waits for it."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._work():
                self._checkpoint_at(CHECKPOINT_FRAMES)
            self._settle()
        except BaseException as error:  # noqa: BLE001 whatever it is, nothing more is durable: the agent must exit
            self._hop(self._on_failure, error)

    def _work(self) -> bool:
        """The next piece of work; False where that was the last. Nothing of it is held while the next one is waited
        for: a snapshot may be as large as the catalog."""
        work = self._next()
        match work:
            case None:
                return False
            case _Install():
                self._commit_snapshot(work)
            case _Rows():
                self._commit_rows(self._group(work))
        return True

    def _next(self) -> _Rows | _Install | None:
        """Waits for work. A quiet second is used to prove the last commit and to checkpoint; then the wait is long."""
        while not self._held:
            try:
                return self._queue.get(timeout=FLOOR_SECONDS if self._proof_due else None)
            except Empty:
                self._prove()
                self._checkpoint_at(IDLE_CHECKPOINT_FRAMES)
        return self._held.pop()

    def _group(self, first: _Rows) -> list[_Rows]:
        """What is queued now, as far as one transaction should go; the rest is held for the next."""
        group, cost = [first], _cost(first.rows)
        while cost < GROUP_COST_MAX:
            try:
                work = self._queue.get_nowait()
            except Empty:
                break
            more = _cost(work.rows) if isinstance(work, _Rows) else GROUP_COST_MAX
            if not isinstance(work, _Rows) or cost + more > GROUP_COST_MAX:
                self._held.append(work)
                break
            group.append(work)
            cost += more
        return group

    def _commit_rows(self, group: list[_Rows]) -> None:
        batches = list(fold(row for work in group for row in work.rows))
        if any(work.rows for work in group):
            self._transact(lambda: self._write(batches))
            self._proof_due = True
        self._after(group[-1].n, _last_ballot(batches))

    def _commit_snapshot(self, work: _Install) -> None:
        self._transact(lambda: self._write_snapshot(work))
        self._proof_due = True
        self._after(work.n, None)

    def _write(self, batches: list[Batch]) -> LogBase:
        end = self._store.log_end
        for batch in batches:
            write_rows(self._database.writer, batch)
            end = write_log(self._database.writer, end, batch.log)
        return end

    def _write_snapshot(self, work: _Install) -> LogBase:
        connection = self._database.writer
        for table in (*CATALOG, "log"):
            connection.execute(f"DELETE FROM {table}")
        write_base(connection, work.base)
        for chunk in work.chunks:
            for batch in fold(open_chunk(chunk)):
                write_rows(connection, batch)
        return work.base

    def _transact(self, write: Callable[[], LogBase]) -> None:
        """One transaction. It is tried again only where the disk was full, so that SQLite has rolled it back, and the
        reserve makes room."""
        try:
            self._attempt(write)
        except sqlite3.OperationalError as error:
            if not _is_full(error) or not self._free_reserve():
                raise
            self._attempt(write)

    def _attempt(self, write: Callable[[], LogBase]) -> None:
        connection = self._database.writer
        connection.execute("BEGIN IMMEDIATE")
        try:
            end = write()
            if end.index < self._store.hard_state.state.last_index:
                # A follower's log becomes shorter: what was proved must not outlive it, whenever the power goes.
                self._store.hard_state.write(replace(self._store.hard_state.state, last_index=end.index))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._store.log_end = end

    def _after(self, n: int, ballot: BallotRow | None) -> None:
        """A promise about votes is in both places before anybody hears of it; the floor may follow."""
        if ballot is not None:
            self._prove(ballot)
        self._hop(self._on_persisted, n)
        if self._proof_due and self._clock() - self._proved_at >= FLOOR_SECONDS:
            self._prove()

    def _prove(self, ballot: BallotRow | None = None, *, settled: bool = False) -> None:
        """Write down how far the database has come."""
        before, reach = self._store.hard_state.state, self._database.reach()
        state = replace(
            before,
            last_index=self._store.log_end.index,
            wal_salts=reach.salts.hex(),
            wal_frames=reach.frames,
            settled=settled,
        )
        if ballot is not None:
            state = replace(state, term=ballot.term, voted_for=ballot.voted_for)
        self._store.hard_state.write(state)
        self._proved_at = self._clock()
        self._proof_due = False

    def _checkpoint_at(self, frames: int) -> None:
        """Checkpoint when the `-wal` has grown by so much since the last try; a reader may have been in the way."""
        now = self._database.reach().frames
        if now < self._tried_frames:
            self._tried_frames = 0  # it began anew
        if now - self._tried_frames >= frames:
            self._tried_frames = now
            self._checkpoint()

    def _checkpoint(self) -> bool:
        """A full disk is no failure here, nor is a lack of descriptors: everything is durable in the `-wal`."""
        try:
            return self._database.checkpoint()
        except (sqlite3.OperationalError, OSError) as error:
            if _is_full(error):
                self._free_reserve()
            elif not (isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}):
                raise
            return False

    def _settle(self) -> None:
        self._prove(settled=self._checkpoint())

    def _free_reserve(self) -> bool:
        if not self._store.reserve.release():
            return False
        self._hop(self._on_low_disk)
        return True


def _cost(rows: Iterable[Row]) -> int:
    return sum(_row_cost(row) for row in rows)


def _row_cost(row: Row) -> int:
    match row:
        case LogRow():
            return 1 + len(row.body) // COST_BYTES
        case ExecutionRow():
            return EXECUTION_COST + len(row.execution.output_tail) // COST_BYTES
        case JobRow():
            return 1 + len(row.definition) // COST_BYTES
        case _:
            return 1


def _last_ballot(batches: Iterable[Batch]) -> BallotRow | None:
    ballots = [row for batch in batches if isinstance(row := batch.puts.get("ballot", {}).get(ONLY), BallotRow)]
    return ballots[-1] if ballots else None


def _is_full(error: sqlite3.OperationalError | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return error.sqlite_errorcode == sqlite3.SQLITE_FULL
