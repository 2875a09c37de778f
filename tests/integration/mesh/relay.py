"""Relays that make a link slow, where the kernel has no netem (FAULTS 16): each connection through one has a delay of
its own in each direction, and jitter. What TCP carries stays in order within a connection; across connections, what is
published beside what is sent to one alone, it does not.

An agent listens on 127.0.0.1; its relay has the same ports on another address of the loopback network, which the agent
advertises: whoever dials it goes through.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

HERE = "127.0.0.1"

READ_BYTES = 65536

PORTS = range(10_000, 32_768)
"""Whoever asks for any port gets none of these (ip_local_port_range): what is free stays so until it is used."""

PORT_TRIES = 1000


class Delay(NamedTuple):
    """Seconds from one end to the other."""

    least: float = 0.0
    most: float = 0.0
    jitter: float = 0.0
    """At most so much is added to each piece."""


Waiting = asyncio.Queue[tuple[float, bytes]]
"""When it is due, and what it is: nothing at the end."""


def free_ports(hosts: Sequence[str], count: int) -> list[int]:
    """Ports that nobody has on any of these addresses."""
    ports: list[int] = []
    for port in random.sample(PORTS, PORT_TRIES):
        with suppress(OSError), ExitStack() as trials:
            for host in hosts:
                trials.enter_context(socket.socket()).bind((host, port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise AssertionError("no port is free")


class Relay:
    """All relays of a test, on a thread of their own. Each way of a connection draws its delay when it is made, and
    again when another one is set."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")
        self.drawn: list[float] = []
        """The delays of all ways that anything went since the last `set_delay`, in seconds."""
        self._delay = Delay()
        self._servers: list[asyncio.Server] = []

    def start(self) -> None:
        self._thread.start()

    def set_delay(self, delay: Delay) -> None:
        """From now on, also on connections that stand."""
        self.drawn = []
        self._delay = delay

    def listen(self, host: str, ports: Sequence[int]) -> None:
        """Whoever dials one of these on `host` gets the same port of this machine."""
        for port in ports:
            asyncio.run_coroutine_threadsafe(self._listen(host, port), self._loop).result()

    def close(self) -> None:
        """Hang up on all."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _listen(self, host: str, port: int) -> None:
        async def caller(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                far_reader, far_writer = await asyncio.open_connection(HERE, port)
            except OSError:  # the agent does not run: nor does its relay, then
                writer.transport.abort()
                return
            with suppress(asyncio.CancelledError):  # the test is over
                await asyncio.gather(self._way(reader, far_writer), self._way(far_reader, writer))

        self._servers.append(await asyncio.start_server(caller, host, port))

    async def _way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction of a connection: read on while what was read waits for its time."""
        waiting: Waiting = asyncio.Queue()
        out = asyncio.ensure_future(self._out(waiting, writer))
        drawn_from, base, due = None, 0.0, 0.0
        with suppress(OSError):
            while data := await reader.read(READ_BYTES):
                if drawn_from is not self._delay:
                    drawn_from = self._delay
                    base = self._chance.uniform(drawn_from.least, drawn_from.most)
                    self.drawn.append(base)
                due = max(due, self._loop.time() + base + self._chance.uniform(0, drawn_from.jitter))
                waiting.put_nowait((due, data))
        waiting.put_nowait((due, b""))
        await out

    async def _out(self, waiting: Waiting, writer: asyncio.StreamWriter) -> None:
        data = b"something"
        while data:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            with suppress(OSError):
                writer.write(data)
                await writer.drain()
        writer.close()
