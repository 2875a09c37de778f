"""Real processes that die while they write: what was told as durable is there, and the start numbers rise."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from meshcron.rows import Loaded
from meshcron.store.directory import Identity
from meshcron.store.store import Store

WRITING = Path(__file__).with_name("writing_process.py")
LIFE_SECONDS_MAX = 0.4
DEADLINE_SECONDS = 60


def never() -> Identity:
    raise AssertionError("not a first start")


def run_and_kill(folder: Path, group: int, seconds: float) -> tuple[int, int]:
    """Start number and last durable index of a process killed after so long."""
    process = subprocess.Popen(
        [sys.executable, WRITING, folder, str(group)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        output, errors = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
    assert first.startswith("start "), errors
    whole_lines = output[: output.rfind("\n") + 1].split()
    assert "failed:" not in whole_lines, output
    return int(first.split()[1]), max(map(int, whole_lines), default=0)


def look(folder: Path) -> tuple[Store, Loaded]:
    store = Store(folder, "machine")
    try:
        return store, store.open(never)
    finally:
        store.close()


@pytest.mark.parametrize("group", [1, 40])
def test_killed_while_writing_nothing_durable_is_lost(tmp_path: Path, group: int) -> None:
    """Ten times in a row, at a random moment each: all that was acknowledged is there, log and executions agree, and
    each start has the next number."""
    folder, chance = tmp_path / "data", random.Random(group)
    durable, expected = 0, 1
    for _ in range(10):
        start, last = run_and_kill(folder, group, chance.uniform(0, LIFE_SECONDS_MAX))
        assert start == expected
        durable = max(durable, last)
        store, loaded = look(folder)
        expected = store.start + 1
        assert store.start == start + 1
        assert store.log_end.index >= durable
        assert [row.index for row in loaded.log] == list(range(1, store.log_end.index + 1))
        assert [one.index for one in loaded.open_executions] == [row.index for row in loaded.log]
        assert loaded.ballot.term <= store.log_end.index
    assert durable > 10 * group


def test_two_processes_that_start_at_once(tmp_path: Path) -> None:
    """One has the folder, the other is told so; neither is harmed (20 pairs, first starts)."""
    code = (
        "import sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2]); from writing_process import identity\n"
        "from meshcron.store.store import Store\n"
        "store = Store(Path(sys.argv[1]), 'machine'); store.open(identity); sys.stdin.read(); print(store.start)"
    )
    for n in range(20):
        command = [sys.executable, "-c", code, str(tmp_path / str(n)), str(WRITING.parent)]
        pair = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        loser = _first_to_end(pair)
        winner = pair[1 - pair.index(loser)]
        _, refused = loser.communicate(timeout=DEADLINE_SECONDS)
        won, errors = winner.communicate("", timeout=DEADLINE_SECONDS)
        assert (loser.returncode, winner.returncode, won) == (1, 0, "1\n"), refused + errors
        assert "is in use by another agent" in refused


def _first_to_end(pair: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    for _ in range(DEADLINE_SECONDS * 100):
        for process in pair:
            try:
                process.wait(0.01)
                return process
            except subprocess.TimeoutExpired:
                continue
    raise AssertionError("both hold the folder")


def test_an_error_of_the_system_ends_it_with_one_word(tmp_path: Path) -> None:
    """A file that may not grow (RLIMIT_FSIZE gives EFBIG, which is no full disk): told once, nothing tried again, and
    what was durable before is there."""
    folder = tmp_path / "data"
    run_and_kill(folder, 10, 0.3)
    process = subprocess.run(
        [sys.executable, WRITING, folder, "10", "600000"],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )
    lines = process.stdout.splitlines()
    assert [line for line in lines if line.startswith("failed:")] == ["failed: disk I/O error"]
    assert "low" not in lines
    store, _ = look(folder)
    assert store.log_end.index >= max((int(line) for line in lines if line.isdigit()), default=0)
