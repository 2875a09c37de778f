"""Damage done to the files of a stopped agent: found, or without consequence. Never less than was acknowledged."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from meshcron.errors import DamagedStore, StartRefused
from meshcron.rows import Loaded, MetaRow, SeenRow
from meshcron.store import inspection
from meshcron.store.hard_state import HardState
from meshcron.store.inspection import behind, inspect
from meshcron.store.wal import WalScan, scan

COMMITS = 100
STEP = 97


def fill(agent: Any, build: Any, commits: int = COMMITS) -> None:
    """So many commits: an entry, one of three small rows beside it, and now and then an execution."""
    for row in build.entries(commits, after=agent.store.log_end):
        more = [build.execution(row.index), MetaRow("k", str(row.index))] if row.index % 10 == 0 else []
        agent.write(row, *more)


def prove(agent: Any) -> None:
    """A second passes, and the last commit is written down in hard_state."""
    agent.now += 2
    agent.write(MetaRow("late", str(agent.now)))
    agent.write()  # an empty group is answered once the one before is wholly done with


def outcome(agent: Any) -> Loaded | DamagedStore:
    try:
        return agent.look()  # type: ignore[no-any-return]
    except DamagedStore as error:
        return error


def flip_everywhere(agent: Any, damage: Any, name: str, whole: Loaded, step: int) -> tuple[int, int]:
    """How often a flip was found and how often it did no harm. The rest of the files are as they were each time."""
    path: Path = agent.path / name
    frozen = Frozen(agent.path)
    found = harmless = 0
    for place in range(0, path.stat().st_size, step):
        damage.flip(path, place, place % 8)
        result = outcome(agent)
        if isinstance(result, DamagedStore):
            found += 1
            assert "meshcron recover --salvage" in str(result)
        else:
            harmless += 1
            assert result == whole, place
        frozen.thaw()
    return found, harmless


@pytest.mark.parametrize("step", [31 * STEP, pytest.param(STEP, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_a_flipped_bit_in_the_wal_is_found(agent: Any, build: Any, damage: Any, way: str, step: int) -> None:
    """Of an agent that stopped by itself, and of one killed a second after its last commit: any bit of the `-wal`."""
    fill(agent, build)
    prove(agent)
    whole = _end(agent, way)
    assert len(whole.log) == COMMITS
    found, harmless = flip_everywhere(agent, damage, "database-wal", whole, step)
    assert (found > 5, harmless) == (True, 0)
    agent.start()


@pytest.mark.parametrize("step", [11 * STEP, pytest.param(STEP, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_a_flipped_bit_in_the_database_is_found_or_hidden(
    agent: Any, build: Any, damage: Any, way: str, step: int
) -> None:
    """A page that stands in the `-wal` too is never read; a bit flipped in any other one is found."""
    fill(agent, build)
    assert agent.store.database.checkpoint()  # the next commit begins the `-wal` anew
    fill(agent, build, 3)
    prove(agent)
    whole = _end(agent, way)
    hidden = set(scan(agent.path / "database-wal").pages)
    found, harmless = flip_everywhere(agent, damage, "database", whole, step)
    assert found > harmless > 0
    assert harmless <= (agent.path / "database").stat().st_size // step * len(hidden)
    agent.start()


@pytest.mark.parametrize("name", ["database.sums", "hard_state"])
def test_a_flipped_bit_in_the_small_files_is_found_or_harmless(agent: Any, build: Any, damage: Any, name: str) -> None:
    """hard_state has two copies, and the database is ahead of the older one."""
    fill(agent, build, 10)
    prove(agent)
    whole = _end(agent, "killed")
    flip_everywhere(agent, damage, name, whole, 13)
    agent.start()


def test_a_flip_in_the_last_transaction_of_a_killed_agent_loses_no_more_than_it(
    agent: Any, build: Any, damage: Any
) -> None:
    """The one thing that can go unseen: nothing tells it from the torn write of a crash until hard_state follows."""
    fill(agent, build, 20)
    prove(agent)
    before = agent.submitted
    agent.write(MetaRow("last", "one"))
    assert agent.submitted == before + 1
    _end(agent, "killed")
    reached = scan(agent.path / "database-wal")
    damage.flip(agent.path / "database-wal", 32 + (reached.frames - 1) * 4120 + 100)
    result = outcome(agent)
    assert not isinstance(result, DamagedStore)
    assert ("last" in result.meta, len(result.log)) == (False, 20)
    agent.start()


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_a_wal_cut_anywhere_is_whole_up_to_what_was_proved_or_damage(
    agent: Any, build: Any, damage: Any, way: str
) -> None:
    """What hard_state proves is never missing; behind it, the last durable commit counts."""
    fill(agent, build, 30)
    prove(agent)
    proved = agent.store.hard_state.state.wal_frames
    agent.write(MetaRow("late", "x"))
    whole = _end(agent, way)
    wal = agent.path / "database-wal"
    frozen = Frozen(agent.path)
    for cut in range(0, wal.stat().st_size, 2003):
        damage.cut(wal, cut)
        result = outcome(agent)
        if way == "stopped" and cut < 32:
            assert result == whole  # all of it stands in the database file
        elif way == "stopped" or cut < 32 + proved * 4120:
            assert isinstance(result, DamagedStore)
        else:
            assert isinstance(result, Loaded)
            assert result.log == whole.log
        frozen.thaw()
    agent.start()


def test_a_missing_wal_is_damage_unless_the_agent_had_settled(agent: Any, build: Any, damage: Any) -> None:
    """After a clean stop everything stands in the database file as well, and somebody's SQLite may have tidied up."""
    fill(agent, build, 5)
    prove(agent)
    whole = _end(agent, "killed")
    kept = (agent.path / "database-wal").read_bytes()
    (agent.path / "database-wal").unlink()
    result = outcome(agent)
    assert isinstance(result, DamagedStore)
    assert "missing or empty" in str(result)
    (agent.path / "database-wal").write_bytes(kept)
    agent.start()
    agent.stop()
    (agent.path / "database-wal").unlink()
    assert outcome(agent) == whole
    agent.start()


