"""The thin shell around the core: hands it events, performs its effects in order, keeps its one timer.

What a turn wants persisted goes to the writer thread; an effect marked `after=n` waits here until n is durable.

A defect of ours ends the agent (an assertion in the core, say): what it remembers and what it has written
differ by then, and the next start goes by what is written, as after a kill.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from typing import Protocol, assert_never

import structlog

from meshcron.commands import Command
from meshcron.core import effects
from meshcron.core.agent import Agent
from meshcron.core.effects import Effect
from meshcron.core.events import Event, HelloHeard, MessageReceived, Persisted, Proposed, Woke
from meshcron.errors import NoLeader, OutcomeUnknown
from meshcron.messages import GateMessage, Hello, Message
from meshcron.model import Instant, Launch
from meshcron.rows import Row

ENDING = "this agent is ending; ask another one"

OF_ONE_PROCESS = (effects.StartProcess, effects.AdoptProcess, effects.SignalProcess, effects.ForgetProcess)
"""Where the system may refuse something (no descriptor left, a full disk) and nothing but one process is concerned."""

Passing = Callable[[Event | Effect], None]
"""Told of each event right before it is handled, and of each effect right before it is performed (failpoint.py)."""

log = structlog.get_logger("meshcron")


class Writer(Protocol):
    """Makes rows durable in the order given, and says so by `Driver.persisted`."""

    def submit(self, n: int, rows: tuple[Row, ...]) -> None: ...


class Network(Protocol):
    """Other agents."""

    def send(self, to: str, message: Message) -> None: ...
    def publish(self, topic: str, message: Message) -> None: ...
    def connect(self, effect: effects.Connect) -> None: ...
    def led_by(self, node_id: str) -> None: ...
    def knock(self, effect: effects.Knock) -> None: ...
    def send_snapshot(self, effect: effects.SendSnapshot) -> None: ...
    def install_snapshot(self, effect: effects.InstallSnapshot) -> None: ...


class Processes(Protocol):
    """Runs commands."""

    def launch(self, launch: Launch) -> None: ...
    def adopt(self, execution_id: str, pid: int, process_start: int) -> None: ...
    def signal(self, execution_id: str, force: bool) -> None: ...
    def forget(self, execution_id: str) -> None: ...


class Driver:
    """Runs one core on the event loop."""

    def __init__(
        self,
        agent: Agent,
        node_id: str,
        writer: Writer,
        processes: Processes,
        network: Network,
        *,
        now: Callable[[], Instant],
        on_halt: Callable[[str], None],
        on_start_over: Callable[[str], None],
        passing: Passing | None = None,
    ) -> None:
        self._agent = agent
        self._node_id = node_id
        self._writer = writer
        self._processes = processes
        self._network = network
        self._now = now
        self._on_halt = on_halt
        self._on_start_over = on_start_over
        self._passing = passing
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None
        self._setting = False
        self._inbox: deque[Event] = deque()
        self._handling = False
        self._durable = 0
        self._showing: deque[tuple[int, int]] = deque()
        """Numbers of what is not durable yet, and up to which entry the catalog shows the log once it is."""
        self.index_on_disk = agent.state.applied[0]
        """The last entry of the log that whoever reads the database sees."""
        self._held: deque[Effect] = deque()
        self._answers: dict[str, asyncio.Future[object]] = {}
        self._closed = False
        self._leader = ""

    def start(self) -> None:
        """Begin; needs the running loop."""
        self._loop = asyncio.get_running_loop()
        self._guarded(lambda: self._perform(self._agent.start(self._now())))
        self._drain()

    def close(self) -> None:
        """Hear and do nothing from now on; calls still open are told so."""
        self._closed = True
        if self._timer:
            self._timer.cancel()
        for answer in self._answers.values():
            if not answer.done():
                # It may be in the log already, and be committed by others.
                answer.set_result(OutcomeUnknown("this agent is ending; the write may still take effect"))

    # events in

    def handle(self, event: Event) -> None:
        """Give the core an event, now or right after the one it is handling."""
        if self._closed:
            return
        self._inbox.append(event)
        if not self._handling:
            self._drain()

    def knocked(self, hello: Hello) -> GateMessage:
        """Somebody at our gate: the answer at once, what follows from it as an event."""
        answer = self._agent.answer(hello, self._now())
        self.handle(HelloHeard(hello))
        return answer

    def may_command(self, node_id: str) -> bool:
        """Whether this member's word about the log counts."""
        return self._agent.may_command(node_id)

    def persisted(self, n: int) -> None:
        """The writer's word: everything up to n is durable."""
        self._durable = max(self._durable, n)
        while self._showing and self._showing[0][0] <= n:
            _, self.index_on_disk = self._showing.popleft()
        self.handle(Persisted(n))

    async def propose(self, command: Command, key: str = "") -> object:
        """Ask for a change; returns the outcome, which may be one of our errors. The same `key` within ten minutes gets
        the first answer, whichever agent leads by then."""
        if self._closed:
            return NoLeader(ENDING)
        call_id = secrets.token_hex(8)
        answer: asyncio.Future[object] = self._loop.create_future()
        self._answers[call_id] = answer
        self.handle(Proposed(call_id, command, key))
        return await asyncio.shield(answer)

    # the loop

    def _drain(self) -> None:
        """Handle what is in the inbox, then see to the timer."""
        if self._closed:
            return
        self._guarded(self._handle_all)
        if not self._setting:
            # Once a turn of the loop, however many events it brings: no timer fires before the turn is over.
            self._setting = True
            self._loop.call_soon(self._guarded, self._set_timer)

    def _handle_all(self) -> None:
        while self._inbox and not self._closed:
            event = self._inbox.popleft()
            if self._passing:
                self._passing(event)
            self._perform(self._agent.handle(event, self._now()))
            if isinstance(event, Persisted):
                self._release()
        if self._leader != (leader := self._agent.leader):
            self._leader = leader
            self._network.led_by(leader)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do this, and let no event in meanwhile; whatever it raises ends the agent."""
        self._handling = True
        try:
            work()
        except Exception as error:  # noqa: BLE001 whatever it is, memory and disk may differ by now
            self._fail(error)
        finally:
            self._handling = False

    def _fail(self, error: Exception) -> None:
        """Nothing more is heard, written or sent; the process ends."""
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        log.error("a defect of meshcron, please report it", exc_info=error)
        self.close()
        self._on_halt(f"a defect: {what}; the agent ends, jobs go on")

    def _set_timer(self) -> None:
        self._setting = False
        if self._timer:
            self._timer.cancel()
        if self._closed:
            return
        now = self._now()
        delay_us = max(0, self._agent.next_wakeup(now) - now.boot_us)
        self._timer = self._loop.call_later(delay_us / 1e6, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.handle(Woke())

    # effects out

    def _perform(self, wanted: list[Effect]) -> None:
        for effect in wanted:
            after = getattr(effect, "after", 0)
            if after > self._durable:
                self._held.append(effect)
            else:
                self._do(effect)

    def _release(self) -> None:
        """Effects leave in the order they were asked for; their numbers never fall."""
        while self._held and getattr(self._held[0], "after", 0) <= self._durable:
            self._do(self._held.popleft())

    def _do(self, effect: Effect) -> None:
        if self._passing:
            self._passing(effect)
        try:
            self._act(effect)
        except OSError:
            if not isinstance(effect, OF_ONE_PROCESS):
                raise
            log.exception("the system refused it", effect=type(effect).__name__)

    def _act(self, effect: Effect) -> None:  # noqa: C901, PLR0912 - one arm a kind of effect
        match effect:
            case effects.Persist():
                if effect.applied_index:
                    self._showing.append((effect.n, effect.applied_index))
                self._writer.submit(effect.n, effect.rows)
            case effects.Send():
                self._send(effect)
            case effects.Answer():
                self._answer(effect)
            case effects.Publish():
                self._network.publish(effect.topic, effect.message)
            case effects.Connect():
                self._network.connect(effect)
            case effects.Knock():
                self._network.knock(effect)
            case effects.SendSnapshot():
                self._network.send_snapshot(effect)
            case effects.InstallSnapshot():
                self._showing.append((effect.n, effect.index))
                self._network.install_snapshot(effect)
            case effects.StartOver():
                self._on_start_over(effect.why)
            case effects.StartProcess():
                self._processes.launch(effect.launch)
            case effects.AdoptProcess():
                self._processes.adopt(effect.execution_id, effect.pid, effect.process_start)
            case effects.SignalProcess():
                self._processes.signal(effect.execution_id, effect.force)
            case effects.ForgetProcess():
                self._processes.forget(effect.execution_id)
            case effects.Alarm():
                log.warning(effect.text, code=effect.code)
            case effects.Halt():
                self._on_halt(effect.why)
            case _:
                assert_never(effect)

    def _send(self, effect: effects.Send) -> None:
        if effect.to == self._node_id:
            self._inbox.append(MessageReceived(self._node_id, effect.message))
        else:
            self._network.send(effect.to, effect.message)

    def _answer(self, effect: effects.Answer) -> None:
        answer = self._answers.pop(effect.call_id, None)
        if answer is not None and not answer.done():
            answer.set_result(effect.outcome)
