"""The catalog from one agent to another."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from meshcron.model import Member, Token
from meshcron.rows import (
    BallotRow,
    CallRow,
    JobRow,
    JobStateRow,
    Loaded,
    LogCut,
    MarkRow,
    MemberRow,
    MetaRow,
    OwedRow,
    SeenRow,
    SpecRow,
    TokenRow,
)
from meshcron.store import snapshot as snapshot_module
from meshcron.store.log import LogBase
from meshcron.store.snapshot import Chunk, Snapshot, is_whole, open_chunk


@pytest.fixture
def other(tmp_path: Path, build: Any) -> Iterator[Any]:
    """A second agent."""
    made = build.agent(tmp_path / "other").start()
    yield made
    made.stop()


def fill(agent: Any, build: Any) -> None:
    agent.write(
        *build.entries(7),
        MetaRow("applied", "7"),
        *[JobRow(n, 1, f"j{n}", '{"name":"ü\\u0000"}', True, False, 1) for n in range(50)],
        *[JobStateRow(n, 1, 2, 3, 4, 5, 6, 7, "success", 8) for n in range(50)],
        *[build.execution(n, env={"A": "b"}, exit_code=0, output_tail="ü\0\n" * 50) for n in range(1, 400)],
        OwedRow("o", 1, "retry", "r", 1, "retry", 1, 2, "n", ""),
        CallRow("key", 7, 1, "paused", "true"),
        MemberRow(Member(node_id="n", name="m", number=1)),
        TokenRow(Token(id="t", name="t", role="admin", sha256="s", created_wall_us=1)),
    )


def own(agent: Any) -> None:
    """What is this agent's alone."""
    agent.write(BallotRow(9, "me"), MarkRow(1, 2, 3), SeenRow("e", "s", 1, 2, 3, 4, 5, True, "", ""), SpecRow("d", ""))


def take(agent: Any) -> list[Chunk]:
    snapshot = Snapshot(agent.store.database.path)
    snapshot.start()
    try:
        return list(snapshot.chunks())
    finally:
        snapshot.close()


def install(agent: Any, base: LogBase, chunks: list[Chunk]) -> None:
    agent.submitted += 1
    agent.writer.install(agent.submitted, base, chunks)
    agent.wait(lambda: agent.persisted[-1:] == [agent.submitted])
    assert not agent.failures


def catalog(loaded: Loaded) -> list[Any]:
    return [loaded.meta, loaded.jobs, loaded.job_states, loaded.owed, loaded.members, loaded.tokens, loaded.calls]


class Chunks(list[Chunk]):
    """A list that can be watched."""


def test_what_was_installed_is_let_go_of(agent: Any, other: Any, build: Any) -> None:
    """The writing thread waits for the next work with nothing in its hands: the chunks may be as large as a catalog."""
    fill(agent, build)
    chunks, gone = Chunks(take(agent)), threading.Event()
    watched = weakref.ref(chunks, lambda _: gone.set())
    install(other, agent.store.log_end, chunks)
    del chunks
    assert gone.wait(20), gc.get_referrers(watched())


def test_another_agent_takes_the_catalog_over_and_keeps_its_own(agent: Any, other: Any, build: Any) -> None:
    """Rows and history; term, vote, what it has seen and its specs stay its own; the log goes on after the base."""
    fill(agent, build)
    own(agent)
    other.write(*build.entries(30), MetaRow("stale", "x"), build.execution(999), BallotRow(4, "other"))
    end = agent.store.log_end
    install(other, end, take(agent))
    more = build.entries(2, after=end)
    other.write(*more)
    other.stop()
    loaded = other.start().loaded
    agent.stop()
    assert catalog(loaded) == catalog(agent.start().loaded)
    assert (loaded.log, loaded.ballot, loaded.seen, loaded.specs) == (more, BallotRow(4, "other"), [], [])
    every = {"newest_first": True, "offset": 0, "limit": 999}
    assert other.store.tables.executions(1, **every) == agent.store.tables.executions(1, **every)
    assert other.store.log_base == end


def test_the_same_catalog_gives_the_same_chunks(agent: Any, other: Any, build: Any) -> None:
    """However it came to be: voters compare what they hold by it."""
    fill(agent, build)
    chunks = take(agent)
    install(other, agent.store.log_end, chunks)
    assert take(other) == chunks
    own(other)
    other.write(LogCut(7))
    assert take(other) == chunks
    other.write(MetaRow("applied", "8"))
    assert take(other) != chunks


