"""What an execution wrote: one append-only file, bounded on disk, its end for the record, any part of it for a reader.

Standard output and error are a file, never a pipe to the agent, so that a job outlives a restart of the agent. The file
grows under us; where it passes the cap its middle is given back to the file system and the head and the tail stay.

- Usually by punching a hole (fallocate), which works under a writer and leaves every offset as it was.
- Where the file system cannot: the tail is copied down to the head, behind a line that says how much is missing, and
  the file is cut. What the job writes during those microseconds is lost with the middle, and not counted.

Between two looks (`Processes` looks each 100 ms, each 10 ms at one that fills fast) a file may stand above the cap.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from meshcron.model import OUTPUT_TAIL_BYTES

BLOCK_BYTES = 4096
"""Holes begin and end on multiples of it: file systems give back whole blocks only."""

OUTPUT_BYTES_MIN = 16 * BLOCK_BYTES
"""The smallest cap: head and tail are still several blocks each, the tail longer than a record's."""

READ_BYTES_MAX = 1024 * 1024
"""The most one read of a live tail returns, so that no reader holds the loop."""

_COPY_BYTES = 256 * 1024
"""A slice of the copy where holes cannot be punched: bounds the memory."""

_CUT_LINE = b"\n[meshcron: %020d bytes not kept]\n"
_CUT_LINE_BYTES = len(_CUT_LINE % 0)
_CUT_LINE_FORM = re.compile(rb"\n\[meshcron: ([0-9]{20}) bytes not kept\]\n")

_CANNOT_PUNCH = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM})

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_libc = ctypes.CDLL(None, use_errno=True)
# glibc on 32 bits has the 64-bit offsets under this name; musl has the plain one alone, with 64 bits.
_fallocate = getattr(_libc, "fallocate64", None) or _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

Punch = Callable[[int, int, int], None]


def punch_hole(fd: int, start: int, length: int) -> None:
    """Give the blocks of [start, start + length) back to the file system; they read as zeros from then on.

    Raises OSError (EOPNOTSUPP) where the file system cannot.
    """
    if _fallocate(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, start, length):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@dataclass(frozen=True, slots=True)
class Gap:
    """The middle that is not kept. Offsets of the stream: [start, end). `resume` is where in the file `end` stands:
    the same number where a hole was punched, close behind `start` where the file was cut."""

    start: int
    end: int
    resume: int

    @property
    def removed(self) -> int:
        """How much shorter the file is than the stream (0 for a hole: it takes no blocks, but keeps its length)."""
        return self.end - self.resume


def find_gap(fd: int, size: int, bytes_max: int) -> Gap | None:
    """The gap of a file, from the file alone: a hole, or the line that stands where it was cut."""
    head = head_bytes(bytes_max)
    line = _CUT_LINE_FORM.fullmatch(os.pread(fd, _CUT_LINE_BYTES, head))
    if line:
        return Gap(head, head + int(line[1]), head + _CUT_LINE_BYTES)
    if size == 0:
        return None
    try:
        hole = os.lseek(fd, 0, os.SEEK_HOLE)
    except OSError:  # a file system that knows no holes
        return None
    if hole >= size:
        return None
    try:
        data = os.lseek(fd, hole, os.SEEK_DATA)
    except OSError:  # ENXIO: nothing but a hole up to the end
        data = size
    return Gap(hole, data, data)


def head_bytes(bytes_max: int) -> int:
    """How much of the beginning is kept: a quarter of the cap."""
    return bytes_max // 4 // BLOCK_BYTES * BLOCK_BYTES


def tail_bytes(bytes_max: int) -> int:
    """How much of the end is kept at least: half of the cap; the last quarter is there to grow into."""
    return bytes_max // 2 // BLOCK_BYTES * BLOCK_BYTES


