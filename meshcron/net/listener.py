"""A server socket on its TCP port, which can drop all its clients without giving up the port."""

from __future__ import annotations

import asyncio
import errno

import zmq

from meshcron.errors import StartRefused
from meshcron.net.address import endpoint
from meshcron.net.complaints import Complaints

REBIND_SECONDS = 0.002
"""libzmq lets go of a port a moment after `unbind` returned; until then it is ours and taken."""

PATIENCE_SECONDS = 1.0
"""After this, somebody else took the port in between, and an operator should know."""


class Listener:
    """Holds `port` of `address` (0 = any free one; `port` is the true one after `start`).

    `flag` names the port on the command line, for who has to act when it is taken.
    """

    def __init__(self, address: str, port: int, flag: str, complaints: Complaints) -> None:
        self.port = port
        self._socket: zmq.Socket[bytes]
        self._address = address
        self._flag = flag
        self._complaints = complaints
        self._endpoint = ""
        self._rebinding: asyncio.TimerHandle | None = None
        self._patient_until = 0.0

    @property
    def listening(self) -> bool:
        """False for the moment of a `rebind`."""
        return self._rebinding is None

    def start(self, socket: zmq.Socket[bytes]) -> None:
        """Listen with this socket. Raises StartRefused with the port and the remedy."""
        self._socket = socket
        self._socket.setsockopt(zmq.IPV6, int(":" in self._address))
        try:
            self._socket.bind(endpoint(self._address, self.port))
        except zmq.ZMQError as error:
            raise StartRefused(self._refusal(error)) from None
        self._endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.port = int(self._endpoint.rpartition(":")[2])

    def rebind(self, after_seconds: float = 0.0) -> None:
        """Close every connection that was accepted and listen again, at once or a while later. Clients that may
        return come by themselves."""
        if self._rebinding is None:
            loop = asyncio.get_running_loop()
            self._socket.unbind(self._endpoint)
            self._patient_until = loop.time() + after_seconds + PATIENCE_SECONDS
            self._rebinding = loop.call_later(after_seconds, self._bind_again)

    def close(self) -> None:
        """Stop trying to listen; the socket is its owner's to close."""
        if self._rebinding is not None:
            self._rebinding.cancel()

    def _bind_again(self) -> None:
        self._rebinding = None
        try:
            self._socket.bind(self._endpoint)
        except zmq.ZMQError as error:
            loop = asyncio.get_running_loop()
            if loop.time() > self._patient_until:
                self._complaints.say("waiting for our own port", self._endpoint, str(error))
            self._rebinding = loop.call_later(REBIND_SECONDS, self._bind_again)

    def _refusal(self, error: zmq.ZMQError) -> str:
        where = f"{self._flag} {self.port} on {self._address}"
        match error.errno:
            case errno.EADDRINUSE:
                return f"{where}: another process has this port; end it, or give --{self._flag} another number"
            case errno.EADDRNOTAVAIL | errno.ENODEV:
                return f"{where}: this machine has no such address; correct --bind"
            case errno.EACCES:
                return f"{where}: not allowed to listen there; give --{self._flag} a number above 1023"
            case _:
                return f"{where}: {error.strerror}; correct --bind or --{self._flag}"
