"""Going on after damage with what is provably intact."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from meshcron.errors import DamagedStore, StartRefused
from meshcron.rows import BallotRow, JobRow, Loaded, LogCut, MetaRow, Row
from meshcron.store.hard_state import HardState, HardStateFile
from meshcron.store.log import LogBase
from meshcron.store.salvage import SalvageReport, salvage
from meshcron.store.wal import scan

FRAME = 4120


def applied(meta: dict[str, str]) -> LogBase:
    index, crc = meta["applied"].split()
    return LogBase(int(index), 1, int(crc))


def work(agent: Any, build: Any, count: int) -> list[Any]:
    """Entries, each committed with the scalars that its application leaves and a job."""
    rows: list[Any] = build.entries(count, after=agent.store.log_end)
    for row in rows:
        more: list[Row] = [
            MetaRow("applied", f"{row.index} {row.crc}"),
            JobRow(row.index, 1, "j", "{}", True, False, 0),
        ]
        agent.write(row, *more)
    return rows


def prove(agent: Any) -> None:
    agent.now += 2
    agent.write(MetaRow("proved", str(agent.now)))
    agent.write()


def rescue(agent: Any, label: str = "7") -> SalvageReport:
    """The directory is damaged, is salvaged, and starts again."""
    with pytest.raises(DamagedStore):
        agent.look()
    report = salvage(agent.path, label, applied)
    agent.start()
    return report


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 8
    path.write_bytes(data)


def test_after_a_flip_in_the_wal_the_prefix_before_it_remains(agent: Any, build: Any) -> None:
    """Log and catalog of one moment; how much is gone is told."""
    rows = work(agent, build, 40)
    agent.write(BallotRow(6, "me"))
    prove(agent)
    agent.crash()
    wal = agent.path / "database-wal"
    flip(wal, 32 + scan(wal).frames // 2 * FRAME + 500)
    damaged = wal.read_bytes()
    report = rescue(agent)
    kept = report.last.index
    assert 10 < kept < 30
    assert agent.loaded.log == rows[:kept]
    assert [job.uid for job in agent.loaded.jobs] == list(range(1, kept + 1))
    assert applied(agent.loaded.meta) == report.last == LogBase(kept, 1, rows[kept - 1].crc)
    assert (report.entries_lost_max, report.incomplete, report.verified) == (40 - kept, (), True)
    assert (agent.loaded.ballot, agent.store.start) == (BallotRow(6, "me"), 2)
    assert set(report.set_aside) == {
        f"{name}.damaged-7" for name in ("database", "database-wal", "database.sums", "hard_state")
    }
    assert (agent.path / "database-wal.damaged-7").read_bytes() == damaged


def test_an_agent_that_had_settled_loses_nothing_with_its_wal(agent: Any, build: Any) -> None:
    """Everything stands in the database file too, whose pages all match."""
    rows = work(agent, build, 20)
    agent.stop()
    flip(agent.path / "database-wal", 32 + 3 * FRAME + 500)
    report = rescue(agent)
    assert (report.last.index, report.entries_lost_max) == (20, 0)
    assert (agent.loaded.log, len(agent.loaded.jobs)) == (rows, 20)


def test_a_checkpoint_beyond_the_hole_is_not_mixed_with_the_prefix(agent: Any, build: Any) -> None:
    """The database file is of a later moment than the good part of the `-wal`: taken alone it is whole."""
    rows = work(agent, build, 20)
    assert agent.store.database.checkpoint()
    agent.crash()
    flip(agent.path / "database-wal", 32 + 3 * FRAME + 500)
    report = rescue(agent)
    assert (report.last.index, agent.loaded.log) == (20, rows)


def test_a_wal_without_its_header_leaves_the_last_checkpoint(agent: Any, build: Any) -> None:
    """Not one frame can be trusted."""
    rows = work(agent, build, 10)
    assert agent.store.database.checkpoint()
    work(agent, build, 5)
    prove(agent)
    agent.crash()
    flip(agent.path / "database-wal", 3)
    report = rescue(agent)
    assert (report.last.index, report.entries_lost_max, agent.loaded.log) == (10, 5, rows)


def at_rest(agent: Any) -> None:
    """Everything in the database file, little in the `-wal`."""
    assert agent.store.database.checkpoint()
    agent.write(MetaRow("late", "x"))
    prove(agent)
    agent.crash()


def test_a_bad_page_of_a_table_loses_its_rows_and_says_which(agent: Any, build: Any) -> None:
    """The rows before it and behind it are kept."""
    rows = work(agent, build, 5)
    agent.write(*[JobRow(n, 1, f"job-{n:03}", "x" * 400, True, False, 0) for n in range(100, 200)])
    at_rest(agent)
    flip(agent.path / "database", place_of(agent, b"job-150"))
    report = rescue(agent)
    uids = [job.uid for job in agent.loaded.jobs]
    assert report.incomplete == ("jobs",)
    assert agent.loaded.log == rows
    assert 150 not in uids
    assert len(uids) > 80
    assert {100, 199} <= set(uids)
    assert all(job.definition in {"{}", "x" * 400} for job in agent.loaded.jobs)


def test_a_bad_page_in_the_middle_of_the_log_costs_only_what_is_applied(agent: Any, build: Any) -> None:
    """The catalog stands for it; the chain goes on behind it."""
    rows = build.entries(60, size=1000)
    agent.write(*rows, MetaRow("applied", f"55 {rows[54].crc}"))
    at_rest(agent)
    flip(agent.path / "database", place_of(agent, rows[20].body))
    report = rescue(agent)
    assert (report.last.index, report.entries_lost_max) == (60, 0)
    assert agent.loaded.log == rows[agent.store.log_base.index :]
    assert 21 <= agent.store.log_base.index <= 30


def test_a_bad_page_at_the_end_of_the_log_costs_what_was_not_applied(agent: Any, build: Any) -> None:
    """What the catalog stands for is kept in any case: the log begins anew behind it."""
    rows = build.entries(60, size=1000)
    agent.write(*rows, MetaRow("applied", f"58 {rows[57].crc}"))
    at_rest(agent)
    flip(agent.path / "database", place_of(agent, rows[57].body))
    report = rescue(agent)
    assert 58 <= report.last.index < 60
    assert report.entries_lost_max == 60 - report.last.index
    more = build.entries(1, after=report.last)
    agent.write(*more)


def place_of(agent: Any, needle: bytes) -> int:
    """Where this entry lies; its body is like no other's."""
    database: bytes = (agent.path / "database").read_bytes()
    return database.index(needle)


