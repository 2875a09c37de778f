"""Which run of a broken log may be gone on with."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from meshcron.store.log import LogBase
from meshcron.store.queries import schema
from meshcron.store.remains import chain_through, copy_rows, readable_log
from meshcron.store.shapes import BY_TABLE


def at(rows: list[Any], index: int) -> LogBase:
    row = rows[index - 1]
    return LogBase(row.index, row.term, row.crc)


@pytest.mark.parametrize(
    ("applied", "gone", "base", "last"),
    [
        (10, [], 0, 20),
        (20, [], 0, 20),
        (10, [5], 6, 20),
        (10, [5, 15], 6, 14),
        (6, [5], 6, 20),
        (5, [5], 5, 20),
        (10, [10], 10, 20),
        (11, [10], 11, 20),
        (20, [19], 20, 20),
        (20, [20], 20, 20),
        (1, [2], 0, 1),
        (0, [1], 0, 0),
        (10, list(range(1, 21)), 10, 10),
    ],
)
def test_the_run_that_reaches_the_applied_entry_is_kept(
    build: Any, applied: int, gone: list[int], base: int, last: int
) -> None:
    """Entries before it may be missing, for the catalog stands for them; none after it."""
    rows = build.entries(20)
    entry = at(rows, applied) if applied else LogBase()
    begins, run = chain_through(entry, LogBase(), [row for row in rows if row.index not in gone])
    assert (begins.index, run[-1].index if run else begins.index) == (base, last)
    assert [row.index for row in run] == list(range(base + 1, last + 1))
    assert begins == (at(rows, base) if base else LogBase())


def test_a_run_that_disagrees_about_the_applied_entry_is_not_taken(build: Any) -> None:
    """The catalog was made from another entry of that number."""
    rows = build.entries(10)
    applied = LogBase(5, 1, 12345)
    assert chain_through(applied, LogBase(), rows) == (applied, [])


@pytest.fixture
def connections() -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    made = (sqlite3.connect(":memory:", isolation_level=None), sqlite3.connect(":memory:", isolation_level=None))
    for connection in made:
        connection.executescript(schema())
    yield made
    for connection in made:
        connection.close()


def test_rows_that_are_none_are_left_out(connections: tuple[sqlite3.Connection, sqlite3.Connection]) -> None:
    """One bad row among many costs one row."""
    source, target = connections
    source.executemany("INSERT INTO meta VALUES (?, ?)", [(str(n), "v") for n in range(600)])
    source.execute("UPDATE meta SET value = x'ff' WHERE key = '300'")
    assert not copy_rows(source, target, BY_TABLE["meta"])
    assert target.execute("SELECT count(*) FROM meta").fetchone() == (599,)


def test_a_table_without_fault_is_complete(connections: tuple[sqlite3.Connection, sqlite3.Connection]) -> None:
    """And then it is read once."""
    source, target = connections
    source.executemany("INSERT INTO specs VALUES (?, ?)", [(str(n), "v") for n in range(600)])
    assert copy_rows(source, target, BY_TABLE["specs"])
    assert target.execute("SELECT * FROM specs").fetchall() == source.execute("SELECT * FROM specs").fetchall()


def test_entries_that_are_none_are_left_out(
    connections: tuple[sqlite3.Connection, sqlite3.Connection], build: Any
) -> None:
    """The chain decides what to make of the gap."""
    source, _ = connections
    rows = build.entries(9)
    source.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", [(r.index, r.term, r.crc, r.body) for r in rows])
    source.execute("UPDATE log SET term = 'x' WHERE idx = 4")
    assert readable_log(source) == [row for row in rows if row.index != 4]
