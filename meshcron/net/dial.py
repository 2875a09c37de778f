"""A client socket that is connected to one endpoint, and is connected again whatever ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

from meshcron.net.monitor import HANDSHAKE_FAILED, Monitor
from meshcron.net.resend import resend_soon

REDIAL_SECONDS = 0.1
REDIAL_SECONDS_MAX = 1.0
"""After a refused handshake, doubling from the first to the second: the other side may learn our key any moment."""

WATCHED = zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | HANDSHAKE_FAILED


class Dial:
    """Keeps `socket` connected to `endpoint`. `changed(up)` tells of each connection that is made or lost.

    libzmq repeats lost connections by itself. It never repeats a refused handshake, and an unfinished one as fast as it
    can; both are disconnected and connected again here.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        endpoint: str,
        changed: Callable[[bool], None],
    ) -> None:
        self.connected = False
        """True from the end of the handshake until the connection is lost."""
        self._socket = socket
        self._endpoint = endpoint
        self._changed = changed
        self._monitor = Monitor(context, socket, WATCHED, self._happened)
        self._redial: asyncio.TimerHandle | None = None
        self._delay = REDIAL_SECONDS

    def start(self) -> None:
        """Connect, in the background and for ever."""
        self._monitor.start()
        self._socket.setsockopt(zmq.IPV6, int("[" in self._endpoint))
        self._socket.connect(self._endpoint)

    def close(self) -> None:
        """Give up; the socket is its owner's to close."""
        self.connected = False
        self._monitor.close()
        if self._redial is not None:
            self._redial.cancel()

    def _happened(self, event: int, value: int) -> None:
        if event == zmq.EVENT_CONNECTED:
            resend_soon(value)
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._delay = REDIAL_SECONDS
            self._set(True)
        elif event == zmq.EVENT_DISCONNECTED:
            self._set(False)
        elif self._redial is None:
            self._set(False)
            self._socket.disconnect(self._endpoint)
            self._redial = asyncio.get_running_loop().call_later(self._delay, self._connect_again)
            self._delay = min(2 * self._delay, REDIAL_SECONDS_MAX)

    def _connect_again(self) -> None:
        self._redial = None
        self._socket.connect(self._endpoint)

    def _set(self, up: bool) -> None:
        if self.connected != up:
            self.connected = up
            self._changed(up)
