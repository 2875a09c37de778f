"""What a `-wal` file really holds, found before SQLite opens it.

SQLite stops silently at the first bad frame: one flipped bit drops every commit after it, and no check of its own
tells (PROTOCOL 5, measured). A commit is fsynced before the next one begins, so a bad frame with frames of a LATER
transaction behind it is damage, while a hole inside the last transaction is the torn tail of a crash.

Format: https://www.sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

WAL_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
PAGE_BYTES_MIN = 512
"""The smallest page SQLite knows."""
READ_BYTES = 1 << 20
"""At a time: few calls of the system, and no more memory than that."""

_MAGIC = 0x377F0682  # the lowest bit says in which byte order the checksums read their words
_VERSION = 3007000
_HEADER = struct.Struct(">IIII8sII")  # magic, version, page size, checkpoint number, salts, checksum
_FRAME = struct.Struct(">II8sII")  # page number, pages of the database after a commit (else 0), salts, checksum
_CHECKSUM = struct.Struct(">II")
_SALTS = slice(8, 16)  # of a frame
_WORD_MASK = 0xFFFFFFFF


class WalScan(Struct, frozen=True, kw_only=True):
    """What a scan found. `frames` and `pages` are of the durable prefix, which ends with a commit."""

    salts: bytes = b""
    """The generation; it changes whenever SQLite begins the file anew. Empty = the file holds nothing."""
    page_bytes: int = 0
    frames: int = 0
    pages: dict[int, int] = {}
    """Page number -> the last of those frames that holds it, counted from 0."""
    damage: str = ""
    """Why the prefix is less than what was once durable; empty = it is not."""


def scan(path: Path) -> WalScan:
    """Read the whole file. Changes nothing. Raises OSError."""
    try:
        with path.open("rb", buffering=READ_BYTES) as file:
            head = file.read(WAL_HEADER_BYTES)
            if len(head) < WAL_HEADER_BYTES:
                return WalScan()  # died while making it: the header is synced before the first frame is written
            header = WalHeader.read(head)
            if header is not None:
                return _scan_frames(file, header)
            return WalScan(damage="its header is damaged") if any(head) or _holds_anything(file) else WalScan()
    except FileNotFoundError:
        return WalScan()


class WalHeader(Struct, frozen=True):
    """The first 32 bytes: how to read the rest."""

    page_bytes: int
    salts: bytes
    order: str
    """Of the checksums' words: "<" or ">"."""
    checksum: tuple[int, int]

    @staticmethod
    def read(head: bytes) -> WalHeader | None:
        """None when it is not a whole header."""
        if len(head) < WAL_HEADER_BYTES:
            return None
        magic, version, page_bytes, _, salts, first, second = _HEADER.unpack_from(head)
        if magic & ~1 != _MAGIC or version != _VERSION or page_bytes < PAGE_BYTES_MIN or page_bytes & (page_bytes - 1):
            return None
        order = ">" if magic & 1 else "<"
        checksum = _head_checksum(struct.unpack_from(f"{order}6I", head), (0, 0))
        return WalHeader(page_bytes, salts, order, checksum) if checksum == (first, second) else None

    @property
    def frame_bytes(self) -> int:
        """A frame's header and its page."""
        return FRAME_HEADER_BYTES + self.page_bytes

    def frames(self, file: BinaryIO) -> Iterator[bytes]:
        """The whole frames from here on. Raises OSError."""
        while len(frame := file.read(self.frame_bytes)) == self.frame_bytes:
            yield frame

    def frame_checksum(self, frame: bytes, before: tuple[int, int]) -> tuple[int, int]:
        """The checksum a frame must carry when `before` is that of the frame in front of it."""
        checksum = _head_checksum(struct.unpack_from(f"{self.order}2I", frame), before)
        return _page_checksum(
            struct.unpack_from(f"{self.order}{self.page_bytes // 4}I", frame, FRAME_HEADER_BYTES), checksum
        )


