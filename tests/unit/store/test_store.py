"""Opening everything in order, at a first start, at later ones, and after starts that died."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from meshcron.errors import DamagedStore, StartRefused
from meshcron.rows import BallotRow, LogCut, MarkRow, MetaRow
from meshcron.store.directory import DataDirectory
from meshcron.store.hard_state import HardState, HardStateFile
from meshcron.store.log import LogBase
from meshcron.store.store import Store


def test_a_first_start_finds_nothing_and_is_number_one(agent: Any) -> None:
    """An empty catalog, no vote given, a log that begins."""
    assert agent.store.start == 1
    assert (agent.loaded.ballot, agent.loaded.mark) == (BallotRow(0, ""), MarkRow(0, 0, 0))
    assert (agent.loaded.log, agent.store.log_base, agent.store.log_end) == ([], LogBase(), LogBase())


def test_each_start_takes_the_next_number(agent: Any) -> None:
    """Also after a crash (PROTOCOL 1)."""
    agent.crash()
    agent.start()
    assert agent.store.start == 2
    agent.stop()
    agent.start()
    assert agent.store.start == 3


def test_all_files_are_private(agent: Any, build: Any) -> None:
    """The log holds every job and secret."""
    agent.write(*build.entries(3))
    modes = {path.name: path.stat().st_mode & 0o777 for path in agent.path.iterdir()}
    assert {mode for name, mode in modes.items()} == {0o600}
    assert {"database", "database-wal", "database-shm", "database.sums", "hard_state", "reserve"} <= set(modes)


@pytest.mark.parametrize("way", ["stop", "crash"])
def test_what_was_persisted_is_loaded(agent: Any, build: Any, way: str) -> None:
    """Log, what was cut off it, ballot, mark and scalars."""
    rows = build.entries(5)
    agent.write(*rows, LogCut(2), BallotRow(7, "x" * 32), MarkRow(1, 2, 3), MetaRow("applied", "2"))
    getattr(agent, way)()
    loaded = agent.start().loaded
    assert (loaded.log, loaded.meta) == (rows[2:], {"applied": "2"})
    assert (loaded.ballot, loaded.mark) == (BallotRow(7, "x" * 32), MarkRow(1, 2, 3))
    assert agent.store.log_base == LogBase(2, 1, rows[1].crc)
    assert agent.store.log_end == LogBase(5, 1, rows[4].crc)


@pytest.mark.parametrize(
    "left",
    [
        ["lock"],
        ["lock", "node.json"],
        ["lock", "node.json", "hard_state"],
        ["lock", "node.json", "hard_state", "database.sums"],
        ["lock", "node.json", "hard_state", "database.new", "database.sums"],
    ],
)
def test_a_first_start_that_died_is_begun_again(agent: Any, build: Any, left: list[str]) -> None:
    """Whatever of it was there already."""
    agent.stop()
    for path in agent.path.iterdir():
        if path.name == "database" and "database.new" in left:
            path.rename(path.with_name("database.new"))
        elif path.name not in left or path.name == "node.json":
            path.unlink()
    if "node.json" in left:
        DataDirectory(agent.path, "machine").identity(build.identity)
    if "hard_state" in left:
        HardStateFile(agent.path / "hard_state").create(HardState())
    agent.start()
    assert agent.store.start == 1


@pytest.mark.parametrize("gone", ["database", "hard_state", "database.sums"])
def test_a_missing_file_is_damage_and_stays_missing(agent: Any, build: Any, gone: str) -> None:
    """Starting with an empty one would be amnesia: this agent may have voted."""
    agent.write(*build.entries(2), BallotRow(3, "x"))
    agent.stop()
    kept = (agent.path / gone).read_bytes()
    (agent.path / gone).unlink()
    with pytest.raises(DamagedStore, match=r"missing.*meshcron recover --salvage"):
        agent.look()
    assert not (agent.path / gone).exists()
    (agent.path / gone).write_bytes(kept)
    agent.start()


def test_an_identity_alone_is_damage_once_it_has_started(agent: Any, build: Any) -> None:
    """All else is gone: a fresh start under this node id would vote again in a term in which it has voted."""
    agent.write(*build.entries(2), BallotRow(3, "x"))
    agent.stop()
    kept = {path.name: path.read_bytes() for path in agent.path.iterdir()}
    for name in kept.keys() - {"node.json"}:
        (agent.path / name).unlink()
    with pytest.raises(DamagedStore, match="hard_state: missing, though the agent has started before"):
        agent.look()
    assert {path.name for path in agent.path.iterdir()} == {"lock", "node.json"}
    for name, data in kept.items():
        (agent.path / name).write_bytes(data)
    agent.start()


def test_a_directory_of_an_earlier_version_is_marked_at_its_next_start(agent: Any) -> None:
    """Its node.json does not say yet that it has started."""
    agent.stop()
    node = json.loads((agent.path / "node.json").read_bytes())
    assert node.pop("started")
    (agent.path / "node.json").write_text(json.dumps(node))
    assert not agent.store.directory.has_started()
    agent.start()
    assert agent.store.start == 2
    assert agent.store.directory.has_started()


@pytest.mark.parametrize(
    ("promise", "why"),
    [
        ({"term": 8, "voted_for": "x"}, "term 7, this agent has voted in term 8"),
        ({"term": 7, "voted_for": "y"}, "rolled back"),
        ({"last_index": 6}, "ends with entry 5, this agent has acknowledged 6"),
    ],
)
def test_a_database_behind_its_promises_is_damage(agent: Any, build: Any, promise: dict[str, Any], why: str) -> None:
    """It voted, or acknowledged, and the database knows nothing of it: rolled back."""
    agent.write(*build.entries(5), BallotRow(7, "x"))
    agent.stop()
    file = HardStateFile(agent.path / "hard_state")
    file.open()
    honest = file.state
    file.write_both(replace(honest, **promise))
    with pytest.raises(DamagedStore, match=why):
        agent.look()
    file.write_both(honest)
    file.close()
    agent.start()


def test_promises_behind_the_database_are_an_ordinary_crash(agent: Any, build: Any) -> None:
    """The database is committed first; the power went in between."""
    agent.write(*build.entries(5), BallotRow(7, "x"))
    agent.crash()
    file = HardStateFile(agent.path / "hard_state")
    file.open()
    file.write_both(HardState(start=1, term=6, voted_for="w", last_index=2))
    file.close()
    assert agent.start().loaded.ballot == BallotRow(7, "x")


BALLOTS = [("", 0), ("x", 1), ("", 2), ("y", 2), ("", 3), ("", 4), ("", 6), ("z", 6), ("x", 7)]
"""All that can happen to a ballot: a term with a vote at once, a vote later in the same term, terms without any."""


@pytest.mark.parametrize("database", range(len(BALLOTS)))
def test_the_file_may_be_behind_by_any_number_of_votes_and_never_ahead(agent: Any, build: Any, database: int) -> None:
    """The database is written first, so whenever the power goes the file holds one of the ballots before, or this one:
    a start. Where the file knows of a later one, the database was put back to an earlier day: no start."""
    agent.write(*build.entries(5))
    files = [(agent.path / "hard_state").read_bytes()]
    for voted_for, term in BALLOTS[1 : database + 1]:
        agent.write(BallotRow(term, voted_for))
        files.append((agent.path / "hard_state").read_bytes())
    voted_for, term = BALLOTS[database]
    agent.crash()
    for kept in files:
        (agent.path / "hard_state").write_bytes(kept)
        assert agent.start().loaded.ballot == BallotRow(term, voted_for)
        agent.crash()
    file = HardStateFile(agent.path / "hard_state")
    file.open()
    honest = file.state
    for later_vote, later_term in BALLOTS[database + 1 :]:
        file.write_both(replace(honest, term=later_term, voted_for=later_vote))
        with pytest.raises(DamagedStore, match="rolled back: it holds"):
            agent.look()
    file.write_both(honest)
    file.close()
    agent.start()


def test_a_vote_that_a_crash_left_in_the_database_alone_is_in_both_places_after_the_start(agent: Any) -> None:
    """It is told from now on without being written again; a database put back to before it is found out."""
    agent.write(BallotRow(7, ""))
    before = {name: (agent.path / name).read_bytes() for name in ("database", "database-wal", "hard_state")}
    agent.write(BallotRow(7, "x"))
    agent.crash()
    (agent.path / "hard_state").write_bytes(before["hard_state"])
    agent.start()
    proof = agent.store.hard_state.state
    assert (proof.term, proof.voted_for) == (7, "x")
    agent.crash()
    file = HardStateFile(agent.path / "hard_state")
    file.open()
    honest = file.state
    file.write_both(replace(honest, wal_frames=0))  # what else would tell
    now = (agent.path / "database-wal").read_bytes()
    (agent.path / "database-wal").write_bytes(before["database-wal"])
    with pytest.raises(DamagedStore, match="it holds no vote in term 7, in which this agent has voted"):
        agent.look()
    (agent.path / "database-wal").write_bytes(now)
    file.write_both(honest)
    file.close()
    agent.start()


def test_a_log_cut_off_entirely_still_ends_where_it_did(agent: Any, build: Any) -> None:
    """The last index counts, not the last row."""
    agent.write(*build.entries(5), LogCut(5))
    agent.stop()
    assert agent.start().store.log_end.index == 5


def test_a_refused_start_lets_everything_go(agent: Any, build: Any) -> None:
    """The next attempt is not told that the folder is in use."""
    agent.write(*build.entries(1))
    agent.stop()
    kept = (agent.path / "database.sums").read_bytes()
    (agent.path / "database.sums").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DamagedStore):
            agent.look()
    (agent.path / "database.sums").write_bytes(kept)
    agent.start()


def test_a_second_agent_does_not_touch_the_files_of_the_first(agent: Any, build: Any) -> None:
    """It is refused before it opens anything."""
    agent.write(*build.entries(1))
    with pytest.raises(StartRefused, match=f"pid {os.getpid()}"):
        agent.look()
    agent.write(MetaRow("still", "alive"))


def test_a_copied_folder_is_adopted_with_all_it_holds(agent: Any, build: Any) -> None:
    """Under a new node id: the log is as good as before, the identity is not."""
    rows = build.entries(3)
    agent.write(*rows)
    agent.stop()
    store = Store(agent.path, "another machine")
    with pytest.raises(StartRefused, match="meshcron up --adopt-data-dir"):
        store.open(build.identity)
    loaded = store.open(lambda: replace(build.identity(), node_id="f" * 32), adopt=True)
    assert (loaded.log, store.identity.node_id, store.start) == (rows, "f" * 32, 2)
    store.close()
    (agent.path / "node.json").unlink()
    (agent.path / "node.json.old-1").rename(agent.path / "node.json")
    agent.start()


def test_a_full_disk_at_the_start_is_a_refusal_not_damage(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is another one."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    agent.stop()
    with monkeypatch.context() as patch:
        patch.setattr(HardStateFile, "write", full)
        with pytest.raises(StartRefused, match="No space left") as refused:
            agent.look()
    assert not isinstance(refused.value, DamagedStore)
    agent.start()


def test_an_exception_in_main_leaves_the_files_in_order(agent: Any, build: Any, tmp_path: Path) -> None:
    """Nobody closed anything: the interpreter lets go of the connections in any order it likes."""
    import subprocess
    import sys

    agent.write(*build.entries(5))
    agent.stop()
    code = (
        "import sys; from pathlib import Path; from meshcron.store.store import Store\n"
        "store = Store(Path(sys.argv[1]), 'machine'); store.open(lambda: None)\n"
        "store.database.writer.execute(\"INSERT INTO meta VALUES ('main', 'died')\")\n"
        "raise RuntimeError('main died')"
    )
    done = subprocess.run([sys.executable, "-c", code, agent.path], capture_output=True, text=True, check=False)
    assert "main died" in done.stderr
    assert agent.start().loaded.meta == {"main": "died"}
