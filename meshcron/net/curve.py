"""What every socket of ours on the network has in common: CURVE, a ZAP domain, and limits (PROTOCOL 1)."""

from __future__ import annotations

import zmq
from msgspec import Struct

from meshcron.net.keys import CurvePair

DOMAIN = b"meshcron"
"""The ZAP domain. It must not be empty, or libzmq asks nobody."""

MESSAGE_PART_BYTES_MAX = 1024 * 1024
"""libzmq closes a connection that brings a larger frame; twice what a message may have in all."""

HEARTBEAT_MS = 1000


class Patience(Struct, frozen=True):
    """How long the other end of a connection is waited for."""

    connect_ms: int = 500
    """An attempt is given up before the kernel repeats its SYN (1 s, then doubling), so a healed cut is found
    quickly."""
    handshake_ms: int = 2000
    """Whoever opens a connection and says nothing is cut off after this. A knock is given up, too: on a LAN a gate
    answers within milliseconds."""
    silence_ms: int = 3000
    """A connection that is silent for so long is closed, and what waits in it dropped: after a cut, old messages would
    otherwise arrive up to 13 s late."""


LAN = Patience()
SLOW = Patience(connect_ms=2000, handshake_ms=8000, silence_ms=12_000)
"""Four times as long, as all of `timing = slow` (core/timing.py): a handshake crosses the link six times."""

RECONNECT_MS = 50
RECONNECT_MAX_MS = 1000
"""Doubling from the first to the second: a restarted agent is back at once, a dead one costs a SYN a second."""

BACKLOG = 512
"""Connections the kernel holds until they are accepted: a whole cluster may come back in one instant."""


def harden(socket: zmq.Socket[bytes], pair: CurvePair, server_key: bytes = b"", patience: Patience = LAN) -> None:
    """Give a socket its keys and limits, before it is bound or connected: libzmq ignores what comes later.

    With `server_key` (Z85) it is a client that talks to the holder of that key only; without it is a server.
    """
    # "Enforce" makes a missing ZAP handler refuse; without it everybody is let in until there is one.
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
    if server_key:
        socket.setsockopt(zmq.CURVE_SERVERKEY, server_key)
    else:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_PART_BYTES_MAX)
    socket.setsockopt(zmq.HANDSHAKE_IVL, patience.handshake_ms)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, patience.silence_ms)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, patience.connect_ms)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    socket.setsockopt(zmq.BACKLOG, BACKLOG)
