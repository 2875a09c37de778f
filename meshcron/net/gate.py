"""The gate: where newcomers knock, and how we knock at others' gates (PROTOCOL 1).

It has a zmq context of its own: whatever floods it shares neither thread nor ZAP handler with the mesh. Who holds the
cluster key derives both the gate's key pair and the one that clients show; members may show their own instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import zmq
from msgspec import Struct

from meshcron.errors import StartRefused
from meshcron.messages import GateMessage, Hello
from meshcron.net.address import is_address, resolve
from meshcron.net.codec import KNOCKS, Header, Malformed, decode, encode
from meshcron.net.complaints import Complaints
from meshcron.net.curve import LAN, Patience, harden
from meshcron.net.keys import GATE, GATE_CLIENT, ClusterKey, CurvePair
from meshcron.net.knock import Knock
from meshcron.net.listener import Listener
from meshcron.net.monitor import HANDSHAKE_FAILED, Monitor
from meshcron.net.reader import Reader
from meshcron.net.zap import Zap

UNREAD_KNOCKS_MAX = 16
"""From one client, which needs one."""

CONNECTIONS_MAX = 1000
"""Open at once. Beyond it the gate drops them all and shuts for a moment: better no newcomers than an agent that has
no descriptors left to start a job."""

SHUT_SECONDS = 1.0

ANOTHER_KEY = "the gate at {}:{} does not accept this key: another cluster's?"

NO_ADDRESS = "no address is found for this name: correct --join, or what this machine knows of it (DNS, /etc/hosts)"

WATCHED = HANDSHAKE_FAILED | zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED


class GateCounters(Struct):
    """What the gate met, since the start."""

    refused: int = 0
    """Handshakes that failed: another key, none at all, or broken off."""
    malformed: int = 0
    uninvited: int = 0
    """Knocks with a member's key about another agent, or of one that is no member any more."""
    shut: int = 0
    """Times the gate shut because of too many connections."""
    another_key: int = 0
    """Our own knocks at gates that do not know our key."""


class Gate:
    """Answers `Hello` with what `knocked` says (None = no answer), and knocks at other gates.

    Without a key nobody can knock here and `start` opens nothing; `gate_key` is then the public key of the cluster's
    gates (Z85), and we show them our own pair. Everything is called on the loop.
    """

    def __init__(
        self,
        *,
        key: ClusterKey | None,
        pair: CurvePair,
        bind: str,
        port: int,
        knocked: Callable[[Hello], GateMessage | None],
        gate_key: bytes = b"",
        patience: Patience = LAN,
    ) -> None:
        self.counters = GateCounters()
        self._server = key.curve_pair(GATE) if key else None
        self._client = key.curve_pair(GATE_CLIENT) if key else pair
        self._gate_key = self._server.public if self._server else gate_key
        self._members: frozenset[str] = frozenset()
        self._knocked = knocked
        self._patience = patience
        self._complaints = Complaints(lambda: asyncio.get_running_loop().time())
        self._listener = Listener(bind, port, "gate-port", self._complaints)
        self._open: set[int] = set()
        self._context: zmq.Context[zmq.Socket[bytes]]
        self._router: zmq.Socket[bytes]
        self._zap: Zap
        self._monitor: Monitor
        self._reader: Reader

    @property
    def port(self) -> int:
        """Where newcomers knock: the true port after `start`, 0 without a key."""
        return self._listener.port if self._server else 0

    def start(self) -> None:
        """Open the gate. Raises StartRefused with the port and the remedy."""
        self._context = zmq.Context()
        if self._server is None:
            return
        self._zap = Zap(self._context, self._allowed)
        self._zap.start()
        self._router = self._context.socket(zmq.ROUTER)
        harden(self._router, self._server, patience=self._patience)
        # Who has hung up is told nothing: a send that fails instead of vanishing costs the same and shows mistakes.
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.RCVHWM, UNREAD_KNOCKS_MAX)
        self._monitor = Monitor(self._context, self._router, WATCHED, self._happened)
        self._monitor.start()
        self._reader = Reader(self._router, self._take)
        self._reader.start()
        try:
            self._listener.start(self._router)
        except StartRefused:
            self._close()
            raise

    def set_members(self, public_keys: Iterable[str]) -> None:
        """The node keys (Z85) that may enter besides the gate-client key: members that forgot the cluster key."""
        self._members = frozenset(public_keys)

    async def knock(self, host: str, port: int, hello: Hello) -> GateMessage | None:
        """Knock at another gate. None when there is no such host or gate, it does not answer in time (Patience), or
        it does not know our key (`counters.another_key`)."""
        if not self._gate_key:
            return None
        knock, address = Knock(self._context, self._client, self._gate_key, self._patience), ""
        try:
            async with asyncio.timeout(self._patience.handshake_ms / 1000):
                address = await resolve(host)
                return await knock.ask(address, port, hello)
        except (OSError, UnicodeError, zmq.ZMQError) as why:  # TimeoutError is an OSError, a bad name a UnicodeError
            if not address and not is_address(host):
                self._complaints.say(NO_ADDRESS, host, str(why))
            return None
        finally:
            self.counters.malformed += knock.malformed
            if knock.refused:
                self.counters.another_key += 1
                self._complaints.say(ANOTHER_KEY.format(host, port))

    async def close(self) -> None:
        """Shut the gate, and end every knock of ours without an answer."""
        self._close()

    def _close(self) -> None:
        if self._server is not None:
            self._reader.close()
            self._monitor.close()
            self._listener.close()
            self._zap.close()
        self._context.destroy(linger=0)

    def _allowed(self, key: str) -> bool:
        return key.encode() == self._client.public or key in self._members

    def _happened(self, event: int, descriptor: int) -> None:
        if event == zmq.EVENT_ACCEPTED:
            if self._listener.listening:
                self._open.add(descriptor)
        elif event == zmq.EVENT_DISCONNECTED:
            self._open.discard(descriptor)
        else:
            self.counters.refused += 1
            self._complaints.say("knocks refused: another key, none, or broken off")
        if len(self._open) > CONNECTIONS_MAX:
            self._open.clear()
            self.counters.shut += 1
            self._complaints.say("the gate is flooded and shut for a moment")
            self._listener.rebind(SHUT_SECONDS)

    def _take(self, parts: list[zmq.Frame]) -> None:
        """A knock: routing id, then the frames. The answer goes back over the same connection."""
        key = str(parts[1].get(b"User-Id"))
        who, *frames = [part.bytes for part in parts]
        if not self._allowed(key):
            self._uninvited("knocks of an agent that is no member any more")
            return
        try:
            _header, hello = decode(frames, KNOCKS)
        except Malformed as why:
            self.counters.malformed += 1
            self._complaints.say("malformed knock", str(parts[1].get(b"Peer-Address")), str(why))
            return
        assert isinstance(hello, Hello)
        if key.encode() != self._client.public and key != hello.profile.public_key:
            self._uninvited("knocks with a member's key about another agent")
            return
        if (answer := self._knocked(hello)) is not None:
            self._answer(who, answer)

    def _uninvited(self, what: str) -> None:
        self.counters.uninvited += 1
        self._complaints.say(what)

    def _answer(self, who: bytes, answer: GateMessage) -> None:
        header = Header(getattr(answer, "cluster", ""), getattr(answer, "generation", 0))
        try:
            self._router.send_multipart([who, *encode(header, answer)], zmq.NOBLOCK)
        except zmq.ZMQError:
            return  # the client has hung up, or does not read its answers: it will knock again
