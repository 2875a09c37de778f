"""Our two connections to one peer: DEALER to its mesh port for what we say, SUB to its PUB for what it publishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import zmq
from msgspec import Struct

from meshcron.net.address import endpoint, is_place
from meshcron.net.curve import LAN, Patience, harden
from meshcron.net.dial import Dial
from meshcron.net.evidence import Evidence
from meshcron.net.keys import CurvePair
from meshcron.net.reader import Reader, attend

WAITING_MESSAGES_MAX = 256
"""Waiting for one peer. More is not sent: a peer that falls so far behind gets what still matters when it is repeated.
A stopped peer's queue lives 3 s (the ZMTP heartbeat), and at 512 KiB a message it is 128 MiB at the very most."""

PUBLISHED_MESSAGES_MAX = 1000
"""Unread from one peer: 250 s of heartbeats, or the orders of some 100,000 ticks."""


class Peer(Struct, frozen=True):
    """An agent that may talk to us. Port 0 = address unknown: it is let in, not dialled. So is one whose `host` is a
    name, or nonsense: `host` is its own word, and looking names up is not for libzmq's only thread."""

    node_id: str
    public_key: str
    """CURVE, Z85."""
    host: str = ""
    mesh_port: int = 0
    pub_port: int = 0

    @property
    def dialled(self) -> bool:
        """Its whole address is known, and is one."""
        return is_place(self.host, self.mesh_port, self.pub_port)


class Link:
    """Connections to `peer` that heal by themselves. `published` gets what its PUB says, without the topic; the server
    key is pinned, so it is the peer who says it. `gone` is called when its process is evidently gone."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        peer: Peer,
        pair: CurvePair,
        published: Callable[[Peer, list[bytes]], None],
        gone: Callable[[], None],
        patience: Patience = LAN,
    ) -> None:
        self.evidence = Evidence(peer.host, peer.mesh_port, gone)
        self._context = context
        self._peer = peer
        self._pair = pair
        self._published = published
        self._patience = patience
        self._opened = ExitStack()
        self._dealer: zmq.Socket[bytes]
        self._sub: zmq.Socket[bytes]
        self._say: Dial

    @property
    def connected(self) -> bool:
        """The peer's mesh port has let us in and has not been lost since."""
        return self._say.connected

    def start(self, topics: frozenset[bytes]) -> None:
        """Dial both ports of the peer; called on the loop. Raises ZMQError where the process has no descriptors left;
        `close` undoes what was done."""
        self._opened.callback(self.evidence.close)
        self._dealer = self._socket(zmq.DEALER)
        self._dealer.setsockopt(zmq.IMMEDIATE, 1)
        self._dealer.setsockopt(zmq.SNDHWM, WAITING_MESSAGES_MAX)
        # Nobody answers on this connection; who does it anyway fills one place.
        self._dealer.setsockopt(zmq.RCVHWM, 1)
        self._opened.callback(attend(self._dealer))
        self._sub = self._socket(zmq.SUB)
        self._sub.setsockopt(zmq.RCVHWM, PUBLISHED_MESSAGES_MAX)
        self.subscribe(topics, frozenset())
        reader = Reader(self._sub, self._take)
        self._opened.callback(reader.close)
        reader.start()
        self._say = self._dial(self._dealer, self._peer.mesh_port, self.evidence.connection)
        self._dial(self._sub, self._peer.pub_port, lambda _up: None)

    def subscribe(self, more: frozenset[bytes], less: frozenset[bytes]) -> None:
        """Hear `more` topics and no longer `less`."""
        for topic in more:
            self._sub.setsockopt(zmq.SUBSCRIBE, topic)
        for topic in less:
            self._sub.setsockopt(zmq.UNSUBSCRIBE, topic)

    def send(self, frames: Sequence[bytes]) -> bool:
        """To the peer's mesh port. False = not connected, it reads too slowly, or ZeroMQ refuses: nothing was sent."""
        *head, last = frames
        try:
            for frame in head:
                self._dealer.send(frame, zmq.NOBLOCK | zmq.SNDMORE)
            self._dealer.send(last, zmq.NOBLOCK)
        except zmq.ZMQError:  # Again is one
            return False
        return True

    def close(self) -> None:
        """Hang up; what was not sent yet is dropped."""
        self._opened.close()

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        self._opened.callback(socket.close)
        harden(socket, self._pair, self._peer.public_key.encode(), self._patience)
        return socket

    def _dial(self, socket: zmq.Socket[bytes], port: int, changed: Callable[[bool], None]) -> Dial:
        dial = Dial(self._context, socket, endpoint(self._peer.host, port), changed)
        self._opened.callback(dial.close)
        dial.start()
        return dial

    def _take(self, parts: list[zmq.Frame]) -> None:
        self._published(self._peer, [part.bytes for part in parts[1:]])