def test_reading_a_settled_database_with_another_program_is_harmless(agent: Any, build: Any) -> None:
    """It checkpoints as it closes, and writes what is there already."""
    fill(agent, build, 5)
    whole = _end(agent, "stopped")
    other = sqlite3.connect(agent.path / "database")
    other.execute("SELECT count(*) FROM log").fetchone()
    other.close()
    assert not (agent.path / "database-wal").exists()
    assert outcome(agent) == whole
    agent.start()


def test_writing_to_a_database_with_another_program_is_found(agent: Any, build: Any) -> None:
    """A row changed by hand would be a replica that differs from the others."""
    fill(agent, build, 10)
    _end(agent, "stopped")
    other = sqlite3.connect(agent.path / "database")
    other.execute("UPDATE meta SET value = 'mine'")
    other.commit()
    other.close()
    result = outcome(agent)
    assert isinstance(result, DamagedStore)
    assert "not as written" in str(result)
    agent.begin_anew()


def test_a_database_rolled_back_as_a_whole_is_found(agent: Any, build: Any) -> None:
    """A snapshot of the disk, without the little file that never falls."""
    fill(agent, build, 5)
    agent.crash()
    old = {name: (agent.path / name).read_bytes() for name in ("database", "database-wal", "database.sums")}
    agent.start()
    fill(agent, build, 5)
    assert agent.store.database.checkpoint()
    fill(agent, build, 5)
    agent.stop()
    for name, data in old.items():
        (agent.path / name).write_bytes(data)
    result = outcome(agent)
    assert isinstance(result, DamagedStore)
    assert "rolled back" in str(result)
    agent.begin_anew()


