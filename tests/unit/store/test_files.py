"""Small files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshcron.store import files


def test_a_file_is_replaced_whole_and_privately(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask, and nothing is left beside it."""
    path = tmp_path / "file"
    before = os.umask(0)
    try:
        files.replace_whole(path, b"one")
        files.replace_whole(path, b"two" * 1_000_000)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"two" * 1_000_000
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new one is synced before it takes the name."""
    path = tmp_path / "file"
    files.replace_whole(path, b"old")

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        files.replace_whole(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_leftover_of_a_crash_is_no_hindrance(tmp_path: Path) -> None:
    """Also one that was readable by others."""
    (tmp_path / "file.new").write_bytes(b"half")
    (tmp_path / "file.new").chmod(0o644)
    files.replace_whole(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
