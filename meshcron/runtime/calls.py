"""Requests that another agent answers: the leader takes writes, output is read where the command ran.

The caller's token travels along and is checked again over there: no agent's word counts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from itertools import count

import structlog
from msgspec import Struct

from meshcron.errors import NoLeader, OutcomeUnknown, TooLarge
from meshcron.messages import Call, Message, Reply
from meshcron.runtime.taken import OPEN_MAX, Taken
from meshcron.runtime.tasks import Tasks

PIECE_BYTES = 256 * 1024
"""Of an answer in one Reply, under the 512 KiB of a message."""

ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""More than that is refused: it has to fit into the memory of both agents."""

CALL_SECONDS = 6.0
"""A little longer than the leader itself waits for a commit."""

REPEAT_SECONDS = 0.25
"""A call that is not answered is sent again after this, and each time after twice as long: one that left before the
other agent had let us in is lost (ZeroMQ drops what waits on a connection whose handshake was refused)."""

BODY_BYTES_MAX = 448 * 1024
"""Of a request: with 64 KiB for its URL and headers, quoted, it makes a message of 512 KiB."""

GRACE_SECONDS = 0.1
"""For an answer of the old leader's that is on its way when a new one is heard of: where that was a hand-over, the old
one lives."""

OUTPUT = "OUTPUT"
"""The method of a call that reads an execution's output: `path` is its id, the headers are offset and most."""

log = structlog.get_logger("meshcron")


