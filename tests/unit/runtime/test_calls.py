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
    """Says who asked what; who reads hears it at length."""
    body = BODY if call.method == "GET" else b"x"
    return Answered(200, {"asked": f"{sender} {call.method} {call.path}"}, body, 7)


class Pair:
    """The calls of agents a and b, and what is sent between them; `cut` loses the calls, `mute` the answers."""

    def __init__(self) -> None:
        self.tasks = Tasks()
        self.sent: list[Message] = []
        self.more = asyncio.Event()
        self.asked: list[str] = []
        self.cut = False
        self.mute = False
        self.a = Calls(self._from_a, self._serve, self.tasks, session=1)
        self.b = Calls(self._from_b, self._serve, self.tasks, session=2)

    async def _serve(self, sender: str, call: Call) -> Answered:
        self.asked.append(call.path)
        return await serve(sender, call)

    def _from_a(self, to: str, message: Message) -> None:
        self.sent.append(message)
        self.more.set()
        if isinstance(message, Call) and not self.cut:
            self.b.asked("a", message)

    def _from_b(self, to: str, message: Message) -> None:
        if isinstance(message, Reply) and not self.mute:
            self.a.answered("b", message)

    async def until_sent(self, count: int) -> None:
        """Until a has sent so many messages; then what it sends gets through, both ways."""
        async with asyncio.timeout(10):
            while len(self.sent) < count:
                self.more.clear()
                await self.more.wait()
        self.cut = self.mute = False


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


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_call_that_was_lost_is_sent_again(method: str) -> None:
    """As by a connection that the other agent refused because it did not know us yet."""

    async def story() -> None:
        pair = Pair()
        pair.a.met("b", 2)
        pair.cut = True
        asking = asyncio.ensure_future(pair.a.ask("b", method, "/", {}))
        await pair.until_sent(2)
        assert (await asking).status == 200
        assert pair.asked == ["/"]
        await pair.tasks.close()

    asyncio.run(story())


def test_a_write_whose_answer_was_lost_is_done_once() -> None:
    """The second copy gets the answer to the first."""

    async def story() -> None:
        pair = Pair()
        pair.a.met("b", 2)
        pair.mute = True
        asking = asyncio.ensure_future(pair.a.ask("b", "POST", "/", {}))
        await pair.until_sent(1)
        pair.mute = True
        await pair.until_sent(2)
        assert (await asking).status == 200
        assert pair.asked == ["/"]
        await pair.tasks.close()

    asyncio.run(story())


def test_answers_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that the oldest are not said again; what was done is not done again either."""
    monkeypatch.setattr("meshcron.runtime.calls.KEPT_BYTES_MAX", 3)

    async def story() -> None:
        pair = Pair()
        for _ in range(10):
            await pair.a.ask("b", "POST", "/", {})
        first, last = pair.sent[0], pair.sent[-1]
        assert isinstance(first, Call)
        assert isinstance(last, Call)
        again: list[Message] = []
        monkeypatch.setattr(pair.b, "_send", lambda _to, message: again.append(message))
        pair.b.asked("a", first)
        pair.b.asked("a", last)
        assert [one.call_id for one in again if isinstance(one, Reply)] == [last.call_id]
        assert len(pair.asked) == 10
        await pair.tasks.close()

    asyncio.run(story())


def test_a_restarted_agent_does_not_what_its_earlier_session_was_asked() -> None:
    """That one may have done it."""

    async def story() -> None:
        pair = Pair()
        pair.a.met("b", 1)
        with pytest.raises(OutcomeUnknown, match="has ended"):
            await pair.a.ask("b", "POST", "/", {})
        assert pair.asked == []
        await pair.tasks.close()

    asyncio.run(story())


def test_a_write_to_an_agent_not_heard_yet_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was restarted in between could not be told."""
    monkeypatch.setattr("meshcron.runtime.calls.CALL_SECONDS", 0.3)
    monkeypatch.setattr("meshcron.runtime.calls.REPEAT_SECONDS", 0.05)

    async def story() -> None:
        pair = Pair()
        pair.cut = True
        with pytest.raises(OutcomeUnknown, match="did not answer"):
            await pair.a.ask("b", "POST", "/", {})
        assert len(pair.sent) == 1
        await pair.tasks.close()

    asyncio.run(story())