def test_without_its_sums_the_database_is_read_as_it_is(agent: Any, build: Any) -> None:
    """And the report says that nothing vouches for a single row."""
    rows = work(agent, build, 10)
    agent.stop()
    (agent.path / "database.sums").write_bytes(b"")
    report = rescue(agent)
    assert (report.verified, report.last.index, agent.loaded.log) == (False, 10, rows)


def test_without_hard_state_the_database_says_what_it_knows(agent: Any, build: Any) -> None:
    """The start number is lost: the caller gives the agent a new identity."""
    rows = work(agent, build, 10)
    agent.write(BallotRow(6, "me"))
    agent.stop()
    (agent.path / "hard_state").write_bytes(bytes(8192))
    report = rescue(agent)
    assert (report.last.index, agent.loaded.log, agent.loaded.ballot) == (10, rows, BallotRow(6, "me"))


def test_a_vote_that_only_hard_state_knows_is_kept(agent: Any, build: Any) -> None:
    """The prefix of the `-wal` is older than the vote; the promise stands."""
    work(agent, build, 10)
    agent.write(BallotRow(6, "me"))
    work(agent, build, 5)
    prove(agent)
    agent.crash()
    flip(agent.path / "database-wal", 32 + 6 * FRAME + 500)
    rescue(agent)
    assert agent.loaded.ballot == BallotRow(6, "me")


