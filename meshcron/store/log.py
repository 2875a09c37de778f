"""The log table: entries in an unbroken chain from the one that was cut off last."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from msgspec import Struct

from meshcron.chain import CHAIN_START, chain
from meshcron.errors import DamagedStore
from meshcron.rows import LogRow
from meshcron.store.batch import LogChange
from meshcron.store.queries import queries
from meshcron.store.statements import insert

_SQL = queries()
_COLUMNS = 4


class LogBase(Struct, frozen=True, array_like=True):
    """An entry that others follow: of the log's end, or the one cut off last. `crc` None = nobody told us, so the next
    entry is taken at its word."""

    index: int = 0
    term: int = 0
    crc: int | None = CHAIN_START


def read_base(connection: sqlite3.Connection) -> LogBase:
    """The entry that was cut off last; index 0 when none ever was. Raises sqlite3.Error."""
    found = connection.execute(_SQL["log_base"]).fetchone()
    return LogBase(*found) if found else LogBase()


def write_base(connection: sqlite3.Connection, base: LogBase) -> None:
    """Let the log begin after `base`. Raises sqlite3.Error."""
    connection.execute("INSERT OR REPLACE INTO log_base VALUES (1, ?, ?, ?)", (base.index, base.term, base.crc))


def read_log(connection: sqlite3.Connection) -> list[LogRow]:
    """Every entry kept, in order. Raises DamagedStore where the chain is broken, sqlite3.Error."""
    rows = [LogRow(*found) for found in connection.execute(_SQL["log"])]
    intact = intact_rows(read_base(connection), rows)
    if intact < len(rows):
        raise DamagedStore(f"the log is damaged at entry {rows[intact].index}: its chain of checksums is broken")
    return rows


def intact_rows(base: LogBase, rows: Iterable[LogRow]) -> int:
    """How many rows from the first on follow `base` in an unbroken chain."""
    count = 0
    for row in rows:
        if not _follows(base, row):
            break
        base = LogBase(row.index, row.term, row.crc)
        count += 1
    return count


def log_end(base: LogBase, rows: list[LogRow]) -> LogBase:
    """The last entry, kept or cut off."""
    return LogBase(rows[-1].index, rows[-1].term, rows[-1].crc) if rows else base


def write_log(connection: sqlite3.Connection, end: LogBase, change: LogChange) -> LogBase:
    """Write a change to a log that ends with `end`; its new end. Raises sqlite3.Error, and ValueError for rows that do
    not continue the log: they are no log, and the agent that asked for them must stop."""
    if change.rows:
        end = _append(connection, end, change.rows)
    if change.cut is not None:
        end = _cut(connection, end, change.cut)
    return end


def write_entries(connection: sqlite3.Connection, rows: list[LogRow]) -> None:
    """Insert rows of a chain that the caller has checked. Raises sqlite3.Error."""
    insert(connection, "log", _COLUMNS, [(row.index, row.term, row.crc, row.body) for row in rows])


def _append(connection: sqlite3.Connection, end: LogBase, rows: list[LogRow]) -> LogBase:
    first = rows[0].index
    if first != end.index + 1:
        if first > end.index + 1:
            raise ValueError(f"entry {first} leaves a gap in the log, which ends with {end.index}")
        connection.execute("DELETE FROM log WHERE idx >= ?", (first,))
        end = _before(connection, first)
    intact = intact_rows(end, rows)
    if intact < len(rows):
        raise ValueError(f"entry {rows[intact].index} does not continue the chain of the log")
    write_entries(connection, rows)
    return log_end(end, rows)


def _before(connection: sqlite3.Connection, first: int) -> LogBase:
    found = connection.execute(_SQL["previous_crc"], {"index": first - 1}).fetchone()
    if found is None and first > 1:
        raise ValueError(f"entry {first} is older than what is kept of the log")
    return LogBase(first - 1, 0, found[0] if found else CHAIN_START)


def _cut(connection: sqlite3.Connection, end: LogBase, cut: int) -> LogBase:
    """Forget up to `cut`. Behind the end there is nothing to remember but the number."""
    if cut > end.index:
        end = LogBase(cut, 0, None)
        write_base(connection, end)
    else:
        connection.execute(
            "INSERT OR REPLACE INTO log_base SELECT 1, idx, term, crc FROM log WHERE idx = ?",
            (cut,),
        )
    connection.execute("DELETE FROM log WHERE idx <= ?", (cut,))
    return end


def _follows(base: LogBase, row: LogRow) -> bool:
    if row.index != base.index + 1:
        return False
    return base.crc is None or row.crc == chain(base.crc, row.index, row.term, row.body)
