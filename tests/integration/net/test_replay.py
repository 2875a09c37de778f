"""What was recorded on the wire is worth nothing (fault 17): CURVE's keys and nonces are a connection's own.

The other half of the fault, an old message that is delivered once more by somebody who may speak, is in
tests/simulation: orders repeated after their result, of an old leader, an hour late.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from msgspec.structs import replace

from meshcron.messages import Message, Vote
from tests.integration.net.net_stage import HOST, Station, linked, run, sample, stations, until

GONE = (ConnectionError, asyncio.IncompleteReadError)


class Relay:
    """TCP on loopback to `port`, with an ear and a mouth of its own."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.recorded = b""
        """What clients have said so far, all connections in a row."""
        self._to = port
        self._server: asyncio.Server
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(HOST, self._to)
        self._writers += [writer, to_server]
        for source, target, kept in ((reader, to_server, True), (from_server, writer, False)):
            task = asyncio.create_task(self._pump(source, target, kept=kept))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, kept: bool) -> None:
        with suppress(*GONE):
            while data := await source.read(65536):
                if kept:
                    self.recorded += data
                target.write(data)
        target.close()

    def say_again(self, data: bytes) -> None:
        """Into the newest connection, after what its client has said."""
        self._writers[-1].write(data)

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await until(lambda: not self._tasks)


@asynccontextmanager
async def overheard() -> AsyncIterator[tuple[Station, Station, Relay]]:
    """Two members; what the second says to the first goes over a relay."""
    async with stations("ab", start=False) as (a, b):
        relay = Relay(a.transport.mesh_port)
        await relay.start()
        try:
            a.transport.set_peers([a.peer, b.peer])
            b.transport.set_peers([replace(a.peer, mesh_port=relay.port), b.peer])
            await until(lambda: linked(a, b))
            yield a, b, relay
        finally:
            await b.transport.close()
            await relay.close()
            b.up()


async def test_a_recorded_connection_replayed() -> None:
    """From the first byte, against the same port: the handshake fails, for the server's part of it is another one. The
    order and the vote in it are heard once."""
    async with overheard() as (a, b, relay):
        said: list[Message] = [run(), sample(Vote, term=3)]
        for message in said:
            b.transport.send("a", message)
        await until(lambda: a.messages("b") == said)
        refused = a.transport.counters.refused
        reader, writer = await asyncio.open_connection(HOST, a.transport.mesh_port)
        writer.write(relay.recorded)
        with suppress(*GONE):
            async with asyncio.timeout(5):
                await reader.read()
        await until(lambda: a.transport.counters.refused > refused)
        writer.close()
        b.transport.send("a", run(9))
        await until(lambda: a.messages("b") == [*said, run(9)])


async def test_a_recorded_message_replayed_into_its_own_connection() -> None:
    """The same ciphertext right behind itself: its nonce is used up, the connection is dropped. The message is heard
    once, and the member is back by itself."""
    async with overheard() as (a, b, relay):
        before = len(relay.recorded)
        b.transport.send("a", run(1))
        await until(lambda: a.messages("b") == [run(1)])
        relay.say_again(relay.recorded[before:])
        await until(lambda: not b.transport.connected("a"))
        await until(lambda: linked(a, b))
        b.transport.send("a", run(2))
        await until(lambda: a.messages("b")[-1] == run(2))
        assert a.messages("b") == [run(1), run(2)]
