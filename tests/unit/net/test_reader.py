"""A zmq socket on the loop: nothing stays unread, nothing keeps the loop, whatever the taker does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import zmq

from meshcron.net import reader as module
from meshcron.net.reader import PARTS_MAX, Reader

DEADLINE_SECONDS = 10.0


class Pipe:
    """Two ends of an inproc connection, one of them read by a Reader."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.far = self.context.socket(zmq.PAIR)
        self.near = self.context.socket(zmq.PAIR)
        for end in (self.far, self.near):
            end.sndhwm = end.rcvhwm = 0
        self.far.bind("inproc://pipe")
        self.near.connect("inproc://pipe")
        self.taken: list[list[bytes]] = []
        self.turns: list[int] = []
        self.reader = Reader(self.near, self.take)

    def take(self, parts: list[zmq.Frame]) -> None:
        self.taken.append([part.bytes for part in parts])

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():  # noqa: ASYNC110 - whatever the condition, it is looked at each turn
                await asyncio.sleep(0)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe that is gone after the test."""
    made = Pipe()
    yield made
    made.context.destroy(linger=0)


def story(told: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(told())  # type: ignore[arg-type]


def test_what_was_there_before_and_what_comes_later(pipe: Pipe) -> None:
    """The descriptor tells of changes only; the reader looks by itself at first."""

    async def told() -> None:
        pipe.far.send(b"before")
        pipe.reader.start()
        await pipe.until(lambda: pipe.taken)
        pipe.far.send_multipart([b"later", b"", b"in parts"])
        await pipe.until(lambda: len(pipe.taken) == 2)
        pipe.reader.close()
        pipe.reader.close()

    story(told)
    assert pipe.taken == [[b"before"], [b"later", b"", b"in parts"]]


def test_a_flood_is_taken_in_turns(pipe: Pipe) -> None:
    """Ten thousand messages at once: all come, and between any 200 of them others have had a turn."""
    seen: list[int] = []

    async def told() -> None:
        loop = asyncio.get_running_loop()

        def other() -> None:
            seen.append(len(pipe.taken))
            if len(pipe.taken) < 10_000:
                loop.call_soon(other)

        for number in range(10_000):
            pipe.far.send(str(number).encode())
        pipe.reader.start()
        other()
        await pipe.until(lambda: len(pipe.taken) == 10_000)
        pipe.reader.close()

    story(told)
    assert [int(parts[0]) for parts in pipe.taken] == list(range(10_000))
    assert max(after - before for before, after in pairwise(seen)) <= 200


def test_a_slow_taker_ends_the_turn_early(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one message is much work, a turn is few messages."""
    monkeypatch.setattr(module, "TURN_SECONDS", 0.0)
    seen: list[int] = []

    async def told() -> None:
        for _ in range(10):
            pipe.far.send(b"work")
        pipe.reader.start()
        while len(pipe.taken) < 10:
            seen.append(len(pipe.taken))
            await asyncio.sleep(0)
        pipe.reader.close()

    story(told)
    assert max(after - before for before, after in pairwise(seen)) == 1


def test_a_taker_that_raises_loses_its_message_only(pipe: Pipe) -> None:
    """The error goes to the loop's handler; what came behind it is read without another sign from zmq."""
    raised: list[str] = []

    def take(parts: list[zmq.Frame]) -> None:
        if parts[0].bytes == b"bad":
            raise ValueError("as a bug would")
        pipe.take(parts)

    async def told() -> None:
        handler = lambda _loop, context: raised.append(str(context["exception"]))  # noqa: E731
        asyncio.get_running_loop().set_exception_handler(handler)
        reader = Reader(pipe.near, take)
        for text in (b"bad", b"good", b"bad", b"better"):
            pipe.far.send(text)
        reader.start()
        await pipe.until(lambda: len(pipe.taken) == 2)
        reader.close()

    story(told)
    assert pipe.taken == [[b"good"], [b"better"]]
    assert raised == ["as a bug would"] * 2


def test_a_taker_may_close_reader_and_socket(pipe: Pipe) -> None:
    """As happens to the socket of a peer that is forgotten because of what it said."""

    async def told() -> None:
        def take(parts: list[zmq.Frame]) -> None:
            pipe.take(parts)
            reader.close()
            pipe.near.close()

        reader = Reader(pipe.near, take)
        for _ in range(3):
            pipe.far.send(b"x")
        reader.start()
        await pipe.until(lambda: pipe.taken)
        for _ in range(5):
            await asyncio.sleep(0)

    story(told)
    assert len(pipe.taken) == 1


def test_an_endless_message_is_seen_once_and_dropped(pipe: Pipe) -> None:
    """Its first parts are shown, so that it can be counted; its rest is nothing, and the next message is whole."""

    async def told() -> None:
        pipe.far.send_multipart([b"x"] * (3 * PARTS_MAX + 7))
        pipe.far.send_multipart([b"the", b"next"])
        pipe.reader.start()
        await pipe.until(lambda: [b"the", b"next"] in pipe.taken)
        pipe.reader.close()

    story(told)
    assert [len(parts) for parts in pipe.taken] == [PARTS_MAX, 2]
