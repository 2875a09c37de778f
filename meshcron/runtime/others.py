"""Whether the cluster goes on without this agent, when its database cannot tell who the others are (PROTOCOL 2).

While the agent runs it keeps a note of where the other voters are reached. A start that finds the database damaged or
rolled back asks them: one that is led, by a majority without this agent, needs nothing of what lies here. Where nobody
says so, as after a power cut that damaged all disks alike, an operator has to choose what to go on from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from meshcron.core.agent import Agent
from meshcron.messages import GateMessage, MemberInfo, Welcome
from meshcron.net.keys import ClusterKey
from meshcron.runtime.credentials import write_private
from meshcron.runtime.recovery import LOOK_SECONDS, Held, Inquiry
from meshcron.store.directory import Identity

OTHERS_FILE = "others"
"""The note. It may be old: it says whom to ask, not what is so."""

NOTE_SECONDS = 2.0
"""How often what is noted is compared with what is so; hardly ever has it changed."""

ROUNDS = 3
"""Others that start in the same moment have a leader by then."""


class Others(Struct, frozen=True):
    """What the note says."""

    cluster: str
    gates: tuple[tuple[str, int], ...]
    """Host and port, of those that vote besides this agent."""


def noted(folder: Path) -> Others | None:
    """The note; None where there is none, or it is garbled. Raises OSError."""
    try:
        return msgspec.json.decode((folder / OTHERS_FILE).read_bytes(), type=Others)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def others_of(cluster: str, node_id: str, members: Sequence[MemberInfo], before: Others | None) -> Others | None:
    """What is to be noted after `before`; None where nobody else votes. One not heard since the start may be where it
    was."""
    if not cluster or not members:
        return before
    places = [one.endpoint for one in members if one.voter and one.node_id != node_id]
    gates = {(place.host, place.gate_port) for place in places if place is not None}
    if None in places and before is not None and before.cluster == cluster:
        gates.update(before.gates)
    return Others(cluster, tuple(sorted(gates))) if gates else None


async def keep_noted(folder: Path, agent: Agent, node_id: str) -> None:
    """For as long as the agent runs."""
    written = noted(folder)
    while True:
        found = others_of(agent.cluster, node_id, agent.roster(), written)
        if found != written:
            with suppress(OSError):  # a full disk is told of elsewhere
                await asyncio.to_thread(_write, folder, found)
                written = found
        await asyncio.sleep(NOTE_SECONDS)


def _write(folder: Path, found: Others | None) -> None:
    if found is None:
        (folder / OTHERS_FILE).unlink(missing_ok=True)
    else:
        write_private(folder / OTHERS_FILE, msgspec.json.encode(found).decode() + "\n")


async def leader_without(
    known: Others, us: Identity, key: ClusterKey, join: Sequence[tuple[str, int]], interfaces: tuple[str, ...] | None
) -> str:
    """The name of the member that leads the cluster without us; "" = nobody who was reached says so. `interfaces`:
    where mDNS is listened to; None = it is not."""
    ours = Held(us.node_id, known.cluster, 0, frozenset(), (0, 0), {})
    for _ in range(ROUNDS):
        if interfaces is None:
            await asyncio.sleep(LOOK_SECONDS)  # whom we were a follower of, or led, may take a moment to notice
        answers = await Inquiry(ours, us.public_key, 0, key).ask([*known.gates, *join], interfaces)
        for answer in answers:
            if leader := leads_without(us.node_id, known.cluster, answer):
                return leader
    return ""


def leads_without(node_id: str, cluster: str, answer: GateMessage) -> str:
    """Whom the answerer takes for the leader, where that one has a majority without `node_id`; else ""."""
    if not isinstance(answer, Welcome) or answer.cluster != cluster:
        return ""
    voters = {one.node_id: one.name for one in answer.members if one.voter}
    others = voters.keys() - {node_id}
    if answer.leader not in others or 2 * len(others) <= len(voters):
        return ""
    return voters[answer.leader]
