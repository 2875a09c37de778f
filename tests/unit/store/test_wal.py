"""The scan of a `-wal` against what SQLite itself makes of it."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshcron.store.wal import WAL_HEADER_BYTES, copy_prefix, copy_repaired, images, scan

COMMITS = 12
FRAME = 24 + 4096


class Made:
    """A database whose commits are all in its `-wal`, as a killed process leaves it."""

    def __init__(self, folder: Path) -> None:
        self.database, self.wal = folder / "d", folder / "d-wal"
        self.ends: list[int] = []
        """Frames after each commit."""
        live = folder / "live"
        live.mkdir()
        self.writer = sqlite3.connect(live / "d", isolation_level=None)
        self.writer.executescript("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t (a, b)")
        self.live = live / "d-wal"

    def commit(self, rows: int = 3) -> None:
        with_rows = [(n, "x" * 2000) for n in range(rows)]
        self.writer.execute("BEGIN")
        self.writer.executemany("INSERT INTO t VALUES (?, ?)", with_rows)
        self.writer.execute("COMMIT")
        self.ends.append(self.frames())

    def frames(self) -> int:
        return (self.live.stat().st_size - WAL_HEADER_BYTES) // FRAME

    def leave(self) -> None:
        shutil.copyfile(self.live.with_name("d"), self.database)
        shutil.copyfile(self.live, self.wal)

    def sqlite_reads(self) -> int:
        """Rows that SQLite finds in a copy."""
        for name in ("c", "c-wal", "c-shm"):
            self.database.with_name(name).unlink(missing_ok=True)
        shutil.copyfile(self.database, self.database.with_name("c"))
        shutil.copyfile(self.wal, self.database.with_name("c-wal"))
        connection = sqlite3.connect(self.database.with_name("c"))
        try:
            count: int = connection.execute("SELECT count(*) FROM t").fetchone()[0]
            return count
        except sqlite3.OperationalError:
            return 0  # not even the table
        finally:
            connection.close()

    def patch(self, place: int, data: bytes) -> None:
        whole = bytearray(self.wal.read_bytes())
        whole[place : place + len(data)] = data
        self.wal.write_bytes(whole)

    def flip(self, place: int) -> None:
        self.patch(place, bytes([self.wal.read_bytes()[place] ^ 4]))

    def place(self, frame: int, byte: int = 0) -> int:
        return WAL_HEADER_BYTES + frame * FRAME + byte


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path)
    for _ in range(COMMITS):
        made.commit()
    made.leave()
    yield made
    made.writer.close()


def test_no_file_an_empty_one_and_one_of_zeros_hold_nothing(tmp_path: Path) -> None:
    """A fresh database, or one that died while making the file."""
    path = tmp_path / "wal"
    assert (scan(path).frames, scan(path).salts, scan(path).damage) == (0, b"", "")
    for data in (b"", bytes(31), bytes(32), bytes(32 + FRAME)):
        path.write_bytes(data)
        assert (scan(path).frames, scan(path).salts, scan(path).damage) == (0, b"", "")


def test_an_undamaged_file_is_read_to_its_end(made: Made) -> None:
    """All frames, and every page's last place among them."""
    found = scan(made.wal)
    assert (found.frames, found.damage, found.page_bytes) == (made.frames(), "", 4096)
    places = [struct.unpack_from(">I", made.wal.read_bytes(), made.place(n))[0] for n in range(found.frames)]
    assert found.pages == {page: n for n, page in enumerate(places)}


def test_the_images_are_what_sqlite_would_read(made: Made) -> None:
    """Written over the database file, they make it complete without its `-wal`."""
    data = bytearray(made.database.read_bytes())
    for page, image in images(made.wal, scan(made.wal).frames):
        data[(page - 1) * 4096 : page * 4096] = image
    made.database.write_bytes(data)
    made.wal.write_bytes(b"")
    assert made.sqlite_reads() == 3 * COMMITS


@pytest.mark.parametrize("byte", [0, 4, 8, 12, 16, 20, 24, 25, 2000, FRAME - 1])
@pytest.mark.parametrize("commit", range(COMMITS - 1))
def test_a_flip_before_the_last_transaction_is_damage(made: Made, commit: int, byte: int) -> None:
    """SQLite stops there without a word, and every later commit is gone; we say so."""
    frame = made.ends[commit] - 2
    made.flip(made.place(frame, byte))
    assert made.sqlite_reads() < 3 * COMMITS
    found = scan(made.wal)
    assert "later transaction" in found.damage
    assert found.frames == made.ends[commit - 1] if commit else found.frames <= made.ends[0]


def test_a_flip_in_the_commit_frame_itself_is_damage(made: Made) -> None:
    """Its own mark is the end of its transaction; what follows is a later one."""
    made.flip(made.place(made.ends[4] - 1, 100))
    assert scan(made.wal).damage


def test_a_flip_in_the_last_transaction_looks_like_a_torn_tail(made: Made) -> None:
    """Nothing in the file tells the two apart; hard_state does (inspection.py)."""
    made.flip(made.place(made.ends[-2], 100))
    found = scan(made.wal)
    assert (found.damage, found.frames) == ("", made.ends[-2])


@pytest.mark.parametrize("byte", range(32))
def test_a_flip_in_the_header_is_damage(made: Made, byte: int) -> None:
    """SQLite would take the whole file for empty."""
    made.flip(byte)
    assert made.sqlite_reads() == 0
    assert scan(made.wal).damage == "its header is damaged"


