"""A real file system that fills up (FAULTS 22). Needs root for a tmpfs of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshcron.store.directory import Identity
from meshcron.store.reserve import RESERVE_BYTES, ROOM_FACTOR
from meshcron.store.store import Store

WRITING = Path(__file__).with_name("writing_process.py")
DEADLINE_SECONDS = 60

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")


@pytest.fixture(params=[4, 40], ids=["too small for a reserve", "with a reserve"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, int]]:
    """A file system of so many MiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}m,mode=700", "meshcron-test", tmp_path],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs here: {mounted.stderr.strip()}")
    try:
        yield tmp_path, request.param * 1024 * 1024
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def never() -> Identity:
    raise AssertionError("not a first start")


def test_a_disk_that_fills_up_loses_nothing_that_was_durable(disk: tuple[Path, int]) -> None:
    """The reserve goes first and is told of; then the writer ends with one word. With room again all of it is read,
    and the reserve is put by anew."""
    mount, size = disk
    folder = mount / "data"
    done = subprocess.run(
        [sys.executable, WRITING, folder, "40"], capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS
    )
    lines = done.stdout.splitlines()
    durable = max(int(line) for line in lines if line.isdigit())
    reserve = size >= ROOM_FACTOR * RESERVE_BYTES
    assert lines.count("low") == int(reserve), done.stdout[-500:] + done.stderr
    assert [line for line in lines if line.startswith("failed:")] == ["failed: database or disk is full"]
    if reserve:
        after = lines[lines.index("low") :]
        assert sum(line.isdigit() for line in after) > 10  # it went on for a while
    subprocess.run(["mount", "-o", "remount,size=200m", mount], check=True)
    store = Store(folder, "machine")
    try:
        loaded = store.open(never)
        assert store.log_end.index >= durable
        assert [row.index for row in loaded.log] == list(range(1, store.log_end.index + 1))
        assert store.reserve.held
    finally:
        store.close()
