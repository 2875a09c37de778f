"""Elections, replication and rosters told in small text files (data/*.txt): commands, and what is expected after them.

Only term, vote and log are there (meshcron/core/ledger.py), so that every message can be held, lost or repeated by
name. Time stands still but for `wait`. One command a line, `#` begins a comment:

    voters a b c [/ d]     these vote; behind the slash: who only holds the log (first line)
    priority a 200         rank is (priority, name); 100 where nothing is said
    log a 1 1 2            what lies on a disk at the start: terms of its entries (`all` = everybody's)
    campaign a             its timer is over: it asks, and stands if it may
    wait 800               so many milliseconds pass: timers, idle appends, leases
    propose a              the leader appends an entry
    roster a b c           the leader (the first name) proposes the rest as voters, if who votes may change now
    hand a b               a asks b to stand in its place
    gone a b               a has evidence that b's process is gone
    cut a b | cut a        nothing passes between the two, or to and from one
    lose KIND a b          messages of that kind from a to b are lost (`prevote`, `vote`, `append`, ...)
    mute a                 what a says of its own accord is lost; it answers still
    heal                   all of this is over
    hold [a b]             messages (from a to b) wait from now on for `deliver a b` (the oldest) or `drop a b`
    repeat a b             the oldest message from a to b arrives, and stays
    release                the held messages arrive, and no more are held
    slow a | sync a        its disk takes for ever | is done with what it was given
    crash a | start a      what was not durable is gone
    batch 1                an append carries one entry
    expect a leader term=2 log=1,2 commit=2 vote=a leader=a voters=a,b,c
    nobody leads           no node takes itself for the leader
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from meshcron import entries
from meshcron.chain import CHAIN_START, chain
from meshcron.core import effects, replication
from meshcron.core.ledger import Ledger, LedgerMessage
from meshcron.core.timing import LAN, MS
from meshcron.core.turn import Turn
from meshcron.messages import Vote, VoteReply
from meshcron.model import Instant, Member
from meshcron.rows import LogRow, Row
from tests.simulation.world import Disk

DATA = Path(__file__).parent / "data"
SCRIPTS = sorted(path.stem for path in DATA.glob("*.txt"))
STEPS_MOST = 20_000
"""A script that needs more messages than that talks in circles."""

ROSTER = ("voters", "priority", "log", "batch")
"""Commands that set the scene before anybody starts."""


class Node:
    """One ledger with its disk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.disk = Disk()
        self.ledger: Ledger | None = None
        self.persists = self.durable = 0
        self.pending: deque[tuple[int, tuple[Row, ...]]] = deque()
        self.held: list[effects.Send] = []
        self.slow = False


