"""A snapshot from one agent to another: both ends, with a wire between them that loses and repeats; and whose chunks
count."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from meshcron.core.events import Event, SnapshotArrived, SnapshotSent
from meshcron.core.known_members import KnownMembers
from meshcron.core.state import State
from meshcron.messages import Message, SnapshotChunk, SnapshotWanted
from meshcron.model import Member
from meshcron.rows import JobRow, MetaRow
from meshcron.runtime.mesh import Mesh
from meshcron.runtime.snapshots import ABANDONED_SECONDS, REPEAT_SECONDS, STALLED_SECONDS, Snapshots
from meshcron.store.snapshot import Chunk
from tests.unit.runtime.mesh_stage import unopened_mesh
from tests.unit.store.conftest import Agent

TERM, INDEX, CRC = 3, 7, 99
JOBS = [JobRow(n, 1, f"job-{n}", "x" * 60_000, True, False, 1) for n in range(8)]
"""Two chunks of them, between that of the scalars and the last one."""
FAILED = SnapshotSent("follower", arrived=False)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """A catalog of several chunks, at an entry of term 2."""
    agent = Agent(tmp_path / "data").start()
    agent.write(MetaRow("applied", f"{INDEX} 2 {CRC}"), *JOBS)
    yield agent.store.database.path
    agent.stop()


class Wire:
    """Leader and follower, and what is on its way between them: `leader` sends to `follower`, who asks for more."""

    def __init__(self, database: Path) -> None:
        self.now = 0.0
        self.wire: deque[tuple[str, Message]] = deque()
        """To whom, what."""
        self.told: dict[str, list[Event]] = {"leader": [], "follower": []}
        self.leader = Snapshots(database, self._send, lambda: self.now)
        self.follower = Snapshots(database.parent / "unused", self._send, lambda: self.now)
        self.leader.start(self.told["leader"].append)
        self.follower.start(self.told["follower"].append)

    def _send(self, to: str, message: Message) -> None:
        self.wire.append((to, message))

    def step(self) -> Message:
        """The next message arrives; which."""
        to, message = self.wire.popleft()
        if isinstance(message, SnapshotChunk):
            assert to == "follower"
            self.follower.chunk("leader", message)
        elif isinstance(message, SnapshotWanted):
            assert to == "leader"
            self.leader.wanted("follower", message)
        return message

    def run(self) -> list[SnapshotChunk]:
        """Until nothing is on its way; the chunks that arrived."""
        arrived = []
        while self.wire:
            message = self.step()
            if isinstance(message, SnapshotChunk):
                arrived.append(message)
            assert len(arrived) < 100, "it never ends"
        return arrived

    def lose(self) -> Message:
        """The next message does not arrive; which."""
        return self.wire.popleft()[1]

    def wait(self, seconds: float) -> None:
        """So much time goes by; both look at what they wait for."""
        self.now += seconds
        self.leader._look()
        self.follower._look()

    def holds_open(self) -> int:
        """How many snapshots the leader still reads from."""
        return len(self.leader._sending)


@pytest.fixture
def wire(database: Path) -> Iterator[Wire]:
    made = Wire(database)
    yield made
    made.leader.close()


def arrived_once(wire: Wire) -> None:
    """The whole catalog, told once at each end; nothing is held open."""
    [arrived] = wire.told["follower"]
    assert isinstance(arrived, SnapshotArrived)
    assert (arrived.sender, arrived.leader_term) == ("leader", TERM)
    assert (arrived.index, arrived.term, arrived.crc) == (INDEX, 2, CRC)
    assert arrived.catalog.jobs == JOBS
    assert wire.told["leader"] == [SnapshotSent("follower", arrived=True)]
    assert wire.holds_open() == 0


def test_it_arrives_chunk_by_chunk(wire: Wire) -> None:
    """Each is asked for; never is more than one on its way."""
    wire.leader.send("follower", TERM)
    seen = []
    while wire.wire:
        assert len(wire.wire) == 1
        seen.append(wire.step())
    chunks = [one for one in seen if isinstance(one, SnapshotChunk)]
    assert [one.number for one in chunks] == list(range(len(chunks)))
    assert [one.last for one in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [one for one in seen if isinstance(one, SnapshotWanted)] == [
        SnapshotWanted(INDEX, number + 1) for number in range(len(chunks))
    ]
    assert len(seen) == MESSAGES
    arrived_once(wire)
    assert len(wire.follower.take()) == len(chunks)


MESSAGES = 8
"""The scalars, two chunks of jobs, the last one, and what asks for each next one."""


@pytest.mark.parametrize("at", range(MESSAGES))
def test_any_message_may_be_lost(wire: Wire, at: int) -> None:
    """A chunk, or what asks for the next one: the chunk comes again after a second, and counts once. Only the thanks
    for the last one are not said again: the leader gives up, and the next answer to an Append shows what is there."""
    wire.leader.send("follower", TERM)
    for _ in range(at):
        wire.step()
    wire.lose()
    assert not wire.wire
    wire.wait(REPEAT_SECONDS + 0.1)
    wire.run()
    if at < MESSAGES - 1:
        arrived_once(wire)
        return
    wire.wait(STALLED_SECONDS)
    wire.run()
    assert [type(one) for one in wire.told["follower"]] == [SnapshotArrived]
    assert wire.told["leader"] == [SnapshotSent("follower", arrived=False)]


def test_any_message_may_come_twice(wire: Wire) -> None:
    """Nothing is taken twice for that, and what was asked long ago brings no chunk early."""
    wire.leader.send("follower", TERM)
    before: list[tuple[str, Message]] = []
    while wire.wire:
        before = [*before[-2:], wire.wire[0]]
        wire.step()
        answers = wire.wire.copy()
        for copy in before:
            wire.wire.appendleft(copy)
            wire.step()
        wire.wire = answers
    arrived_once(wire)


def test_what_was_repeated_on_the_way_makes_no_second_stream(wire: Wire) -> None:
    """A slow wire: the first chunk comes twice and is answered twice. Each of the others comes once all the same."""
    wire.leader.send("follower", TERM)
    wire.wait(REPEAT_SECONDS + 0.1)
    assert [one.number for one in wire.run()] == [0, 0, 1, 2, 3]
    arrived_once(wire)


def begin_again(wire: Wire, term: int, held: int) -> None:
    """The follower has so many chunks when its answer is lost; the leader gives up and begins again."""
    wire.leader.send("follower", TERM)
    for _ in range(2 * held - 1):
        wire.step()
    wire.lose()
    wire.wait(STALLED_SECONDS + 0.1)
    assert wire.told["leader"] == [FAILED]
    wire.told["leader"].clear()
    wire.leader.send("follower", term)
    wire.run()


@pytest.mark.parametrize("held", [1, 2, 3])
def test_one_that_is_begun_again_arrives(wire: Wire, held: int) -> None:
    """No new entry since, so it looks the same: what the follower holds comes once more, and the rest behind it."""
    begin_again(wire, TERM, held)
    arrived_once(wire)


@pytest.mark.parametrize("held", [1, 2, 3])
def test_one_that_is_begun_again_in_another_term_is_of_that_term(wire: Wire, held: int) -> None:
    """The core judges its sender by the term: that of the earlier one would make it an old leader's."""
    begin_again(wire, TERM + 1, held)
    assert [(type(one), getattr(one, "leader_term", 0)) for one in wire.told["follower"]] == [
        (SnapshotArrived, TERM + 1)
    ]


