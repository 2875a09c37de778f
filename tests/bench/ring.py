"""The ring in virtual time: the core's own membership machines, 10 to 1,000 of them, over a made-up network.

One agent goes away: its process is killed, so that its host closes its connections, or its machine loses power and says
nothing. How long until every other agent calls it failed, and how many beats does each agent send and hear?
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from plot import Line, Panel, drawn

from meshcron.core.membership import Membership, to_hear
from meshcron.core.timing import LAN
from meshcron.messages import Endpoint, Fence, Heartbeat, MemberInfo, Profile
from meshcron.model import SECOND_US

SIZES = (10, 30, 100, 300, 1000)
TRIALS = 7
VOTERS = 5
DELAY_US = (80, 500)
"""Of a message in a LAN, as in tests/simulation."""

CLOSED_US = (20_000, 60_000)
"""Until another agent has noticed that a connection was closed and cannot be made anew, as there, too."""

WARM_UP_US = 3 * SECOND_US
LIMIT_US = 30 * SECOND_US
Fault = Literal["killed", "cut"]


class Peer:
    """One agent: its membership machine, whom it hears, what it has sent and heard."""

    def __init__(self, info: MemberInfo, members: Iterable[MemberInfo], leader: str) -> None:
        self.info = info
        self.hears = to_hear(info.node_id, members, leader)
        self.membership = Membership(info.node_id, LAN)
        self.listeners: list[Peer] = []
        self.sent = 0
        self.heard = 0
        self.gone = False


class Ring:
    """So many agents whose voters are known, the first of which leads."""

    def __init__(self, size: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_us = SECOND_US
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        infos = [self._info(number) for number in range(size)]
        self.nodes = frozenset(info.node_id for info in infos)
        self.leader = infos[0].node_id
        self.peers = [Peer(info, infos, self.leader) for info in infos]
        for peer in self.peers:
            peer.listeners = [other for other in self.peers if peer.info.node_id in other.hears]
            peer.membership.start(self.now_us)
            self._later(self.random.randrange(LAN.beat_us), lambda peer=peer: self._beats(peer))  # type: ignore[misc]

    def _info(self, number: int) -> MemberInfo:
        return MemberInfo(
            node_id=f"{self.random.getrandbits(128):032x}",
            name=f"agent{number}",
            number=number + 1,
            public_key="",
            voter=number < VOTERS,
            priority=100,
            eligible=True,
        )

    def _later(self, delay_us: int, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now_us + delay_us, self._order, act))

    def run(self, until_us: int, over: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass until then; True as soon as it is over."""
        while self._queue and self._queue[0][0] <= until_us:
            self.now_us, _, act = heapq.heappop(self._queue)
            act()
            if over():
                return True
        self.now_us = until_us
        return False

    # what core/beats.py does with these machines

    def _beats(self, peer: Peer) -> None:
        if peer.gone:
            return
        self._later(LAN.beat_us, lambda: self._beats(peer))
        peer.membership.forgive_own_pause(self.now_us)
        if peer.info.node_id == self.leader:
            peer.membership.judge(self.nodes, SECOND_US, self.now_us)
        self._say(peer)

    def _say(self, peer: Peer) -> None:
        leads = peer.info.node_id == self.leader
        failed = tuple(sorted(peer.membership.failed)) if leads else ()
        beat = Heartbeat(
            profile=Profile(
                node_id=peer.info.node_id,
                name=peer.info.name,
                public_key="",
                endpoint=Endpoint("", 0, 0, 0),
                tags={},
                facts={},
                session=1,
                priority=100,
                eligible=True,
                version="",
            ),
            fence=Fence(),
            leader=self.leader,
            cluster_us=0,
            wall_us=0,
            running=0,
            applied_index=0,
            roster_index=0,
            suspects=peer.membership.suspects(peer.hears, self.now_us),
            failed=failed,
        )
        for other in peer.listeners:
            peer.sent += 1
            self._later(self.random.randrange(*DELAY_US), lambda other=other: self._hears(other, beat))  # type: ignore[misc]

    def _hears(self, peer: Peer, beat: Heartbeat) -> None:
        if peer.gone:
            return
        peer.heard += 1
        peer.membership.forgive_own_pause(self.now_us)
        peer.membership.heartbeat(beat, self.now_us)
        if beat.profile.node_id == self.leader and peer.info.node_id != self.leader:
            peer.membership.take_verdict(beat.failed)

    def _told(self, peer: Peer, gone: str) -> None:
        peer.membership.gone(gone)
        if peer.info.node_id == self.leader and peer.membership.judge(self.nodes, SECOND_US, self.now_us):
            self._say(peer)

    # the fault

    def lose(self, fault: Fault) -> float:
        """Take one agent away that does not lead; seconds until all others call it failed."""
        victim = self.random.choice(self.peers[1:])
        victim.gone, began_us = True, self.now_us
        if fault == "killed":
            for other in victim.listeners:
                delay_us = self.random.randrange(*CLOSED_US)
                self._later(delay_us, lambda other=other: self._told(other, victim.info.node_id))  # type: ignore[misc]
        others = [peer for peer in self.peers if peer is not victim]

        def agree() -> bool:
            while others and victim.info.node_id in others[-1].membership.failed:
                others.pop()
            return not others

        if not self.run(self.now_us + LIMIT_US, agree):
            raise RuntimeError(f"{len(others)} of {len(self.peers)} agents never agreed")
        return (self.now_us - began_us) / SECOND_US


