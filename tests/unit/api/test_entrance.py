"""Connections come in while there is room, and an accept that fails is tried again later."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from meshcron.api import entrance as module
from meshcron.api.entrance import Entrance

TURNS = 20
"""Of the loop: more than it takes to notice anything."""


class Building:
    """A listening socket and its entrance, with room for two; who came in, and what was said."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self.inside: list[socket.socket] = []
        self.said: list[tuple[str, str, str]] = []
        self.entrance = Entrance(self._take, most=2, say=lambda *words: self.said.append(words))

    def _take(self, connection: socket.socket, address: Any) -> None:
        self.inside.append(connection)
        self.entrance.came()

    def knock(self) -> socket.socket:
        return socket.create_connection(self.listening.getsockname())

    def close(self, *guests: socket.socket) -> None:
        self.entrance.close()
        for one in (*guests, *self.inside):
            one.close()


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        one.setblocking(False)
        yield one


def test_no_more_than_there_is_room_for(listening: socket.socket) -> None:
    """The third waits in the kernel, which is said; when one of the two goes it is let in."""
    building = Building(listening)

    async def story() -> None:
        building.entrance.open([listening])
        guests = [building.knock() for _ in range(3)]
        await turns()
        assert len(building.inside) == building.entrance.connections == 2
        assert building.said == [("no HTTP connection is accepted until one closes", "", "2 are open")]
        building.entrance.went()
        await turns()
        assert len(building.inside) == 3
        building.close(*guests)

    asyncio.run(story())


class OutOfFiles(socket.socket):
    """A listening socket that cannot accept for a while."""

    failures = 0
    failing = True

    def accept(self) -> tuple[socket.socket, Any]:
        """As the real one, or EMFILE."""
        if self.failing:
            self.failures += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def test_without_descriptors_it_tries_again_later(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """One failure, one line, and not one turn of the loop more, also when a connection closes; then it goes on."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 3600.0)

    async def story(building: Building, short: OutOfFiles) -> None:
        building.entrance.open([short])
        guest = building.knock()
        await turns()
        building.entrance.came()
        building.entrance.went()
        await turns()
        assert short.failures == 1
        assert building.said == [("no HTTP connection can be accepted for now", "", "Too many open files")]
        building.entrance.close()
        short.failing = False
        building.entrance.open([short])
        await turns()
        assert len(building.inside) == 1
        building.close(guest)

    with OutOfFiles(fileno=os.dup(listening.fileno())) as short:
        short.setblocking(False)
        asyncio.run(story(Building(listening), short))


def test_the_pause_ends_by_itself(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while it accepts again, without anybody's help."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)

    async def story(building: Building, short: OutOfFiles) -> None:
        building.entrance.open([short])
        guest = building.knock()
        await turns()
        assert short.failures > 1
        short.failing = False
        await turns()
        assert len(building.inside) == 1
        building.close(guest)

    with OutOfFiles(fileno=os.dup(listening.fileno())) as short:
        short.setblocking(False)
        asyncio.run(story(Building(listening), short))
