"""The writing thread: order, durability before anybody hears of it, and what happens when it cannot write."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshcron.rows import BallotRow, Drop, JobRow, LogRow, MetaRow
from meshcron.store import database, writer
from meshcron.store.hard_state import HardStateFile
from meshcron.store.log import LogBase
from meshcron.store.snapshot import Snapshot
from meshcron.store.wal import images


class Gate:
    """Stops the writing thread at its next commit until it is opened, so that a queue builds up behind it."""

    def __init__(self, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[list[int]] = []
        self._open, self._reached = threading.Event(), threading.Event()
        commit = agent.writer._commit_rows

        def gated(group: list[Any]) -> None:
            self._reached.set()
            assert self._open.wait(20)
            self.groups.append([work.n for work in group])
            commit(group)

        monkeypatch.setattr(agent.writer, "_commit_rows", gated)
        agent.submit()
        assert self._reached.wait(20)

    def open(self) -> None:
        self._open.set()


def test_what_is_told_as_persisted_is_in_the_database(agent: Any) -> None:
    """At that moment, for a reader of its own."""
    for n in range(20):
        agent.write(MetaRow("n", str(n)))
        assert agent.store.tables.meta() == {"n": str(n)}


def test_what_waits_is_committed_together_in_order(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fsync for all of it, one word about the last."""
    gate = Gate(agent, monkeypatch)
    for n in range(50):
        agent.submit(MetaRow("n", str(n)))
    gate.open()
    agent.wait(lambda: agent.persisted[-1:] == [51])
    assert gate.groups == [[1], list(range(2, 52))]
    assert agent.persisted == [1, 51]
    assert agent.store.tables.meta() == {"n": "49"}


@pytest.mark.parametrize(
    "make",
    [
        lambda build, n: [MetaRow(f"{n}-{m}", "v") for m in range(1000)],
        lambda build, n: [build.execution(1000 * n + m) for m in range(300)],
        lambda build, n: [JobRow(n, 1, "j", "d" * 500_000, True, False, 0)],
    ],
    ids=["many rows", "executions", "few large rows"],
)
def test_a_transaction_is_bounded(
    agent: Any, build: Any, monkeypatch: pytest.MonkeyPatch, make: Callable[[Any, int], list[Any]]
) -> None:
    """So that what comes next does not wait behind it for long; each group of rows stays whole."""
    gate = Gate(agent, monkeypatch)
    for n in range(12):
        agent.submit(*make(build, n))
    gate.open()
    agent.wait(lambda: agent.persisted[-1:] == [13])
    assert len(gate.groups) > 2
    assert [n for group in gate.groups for n in group] == list(range(1, 14))


