"""SQLite's own index of the `-wal`, where it is not what we know."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from meshcron.store.wal_index import WalIndex, WalReach

GOOD = struct.pack("=I8xBxHI12x8s8x", 3007000, 1, 4096, 5, b"saltsalt")


def opened(path: Path, data: bytes) -> WalIndex:
    path.write_bytes(data)
    index = WalIndex(path)
    index.open()
    return index


def test_it_tells_salts_and_frames(tmp_path: Path) -> None:
    """From a file made by hand; test_database.py asks SQLite's."""
    index = opened(tmp_path / "shm", GOOD * 2)
    assert index.reach() == WalReach(b"saltsalt", 5)
    index.close()
    index.close()


@pytest.mark.parametrize(
    "data",
    [
        GOOD + GOOD[:-1] + b"x",
        struct.pack("=I8xBxHI12x8s8x", 3007001, 1, 4096, 5, b"saltsalt") * 2,
        struct.pack("=I8xBxHI12x8s8x", 3007000, 0, 4096, 5, b"saltsalt") * 2,
    ],
    ids=["copies differ", "another version", "not initialised"],
)
def test_an_index_of_another_kind_is_an_error(tmp_path: Path, data: bytes) -> None:
    """Better no answer than a wrong one."""
    index = opened(tmp_path / "shm", data)
    with pytest.raises(ValueError, match="not a WAL index"):
        index.reach()
    index.close()


def test_an_empty_wal_reaches_nowhere(tmp_path: Path) -> None:
    """Its salts mean nothing yet."""
    index = opened(tmp_path / "shm", struct.pack("=I8xBxHI12x8s8x", 3007000, 1, 4096, 0, b"saltsalt") * 2)
    assert index.reach() == WalReach()
    index.close()


def test_an_index_not_open_is_an_error(tmp_path: Path) -> None:
    """A mistake of ours."""
    with pytest.raises(ValueError, match="not open"):
        WalIndex(tmp_path / "shm").reach()
