"""The folders of executions: one each while it runs and until its outcome is committed; of the rest only the output.

    open/<execution id>/status, output      from the spawn until `retire`
    kept/<execution id>                     the output of an execution that is over, if it wrote anything
    spare/<execution id>                    emptied outputs of pruned executions

Folders and files are used again, renamed, instead of removed and made anew: before ext4 hands out an inode it looks at
every one deleted in the last minutes (fs/ext4/ialloc.c, recently_deleted). With a hundred executions a second, a file
made and a file removed for each, that comes to milliseconds a file; a rename takes 20 microseconds.

An output is only used again by the user who owned it, and when nobody can write it any more; a folder only without
the output of another execution. The folders named above are made again where somebody has removed them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from meshcron.runtime.output import OUTPUT_BYTES_MIN, OutputFile

SPARES_MAX = 256
"""Folders kept for the next executions: as many as may be running, or over but not yet committed, in a burst."""

SPARE_OUTPUTS_MAX = 4096
"""Emptied outputs kept for the next executions: as many as are pruned in one go. Each is an inode and no block."""

USES_MAX = 1000
"""After this many executions a folder is removed: its status file has grown by a line of about 40 bytes for each."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}\Z")

_STAT_BLOCK_BYTES = 512
"""The unit of st_blocks, whatever the file system's own blocks are (stat(2))."""

_NO_OUTPUT = -1
"""In place of the owner of the output in a spare folder that has none."""

log = structlog.get_logger("meshcron")


@dataclass(frozen=True, slots=True)
class _Spare:
    execution_id: str
    uses: int


@dataclass(frozen=True, slots=True)
class Remains:
    """What lies on the disk of one execution."""

    execution_id: str
    wall_us: int
    """When its output was written last."""
    bytes: int
    """What it takes of the disk; a hole takes nothing."""
    folder: bool
    """It has a folder still, as one that runs, or one that an earlier session of the agent left."""


