"""What other agents answer for this one, and what this one answers for them.

A request travels as it came, token included, and is put to the other agent's own API: one way in, one place where
rights are checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import structlog

from meshcron.core.agent import Agent
from meshcron.errors import NoLeader, OutcomeUnknown, RefusedByMembers
from meshcron.messages import Call
from meshcron.model import Execution
from meshcron.runtime.calls import OUTPUT, READS, Answered, Calls, unavailable
from meshcron.runtime.process import Processes
from meshcron.service import VIA_HEADER, OutputChunk, Told

SHOWN_SECONDS = 5.0
"""How long a write of the leader's may take to be seen here (PROTOCOL 10, 14): as long as a commit of our own."""

LOOK_SECONDS = 0.002
"""Between two looks whether it is."""

OUTPUT_BYTES_MAX = 256 * 1024
"""Of output in one call."""

ASKS_MAX = 5
"""A request whose leader was replaced is asked so often in all: a new leader may only be beginning."""

BEGIN_SECONDS = 0.2
"""Between them: a new leader begins once an entry of its own is committed."""

REQUEST_SECONDS = 6.0
"""A little longer than the API itself waits for a commit."""

HOP_HEADERS = frozenset({"date", "server", "content-length", "connection", "transfer-encoding", "vary"})
"""Of an answer: each agent says these for itself."""

ReadOutput = Callable[[str, int, int], OutputChunk]
"""(execution id, offset, most bytes) -> a piece of output that lies on this machine."""

OwnApi = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Told | None]]
"""(method, uri, headers, body) -> what this agent's API answers to that request; None = it breaks off, or is more
than fits into a call."""


log = structlog.get_logger("meshcron")


class OtherAgents:
    """The asking side; what api/ knows as Elsewhere."""

    def __init__(
        self,
        agent: Agent,
        node_id: str,
        calls: Calls,
        own_token: str,
        *,
        auth_on: bool,
        index_on_disk: Callable[[], int],
    ) -> None:
        """`own_token`: this agent's local token, sent for callers that need none here (auth off). `index_on_disk`: the
        last entry of the log that whoever reads here sees."""
        self._agent = agent
        self._index_on_disk = index_on_disk
        self._node_id = node_id
        self._calls = calls
        self._own_token = own_token
        self._auth_on = auth_on

    def knows_tokens(self) -> bool:
        """Whether this agent holds the log, and with it the tokens."""
        return self._agent.holds_log

    def where(self) -> str:
        """Node id of the leader, "" = this agent. Raises NoLeader, RefusedByMembers."""
        if self._agent.leading:
            return ""
        if self._agent.refused:
            raise RefusedByMembers(self._agent.refused)
        leader = self._agent.leader
        if not leader or leader == self._node_id:
            raise NoLeader("no leader at the moment; try again")
        return leader

    async def ask(self, to: str, method: str, uri: str, headers: dict[str, str], body: bytes) -> Told | None:
        """Have the leader answer, a new one where it changes meanwhile and that is safe; this agent has applied the
        write when it returns. None: this agent leads by now, and may answer itself. Raises NoLeader, OutcomeUnknown,
        TooLarge."""
        # A worker's own token opens next to nothing (role `local`): one that the caller has may open more.
        if not self._auth_on and (self._agent.may_command(self._node_id) or "Authorization" not in headers):
            headers = {**headers, "Authorization": f"Bearer {self._own_token}"}
        replaced = False
        for _ in range(ASKS_MAX):
            answer = await self._calls.ask(to, method, uri, headers, body)
            if answer is None:
                replaced = True
            elif replaced and answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
                await asyncio.sleep(BEGIN_SECONDS)
            else:
                return await self._told(method, answer)
            to = self._new_leader(method)
            if not to:
                return None
        raise self._unanswered(method, "the leader was replaced, and the new one takes nothing yet")

    async def _told(self, method: str, answer: Answered) -> Told:
        shown = not self._agent.holds_log or await self._is_shown(answer.applied_index)
        if not shown and method not in READS:
            raise OutcomeUnknown(f"written, and not to be seen at this agent within {SHOWN_SECONDS:g} s")
        return Told(answer.status, answer.headers, answer.body)

    def _new_leader(self, method: str) -> str:
        """As `where`, for what an earlier leader was asked, too: it may have done it."""
        try:
            return self.where()
        except NoLeader as error:
            raise self._unanswered(method, str(error)) from None

    @staticmethod
    def _unanswered(method: str, why: str) -> NoLeader | OutcomeUnknown:
        return NoLeader(why) if method in READS else OutcomeUnknown(f"{why}; the write may have been done")

    async def _is_shown(self, index: int) -> bool:
        """Whoever writes here reads his write here: jobs in memory, executions on the disk."""
        waited = 0.0
        while self._index_on_disk() < index:
            if waited >= SHOWN_SECONDS:
                return False
            await asyncio.sleep(LOOK_SECONDS)
            waited += LOOK_SECONDS
        return True

    def ran_here(self, execution: Execution) -> bool:
        """Whether the output lies on this machine; what ran nowhere has none anywhere."""
        return execution.node_id in {"", self._node_id}

    async def output(self, execution: Execution, offset: int, most: int) -> OutputChunk:
        """A piece of output from the agent that ran it; the recorded tail where that agent is gone."""
        headers = {"offset": str(offset), "most": str(most)}
        try:
            answer = await self._piece(execution, headers)
        except NoLeader:
            if offset or not execution.status.final:
                raise
            tail = execution.output_tail.encode()
            return OutputChunk(tail, len(tail), True)
        if answer.headers.get("ended") == "1" and not answer.body and not offset and execution.status.final:
            tail = execution.output_tail.encode()
            return OutputChunk(tail, len(tail), True)
        return OutputChunk(answer.body, int(answer.headers["next"]), answer.headers["ended"] == "1")

    async def _piece(self, execution: Execution, headers: dict[str, str]) -> Answered:
        """What its agent answers. Raises NoLeader where that is none."""
        answer = await self._calls.ask(execution.node_id, OUTPUT, execution.id, headers)
        if answer is None or answer.status != HTTPStatus.OK:
            raise NoLeader("the agent that ran it cannot show its output at the moment; try again")
        return answer


