"""Calls between agents: an answer in pieces, and what the asker hears when there is none."""

from __future__ import annotations

import asyncio

import pytest

from meshcron.errors import NoLeader, OutcomeUnknown
from meshcron.messages import Call, Message, Reply
from meshcron.runtime.calls import OUTPUT, PIECE_BYTES, Answered, Calls
from meshcron.runtime.tasks import Tasks

BODY = b"x" * (PIECE_BYTES + 1)


async def serve(sender: str, call: Call) -> Answered:
    """Says who asked what, at length."""
    return Answered(200, {"asked": f"{sender} {call.method} {call.path}"}, BODY, 7)


class Pair:
    """The calls of agents a and b, and what is sent between them; `cut` loses it."""

    def __init__(self) -> None:
        self.tasks = Tasks()
        self.sent: list[Message] = []
        self.cut = False
        self.a = Calls(self._from_a, serve, self.tasks)
        self.b = Calls(self._from_b, serve, self.tasks)

    def _from_a(self, to: str, message: Message) -> None:
        self.sent.append(message)
        if isinstance(message, Call) and not self.cut:
            self.b.asked("a", message)

    def _from_b(self, to: str, message: Message) -> None:
        if isinstance(message, Reply):
            self.a.answered("b", message)


def test_an_answer_arrives_whole() -> None:
    """However many pieces it takes."""

    async def story() -> None:
        pair = Pair()
        answer = await pair.a.ask("b", "GET", "/v1/jobs", {})
        assert answer == Answered(200, {"asked": "a GET /v1/jobs"}, BODY, 7)
        await pair.tasks.close()

    asyncio.run(story())


@pytest.mark.parametrize(("method", "error"), [("POST", OutcomeUnknown), ("GET", NoLeader), (OUTPUT, NoLeader)])
def test_an_agent_that_ends_answers_nothing(method: str, error: type[Exception]) -> None:
    """Whoever waits for it hears so at once, not when the time is up; others wait on."""

    async def story() -> None:
        pair = Pair()
        pair.cut = True
        asking = asyncio.ensure_future(pair.a.ask("b", method, "/", {}))
        await asyncio.sleep(0)
        assert pair.sent
        pair.a.gone("c")
        await asyncio.sleep(0)
        assert not asking.done()
        pair.a.gone("b")
        with pytest.raises(error, match="has ended"):
            await asking
        await pair.tasks.close()

    asyncio.run(story())
