"""Everything one agent keeps on disk, opened and checked in the one order in which nothing is trusted unseen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from meshcron.rows import BallotRow, Loaded
from meshcron.store.damage import damaged
from meshcron.store.database import DATABASE, WAL, Database, translated
from meshcron.store.directory import DataDirectory, Identity
from meshcron.store.hard_state import HardState, HardStateFile
from meshcron.store.inspection import inspect
from meshcron.store.log import LogBase, log_end, read_base
from meshcron.store.reserve import Reserve
from meshcron.store.tables import Tables
from meshcron.store.wal import WalScan
from meshcron.store.wal_index import WalReach

HARD_STATE = "hard_state"
RESERVE = "reserve"


class Store:
    """The data directory between `open` and `close`. What is read is there after `open`; writer.py writes."""

    def __init__(self, path: Path, machine_id: str) -> None:
        self.directory = DataDirectory(path, machine_id)
        self.hard_state = HardStateFile(path / HARD_STATE)
        self.database = Database(path)
        self.reserve = Reserve(path / RESERVE)
        self.identity: Identity
        self.tables: Tables
        """Reads for the loop's thread."""
        self.log_base = LogBase()
        """What was cut off the log last: the entry before the first of `Loaded.log`."""
        self.log_end = LogBase()
        """The last entry; `writer.py` moves it."""

    @property
    def start(self) -> int:
        """The number of this start: one more than the last one's, durable since `open` (PROTOCOL 1)."""
        return self.hard_state.state.start

    def open(self, make: Callable[[], Identity], *, adopt: bool = False) -> Loaded:
        """Take the folder, look at its files, read all of it. `make` draws an identity at a first start, or with
        `adopt` for a directory that was copied or moved here.

        Raises StartRefused (in use, not ours, a newer version's, copied, not accessible) and DamagedStore (damaged or
        rolled back); then everything is closed again, and no file was changed but the lock's.
        """
        path = self.directory.path
        try:
            self.directory.lock()
            self.identity = self.directory.adopt(make) if adopt else self.directory.identity(make)
            with translated(path / DATABASE):
                self._create_missing()
                self.hard_state.open()
                found = inspect(path, self.hard_state.state)
                self.database.open()
                loaded = self._load(found)
                self._begin(loaded.ballot)
                self.directory.mark_started()
                self.reserve.fill()
        except BaseException:
            self.close()
            raise
        return loaded

    def close(self) -> None:
        """Close everything and let another agent have the folder; the writer has stopped before. May be called
        twice."""
        self.database.close()
        self.hard_state.close()
        self.directory.close()

    def _create_missing(self) -> None:
        """A first start, or one that died in the middle of it: hard_state, then the database, then the first start
        number, then the mark in node.json. Whatever is missing later is damage, also where it is all but the identity:
        with that alone a voter would vote a second time in a term."""
        path = self.directory.path
        begun = self.directory.has_started() or (path / HARD_STATE).exists() or (path / DATABASE).exists()
        if not begun:
            self.hard_state.create()
        self.hard_state.open()
        if self.hard_state.state.start == 0 and not (path / DATABASE).exists():
            self.database.create()

    def _load(self, found: WalScan) -> Loaded:
        path = self.directory.path
        if self.database.reach() != WalReach(found.salts, found.frames) and found.frames:
            raise damaged(path / WAL, f"SQLite does not read the {found.frames} durable frames it holds")
        self.tables = Tables(self.database.reader)
        loaded = self.tables.load()
        self.log_base = read_base(self.database.reader)
        self.log_end = log_end(self.log_base, loaded.log)
        why = _rolled_back(self.hard_state.state, loaded.ballot, self.log_end.index)
        if why:
            raise damaged(path / DATABASE, why)
        return loaded

    def _begin(self, ballot: BallotRow) -> None:
        """The next start number, and what the files prove from now on: also a vote that the last start died before
        proving, for nobody asks the writer again before it is repeated to others."""
        reach = self.database.reach()
        proof = replace(
            self.hard_state.state,
            start=self.hard_state.state.start + 1,
            term=ballot.term,
            voted_for=ballot.voted_for,
            last_index=self.log_end.index,
            wal_salts=reach.salts.hex(),
            wal_frames=reach.frames,
            settled=False,
        )
        self.hard_state.write_both(proof)


def _rolled_back(proof: HardState, ballot: BallotRow, last_index: int) -> str:
    """Why the database is behind what this agent has promised others; empty = it is not.

    The file is written after the database, so it may be behind by any number of changes: a higher term, or the vote in
    a term that was entered without one. Terms only rise and a vote is given once in each: what is ahead of the file is
    an ordinary crash, all else is not.
    """
    if ballot.term < proof.term:
        did = "voted in" if proof.voted_for else "entered"
        return f"rolled back: it holds term {ballot.term}, this agent has {did} term {proof.term}"
    if ballot.term == proof.term and proof.voted_for and ballot.voted_for != proof.voted_for:
        what = "another vote" if ballot.voted_for else "no vote"
        return f"rolled back: it holds {what} in term {ballot.term}, in which this agent has voted"
    if last_index < proof.last_index:
        return f"rolled back: its log ends with entry {last_index}, this agent has acknowledged {proof.last_index}"
    return ""