class OutputFile:
    """The output of one execution while somebody may write it. Holds one descriptor, for reading only: who else has
    the file open for writing can then be asked of the kernel (`has_writers`)."""

    __slots__ = ("_bytes_max", "_fd", "_gap", "_punch", "_size")

    def __init__(self, fd: int, bytes_max: int, punch: Punch = punch_hole) -> None:
        self._fd = fd
        self._bytes_max = max(bytes_max, OUTPUT_BYTES_MIN)
        self._punch = punch
        self._size = 0
        self._gap: Gap | None = None

    @staticmethod
    def open(path: str, bytes_max: int, punch: Punch = punch_hole, *, create: bool = True) -> OutputFile:
        """Open the file, making it (0600) where it is not there; what an earlier session gave back is found again."""
        flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        file = OutputFile(os.open(path, flags, 0o600), bytes_max, punch)
        file.measure()
        return file

    @property
    def total_bytes(self) -> int:
        """How much was written in all, as of the last look."""
        return self._size + (self._gap.removed if self._gap else 0)

    @property
    def truncated(self) -> bool:
        """Whether less is kept than was written."""
        return self._gap is not None

    def identity(self) -> tuple[int, int]:
        """st_dev and st_ino: the same for every name of the file, and for a descriptor of another process."""
        found = os.fstat(self._fd)
        return found.st_dev, found.st_ino

    def give_to(self, uid: int, gid: int) -> None:
        """Make it another user's, so that a job of that user may open /dev/stdout and /dev/stderr."""
        if self.owner() != uid:
            os.fchown(self._fd, uid, gid)

    def owner(self) -> int:
        """The uid of the user whose file it is."""
        return os.fstat(self._fd).st_uid

    def measure(self) -> None:
        """Look at the size. A file that shrank (the job opened /dev/stderr with `>`) is looked at anew."""
        size = os.fstat(self._fd).st_size
        if size < self._size or not self._size:
            self._gap = find_gap(self._fd, size, self._bytes_max)
        self._size = size

    def keep_bounded(self) -> bool:
        """Look, and give back the middle of a file that takes more than the cap. True when it did.

        Raises OSError where the file system neither punches nor lets us write.
        """
        self.measure()
        if self._size - self._punched() <= self._bytes_max:
            return False
        # The descriptor kept open is for reading only; this names the same file wherever it lies by now.
        writable = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            self._give_back(writable)
        finally:
            os.close(writable)
        return True

    def has_writers(self) -> bool | None:
        """Whether any process still has the file open for writing; None where the file system cannot tell.

        A read lease (fcntl(2), F_SETLEASE) is granted only when nobody has. It is given up at once.
        """
        try:
            # Should somebody open the file in this very microsecond, the kernel tells us by a harmless signal.
            fcntl.fcntl(self._fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return True
        except OSError:
            return None
        fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False

    def tail(self) -> str:
        """The last of it, for the record (`tail_text`)."""
        start = max(0, self._size - OUTPUT_TAIL_BYTES)
        return tail_text(os.pread(self._fd, OUTPUT_TAIL_BYTES, start), cut=start > 0) if self._size else ""

    def close(self) -> None:
        """Let go of the descriptor; the file stays."""
        os.close(self._fd)

    def _punched(self) -> int:
        return self._gap.end - self._gap.start if self._gap and not self._gap.removed else 0

    def _give_back(self, writable: int) -> None:
        if not (self._gap and self._gap.removed):
            start = self._gap.start if self._gap else head_bytes(self._bytes_max)
            end = (self._size - tail_bytes(self._bytes_max)) // BLOCK_BYTES * BLOCK_BYTES
            try:
                self._punch(writable, start, end - start)
            except OSError as error:
                if error.errno not in _CANNOT_PUNCH:
                    raise
            else:
                self._gap = Gap(start, end, end)
                return
        self._cut(writable)

    def _cut(self, writable: int) -> None:
        """Head, a line with the number of missing bytes, tail: in place, for file systems that punch no holes."""
        head, tail = head_bytes(self._bytes_max), tail_bytes(self._bytes_max)
        source, target = self._size - tail, head + _CUT_LINE_BYTES
        for done in range(0, tail, _COPY_BYTES):  # forward: the two may overlap, and target < source
            os.pwrite(writable, os.pread(self._fd, min(_COPY_BYTES, tail - done), source + done), target + done)
        total = os.fstat(writable).st_size + (self._gap.removed if self._gap else 0)
        os.ftruncate(writable, target + tail)
        os.pwrite(writable, _CUT_LINE % (total - tail - head), head)
        self._gap = Gap(head, total - tail, target)
        self._size = target + tail


def tail_text(data: bytes, cut: bool) -> str:
    """The text of the end of an output: at most OUTPUT_TAIL_BYTES as UTF-8, from the beginning of a character.

    `cut`: something stood before `data`, so it may begin inside a character. Undecodable bytes become U+FFFD, which
    takes three bytes: a binary output keeps a shorter end.
    """
    if cut:
        start = 0
        while start < min(3, len(data)) and 0x80 <= data[start] < 0xC0:
            start += 1
        data = data[start:]
    text = data.decode(errors="replace")
    encoded = text.encode()
    if len(encoded) <= OUTPUT_TAIL_BYTES:
        return text
    return encoded[-OUTPUT_TAIL_BYTES:].decode(errors="ignore")


def read_output(path: Path, offset: int, most: int, bytes_max: int) -> tuple[bytes, int, bool]:
    """A part of an output from `offset` of its stream on: the bytes, the offset to go on from, whether that is the end
    as of now. What is not kept appears once, as a line that says how much; the next offset is behind it.

    `bytes_max` is the cap the file was written under. A file that is not there reads as empty.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", offset, True
    try:
        return _read(fd, max(0, offset), max(1, min(most, READ_BYTES_MAX)), max(bytes_max, OUTPUT_BYTES_MIN))
    finally:
        os.close(fd)


def _read(fd: int, offset: int, most: int, bytes_max: int) -> tuple[bytes, int, bool]:
    size = os.fstat(fd).st_size
    gap = find_gap(fd, size, bytes_max)
    if gap is None or offset < gap.start:
        data = os.pread(fd, min(most, gap.start - offset) if gap else most, offset)
        return data, offset + len(data), gap is None and offset + len(data) >= size
    if offset < gap.end:
        line = f"\n[meshcron: {gap.end - gap.start} bytes not kept]\n".encode()
        return line, gap.end, gap.end - gap.removed >= size
    data = os.pread(fd, most, offset - gap.removed)
    reached = offset + len(data)
    return data, reached, reached - gap.removed >= size
