"""The log table and its chain."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from meshcron.errors import DamagedStore
from meshcron.rows import LogCut, LogRow, Row
from meshcron.store.batch import fold
from meshcron.store.log import LogBase, intact_rows, log_end, read_base, read_log, write_base, write_log
from meshcron.store.queries import schema


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.executescript(schema())
    yield made
    made.close()


def write(connection: sqlite3.Connection, *rows: Row, end: LogBase | None = None) -> LogBase:
    end = end or LogBase()
    for batch in fold(rows):
        end = write_log(connection, end, batch.log)
    return end


def test_entries_come_back_in_order(connection: sqlite3.Connection, build: Any) -> None:
    """Term, chain and body as they went in."""
    rows = build.entries(5)
    end = write(connection, *rows)
    assert read_log(connection) == rows
    assert end == log_end(read_base(connection), rows) == LogBase(5, 1, rows[-1].crc)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE log SET body = x'00' WHERE idx = 3",
        "UPDATE log SET term = 2 WHERE idx = 3",
        "UPDATE log SET crc = crc + 1 WHERE idx = 3",
        "DELETE FROM log WHERE idx = 3",
        "UPDATE log_base SET crc = 1",
        "UPDATE log_base SET idx = 1",
    ],
)
def test_a_broken_chain_is_damage(connection: sqlite3.Connection, build: Any, damage: str) -> None:
    """Whatever was changed behind our back, and where the log was cut too."""
    write(connection, *build.entries(6), LogCut(2))
    connection.execute(damage)
    with pytest.raises(DamagedStore, match="the log is damaged at entry"):
        read_log(connection)


def test_a_log_goes_on_after_it_was_cut_off_entirely(connection: sqlite3.Connection, build: Any) -> None:
    """The chain continues from what was forgotten."""
    rows = build.entries(6)
    end = write(connection, *rows[:4], LogCut(4))
    assert (read_log(connection), read_base(connection)) == ([], LogBase(4, 1, rows[3].crc))
    write(connection, *rows[4:], end=end)
    assert read_log(connection) == rows[4:]


def test_a_cut_beyond_the_end_leaves_only_a_number(connection: sqlite3.Connection, build: Any) -> None:
    """Nobody told us that entry's checksum, so the next one is taken at its word, and the ones after it are not."""
    end = write(connection, *build.entries(2), LogCut(10))
    assert end == read_base(connection) == LogBase(10, 0, None)
    rows = build.entries(2, after=LogBase(10, 0, 12345))
    write(connection, *rows, end=end)
    assert read_log(connection) == rows
    connection.execute("UPDATE log SET body = x'00' WHERE idx = 12")
    with pytest.raises(DamagedStore, match="entry 12"):
        read_log(connection)


def test_a_cut_below_what_is_kept_changes_nothing(connection: sqlite3.Connection, build: Any) -> None:
    """It was said twice."""
    rows = build.entries(4)
    end = write(connection, *rows, LogCut(3))
    assert write(connection, LogCut(2), end=end) == end
    assert (read_base(connection).index, read_log(connection)) == (3, rows[3:])


def test_a_new_tail_takes_the_place_of_the_old_one(connection: sqlite3.Connection, build: Any) -> None:
    """A follower learns that its last entries were never committed: all behind the first new one is void."""
    rows = build.entries(6)
    end = write(connection, *rows)
    tail = build.entry(LogBase(3, 1, rows[2].crc), b'"new"', term=2)
    assert write(connection, tail, end=end) == LogBase(4, 2, tail.crc)
    assert read_log(connection) == [*rows[:3], tail]


def test_a_new_tail_right_behind_the_cut(connection: sqlite3.Connection, build: Any) -> None:
    """What it follows is no longer a row."""
    rows = build.entries(6)
    end = write(connection, *rows, LogCut(3))
    tail = build.entry(LogBase(3, 1, rows[2].crc), b'"new"', term=2)
    write(connection, tail, end=end)
    assert read_log(connection) == [tail]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (LogRow(9, 1, 0, b""), "gap"),
        (LogRow(7, 1, 0, b""), "chain"),
        (LogRow(5, 1, 0, b""), "chain"),
        (LogRow(2, 1, 0, b""), "older than what is kept"),
    ],
)
def test_rows_that_are_no_log_are_never_written(
    connection: sqlite3.Connection, build: Any, row: LogRow, why: str
) -> None:
    """Better an agent that stops than one that cannot start again."""
    end = write(connection, *build.entries(6), LogCut(3))
    with pytest.raises(ValueError, match=why):
        write(connection, row, end=end)


def test_intact_rows_are_counted_to_the_first_break(build: Any) -> None:
    """For salvage, which goes on with them."""
    rows = build.entries(5)
    assert intact_rows(LogBase(), rows) == 5
    assert intact_rows(LogBase(), [*rows[:2], *rows[3:]]) == 2
    assert intact_rows(LogBase(0, 0, 1), rows) == 0


def test_the_base_is_replaced(connection: sqlite3.Connection) -> None:
    """There is one."""
    write_base(connection, LogBase(1, 2, 3))
    write_base(connection, LogBase(4, 5, None))
    assert read_base(connection) == LogBase(4, 5, None)
