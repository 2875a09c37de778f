"""The mesh: what agents say to one another, over ZeroMQ (PROTOCOL 1, 9). Best effort: the protocol repeats.

ROUTER hears what has one addressee, PUB tells everybody. Each peer is dialled by a `Link`. Who may talk is the list of
peers: their keys pass the handshake, and every message is checked against the list again, because a handshake is never
taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import zmq
from msgspec import Struct

from meshcron.errors import StartRefused
from meshcron.messages import Message
from meshcron.net.codec import MESH, PUBLISHED, Header, Kind, Malformed, decode, encode
from meshcron.net.complaints import Complaints
from meshcron.net.curve import LAN, Patience, harden
from meshcron.net.keys import CurvePair
from meshcron.net.link import PUBLISHED_MESSAGES_MAX, Link, Peer
from meshcron.net.listener import Listener
from meshcron.net.monitor import HANDSHAKE_FAILED, Monitor
from meshcron.net.reader import Reader, attend
from meshcron.net.resend import resend_soon
from meshcron.net.zap import Zap

__all__ = ["Counters", "Peer", "Transport"]

MESH_MESSAGES_MAX = 128
"""Unread from one peer; then its connection is not read on, and TCP holds it up. At 512 KiB a message this is 64 MiB
from a peer that floods."""

SOCKETS_MAX = 16384
"""In one context: six for a peer (two and their monitors, which have two ends). libzmq's own limit is 1023."""

DIALS_A_TURN = 8
"""A link takes about a millisecond to set up, a turn of the loop at most 20 (PROTOCOL 8)."""

DIAL_AGAIN_SECONDS = 1.0
"""After a failure of our own, as without free descriptors."""

TOPIC_END = b"\0"
"""A subscription is a prefix: without an end "role=web" would also hear "role=webmaster"."""

WATCHED = HANDSHAKE_FAILED | zmq.EVENT_LISTENING


class Counters(Struct):
    """What was not taken or not sent, since the start."""

    refused: int = 0
    """Handshakes that failed: another key, none at all, or broken off."""
    malformed: int = 0
    foreign: int = 0
    """Messages of another cluster; before `enter` all are."""
    uninvited: int = 0
    """Messages of an agent that was let in and is no peer any more."""
    dropped: int = 0
    """Sends to a peer that is not connected or reads too slowly."""