def test_cut_at_any_place_the_last_whole_commit_counts(made: Made) -> None:
    """A torn tail is no damage: the frames are those of the last commit that is whole."""
    data = made.wal.read_bytes()
    for size in range(WAL_HEADER_BYTES, len(data), 1031):
        made.wal.write_bytes(data[:size])
        whole = max((end for end in made.ends if made.place(end) <= size), default=0)
        assert (scan(made.wal).frames, scan(made.wal).damage) == (_first_commits(made, size, whole), "")


def _first_commits(made: Made, size: int, whole: int) -> int:
    """The CREATE TABLE before our commits is a commit too."""
    if whole:
        return whole
    data = made.wal.read_bytes()
    ends = [n + 1 for n in range((size - 32) // FRAME) if struct.unpack_from(">I", data, made.place(n, 4))[0]]
    return max(ends, default=0)


def test_a_hole_in_the_last_transaction_is_a_torn_tail(made: Made) -> None:
    """The power went while its frames were on their way, and the disk wrote the later ones first."""
    made.patch(made.place(made.ends[-2] + 1), bytes(FRAME))
    found = scan(made.wal)
    assert (found.damage, found.frames) == ("", made.ends[-2])


def test_a_hole_before_the_last_transaction_is_damage(made: Made) -> None:
    """It was fsynced before the next one began."""
    made.patch(made.place(made.ends[-3] + 1), bytes(FRAME))
    assert scan(made.wal).damage


def test_frames_of_an_older_generation_are_no_damage(tmp_path: Path) -> None:
    """SQLite begins the file anew from the front and leaves the old frames behind the new ones."""
    made = Made(tmp_path)
    for _ in range(COMMITS):
        made.commit()
    assert made.writer.execute("PRAGMA wal_checkpoint").fetchone()[0] == 0
    made.commit()
    made.leave()
    assert made.frames() == made.ends[-1]
    made.writer.close()
    found = scan(made.wal)
    assert 0 < found.frames < made.ends[-1]
    assert found.damage == ""
    made.flip(made.place(found.frames + 1, 100))
    assert scan(made.wal) == found


def test_the_remains_of_a_rolled_back_transaction_are_no_damage(tmp_path: Path) -> None:
    """One too large for the cache spills frames of this generation, and leaves them behind when it is rolled back."""
    made = Made(tmp_path)
    made.commit()
    made.writer.execute("PRAGMA cache_size = 10")
    made.writer.execute("BEGIN")
    made.writer.executemany("INSERT INTO t VALUES (?, ?)", [(n, "y" * 3000) for n in range(200)])
    spilled = made.frames()
    assert spilled > made.ends[-1] + 50
    made.writer.execute("ROLLBACK")
    made.commit(1)
    made.leave()
    made.writer.close()
    found = scan(made.wal)
    assert found.damage == ""
    assert made.ends[0] < found.frames < spilled
    assert made.sqlite_reads() == 4


def test_it_agrees_with_sqlite_wherever_a_byte_is_wrong(made: Made) -> None:
    """Not one frame more, not one fewer: the prefix we trust is the one SQLite reads."""
    whole = made.wal.read_bytes()
    for place in range(WAL_HEADER_BYTES, len(whole), 4999):
        made.flip(place)
        copy = made.wal.with_name("cut-wal")
        copy_prefix(made.wal, copy, scan(made.wal).frames)
        prefix = copy.read_bytes()
        damaged = made.sqlite_reads()
        made.wal.write_bytes(prefix)
        assert made.sqlite_reads() == damaged
        made.wal.write_bytes(whole)


def test_a_repaired_copy_shows_what_lies_behind_the_damage(made: Made) -> None:
    """For counting what was lost; the bad page itself may be nonsense."""
    made.flip(made.place(made.ends[2], 16))
    copy = made.wal.with_name("repaired")
    copy_repaired(made.wal, copy)
    assert scan(copy).frames == made.frames()


def test_sixteen_words_at_a_time_is_the_definition(made: Made) -> None:
    """The unrolled sum against SQLite's description of it, for both byte orders."""
    from meshcron.store import wal

    data = bytes(range(256)) * 16
    for order in "<>":
        words = struct.unpack(f"{order}1024I", data)
        first = second = 0
        for n in range(0, len(words), 2):
            first = (first + words[n] + second) & 0xFFFFFFFF
            second = (second + words[n + 1] + first) & 0xFFFFFFFF
        assert wal._page_checksum(words, (0, 0)) == (first, second)


def test_big_endian_checksums_are_read_too(made: Made) -> None:
    """A `-wal` says itself in which order its words are summed."""
    from meshcron.store import wal

    header = wal.WalHeader.read(made.wal.read_bytes()[:32])
    assert header is not None
    other: Any = "<" if header.order == ">" else ">"
    data = bytearray(made.wal.read_bytes())
    struct.pack_into(">I", data, 0, 0x377F0682 | (other == ">"))
    struct.pack_into(">II", data, 24, *wal._head_checksum(struct.unpack_from(f"{other}6I", data), (0, 0)))
    made.wal.write_bytes(data)
    copy = made.wal.with_name("other-order")
    copy_repaired(made.wal, copy)
    copy.replace(made.wal)
    assert scan(made.wal).frames == made.frames()
    assert made.sqlite_reads() == 3 * COMMITS