def test_a_single_large_group_is_not_split(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All or nothing, however large."""
    gate = Gate(agent, monkeypatch)
    agent.submit(*[MetaRow(str(n), "v") for n in range(3 * writer.GROUP_COST_MAX)])
    agent.submit(MetaRow("next", "v"))
    gate.open()
    agent.wait(lambda: agent.persisted[-1:] == [3])
    assert gate.groups == [[1], [2], [3]]


def test_an_empty_group_is_answered_in_its_turn(agent: Any) -> None:
    """A turn of the core that wrote nothing."""
    agent.write(MetaRow("a", "1"))
    frames = agent.store.database.reach()
    agent.write()
    assert agent.persisted[-1] == 2
    assert agent.store.database.reach() == frames


def test_close_writes_what_was_submitted(agent: Any) -> None:
    """Nothing in the queue is lost by a clean stop, and everything stands in the database file."""
    for n in range(200):
        agent.submit(MetaRow("n", str(n)))
    agent.stop()
    assert agent.persisted[-1] == 200
    assert agent.store.hard_state.state.settled
    assert agent.start().loaded.meta == {"n": "199"}


def test_a_vote_is_in_both_places_before_anybody_hears_of_it(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Database, hard_state, Persisted: in that order (PROTOCOL 2, Amnesia)."""
    order: list[str] = []
    write = HardStateFile.write

    def watched(file: HardStateFile, state: Any) -> None:
        order.append(f"hard_state {state.term} after the database {agent.store.tables.ballot().term}")
        write(file, state)

    def told(n: int) -> None:
        order.append("told")
        agent.persisted.append(n)

    monkeypatch.setattr(HardStateFile, "write", watched)
    monkeypatch.setattr(agent.writer, "_on_persisted", told)
    agent.write(BallotRow(4, "x"))
    agent.write(BallotRow(5, ""))
    assert order == ["hard_state 4 after the database 4", "told", "hard_state 5 after the database 5", "told"]


def test_the_last_vote_of_a_group_counts(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two terms in one commit."""
    gate = Gate(agent, monkeypatch)
    agent.submit(BallotRow(4, "x"))
    agent.submit(BallotRow(5, "y"))
    gate.open()
    agent.wait(lambda: agent.persisted[-1:] == [3])
    assert (agent.store.hard_state.state.term, agent.store.hard_state.state.voted_for) == (5, "y")


@pytest.mark.parametrize("ballots", [[(7, ""), (7, "x")], [(7, "x"), (8, "")], [(7, ""), (8, ""), (8, "y")]])
def test_a_crash_behind_a_commit_of_several_ballots_is_an_ordinary_one(
    agent: Any, monkeypatch: pytest.MonkeyPatch, ballots: list[tuple[int, str]]
) -> None:
    """The file skips those in between, and a kill before it follows leaves it further behind than one change."""
    agent.write(BallotRow(6, "w"))
    before = (agent.path / "hard_state").read_bytes()
    gate = Gate(agent, monkeypatch)
    for term, voted_for in ballots:
        agent.submit(BallotRow(term, voted_for))
    gate.open()
    agent.wait(lambda: agent.persisted[-1:] == [2 + len(ballots)])
    assert len(gate.groups) == 2
    agent.crash()
    (agent.path / "hard_state").write_bytes(before)
    assert agent.start().loaded.ballot == BallotRow(*ballots[-1])


def test_the_floor_follows_at_most_once_a_second(agent: Any, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An fsync more for each commit would halve the rate."""
    written: list[int] = []
    write = HardStateFile.write

    def watched(file: HardStateFile, state: Any) -> None:
        written.append(state.last_index)
        write(file, state)

    monkeypatch.setattr(HardStateFile, "write", watched)
    monkeypatch.setattr(writer, "FLOOR_SECONDS", 1000.0)  # of the test's clock; a second passes by itself
    for row in build.entries(12):
        agent.now += 250
        agent.write(row)
        agent.write()
    assert written == [4, 8, 12]


def test_the_floor_follows_a_quiet_second(agent: Any, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last commit before a pause is proved without another one."""
    monkeypatch.setattr(writer, "FLOOR_SECONDS", 0.01)
    agent.write(*build.entries(3))
    for _ in range(2000):
        if agent.store.hard_state.state.last_index == 3:
            break
        threading.Event().wait(0.005)
    assert agent.store.hard_state.state.last_index == 3


def test_a_log_that_becomes_shorter_lowers_the_floor_first(
    agent: Any, build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower drops entries that were never committed; a crash right after must not look like a rollback."""
    rows = build.entries(10)
    agent.now += 2
    agent.write(*rows)
    agent.write()
    assert agent.store.hard_state.state.last_index == 10
    seen: list[tuple[int, int]] = []
    write = HardStateFile.write

    def watched(file: HardStateFile, state: Any) -> None:
        last = agent.store.database.reader.execute("SELECT max(idx) FROM log").fetchone()[0]
        seen.append((state.last_index, last))
        write(file, state)

    monkeypatch.setattr(HardStateFile, "write", watched)
    agent.write(build.entry(LogBase(4, 1, rows[3].crc), b'"new"', term=2))
    assert seen == [(5, 10)]
    agent.crash()
    assert agent.start().store.log_end.index == 5


def test_rows_that_are_no_log_stop_the_agent(agent: Any) -> None:
    """A gap would be damage at the next start; nothing of the group is written."""
    agent.submit(MetaRow("with", "it"), LogRow(7, 1, 0, b""))
    agent.wait(lambda: bool(agent.failures))
    assert "gap" in str(agent.failures)
    assert agent.store.tables.meta() == {}


class Broken:
    """A connection of which one statement fails."""

    def __init__(self, connection: sqlite3.Connection, statement: str, code: int, times: int = 10**9) -> None:
        self._connection = connection
        self._statement = statement
        self._code = code
        self.left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if sql.startswith(self._statement) and self.left:
            self.left -= 1
            if self._statement == "COMMIT":
                self._connection.execute("ROLLBACK")  # as SQLite does when the disk is full
            error = sqlite3.OperationalError("made up")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(sql, *values)


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT", "COMMIT"])
@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_READONLY])
def test_a_failed_write_ends_it_and_nothing_is_tried_again(agent: Any, statement: str, code: int) -> None:
    """After a failed fsync nobody knows what is on the disk (FAULTS 23): told once, then silence."""
    connection = agent.store.database.writer
    broken = Broken(connection, statement, code)
    agent.store.database.writer = broken
    agent.submit(MetaRow("a", "1"))
    agent.wait(lambda: bool(agent.failures))
    agent.submit(MetaRow("b", "2"))
    agent.writer.close()
    assert (len(agent.failures), agent.persisted, broken.left) == (1, [], 10**9 - 1)
    assert agent.low_on_disk == 0
    agent.store.database.writer = connection


def test_a_failed_fsync_of_hard_state_ends_it(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vote is in one place only: nobody hears of it."""

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(HardStateFile, "write", broken)
    agent.submit(BallotRow(3, "x"))
    agent.wait(lambda: bool(agent.failures))
    assert agent.persisted == []


@pytest.mark.parametrize("statement", ["INSERT", "COMMIT"])
def test_a_full_disk_frees_the_reserve_and_goes_on(agent: Any, statement: str) -> None:
    """SQLite rolled the transaction back, so it may be written again; the agent hears that the disk is low."""
    agent.store.database.writer = Broken(agent.store.database.writer, statement, sqlite3.SQLITE_FULL, times=1)
    agent.write(MetaRow("a", "1"))
    assert (agent.low_on_disk, agent.store.reserve.held) == (1, False)
    assert not (agent.path / "reserve").exists()
    assert agent.store.tables.meta() == {"a": "1"}


def test_a_disk_that_stays_full_ends_it(agent: Any) -> None:
    """There is one reserve."""
    agent.store.database.writer = Broken(agent.store.database.writer, "COMMIT", sqlite3.SQLITE_FULL)
    agent.submit(MetaRow("a", "1"))
    agent.wait(lambda: bool(agent.failures))
    assert (agent.low_on_disk, agent.persisted) == (1, [])
    agent.store.database.writer = agent.store.database.writer._connection


def test_a_full_disk_at_a_checkpoint_is_no_failure(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is durable in the `-wal`; the reserve makes room for the next one."""
    monkeypatch.setattr(writer, "CHECKPOINT_FRAMES", 1)
    connection = agent.store.database.writer
    agent.store.database.writer = Broken(connection, "PRAGMA wal_checkpoint", sqlite3.SQLITE_FULL, times=1)
    agent.write(MetaRow("a", "1"))
    agent.write(MetaRow("a", "2"))
    assert (agent.low_on_disk, agent.failures, agent.store.tables.meta()) == (1, [], {"a": "2"})


def test_no_descriptor_for_a_checkpoint_is_no_failure(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs may have taken the last one. It is tried again when there is more to copy."""
    monkeypatch.setattr(writer, "CHECKPOINT_FRAMES", 1)
    refusals = [OSError(errno.EMFILE, "Too many open files")]

    def seen(path: Path, frames: int) -> object:
        if refusals:
            raise refusals.pop()
        return images(path, frames)

    monkeypatch.setattr(database, "images", seen)
    agent.write(MetaRow("a", "1"))
    agent.write(MetaRow("a", "2"))
    agent.write(MetaRow("a", "3"))
    assert not refusals
    assert (agent.low_on_disk, agent.failures, agent.store.tables.meta()) == (0, [], {"a": "3"})
    assert agent.store.database.reach().frames <= 2


def test_the_wal_is_kept_short(agent: Any) -> None:
    """A start scans it: 4 MiB take 70 ms."""
    for n in range(30):
        agent.write(*[MetaRow(f"{n}-{m}", "v" * 1000) for m in range(300)])
    agent.write()
    assert (agent.path / "database-wal").stat().st_size < 2 * writer.CHECKPOINT_FRAMES * 4120


def test_a_reader_in_the_way_of_a_checkpoint_only_delays_it(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `-wal` grows while a snapshot is read, and begins anew once it is not."""
    monkeypatch.setattr(writer, "CHECKPOINT_FRAMES", 5)
    agent.write(MetaRow("a", "1"))
    snapshot = Snapshot(agent.store.database.path)
    snapshot.start()
    for n in range(40):
        agent.write(MetaRow("a", str(n)))
    assert agent.store.database.reach().frames > 40
    assert snapshot.meta == {"a": "1"}
    snapshot.close()
    for n in range(10):
        agent.write(MetaRow("b", str(n)))
    assert agent.store.database.reach().frames < 10
    agent.crash()
    assert agent.start().loaded.meta == {"a": "39", "b": "9"}


def test_drops_and_puts_of_several_groups_keep_their_order(agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one group removed the next one may write again."""
    gate = Gate(agent, monkeypatch)
    agent.submit(MetaRow("k", "1"))
    agent.submit(Drop("meta", ("k",)))
    agent.submit(MetaRow("k", "2"))
    agent.submit(MetaRow("j", "1"))
    agent.submit(Drop("meta", ("j",)))
    gate.open()
    agent.wait(lambda: agent.persisted[-1:] == [6])
    assert agent.store.tables.meta() == {"k": "2"}
