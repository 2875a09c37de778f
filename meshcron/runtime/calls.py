"""Requests that another agent answers: the leader takes writes, output is read where the command ran.

The caller's token travels along and is checked again over there: no agent's word counts.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
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

REPEAT_SECONDS = 0.25
"""A call that is not answered is sent again after this, and each time after twice as long: one that left before the
other agent had let us in is lost (ZeroMQ drops what waits on a connection whose handshake was refused)."""

KEPT_SECONDS = 2 * CALL_SECONDS
"""For how long an answer is kept for a repeated call: no asker waits as long."""

KEPT_BYTES_MAX = 8 * 1024 * 1024
"""Of answers kept. Beyond that the oldest are known to have been given, and are not said again."""

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


ENDED = 0
"""The status of a Reply that says: the session that was asked has ended."""

READS = frozenset({"GET", "HEAD", OUTPUT})
"""What may be done twice."""

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
        self._waiting: dict[str, Waiting] = {}
        self._sessions: dict[str, int] = {}
        self._taken: dict[tuple[str, str], Reply | None] = {}
        """Calls that came here and may come again, with their answer once there is one."""
        self._kept: deque[tuple[tuple[str, str], int]] = deque()
        """Which of them hold an answer, oldest first, and its size."""
        self._kept_bytes = 0

    def met(self, node_id: str, session: int) -> None:
        """That agent has spoken in this session."""
        self._sessions[node_id] = max(session, self._sessions.get(node_id, 0))

    async def ask(self, to: str, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answered:
        """Have another agent answer. Where it does not within CALL_SECONDS, or ends meanwhile: raises NoLeader for what
        only reads, OutcomeUnknown for everything else."""
        call_id = secrets.token_hex(8)
        waiting = Waiting(to, asyncio.get_running_loop().create_future())
        self._waiting[call_id] = waiting
        try:
            call = Call(
                call_id=call_id,
                method=method,
                path=path,
                headers=headers,
                session=self._sessions.get(to, 0),
                payload=(body,) if body else (),
            )
            async with asyncio.timeout(CALL_SECONDS):
                answer = await self._answer_to(call, waiting)
            why = "has ended"
        except TimeoutError:
            answer, why = None, f"did not answer within {CALL_SECONDS:g} s"
        finally:
            del self._waiting[call_id]
        if answer is not None:
            return answer
        if method in READS:
            raise NoLeader(f"the agent that knows {why}")
        raise OutcomeUnknown(f"the leader {why}; it may still take effect")

    async def _answer_to(self, call: Call, waiting: Waiting) -> Answered | None:
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
            if waiting.to == node_id and not waiting.done.done():
                waiting.done.set_result(None)

    def answered(self, sender: str, reply: Reply) -> None:
        """A piece of an answer. Pieces of one connection arrive in order; a gap means that one was lost."""
        waiting = self._waiting.get(reply.call_id)
        if waiting is None or waiting.to != sender or waiting.done.done() or reply.number != len(waiting.pieces):
            return
        if reply.number == 0 and reply.status == ENDED:
            waiting.done.set_result(None)
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
        """Another agent asks us. What it asked of an earlier session of ours may have been done then."""
        key = sender, call.call_id
        if call.session not in {0, self._session}:
            self._send(sender, Reply(call_id=call.call_id, number=0, last=True, status=ENDED, applied_index=0))
        elif key not in self._taken:
            self._taken[key] = None
            self._tasks.start(f"call of {sender[:8]}", self._answer(sender, call))
        elif (reply := self._taken[key]) is not None:
            self._send(sender, reply)

    async def _answer(self, sender: str, call: Call) -> None:
        key = sender, call.call_id
        try:
            replies = _pieces(call.call_id, await self._serve(sender, call))
        except BaseException:
            del self._taken[key]
            raise
        for reply in replies:
            self._send(sender, reply)
        if call.method in READS:
            del self._taken[key]
        else:
            self._keep(key, replies)
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self._taken.pop, key)

    def _keep(self, key: tuple[str, str], replies: list[Reply]) -> None:
        if len(replies) > 1:
            return  # whoever has lost a piece of so long an answer hears that its outcome is unknown
        self._taken[key] = replies[0]
        self._kept.append((key, size := sum(map(len, replies[0].payload))))
        self._kept_bytes += size
        while self._kept_bytes > KEPT_BYTES_MAX or (self._kept and self._kept[0][0] not in self._taken):
            oldest, size = self._kept.popleft()
            self._kept_bytes -= size
            if oldest in self._taken:
                self._taken[oldest] = None


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
