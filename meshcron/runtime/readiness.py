"""Until an agent that was started can be used: writes are taken, and the cluster knows its local token."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from meshcron.commands import PutToken
from meshcron.core.agent import Agent
from meshcron.core.events import Proposed
from meshcron.errors import StartRefused
from meshcron.model import Token
from meshcron.runtime import clock
from meshcron.runtime.credentials import ADMIN_FILE
from meshcron.runtime.driver import Driver
from meshcron.runtime.finish import Finish
from meshcron.runtime.standing import Standing

READY_SECONDS = 30.0
"""A first answer takes well under a second; whoever waits longer has a disk that does not answer."""

ANNOUNCE_SECONDS = 1.0
"""An agent that waits for others for so long is there to be asked, though it is not ready."""

READY_LOOK_SECONDS = 0.002
"""Between two looks whether it is."""

WAITING_LOOK_SECONDS = 0.1
"""The same once it is announced: others may be away for days."""


class Readiness:
    """One agent's way there."""

    def __init__(self, folder: Path, agent: Agent, driver: Driver, standing: Standing, local: Token) -> None:
        """`local`: this agent's own token."""
        self._folder = folder
        self._agent = agent
        self._driver = driver
        self._standing = standing
        self._local = local

    async def wait(self, finish: Finish, announce: Callable[[], None]) -> None:
        """One that stands alone waits for its disk only; a member waits for the others, however long that takes, and
        can be asked meanwhile what it waits for: `announce`. Returns early where the process is to end. Raises
        StartRefused."""
        agent, began = self._agent, clock.monotonic_seconds()
        asked = announced = False
        while not finish.decided:
            waited = clock.monotonic_seconds() - began
            if not announced and waited > ANNOUNCE_SECONDS and not agent.stands_alone:
                announce()
                announced = True
            if not self._standing.why_not_ready():
                if agent.state.token_by_hash(self._local.sha256) is not None or not agent.leading:
                    self._drop_unused_token()
                    return
                if not asked:
                    self._driver.handle(Proposed("local token", PutToken(self._local)))
                    asked = True
            if waited > READY_SECONDS and agent.stands_alone:
                raise StartRefused(f"{self._folder}: its disk did not answer within {READY_SECONDS:g} s; look at it")
            await asyncio.sleep(WAITING_LOOK_SECONDS if announced else READY_LOOK_SECONDS)
        if finish.failure:
            raise StartRefused(finish.failure)

    def _drop_unused_token(self) -> None:
        """A newcomer that joined a cluster has made an admin token for nothing: it opens no door."""
        file = self._folder / ADMIN_FILE
        if file.exists() and self._agent.holds_log:
            digest = hashlib.sha256(file.read_text(encoding="ascii").strip().encode()).hexdigest()
            if self._agent.state.token_by_hash(digest) is None:
                file.unlink()
