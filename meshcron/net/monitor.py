"""What happens to a socket's connections, as libzmq tells it."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

import zmq

from meshcron.net.reader import Reader

HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
"""The other side does not want us; speaks something else or holds another key; hung up or said nothing. Which of them
is seen depends on who was first to notice."""

_EVENT = struct.Struct("=HI")
_numbers = itertools.count()


class Monitor:
    """Calls `happened(event, value)` for the wanted events of one socket, from `start` to `close`."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        wanted: int,
        happened: Callable[[int, int], None],
    ) -> None:
        self._context = context
        self._watched = socket
        self._wanted = wanted
        self._happened = happened
        self._socket: zmq.Socket[bytes] | None = None
        self._reader: Reader

    def start(self) -> None:
        """Begin, before the socket is bound or connected, so that nothing is missed."""
        address = f"inproc://monitor-{next(_numbers)}"
        self._watched.monitor(address, self._wanted)
        self._socket = self._context.socket(zmq.PAIR)
        self._reader = Reader(self._socket, self._take)
        # Without a limit: at a limit libzmq's only I/O thread would stand still until this loop reads.
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(address)
        self._reader.start()

    def close(self) -> None:
        """End, before the watched socket is closed."""
        if self._socket is not None:
            self._reader.close()
            self._watched.disable_monitor()
            self._socket.close()
            self._socket = None

    def _take(self, parts: list[zmq.Frame]) -> None:
        event, value = _EVENT.unpack(parts[0].bytes)
        self._happened(event, value)
