"""Calls between agents: an answer in pieces, and what the asker hears when there is none."""

from __future__ import annotations

import asyncio

import pytest

from meshcron.errors import NoLeader, OutcomeUnknown, TooLarge
from meshcron.messages import Call, Message, Reply
from meshcron.runtime.calls import BODY_BYTES_MAX, ENDED, OUTPUT, PIECE_BYTES, Answered, Calls
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

    def ask(self, method: str = "POST", **headers: str) -> asyncio.Task[Answered | None]:
        """a asks b, who takes itself for the leader."""
        return asyncio.ensure_future(self.a.ask("b", method, "/", headers))

    def said_again(self, call: Message) -> list[int]:
        """The status of what b says to a copy of a call."""
        assert isinstance(call, Call)
        said: list[int] = []
        send = self.b._send
        self.b._send = lambda _to, reply: said.append(reply.status) if isinstance(reply, Reply) else None
        self.b.asked("a", call)
        self.b._send = send
        return said

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
        answer = await asking
        assert answer is not None
        assert answer.status == 200
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
        answer = await asking
        assert answer is not None
        assert answer.status == 200
        assert pair.asked == ["/"]
        await pair.tasks.close()

    asyncio.run(story())


@pytest.mark.parametrize("bound", ["KEPT_MAX", "KEPT_BYTES_MAX"])
def test_answers_kept_are_bounded(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that the oldest are not said again; what was done is not done again either."""
    monkeypatch.setattr(f"meshcron.runtime.taken.{bound}", 3)

    async def story() -> None:
        pair = Pair()
        for _ in range(10):
            await pair.a.ask("b", "POST", "/", {})
        assert [pair.said_again(call) for call in pair.sent] == [[ENDED]] * 7 + [[200]] * 3
        assert len(pair.asked) == 10
        await pair.tasks.close()

    asyncio.run(story())


def test_a_copy_that_comes_after_a_long_sleep_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader did the write, and was suspended for an hour before its answer left; meanwhile a copy lay in its
    queue. However late it is read, it gets the answer to the first."""

    async def story() -> None:
        pair = Pair()
        await pair.ask()
        loop, real = asyncio.get_running_loop(), asyncio.get_running_loop().time
        monkeypatch.setattr(loop, "time", lambda: real() + 3600)
        for _ in range(3):
            await asyncio.sleep(0)  # whatever was due meanwhile
        assert pair.said_again(pair.sent[0]) == [200]
        assert pair.asked == ["/"]
        await pair.tasks.close()

    asyncio.run(story())


def test_calls_sort_as_they_were_asked_over_all_starts() -> None:
    """So what is forgotten can be told from what is new, also when the asker was restarted."""

    async def story() -> None:
        pair = Pair()
        for _ in range(20):
            await pair.ask()
        pair.a = Calls(pair._from_a, pair._serve, pair.tasks, session=10)
        await pair.ask()
        ids = [call.call_id for call in pair.sent if isinstance(call, Call)]
        assert ids == sorted(set(ids))
        assert len(pair.asked) == 21
        await pair.tasks.close()

    asyncio.run(story())


def test_one_agent_piles_up_no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the cap it hears 503 at once, and that nothing was done stays true of every copy; others are served, and
    so is it once something is answered."""
    monkeypatch.setattr("meshcron.runtime.taken.OPEN_MAX", 3)

    async def story() -> None:
        pair, free = Pair(), asyncio.Event()

        async def slow(sender: str, call: Call) -> Answered:
            await free.wait()
            return await pair._serve(sender, call)

        pair.b = Calls(pair._from_b, slow, pair.tasks, session=2)
        open_calls = [pair.ask() for _ in range(3)]
        refused, read = await pair.ask(), await pair.ask("GET")
        for answer in (refused, read):
            assert answer is not None
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert b"no_leader" in answer.body
        pair.b.asked("c", Call(call_id="1", method="POST", path="/of-c", headers={}))
        free.set()
        assert [one.status for one in await asyncio.gather(*open_calls) if one] == [200] * 3
        assert pair.said_again(pair.sent[3]) == [ENDED]
        assert sorted(pair.asked) == ["/", "/", "/", "/of-c"]
        served = await pair.ask()
        assert served is not None
        assert served.status == 200
        await pair.tasks.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NoLeader("starting"), 503, b"no_leader"),
        (OutcomeUnknown("late"), 503, b"outcome_unknown"),
        (KeyError(), 500, b"internal"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_whatever_goes_wrong_is_answered(method: str, error: Exception, status: int, code: bytes) -> None:
    """As the API says it: an agent that is only starting, and a defect of ours. Nobody waits for nothing."""

    async def story() -> None:
        pair = Pair()

        async def fails(_sender: str, _call: Call) -> Answered:
            raise error

        pair.b = Calls(pair._from_b, fails, pair.tasks, session=2)
        answer = await pair.ask(method)
        assert answer is not None
        assert (answer.status, "Retry-After" in answer.headers) == (status, status == 503)
        assert code in answer.body
        await pair.tasks.close()

    asyncio.run(story())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_new_leader_ends_the_wait_for_the_old_one(method: str) -> None:
    """It stands still and says nothing. What may be asked again of the new one is: a read, and a write with a key;
    any other write may have been done, and its caller hears so."""

    async def story() -> None:
        pair = Pair()
        pair.a.led_by("b")
        pair.cut = True
        plain, keyed, output = pair.ask(method), pair.ask(method, **{"Idempotency-Key": "k"}), pair.ask(OUTPUT)
        await asyncio.sleep(0)
        pair.a.led_by("")
        pair.a.led_by("c")
        assert await keyed is None
        if method == "GET":
            assert await plain is None
        else:
            with pytest.raises(OutcomeUnknown, match="leads no more"):
                await plain
        assert not output.done()
        pair.a.gone("b")
        with pytest.raises(NoLeader):
            await output
        assert await pair.ask(method) is None  # not even sent to the old one
        assert len(pair.sent) == 3
        await pair.tasks.close()

    asyncio.run(story())


def test_the_old_leaders_last_answer_counts() -> None:
    """At a hand-over it is on its way when the new leader is heard of."""

    async def story() -> None:
        pair = Pair()
        pair.cut = True
        asking = pair.ask()
        await asyncio.sleep(0)
        pair.a.led_by("c")
        for _ in range(3):
            await asyncio.sleep(0)
        (call,) = pair.sent
        assert isinstance(call, Call)
        pair.b.asked("a", call)
        answer = await asking
        assert answer is not None
        assert answer.status == 200
        await pair.tasks.close()

    asyncio.run(story())


def test_a_body_that_no_message_holds_is_refused() -> None:
    """At once, instead of a wait for an answer to what was never sent."""

    async def story() -> None:
        pair = Pair()
        with pytest.raises(TooLarge):
            await pair.a.ask("b", "POST", "/", {}, b"x" * (BODY_BYTES_MAX + 1))
        assert pair.sent == []

    asyncio.run(story())


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not gathered beyond the limit."""
    monkeypatch.setattr("meshcron.runtime.calls.ANSWER_BYTES_MAX", PIECE_BYTES)

    async def story() -> None:
        pair = Pair()
        with pytest.raises(NoLeader, match="answers more than"):
            await pair.ask("GET")
        await pair.tasks.close()

    asyncio.run(story())


def test_a_restarted_agent_does_not_what_its_earlier_session_was_asked() -> None:
    """That one may have done it."""

    async def story() -> None:
        pair = Pair()
        pair.a.met("b", 1)
        with pytest.raises(OutcomeUnknown, match="started again"):
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
