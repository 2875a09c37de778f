"""The SQL that writes a batch: many rows to a statement, so that a group costs a handful of steps.

Each step of SQLite lets go of the interpreter lock, and a busy loop gives it back up to half a millisecond later: 500
rows one by one took 72 ms beside a busy loop, in one statement 8 ms (measured). The rows are bound as parameters of one
multi-row VALUES; a bound JSON array read by json_each is as fast but cuts a text at a NUL, which output may hold.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from meshcron.model import OPEN_STATUSES
from meshcron.rows import DropHistory
from meshcron.store.batch import Batch
from meshcron.store.shapes import BY_TABLE, Shape, SqlValue

PARAMETERS_MAX = 2048
"""Of one statement: well under SQLite's 32,766, and a prepared statement of that size is 0.3 MB."""

_DROP_COLUMNS = 3
_OPEN = ", ".join(f"'{status.value}'" for status in sorted(OPEN_STATUSES))


def write_rows(connection: sqlite3.Connection, batch: Batch) -> None:
    """Write all of a batch but its log, inside the caller's transaction. Raises sqlite3.Error."""
    for table, puts in batch.puts.items():
        shape = BY_TABLE[table]
        gone = [key if isinstance(key, tuple) else (key,) for key, row in puts.items() if row is None]
        for some in _cut(gone, shape.keys):
            connection.execute(_delete_sql(shape.table, len(some)), _flat(some))
        upsert(connection, shape, [shape.values(row) for row in puts.values() if row is not None])
    _drop_history(connection, batch.history.values())


def upsert(connection: sqlite3.Connection, shape: Shape, rows: Sequence[tuple[SqlValue, ...]]) -> None:
    """Insert rows, or overwrite those of the same keys. Raises sqlite3.Error."""
    for some in _cut(rows, len(shape.columns)):
        connection.execute(_upsert_sql(shape.table, len(some)), _flat(some))


def insert(connection: sqlite3.Connection, table: str, columns: int, rows: Sequence[tuple[SqlValue, ...]]) -> None:
    """Insert rows of keys that are not there, all columns in the order of the schema. Raises sqlite3.Error."""
    for some in _cut(rows, columns):
        connection.execute(_insert_sql(table, columns, len(some)), _flat(some))


def _drop_history(connection: sqlite3.Connection, drops: Iterable[DropHistory]) -> None:
    rows = [(drop.uid, drop.keep_newest, drop.before_wall_us) for drop in drops]
    for some in _cut(rows, _DROP_COLUMNS):
        connection.execute(_drop_history_sql(len(some)), _flat(some))


def _cut(rows: Sequence[tuple[SqlValue, ...]], width: int) -> Iterator[Sequence[tuple[SqlValue, ...]]]:
    """Powers of two, the largest first: few different texts, so that each is prepared once."""
    start, size = 0, 1 << (PARAMETERS_MAX // width).bit_length() - 1
    while start < len(rows):
        while size > len(rows) - start:
            size >>= 1
        yield rows[start : start + size]
        start += size


def _flat(rows: Sequence[tuple[SqlValue, ...]]) -> list[SqlValue]:
    return [value for row in rows for value in row]


def _values(columns: int, rows: int) -> str:
    return ", ".join(["(" + ", ".join("?" * columns) + ")"] * rows)


@cache
def _insert_sql(table: str, columns: int, rows: int) -> str:
    return f"INSERT INTO {table} VALUES {_values(columns, rows)}"


@cache
def _upsert_sql(table: str, rows: int) -> str:
    """Not INSERT OR REPLACE, which would touch every index: an update touches those whose columns change."""
    shape = BY_TABLE[table]
    columns, keys = ", ".join(shape.columns), ", ".join(shape.key_columns)
    changes = ", ".join(f"{name} = excluded.{name}" for name in shape.columns[shape.keys :])
    values = _values(len(shape.columns), rows)
    return f"INSERT INTO {table} ({columns}) VALUES {values} ON CONFLICT ({keys}) DO UPDATE SET {changes}"


@cache
def _delete_sql(table: str, rows: int) -> str:
    shape = BY_TABLE[table]
    return f"DELETE FROM {table} WHERE ({', '.join(shape.key_columns)}) IN (VALUES {_values(shape.keys, rows)})"


@cache
def _drop_history_sql(rows: int) -> str:
    """Newest is the higher index, then the higher id: every voter drops the same ones."""
    return (
        "DELETE FROM executions WHERE rowid IN (SELECT place FROM (SELECT executions.rowid AS place, "
        "row_number() OVER (PARTITION BY uid ORDER BY idx DESC, id DESC) > past.column2 AS surplus, "
        "CASE finished_wall_us WHEN 0 THEN scheduled_wall_us ELSE finished_wall_us END < past.column3 AS stale "
        f"FROM (VALUES {_values(_DROP_COLUMNS, rows)}) AS past "
        "CROSS JOIN executions INDEXED BY executions_by_job ON executions.uid = past.column1 "
        f"WHERE status NOT IN ({_OPEN})) WHERE surplus OR stale)"
    )