@pytest.mark.parametrize("held", [1, 2, 3])
def test_chunks_of_two_snapshots_do_not_mix(wire: Wire, database: Path, held: int) -> None:
    """Other rows at the same index and term, and fewer: all that arrives is of the second snapshot."""
    first = JOBS[0]
    wire.leader.send("follower", TERM)
    for _ in range(2 * held - 1):
        wire.step()
    wire.lose()
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("DELETE FROM jobs WHERE uid != ?", [first.uid])
        writer.execute("UPDATE jobs SET name = 'other'")
        writer.commit()
    wire.leader.send("follower", TERM)
    wire.run()
    [arrived] = wire.told["follower"]
    assert cast("SnapshotArrived", arrived).catalog.jobs == [replace(first, name="other")]
    assert len(wire.follower.take()) == 3


def test_one_that_nobody_goes_on_with_is_given_up(wire: Wire) -> None:
    """It holds the `-wal` open; the core hears of it, and may begin another."""
    wire.leader.send("follower", TERM)
    wire.step()
    wire.wire.clear()
    wire.wait(STALLED_SECONDS + 0.1)
    assert wire.told["leader"] == [SnapshotSent("follower", arrived=False)]
    assert wire.holds_open() == 0
    wire.leader.wanted("follower", SnapshotWanted(INDEX, 1))
    assert not wire.wire, "what comes too late is nobody's"
    wire.told["leader"].clear()
    wire.leader.send("follower", TERM)
    wire.run()
    arrived_once(wire)


