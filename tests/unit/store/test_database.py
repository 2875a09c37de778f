"""The two connections, and the checkpoint between them."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshcron.errors import DamagedStore, StartRefused
from meshcron.store.database import Database, translated
from meshcron.store.page_sums import PageSums
from meshcron.store.wal import images, scan


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path)
    made.create()
    made.open()
    yield made
    made.close()


def put(database: Database, key: str, value: str = "v") -> None:
    database.writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def wrong(folder: Path, hidden: set[int]) -> list[int]:
    sums = PageSums(folder / "database.sums")
    sums.open()
    return sums.wrong_pages(folder / "database", hidden)


def test_a_new_database_is_at_rest_with_its_sums(tmp_path: Path) -> None:
    """Whole before it has its name; no `-wal` beside it."""
    Database(tmp_path).create()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["database", "database.sums"]
    assert wrong(tmp_path, set()) == []


def test_the_writer_is_durable_and_never_checkpoints_by_itself(database: Database) -> None:
    """FULL, and no automatic checkpoint behind the back of the page sums."""

    def ask(connection: sqlite3.Connection, name: str) -> object:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert ask(database.writer, "journal_mode") == "wal"
    assert ask(database.writer, "synchronous") == 2
    assert ask(database.writer, "wal_autocheckpoint") == 0
    assert ask(database.reader, "query_only") == 1


def test_the_reader_cannot_write(database: Database) -> None:
    """Whatever a query is made of."""
    for sql in ("INSERT INTO meta VALUES ('a', 'b')", "PRAGMA user_version = 5", "DELETE FROM log"):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            database.reader.execute(sql)


def test_closing_leaves_the_wal_as_it_is(database: Database, tmp_path: Path) -> None:
    """SQLite would checkpoint and remove it with its last connection."""
    put(database, "a")
    before = {name: (tmp_path / name).read_bytes() for name in ("database", "database-wal")}
    database.close()
    database.close()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_database_let_go_closes_in_the_same_order(tmp_path: Path) -> None:
    """Nobody called close."""
    database = Database(tmp_path)
    database.create()
    database.open()
    put(database, "a")
    before = (tmp_path / "database").read_bytes()
    del database
    gc.collect()
    assert (tmp_path / "database").read_bytes() == before
    assert scan(tmp_path / "database-wal").frames > 0


def test_at_any_moment_each_page_has_its_sum_or_is_hidden(database: Database, tmp_path: Path) -> None:
    """Before a checkpoint, between its two halves, after it, and when the `-wal` has begun anew."""
    for n in range(60):
        put(database, str(n), "x" * 3000)
        if n % 7 == 0:
            reach = database.reach()
            database.sums.record(images(tmp_path / "database-wal", reach.frames), reach)
            database.sums.save()  # and then the power goes
        if n % 11 == 0:
            assert database.checkpoint()
            assert wrong(tmp_path, set()) == []
        if n % 13 == 0:
            database.writer.execute("DELETE FROM meta WHERE CAST(key AS INTEGER) % 2")
        assert wrong(tmp_path, set(scan(tmp_path / "database-wal").pages)) == []


def test_a_reader_in_the_way_makes_a_checkpoint_partial(database: Database, tmp_path: Path) -> None:
    """What it copied matches, the rest is hidden."""
    put(database, "a")
    database.reader.execute("BEGIN")
    database.reader.execute("SELECT * FROM meta").fetchall()
    put(database, "b", "x" * 9000)
    assert not database.checkpoint()
    assert wrong(tmp_path, set(scan(tmp_path / "database-wal").pages)) == []
    database.reader.execute("ROLLBACK")
    assert database.checkpoint()


def test_the_index_tells_how_far_the_wal_is_committed(database: Database, tmp_path: Path) -> None:
    """As the file itself does, at every commit and after it began anew."""
    for n in range(20):
        put(database, str(n), "x" * 2000)
        if n == 10:
            assert database.checkpoint()
            continue
        found = scan(tmp_path / "database-wal")
        assert (database.reach().salts, database.reach().frames) == (found.salts, found.frames)


def test_a_transaction_rolled_back_moves_nothing(database: Database) -> None:
    """Only commits count."""
    put(database, "a")
    before = database.reach()
    database.writer.execute("BEGIN")
    put(database, "b", "x" * 50_000)
    database.writer.execute("ROLLBACK")
    assert database.reach() == before


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (sqlite3.OperationalError("disk I/O error"), StartRefused, "disk I/O error"),
        (sqlite3.DatabaseError("malformed"), DamagedStore, "malformed.*salvage"),
        (ValueError("no row"), DamagedStore, "no row.*salvage"),
        (OSError(13, "Permission denied"), StartRefused, "Permission denied"),
    ],
)
def test_complaints_at_a_start_become_ours(error: Exception, kind: type[Exception], text: str) -> None:
    """Damage names its remedy; what is no damage does not offer to salvage."""
    with pytest.raises(kind, match=text) as raised, translated(Path("database")):
        raise error
    assert type(raised.value) is kind