class Folders:
    """Gives each execution its folder, once. All under `root`, mode 0700."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._kept = root / "kept"
        self._spare = root / "spare"
        self.prefix = f"{root}/open/"
        """What every execution's folder begins with."""
        self._uses: dict[str, int] = {}
        self._folders: defaultdict[int, deque[_Spare]] = defaultdict(deque)  # by the owner of the output in it
        self._outputs: defaultdict[int, deque[str]] = defaultdict(deque)  # names in spare/, by owner

    def start(self) -> None:
        """Make what is not there yet, and find the spare outputs of earlier sessions."""
        self._root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make()
        for path in self._spare.iterdir():
            self._outputs[path.stat().st_uid].append(path.name)

    def _make(self) -> None:
        for folder in (self._root, Path(self.prefix), self._kept, self._spare):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)

    def path(self, execution_id: str) -> str:
        """Where an execution's folder is, or would be. Raises ValueError for an id that is no plain name."""
        if not _ID.match(execution_id):
            raise ValueError(f"{execution_id!r} is no execution id")
        return self.prefix + execution_id

    def take(self, execution_id: str, uid: int) -> str:
        """A folder for an execution that never had one; its output is `uid`'s and empty, or not there yet.

        Raises FileExistsError when it had one: something ran, or may have run, under this id. OSError: no folder.
        """
        path = self.path(execution_id)
        if self._folders[uid] and self._reuse(self._folders[uid].popleft(), execution_id):
            return path
        if not (self._folders[_NO_OUTPUT] and self._reuse(self._folders[_NO_OUTPUT].popleft(), execution_id)):
            self._mkdir(path)
        if self._outputs[uid]:
            with suppress(OSError):  # somebody tidied up: a new one is made when it is opened
                self._spare.joinpath(self._outputs[uid].popleft()).rename(f"{path}/output")
        return path

    def _mkdir(self, path: str) -> None:
        try:
            os.mkdir(path, 0o700)  # noqa: PTH102 - the hot path of every launch
        except FileNotFoundError:  # somebody removed what is above it
            self._make()
            os.mkdir(path, 0o700)  # noqa: PTH102

    def _move(self, source: Path, target: Path) -> None:
        """Rename; raises FileNotFoundError only where the source is not there."""
        try:
            source.rename(target)
        except FileNotFoundError:
            self._make()
            source.rename(target)

    def _reuse(self, spare: _Spare, execution_id: str) -> bool:
        """False: somebody removed the spare, or the execution has a folder (mkdir will say so). It is not used then."""
        try:
            os.rename(self.prefix + spare.execution_id, self.prefix + execution_id)  # noqa: PTH104 - the hot path too
        except OSError:
            shutil.rmtree(self.prefix + spare.execution_id, ignore_errors=True)
            return False
        self._uses[execution_id] = spare.uses
        return True

    def retire(self, execution_id: str, *, empty: bool, owner: int | None) -> None:
        """The execution is over and committed: keep its output unless `empty`, and its folder for another. An output
        that cannot be moved stays where it is, with the folder, until it is dropped.

        `owner`: the uid whose next execution may have the empty output; None when something may still write it.
        """
        path = self.path(execution_id)
        uses = self._uses.pop(execution_id, 0) + 1
        try:
            with suppress(FileNotFoundError):  # no output
                if not empty:
                    self._move(Path(path, "output"), self._kept / execution_id)
                elif owner is None:
                    Path(path, "output").unlink()
        except OSError as error:
            log.warning("the output of an execution cannot be moved", execution=execution_id, why=str(error))
            return
        if uses < USES_MAX and sum(map(len, self._folders.values())) < SPARES_MAX:
            key = owner if empty and owner is not None else _NO_OUTPUT
            self._folders[key].append(_Spare(execution_id, uses))
        else:
            shutil.rmtree(path, ignore_errors=True)

    def output(self, execution_id: str) -> Path | None:
        """The output file of an execution, open or kept; None where nothing is."""
        try:
            path = Path(self.path(execution_id), "output")
        except ValueError:
            return None
        for candidate in (path, self._kept / execution_id):
            if candidate.exists():
                return candidate
        return None

    def remains(self) -> Iterator[Remains]:
        """What lies there of executions, one after the other, as long as the caller likes to take; spares are nobody's.
        What comes or goes meanwhile may be among them or not. Raises OSError."""
        with os.scandir(self._kept) as entries:
            for entry in entries:
                if found := _remains(entry.path, entry.name, folder=False):
                    yield found
        with os.scandir(self.prefix) as entries:
            for entry in entries:
                if self._is_spare(entry.name):
                    continue
                if found := _remains(f"{entry.path}/output", entry.name, folder=True) or _remains(
                    entry.path, entry.name, folder=True
                ):
                    yield found

    def _is_spare(self, execution_id: str) -> bool:
        return any(spare.execution_id == execution_id for spares in self._folders.values() for spare in spares)

    def drop(self, execution_id: str) -> None:
        """Remove what there is of an execution; nothing is fine."""
        with suppress(ValueError):
            path = self.path(execution_id)
            with suppress(OSError):  # nothing is there; what cannot be removed now is found by the next sweep
                self._empty(execution_id)
            self._uses.pop(execution_id, None)
            for spares in self._folders.values():
                for spare in [spare for spare in spares if spare.execution_id == execution_id]:
                    spares.remove(spare)
            shutil.rmtree(path, ignore_errors=True)

    def _empty(self, execution_id: str) -> None:
        kept = self._kept / execution_id
        file = OutputFile.open(str(kept), OUTPUT_BYTES_MIN, create=False)
        try:
            if file.has_writers() is not False or sum(map(len, self._outputs.values())) >= SPARE_OUTPUTS_MAX:
                kept.unlink()
                return
            os.truncate(kept, 0)
            self._move(kept, self._spare / execution_id)
            self._outputs[file.owner()].append(execution_id)
        finally:
            # After the truncation, and before anybody writes: otherwise ext4 would flush at the writer's close
            # (auto_da_alloc, meant for those who replace a file by truncating it).
            file.close()


def _remains(path: str, execution_id: str, *, folder: bool) -> Remains | None:
    try:
        found = os.lstat(path)
    except OSError:  # gone meanwhile
        return None
    return Remains(execution_id, found.st_mtime_ns // 1000, found.st_blocks * _STAT_BLOCK_BYTES, folder)