def test_one_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """There is no such database. It is told at the next look, and once."""
    wire = Wire(tmp_path / "nowhere")
    wire.leader.send("follower", TERM)
    assert (list(wire.wire), wire.told["leader"]) == ([], [])
    wire.wait(REPEAT_SECONDS)
    wire.wait(REPEAT_SECONDS)
    assert (list(wire.wire), wire.told["leader"]) == ([], [FAILED])


def test_one_that_cannot_be_read_is_tried_again_each_second(tmp_path: Path) -> None:
    """The core asks for another one as soon as it hears of a failure; that ends no look, and no turn of the loop."""
    wire = Wire(tmp_path / "nowhere")
    told: list[Event] = []

    def again(event: Event) -> None:
        told.append(event)
        assert len(told) < 100, "it never ends"
        wire.leader.send("follower", TERM)

    wire.leader.start(again)
    wire.leader.send("follower", TERM)
    for seconds in range(1, 4):
        wire.wait(REPEAT_SECONDS)
        assert told == [FAILED] * seconds


def test_one_that_cannot_be_read_to_its_end_is_told(wire: Wire) -> None:
    """A bad sector in its middle: it is let go of, and what is asked for later brings nothing."""

    def damaged() -> Iterator[Chunk]:
        yield from ()
        raise sqlite3.DatabaseError("database disk image is malformed")

    wire.leader.send("follower", TERM)
    wire.leader._sending["follower"].chunks = damaged()
    wire.run()
    assert (wire.told["leader"], wire.holds_open()) == ([], 0)
    wire.leader.wanted("follower", SnapshotWanted(INDEX, 1))
    wire.wait(REPEAT_SECONDS)
    assert (list(wire.wire), wire.told["leader"]) == ([], [FAILED])


@pytest.mark.parametrize("asker", ["stranger", "worker", "removed", "other"])
def test_nobody_else_is_sent_a_chunk(wire: Wire, asker: str) -> None:
    """Whoever asks, and whatever for: chunks go to whom a snapshot was sent, and to no one else."""
    wire.leader.send("follower", TERM)
    wire.wire.clear()
    for number in range(5):
        wire.leader.wanted(asker, SnapshotWanted(INDEX, number))
    assert not wire.wire
    assert wire.told["leader"] == []


def test_nor_is_one_of_another_snapshot(wire: Wire) -> None:
    """A follower that asks for what another leader once sent, or for a chunk that is far ahead, gets no further."""
    wire.leader.send("follower", TERM)
    wire.wire.clear()
    wire.leader.wanted("follower", SnapshotWanted(INDEX + 1, 1))
    assert not wire.wire
    wire.leader.wanted("follower", SnapshotWanted(INDEX, 4))
    assert not wire.wire


def sent(wire: Wire) -> list[SnapshotChunk]:
    """All chunks of the snapshot."""
    wire.leader.send("follower", TERM)
    chunks = wire.run()
    wire.told["follower"].clear()
    return chunks


LIES: list[Callable[[SnapshotChunk], SnapshotChunk]] = [
    lambda one: replace(one, payload=(one.payload[0].replace(b"job-", b"bad-"),)),
    lambda one: replace(one, payload=()),
    lambda one: replace(one, payload=(one.payload[0], b"[]")),
    lambda one: replace(one, table="log"),
    lambda one: replace(one, sha256="0" * 64),
    lambda one: replace(one, last=True),
    lambda one: replace(one, number=one.number + 1),
    lambda one: replace(one, number=-1),
]


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("at", [0, 1])
def test_a_chunk_that_is_not_what_it_says_changes_nothing(
    wire: Wire, at: int, lie: Callable[[SnapshotChunk], SnapshotChunk]
) -> None:
    """It is not taken; the right one, which comes after it, is."""
    chunks = sent(wire)
    for chunk in chunks:
        if chunk.number == at:
            wire.follower.chunk("leader", lie(chunk))
            assert wire.told["follower"] == []
        wire.follower.chunk("leader", chunk)
    assert [type(one) for one in wire.told["follower"]] == [SnapshotArrived]


def test_chunks_of_two_senders_do_not_mix(wire: Wire) -> None:
    """Another sender's first chunk begins anew; one from its middle is nothing; what is left of the first one is
    nothing, too."""
    chunks = sent(wire)
    wire.wire.clear()
    wire.follower.chunk("leader", chunks[0])
    wire.follower.chunk("other", chunks[1])
    assert [to for to, _ in wire.wire] == ["leader"]
    wire.follower.chunk("other", chunks[0])
    for chunk in chunks[1:]:
        wire.follower.chunk("leader", chunk)
    assert wire.told["follower"] == []
    for chunk in chunks[1:]:
        wire.follower.chunk("other", chunk)
    assert [cast("SnapshotArrived", one).sender for one in wire.told["follower"]] == ["other"]


