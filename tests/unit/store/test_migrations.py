"""Databases of older versions."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from meshcron.store import migrations
from meshcron.store.database import DATABASE, Database, settle
from meshcron.store.log import LogBase, read_base, read_log
from meshcron.store.queries import schema

VERSION_1 = (
    schema()
    .replace(
        "CREATE TABLE calls (\n    key TEXT PRIMARY KEY, entry_index INTEGER NOT NULL, cluster_us INTEGER NOT NULL, "
        "kind TEXT NOT NULL,\n    answer TEXT NOT NULL\n);",
        "",
    )
    .replace("term INTEGER NOT NULL,\n    cluster TEXT NOT NULL DEFAULT ''", "term INTEGER NOT NULL")
    .replace(
        "CREATE TABLE log_base (id INTEGER PRIMARY KEY, idx INTEGER NOT NULL, term INTEGER NOT NULL, crc INTEGER);", ""
    )
    .replace(
        "public_key TEXT NOT NULL,\n    priority INTEGER NOT NULL, eligible INTEGER NOT NULL,",
        "priority INTEGER NOT NULL,",
    )
    .replace(
        "voter INTEGER NOT NULL, leaving INTEGER NOT NULL,\n    started INTEGER NOT NULL",
        "voter INTEGER NOT NULL",
    )
)


def old_database(path: Path, rows: list[Any]) -> None:
    """As version 1 made it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(f"PRAGMA journal_mode = WAL; {VERSION_1} PRAGMA user_version = 1;")
    connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", [(r.index, r.term, r.crc, r.body) for r in rows])
    connection.execute("INSERT INTO meta VALUES ('applied', '7')")
    connection.execute("INSERT INTO members VALUES ('n', 'one', 1, 100, 1)")
    connection.execute("INSERT INTO mark VALUES (1, 5, 0, 3)")
    connection.close()


def structure(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {(name, " ".join(sql.split())) for name, sql in found}


@pytest.mark.parametrize(("cut", "base"), [(0, LogBase()), (4, LogBase(4, 0, None))])
def test_a_database_of_version_1_is_opened(tmp_path: Path, build: Any, cut: int, base: LogBase) -> None:
    """Its rows are all there, and it is as a new one is; the log's chain is taken up where it begins."""
    rows = build.entries(8)[cut:]
    old_database(tmp_path / DATABASE, rows)
    database = Database(tmp_path)
    settle(tmp_path / DATABASE, database.sums)
    database.open()
    try:
        assert (read_log(database.reader), read_base(database.reader)) == (rows, base)
        assert database.reader.execute("SELECT value FROM meta").fetchall() == [("7",)]
        assert database.reader.execute("SELECT * FROM members").fetchall() == [("n", "one", 1, "", 100, 1, 1, 0, 0)]
        assert database.reader.execute("SELECT * FROM calls").fetchall() == []
        assert database.reader.execute("SELECT * FROM mark").fetchall() == [(1, 5, 0, 3, "")]
        fresh = sqlite3.connect(":memory:")
        fresh.executescript(schema())
        assert structure(database.reader) == structure(fresh)
        fresh.close()
    finally:
        database.close()


def test_a_step_that_fails_leaves_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole or not at all."""

    def breaks(connection: sqlite3.Connection) -> None:
        migrations._log_base(connection)
        raise sqlite3.OperationalError("database or disk is full")

    old_database(tmp_path / "d", [])
    monkeypatch.setitem(migrations.STEPS, 1, breaks)
    connection = sqlite3.connect(tmp_path / "d", isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        migrations.migrate(connection)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert not connection.execute("SELECT name FROM sqlite_master WHERE name = 'log_base'").fetchall()
    connection.close()


def test_there_is_a_step_from_every_version() -> None:
    """1, 2, ... up to the present one."""
    assert sorted(migrations.STEPS) == list(range(1, migrations.VERSION))


def test_a_version_that_never_was_is_an_error() -> None:
    """Not ours, or not a database of anybody's."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with pytest.raises(ValueError, match="version 0 is none of ours"):
        migrations.migrate(connection)
    connection.close()
