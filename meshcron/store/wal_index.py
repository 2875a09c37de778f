"""How far the `-wal` reaches at this moment, read from SQLite's own index of it (the `-shm` file).

The writer looks after each commit. The file is mapped rather than read: a system call lets go of the interpreter lock,
and a busy loop gives it back up to half a millisecond later.

Format: https://www.sqlite.org/walformat.html#the_wal_index_file_format.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from msgspec import Struct

_VERSION = 3007000
_HEADER = struct.Struct("=I8xBxHI12x8s8x")  # version, initialised, page size, frames, salts
_HEADER_BYTES = _HEADER.size
"""Of one of its two copies."""


class WalReach(Struct, frozen=True):
    """The committed frames of the present generation. No frames and no salts: the file holds nothing."""

    salts: bytes = b""
    frames: int = 0


class WalIndex:
    """The index of one database, open between `open` and `close`.

    `close` only after every connection to the database is closed: letting go of a descriptor of the file drops the
    process's POSIX locks on it, SQLite's among them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._map: mmap.mmap | None = None

    def open(self) -> None:
        """Map the index; a connection must have read the database before. Raises OSError, ValueError."""
        self._descriptor = os.open(self._path, os.O_RDONLY)
        self._map = mmap.mmap(self._descriptor, 2 * _HEADER_BYTES, access=mmap.ACCESS_READ)

    def reach(self) -> WalReach:
        """What is committed now, asked by the only thread that commits. Raises ValueError when the index is not of
        the format we know."""
        if self._map is None:
            raise ValueError("the index is not open")
        version, initialised, _, frames, salts = _HEADER.unpack_from(self._map)
        copies_agree = self._map[:_HEADER_BYTES] == self._map[_HEADER_BYTES : 2 * _HEADER_BYTES]
        if version != _VERSION or not initialised or not copies_agree:
            raise ValueError(f"{self._path}: not a WAL index of version {_VERSION}")
        return WalReach(salts, frames) if frames else WalReach()

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
