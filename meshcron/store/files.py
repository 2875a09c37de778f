"""Small files that are whole or not there: written beside, synced, renamed, and the folder synced after."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE_FILE_MODE = 0o600
PRIVATE_FOLDER_MODE = 0o700


def sync_folder(folder: Path) -> None:
    """Names created, renamed or removed in `folder` are on stable storage when this returns. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes) -> None:
    """Write and sync a file of mode 0600, in place of any leftover of an earlier try. Raises OSError."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE_MODE)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_whole(path: Path, data: bytes) -> None:
    """`path` holds `data` when this returns, and either its old or its new content after a crash. Raises OSError."""
    beside = path.with_name(path.name + ".new")
    write_new(beside, data)
    beside.replace(path)
    sync_folder(path.parent)
