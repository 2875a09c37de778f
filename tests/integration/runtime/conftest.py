"""A stage for real processes: a `Processes` on a loop of its own, what it emitted, and a deadline for every wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from meshcron.core.events import Event, ProcessEnded, ProcessLost, ProcessNotStarted, ProcessStarted
from meshcron.model import Ending, Launch, Limits
from meshcron.runtime.launch import RunAsPolicy
from meshcron.runtime.process import Processes

E = TypeVar("E", ProcessStarted, ProcessEnded, ProcessLost, ProcessNotStarted)

DEADLINE_SECONDS = 20.0
NOBODY_ELSE = RunAsPolicy()


def wall_us() -> int:
    return time.time_ns() // 1000


class Stage:
    """`Processes` with the audience that the driver would be."""

    def __init__(self, folder: Path, policy: RunAsPolicy, output_bytes_max: int) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.processes = Processes(
            folder, self.events.append, policy=policy, output_bytes_max=output_bytes_max, wall_clock_us=wall_us
        )

    def launch(self, command: str, execution_id: str = "a", **fields: Any) -> str:
        usual: dict[str, Any] = {
            "shell": True,
            "env": {},
            "cwd": "",
            "run_as_user": "",
            "payload": "",
            "nice": 0,
            "limits": Limits(),
        }
        self.processes.launch(Launch(execution_id=execution_id, command=command, **(usual | fields)))
        return execution_id

    async def until(self, true: Callable[[], Any]) -> None:
        """Wait until something is true of the world outside; fail after the deadline."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not true():  # noqa: ASYNC110 - the world outside sets no asyncio.Event
                await asyncio.sleep(0.005)

    async def event(self, kind: type[E], execution_id: str = "a") -> E:
        """The first event of a kind about an execution, once it is there."""

        def found() -> list[E]:
            return [event for event in self.events if isinstance(event, kind) and event.execution_id == execution_id]

        try:
            await self.until(found)
        except TimeoutError:
            pytest.fail(f"no {kind.__name__} of {execution_id}, but {self.events}")
        return found()[0]

    async def started(self, command: str, execution_id: str = "a", **fields: Any) -> ProcessStarted:
        return await self.event(ProcessStarted, self.launch(command, execution_id, **fields))

    async def ended(self, execution_id: str = "a") -> Ending:
        return (await self.event(ProcessEnded, execution_id)).ending

    async def run(self, command: str, execution_id: str = "a", **fields: Any) -> Ending:
        return await self.ended(self.launch(command, execution_id, **fields))

    async def refused(self, command: str, execution_id: str = "a", **fields: Any) -> str:
        return (await self.event(ProcessNotStarted, self.launch(command, execution_id, **fields))).why

    async def output(self, command: str, execution_id: str = "a", **fields: Any) -> str:
        """What a command that ends well wrote."""
        ending = await self.run(command, execution_id, **fields)
        assert ending.exit_code == 0, ending
        return ending.output_tail

    def still_open(self) -> set[str]:
        """The executions that may still have processes."""
        over = {event.execution_id for event in self.events if isinstance(event, ProcessEnded | ProcessLost)}
        return {event.execution_id for event in self.events if isinstance(event, ProcessStarted)} - over


Play = Callable[..., None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Run a story, a coroutine function that takes a Stage; whatever it leaves running is killed behind it."""

    def perform(
        story: Callable[[Stage], Awaitable[None]],
        policy: RunAsPolicy = NOBODY_ELSE,
        output_bytes_max: int = 10 * 1024 * 1024,
    ) -> None:
        async def main() -> None:
            stage = Stage(tmp_path / "executions", policy, output_bytes_max)
            stage.processes.start()
            try:
                await story(stage)
            finally:
                for execution_id in stage.still_open():
                    stage.processes.signal(execution_id, force=True)
                await stage.until(lambda: not stage.still_open())
                stage.processes.close()

        asyncio.run(main())

    return perform
