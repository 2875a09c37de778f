"""A core without a shell: every effect is done at once, in virtual time. What it costs is the core's cost alone."""

from __future__ import annotations

from collections import deque

from meshcron.core import effects, events
from meshcron.core.agent import Agent
from meshcron.core.effects import Effect
from meshcron.core.events import Event
from meshcron.core.settings import Settings
from meshcron.model import SECOND_US, Ending, Instant
from meshcron.rows import Loaded

NODE = "a" * 32
BOOT_US = 1_000_000_000
ENDING = Ending(exit_code=0, signal=None, finished_wall_us=1, output_tail="", output_bytes=0, output_truncated=False)


class VirtualAgent:
    """One core on a disk that is instantly durable, with processes that end at once."""

    def __init__(self, loaded: Loaded, wall_us: int) -> None:
        settings = Settings(
            node_id=NODE,
            name="one",
            session=1,
            tags={},
            facts={},
            slots=64,
            horizon_us=3 * SECOND_US,
            cluster="c" * 32,
            tokens=(),
        )
        self.boot_us = BOOT_US
        self.runs = 0
        self._shift_us = wall_us - BOOT_US
        self._core = Agent(settings, loaded)
        self._inbox: deque[Event] = deque()
        self._pid = 1
        self._do(self._core.start(self._now()))
        self._drain()

    def run_until(self, boot_us: int) -> None:
        """Let time pass: the core is woken whenever it wishes to be."""
        while (wake := max(self.boot_us, self._core.next_wakeup(self._now()))) <= boot_us:
            self.boot_us = wake
            self._inbox.append(events.Woke())
            self._drain()
        self.boot_us = boot_us

    def _now(self) -> Instant:
        return Instant(self.boot_us, self.boot_us + self._shift_us)

    def _drain(self) -> None:
        while self._inbox:
            self._do(self._core.handle(self._inbox.popleft(), self._now()))

    def _do(self, wanted: list[Effect]) -> None:
        for effect in wanted:
            match effect:
                case effects.Persist():
                    self._inbox.append(events.Persisted(effect.n))
                case effects.Send():
                    self._inbox.append(events.MessageReceived(NODE, effect.message))
                case effects.StartProcess():
                    self._run(effect.launch.execution_id)
                case _:
                    pass

    def _run(self, execution_id: str) -> None:
        self.runs += 1
        self._pid += 1
        self._inbox.append(events.ProcessStarted(execution_id, self._pid, self.boot_us // 10_000, self._now().wall_us))
        self._inbox.append(events.ProcessEnded(execution_id, ENDING))