def test_a_newer_version_is_refused_and_nothing_touched(agent: Any, build: Any) -> None:
    """Its number may stand in the `-wal` alone; SQLite does not get to see the files."""
    agent.write(*build.entries(3))
    agent.store.database.writer.execute("PRAGMA user_version = 99")
    agent.crash()
    before = {path: path.read_bytes() for path in agent.path.iterdir() if path.name != "lock"}
    with pytest.raises(StartRefused, match="version 99 was written by a newer meshcron") as refused:
        agent.look()
    assert not isinstance(refused.value, DamagedStore)
    assert {path: path.read_bytes() for path in agent.path.iterdir() if path.name != "lock"} == before
    agent.begin_anew()


SALTS, NEXT, RANDOM = b"\0\0\0\7abcd", b"\0\0\0\x08wxyz", b"\xf0\0\0\0qqqq"
PROOF = HardState(wal_salts=SALTS.hex(), wal_frames=5)


@pytest.mark.parametrize(
    ("found", "proof", "why"),
    [
        (WalScan(salts=SALTS, frames=5), PROOF, ""),
        (WalScan(salts=SALTS, frames=9), PROOF, ""),
        (WalScan(salts=SALTS, frames=4), PROOF, "ends after 4 of at least 5"),
        (WalScan(salts=NEXT, frames=0), PROOF, ""),
        (WalScan(salts=RANDOM, frames=9), PROOF, "older"),
        (WalScan(), PROOF, "missing"),
        (WalScan(), replace(PROOF, settled=True), ""),
        (WalScan(salts=SALTS, frames=4), replace(PROOF, settled=True), "ends after"),
        (WalScan(), HardState(), ""),
        (WalScan(salts=RANDOM, frames=2), HardState(), ""),
        (WalScan(salts=b"\0\0\0\0abcd", frames=1), replace(PROOF, wal_salts="ffffffff00000000"), ""),
    ],
)
def test_what_hard_state_proves_of_the_wal(found: WalScan, proof: HardState, why: str) -> None:
    """The same generation must be as long, another one must be a later one."""
    assert (why in behind(found, proof)) if why else (behind(found, proof) == "")


def test_a_missing_database_is_damage(tmp_path: Path) -> None:
    """Whoever inspects knows that there was one."""
    with pytest.raises(DamagedStore, match="missing"):
        inspect(tmp_path, HardState(start=1))


def test_many_bad_pages_are_named_briefly() -> None:
    """The text is one line."""
    assert inspection._pages([3]) == "page 3 is"
    assert inspection._pages([3, 4]) == "pages 3, 4 are"
    assert inspection._pages(list(range(1, 31))) == "pages 1, 2, 3, 4, 5 and 25 more are"


def test_rows_outside_the_log_are_covered_too(agent: Any, build: Any, damage: Any) -> None:
    """What the runner has seen is in no chain; its page has a checksum all the same."""
    agent.write(SeenRow("e" * 32, "accepted", 1, 2, 3, 4, 5, False, "needle-in-the-order", ""))
    assert agent.store.database.checkpoint()
    agent.write(*build.entries(1))
    _end(agent, "killed")
    place = (agent.path / "database").read_bytes().index(b"needle-in-the-order")
    damage.flip(agent.path / "database", place)
    assert isinstance(outcome(agent), DamagedStore)
    damage.heal()
    agent.start()


def _end(agent: Any, way: str) -> Loaded:
    """End the agent in this way; what a start then reads. The files are as the end left them."""
    if way == "killed":
        agent.crash()
    else:
        agent.stop()
    frozen = Frozen(agent.path)
    whole: Loaded = agent.look()
    frozen.thaw()
    return whole


class Frozen:
    """The files of a stopped agent at one moment: a look at them counts as a start and writes hard_state."""

    def __init__(self, folder: Path) -> None:
        names = ("database", "database-wal", "database.sums", "hard_state")
        self._files = {folder / name: (folder / name).read_bytes() for name in names}

    def thaw(self) -> None:
        for path, data in self._files.items():
            path.write_bytes(data)
