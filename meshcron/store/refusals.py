"""What the system refused, in words: the file, what is wrong with it, and what the operator can do."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_FREE_SPACE = "free some space on its disk"
_OTHER_FOLDER = "make it writable for this user, or choose another folder with --data-dir"

_BY_ERRNO: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOSPC: _FREE_SPACE,
        errno.EDQUOT: _FREE_SPACE,
        errno.EFBIG: "raise this process's limit on the size of a file",
        errno.EMFILE: "raise this process's limit on open files",
        errno.EIO: "the disk fails: look at the system's log",
        errno.EACCES: _OTHER_FOLDER,
        errno.EPERM: _OTHER_FOLDER,
        errno.EROFS: _OTHER_FOLDER,
    }
)
_BY_SQLITE: Mapping[int, str] = MappingProxyType(
    {
        sqlite3.SQLITE_FULL: _FREE_SPACE,
        sqlite3.SQLITE_IOERR_SHMSIZE: _FREE_SPACE,
        sqlite3.SQLITE_IOERR: "the disk fails or a limit of this process is met: look at the system's log",
        sqlite3.SQLITE_BUSY: "end the other program that has it open",
        sqlite3.SQLITE_READONLY: _OTHER_FOLDER,
        sqlite3.SQLITE_CANTOPEN: _OTHER_FOLDER,
        sqlite3.SQLITE_PERM: _OTHER_FOLDER,
    }
)
_PRIMARY = 0xFF
"""The bits of an extended error code of SQLite that name its kind."""


def words(error: BaseException, place: Path) -> str:
    """`file: what is wrong; what to do`. `place` stands in for the file where the error names none."""
    if isinstance(error, OSError):
        remedy = _BY_ERRNO.get(error.errno or 0, "choose another folder with --data-dir")
        return f"{error.filename or place}: {error.strerror or error}; {remedy}"
    code = getattr(error, "sqlite_errorcode", None) or 0
    remedy = _BY_SQLITE.get(code) or _BY_SQLITE.get(code & _PRIMARY, "look at the system's log")
    return f"{place}: {error}; {remedy}"