class Bench:
    """All of them, and the messages between them."""

    def __init__(self) -> None:
        self.now_us = 10**9
        self.nodes: dict[str, Node] = {}
        self.voters: tuple[str, ...] = ()
        self.priorities: dict[str, int] = {}
        self.net: deque[tuple[str, str, LedgerMessage]] = deque()
        self.holding = False
        self.holds: set[tuple[str, str]] = set()
        self.cuts: set[tuple[str, str]] = set()
        self.losses: set[tuple[str, str, str]] = set()
        self.mute: set[str] = set()
        self.leaders: dict[int, str] = {}
        self.votes: dict[tuple[str, int], str] = {}
        self.committed: dict[int, int] = {}
        self.batch = 0

    # turns

    def start(self, node: Node) -> None:
        loaded = node.disk.load()
        for number, name in enumerate(sorted(self.nodes), start=1):
            loaded.members.append(Member(node_id=name, name=name, number=number, voter=name in self.voters))
        node.persists = node.durable = 0
        node.pending.clear()
        node.held.clear()
        node.ledger = Ledger(
            node.name,
            LAN,
            loaded,
            (0, 0, CHAIN_START),
            priority_of=lambda name: self.priorities.get(name, 100),
            mark_cluster_us=lambda: 0,
        )
        self.turn(node, node.ledger.start)

    def turn(self, node: Node, act: Callable[[Turn], object]) -> None:
        ledger = node.ledger
        if ledger is None:
            return
        turn = Turn(Instant(self.now_us, self.now_us))
        ledger.check_lease(turn)
        act(turn)
        if ledger.won() is not None:
            ledger.lead(turn)
            ledger.propose(entries.Noop(ledger.term, 0, 0), turn)
        self.look(node)
        while ledger.has_committed():
            ledger.take_committed()
        ledger.send(turn, frozenset(self.nodes), 0)
        node.persists, wanted = turn.close(node.persists)
        ledger.turn_closed(node.persists, self.now_us)
        for effect in wanted:
            if isinstance(effect, effects.Persist):
                node.pending.append((effect.n, effect.rows))
            elif isinstance(effect, effects.Send):
                if effect.after > node.durable:
                    node.held.append(effect)
                else:
                    self.send(node, effect)

    def sync(self, node: Node) -> None:
        while node.pending and node.ledger is not None:
            node.durable, rows = node.pending.popleft()
            node.disk.write(rows)
            ready = [one for one in node.held if one.after <= node.durable]
            node.held = [one for one in node.held if one.after > node.durable]
            for one in ready:
                self.send(node, one)
            self.turn(node, partial(_persisted, node.ledger, node.durable))

    def flush(self) -> None:
        """Until nothing moves any more."""
        for _ in range(STEPS_MOST):
            busy = [node for node in self.nodes.values() if node.pending and not node.slow and node.ledger]
            if busy:
                self.sync(busy[0])
            else:
                free = next((one for one in self.net if not self.holding and one[:2] not in self.holds), None)
                if free is None:
                    return
                self.net.remove(free)
                self.arrive(*free)
        raise AssertionError("it never ends")

    # messages

    def send(self, node: Node, effect: effects.Send) -> None:
        link, message = (node.name, effect.to), effect.message
        if isinstance(message, Vote):
            self.vote(node, message.term, node.name)
        elif isinstance(message, VoteReply) and message.granted:
            self.vote(node, message.term, effect.to)
        kind = type(message).__name__.lower()
        muted = node.name in self.mute and kind in ("prevote", "vote", "append")
        if link not in self.cuts and (kind, *link) not in self.losses and not muted:
            self.net.append((*link, message))  # type: ignore[arg-type]

    def arrive(self, source: str, target: str, message: LedgerMessage) -> None:
        node = self.nodes[target]
        self.turn(node, lambda turn: node.ledger and node.ledger.message(source, message, turn))

    def oldest(self, source: str, target: str) -> tuple[str, str, LedgerMessage]:
        found = next((one for one in self.net if one[:2] == (source, target)), None)
        assert found is not None, f"nothing is on its way from {source} to {target}: {list(self.net)}"
        return found

    # what must always hold

    def vote(self, node: Node, term: int, to: str) -> None:
        voted = self.votes.setdefault((node.name, term), to)
        assert voted == to, f"2: {node.name} votes for {voted} and {to} in term {term}"

    def look(self, node: Node) -> None:
        ledger = node.ledger
        assert ledger is not None
        if ledger.leads:
            first = self.leaders.setdefault(ledger.term, node.name)
            assert first == node.name, f"1: {first} and {node.name} lead in term {ledger.term}"
        log = ledger._voter.log
        for index in range(1, ledger.commit_index + 1):
            term = log.term_at(index)
            assert term is not None
            if index not in self.committed and ledger.leads:
                holders = [one for one in ledger.voters if self.has(one, index, term)]
                assert 2 * len(holders) > len(ledger.voters), f"4: {index} is committed, and only on {holders}"
            known = self.committed.setdefault(index, term)
            assert known == term, f"4: entry {index} is committed with term {known} and with {term}"

    def has(self, name: str, index: int, term: int) -> bool:
        row = self.nodes[name].disk.log.get(index) if name in self.nodes else None
        return row is not None and row.term == term

    # commands

    def do(self, words: list[str]) -> None:
        verb, names = words[0], words[1:]
        match verb:
            case "voters":
                self.voters = tuple(names[: names.index("/")] if "/" in names else names)
                self.nodes = {name: Node(name) for name in names if name != "/"}
            case "priority":
                self.priorities[names[0]] = int(names[1])
            case "log":
                for node in self.nodes.values() if names[0] == "all" else [self.nodes[names[0]]]:
                    node.disk.write(_rows(tuple(int(term) for term in names[1:])))
            case "batch":
                self.batch = int(names[0])
            case "wait":
                self.wait(int(names[0]) * MS)
            case "nobody":
                leading = [node.name for node in self.nodes.values() if node.ledger and node.ledger.leads]
                assert not leading, f"{leading} lead"
            case "expect":
                self.expect(self.nodes[names[0]], names[1:])
            case "cut" | "heal" | "lose" | "mute" | "hold" | "release" | "deliver" | "repeat" | "drop":
                self.network(verb, names)
            case _:
                self.machine(verb, self.nodes[names[0]], names[1:])

    def network(self, verb: str, names: list[str]) -> None:
        match verb:
            case "cut":
                others = names[1:] or [name for name in self.nodes if name != names[0]]
                self.cuts |= {pair for other in others for pair in ((names[0], other), (other, names[0]))}
            case "lose":
                self.losses.add((names[0], names[1], names[2]))
            case "mute":
                self.mute.add(names[0])
            case "heal":
                self.cuts.clear()
                self.losses.clear()
                self.mute.clear()
            case "hold" if names:
                self.holds.add((names[0], names[1]))
            case "hold" | "release":
                self.holding = verb == "hold"
                self.holds.clear()
            case _:
                one = self.oldest(names[0], names[1])
                if verb != "repeat":
                    self.net.remove(one)
                if verb != "drop":
                    self.arrive(*one)

    def machine(self, verb: str, node: Node, names: list[str]) -> None:
        ledger = node.ledger
        match verb:
            case "start":
                self.start(node)
            case "crash":
                node.ledger = None
            case "slow":
                node.slow = True
            case "sync":
                node.slow = False
            case "campaign" if ledger is not None:
                ledger._election._due_boot_us = self.now_us
                self.turn(node, ledger.woke)
            case "propose" if ledger is not None:
                self.turn(node, lambda turn: ledger.propose(entries.Noop(0, len(self.committed), 1), turn))
            case "roster" if ledger is not None:
                if ledger.roster_may_change():
                    self.turn(node, lambda turn: ledger.propose(entries.Roster(tuple(names)), turn))
            case "hand" if ledger is not None:
                self.turn(node, lambda turn: ledger.hand_over(names[0], turn))
            case "gone" if ledger is not None:
                self.turn(node, lambda turn: ledger.gone(names[0], turn))
            case _:
                raise AssertionError(f"no such command, or its node is down: {verb} {node.name}")

    def wait(self, us: int) -> None:
        until_us = self.now_us + us
        for _ in range(STEPS_MOST):
            running = [node for node in self.nodes.values() if node.ledger]
            wakes = [(wake, node) for node in running if (wake := _wake(node, self.now_us)) is not None]
            wake_us, node = min(wakes, key=lambda one: (one[0], one[1].name), default=(until_us + 1, Node("")))
            if wake_us > until_us:
                self.now_us = until_us
                return
            self.now_us = max(self.now_us, wake_us) + 20  # a turn takes time
            self.turn(node, lambda turn, node=node: node.ledger and node.ledger.woke(turn))  # type: ignore[misc]
            self.flush()
        raise AssertionError("time stands still")

    def expect(self, node: Node, wanted: list[str]) -> None:
        assert node.ledger is not None, f"{node.name} is down"
        voter = node.ledger._voter
        log = ",".join(str(voter.log.term_at(index)) for index in range(1, voter.log.last_index + 1))
        found = {
            "term": str(voter.term),
            "vote": voter.voted_for or "-",
            "leader": voter.leader or "-",
            "log": log or "-",
            "commit": str(voter.commit_index),
            "voters": ",".join(sorted(voter.voters)),
        }
        for word in wanted:
            what, _, value = word.partition("=")
            is_so = found[what] if value else voter.role
            assert is_so == (value or what), f"{node.name}: {word} expected, {is_so} found ({voter.role} {found})"


