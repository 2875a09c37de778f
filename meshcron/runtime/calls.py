"""Requests that another agent answers: the leader takes writes, output is read where the command ran.

The caller's token travels along and is checked again over there: no agent's word counts.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping

import structlog
from msgspec import Struct

from meshcron.errors import NoLeader, OutcomeUnknown
from meshcron.messages import Call, Message, Reply
from meshcron.runtime.tasks import Tasks

PIECE_BYTES = 256 * 1024
"""Of an answer in one Reply, under the 512 KiB of a message."""

ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""More than that is refused: it has to fit into the memory of both agents."""

CALL_SECONDS = 6.0
"""A little longer than the leader itself waits for a commit."""

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


class Waiting(Struct):
    """A call on its way."""

    to: str
    done: asyncio.Future[Answered | None]
    """None: that agent has ended."""
    first: Reply | None = None
    pieces: list[bytes] = []
    size: int = 0


Serve = Callable[[str, Call], Awaitable[Answered]]
"""(node id of the asking agent, call) -> the answer."""


class Calls:
    """Both ends, on the loop's thread."""

    def __init__(self, send: Callable[[str, Message], None], serve: Serve, tasks: Tasks) -> None:
        self._send = send
        self._serve = serve
        self._tasks = tasks
        self._waiting: dict[str, Waiting] = {}

    async def ask(self, to: str, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answered:
        """Have another agent answer. Where it does not within CALL_SECONDS, or ends meanwhile: raises NoLeader for what
        only reads, OutcomeUnknown for everything else."""
        call_id = secrets.token_hex(8)
        waiting = Waiting(to, asyncio.get_running_loop().create_future())
        self._waiting[call_id] = waiting
        try:
            payload = (body,) if body else ()
            self._send(to, Call(call_id=call_id, method=method, path=path, headers=headers, payload=payload))
            async with asyncio.timeout(CALL_SECONDS):
                answer = await waiting.done
            why = "has ended"
        except TimeoutError:
            answer, why = None, f"did not answer within {CALL_SECONDS:g} s"
        finally:
            del self._waiting[call_id]
        if answer is not None:
            return answer
        if method in {"GET", "HEAD", OUTPUT}:
            raise NoLeader(f"the agent that knows {why}")
        raise OutcomeUnknown(f"the leader {why}; it may still take effect")

    def gone(self, node_id: str) -> None:
        """That agent's process has ended: what it was asked it will never answer."""
        for waiting in self._waiting.values():
            if waiting.to == node_id and not waiting.done.done():
                waiting.done.set_result(None)

    def answered(self, sender: str, reply: Reply) -> None:
        """A piece of an answer. Pieces of one connection arrive in order; a gap means that one was lost."""
        waiting = self._waiting.get(reply.call_id)
        if waiting is None or waiting.to != sender or waiting.done.done() or reply.number != len(waiting.pieces):
            return
        waiting.first = waiting.first or reply
        piece = b"".join(reply.payload)
        waiting.pieces.append(piece)
        waiting.size += len(piece)
        if waiting.size > ANSWER_BYTES_MAX:
            return
        if reply.last:
            first = waiting.first
            body = b"".join(waiting.pieces)
            waiting.done.set_result(Answered(first.status, first.headers, body, first.applied_index))

    def asked(self, sender: str, call: Call) -> None:
        """Another agent asks us."""
        self._tasks.start(f"call of {sender[:8]}", self._answer(sender, call))

    async def _answer(self, sender: str, call: Call) -> None:
        answer = await self._serve(sender, call)
        pieces = [answer.body[at : at + PIECE_BYTES] for at in range(0, len(answer.body), PIECE_BYTES)] or [b""]
        for number, piece in enumerate(pieces):
            reply = Reply(
                call_id=call.call_id,
                number=number,
                last=number == len(pieces) - 1,
                status=answer.status if number == 0 else 0,
                headers=dict(answer.headers) if number == 0 else {},
                applied_index=answer.applied_index if number == 0 else 0,
                payload=(piece,),
            )
            self._send(sender, reply)
