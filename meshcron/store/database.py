"""The two connections to one agent's database: the one that writes and checkpoints, and one that reads.

Exactly one connection ever writes or checkpoints, and nobody else opens a live agent's database (PROTOCOL 5: a bug of
SQLite 3.7.0-3.51.2 resets the `-wal` under a second one). SQLite is kept from checkpointing by itself, also when it
closes: page_sums.py must be told first.
"""

from __future__ import annotations

import sqlite3
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from meshcron.errors import StartRefused
from meshcron.store.damage import damaged
from meshcron.store.files import sync_folder, write_new
from meshcron.store.migrations import VERSION, migrate
from meshcron.store.page_sums import PageSums, pages_of
from meshcron.store.queries import schema
from meshcron.store.refusals import words
from meshcron.store.wal import images
from meshcron.store.wal_index import WalIndex, WalReach

DATABASE = "database"
WAL = "database-wal"
SHM = "database-shm"
SUMS = "database.sums"

PAGE_BYTES = 4096
"""A block of nearly every file system."""

STATEMENTS_CACHED = 128
"""Prepared statements kept: some ten tables in the few sizes that are in use at one time."""

WRITER_CACHE_KIB = 8192
"""Pages kept by the writing connection: a group of the greatest size fits."""


class Database:
    """The database of one folder, between `open` and `close`.

    `writer` belongs to the thread of writer.py, `reader` to the loop's thread, for short indexed queries.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / DATABASE
        self.sums = PageSums(folder / SUMS)
        self.index = WalIndex(folder / SHM)
        self._wal = folder / WAL
        self._close: weakref.finalize[..., Database] | None = None
        self.writer: sqlite3.Connection
        self.reader: sqlite3.Connection

    def create(self) -> None:
        """Make an empty database of the present version, whole or not at all. Raises OSError, sqlite3.Error."""
        beside = self.path.with_name(DATABASE + ".new")
        create_empty(beside, self.sums)
        beside.replace(self.path)
        sync_folder(self.path.parent)

    def open(self) -> None:
        """Connect, and migrate an older version. The files were inspected (inspection.py). Raises DamagedStore,
        StartRefused."""
        with translated(self.path):
            self.sums.open()
            # The reader comes first and goes last, on every way out, also an exception through main: the last
            # connection to close would checkpoint behind the back of the page sums, and a reader cannot.
            self.reader = read_only(self.path)
            self.reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
            self.writer = _writing(self.path)
            self._close = weakref.finalize(self, _close_all, self.writer, self.reader, self.index)
            self.index.open()
            migrate(self.writer)

    def reach(self) -> WalReach:
        """How far the `-wal` is committed; for the writing thread. Raises ValueError."""
        return self.index.reach()

    def checkpoint(self) -> bool:
        """Copy what is committed from the `-wal` into the database file, its page sums first. True: all of it; the
        next write begins the `-wal` anew. False: a reader was in the way. Raises OSError, sqlite3.Error."""
        reach = self.reach()
        self.sums.record(images(self._wal, reach.frames), reach)
        self.sums.save()
        busy, frames, copied = self.writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return not busy and frames == copied

    def close(self) -> None:
        """Close everything, leaving the `-wal` as it is. May be called twice."""
        if self._close is not None:
            self._close()


def create_empty(path: Path, sums: PageSums) -> None:
    """Make an empty database file of the present version, at rest and synced, and save its page sums. Raises OSError,
    sqlite3.Error."""
    for leftover in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        leftover.unlink(missing_ok=True)
    write_new(path, b"")
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(f"BEGIN; {schema()} PRAGMA user_version = {VERSION}; COMMIT;")
    finally:
        connection.close()  # the only one, so SQLite checkpoints and removes its `-wal`
    settle(path, sums)


def settle(path: Path, sums: PageSums) -> None:
    """Write down the page sums of a database that nobody has open. Raises OSError."""
    sums.record(pages_of(path, PAGE_BYTES), WalReach())
    sums.save()


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that can neither write nor checkpoint."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's complaints at a start into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StartRefused(words(error, path)) from error
    except (sqlite3.DatabaseError, msgspec.MsgspecError, ValueError) as error:
        raise damaged(path, error) from error
    except OSError as error:
        raise StartRefused(words(error, path)) from error


def _writing(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS_CACHED
    )
    for pragma in (
        "synchronous = FULL",
        "wal_autocheckpoint = 0",
        "cell_size_check = ON",
        "trusted_schema = OFF",
        f"cache_size = -{WRITER_CACHE_KIB}",
    ):
        connection.execute(f"PRAGMA {pragma}")
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
    return connection


def _close_all(writer: sqlite3.Connection, reader: sqlite3.Connection, index: WalIndex) -> None:
    writer.close()
    reader.close()
    index.close()  # last: see WalIndex
