"""The catalog on its way to an agent that lacks too much of the log: chunk by chunk, each asked for (PROTOCOL 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
from msgspec import Struct

from meshcron.core.events import Event, SnapshotArrived, SnapshotSent
from meshcron.messages import Message, SnapshotChunk, SnapshotWanted
from meshcron.rows import (
    BallotRow,
    CallRow,
    ExecutionRow,
    JobRow,
    JobStateRow,
    Loaded,
    MarkRow,
    MemberRow,
    MetaRow,
    OwedRow,
    TokenRow,
)
from meshcron.store.shapes import KeyedRow
from meshcron.store.snapshot import READ_ERRORS, Chunk, Snapshot, is_sound, is_whole, open_chunk

STALLED_SECONDS = 10.0
"""A snapshot that nobody asked to go on with for so long is given up; it holds the `-wal` open."""

ABANDONED_SECONDS = 2 * STALLED_SECONDS
"""A snapshot of which nothing more has come for so long is let go of: its sender has given up, or is gone."""

REPEAT_SECONDS = 1.0
"""A chunk unanswered for so long is sent again."""

log = structlog.get_logger("meshcron")


class Sending(Struct):
    """One snapshot on its way out."""

    term: int
    index: int
    snapshot: Snapshot
    chunks: Iterator[Chunk]
    current: Chunk
    asked_at: float


class Arriving(Struct):
    """One snapshot on its way in."""

    sender: str
    term: int
    index: int
    chunks: list[Chunk]
    heard_at: float = 0.0


class Snapshots:
    """Both ends. `now` counts seconds; everything is called on the loop's thread."""

    def __init__(self, database: Path, send: Callable[[str, Message], None], now: Callable[[], float]) -> None:
        self._database = database
        self._send = send
        self._now = now
        self._handle: Callable[[Event], None] = lambda _: None
        self._sending: dict[str, Sending] = {}
        self._failed: set[str] = set()
        """Whose snapshot could not be read: told at the next look. Told at once the core would ask for another one in
        the same turn of the loop, and in the same again."""
        self._arriving: Arriving | None = None
        self._whole: Arriving | None = None
        """The one that has arrived, until it is taken."""

    def start(self, handle: Callable[[Event], None]) -> None:
        """From now on events go there."""
        self._handle = handle

    def close(self) -> None:
        """Let go of what is under way."""
        for one in self._sending.values():
            one.snapshot.close()
        self._sending.clear()

    # out

    def send(self, to: str, term: int) -> None:
        """Begin; ends with SnapshotSent, from a later turn."""
        self._end(to)
        self._failed.discard(to)
        snapshot = Snapshot(self._database)
        try:
            snapshot.start()
            chunks = snapshot.chunks()
            first = next(chunks)
            index = int(snapshot.meta["applied"].split()[0])
        except (*READ_ERRORS, OSError, KeyError, ValueError):
            log.exception("a snapshot cannot be read")
            snapshot.close()
            self._failed.add(to)
            return
        self._sending[to] = Sending(term, index, snapshot, chunks, first, self._now())
        self._send_chunk(to)

    def wanted(self, sender: str, message: SnapshotWanted) -> None:
        """The receiver asks for the next chunk; after the last it has all. Where it asks for the present one again that
        is on its way: an answer to each question would be one more stream from then on."""
        one = self._sending.get(sender)
        if one is None or message.index != one.index:
            return
        ahead = message.number - one.current.number
        if ahead in (0, 1):
            one.asked_at = self._now()
        if ahead != 1:
            return
        if one.current.last:
            self._end(sender)
            self._handle(SnapshotSent(sender, arrived=True))
            return
        try:
            one.current = next(one.chunks)
        except (*READ_ERRORS, OSError):
            log.exception("a snapshot cannot be read to its end")
            self._end(sender)
            self._failed.add(sender)
            return
        self._send_chunk(sender)

    async def watch(self) -> None:
        """For as long as the agent runs: repeat what was not answered, give up what stalls, let go of what is not
        wanted."""
        while True:
            await asyncio.sleep(REPEAT_SECONDS)
            self._look()

    def _look(self) -> None:
        failed, self._failed = self._failed, set()
        for to in sorted(failed):
            self._handle(SnapshotSent(to, arrived=False))
        for to, one in list(self._sending.items()):
            waited = self._now() - one.asked_at
            if waited > STALLED_SECONDS:
                self._end(to)
                self._handle(SnapshotSent(to, arrived=False))
            elif waited > REPEAT_SECONDS:
                self._send_chunk(to)
        if self._is_old(self._arriving):
            self._arriving = None
        if self._is_old(self._whole):
            self._whole = None

    def _is_old(self, one: Arriving | None) -> bool:
        return one is not None and self._now() - one.heard_at > ABANDONED_SECONDS

    def _send_chunk(self, to: str) -> None:
        one = self._sending[to]
        chunk = one.current
        message = SnapshotChunk(
            term=one.term,
            index=one.index,
            number=chunk.number,
            table=chunk.table,
            sha256=chunk.sha256,
            last=chunk.last,
            payload=(chunk.rows,),
        )
        self._send(to, message)

    def _end(self, to: str) -> None:
        if one := self._sending.pop(to, None):
            one.snapshot.close()

    # in

    def chunk(self, sender: str, message: SnapshotChunk) -> None:
        """A piece; the core hears of it once it is whole, and judges its sender then.

        What comes again is answered, and changes nothing. A snapshot that its sender has begun again comes from its
        first chunk on, and nothing but its chunks tells it from the earlier one: from the first that differs on, what
        is held is the earlier one's.
        """
        if len(message.payload) != 1:
            return
        arriving, which = self._arriving, (sender, message.term, message.index)
        if arriving is None or (arriving.sender, arriving.term, arriving.index) != which:
            if message.number:
                return
            arriving = self._arriving = Arriving(*which, [])
        arriving.heard_at = self._now()
        number, rows = message.number, message.payload[0]
        if not 0 <= number <= len(arriving.chunks):
            return
        chunk = Chunk(number=number, table=message.table, rows=rows, sha256=message.sha256, last=message.last)
        if arriving.chunks[number : number + 1] != [chunk]:
            if not is_sound(chunk):
                return
            arriving.chunks[number:] = [chunk]
        self._send(sender, SnapshotWanted(message.index, number + 1))
        if message.last and is_whole(arriving.chunks):
            self._arriving = None
            self._arrived(arriving)

    def _arrived(self, arriving: Arriving) -> None:
        try:
            catalog = catalog_of([row for chunk in arriving.chunks for row in open_chunk(chunk)])
            index, term, crc = (int(part) for part in catalog.meta["applied"].split())
        except (ValueError, KeyError):
            log.exception("a snapshot is malformed", sender=arriving.sender)
            return
        self._whole = arriving
        self._handle(SnapshotArrived(arriving.sender, arriving.term, index, term, crc, catalog))

    def take(self) -> tuple[Chunk, ...]:
        """The chunks of the one that has just arrived, for the writer. They are given away: it may be as large as the
        catalog, and nobody needs it twice."""
        whole, self._whole = self._whole, None
        assert whole is not None, "no snapshot has arrived"
        return tuple(whole.chunks)


def catalog_of(found: list[KeyedRow]) -> Loaded:
    """The rows of a snapshot as an agent reads them at start; log, ballot and the runner's own are not in it."""
    return Loaded(
        ballot=BallotRow(0, ""),
        log=[],
        meta={row.key: row.value for row in found if isinstance(row, MetaRow)},
        jobs=[row for row in found if isinstance(row, JobRow)],
        job_states=[row for row in found if isinstance(row, JobStateRow)],
        open_executions=[
            row.execution for row in found if isinstance(row, ExecutionRow) and not row.execution.status.final
        ],
        owed=[row for row in found if isinstance(row, OwedRow)],
        members=[row.member for row in found if isinstance(row, MemberRow)],
        tokens=[row.token for row in found if isinstance(row, TokenRow)],
        calls=[row for row in found if isinstance(row, CallRow)],
        seen=[],
        specs=[],
        mark=MarkRow(0, 0, 0),
    )
