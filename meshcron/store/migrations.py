"""Steps from each older version of the database to the next. A step is one transaction; a newer version is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

VERSION = 6
"""Of schema.sql, in PRAGMA user_version."""


def _log_base(connection: sqlite3.Connection) -> None:
    """1 -> 2: what was cut off the log last is written down, so that the chain can be checked from there."""
    connection.execute(
        "CREATE TABLE log_base (id INTEGER PRIMARY KEY, idx INTEGER NOT NULL, term INTEGER NOT NULL, crc INTEGER)"
    )
    connection.execute(
        "INSERT INTO log_base SELECT 1, first - 1, 0, NULL FROM (SELECT min(idx) AS first FROM log) WHERE first > 1"
    )


def _member_keys(connection: sqlite3.Connection) -> None:
    """2 -> 3: a member has a public key, and may be one that never votes."""
    old = connection.execute("SELECT node_id, name, number, '', priority, 1, voter, 0 FROM members").fetchall()
    connection.execute("DROP TABLE members")
    connection.execute(
        "CREATE TABLE members ( node_id TEXT PRIMARY KEY, name TEXT NOT NULL, number INTEGER NOT NULL, "
        "public_key TEXT NOT NULL, priority INTEGER NOT NULL, eligible INTEGER NOT NULL, voter INTEGER NOT NULL, "
        "leaving INTEGER NOT NULL )"
    )
    connection.executemany("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?)", old)


def _calls(connection: sqlite3.Connection) -> None:
    """3 -> 4: answers to calls that may be repeated are kept."""
    connection.execute(
        "CREATE TABLE calls ( key TEXT PRIMARY KEY, entry_index INTEGER NOT NULL, cluster_us INTEGER NOT NULL, "
        "kind TEXT NOT NULL, answer TEXT NOT NULL )"
    )


def _mark_cluster(connection: sqlite3.Connection) -> None:
    """4 -> 5: a mark names the cluster that it is of."""
    old = connection.execute("SELECT id, cluster_us, generation, term FROM mark").fetchall()
    connection.execute("DROP TABLE mark")
    connection.execute(
        "CREATE TABLE mark ( id INTEGER PRIMARY KEY, cluster_us INTEGER NOT NULL, generation INTEGER NOT NULL, "
        "term INTEGER NOT NULL, cluster TEXT NOT NULL DEFAULT '' )"
    )
    connection.executemany("INSERT INTO mark (id, cluster_us, generation, term) VALUES (?, ?, ?, ?)", old)


def _member_starts(connection: sqlite3.Connection) -> None:
    """5 -> 6: the last start of a member that is known."""
    old = connection.execute("SELECT *, 0 FROM members").fetchall()
    connection.execute("DROP TABLE members")
    connection.execute(
        "CREATE TABLE members ( node_id TEXT PRIMARY KEY, name TEXT NOT NULL, number INTEGER NOT NULL, "
        "public_key TEXT NOT NULL, priority INTEGER NOT NULL, eligible INTEGER NOT NULL, voter INTEGER NOT NULL, "
        "leaving INTEGER NOT NULL, started INTEGER NOT NULL )"
    )
    connection.executemany("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", old)


STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {
    1: _log_base,
    2: _member_keys,
    3: _calls,
    4: _mark_cluster,
    5: _member_starts,
}


def migrate(connection: sqlite3.Connection) -> None:
    """The database is of the present version when this returns; a crash leaves it at a step. Raises sqlite3.Error,
    ValueError for a version that never was."""
    while (version := connection.execute("PRAGMA user_version").fetchone()[0]) < VERSION:
        if version not in STEPS:
            raise ValueError(f"version {version} is none of ours")
        connection.execute("BEGIN IMMEDIATE")
        try:
            STEPS[version](connection)
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