class Transport:
    """Messages from and to the peers, on the running event loop.

    `heard(node id, generation, message)` is called for each message of a peer in our cluster; the node id is proven by
    its key, the rest is its word. `gone(node id)` is called when a peer's process is evidently gone (PROTOCOL 4).
    `clock` counts seconds, for log lines. Everything is called on the loop; nothing here waits.
    """

    def __init__(
        self,
        *,
        pair: CurvePair,
        bind: str,
        mesh_port: int,
        pub_port: int,
        heard: Callable[[str, int, Message], None],
        gone: Callable[[str], None],
        clock: Callable[[], float],
        patience: Patience = LAN,
    ) -> None:
        self.counters = Counters()
        self._pair = pair
        self._patience = patience
        self._heard = heard
        self._gone = gone
        self._complaints = Complaints(clock)
        self._header: Header | None = None
        self._topics: frozenset[bytes] = frozenset()
        self._peers: dict[str, Peer] = {}
        self._by_key: dict[str, Peer] = {}
        self._links: dict[str, Link] = {}
        self._dialling: asyncio.Handle | None = None
        self._mesh = Listener(bind, mesh_port, "mesh-port", self._complaints)
        self._published = Listener(bind, pub_port, "pub-port", self._complaints)
        self._context: zmq.Context[zmq.Socket[bytes]]
        self._router: zmq.Socket[bytes]
        self._pub: zmq.Socket[bytes]
        self._zap: Zap
        self._monitors: list[Monitor]
        self._reader: Reader
        self._unattend: Callable[[], object]

    @property
    def mesh_port(self) -> int:
        """Where we are spoken to: the true port after `start`."""
        return self._mesh.port

    @property
    def pub_port(self) -> int:
        """Where we publish: the true port after `start`."""
        return self._published.port

    def start(self) -> None:
        """Listen; nobody gets in before `set_peers`. Raises StartRefused with the port and the remedy."""
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
        self._zap = Zap(self._context, lambda key: key in self._by_key)
        self._zap.start()
        self._router = self._server(zmq.ROUTER, zmq.RCVHWM, MESH_MESSAGES_MAX)
        self._pub = self._server(zmq.PUB, zmq.SNDHWM, PUBLISHED_MESSAGES_MAX)
        self._monitors = [
            Monitor(self._context, socket, WATCHED, self._happened) for socket in (self._router, self._pub)
        ]
        for monitor in self._monitors:
            monitor.start()
        self._reader = Reader(self._router, self._take)
        self._reader.start()
        self._unattend = attend(self._pub)
        try:
            self._mesh.start(self._router)
            self._published.start(self._pub)
        except StartRefused:
            self._close()
            raise

    def enter(self, cluster: str, generation: int) -> None:
        """From now on we speak for this cluster, and hear no other."""
        self._header = Header(cluster, generation)

    def set_peers(self, peers: Iterable[Peer]) -> None:
        """Who may talk to us, and where they are. Repeating it changes nothing; an entry with our own key is passed
        over. Who is no longer named is ignored from this moment, and cut off from what we publish."""
        wanted = {peer.node_id: peer for peer in peers if peer.public_key.encode() != self._pair.public}
        if wanted != self._peers:
            self._replace_peers(wanted)
        self._dial()

    def _replace_peers(self, wanted: dict[str, Peer]) -> None:
        keys_before = set(self._by_key)
        changed = [peer for peer in self._peers.values() if wanted.get(peer.node_id) != peer]
        self._peers = wanted
        self._by_key = {peer.public_key: peer for peer in wanted.values()}
        for peer in changed:
            if link := self._links.pop(peer.node_id, None):
                link.close()
        if keys_before - set(self._by_key):
            self._published.rebind()

    def subscribe(self, topics: frozenset[str]) -> None:
        """Hear exactly these topics from every peer."""
        wanted = frozenset(topic.encode() + TOPIC_END for topic in topics)
        for link in self._links.values():
            link.subscribe(wanted - self._topics, self._topics - wanted)
        self._topics = wanted

    def send(self, to: str, message: Message) -> bool:
        """To one peer. False = it is unknown, not connected or reads too slowly, or there is no cluster yet: dropped,
        the protocol repeats.
        Raises Malformed for a message that is too large."""
        link = self._links.get(to)
        if self._header and link and link.connected and link.send(encode(self._header, message)):
            return True
        self.counters.dropped += 1
        return False

    def publish(self, topic: str, message: Message) -> None:
        """To every peer that hears this topic; may be lost on the way, and is before there is a cluster. Raises
        Malformed for a message that is too large."""
        if self._header is None:
            return
        *head, last = [topic.encode() + TOPIC_END, *encode(self._header, message)]
        try:
            for frame in head:
                self._pub.send(frame, zmq.NOBLOCK | zmq.SNDMORE)
            self._pub.send(last, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            self._complaints.say("cannot publish", why=str(error))

    def connected(self, node_id: str) -> bool:
        """True while that peer's mesh port holds a connection of ours."""
        return node_id in self._links and self._links[node_id].connected

    async def close(self) -> None:
        """Hang up and stop listening; what was not sent yet is dropped."""
        self._close()

    def _close(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        for link in self._links.values():
            link.close()
        self._links.clear()
        self._reader.close()
        self._unattend()
        for monitor in self._monitors:
            monitor.close()
        self._mesh.close()
        self._published.close()
        self._zap.close()
        self._context.destroy(linger=0)

    def _server(self, kind: int, limit: int, messages: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        harden(socket, self._pair, patience=self._patience)
        socket.setsockopt(limit, messages)
        return socket

    def _dial(self) -> None:
        """Dial who is not dialled yet, some in this turn of the loop and the others in the next ones."""
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        missing = [peer for peer in self._peers.values() if peer.dialled and peer.node_id not in self._links]
        loop = asyncio.get_running_loop()
        try:
            for peer in missing[:DIALS_A_TURN]:
                self._links[peer.node_id] = self._dialled(peer)
        except zmq.ZMQError as error:
            self._complaints.say("cannot dial", why=str(error))
            self._dialling = loop.call_later(DIAL_AGAIN_SECONDS, self._dial)
        else:
            if len(missing) > DIALS_A_TURN:
                self._dialling = loop.call_soon(self._dial)

    def _dialled(self, peer: Peer) -> Link:
        node_id = peer.node_id
        link = Link(self._context, peer, self._pair, self._take_published, lambda: self._gone(node_id), self._patience)
        try:
            link.start(self._topics)
        except zmq.ZMQError:
            link.close()
            raise
        return link

    def _happened(self, event: int, value: int) -> None:
        if event == zmq.EVENT_LISTENING:
            resend_soon(value)
            return
        self.counters.refused += 1
        self._complaints.say("handshakes failed: another key, none, or broken off")

    def _take(self, parts: list[zmq.Frame]) -> None:
        """A message at the ROUTER: routing id (libzmq's, of no use to us), then our frames."""
        peer = self._by_key.get(str(parts[1].get(b"User-Id")))
        if peer is None:
            self.counters.uninvited += 1
            self._complaints.say("messages of an agent that is no member any more")
            return
        self._take_from(peer, [part.bytes for part in parts[1:]], MESH)

    def _take_published(self, peer: Peer, frames: list[bytes]) -> None:
        self._take_from(peer, frames, PUBLISHED)

    def _take_from(self, peer: Peer, frames: Sequence[bytes], known: dict[str, Kind]) -> None:
        if link := self._links.get(peer.node_id):
            link.evidence.silent = False
        try:
            header, message = decode(frames, known)
        except Malformed as why:
            self.counters.malformed += 1
            self._complaints.say("malformed message", peer.node_id, str(why))
            return
        if self._header is None or header.cluster != self._header.cluster:
            self.counters.foreign += 1
            self._complaints.say("message of another cluster", peer.node_id)
            return
        self._heard(peer.node_id, header.generation, message)
