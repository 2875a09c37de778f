"""Whether a survivor may go on alone: what it holds itself, and what the others say at their gates (PROTOCOL 2).

Offline: its own agent is stopped, so nobody but us speaks in its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from msgspec import Struct

from meshcron.core.ledger import Ledger
from meshcron.core.settings import NOWHERE
from meshcron.core.state import State
from meshcron.core.timing import LAN
from meshcron.messages import GateMessage, Hello, Profile, Refused, Welcome, generation_number, next_generation
from meshcron.net.gate import Gate
from meshcron.net.interfaces import interface_addresses
from meshcron.net.keys import GATE, GATE_CLIENT, ClusterKey
from meshcron.rows import Loaded
from meshcron.vocabulary import VOCABULARY

LOOK_SECONDS = 3.0
"""So long mDNS is listened to: agents answer within a second. A gate that is known has two seconds more."""


class Held(Struct, frozen=True):
    """What the survivor's disk holds."""

    node_id: str
    cluster: str
    generation: int
    voters: frozenset[str]
    last: tuple[int, int]
    """Term and index of the log's last entry."""
    names: dict[str, str]
    """Of the members, by node id."""

    @property
    def next_generation(self) -> int:
        """The one that its recovery opens."""
        return next_generation(self.generation, self.node_id)


def held(loaded: Loaded, node_id: str) -> Held:
    """Read it as the agent would."""
    state = State.load(loaded)
    ledger = Ledger(
        node_id, LAN, loaded, state.applied, priority_of=lambda _: 0, mark_cluster_us=lambda: loaded.mark.cluster_us
    )
    return Held(
        node_id,
        state.cluster,
        max(state.generation, loaded.mark.generation),
        ledger.voters,
        (ledger.last_term, ledger.last_index),
        {one.node_id: one.name for one in state.members.values()},
    )


def why_not(ours: Held, answers: Iterable[GateMessage]) -> str:
    """Why it must not go on alone, with the remedy; "" = it may."""
    if not ours.cluster or not ours.last[1]:
        return "this agent holds no copy of the cluster's log: recover an agent that does (`voter = auto`)"
    if ours.voters == {ours.node_id}:
        return 'this agent is the only voter of its cluster: there is nothing to recover, start it with "meshcron up"'
    present = {ours.node_id}
    for answer in answers:
        if isinstance(answer, Refused):
            return f"a member refuses this agent: {answer.why}"
        if isinstance(answer, Welcome) and answer.cluster == ours.cluster:
            if why := _why_not_beside(ours, answer):
                return why
            present.add(answer.profile.node_id)
    voting = present & ours.voters
    if 2 * len(voting) > len(ours.voters):
        return f'{len(voting)} of {len(ours.voters)} voters are there: start this agent with "meshcron up", they elect'
    return ""


def _why_not_beside(ours: Held, other: Welcome) -> str:
    name = other.profile.name
    if other.generation > ours.generation:
        number = generation_number(other.generation)
        return f'{name} says that the cluster was recovered (generation {number}): start this agent with "meshcron up"'
    if other.leader:
        leader = next((one.name for one in other.members if one.node_id == other.leader), other.leader)
        return f'{name} says that {leader} leads: nothing is lost, start this agent with "meshcron up"'
    if (other.last_term, other.last_index) > ours.last:
        mine, theirs = ours.last[1], other.last_index
        return f"{name} holds a newer log (entry {theirs}, here {mine}): stop it and run `meshcron recover` there"
    return ""


class Inquiry:
    """Knocks at every gate that is named, announced, or told of by those that answer."""

    def __init__(self, ours: Held, public_key: str, session: int, key: ClusterKey) -> None:
        self._ours = ours
        self._fingerprint = key.fingerprint
        name = ours.names.get(ours.node_id, "")
        profile = Profile(
            node_id=ours.node_id,
            name=name,
            public_key=public_key,
            endpoint=NOWHERE,
            tags={},
            facts={},
            session=session,
            protocol=VOCABULARY.protocol,
        )
        self._hello = Hello(profile, ours.cluster, ours.generation, virgin=False)
        self._gate = Gate(
            key=None,
            pair=key.curve_pair(GATE_CLIENT),
            bind="",
            port=0,
            knocked=lambda _: None,
            gate_key=key.curve_pair(GATE).public,
        )
        self._places: list[tuple[str, int]] = []
        self._answers: list[GateMessage] = []

    async def ask(self, join: Iterable[tuple[str, int]], interfaces: tuple[str, ...] | None) -> list[GateMessage]:
        """Every answer. `interfaces`: where mDNS is listened to, as configured; None = it is not."""
        self._gate.start()
        try:
            for host, port in join:
                self._learn(host, port)
            if interfaces is not None:
                await self._look(interfaces)
            asked = 0
            while new := self._places[asked:]:
                asked = len(self._places)
                await asyncio.gather(*(self._knock(host, port) for host, port in new))
        finally:
            await self._gate.close()
        return self._answers

    async def _look(self, interfaces: tuple[str, ...]) -> None:
        from meshcron.net.discovery import Discovery  # noqa: PLC0415 - every start would pay 5 MiB for it

        discovery = Discovery(
            fingerprint=self._fingerprint,
            node_id=self._ours.node_id,
            session=0,
            gate_port=0,
            addresses=interface_addresses(interfaces),
            found=lambda _, host, port: self._learn(host, port),
        )
        await discovery.start()
        await asyncio.sleep(LOOK_SECONDS)
        await discovery.close()

    def _learn(self, host: str, port: int) -> None:
        if port and (host, port) not in self._places:
            self._places.append((host, port))

    async def _knock(self, host: str, port: int) -> None:
        answer = await self._gate.knock(host, port, self._hello)
        if answer is None:
            return
        self._answers.append(answer)
        for one in answer.members if isinstance(answer, Welcome) else ():
            if one.endpoint is not None and one.node_id != self._ours.node_id:
                self._learn(one.endpoint.host, one.endpoint.gate_port)
