"""A zmq socket on the event loop: every message is taken, and no socket keeps the loop for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

TURN_MESSAGES = 200
"""Messages taken in one turn of the loop, at a few tens of microseconds each."""

TURN_SECONDS = 0.005
"""A turn ends after this long whatever is left: a quarter of what one may take (PROTOCOL 8), for others want theirs."""

PARTS_MAX = 4100
"""Parts of a message that are kept: more than any message of ours has, its routing id or topic included."""


def attend(socket: zmq.Socket[bytes]) -> Callable[[], object]:
    """Let libzmq do at once what it leaves for the thread of a socket that nobody reads: until that uses the socket
    again, a connection that `unbind` ended stays open, and each one that was lost keeps 14 kB. Called on the loop; what
    it returns ends it, and is called before the socket is closed."""
    loop, news = asyncio.get_running_loop(), int(socket.getsockopt(zmq.FD))
    loop.add_reader(news, socket.getsockopt, zmq.EVENTS)
    return lambda: loop.remove_reader(news)


class Reader:
    """Calls `take` with the parts of each message of `socket`, from `start` to `close`.

    zmq's descriptor tells of *changes*: it stays silent about what was left unread. So a turn ends either with an empty
    socket or with the next turn already booked, also where `take` raised. `take` may close the reader and its socket.
    """

    def __init__(self, socket: zmq.Socket[bytes], take: Callable[[list[zmq.Frame]], None]) -> None:
        self._socket = socket
        self._take = take
        self._descriptor = -1
        self._booked: asyncio.Handle | None = None
        self._torn = False
        self._open = False

    def start(self) -> None:
        """Begin to read; called on the loop."""
        self._open = True
        self._descriptor = int(self._socket.getsockopt(zmq.FD))
        asyncio.get_running_loop().add_reader(self._descriptor, self._ready)
        self.look()

    def look(self) -> None:
        """Read in the next turn. Needed after a send on the same socket, which may swallow the sign of an arrival."""
        if self._open and self._booked is None:
            self._booked = asyncio.get_running_loop().call_soon(self._booked_turn)

    def close(self) -> None:
        """Read no more. Before the socket is closed: its descriptor may be another's right after."""
        if not self._open:
            return
        self._open = False
        asyncio.get_running_loop().remove_reader(self._descriptor)
        if self._booked is not None:
            self._booked.cancel()

    def _ready(self) -> None:
        if self._booked is None:
            self._turn()

    def _booked_turn(self) -> None:
        self._booked = None
        self._turn()

    def _turn(self) -> None:
        empty = False
        try:
            empty = self._drain()
        finally:
            if not empty:
                self.look()

    def _drain(self) -> bool:
        """Take what is there, within the limits of a turn. True when the socket is empty."""
        clock = asyncio.get_running_loop().time
        until = clock() + TURN_SECONDS
        for _ in range(TURN_MESSAGES):
            try:
                parts = self._receive()
            except zmq.Again:
                return True
            if parts:
                self._take(parts)
            if not self._open or clock() > until:
                break
        return False

    def _receive(self) -> list[zmq.Frame]:
        """The parts of the next message: of an endless one the first PARTS_MAX once, the rest as nothing."""
        receive = self._socket.recv
        part = receive(zmq.NOBLOCK, copy=False)
        parts = [part]
        while part.more and len(parts) < PARTS_MAX:
            part = receive(zmq.NOBLOCK, copy=False)
            parts.append(part)
        rest_of_torn, self._torn = self._torn, part.more
        return [] if rest_of_torn else parts
