"""Space put by for the day the disk is full, so that what runs can still be written down (FAULTS 22)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from meshcron.store.files import PRIVATE_FILE_MODE

RESERVE_BYTES = 8 * 1024 * 1024
"""Some ten thousand states of executions (PROTOCOL 6, Runner)."""

ROOM_FACTOR = 4
"""The reserve is made only where this many times its size is free: it must not itself fill the disk."""


class Reserve:
    """A file of real blocks. `held` says whether it is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.held = False

    def fill(self) -> bool:
        """Make the file where there is room enough; True when it is there. Raises OSError other than a lack of
        space."""
        self.held = self._path.exists() and self._path.stat().st_size == RESERVE_BYTES
        if not self.held and self._room():
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, PRIVATE_FILE_MODE)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
                self.held = True
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                self._path.unlink()
            finally:
                os.close(descriptor)
        return self.held

    def release(self) -> bool:
        """Give the space back; False when there was none to give. Raises OSError."""
        if not self.held:
            return False
        self._path.unlink()
        self.held = False
        return True

    def _room(self) -> bool:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize >= ROOM_FACTOR * RESERVE_BYTES
