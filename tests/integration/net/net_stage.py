"""Transports on 127.0.0.1 that record what they hear, and how a test waits for something."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, get_origin, get_type_hints

import zmq
from msgspec import Struct
from msgspec.structs import fields

from meshcron.messages import Append, Fence, Heartbeat, Message, Run
from meshcron.net.curve import DOMAIN
from meshcron.net.keys import CurvePair, new_curve_pair
from meshcron.net.transport import Peer, Transport

HOST = "127.0.0.1"
CLUSTER = "c" * 32
DEADLINE_SECONDS = 20.0


async def until(condition: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> float:
    """Wait until a condition is true, looking each millisecond; returns the seconds it took. Fails when it stays
    false."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, "waited in vain"
        await asyncio.sleep(0.001)
    return time.monotonic() - began


S = TypeVar("S", bound=Struct)


def sample(kind: type[S], **given: Any) -> S:
    """A struct with the given fields; the others that it needs are empty, whatever they are called this week."""
    hints = get_type_hints(kind)
    needed = [field.name for field in fields(kind) if field.required and field.name not in given]
    return kind(**given, **{name: empty(hints[name]) for name in needed})


def empty(hint: Any) -> Any:
    """The smallest value of a type."""
    if isinstance(hint, type) and issubclass(hint, Struct):
        return sample(hint)
    return (get_origin(hint) or hint)()


def run(term: int = 1) -> Run:
    return sample(Run, fence=Fence(0, term))


def append(payload: bytes = b"x" * 300) -> Append:
    return sample(Append, payload=(payload,))


def heartbeat() -> Heartbeat:
    return sample(Heartbeat)


def inspected(context: zmq.Context[zmq.Socket[bytes]]) -> list[int]:
    """The kinds of sockets of a context that touch the network, each looked at: CURVE, a ZAP domain that is enforced,
    every limit. Nothing else is anywhere but inside the process."""
    found: list[int] = []
    for each in context._sockets:
        if each.type in {zmq.PAIR, zmq.REP}:
            assert each.getsockopt_string(zmq.LAST_ENDPOINT).startswith("inproc://")
            continue
        found.append(each.type)
        assert each.getsockopt(zmq.MECHANISM) == zmq.CURVE
        assert each.getsockopt(zmq.CURVE_SERVER) == (each.type in {zmq.ROUTER, zmq.PUB})
        assert each.getsockopt(zmq.ZAP_DOMAIN).rstrip(b"\0") == DOMAIN
        assert each.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) == 1
        assert each.getsockopt(zmq.MAXMSGSIZE) == 1024 * 1024
        assert each.getsockopt(zmq.HANDSHAKE_IVL) == 2000
        assert (each.getsockopt(zmq.HEARTBEAT_IVL), each.getsockopt(zmq.HEARTBEAT_TIMEOUT)) == (1000, 3000)
        assert each.getsockopt(zmq.LINGER) == 0
    return sorted(found)


class Station:
    """A node with an identity for life and, while it is up, a transport."""

    def __init__(self, node_id: str, pair: CurvePair | None = None) -> None:
        self.node_id = node_id
        self.pair = pair or new_curve_pair()
        self.heard: list[tuple[str, int, Message]] = []
        self.gone: list[str] = []
        self.transport: Transport

    def up(self, mesh_port: int = 0, pub_port: int = 0, cluster: str = CLUSTER) -> None:
        """Start, with any free ports or the same as before."""
        self.transport = Transport(
            pair=self.pair,
            bind=HOST,
            mesh_port=mesh_port,
            pub_port=pub_port,
            heard=lambda *what: self.heard.append(what),
            gone=self.gone.append,
            clock=time.monotonic,
        )
        self.transport.start()
        if cluster:
            self.transport.enter(cluster, 7)

    @property
    def peer(self) -> Peer:
        """How others are told of it."""
        ports = self.transport.mesh_port, self.transport.pub_port
        return Peer(self.node_id, self.pair.public.decode(), HOST, *ports)

    def messages(self, sender: str) -> list[Message]:
        return [message for who, _generation, message in self.heard if who == sender]


def acquaint(*stations: Station) -> None:
    """Everybody gets the same list of all."""
    for station in stations:
        station.transport.set_peers([each.peer for each in stations])


def linked(*stations: Station) -> bool:
    """Everybody's mesh port has let everybody in."""
    return all(one.transport.connected(other.node_id) for one in stations for other in stations if one is not other)


async def subscribed(hearer: Station, speaker: Station, topic: str = "t") -> float:
    """Wait until what one publishes reaches the other; returns the seconds it took."""
    before = len(hearer.messages(speaker.node_id))

    def reached() -> bool:
        speaker.transport.publish(topic, run())
        return len(hearer.messages(speaker.node_id)) > before

    return await until(reached)


@asynccontextmanager
async def stations(names: str, start: bool = True) -> AsyncIterator[list[Station]]:
    """One station a letter, all acquainted and linked, with the topic "t" subscribed; closed in the end."""
    made = [Station(name) for name in names]
    try:
        for station in made:
            station.up()
            station.transport.subscribe(frozenset({"t"}))
        if start:
            acquaint(*made)
            await until(lambda: linked(*made))
        yield made
    finally:
        await close(made)


async def close(some: Iterable[Station]) -> None:
    for station in some:
        await station.transport.close()
