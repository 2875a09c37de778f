"""One knock at another agent's gate."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import zmq

from meshcron.messages import GateMessage, Hello, Message
from meshcron.net.address import endpoint
from meshcron.net.codec import GATE_ANSWERS, Header, Malformed, decode, encode
from meshcron.net.curve import Patience, harden
from meshcron.net.keys import CurvePair
from meshcron.net.monitor import HANDSHAKE_FAILED, Monitor
from meshcron.net.reader import Reader


class Knock:
    """Shows `client` to the gate that holds `gate_key`, says Hello, hears the answer. Used once."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], client: CurvePair, gate_key: bytes, patience: Patience
    ) -> None:
        self.refused = 0
        """1 when something listens there and the handshake failed: a gate of another key, or no gate."""
        self.malformed = 0
        """1 when the answer was none."""
        self._context = context
        self._client = client
        self._gate_key = gate_key
        self._patience = patience
        self._answer: asyncio.Future[Message | None]

    async def ask(self, address: str, port: int, hello: Hello) -> GateMessage | None:
        """The gate's answer; None when it refused us. Waits for as long as the caller does: a host that is not there
        says nothing. Raises ZMQError for what is no place."""
        self._answer = asyncio.get_running_loop().create_future()
        with ExitStack() as opened:
            socket = self._context.socket(zmq.DEALER)
            opened.callback(socket.close)
            harden(socket, self._client, self._gate_key, self._patience)
            monitor = Monitor(self._context, socket, HANDSHAKE_FAILED, self._failed)
            opened.callback(monitor.close)
            monitor.start()
            reader = Reader(socket, self._take)
            opened.callback(reader.close)
            socket.setsockopt(zmq.IPV6, int(":" in address))
            socket.connect(endpoint(address, port))
            socket.send_multipart(encode(Header(hello.cluster, hello.generation), hello), zmq.NOBLOCK)
            reader.start()
            answer = await self._answer
        assert answer is None or isinstance(answer, GateMessage)
        return answer

    def _failed(self, _event: int, _value: int) -> None:
        self.refused = 1
        self._settle(None)

    def _take(self, parts: list[zmq.Frame]) -> None:
        try:
            _header, answer = decode([part.bytes for part in parts], GATE_ANSWERS)
        except Malformed:
            self.malformed = 1
            self._settle(None)
        else:
            self._settle(answer)

    def _settle(self, answer: Message | None) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)
