"""Checksums for the pages of the database file."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshcron.errors import DamagedStore
from meshcron.store.page_sums import PageSums, pages_of
from meshcron.store.wal_index import WalReach

PAGE = 512
REACH = WalReach(b"saltsalt", 7)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "database"
    path.write_bytes(b"".join(bytes([n]) * PAGE for n in range(1, 9)))
    return path


@pytest.fixture
def sums(tmp_path: Path, database: Path) -> PageSums:
    made = PageSums(tmp_path / "sums")
    made.record(pages_of(database, PAGE), REACH)
    made.save()
    return made


def reread(tmp_path: Path) -> PageSums:
    again = PageSums(tmp_path / "sums")
    again.open()
    return again


def test_what_was_saved_is_read(tmp_path: Path, sums: PageSums, database: Path) -> None:
    """The sums, the size of a page, and how far the `-wal` is in them."""
    again = reread(tmp_path)
    assert (again.page_bytes, again.reach) == (PAGE, REACH)
    assert again.wrong_pages(database, ()) == []


@pytest.mark.parametrize("place", range(0, 8 * PAGE, 111))
def test_a_flipped_bit_is_found_in_its_page(sums: PageSums, database: Path, place: int) -> None:
    """Wherever it is."""
    data = bytearray(database.read_bytes())
    data[place] ^= 0x80
    database.write_bytes(data)
    assert sums.wrong_pages(database, ()) == [place // PAGE + 1]
    assert sums.wrong_pages(database, {place // PAGE + 1}) == []


def test_a_file_cut_short_or_grown_is_found(sums: PageSums, database: Path) -> None:
    """Also in the middle of a page, and when nothing is left of it."""
    data = database.read_bytes()
    for size, wrong in ((8 * PAGE - 1, [8]), (6 * PAGE, [7, 8]), (0, list(range(1, 9)))):
        database.write_bytes(data[:size])
        assert sums.wrong_pages(database, ()) == wrong
    database.write_bytes(data + bytes(PAGE + 1))
    assert sums.wrong_pages(database, ()) == [9, 10]


def test_a_page_never_written_is_a_hole_and_no_damage(sums: PageSums, database: Path) -> None:
    """SQLite frees a page before it reached the disk, and writes one behind it."""
    database.write_bytes(database.read_bytes() + bytes(PAGE) + b"x" * PAGE)
    sums.record([(10, b"x" * PAGE)], REACH)
    assert sums.wrong_pages(database, ()) == []


@pytest.mark.parametrize("place", range(0, 70, 3))
def test_damage_to_the_sums_themselves_is_found(tmp_path: Path, sums: PageSums, place: int) -> None:
    """In doubt: damage."""
    path = tmp_path / "sums"
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 2
    path.write_bytes(data)
    with pytest.raises(DamagedStore, match="sums"):
        reread(tmp_path)


@pytest.mark.parametrize("size", [0, 3, 31, 40])
def test_sums_cut_short_or_missing_are_damage(tmp_path: Path, sums: PageSums, size: int) -> None:
    """They were there before the database was."""
    path = tmp_path / "sums"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedStore):
        reread(tmp_path)
    path.unlink()
    with pytest.raises(DamagedStore, match="missing"):
        reread(tmp_path)
