"""Going on after damage, offline: what is provably intact moves into a new database, the damaged files stay aside.

Kept is the committed prefix of the `-wal` and every page whose checksum matches; of the log, one unbroken chain that
reaches the applied entry. The caller gives the agent a new identity (DataDirectory.rename) and the cluster a new
generation, and records what the lost entries may have held as `lost: recovered` (PROTOCOL 2 and 5).
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from meshcron.errors import DamagedStore, StartRefused
from meshcron.rows import BallotRow, LogRow
from meshcron.store.database import DATABASE, SHM, SUMS, WAL, create_empty, settle, translated
from meshcron.store.files import PRIVATE_FOLDER_MODE, sync_folder
from meshcron.store.hard_state import HardState, HardStateFile
from meshcron.store.inspection import refuse_newer
from meshcron.store.log import LogBase, log_end, read_base, write_base, write_entries
from meshcron.store.migrations import migrate
from meshcron.store.page_sums import PageSums
from meshcron.store.remains import chain_through, copy_rows, readable_log
from meshcron.store.shapes import BY_TABLE, SHAPES
from meshcron.store.statements import upsert
from meshcron.store.store import HARD_STATE
from meshcron.store.tables import Tables
from meshcron.store.wal import WalScan, copy_prefix, copy_repaired, scan

WORK_FOLDER = "salvage.work"
"""Beside the database while it is made; a leftover of a salvage that died is removed by the next."""


class SalvageReport(Struct, frozen=True, kw_only=True):
    """What was kept and what was not."""

    set_aside: tuple[str, ...]
    """The old files, in the data directory."""
    last: LogBase
    """The last entry kept."""
    entries_lost_max: int
    """How many entries are known to have followed it. A database rolled back as a whole may have had more."""
    incomplete: tuple[str, ...]
    """Tables that lost rows to a damaged page."""
    verified: bool
    """False: the page checksums were lost too, so that a flipped bit within a row may have been kept."""
    meta: dict[str, str]
    """The catalog's scalars as kept."""


class _Source(Struct, frozen=True):
    """What of the files to go by."""

    wal_frames: int
    bad_pages: list[int]
    page_bytes: int
    verified: bool


class _Kept(Struct, frozen=True):
    """What the new database holds."""

    base: LogBase
    log: list[LogRow]
    newest_index: int
    incomplete: tuple[str, ...]
    meta: dict[str, str]
    ballot: BallotRow


def salvage(folder: Path, label: str, applied: Callable[[dict[str, str]], LogBase]) -> SalvageReport:
    """Set the database of a stopped agent aside and put what is intact in its place. The caller holds the lock.

    `label` goes into the names of what is set aside; `applied` finds the last applied entry among the catalog's
    scalars, and raises KeyError or ValueError where it is not there. Raises StartRefused when too little is left to go
    on with, or something of a newer version is; then nothing was changed. A crash in between leaves a directory that
    is refused as damaged, and all old files under their new names.
    """
    proof = _proof(folder / HARD_STATE)
    work = folder / WORK_FOLDER
    shutil.rmtree(work, ignore_errors=True)
    try:
        with translated(folder / DATABASE):
            work.mkdir(mode=PRIVATE_FOLDER_MODE)
            source = _copy(folder, work)
            kept = _rescue(work, proof, applied)
            newest = max(kept.newest_index, proof.last_index, _peek(folder, work))
            set_aside = _exchange(folder, work, label)
            _prove(folder, proof, kept)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    last = log_end(kept.base, kept.log)
    return SalvageReport(
        set_aside=set_aside,
        last=last,
        entries_lost_max=max(0, newest - last.index),
        incomplete=kept.incomplete,
        verified=source.verified,
        meta=kept.meta,
    )


def _proof(path: Path) -> HardState:
    """What is still known of the agent's promises; nothing where both copies are gone."""
    file = HardStateFile(path)
    try:
        file.open()
        return file.state
    except DamagedStore:
        return HardState()
    finally:
        file.close()


def _copy(folder: Path, work: Path) -> _Source:
    """A working copy of the trustworthy part: bad pages blank, so that SQLite stumbles over them and not us."""
    database, wal = folder / DATABASE, folder / WAL
    if not database.exists():
        raise StartRefused(
            f"{database} is missing, so there is nothing to salvage. Restore a backup; or start with an empty data "
            "directory, as a new agent."
        )
    found = scan(wal)
    refuse_newer(database, wal, found)
    source = _source(folder, found)
    shutil.copyfile(database, work / DATABASE)
    with (work / DATABASE).open("r+b") as file:
        for number in source.bad_pages:
            if number > 1:  # without its head the file is nothing; a bit flipped there is mostly harmless
                file.seek((number - 1) * source.page_bytes)
                file.write(bytes(source.page_bytes))
    if source.wal_frames:
        copy_prefix(wal, work / WAL, source.wal_frames)
    return source


