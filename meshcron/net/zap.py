"""Who may enter: the handler that libzmq asks about the key of every CURVE client (ZAP, RFC 27)."""

from __future__ import annotations

from collections.abc import Callable

import zmq
from zmq.utils import z85

from meshcron.net.curve import DOMAIN
from meshcron.net.reader import Reader

ADDRESS = "inproc://zeromq.zap.01"
REQUEST_PARTS = 7
"""Version, request id, domain, address, routing id, mechanism, and CURVE's one credential."""


class Zap:
    """Answers every handshake in one context. `allowed` is asked with the client's public key (Z85) and decides.

    Started before the first bind. The key it lets in is the `User-Id` of all that the connection brings.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allowed: Callable[[str], bool]) -> None:
        self._context = context
        self._allowed = allowed
        self._socket: zmq.Socket[bytes]
        self._reader: Reader

    def start(self) -> None:
        """From here on handshakes are answered."""
        self._socket = self._context.socket(zmq.REP)
        self._reader = Reader(self._socket, self._take)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ADDRESS)
        self._reader.start()

    def close(self) -> None:
        """From here on every handshake is refused."""
        self._reader.close()
        self._socket.close()

    def _take(self, parts: list[zmq.Frame]) -> None:
        version, request_id, *question = [part.bytes for part in parts]
        user = self._user(question) if len(parts) == REQUEST_PARTS else ""
        status, text = (b"200", b"OK") if user else (b"400", b"not a member")
        self._socket.send_multipart([version, request_id, status, text, user.encode(), b""])
        self._reader.look()

    def _user(self, question: list[bytes]) -> str:
        """The client's key where it may enter, else ""."""
        domain, _address, _routing_id, mechanism, credential = question
        if domain != DOMAIN or mechanism != b"CURVE":
            return ""
        key = z85.encode(credential).decode()
        return key if self._allowed(key) else ""
