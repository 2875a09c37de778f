"""The agent's place in the network: effects become messages, messages become events.

What the core does not care about stays here: snapshots on their way, and calls that another agent answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog
from msgspec import Struct

from meshcron.core.beats import HEARTBEATS
from meshcron.core.dispatch import ALL, tag_topic
from meshcron.core.effects import Connect, InstallSnapshot, Knock, SendSnapshot
from meshcron.core.events import (
    EndpointChanged,
    Event,
    Found,
    HigherGeneration,
    KnockAnswered,
    MessageReceived,
    PeerGone,
)
from meshcron.messages import (
    Call,
    Endpoint,
    GateMessage,
    Heartbeat,
    Hello,
    MemberInfo,
    Message,
    Reply,
    SnapshotChunk,
    SnapshotWanted,
)
from meshcron.net.codec import Malformed
from meshcron.net.curve import LAN, SLOW
from meshcron.net.gate import Gate
from meshcron.net.interfaces import interface_addresses
from meshcron.net.keys import ClusterKey, CurvePair
from meshcron.net.link import Peer
from meshcron.net.transport import Transport
from meshcron.runtime import clock
from meshcron.runtime.calls import Calls, Serve
from meshcron.runtime.snapshots import Snapshots
from meshcron.runtime.tasks import Tasks
from meshcron.store.log import LogBase
from meshcron.store.snapshot import Chunk
from meshcron.values import Address

ANYWHERE = frozenset({"0.0.0.0", "::"})

KNOCKS_MAX = 8
"""Knocks under way at once: each has three descriptors, and a dead address takes two seconds."""

REMIND_SECONDS = 900.0
"""How often the core hears again of what is announced: it forgets an address that has been silent for an hour."""

LOOK_SECONDS = 2.0
"""How often this machine's addresses are looked at: a few microseconds of work."""

if TYPE_CHECKING:
    from meshcron.net.discovery import Discovery

log = structlog.get_logger("meshcron")


class Place(Struct, frozen=True, kw_only=True):
    """Where an agent listens and looks, as configured."""

    bind: str
    advertise: str
    gate_port: int
    mesh_port: int
    pub_port: int
    join: tuple[Address, ...]
    mdns: bool
    mdns_interfaces: tuple[str, ...]
    slow_links: bool


class Core(Protocol):
    """What the network needs of the driver."""

    def handle(self, event: Event) -> None: ...
    def knocked(self, hello: Hello) -> GateMessage: ...
    def may_command(self, node_id: str) -> bool: ...


Install = Callable[[int, LogBase, Sequence[Chunk]], None]
"""The writer's: a snapshot takes the place of catalog and log."""


