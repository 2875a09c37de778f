"""What can still be read of a damaged database: rows before and behind a bad page, and unbroken runs of the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from meshcron.rows import LogRow
from meshcron.store.log import LogBase, intact_rows
from meshcron.store.shapes import Shape, SqlValue
from meshcron.store.statements import upsert

_ROWS_COPIED = 256
"""At a time."""

LOG_COLUMNS = ("idx", "term", "crc", "body")


def copy_rows(source: sqlite3.Connection, target: sqlite3.Connection, shape: Shape) -> bool:
    """Copy the rows of a table that can be read and are rows. True: that is all of them. Raises sqlite3.Error of the
    target."""
    complete = True
    for order in ("ASC", "DESC"):
        found = Reading(source, shape.table, shape.columns, order)
        while part := list(islice(found.rows, _ROWS_COPIED)):
            rows = _valid(shape, part)
            complete = complete and len(rows) == len(part)
            upsert(target, shape, rows)
        if found.whole:
            return complete
        complete = False
    return False


def readable_log(source: sqlite3.Connection) -> list[LogRow]:
    """The entries that can be read, in order; their chain is not looked at."""
    entries: dict[int, LogRow] = {}
    for order in ("ASC", "DESC"):
        found = Reading(source, "log", LOG_COLUMNS, order)
        for values in found.rows:
            if [type(value) for value in values] == [int, int, int, bytes]:
                entries[values[0]] = LogRow(*values)
        if found.whole:
            break
    return [entries[index] for index in sorted(entries)]


class Reading:
    """The rows of a table in order of their rowid, until a page cannot be read. `whole` once all were read."""

    def __init__(self, source: sqlite3.Connection, table: str, columns: Sequence[str], order: str) -> None:
        self.whole = False
        self.rows = self._walk(source, f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED ORDER BY rowid {order}")

    def _walk(self, source: sqlite3.Connection, sql: str) -> Iterator[tuple[Any, ...]]:
        try:
            yield from source.execute(sql)
            self.whole = True
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            return


def chain_through(applied: LogBase, base: LogBase, log: Sequence[LogRow]) -> tuple[LogBase, list[LogRow]]:
    """The unbroken run of the log that reaches the applied entry, and what it follows.

    The catalog stands for everything up to `applied`, so entries before it may be missing, none after it. Where no run
    reaches it, the log begins anew behind it.
    """
    rest = list(log)
    while True:
        count = intact_rows(base, rest)
        run, rest = rest[:count], rest[count:]
        if _reaches(applied, [base, *(LogBase(row.index, row.term, row.crc) for row in run)]):
            return base, run
        if not rest:
            return applied, []
        if rest[0].index == applied.index + 1:
            base = applied
        else:
            base, rest = LogBase(rest[0].index, rest[0].term, rest[0].crc), rest[1:]


def _reaches(applied: LogBase, run: list[LogBase]) -> bool:
    place = applied.index - run[0].index
    return 0 <= place < len(run) and (applied.crc is None or run[place].crc in {None, applied.crc})


def _valid(shape: Shape, found: list[tuple[Any, ...]]) -> list[tuple[SqlValue, ...]]:
    try:
        return [shape.values(row) for row in shape.rows(found)]
    except (msgspec.MsgspecError, ValueError):
        if len(found) == 1:
            return []
        return [values for one in found for values in _valid(shape, [one])]
