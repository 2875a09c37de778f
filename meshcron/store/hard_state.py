"""The few facts about one agent that must never fall: start number, term, vote, and what its database had reached.

Two slots in one file, each with a CRC and a block of its own: a write that tears spoils one slot, never both. The file
is written after the database's commit and before the core hears of it, so a database behind it was rolled back or
damaged, while the file behind the database is an ordinary crash (PROTOCOL 2, Amnesia).
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path

import msgspec
from msgspec import Struct

from meshcron.errors import StartRefused
from meshcron.store.damage import damaged
from meshcron.store.files import replace_whole

FORMAT = 1
"""Of the payload; a file of a newer format is refused."""

SLOT_BYTES = 4096
"""One slot to a block of the file system: the two are never in one sector."""

SLOTS = 2
_MAGIC = b"mcstate\0"
_HEAD = struct.Struct(">8sQII")  # magic, sequence, CRC of the payload, its length


class HardState(Struct, frozen=True, kw_only=True):
    """What the file says. All of it only ever rises, but for `last_index`, which a follower's truncation may lower
    beforehand."""

    format: int = FORMAT
    start: int = 0
    """How often this agent has started; 0 = never yet."""
    term: int = 0
    voted_for: str = ""
    last_index: int = 0
    """The log reached at least this index."""
    wal_salts: str = ""
    """Hex of the salts that name the generation of the `-wal`; "" = it held nothing."""
    wal_frames: int = 0
    """That generation held at least this many committed frames."""
    settled: bool = False
    """The agent stopped by itself, and every frame of the `-wal` stands in the database file as well."""


class HardStateFile:
    """The file, held open between `open` and `close`. `state` is what it holds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._sequence = 0
        self.state = HardState()

    def create(self, state: HardState | None = None) -> None:
        """Make the file, in place of any that is there, and open it. Raises OSError."""
        replace_whole(self._path, _slot(1, state or HardState()) + _slot(2, state or HardState()))
        self.open()

    def open(self) -> None:
        """Read the newer whole slot. Raises DamagedStore when neither is whole, StartRefused for a newer format."""
        self.close()
        try:
            # O_DSYNC: the write itself is the fsync, one turn without the interpreter lock instead of two.
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_DSYNC)
        except FileNotFoundError:
            raise damaged(self._path, "missing, though the agent has started before") from None
        data = os.pread(self._descriptor, SLOTS * SLOT_BYTES, 0)
        whole = [found for n in range(SLOTS) if (found := _read_slot(data[n * SLOT_BYTES : (n + 1) * SLOT_BYTES]))]
        if not whole:
            self.close()
            raise damaged(self._path, "neither of its two copies is whole")
        self._sequence, payload = max(whole)
        self.state = self._decode(payload)

    def write(self, state: HardState) -> None:
        """`state` is durable when this returns; after a crash within, the file holds it or the one before. Raises
        OSError, after which nothing is known and the agent must exit."""
        sequence = self._sequence + 1
        if os.pwrite(self._descriptor, _slot(sequence, state), sequence % SLOTS * SLOT_BYTES) != SLOT_BYTES:
            raise OSError(errno.EIO, f"{self._path}: a slot was written in part")
        self._sequence = sequence
        self.state = state

    def write_both(self, state: HardState) -> None:
        """As `write`, in both slots: the loss of either one loses nothing of it (the start number has no other
        copy)."""
        for _ in range(SLOTS):
            self.write(state)

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _decode(self, payload: bytes) -> HardState:
        try:
            form = msgspec.json.decode(payload, type=_Format).format
            if form > FORMAT:
                self.close()
                raise StartRefused(f"{self._path}: format {form} was written by a newer meshcron. Nothing was changed.")
            return msgspec.json.decode(payload, type=HardState)
        except msgspec.DecodeError as error:
            self.close()
            raise damaged(self._path, error) from None


class _Format(Struct):
    """As much of a payload as every version can read."""

    format: int


def _slot(sequence: int, state: HardState) -> bytes:
    payload = msgspec.json.encode(state)
    head = _HEAD.pack(_MAGIC, sequence, _crc(sequence, payload), len(payload))
    return (head + payload).ljust(SLOT_BYTES, b"\0")


def _read_slot(data: bytes) -> tuple[int, bytes] | None:
    """Sequence and payload of a whole slot, None for a torn or damaged one."""
    if len(data) < SLOT_BYTES:
        return None
    magic, sequence, crc, length = _HEAD.unpack_from(data)
    payload = data[_HEAD.size : _HEAD.size + length]
    if magic != _MAGIC or len(payload) != length or crc != _crc(sequence, payload):
        return None
    return sequence, payload


def _crc(sequence: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(sequence.to_bytes(8, "big")))
