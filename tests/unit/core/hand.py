"""One agent's runner, given orders by hand: its rows on a disk, its processes in the story's power."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from meshcron.core import effects, events
from meshcron.core.clocks import ClusterClock
from meshcron.core.effects import Effect, Persist
from meshcron.core.runner import Runner
from meshcron.core.specs import spec_digest
from meshcron.core.turn import Turn
from meshcron.messages import Ack, Fence, Order, Result, ResultAck, ResultItem, Run, RunAck, Stop, StopAck, StopItem
from meshcron.model import SECOND_US, Instant, Spec
from tests.fits import assert_fits
from tests.unit.core.disk import BOOT_US, NODE, START_WALL_US, Disk, ending, second

LEADER = "b" * 32
SPEC = Spec(uid=1, revision=1, job="job", command="true", env={"A": "job's"})
FENCE = Fence(0, 1)


def order(name: str = "x", *, due: float = 0, start_by: float = 120, wait_until: float = 3600, **more: Any) -> Order:
    """An order to run `name`; its instants are seconds of cluster time after the start of the story."""
    return Order(
        execution_id=name,
        node_id=NODE,
        uid=1,
        revision=1,
        digest=spec_digest(SPEC),
        run_id="1-0-1",
        attempt=1,
        scheduled_wall_us=START_WALL_US,
        due_cluster_us=second(due),
        start_by_cluster_us=second(start_by),
        wait_until_cluster_us=second(wait_until),
        **more,
    )


class Hand:
    """Gives a runner its events. What a turn writes is durable at once; what it asks for is kept in lists."""

    def __init__(self, slots: int = 2) -> None:
        self.disk = Disk()
        self.slots = slots
        self.boot_us = BOOT_US
        self.session = 0
        self.persists = 0
        self.starts: list[str] = []
        self.adopted: list[tuple[str, int]] = []
        self.signals: list[tuple[str, bool]] = []
        self.results: list[ResultItem] = []
        self.forgotten: list[str] = []
        self.effects: list[Effect] = []
        """Of the last turn."""
        self.runner: Runner

    # time

    def now(self) -> Instant:
        return Instant(self.boot_us, self.boot_us + START_WALL_US - BOOT_US)

    @property
    def cluster_us(self) -> int:
        """What the leader's clock says now."""
        return self.boot_us + START_WALL_US - BOOT_US

    def advance(self, seconds: float) -> None:
        """Let time pass; the runner is woken when it asked to be."""
        until = self.boot_us + int(seconds * SECOND_US)
        while (wish := self.runner.next_wakeup()) is not None and max(wish, self.boot_us) < until:
            self.boot_us = max(wish, self.boot_us) + 20
            self.do(self.runner.woke)
        self.boot_us = until

    def advance_to(self, n: float) -> None:
        self.advance((second(n) - self.cluster_us) / SECOND_US)

    # the runner

    def start(self) -> Hand:
        """A session begins, with what is on the disk."""
        self.session += 1
        self.persists = 0
        self.runner = Runner(NODE, "one", self.session, self.slots, self.disk.load(), ClusterClock())
        self.do(self.runner.resume)
        return self

    def do(self, act: Callable[[Turn], None]) -> list[Effect]:
        """One turn, and what it asked for."""
        turn = Turn(self.now())
        act(turn)
        self.persists, self.effects = turn.close(self.persists)
        self.runner.check()
        for effect in self.effects:
            self._take(effect)
        return self.effects

    def _take(self, effect: Effect) -> None:
        match effect:
            case effects.Persist():
                self.disk.write(effect.rows)
            case effects.StartProcess():
                self.starts.append(effect.launch.execution_id)
            case effects.AdoptProcess():
                self.adopted.append((effect.execution_id, effect.pid))
            case effects.SignalProcess():
                self.signals.append((effect.execution_id, effect.force))
            case effects.ForgetProcess():
                self.forgotten.append(effect.execution_id)
            case effects.Send(message=Result(items=items)):
                assert_fits(effect.message)
                self.results += items
            case _:
                pass

    @property
    def written(self) -> tuple[Any, ...]:
        """The rows of the last turn."""
        return tuple(row for effect in self.effects if isinstance(effect, Persist) for row in effect.rows)

    # what the leader says

    def _say(self, act: Callable[[Turn], None]) -> None:
        self.runner.leader = LEADER  # an agent that hears an order has heard who leads
        self.do(act)

    def run(
        self, *orders: Order, specs: tuple[Spec, ...] = (SPEC,), fence: Fence = FENCE, stamp_us: int = 0
    ) -> list[tuple[str, str]]:
        """Give orders; (state, known) of each answer."""
        message = Run(fence, stamp_us or self.cluster_us, orders, specs)
        self._say(lambda turn: self.runner.run(LEADER, message, turn))
        return [(ack.state, ack.known) for ack in self.acks()]

    def acks(self) -> tuple[Ack, ...]:
        (reply,) = [
            one.message for one in self.effects if isinstance(one, effects.Send) and isinstance(one.message, RunAck)
        ]
        assert isinstance(reply, RunAck)
        return reply.acks

    def stop(self, name: str = "x", *, kill: bool = True, start_by: float = 120, fence: Fence = FENCE) -> str:
        """Stop or kill; what it met, "" where there was no answer."""
        item = StopItem(execution_id=name, kill=kill, start_by_cluster_us=second(start_by))
        message = Stop(fence, self.cluster_us, (item,))
        self._say(lambda turn: self.runner.stop(LEADER, message, turn))
        for effect in self.effects:
            if isinstance(effect, effects.Send) and isinstance(effect.message, StopAck):
                return effect.message.items[0].state
        return ""

    def acknowledge(self, *names: str) -> None:
        """The outcomes are committed."""
        message = ResultAck(names, self.cluster_us)
        self._say(lambda turn: self.runner.result_ack(message, turn))

    # what processes do

    def started(self, name: str = "x", pid: int = 7) -> None:
        """With its start by the kernel's clock: now."""
        ticks = self.boot_us * 100 // SECOND_US
        event = events.ProcessStarted(name, pid, ticks, self.now().wall_us)
        self.do(lambda turn: self.runner.process(event, turn))

    def adopt(self, name: str = "x", pid: int = 7, *, started_s_ago: float = 0) -> None:
        """It lives, and started a while ago."""
        ticks = (self.boot_us - int(started_s_ago * SECOND_US)) * 100 // SECOND_US
        event = events.ProcessStarted(name, pid, ticks, self.now().wall_us - int(started_s_ago * SECOND_US))
        self.do(lambda turn: self.runner.process(event, turn))

    def ended(
        self, name: str = "x", code: int | None = 0, *, signal: int | None = None, started_us: int = 0, tail: str = ""
    ) -> None:
        how = ending(code, signal=signal, finished_wall_us=self.now().wall_us)
        event = events.ProcessEnded(name, replace(how, output_tail=tail) if tail else how, started_us)
        self.do(lambda turn: self.runner.process(event, turn))

    def not_started(self, name: str = "x", why: str = "no such user") -> None:
        self.do(lambda turn: self.runner.process(events.ProcessNotStarted(name, why), turn))

    def lost(self, name: str = "x", why: str = "no trace of it") -> None:
        self.do(lambda turn: self.runner.process(events.ProcessLost(name, why), turn))

    # what it knows

    def knows(self, name: str = "x") -> str:
        """The state of an execution as another Run would hear it, "" when it is not known; asks without a trace."""
        row = self.disk.tables["seen"].get(name)
        return "" if row is None else row.state

    @property
    def outcomes(self) -> list[tuple[str, str, str]]:
        """(id, kind, reason) of the results sent so far, repetitions included."""
        return [(item.execution_id, item.kind, item.reason) for item in self.results]
