"""How an agent's process ends: it is asked to, it has to, or it begins again as a newcomer."""

from __future__ import annotations

import asyncio
import os
import signal

START_OVER = -1
"""Not an exit code: begin again as a newcomer."""


class Finish:
    """The one ending of a process: what comes first counts. Made while the loop runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._code: asyncio.Future[int] = loop.create_future()
        self.failure = ""
        """Why it has to end."""
        self.why_anew = ""
        """Why it begins again as a newcomer."""

    @property
    def decided(self) -> bool:
        """Whether it is ending."""
        return self._code.done()

    async def code(self) -> int:
        """The exit code, or START_OVER, once it is to end."""
        return await self._code

    def listen(self) -> None:
        """From here on TERM and INT ask for the end. May be called twice."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._asked)

    def halt(self, why: str) -> None:
        """It cannot go on."""
        if not self._code.done():
            self.failure = why
            self._code.set_result(1)

    def start_over(self, why: str) -> None:
        """Its database is set aside (set_aside.py), the next start is a newcomer's."""
        if not self._code.done():
            self.why_anew = why
            self._code.set_result(START_OVER)

    def _asked(self) -> None:
        if self._code.done():
            os._exit(0)  # a second TERM: now
        self._code.set_result(0)
