"""The output of an execution as it was written: all of it, from a byte on, or as it comes."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, ClassVar

from meshcron.api import fields, views
from meshcron.api.handler import Handler
from meshcron.api.runs import OVER
from meshcron.errors import NoLeader
from meshcron.model import Execution
from meshcron.service import COMMIT_WAIT_SECONDS, OutputChunk

if TYPE_CHECKING:
    from meshcron.api.context import Context

CHUNK_BYTES = 64 * 1024
"""Output read and sent in one turn of the loop."""

LOOK_SECONDS_MIN = 0.05
LOOK_SECONDS_MAX = 0.5
"""Pause between two looks at an output that is followed; the shorter one right after something came."""

COMMENT_SECONDS = 15.0
"""After so much silence an event stream gets a comment, or proxies take it for dead."""

OFFSET = "X-Meshcron-Offset"
"""On a piece of an output, with `X-Meshcron-Over`: where the next one begins."""

TEXT_HEADER = "text/plain; charset=UTF-8"
EVENTS_HEADER = "text/event-stream"


async def piece(context: Context, found: Execution, offset: int, most: int) -> OutputChunk:
    """A piece of an output from the machine on which it lies. Raises NoLeader where that is not reached."""
    elsewhere = context.elsewhere
    if elsewhere is None or elsewhere.ran_here(found):
        return context.service.output(found, offset, most)
    return await elsewhere.output(found, offset, most)


class Output(Handler):
    """`GET .../executions/{id}/output?offset=&follow=true`, or one piece of it: `?offset=&piece=true`."""

    NEEDS: ClassVar = {"GET": "viewer"}

    async def get(self, name: str, execution_id: str) -> None:
        """The bytes as written; with `Accept: text/event-stream` as events, whose ids are where to go on."""
        found = self.context.service.execution(fields.name(name, "name"), execution_id)
        as_events = EVENTS_HEADER in self.request.headers.get("Accept", "")
        offset = self._offset(as_events)
        follow = bool(self.query.flag("follow"))
        # The first piece before any header, so that what goes wrong is still an answer of its own.
        first = await self._piece(found, offset)
        self.set_header("Content-Type", EVENTS_HEADER if as_events else TEXT_HEADER)
        if self.request.method == "HEAD":
            return
        passed_on = bool(self.admission.via)  # by a call, which waits for the whole answer
        if as_events:
            await self._send_events(name, found, first, follow=follow and not passed_on)
        elif self.query.flag("piece") or (follow and passed_on):
            self.set_header(OVER, "true" if first.ended else "false")
            self.set_header(OFFSET, str(first.next_offset))
            self.finish(first.data)
        else:
            await self._send_bytes(found, first, follow=follow)

    async def _piece(self, found: Execution, offset: int) -> OutputChunk:
        return await piece(self.context, found, offset, CHUNK_BYTES)

    def _offset(self, as_events: bool) -> int:
        resumed = self.request.headers.get("Last-Event-ID", "")
        if as_events and resumed.isascii() and resumed.isdecimal():
            return fields.whole(0, 2**53)(int(resumed[:20]), "Last-Event-ID")
        return self.query.whole("offset") or 0

    async def _send_bytes(self, found: Execution, chunk: OutputChunk, *, follow: bool) -> None:
        pause = LOOK_SECONDS_MIN
        while True:
            if chunk.data:
                self.write(chunk.data)
                pause = LOOK_SECONDS_MIN
            if chunk.ended or (not chunk.data and not follow):
                return
            if not await self.sent():
                return
            if not chunk.data:
                if await self.pause(pause):
                    return
                pause = min(pause * 2, LOOK_SECONDS_MAX)
            chunk = await self._piece(found, chunk.next_offset)

    async def _send_events(self, name: str, found: Execution, chunk: OutputChunk, *, follow: bool) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pause, silent_seconds = LOOK_SECONDS_MIN, 0.0
        while True:
            text = decoder.decode(chunk.data, final=chunk.ended)
            if text:
                # Half a character stays in the decoder: who goes on from this id gets it whole.
                self._event("output", chunk.next_offset - len(decoder.getstate()[0]), {"output": text})
                pause, silent_seconds = LOOK_SECONDS_MIN, 0.0
            elif silent_seconds >= COMMENT_SECONDS:
                self.write(b": still running\n\n")
                silent_seconds = 0.0
            if chunk.ended:
                await self._send_end(name, found, chunk.next_offset, follow=follow)
                return
            if not await self.sent() or (not chunk.data and not follow):
                return
            if not chunk.data:
                if await self.pause(pause):
                    return
                silent_seconds += pause
                pause = min(pause * 2, LOOK_SECONDS_MAX)
            chunk = await self._piece(found, chunk.next_offset)

    async def _send_end(self, name: str, found: Execution, offset: int, *, follow: bool) -> None:
        """How it ended, once that is committed and on this agent's disk: its process has ended before. Who follows
        waits for it as long as a write does. Raises NoLeader where it does not come, so that the stream breaks off and
        is asked for again."""
        deadline, pause = self.context.monotonic() + COMMIT_WAIT_SECONDS, LOOK_SECONDS_MIN
        while not (ending := self.context.service.execution(name, found.public_id)).status.final:
            if not follow or not await self.sent():
                return
            if self.context.monotonic() >= deadline:
                raise NoLeader("how it ended is not committed yet; try again")
            if await self.pause(pause):
                return
            pause = min(pause * 2, LOOK_SECONDS_MAX)
        self._event("end", offset, views.execution(ending, name, output=""))

    def _event(self, kind: str, offset: int, value: views.Shown) -> None:
        self.write(f"event: {kind}\nid: {offset}\ndata: ".encode() + views.encode(value) + b"\n\n")
