"""Where connections come in: no more at a time than the agent has descriptors for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

CONNECTIONS_MAX = 2000
"""HTTP connections open at a time, at most: header buffers of 64 KiB each are 128 MiB, and nobody needs as many."""

ACCEPTED_AT_ONCE = 128
"""Connections accepted in one turn of the loop, as Tornado does it: the length of the kernel's queue."""

RETRY_SECONDS = 1.0
"""Pause after an accept that failed, as asyncio's own (ACCEPT_RETRY_DELAY): a descriptor short stays so for a while."""

Say = Callable[[str, str, str], None]
"""A line for the log: what is wrong, of whom ("" = nobody), and why. It may be said again and again."""


class Entrance:
    """Accepts connections from listening sockets while fewer than `most` are open; others wait in the kernel's queue.

    `take` gets a connection and its address; `came` and `went` tell of each one that lives.
    """

    def __init__(self, take: Callable[[socket.socket, Any], None], *, most: int, say: Say) -> None:
        self._take = take
        self._most = most
        self._say = say
        self._sockets: Sequence[socket.socket] = ()
        self._listening = False
        self._retry: asyncio.TimerHandle | None = None
        self.connections = 0
        """Open ones."""

    def open(self, sockets: Sequence[socket.socket]) -> None:
        """From now on, until `close`."""
        self._sockets = sockets
        self._listen()

    def close(self) -> None:
        """Accept no more. The sockets are their owner's to close."""
        self._stand_still()
        self._sockets = ()

    def came(self) -> None:
        """One connection more."""
        self.connections += 1

    def went(self) -> None:
        """One has closed: there is room."""
        self.connections -= 1
        if self._retry is None:  # what an accept failed for may not be over
            self._listen()

    def _listen(self) -> None:
        self._retry = None
        if not self._listening:
            self._listening = True
            for one in self._sockets:
                asyncio.get_running_loop().add_reader(one, self._accept, one)

    def _stand_still(self) -> None:
        """A socket that is ready and not accepted from would wake the loop in every turn."""
        self._listening = False
        for one in self._sockets:
            asyncio.get_running_loop().remove_reader(one)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self.connections >= self._most:
                self._stand_still()
                self._say("no HTTP connection is accepted until one closes", "", f"{self._most} are open")
                return
            try:
                connection, address = listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._stand_still()
                self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._listen)
                self._say("no HTTP connection can be accepted for now", "", str(error.strerror))
                return
            self._take(connection, address)
