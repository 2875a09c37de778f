"""Space for the day the disk is full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshcron.store.reserve import RESERVE_BYTES, Reserve


def test_it_takes_real_blocks_and_gives_them_back(tmp_path: Path) -> None:
    """A hole in a file would be no reserve."""
    reserve = Reserve(tmp_path / "reserve")
    assert reserve.fill()
    there = (tmp_path / "reserve").stat()
    assert (there.st_size, there.st_mode & 0o777) == (RESERVE_BYTES, 0o600)
    assert there.st_blocks * 512 >= RESERVE_BYTES
    assert reserve.release()
    assert not (tmp_path / "reserve").exists()
    assert not reserve.release()


def test_it_is_kept_from_start_to_start(tmp_path: Path) -> None:
    """And made anew where an earlier start could not finish it."""
    assert Reserve(tmp_path / "reserve").fill()
    kept = (tmp_path / "reserve").stat().st_ino
    assert Reserve(tmp_path / "reserve").fill()
    assert (tmp_path / "reserve").stat().st_ino == kept
    os.truncate(tmp_path / "reserve", 100)
    assert Reserve(tmp_path / "reserve").fill()
    assert (tmp_path / "reserve").stat().st_size == RESERVE_BYTES


def test_it_never_fills_the_disk_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is little room it is left out, and said so."""
    real = os.statvfs(tmp_path)

    class Small:
        f_bavail = 3 * RESERVE_BYTES // real.f_frsize
        f_frsize = real.f_frsize

    monkeypatch.setattr(os, "statvfs", lambda _: Small)
    reserve = Reserve(tmp_path / "reserve")
    assert not reserve.fill()
    assert not (tmp_path / "reserve").exists()
    assert not reserve.release()


@pytest.mark.parametrize(("number", "raised"), [(28, False), (5, True)])
def test_room_taken_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: bool
) -> None:
    """Another program was faster; any other error is one."""

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fails)
    reserve = Reserve(tmp_path / "reserve")
    if raised:
        with pytest.raises(OSError, match="Input/output"):
            reserve.fill()
    else:
        assert not reserve.fill()
        assert not (tmp_path / "reserve").exists()