def _persisted(ledger: Ledger, n: int, turn: Turn) -> None:
    ledger.persisted(n, turn.now.boot_us)


def _wake(node: Node, now_us: int) -> int | None:
    return node.ledger.next_wakeup(now_us) if node.ledger else None


def _rows(terms: tuple[int, ...]) -> tuple[LogRow, ...]:
    crc, found = CHAIN_START, []
    for index, term in enumerate(terms, start=1):
        body = entries.encode(entries.Noop(term, index, 0))
        crc = chain(crc, index, term, body)
        found.append(LogRow(index, term, crc, body))
    return tuple(found)


def tell(name: str) -> None:
    """Run a script; AssertionError names the line that does not come true."""
    bench, began = Bench(), False
    with pytest.MonkeyPatch.context() as patch:
        for number, line in enumerate((DATA / f"{name}.txt").read_text().splitlines(), start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            try:
                if words[0] not in ROSTER and not began:
                    began = True
                    if bench.batch:
                        patch.setattr(replication, "APPEND_BYTES", bench.batch)
                    for node in bench.nodes.values():
                        bench.start(node)
                    bench.flush()
                bench.do(words)
                bench.flush()
            except AssertionError as failure:
                raise AssertionError(f"{name}.txt:{number}: {line.strip()}: {failure}") from failure


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_comes_true(name: str) -> None:
    """Each file in data/ is a story with its own first line as the title."""
    tell(name)


def test_there_are_scripts() -> None:
    """A folder that is not found would pass in silence."""
    assert len(SCRIPTS) >= 12