@dataclass(frozen=True)
class Row:
    """What one size came to."""

    size: int
    killed: list[float]
    cut: list[float]
    worker: tuple[float, float]
    voter: tuple[float, float]
    """Beats sent and heard a second by each agent without a vote, and by each voter."""


def measured(size: int) -> Row:
    """Some trials of each fault, each with a ring of its own; the beats are those before the fault."""
    took: dict[Fault, list[float]] = {"killed": [], "cut": []}
    beats: list[tuple[float, float]] = []
    for fault, times in took.items():
        for trial in range(TRIALS):
            ring = Ring(size, trial)
            ring.run(ring.now_us + WARM_UP_US + ring.random.randrange(LAN.beat_us))
            seconds = (ring.now_us - SECOND_US) / SECOND_US
            beats = [(peer.sent / seconds, peer.heard / seconds) for peer in ring.peers]
            times.append(ring.lose(fault))
    return Row(size, took["killed"], took["cut"], _mean(beats[VOTERS:]), _mean(beats[:VOTERS]))


def _mean(beats: list[tuple[float, float]]) -> tuple[float, float]:
    sent, heard = zip(*beats, strict=True)
    return statistics.mean(sent), statistics.mean(heard)


def table(rows: Iterable[Row]) -> Iterator[str]:
    """In Markdown."""
    yield "| agents | killed: p50 / worst | power lost: p50 / worst | beats sent, heard a second | a voter's |"
    yield "| ---: | ---: | ---: | ---: | ---: |"
    for row in rows:
        killed, cut = (f"{statistics.median(some):.2f} / {max(some):.2f} s" for some in (row.killed, row.cut))
        beats = " | ".join(f"{sent:,.0f}, {heard:,.0f}" for sent, heard in (row.worker, row.voter))
        yield f"| {row.size:,} | {killed} | {cut} | {beats} |"


def plot(path: Path) -> str:
    """Write the plot; returns its table."""
    rows = [measured(size) for size in SIZES]

    def line(name: str, value: Callable[[Row], float]) -> Line:
        return Line(name, [(row.size, value(row)) for row in rows])

    times = Panel(
        "seconds until all agree that an agent failed",
        [line("its machine lost power", lambda row: max(row.cut)), line("it was killed", lambda row: max(row.killed))],
        (0, 0.5, 1, 1.5, 2, 2.5),
        logarithmic=False,
    )
    beats = Panel(
        "beats an agent hears in a second",
        [line("a voter", lambda row: row.voter[1]), line("any other", lambda row: row.worker[1])],
        (10, 100, 1000, 10_000),
        logarithmic=True,
    )
    path.write_text(drawn([times, beats], SIZES, "agents"))
    return "\n".join(table(rows))
