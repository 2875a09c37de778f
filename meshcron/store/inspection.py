"""The look at a database's files before SQLite opens them. It changes nothing.

Taken together: every page of the file is as its checksum says or hidden by the durable part of the `-wal`, and that
part reaches at least as far as `hard_state` proves. What can still go unseen is one thing: the loss of the last
transaction of an agent that was killed within a second after it, which looks like the torn write of a crash.
"""

from __future__ import annotations

from pathlib import Path

from meshcron.errors import StartRefused
from meshcron.store.damage import damaged
from meshcron.store.database import DATABASE, SUMS, WAL
from meshcron.store.hard_state import HardState
from meshcron.store.migrations import VERSION
from meshcron.store.page_sums import PageSums
from meshcron.store.wal import WalScan, images, scan

_SQLITE = b"SQLite format 3\0"
_VERSION_AT = slice(60, 64)  # PRAGMA user_version in the header of page 1
_PAGES_NAMED_MAX = 5
_HALF_WAY = 1 << 31


def inspect(folder: Path, proof: HardState) -> WalScan:
    """What the `-wal` durably holds. Raises DamagedStore, naming what is wrong, StartRefused for a newer version."""
    database, wal = folder / DATABASE, folder / WAL
    if not database.exists():
        raise damaged(database, "missing, though the agent has started before")
    found = scan(wal)
    if found.damage:
        raise damaged(wal, found.damage)
    if why := behind(found, proof):
        raise damaged(wal, why)
    refuse_newer(database, wal, found)
    sums = PageSums(folder / SUMS)
    sums.open()
    if wrong := sums.wrong_pages(database, found.pages):
        raise damaged(database, f"{_pages(wrong)} not as written")
    return found


def behind(found: WalScan, proof: HardState) -> str:
    """Why the `-wal` is behind what `hard_state` proves; empty = it is not.

    SQLite raises the first salt by one whenever it begins the file anew, and does so only when all of it stands in
    the database file.
    """
    if not proof.wal_frames:
        return ""
    if not found.salts:
        return "" if proof.settled else f"missing or empty; it held at least {proof.wal_frames} durable frames"
    proven = bytes.fromhex(proof.wal_salts)
    if found.salts == proven:
        short = found.frames < proof.wal_frames
        return f"ends after {found.frames} of at least {proof.wal_frames} durable frames" if short else ""
    ahead = (_first_salt(found.salts) - _first_salt(proven)) % (2 * _HALF_WAY)
    return "" if 0 < ahead < _HALF_WAY else "older than what hard_state says: the folder was rolled back"


def refuse_newer(database: Path, wal: Path, found: WalScan) -> None:
    """Raises StartRefused when a newer version of ours wrote the database: read from its first page, untouched."""
    head = _first_page(database, wal, found)
    version = int.from_bytes(head[_VERSION_AT], "big")
    if head.startswith(_SQLITE) and version > VERSION:
        raise StartRefused(
            f"{database}: version {version} was written by a newer meshcron; this one reads up to {VERSION}. "
            "Nothing was changed; install the newer one again."
        )


def _first_page(database: Path, wal: Path, found: WalScan) -> bytes:
    if 1 in found.pages:
        return dict(images(wal, found.frames))[1]
    with database.open("rb") as file:
        return file.read(_VERSION_AT.stop)


def _first_salt(salts: bytes) -> int:
    return int.from_bytes(salts[:4], "big")


def _pages(wrong: list[int]) -> str:
    named = ", ".join(str(number) for number in wrong[:_PAGES_NAMED_MAX])
    more = f" and {len(wrong) - _PAGES_NAMED_MAX} more" if len(wrong) > _PAGES_NAMED_MAX else ""
    return f"page {named}{more} is" if len(wrong) == 1 else f"pages {named}{more} are"