@pytest.mark.parametrize("largest", [65_000, 400_000])
def test_chunks_are_small_enough_to_send(agent: Any, build: Any, largest: int) -> None:
    """A message has 512 KiB. The largest definition has 64 KiB; a kept answer names each execution that was open.
    A large row comes after as many small ones as leave no room for it."""
    sizes = [1_000, largest, *[1_000] * 250, largest, 10] * 3
    agent.write(*[JobRow(n, 1, "j", "d" * size, True, False, 1) for n, size in enumerate(sizes)])
    chunks = take(agent)
    assert len(chunks) > 4
    assert max(len(chunk.rows) for chunk in chunks) <= 450_000
    assert is_whole(chunks)
    rows = [row for chunk in chunks for row in open_chunk(chunk)]
    assert [len(row.definition) for row in rows if isinstance(row, JobRow)] == sizes


def test_an_instant_is_held_while_the_writer_goes_on(agent: Any, build: Any) -> None:
    """Half of one state and half of another would be no state at all."""
    fill(agent, build)
    whole = take(agent)
    snapshot = Snapshot(agent.store.database.path)
    snapshot.start()
    chunks = snapshot.chunks()
    got = [next(chunks)]
    for n in range(50):
        agent.write(MetaRow("applied", str(n)), build.execution(500 + n))
    got += list(chunks)
    snapshot.close()
    assert got == whole


@pytest.mark.parametrize(
    "change",
    [
        {"rows": b"[]"},
        {"number": 5},
        {"table": "seen"},
        {"sha256": "0" * 64},
        {"last": True},
    ],
)
def test_a_chunk_that_was_changed_is_refused(agent: Any, build: Any, change: dict[str, Any]) -> None:
    """On the way or by somebody."""
    fill(agent, build)
    first = take(agent)[0]
    assert open_chunk(first)
    with pytest.raises(ValueError, match="chunk"):
        open_chunk(replace(first, **change))


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("seen", b"[]"),
        ("log", b"[]"),
        ("meta", b"{"),
        ("meta", b"[[1,2]]"),
        ("meta", b'[["a"]]'),
        ("executions", b"[[1]]"),
        ("members", b'[["n","m","x",1,1]]'),
        ("members", b"[[]]"),
    ],
)
def test_a_chunk_of_nonsense_is_refused(table: str, rows: bytes) -> None:
    """Even when its sum is right: a leader of another version may have made it."""
    with pytest.raises(ValueError, match="chunk 0"):
        open_chunk(snapshot_module._chunk(0, table, rows))


def test_a_snapshot_is_whole_or_it_is_not(agent: Any, build: Any) -> None:
    """All chunks, in order, once, to the last."""
    fill(agent, build)
    chunks = take(agent)
    assert is_whole(chunks)
    for wrong in ([], chunks[:-1], chunks[1:], chunks[::-1], [*chunks, chunks[-1]], chunks[:1] + chunks):
        assert not is_whole(wrong)


def test_a_snapshot_is_taken_over_whole_or_not_at_all(agent: Any, other: Any, build: Any) -> None:
    """A bad chunk among them changes nothing; and it stops the agent, which should have looked before."""
    fill(agent, build)
    chunks = take(agent)
    other.write(MetaRow("mine", "still"), *build.entries(3))
    other.writer.install(9, LogBase(7, 1, 1), [*chunks[:2], replace(chunks[2], sha256="")])
    other.wait(lambda: bool(other.failures))
    assert other.store.tables.meta() == {"mine": "still"}
    assert other.store.log_end.index == 3


def test_a_shorter_log_after_a_snapshot_is_no_rollback(agent: Any, other: Any, build: Any) -> None:
    """Its tail was never committed; the floor goes down before the log does."""
    other.now += 2
    other.write(*build.entries(30))
    other.write()
    fill(agent, build)
    install(other, agent.store.log_end, take(agent))
    other.crash()
    assert other.start().store.log_end == agent.store.log_end


def test_a_snapshot_not_started_has_no_chunks(agent: Any) -> None:
    """A mistake of ours, said plainly."""
    with pytest.raises(ValueError, match="not started"):
        list(Snapshot(agent.store.database.path).chunks())


def test_rows_are_plain_json(agent: Any) -> None:
    """Any version can at least read it."""
    agent.write(MetaRow("a", "1"))
    assert msgspec.json.decode(take(agent)[0].rows) == [["a", "1"]]


def test_it_may_be_read_in_another_thread(agent: Any, build: Any) -> None:
    """A large one is better taken beside the loop."""
    fill(agent, build)
    snapshot = Snapshot(agent.store.database.path)
    snapshot.start()
    got: list[Chunk] = []
    thread = threading.Thread(target=lambda: got.extend(snapshot.chunks()))
    thread.start()
    thread.join(20)
    snapshot.close()
    assert is_whole(got)
