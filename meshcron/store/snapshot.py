"""The catalog as chunks that another agent can take over: rows in key order, never the file (PROTOCOL 5)."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from meshcron.store.database import read_only
from meshcron.store.shapes import BY_TABLE, CATALOG, KeyedRow, Shape

CHUNK_BYTES = 256 * 1024
"""A chunk ends before the row that would pass this: none has more, unless it is one row. A message has 512 KiB."""

READ_ERRORS = (sqlite3.Error,)
"""What reading a snapshot may raise besides OSError."""

_ROWS_FETCHED = 64
"""Between two looks at the size of a chunk."""


class Chunk(Struct, frozen=True, kw_only=True):
    """Some rows of one table, numbered from 0 without a gap. The same catalog gives the same chunks everywhere."""

    number: int
    table: str
    rows: bytes
    """JSON: an array of arrays, the columns in the order of shapes.py."""
    sha256: str
    last: bool = False
    """Nothing follows. The last chunk holds no rows."""


class Snapshot:
    """One instant of the catalog, held from `start` to `close` while the writer goes on.

    Its connection is its own: take one chunk a turn. As long as it is open the `-wal` cannot begin anew, so it grows.
    """

    def __init__(self, database: Path) -> None:
        self._path = database
        self._connection: sqlite3.Connection | None = None
        self.meta: dict[str, str] = {}
        """The catalog's scalars of that instant: applied index, term and chain CRC among them."""

    def start(self) -> None:
        """Take hold of the present instant. Raises sqlite3.Error."""
        self._connection = read_only(self._path)
        self._connection.execute("BEGIN")
        self.meta = dict(self._connection.execute("SELECT key, value FROM meta"))

    def chunks(self) -> Iterator[Chunk]:
        """All of it; each step reads about CHUNK_BYTES. Raises sqlite3.Error."""
        number = 0
        for table in CATALOG:
            for rows in self._parts(BY_TABLE[table]):
                yield _chunk(number, table, rows)
                number += 1
        yield _chunk(number, "", b"[]", last=True)

    def close(self) -> None:
        """Let the instant go. May be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _parts(self, shape: Shape) -> Iterator[bytes]:
        if self._connection is None:
            raise ValueError("the snapshot is not started")
        sql = f"SELECT {', '.join(shape.columns)} FROM {shape.table} ORDER BY {', '.join(shape.key_columns)}"
        cursor = self._connection.execute(sql)
        parts: list[bytes] = []
        size = 0
        while rows := cursor.fetchmany(_ROWS_FETCHED):
            for row in rows:
                part = msgspec.json.encode(row)
                if parts and size + len(part) > CHUNK_BYTES:
                    yield _array(parts)
                    parts, size = [], 0
                parts.append(part)
                size += len(part) + 1
        if parts:
            yield _array(parts)


def open_chunk(chunk: Chunk) -> list[KeyedRow]:
    """The rows of a chunk. Raises ValueError when it is not what its SHA-256 says or holds no such rows."""
    if not is_sound(chunk):
        raise ValueError(f"chunk {chunk.number} of the snapshot does not match its SHA-256")
    if chunk.table not in CATALOG and not chunk.last:
        raise ValueError(f"chunk {chunk.number} of the snapshot holds rows of {chunk.table!r}")
    if chunk.last:
        return []
    try:
        found: list[list[Any]] = msgspec.json.decode(chunk.rows, type=list[list[Any]])
        return BY_TABLE[chunk.table].rows(found)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"chunk {chunk.number} of the snapshot: {error}") from None


def is_whole(chunks: Sequence[Chunk]) -> bool:
    """Whether these are all chunks of a snapshot, in order."""
    ends = [chunk.number for chunk in chunks if chunk.last]
    return [chunk.number for chunk in chunks] == list(range(len(chunks))) and ends == [len(chunks) - 1]


def _chunk(number: int, table: str, rows: bytes, *, last: bool = False) -> Chunk:
    return Chunk(number=number, table=table, rows=rows, sha256=_digest(number, table, rows, last=last), last=last)


def is_sound(chunk: Chunk) -> bool:
    """Whether a chunk is what its SHA-256 says, which is of all else in it."""
    return chunk.sha256 == _digest(chunk.number, chunk.table, chunk.rows, last=chunk.last)


def _digest(number: int, table: str, rows: bytes, *, last: bool) -> str:
    return hashlib.sha256(f"{number}:{table}:{int(last)}:".encode() + rows).hexdigest()


def _array(parts: list[bytes]) -> bytes:
    return b"[" + b",".join(parts) + b"]"
