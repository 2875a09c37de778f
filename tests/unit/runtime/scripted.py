"""A driver with a scripted core: what it writes, starts and signals comes into lists; its clock stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from meshcron.core import effects
from meshcron.core.agent import Agent
from meshcron.core.effects import Effect
from meshcron.core.events import Event
from meshcron.messages import GateMessage, Hello, Message, Refused
from meshcron.model import SECOND_US, Instant, Launch, Limits
from meshcron.rows import Row
from meshcron.runtime.driver import Driver

NODE = "a" * 32
FAR_US = 3600 * SECOND_US


class Script:
    """A core that answers each event as the story says, and remembers what it was given."""

    def __init__(self) -> None:
        self.heard: list[Event] = []
        self.wakeup_us = FAR_US
        self.leader = ""
        self.state = SimpleNamespace(applied=(7, 1, 0))
        self.at_start: list[Effect] = []
        self.says: Callable[[Event], list[Effect]] = lambda event: []

    def start(self, now: Instant) -> list[Effect]:
        return self.at_start

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        self.heard.append(event)
        return self.says(event)

    def next_wakeup(self, now: Instant) -> int:
        return self.wakeup_us

    def answer(self, hello: Hello, now: Instant) -> GateMessage:
        return Refused(f"after {len(self.heard)} events")


class World:
    """What the driver acts on, as lists; its clock stands still until moved."""

    def __init__(self) -> None:
        self.core = Script()
        self.boot_us = 0
        self.written: list[int] = []
        self.did: list[tuple[object, ...]] = []
        self.halted: list[str] = []
        self.over: list[str] = []
        self.driver = Driver(
            cast(Agent, self.core),
            NODE,
            self,
            self,
            self,
            now=lambda: Instant(self.boot_us, self.boot_us),
            on_halt=self.halted.append,
            on_start_over=self.over.append,
        )

    # the writer, the processes and the network, as Protocols

    def submit(self, n: int, rows: tuple[Row, ...]) -> None:
        self.written.append(n)

    def launch(self, launch: Launch) -> None:
        self.did.append(("launch", launch.execution_id))

    def adopt(self, execution_id: str, pid: int, process_start: int) -> None:
        self.did.append(("adopt", execution_id, pid, process_start))

    def signal(self, execution_id: str, force: bool) -> None:
        self.did.append(("signal", execution_id, force))

    def forget(self, execution_id: str) -> None:
        self.did.append(("forget", execution_id))

    def send(self, to: str, message: Message) -> None:
        self.did.append(("send", to, message))

    def publish(self, topic: str, message: Message) -> None:
        self.did.append(("publish", topic, message))

    def connect(self, effect: effects.Connect) -> None:
        self.did.append(("connect", effect))

    def led_by(self, node_id: str) -> None:
        self.did.append(("led by", node_id))

    def knock(self, effect: effects.Knock) -> None:
        self.did.append(("knock", effect))

    def send_snapshot(self, effect: effects.SendSnapshot) -> None:
        self.did.append(("send snapshot", effect))

    def install_snapshot(self, effect: effects.InstallSnapshot) -> None:
        self.did.append(("install snapshot", effect))


def launch(name: str) -> Launch:
    return Launch(
        execution_id=name,
        command="true",
        shell=True,
        env={},
        cwd="",
        run_as_user="",
        payload="",
        nice=0,
        limits=Limits(),
    )


def start(name: str, after: int = 0) -> effects.StartProcess:
    return effects.StartProcess(launch(name), after)


def story(tell: Callable[[World], Any]) -> World:
    """Run a story on a loop of its own, from the driver's start to its close."""

    async def play() -> World:
        world = World()
        told = tell(world)
        if asyncio.iscoroutine(told):
            await told
        world.driver.close()
        return world

    return asyncio.run(play())