class Mesh:
    """Between the core and the sockets, on the loop's thread."""

    def __init__(
        self,
        place: Place,
        key: ClusterKey,
        pair: CurvePair,
        *,
        node_id: str,
        session: int,
        database: Path,
        install: Install,
        serve: Serve,
    ) -> None:
        self._place = place
        self._install = install
        self._node_id = node_id
        self._session = session
        self._fingerprint = key.fingerprint
        self._tasks = Tasks()
        self._core: Core
        self._knocking: set[tuple[str, int]] = set()
        self._to_knock: dict[tuple[str, int], Knock] = {}
        """What waits until fewer are under way; the last comes first: what the core still wants it asks for again."""
        self._addresses = interface_addresses(place.mdns_interfaces)
        self._host = self._own_address()
        patience = SLOW if place.slow_links else LAN
        self._transport = Transport(
            pair=pair,
            bind=place.bind,
            mesh_port=place.mesh_port,
            pub_port=place.pub_port,
            heard=self._heard,
            gone=self._gone,
            clock=clock.monotonic_seconds,
            patience=patience,
        )
        self._gate = Gate(
            key=key,
            pair=pair,
            bind=place.bind,
            port=place.gate_port,
            knocked=self._knocked,
            patience=patience,
        )
        self._discovery: Discovery | None = None
        self._generation = 0
        self._snapshots = Snapshots(database, self.send, clock.monotonic_seconds)
        self.calls = Calls(self.send, serve, self._tasks, session=session)

    # life

    def open(self) -> Endpoint:
        """Bind the three ports; nobody is let in yet. Raises StartRefused naming the port."""
        self._transport.start()
        self._gate.start()
        return self._endpoint()

    def _endpoint(self) -> Endpoint:
        return Endpoint(self._host, self._gate.port, self._transport.mesh_port, self._transport.pub_port)

    def _own_address(self) -> str:
        """Where others reach this machine, as far as it can tell by itself."""
        if self._place.advertise:
            return self._place.advertise
        if self._place.bind not in ANYWHERE:
            return self._place.bind
        return next(iter(self._addresses), "127.0.0.1")

    def start(self, core: Core, tags: dict[str, str]) -> None:
        """From now on events go to the core; look for others."""
        self._core = core
        self._snapshots.start(core.handle)
        self.listen_to(tags)
        for address in self._place.join:
            core.handle(Found(address.host, address.port, joined=True))
        self._tasks.start("snapshots", self._snapshots.watch())
        if self._place.mdns:
            from meshcron.net.discovery import Discovery  # noqa: PLC0415 - zeroconf takes 5 MiB where nobody needs it

            self._discovery = Discovery(
                fingerprint=self._fingerprint,
                node_id=self._node_id,
                session=self._session,
                gate_port=self._gate.port,
                addresses=self._addresses,
                found=lambda node_id, host, port: core.handle(Found(host, port, node_id)),
            )
            self._tasks.start("discovery", self._discovery.start())
            self._tasks.start("announced", self._remind(self._discovery))
        self._tasks.start("addresses", self._watch_addresses())

    async def _remind(self, discovery: Discovery) -> None:
        """For as long as the agent runs."""
        while True:
            await asyncio.sleep(REMIND_SECONDS)
            discovery.tell_again()

    async def _watch_addresses(self) -> None:
        """For as long as the agent runs: a machine may get its address after the agent's start, or another one. One
        without any has pulled its cable, and may have the same when it is back."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                addresses = interface_addresses(self._place.mdns_interfaces)
            except OSError:  # no descriptor left to ask with
                continue
            if not addresses:
                continue
            if addresses != self._addresses:
                self._move(addresses)
            if self._discovery is not None:
                await self._discovery.move(addresses)

    def _move(self, addresses: list[str]) -> None:
        log.info("this machine has other addresses", before=self._addresses, now=addresses)
        self._addresses = addresses
        if self._own_address() != self._host:
            self._host = self._own_address()
            self._core.handle(EndpointChanged(self._endpoint()))

    async def close(self) -> None:
        """Say goodbye, hang up."""
        await self._tasks.close()
        if self._discovery is not None:
            await self._discovery.close()
        self._snapshots.close()
        await self._gate.close()
        await self._transport.close()

    def listen_to(self, tags: dict[str, str]) -> None:
        """The topics of an agent with these tags."""
        topics = {HEARTBEATS, ALL, *(tag_topic(key, value) for key, value in tags.items())}
        self._transport.subscribe(frozenset(topics))

    def refused(self) -> dict[tuple[str, str], int]:
        """How often somebody was not let in since the start, or we were not: (where, why) -> times."""
        gate, mesh = self._gate.counters, self._transport.counters
        return {
            ("gate", "handshake"): gate.refused,
            ("gate", "malformed"): gate.malformed,
            ("gate", "uninvited"): gate.uninvited,
            ("gate", "flooded"): gate.shut,
            ("mesh", "handshake"): mesh.refused,
            ("mesh", "malformed"): mesh.malformed,
            ("mesh", "foreign_cluster"): mesh.foreign,
            ("mesh", "uninvited"): mesh.uninvited,
            ("own_knock", "another_key"): gate.another_key,
        }

    # effects out

    def connect(self, effect: Connect) -> None:
        """Who the members are, and whom to dial."""
        self._generation = effect.generation
        self._transport.enter(effect.cluster, effect.generation)
        self._transport.set_peers(_peer(one, dialled=one.node_id in effect.dial) for one in effect.members)
        self._gate.set_members(one.public_key for one in effect.members)

    def led_by(self, node_id: str) -> None:
        """Whom this agent now takes for the leader."""
        self.calls.led_by(node_id)

    def send(self, to: str, message: Message) -> None:
        """To one member; dropped where it is not connected, the protocol repeats."""
        try:
            self._transport.send(to, message)
        except Malformed:
            log.exception("a message cannot be sent", kind=type(message).__name__)

    def publish(self, topic: str, message: Message) -> None:
        """To all that listen."""
        try:
            self._transport.publish(topic, message)
        except Malformed:
            log.exception("a message cannot be published", kind=type(message).__name__)

    def send_snapshot(self, effect: SendSnapshot) -> None:
        """The catalog as it stands on our disk."""
        self._snapshots.send(effect.to, effect.term)

    def install_snapshot(self, effect: InstallSnapshot) -> None:
        """The one that just arrived takes the place of catalog and log."""
        self._install(effect.n, LogBase(effect.index, effect.term, effect.crc), self._snapshots.take())

    def knock(self, effect: Knock) -> None:
        """Say Hello at a gate, unless we stand there already."""
        where = effect.host, effect.port
        if where not in self._knocking:
            self._to_knock.pop(where, None)
            self._to_knock[where] = effect
            self._knock_some()

    def _knock_some(self) -> None:
        while self._to_knock and len(self._knocking) < KNOCKS_MAX:
            where, effect = self._to_knock.popitem()
            self._knocking.add(where)
            self._tasks.start(f"knock at {effect.host}:{effect.port}", self._knock(effect))

    async def _knock(self, effect: Knock) -> None:
        try:
            answer = await self._gate.knock(effect.host, effect.port, effect.hello)
        finally:
            self._knocking.discard((effect.host, effect.port))
        self._knock_some()
        if answer is not None:
            self._core.handle(KnockAnswered(effect.host, effect.port, answer))

    # messages in

    def _gone(self, node_id: str) -> None:
        self.calls.gone(node_id)
        self._core.handle(PeerGone(node_id))

    def _knocked(self, hello: Hello) -> GateMessage:
        return self._core.knocked(hello)

    def _heard(self, sender: str, generation: int, message: Message) -> None:
        if generation != self._generation:
            if generation > self._generation:
                self._core.handle(HigherGeneration(sender, generation))
            return  # an outlived cluster's words count for nothing, and we do not speak for a newer one
        match message:
            case Call():
                self.calls.asked(sender, message)
            case Reply():
                self.calls.answered(sender, message)
            case SnapshotChunk():
                if self._core.may_command(sender):
                    self._snapshots.chunk(sender, message)
            case SnapshotWanted():
                self._snapshots.wanted(sender, message)
            case _:
                if isinstance(message, Heartbeat):
                    self.calls.met(sender, message.profile.session)
                self._core.handle(MessageReceived(sender, message))


def _peer(member: MemberInfo, *, dialled: bool) -> Peer:
    endpoint = member.endpoint
    if endpoint is None or not dialled:
        return Peer(member.node_id, member.public_key)
    return Peer(member.node_id, member.public_key, endpoint.host, endpoint.mesh_port, endpoint.pub_port)