class Answered(Struct, frozen=True):
    """What another agent said."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    applied_index: int
    """The asker shows a write only once it has applied this itself."""


class Unanswered(Struct, frozen=True):
    """There will be no answer. `moved`: because another agent leads."""

    why: str
    moved: bool = False


class Waiting(Struct):
    """A call on its way."""

    to: str
    for_leader: bool
    done: asyncio.Future[Answered | Unanswered]
    first: Reply | None = None
    pieces: list[bytes] = []
    size: int = 0

    def end(self, how: Answered | Unanswered) -> None:
        """The first word counts."""
        if not self.done.done():
            self.done.set_result(how)


ENDED = 0
"""The status of a Reply that says: a session that is over may have done this, or it was forgotten what became of it."""

CALL_DIGITS = 16
"""Hexadecimal, of each half of a call id: ids of one agent sort as it gave them."""

KEY_HEADER = "Idempotency-Key"
"""A write that carries it is done once, whoever leads (core/answers)."""

READS = frozenset({"GET", "HEAD", OUTPUT})
"""What may be done twice."""

TOO_MANY = f"{OPEN_MAX} requests of this agent wait for the leader already; try again"

Serve = Callable[[str, Call], Awaitable[Answered]]
"""(node id of the asking agent, call) -> the answer."""


class Calls:
    """Both ends, on the loop's thread."""

    def __init__(self, send: Callable[[str, Message], None], serve: Serve, tasks: Tasks, *, session: int) -> None:
        """`session`: this agent's own, which rises with each start."""
        self._send = send
        self._serve = serve
        self._tasks = tasks
        self._session = session
        self._numbers = count(1)
        self._waiting: dict[str, Waiting] = {}
        self._sessions: dict[str, int] = {}
        self._leader = ""
        self._taken = Taken()

    # asking

    def met(self, node_id: str, session: int) -> None:
        """That agent has spoken in this session."""
        self._sessions[node_id] = max(session, self._sessions.get(node_id, 0))

    def led_by(self, node_id: str) -> None:
        """Whom this agent now takes for the leader, "" for nobody."""
        self._leader = node_id
        if node_id and self._waiting:
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self._move)

    def _move(self) -> None:
        for waiting in self._waiting.values():
            if waiting.for_leader and self._leader not in {"", waiting.to} and not waiting.pieces:
                waiting.end(Unanswered("leads no more", moved=True))

    async def ask(self, to: str, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answered | None:
        """Have another agent answer: the leader, or for OUTPUT the one that ran it. Where it does not within
        CALL_SECONDS, or ends meanwhile: raises NoLeader for what only reads, OutcomeUnknown for everything else.
        None: another one leads by now, and may be asked the same, for that is safe. Raises TooLarge."""
        if len(body) > BODY_BYTES_MAX:
            raise TooLarge("body", f"is larger than {BODY_BYTES_MAX} bytes", "send it to the leader itself")
        if method != OUTPUT and self._leader not in {"", to}:
            return None
        call_id = f"{self._session:0{CALL_DIGITS}x}{next(self._numbers):0{CALL_DIGITS}x}"
        call = Call(
            call_id=call_id,
            method=method,
            path=path,
            headers=headers,
            session=self._sessions.get(to, 0),
            payload=(body,) if body else (),
        )
        answer = await self._answer_or_why(call, to)
        if isinstance(answer, Answered):
            return answer
        if answer.moved and (method in READS or headers.get(KEY_HEADER)):
            return None
        if method in READS:
            raise NoLeader(f"the agent that knows {answer.why}")
        raise OutcomeUnknown(f"the leader {answer.why}; the write may have been done, or still be")

    async def _answer_or_why(self, call: Call, to: str) -> Answered | Unanswered:
        waiting = Waiting(to, call.method != OUTPUT, asyncio.get_running_loop().create_future())
        self._waiting[call.call_id] = waiting
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self._answer_to(call, waiting)
        except TimeoutError:
            return Unanswered(f"did not answer within {CALL_SECONDS:g} s")
        finally:
            del self._waiting[call.call_id]

    async def _answer_to(self, call: Call, waiting: Waiting) -> Answered | Unanswered:
        pause = REPEAT_SECONDS
        self._send(waiting.to, call)
        while call.session or call.method in READS:
            done, _ = await asyncio.wait({waiting.done}, timeout=pause)
            if done:
                break
            pause *= 2
            if not waiting.pieces:
                self._send(waiting.to, call)
        return await waiting.done

    def gone(self, node_id: str) -> None:
        """That agent's process has ended: what it was asked it will never answer."""
        for waiting in self._waiting.values():
            if waiting.to == node_id:
                waiting.end(Unanswered("has ended"))

    def answered(self, sender: str, reply: Reply) -> None:
        """A piece of an answer. Pieces of one connection arrive in order; a gap means that one was lost."""
        waiting = self._waiting.get(reply.call_id)
        if waiting is None or waiting.to != sender or waiting.done.done() or reply.number != len(waiting.pieces):
            return
        if reply.number == 0 and reply.status == ENDED:
            waiting.end(Unanswered("was started again, or does not remember"))
            return
        waiting.first = waiting.first or reply
        piece = b"".join(reply.payload)
        waiting.pieces.append(piece)
        waiting.size += len(piece)
        if waiting.size > ANSWER_BYTES_MAX:
            waiting.end(Unanswered(f"answers more than {ANSWER_BYTES_MAX} bytes"))
        elif reply.last:
            first = waiting.first
            body = b"".join(waiting.pieces)
            waiting.end(Answered(first.status, first.headers, body, first.applied_index))

    # being asked

    def asked(self, sender: str, call: Call) -> None:
        """Another agent asks us. What it asked of an earlier session of ours may have been done then."""
        key, taken, reads = (sender, call.call_id), self._taken, call.method in READS
        if call.session not in {0, self._session}:
            self._send(sender, _ended(call))
        elif key in taken:
            if (reply := taken.reply_to(key)) is not None:
                self._send(sender, reply)
        elif not reads and taken.may_be_done(key):
            self._send(sender, _ended(call))
        elif taken.is_full(sender):
            if not reads:
                taken.forget(key)  # it hears that nothing was done: so a copy that is on its way may not be, either
            self._send(sender, _pieces(call.call_id, unavailable(NoLeader(TOO_MANY)))[0])
        else:
            taken.begin(key)
            self._tasks.start(f"call of {sender[:8]}", self._answer(sender, call))

    async def _answer(self, sender: str, call: Call) -> None:
        replies = _pieces(call.call_id, await self._served(sender, call))
        for reply in replies:
            self._send(sender, reply)
        key = sender, call.call_id
        if call.method in READS:
            self._taken.end(key)
        else:
            # Whoever loses a piece of an answer in several hears that its outcome is unknown.
            self._taken.keep(key, replies[0] if len(replies) == 1 else _ended(call))

    async def _served(self, sender: str, call: Call) -> Answered:
        """Whatever happens, there is an answer."""
        try:
            return await self._serve(sender, call)
        except (NoLeader, OutcomeUnknown) as error:
            log.warning("a call is refused", method=call.method, sender=sender, why=str(error))
            return unavailable(error)
        except Exception:
            log.exception("a call failed", method=call.method, sender=sender)
            return _error(500, "internal", "the agent that was asked failed; its log has the reason", {})


def _pieces(call_id: str, answer: Answered) -> list[Reply]:
    pieces = [answer.body[at : at + PIECE_BYTES] for at in range(0, len(answer.body), PIECE_BYTES)] or [b""]
    return [
        Reply(
            call_id=call_id,
            number=number,
            last=number == len(pieces) - 1,
            status=answer.status if number == 0 else 0,
            headers=dict(answer.headers) if number == 0 else {},
            applied_index=answer.applied_index if number == 0 else 0,
            payload=(piece,),
        )
        for number, piece in enumerate(pieces)
    ]


def _ended(call: Call) -> Reply:
    return Reply(call_id=call.call_id, number=0, last=True, status=ENDED)


def unavailable(error: NoLeader | OutcomeUnknown) -> Answered:
    """The answer that the API gives to such an error."""
    return _error(503, error.code, str(error), {"Retry-After": "1"})


def _error(status: int, code: str, why: str, headers: dict[str, str]) -> Answered:
    body = {"error": {"code": code, "message": why, "field": "", "hint": ""}}
    return Answered(
        status, {"Content-Type": "application/json; charset=UTF-8", **headers}, json.dumps(body).encode(), 0
    )