def images(path: Path, frames: int) -> Iterator[tuple[int, bytes]]:
    """(page number, page) of the first `frames` frames: of one page the last counts. The caller knows them to be
    committed. Reads in large pieces, for each call of the system lets go of the interpreter lock. Raises OSError, and
    ValueError when the file is shorter."""
    if not frames:
        return
    with path.open("rb", buffering=READ_BYTES) as file:
        header = WalHeader.read(file.read(WAL_HEADER_BYTES))
        found = 0
        for frame in islice(header.frames(file), frames) if header else ():
            yield _FRAME.unpack_from(frame)[0], frame[FRAME_HEADER_BYTES:]
            found += 1
    if found != frames:
        raise ValueError(f"{path}: does not hold {frames} frames")


def copy_prefix(path: Path, target: Path, frames: int) -> None:
    """Write a copy that ends after `frames` frames, of which the file has so many. Raises OSError."""
    with path.open("rb") as file, target.open("wb") as copy:
        head = file.read(WAL_HEADER_BYTES)
        header = WalHeader.read(head)
        copy.write(head)
        for frame in islice(header.frames(file), frames) if header else ():
            copy.write(frame)


def copy_repaired(path: Path, target: Path) -> None:
    """Write a copy in which SQLite also reads the frames behind a bad one: each with the checksum it asks for. Only to
    see how much there was. Raises OSError."""
    with path.open("rb") as file, target.open("wb") as copy:
        head = file.read(WAL_HEADER_BYTES)
        header = WalHeader.read(head)
        if header is None:
            return
        copy.write(head)
        checksum = header.checksum
        for frame in takewhile(lambda frame: frame[_SALTS] == header.salts, header.frames(file)):
            checksum = header.frame_checksum(frame, checksum)
            copy.write(frame[: _SALTS.stop] + _CHECKSUM.pack(*checksum) + frame[FRAME_HEADER_BYTES:])


def _scan_frames(file: BinaryIO, header: WalHeader) -> WalScan:
    durable = 0
    pages: dict[int, int] = {}
    fresh: dict[int, int] = {}
    checksum = header.checksum
    damage = ""
    for number, frame in enumerate(header.frames(file)):
        page, commit, salts, first, second = _FRAME.unpack_from(frame)
        checksum = header.frame_checksum(frame, checksum) if page and salts == header.salts else (-1, -1)
        if checksum != (first, second):
            damage = _later_transaction(chain([frame], header.frames(file)), header, number)
            break
        fresh[page] = number
        if commit:
            durable = number + 1
            pages.update(fresh)
            fresh.clear()
    return WalScan(salts=header.salts, page_bytes=header.page_bytes, frames=durable, pages=pages, damage=damage)


def _later_transaction(rest: Iterable[bytes], header: WalHeader, bad: int) -> str:
    """Damage when anything of this generation stands behind the commit that ends the bad frame's transaction.

    A rolled-back transaction leaves frames of this generation too, but none of them is a commit.
    """
    ends = False
    for number, frame in enumerate(rest, start=bad + 1):
        if frame[_SALTS] != header.salts:
            continue
        if ends:
            return f"frame {bad + 1} is bad, and frame {number} belongs to a later transaction"
        ends = _FRAME.unpack_from(frame)[1] != 0
    return ""


def _holds_anything(file: BinaryIO) -> bool:
    return any(part.strip(b"\0") for part in iter(lambda: file.read(READ_BYTES), b""))


def _head_checksum(words: tuple[int, ...], checksum: tuple[int, int]) -> tuple[int, int]:
    first, second = checksum
    for n in range(0, len(words), 2):
        first = (first + words[n] + second) & _WORD_MASK
        second = (second + words[n + 1] + first) & _WORD_MASK
    return first, second


def _page_checksum(words: tuple[int, ...], checksum: tuple[int, int]) -> tuple[int, int]:
    """SQLite's running sum over a page (a multiple of 16 words), 4 MiB in 65 ms: unrolled, and masked once a round, in
    which the sums stay below 2**58 and so within two digits of a Python integer."""
    first, second = checksum
    each = iter(words)
    for a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p in zip(*[each] * 16, strict=True):  # noqa: E741
        first += a + second
        second += b + first
        first += c + second
        second += d + first
        first += e + second
        second += f + first
        first += g + second
        second += h + first
        first += i + second
        second += j + first
        first += k + second
        second += l + first
        first += m + second
        second += n + first
        first = (first + o + second) & _WORD_MASK
        second = (second + p + first) & _WORD_MASK
    return first, second
