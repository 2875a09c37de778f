"""One agent's core in virtual time: what these tests stand on.

The only place here that knows how the core is built; the stories themselves give events and read records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from meshcron import commands, rows
from meshcron.core import effects, events
from meshcron.core.agent import Agent
from meshcron.core.effects import Effect
from meshcron.core.events import Event
from meshcron.core.settings import Settings
from meshcron.messages import Message, next_generation
from meshcron.model import SECOND_US, Ending, Execution, Instant, Job, Launch
from tests.fits import assert_fits
from tests.unit.core.disk import BOOT_US, CLUSTER, NODE, START_WALL_US, TOKEN, Disk, ending, second, shown

EVENTS_MAX = 50_000
"""More events than this at one instant: the core spins."""

TURN_US = 20
"""What a wake-up costs in virtual time: whoever asks to be woken at once does not stop the clock."""


class Lab:
    """One agent: its disk answers at once and its processes run until told to end, unless the story says otherwise."""

    def __init__(self, *, slots: int = 64, tags: dict[str, str] | None = None, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self.slots = slots
        self.tags = tags or {"role": "web"}
        self.boot_us = BOOT_US
        self.wall_shift_us = START_WALL_US - BOOT_US
        self.session = 0
        self.disk_answers = True
        self.loses: Callable[[Message], bool] = lambda message: False
        """Which messages get lost on the way."""
        self.spawns = True
        """False: a process takes long to start."""
        self.sent: list[Message] = []
        self.launches: dict[str, Launch] = {}
        self.signals: list[tuple[str, bool]] = []
        self.forgotten: list[str] = []
        self.asked: dict[str, commands.Command] = {}
        self.answers: dict[str, object] = {}
        self.alarms: list[str] = []
        self.running: set[str] = set()
        self.ended: dict[str, Ending] = {}
        self.agent: Agent
        self.wakes = 0
        self.last_call = ""
        self._pid = 100
        self._durable = 0
        self._unsynced: deque[effects.Persist] = deque()
        self._held: list[Effect] = []
        self._inbox: deque[Event] = deque()

    # time

    def now(self) -> Instant:
        return Instant(self.boot_us, self.boot_us + self.wall_shift_us)

    def advance(self, seconds: float) -> None:
        """Let time pass; the agent is woken when it asked to be."""
        until = self.boot_us + int(seconds * SECOND_US)
        while (wake := max(self.boot_us, self.agent.next_wakeup(self.now()))) < until:
            self.boot_us = min(until, wake + TURN_US)
            self.wakes += 1
            self.give(events.Woke())
        self.boot_us = until

    def advance_to(self, n: float) -> None:
        """Let time pass up to second `n` of the story, by the machine's wall clock."""
        self.advance((second(n) - self.now().wall_us) / SECOND_US)

    # the agent

    def start(self, *, recovering: bool = False, generation: int = 0) -> Lab:
        """A session begins; with a disk that answers it leads soon. `recovering`: its directory was salvaged;
        `generation`: and so at an earlier start, which has chosen that one."""
        self.session += 1
        if recovering and not generation:
            generation = next_generation(self.disk.load().mark.generation, NODE)
        settings = Settings(
            node_id=NODE,
            name="one",
            session=self.session,
            tags=self.tags,
            facts={"meshcron.os": "linux"},
            slots=self.slots,
            horizon_us=3 * SECOND_US,
            cluster=CLUSTER,
            tokens=(TOKEN,),
            generation=generation,
        )
        self._durable = 0
        self._unsynced.clear()
        self._held.clear()
        self._inbox.clear()
        self.agent = Agent(settings, self.disk.load())
        self._perform(self.agent.start(self.now()))
        self._drain()
        return self

    def crash(self, seconds_down: float = 0) -> Lab:
        """Whatever was not durable is gone; processes run on. Then the next session."""
        self.boot_us += int(seconds_down * SECOND_US)
        return self.start()

    def give(self, event: Event) -> None:
        """An event and all that follows from it at once."""
        self._inbox.append(event)
        self._drain()

    def hear(self, message: Message) -> None:
        """A message from the agent itself: its leader talks to its runner and back like this."""
        self.give(events.MessageReceived(NODE, message))

    def sync(self, most: int = EVENTS_MAX) -> None:
        """The slow disk has written all it was given, or so many Persists of it."""
        self._write(most)
        self._drain()

    def write_untold(self) -> None:
        """The slow disk has written all it was given, and nobody was told."""
        while self._unsynced:
            self.disk.write(self._unsynced.popleft().rows)

    def _write(self, most: int = EVENTS_MAX) -> None:
        while self._unsynced and most:
            most -= 1
            done = self._unsynced.popleft()
            self.disk.write(done.rows)
            self._inbox.append(events.Persisted(done.n))

    @property
    def unsynced_rows(self) -> list[rows.Row]:
        """Rows on their way to the disk."""
        return [row for persist in self._unsynced for row in persist.rows]

    def _drain(self) -> None:
        for _ in range(EVENTS_MAX):
            if not self._inbox:
                return
            event = self._inbox.popleft()
            wanted = self.agent.handle(event, self.now())
            self.agent.check()
            self._perform(wanted)
            if isinstance(event, events.Persisted):
                self._durable = max(self._durable, event.n)
                ready = [effect for effect in self._held if getattr(effect, "after", 0) <= self._durable]
                self._held = [effect for effect in self._held if getattr(effect, "after", 0) > self._durable]
                self._perform(ready)
        raise AssertionError("the core gives itself work without end")

    def _perform(self, wanted: list[Effect]) -> None:
        for effect in wanted:
            if getattr(effect, "after", 0) > self._durable:
                self._held.append(effect)
            else:
                self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case effects.Persist():
                self._unsynced.append(effect)
                if self.disk_answers:
                    self._write()
            case effects.Send(to=to) if to == NODE:
                assert_fits(effect.message)
                self.sent.append(effect.message)
                if not self.loses(effect.message):
                    self._inbox.append(events.MessageReceived(NODE, effect.message))
            case effects.Send() | effects.Publish() | effects.Connect():
                pass  # nobody else is there
            case effects.Answer():
                self.answers[effect.call_id] = effect.outcome
            case effects.StartProcess():
                self._spawn(effect.launch)
            case effects.AdoptProcess():
                self._adopt(effect.execution_id)
            case effects.SignalProcess():
                self.signals.append((effect.execution_id, effect.force))
            case effects.ForgetProcess():
                self.forgotten.append(effect.execution_id)
            case effects.Alarm():
                self.alarms.append(effect.code)
            case _:
                raise AssertionError(f"an agent alone asks for {effect}")

    # processes

    def _spawn(self, launch: Launch) -> None:
        assert launch.execution_id not in self.launches, "P1: started twice"
        assert launch.execution_id in self.disk.tables["seen"], "started, and not written down before"
        self.launches[launch.execution_id] = launch
        self.running.add(launch.execution_id)
        if self.spawns:
            self.spawned(launch.execution_id)

    def spawned(self, execution_id: str) -> None:
        """The process lives."""
        self._pid += 1
        ticks = self.boot_us * 100 // SECOND_US
        self._inbox.append(events.ProcessStarted(execution_id, self._pid, ticks, self.now().wall_us))

    def _adopt(self, execution_id: str) -> None:
        if execution_id in self.running:
            self.spawned(execution_id)
        elif execution_id in self.ended:
            self._inbox.append(events.ProcessEnded(execution_id, self.ended[execution_id], self.now().wall_us))
        else:
            self._inbox.append(events.ProcessLost(execution_id, "no trace of it"))

    def end(self, execution_id: str, code: int | None = 0, *, signal: int | None = None, unseen: bool = False) -> None:
        """A process ends; `unseen` while the agent is down."""
        self.running.remove(execution_id)
        self.ended[execution_id] = ending(code, signal=signal, finished_wall_us=self.now().wall_us)
        if not unseen:
            self.give(events.ProcessEnded(execution_id, self.ended[execution_id]))

    def end_all(self, code: int = 0) -> None:
        for execution_id in sorted(self.running):
            self.end(execution_id, code)

    # people

    def ask(self, command: commands.Command, key: str = "") -> Any:
        """The outcome of a call, None while it has none. `last_call` names it."""
        self.last_call = f"call-{len(self.asked)}"
        self.asked[self.last_call] = command
        self.give(events.Proposed(self.last_call, command, key))
        return self.answers.get(self.last_call)

    def put(self, name: str = "job", schedule: str = "* * * * * *", **fields: Any) -> commands.JobAnswer:
        """Create or replace a job."""
        answer = self.ask(commands.PutJob(Job(**{"command": "true", **fields, "name": name, "schedule": schedule})))
        assert isinstance(answer, commands.JobAnswer), answer
        return answer

    def run(self, name: str = "job", **how: Any) -> str:
        """Run a job now; the run's id."""
        answer = self.ask(commands.RunJob(name, **how))
        assert isinstance(answer, commands.JobAnswer), answer
        return answer.run_id

    # what came of it

    def view(self, name: str = "job") -> commands.JobView:
        view = self.agent.state.job_view(name)
        assert view is not None
        return view

    def executions(self, name: str = "job") -> list[Execution]:
        """On the disk, oldest first."""
        uid = self.view(name).uid
        return [one for one in self.disk.executions() if one.uid == uid]

    def records(self, name: str = "job") -> list[tuple[int, str, str]]:
        """(second of the tick, status, reason) of each execution, oldest first."""
        return [shown(one) for one in self.executions(name)]

    def only(self, name: str = "job") -> Execution:
        """The one execution of a job."""
        (one,) = self.executions(name)
        return one