def _source(folder: Path, found: WalScan) -> _Source:
    """Where a checkpoint went beyond the good part of the `-wal`, the database file alone is newer, and whole."""
    sums = PageSums(folder / SUMS)
    try:
        sums.open()
    except DamagedStore:
        return _Source(found.frames, [], found.page_bytes, verified=False)
    alone = sums.wrong_pages(folder / DATABASE, ())
    covered = sums.reach.salts == found.salts and sums.reach.frames >= found.frames
    if not found.frames or (covered and not alone):
        return _Source(0, alone, sums.page_bytes, verified=True)
    return _Source(found.frames, [page for page in alone if page not in found.pages], sums.page_bytes, verified=True)


def _rescue(work: Path, proof: HardState, applied: Callable[[dict[str, str]], LogBase]) -> _Kept:
    """Fill a new database from the working copy."""
    fresh, sums = work / "fresh", PageSums(work / SUMS)
    create_empty(fresh, sums)
    with closing(_connect(work / DATABASE)) as source, closing(_connect(fresh)) as target:
        migrate(source)
        target.execute("BEGIN")
        complete = {shape.table: copy_rows(source, target, shape) for shape in SHAPES.values()}
        tables = Tables(target)
        meta = tables.meta()
        if not complete["meta"]:
            raise StartRefused("too much of the catalog is damaged to go on with. Restore a backup.")
        try:
            entry = applied(meta)
        except (KeyError, ValueError):
            raise StartRefused("the catalog does not say what it stands for. Restore a backup.") from None
        found = readable_log(source)
        base, log = chain_through(entry, _base(source, found), found)
        write_base(target, base)
        write_entries(target, log)
        ballot = max(tables.ballot(), BallotRow(proof.term, proof.voted_for), key=lambda row: row.term)
        upsert(target, BY_TABLE["ballot"], [BY_TABLE["ballot"].values(ballot)])
        target.execute("COMMIT")
    settle(fresh, sums)
    newest = found[-1].index if found else 0
    return _Kept(base, log, newest, tuple(name for name, all_of_it in complete.items() if not all_of_it), meta, ballot)


def _base(source: sqlite3.Connection, log: list[LogRow]) -> LogBase:
    try:
        return read_base(source)
    except sqlite3.DatabaseError:
        return LogBase(log[0].index - 1, 0, None) if log else LogBase()


def _peek(folder: Path, work: Path) -> int:
    """The newest entry that ever stood in the `-wal`, 0 where it cannot be seen."""
    if not (folder / WAL).exists():
        return 0
    peep = work / "peek"
    shutil.copyfile(folder / DATABASE, peep)
    copy_repaired(folder / WAL, work / "peek-wal")
    try:
        with closing(_connect(peep)) as connection:
            return connection.execute("SELECT max(idx) FROM log").fetchone()[0] or 0
    except sqlite3.DatabaseError:
        return 0


def _exchange(folder: Path, work: Path, label: str) -> tuple[str, ...]:
    """The old files under new names, then the new ones in their place; the `-wal` goes first, for it would be read
    into the new database."""
    names = [name for name in (DATABASE, WAL, SUMS, HARD_STATE) if (folder / name).exists()]
    aside = tuple(f"{name}.damaged-{label}" for name in names)
    for name, kept in zip(names, aside, strict=True):
        (folder / kept).hardlink_to(folder / name)
    sync_folder(folder)
    for name in (WAL, SHM):
        (folder / name).unlink(missing_ok=True)
    (work / SUMS).replace(folder / SUMS)
    (work / "fresh").replace(folder / DATABASE)
    sync_folder(folder)
    return aside


def _prove(folder: Path, proof: HardState, kept: _Kept) -> None:
    last_index = log_end(kept.base, kept.log).index
    state = HardState(
        start=max(proof.start, 1), term=kept.ballot.term, voted_for=kept.ballot.voted_for, last_index=last_index
    )
    file = HardStateFile(folder / HARD_STATE)
    file.create(state)
    file.close()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)
