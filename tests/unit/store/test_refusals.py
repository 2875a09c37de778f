"""The system's refusals in words."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from meshcron.store.refusals import words

PLACE = Path("/data")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space on its disk"),
        (errno.EROFS, "make it writable for this user, or choose another folder with --data-dir"),
        (errno.EIO, "the disk fails: look at the system's log"),
        (errno.ENOTDIR, "choose another folder with --data-dir"),
    ],
)
def test_an_error_of_the_system(number: int, remedy: str) -> None:
    """The file it names, else the place; what is wrong; what to do."""
    said = os.strerror(number)
    assert words(OSError(number, said, "/data/lock"), PLACE) == f"/data/lock: {said}; {remedy}"
    assert words(OSError(number, said), PLACE) == f"/data: {said}; {remedy}"


def test_an_error_without_a_number() -> None:
    """Raised by a library: its text."""
    assert words(OSError("odd"), PLACE) == "/data: odd; choose another folder with --data-dir"


def test_a_full_database(tmp_path: Path) -> None:
    """SQLite's own error, as it really raises it."""
    connection = sqlite3.connect(tmp_path / "d", isolation_level=None)
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError) as full:
        connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(9999))")
    connection.close()
    assert words(full.value, PLACE) == "/data: database or disk is full; free some space on its disk"


def test_an_extended_code_is_of_its_kind(tmp_path: Path) -> None:
    """SQLITE_CANTOPEN_ISDIR and the like."""
    with pytest.raises(sqlite3.OperationalError) as missing:
        sqlite3.connect(f"{(tmp_path / 'd').as_uri()}?mode=ro", uri=True)
    assert words(missing.value, PLACE).endswith("choose another folder with --data-dir")