def test_a_log_cut_off_before_is_taken_up_where_it_begins(agent: Any, build: Any) -> None:
    """The base goes with it."""
    rows = work(agent, build, 20)
    agent.write(LogCut(12))
    agent.stop()
    (agent.path / "database.sums").unlink()
    rescue(agent)
    assert agent.loaded.log == rows[12:]
    assert agent.store.log_base == LogBase(12, 1, rows[11].crc)


@pytest.mark.parametrize("gone", ["meta", "database"])
def test_too_little_left_is_refused_and_nothing_changed(agent: Any, build: Any, gone: str) -> None:
    """Without the catalog's scalars nobody knows what the rows stand for."""
    work(agent, build, 5)
    agent.write(MetaRow("needle", "in the scalars"))
    at_rest(agent)
    if gone == "meta":
        place = (agent.path / "database").read_bytes().index(b"in the scalars")
        (agent.path / "database-wal").write_bytes(b"")  # the page stands there too
        flip(agent.path / "database", place)
    else:
        (agent.path / "database").unlink()
    before = {path.name: path.read_bytes() for path in agent.path.iterdir()}
    with pytest.raises(StartRefused, match="Restore a backup"):
        salvage(agent.path, "1", applied)
    assert {path.name: path.read_bytes() for path in agent.path.iterdir()} == before
    agent.begin_anew()


def test_a_label_in_use_is_refused(agent: Any, build: Any) -> None:
    """Nothing set aside is ever overwritten."""
    work(agent, build, 3)
    agent.stop()
    (agent.path / "database.damaged-1").write_text("older")
    with pytest.raises(StartRefused):
        salvage(agent.path, "1", applied)
    assert (agent.path / "database.damaged-1").read_text() == "older"
    agent.start()
    assert len(agent.loaded.log) == 3


@pytest.mark.parametrize("step", range(12))
def test_a_salvage_that_dies_leaves_all_old_files(
    agent: Any, build: Any, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any of its renames: the directory starts, or is refused as damaged, and the old files are all still there."""
    rows = work(agent, build, 20)
    prove(agent)
    agent.crash()
    flip(agent.path / "database-wal", 32 + 20 * FRAME + 500)
    names = ("database", "database-wal", "database.sums", "hard_state")
    old = {name: (agent.path / name).read_bytes() for name in names}
    left = [step]

    def dying(real: Any) -> Any:
        def call(*values: Any, **named: Any) -> Any:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(*values, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("hardlink_to", "unlink", "replace"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        with contextlib.suppress(KeyboardInterrupt):
            salvage(agent.path, "1", applied)
    for name, data in old.items():
        here, aside = agent.path / name, agent.path / f"{name}.damaged-1"
        assert any(path.exists() and path.read_bytes() == data for path in (here, aside))
    try:
        loaded: Loaded = agent.look()
        assert loaded.log == rows[: len(loaded.log)]
    except DamagedStore:
        pass
    for name, data in old.items():
        (agent.path / name).write_bytes(data)
        (agent.path / f"{name}.damaged-1").unlink(missing_ok=True)
    rescue(agent, "2")
    assert agent.loaded.log == rows[: len(agent.loaded.log)]


def test_the_start_number_goes_on(agent: Any, build: Any) -> None:
    """Until the caller decides otherwise."""
    work(agent, build, 3)
    agent.stop()
    file = HardStateFile(agent.path / "hard_state")
    file.create(HardState(start=41, last_index=3))
    file.close()
    (agent.path / "database.sums").unlink()
    rescue(agent)
    assert agent.store.start == 42


def test_what_it_makes_is_private(agent: Any, build: Any) -> None:
    """As everything in the directory."""
    work(agent, build, 3)
    agent.stop()
    (agent.path / "database.sums").unlink()
    before = os.umask(0)
    try:
        rescue(agent)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in agent.path.iterdir()} == {0o600}