class Answering:
    """The answering side."""

    def __init__(self, agent: Agent, read_output: ReadOutput, own_api: OwnApi, secret: str) -> None:
        """`secret`: what tells the API that a request was passed on (VIA_HEADER)."""
        self._agent = agent
        self._read_output = read_output
        self._own_api = own_api
        self._secret = secret

    async def __call__(self, sender: str, call: Call) -> Answered:
        """What `sender` asks, for itself or for somebody at its API."""
        if call.method == OUTPUT:
            return self._output(sender, call)
        given = {name: value for name, value in call.headers.items() if name.lower() != VIA_HEADER.lower()}
        headers = {**given, VIA_HEADER: f"{self._secret} {sender}"}
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                told = await self._own_api(call.method, call.path, headers, b"".join(call.payload))
        except TimeoutError:
            return self._without_answer(call, f"did not answer within {REQUEST_SECONDS:g} s")
        if told is None:
            return self._without_answer(call, "broke off its answer, or has more than fits into a call")
        own = {name: value for name, value in told.headers.items() if name.lower() not in HOP_HEADERS}
        return Answered(told.status, own, told.body, self._agent.state.applied[0])

    @staticmethod
    def _without_answer(call: Call, why: str) -> Answered:
        log.warning("the own API has no answer to a call", method=call.method, path=call.path, why=why)
        if call.method in READS:
            return unavailable(NoLeader(f"the API of the agent that was asked {why}"))
        return unavailable(OutcomeUnknown(f"the leader's API {why}; the write may have been done"))

    def _output(self, sender: str, call: Call) -> Answered:
        """Only one that may hold the log has checked who wants to read."""
        if not self._agent.may_command(sender):
            return unavailable(NoLeader("only an agent that holds the log may ask for output"))
        offset, most = _whole(call.headers, "offset"), min(_whole(call.headers, "most"), OUTPUT_BYTES_MAX)
        chunk = self._read_output(call.path, offset, most)
        headers = {"next": str(chunk.next_offset), "ended": str(int(chunk.ended))}
        return Answered(200, headers, chunk.data, 0)


def read_here(processes: Processes) -> ReadOutput:
    """How output that lies on this machine is read."""

    def read(execution_id: str, offset: int, most: int) -> OutputChunk:
        data, next_offset, ended = processes.read_output(execution_id, offset, most)
        return OutputChunk(data, next_offset, ended)

    return read


def _whole(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    return int(text[:18]) if text.isascii() and text.isdecimal() else 0
