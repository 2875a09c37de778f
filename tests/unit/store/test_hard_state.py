"""The two-slot file of what must never fall."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcron.errors import DamagedStore, StartRefused
from meshcron.store import hard_state
from meshcron.store.hard_state import SLOT_BYTES, HardState, HardStateFile


@pytest.fixture
def file(tmp_path: Path) -> Iterator[HardStateFile]:
    made = HardStateFile(tmp_path / "hard_state")
    made.create()
    yield made
    made.close()


def reread(path: Path) -> HardState:
    again = HardStateFile(path)
    try:
        again.open()
        return again.state
    finally:
        again.close()


def test_what_was_written_last_is_read(file: HardStateFile, tmp_path: Path) -> None:
    """Term after term, whichever slot it lands in."""
    for term in range(1, 6):
        file.write(HardState(start=1, term=term, voted_for="a" * 32))
        assert reread(tmp_path / "hard_state") == HardState(start=1, term=term, voted_for="a" * 32)


def test_the_file_is_private_and_never_grows(file: HardStateFile, tmp_path: Path) -> None:
    """It is overwritten in place: a full disk cannot stop it."""
    for n in range(5):
        file.write(HardState(start=n, voted_for="v" * 32, wal_salts="f" * 16, wal_frames=2**31))
    there = (tmp_path / "hard_state").stat()
    assert (there.st_size, there.st_mode & 0o777) == (2 * SLOT_BYTES, 0o600)


@pytest.mark.parametrize("torn", range(0, SLOT_BYTES, 53))
def test_a_write_torn_anywhere_leaves_the_one_before(tmp_path: Path, torn: int) -> None:
    """The power goes while a slot is written: what was durable before is still there, or the new one is whole."""
    path = tmp_path / "hard_state"
    file = HardStateFile(path)
    file.create(HardState(start=1))
    file.write(HardState(start=1, term=4, voted_for="before"))
    before = path.read_bytes()
    file.write(HardState(start=1, term=5, voted_for="after"))
    file.close()
    after = path.read_bytes()
    changed = 0 if before[:SLOT_BYTES] != after[:SLOT_BYTES] else SLOT_BYTES
    path.write_bytes(before[:changed] + after[changed : changed + torn] + before[changed + torn :])
    assert reread(path).term in {4, 5}


@pytest.mark.parametrize("slot", [0, 1])
def test_a_start_number_survives_the_loss_of_either_slot(file: HardStateFile, tmp_path: Path, slot: int) -> None:
    """It has no other copy, and two sessions with one number are taken for a clone."""
    path = tmp_path / "hard_state"
    file.write_both(HardState(start=8))
    data = bytearray(path.read_bytes())
    data[slot * SLOT_BYTES + 40] ^= 1
    path.write_bytes(data)
    assert reread(path).start == 8


def test_both_slots_gone_is_damage(file: HardStateFile, tmp_path: Path) -> None:
    """Nobody can say in which term this agent voted."""
    path = tmp_path / "hard_state"
    path.write_bytes(bytes(2 * SLOT_BYTES))
    with pytest.raises(DamagedStore, match=r"neither .* whole.*meshcron recover --salvage"):
        reread(path)


@pytest.mark.parametrize("size", [0, 1, SLOT_BYTES - 1])
def test_a_file_cut_short_is_damage(file: HardStateFile, tmp_path: Path, size: int) -> None:
    """Less than one slot is nothing to go by."""
    path = tmp_path / "hard_state"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedStore):
        reread(path)


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    """Whoever opens it knows that it was there once."""
    with pytest.raises(DamagedStore, match="missing"):
        HardStateFile(tmp_path / "hard_state").open()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A newer version may mean something else by it; it is not damage."""
    path = tmp_path / "hard_state"
    payload = msgspec.json.encode({"format": hard_state.FORMAT + 1, "unheard": [1]})
    path.write_bytes(slot(1, payload) + slot(2, payload))
    with pytest.raises(StartRefused, match="newer") as refused:
        HardStateFile(path).open()
    assert not isinstance(refused.value, DamagedStore)


def test_a_whole_slot_that_says_nonsense_is_damage(tmp_path: Path) -> None:
    """A checksum alone does not make it ours."""
    path = tmp_path / "hard_state"
    path.write_bytes(slot(1, b'{"format":1,"start":"x"}') * 2)
    with pytest.raises(DamagedStore):
        HardStateFile(path).open()


def slot(sequence: int, payload: bytes) -> bytes:
    crc = hard_state._crc(sequence, payload)
    return (hard_state._HEAD.pack(hard_state._MAGIC, sequence, crc, len(payload)) + payload).ljust(SLOT_BYTES, b"\0")


@given(st.binary(max_size=3 * SLOT_BYTES))
def test_any_bytes_are_a_state_or_damage(tmp_path_factory: Any, data: bytes) -> None:
    """Nothing else comes out."""
    path = tmp_path_factory.mktemp("any") / "hard_state"
    path.write_bytes(data)
    with pytest.raises(DamagedStore):
        reread(path)


@pytest.mark.parametrize("place", range(0, 2 * SLOT_BYTES, 97))
def test_a_flipped_bit_never_lowers_the_start_or_invents_a_vote(tmp_path: Path, place: int) -> None:
    """Of two slots the older one is at most one write behind; the database is then ahead of it, which is fine."""
    path = tmp_path / "hard_state"
    file = HardStateFile(path)
    file.create()
    file.write_both(HardState(start=3, term=6, voted_for="x"))
    file.write(HardState(start=3, term=7, voted_for="y"))
    file.close()
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)
    found = reread(path)
    assert (found.start, found.term, found.voted_for) in {(3, 6, "x"), (3, 7, "y")}
