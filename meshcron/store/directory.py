"""The data directory: whose it is, that only one agent uses it, and that it still lies where it was made.

`node.json` is what makes it ours. No identity in it is ever overwritten: an adopted directory keeps the old file. It
also says whether this identity has ever gone beyond its first start: then what is missing beside it is lost.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Callable
from itertools import count
from pathlib import Path

import msgspec
from msgspec import UNSET, Struct, UnsetType

from meshcron.errors import StartRefused
from meshcron.store.files import PRIVATE_FILE_MODE, PRIVATE_FOLDER_MODE, replace_whole
from meshcron.store.refusals import words

FORMAT = 1
"""Of node.json; a newer one is refused."""

NODE_FILE = "node.json"
LOCK_FILE = "lock"
COPY_FILE = "copy"
"""Stands in a directory whose agent was told that another one lives with a copy of it."""
BEFORE_FIRST_START = frozenset({LOCK_FILE, NODE_FILE + ".new", "lost+found", "cluster.key"})
"""What a directory may hold and still be new: a start that died early, an empty file system's own folder, and the
key that an operator put there beforehand."""

MACHINE_ID = Path("/etc/machine-id")
_NODE_ID_DIGITS = 32
_Z85_KEY_LENGTH = 40


class Identity(Struct, frozen=True, kw_only=True):
    """Who this agent is. The caller draws it; it is kept for life."""

    node_id: str
    """128 random bits in hex."""
    public_key: str
    secret_key: str
    """The CURVE pair, Z85."""
    created_wall_us: int


class Place(Struct, frozen=True, kw_only=True):
    """Where a directory lies: a copy of it lies elsewhere."""

    machine_id: str
    st_dev: int
    st_ino: int


class _NodeFile(Struct, frozen=True, kw_only=True):
    """node.json. `check` is a CRC of all but the mark: a garbled node id is still a node id."""

    format: int = FORMAT
    identity: Identity
    place: Place
    check: str = ""
    started: bool | UnsetType = UNSET
    """The mark: all other files were there once. Not in `check`, so that an earlier version reads the rest as ever."""


class _Format(Struct):
    """As much of node.json as every version can read."""

    format: int


class DataDirectory:
    """One agent's folder. Locked from `lock` to `close`: a second agent is refused, whatever it wants there."""

    def __init__(self, path: Path, machine_id: str) -> None:
        self.path = path
        self._machine_id = machine_id
        self._lock = -1

    def lock(self) -> None:
        """Make the folder where there is none, and take it for this process. Raises StartRefused: in use, not ours,
        or not accessible. May be called again while locked."""
        if self._lock >= 0:
            return
        try:
            self.path.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
            self._refuse_foreign()
            self._lock = self._flock()
            self.path.chmod(PRIVATE_FOLDER_MODE)
        except OSError as error:
            raise StartRefused(f"the data directory cannot be used: {words(error, self.path)}") from error

    def identity(self, make: Callable[[], Identity]) -> Identity:
        """Who this agent is; at a first start `make` says so, and it is durable when this returns. Raises
        StartRefused: node.json is unreadable, of a newer version, or of another place."""
        kept = self._read()
        if kept is None:
            return self._write(make())
        moved = self._moved(kept.place)
        if moved:
            raise StartRefused(
                f"{self.path} was copied or moved here: {moved}. Two agents with one identity break the cluster. "
                "If the other one is gone for good, `meshcron up --adopt-data-dir` goes on here under a new node id."
            )
        return kept.identity

    def adopt(self, make: Callable[[], Identity]) -> Identity:
        """As `identity`, but a copied or moved directory goes on as somebody new; so does one whose agent was told that
        another lives with a copy of it."""
        kept, copy = self._read(), self.path / COPY_FILE
        if kept is None or not (self._moved(kept.place) or copy.exists()):
            return self.identity(make)
        renamed = self.rename(make())
        copy.unlink(missing_ok=True)
        return renamed

    @property
    def node_id(self) -> str:
        """Whose it says it is, wherever it lies; "" = nobody's yet. Raises StartRefused: node.json is unreadable."""
        kept = self._read()
        return kept.identity.node_id if kept else ""

    def has_started(self) -> bool:
        """Whether this identity has been beyond its first start, so that others may have its word. False as well where
        only an earlier version has started it. Raises StartRefused."""
        kept = self._read()
        return kept is not None and kept.started is True

    def mark_started(self) -> None:
        """From now on whatever is missing is lost; durable when this returns. Raises OSError, StartRefused."""
        kept = self._read()
        if kept is not None and kept.started is not True:
            self._replace(msgspec.structs.replace(kept, started=True))

    def rename(self, identity: Identity) -> Identity:
        """Go on as somebody new (adoption, salvage). The old file stays as node.json.old-1, -2, ... Raises
        StartRefused."""
        kept = next(name for n in count(1) if not (name := self.path / f"{NODE_FILE}.old-{n}").exists())
        try:
            kept.hardlink_to(self.path / NODE_FILE)
        except OSError as error:
            raise StartRefused(f"the old {NODE_FILE} cannot be kept: {words(error, self.path)}") from error
        return self._write(identity)

    def close(self) -> None:
        """Let another agent have the folder. May be called twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _refuse_foreign(self) -> None:
        names = {entry.name for entry in self.path.iterdir()}
        if NODE_FILE not in names and names - BEFORE_FIRST_START:
            some = min(names - BEFORE_FIRST_START)
            raise StartRefused(
                f"{self.path} is neither empty nor a data directory of meshcron (it holds {some!r}, but no {NODE_FILE})"
            )

    def _flock(self) -> int:
        descriptor = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, PRIVATE_FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StartRefused(f"{self.path} is in use by another agent (pid {holder})") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def _read(self) -> _NodeFile | None:
        path = self.path / NODE_FILE
        try:
            data = path.read_bytes()
            form = msgspec.json.decode(data, type=_Format).format
            if form > FORMAT:
                raise StartRefused(f"{path}: format {form} was written by a newer meshcron. Nothing was changed.")
            kept = msgspec.json.decode(data, type=_NodeFile)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StartRefused(words(error, path)) from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StartRefused(f"{path} is garbled ({error}). {_GARBLED_HINT}") from None
        if kept.check != _check(kept) or not _is_identity(kept.identity):
            raise StartRefused(f"{path} is garbled (its checksum does not match). {_GARBLED_HINT}")
        return kept

    def _write(self, identity: Identity) -> Identity:
        try:
            self._replace(_NodeFile(identity=identity, place=self._place()))
        except OSError as error:
            raise StartRefused(f"{NODE_FILE} cannot be written: {words(error, self.path)}") from error
        return identity

    def _replace(self, file: _NodeFile) -> None:
        data = msgspec.json.encode(msgspec.structs.replace(file, check=_check(file)))
        replace_whole(self.path / NODE_FILE, msgspec.json.format(data) + b"\n")

    def _place(self) -> Place:
        there = self.path.stat()
        return Place(machine_id=self._machine_id, st_dev=there.st_dev, st_ino=there.st_ino)

    def _moved(self, kept: Place) -> str:
        here = self._place()
        if kept.machine_id and here.machine_id and kept.machine_id != here.machine_id:
            return f"made on the machine with machine-id {kept.machine_id}, this one is {here.machine_id}"
        if kept.st_ino != here.st_ino or (_lasts(kept) and _lasts(here) and kept.st_dev != here.st_dev):
            return f"made as inode {kept.st_ino} of device {kept.st_dev}, here {here.st_ino} of {here.st_dev}"
        return ""


_GARBLED_HINT = "Nothing was changed. Restore it from a backup, or set the directory aside and start with a new one."


def machine_id() -> str:
    """What systemd and D-Bus know this installation by; "" where there is none."""
    try:
        return MACHINE_ID.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _lasts(place: Place) -> bool:
    """Whether the device number means anything next time: major 0 (btrfs, overlayfs, NFS, tmpfs) is handed out anew
    at each mount."""
    return os.major(place.st_dev) != 0


def _check(file: _NodeFile) -> str:
    return f"{zlib.crc32(msgspec.json.encode(msgspec.structs.replace(file, check='', started=UNSET))):08x}"


def _is_identity(identity: Identity) -> bool:
    keys = (identity.public_key, identity.secret_key)
    return len(identity.node_id) == _NODE_ID_DIGITS and all(len(key) == _Z85_KEY_LENGTH for key in keys)