def held(wire: Wire) -> tuple[bool, bool]:
    """Whether the follower holds a part of a snapshot in memory, and a whole one."""
    return wire.follower._arriving is not None, wire.follower._whole is not None


def test_one_that_was_taken_is_let_go_of(wire: Wire) -> None:
    """It may be as large as the catalog."""
    sent(wire)
    assert wire.follower.take()
    assert held(wire) == (False, False)


def test_one_that_is_not_wanted_is_let_go_of(wire: Wire) -> None:
    """It was whole, and the core had no use for it."""
    sent(wire)
    wire.wait(ABANDONED_SECONDS)
    assert held(wire) == (False, True)
    wire.wait(0.1)
    assert held(wire) == (False, False)


def test_one_whose_sender_is_gone_is_let_go_of(wire: Wire) -> None:
    """Each chunk gives it more time; what comes after that belongs to nothing."""
    first, second, third, _ = sent(wire)
    wire.follower.take()
    for chunk in (first, second):
        wire.wait(ABANDONED_SECONDS)
        wire.follower.chunk("leader", chunk)
    wire.wait(ABANDONED_SECONDS)
    assert held(wire) == (True, False)
    wire.wait(0.1)
    assert held(wire) == (False, False)
    wire.wire.clear()
    wire.follower.chunk("leader", third)
    assert not wire.wire


# the guard before them


CAST = [
    Member(node_id="me", name="me", number=1),
    Member(node_id="voter", name="voter", number=2),
    Member(node_id="learner", name="learner", number=3, voter=False),
    Member(node_id="worker", name="worker", number=4, voter=False, eligible=False),
    Member(node_id="removed", name="removed", number=5),
]


def known() -> KnownMembers:
    """The cast as an agent knows it, after one was removed."""
    state = State()
    state.members = {one.number: one for one in CAST}
    state.roster_index = 5
    settings: Any = SimpleNamespace(node_id="me", endpoint=None)
    members = KnownMembers(settings, state, cast("Any", SimpleNamespace(leads=False)), cast("Any", None))
    assert members.may_command("removed")
    del state.members[5]
    state.roster_index = 6
    return members


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    """It knows who of the senders below may hold the log."""
    made = unopened_mesh(tmp_path)
    made._core = cast("Any", SimpleNamespace(may_command=known().may_command, handle=lambda _: None))
    return made


@pytest.mark.parametrize(
    ("sender", "counts"),
    [("voter", True), ("learner", True), ("worker", False), ("removed", False), ("stranger", False)],
)
def test_whose_chunk_counts(wire: Wire, mesh: Mesh, sender: str, counts: bool) -> None:
    """Only that of a member that may hold the log: any other one's is not even kept, and is answered nothing."""
    chunks = sent(wire)
    said: list[tuple[str, Message]] = []
    told: list[Event] = []
    mesh._snapshots = Snapshots(Path("unused"), lambda to, message: said.append((to, message)), lambda: 0.0)
    mesh._snapshots.start(told.append)
    for chunk in chunks:
        mesh._heard(sender, 0, chunk)
    assert said == ([(sender, SnapshotWanted(INDEX, number + 1)) for number in range(len(chunks))] if counts else [])
    assert [type(one) for one in told] == ([SnapshotArrived] if counts else [])
    assert (mesh._snapshots._arriving, mesh._snapshots._whole is not None) == (None, counts)


@pytest.mark.parametrize("sender", ["voter", "learner", "worker", "removed", "stranger"])
def test_whoever_asks_for_a_chunk_is_sent_one_of_his_own_snapshot_only(database: Path, mesh: Mesh, sender: str) -> None:
    """The mesh asks nobody who he is for that: a snapshot is sent to members that hold the log, by the core's word."""
    said: list[tuple[str, Message]] = []
    mesh._snapshots = Snapshots(database, lambda to, message: said.append((to, message)), lambda: 0.0)
    mesh._snapshots.send("voter", TERM)
    said.clear()
    mesh._heard(sender, 0, SnapshotWanted(INDEX, 1))
    assert [to for to, _ in said] == (["voter"] if sender == "voter" else [])
    mesh._snapshots.close()
