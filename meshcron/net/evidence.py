"""Evidence that a process is gone (PROTOCOL 4): its host itself closed our connection and refuses new ones.

A cut or an overloaded machine looks different: there nobody refuses. So a voter with this evidence need not wait.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

SETTLE_SECONDS = 0.005
"""Before the first look. The kernel closes a dead process's connections a moment before its port, and its last words
are still on their way; a look too early costs BETWEEN_SECONDS."""

BETWEEN_SECONDS = 0.02
"""Between two refusals: a port that is only bound anew is back by then."""

REFUSALS = 2
"""In a row, with nothing heard from the peer in between (PROTOCOL 4)."""

PROBES = 5
"""In one try: some for the moment of dying, two for the evidence."""

TRY_SECONDS = 0.25
"""A try begins at most so often (PROTOCOL 4)."""

TRIES = 4
"""1 s long: whoever is not refused by then was not killed, and whatever is refused later needs no haste."""

CONNECT_SECONDS = 0.2
"""A host on the same network answers or refuses within milliseconds; a silent one is no evidence."""


class Probe:
    """One plain TCP connection attempt. `refused(True)` is called when the host refused it, else `refused(False)`."""

    def __init__(self, address: str, port: int, refused: Callable[[bool], None]) -> None:
        self._address = address
        self._port = port
        self._refused = refused
        self._socket: socket.socket | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Try to connect. A host's name is not looked up, for that may take long: it counts as not refused."""
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            socket.inet_pton(family, self._address)
            code = self._socket.connect_ex((self._address, self._port))
        except (OSError, ValueError):
            code = errno.EINVAL
        if code == errno.EINPROGRESS and self._socket is not None:
            loop = asyncio.get_running_loop()
            loop.add_writer(self._socket, self._writable)
            self._deadline = loop.call_later(CONNECT_SECONDS, self._end, errno.ETIMEDOUT)
        else:
            self._end(code)

    def close(self) -> None:
        """Give up, without an answer."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_writer(self._socket)
            self._socket.close()
            self._socket = None

    def _writable(self) -> None:
        assert self._socket is not None
        self._end(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _end(self, code: int) -> None:
        self.close()
        self._refused(code == errno.ECONNREFUSED)


class Evidence:
    """Watches one peer's mesh port. `gone` is called once for each connection lost, when its process is gone."""

    def __init__(self, address: str, port: int, gone: Callable[[], None]) -> None:
        self.silent = True
        """Set to False with everything heard from the peer."""
        self._address = address
        self._port = port
        self._gone = gone
        self._probe: Probe | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tries = 0
        self._probes = 0
        self._refusals = 0
        self._began = 0.0

    def connection(self, up: bool) -> None:
        """Our connection to the peer is there, or was there and is lost."""
        busy = self._probe is not None or self._timer is not None
        if up:
            self.close()
        elif not busy:
            self._tries = TRIES
            self._book()

    def close(self) -> None:
        """Stop looking."""
        if self._probe is not None:
            self._probe.close()
        if self._timer is not None:
            self._timer.cancel()
        self._probe = self._timer = None

    def _after(self, seconds: float, what: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), what)

    def _book(self) -> None:
        """The next try, at its time."""
        self._tries -= 1
        self._after(max(SETTLE_SECONDS, self._began + TRY_SECONDS - asyncio.get_running_loop().time()), self._try)

    def _try(self) -> None:
        self._began = asyncio.get_running_loop().time()
        self._probes = PROBES
        self._refusals = 0
        self._look()

    def _look(self) -> None:
        self._timer = None
        self._probes -= 1
        self._probe = Probe(self._address, self._port, self._looked)
        self._probe.start()

    def _looked(self, refused: bool) -> None:
        self._probe = None
        self._refusals = self._refusals + 1 if refused and self.silent else int(refused)
        self.silent = True
        elapsed = asyncio.get_running_loop().time() - self._began
        if self._refusals == REFUSALS:
            self._gone()
        elif self._probes and elapsed < TRY_SECONDS:
            self._after(BETWEEN_SECONDS, self._look)
        elif self._tries:
            self._book()
