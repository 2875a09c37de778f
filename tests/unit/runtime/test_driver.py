"""The thin shell: effects leave in order and not before their rows are durable; events wait their turn; one timer."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest
from structlog.testing import capture_logs

from meshcron import commands
from meshcron.core import effects, events
from meshcron.core.effects import Effect
from meshcron.core.events import Event
from meshcron.errors import OutcomeUnknown
from meshcron.messages import Endpoint, Hello, Profile, Refused, ResultAck
from meshcron.model import SECOND_US
from meshcron.rows import BallotRow
from tests.unit.runtime.scripted import FAR_US, NODE, World, start, story

ROW = BallotRow(1, NODE)
OTHER = "b" * 32
ACK = ResultAck(("x",), 1)
HELLO = Hello(
    Profile(
        node_id=OTHER,
        name="two",
        public_key="",
        endpoint=Endpoint("192.0.2.2", 1, 2, 3),
        tags={},
        facts={},
        session=1,
    ),
    "",
    0,
)


# ---- effects


def test_each_effect_is_performed() -> None:
    """In the order in which they were asked for."""

    def tell(world: World) -> None:
        world.core.at_start = [
            effects.Persist(1, (ROW,)),
            start("x"),
            effects.AdoptProcess("y", 7, 8),
            effects.SignalProcess("y", True),
            effects.ForgetProcess("z"),
            effects.Alarm("full", "the disk is full"),
        ]
        world.driver.start()
        assert world.written == [1]
        assert world.did == [("launch", "x"), ("adopt", "y", 7, 8), ("signal", "y", True), ("forget", "z")]

    story(tell)


def test_each_effect_on_the_network_is_performed() -> None:
    """Likewise; a message to another agent goes out instead of coming back."""

    def tell(world: World) -> None:
        wanted: list[Effect] = [
            effects.Connect("c", 0, (), frozenset()),
            effects.Knock("192.0.2.1", 8946, HELLO),
            effects.SendSnapshot(OTHER, 3),
            effects.InstallSnapshot(1, 2, 3, 4),
        ]
        world.core.at_start = [effects.Send(OTHER, ACK), effects.Publish("all", ACK), *wanted]
        world.driver.start()
        assert world.core.heard == []
        assert world.did == [
            ("send", OTHER, ACK),
            ("publish", "all", ACK),
            *zip(("connect", "knock", "send snapshot", "install snapshot"), wanted, strict=True),
        ]

    story(tell)


def test_a_message_to_another_agent_waits_for_its_rows_too() -> None:
    """Nothing that shows a write leaves before the write is durable."""

    def tell(world: World) -> None:
        world.core.at_start = [effects.Persist(1, (ROW,)), effects.Send(OTHER, ACK, after=1)]
        world.driver.start()
        assert world.did == []
        world.driver.persisted(1)
        assert world.did == [("send", OTHER, ACK)]

    story(tell)


def test_the_disk_shows_an_entry_once_its_rows_are_durable() -> None:
    """At a start what was loaded; an entry whose rows are on their way not yet; a snapshot brings all up to its own."""

    def tell(world: World) -> None:
        shown = []
        world.core.at_start = [
            effects.Persist(1, (ROW,), 8),
            effects.Persist(2, (ROW,)),
            effects.Persist(3, (ROW,), 9),
            effects.InstallSnapshot(4, 20, 1, 0),
        ]
        world.driver.start()
        shown.append(world.driver.index_on_disk)
        for n in (1, 2, 3, 4):
            world.driver.persisted(n)
            shown.append(world.driver.index_on_disk)
        assert shown == [7, 8, 8, 9, 20]

    story(tell)


def test_who_knocks_is_answered_at_once() -> None:
    """What follows from it is an event, after the answer."""

    def tell(world: World) -> None:
        world.driver.start()
        assert world.driver.knocked(HELLO) == Refused("after 0 events")
        assert world.core.heard == [events.HelloHeard(HELLO)]

    story(tell)


def test_a_dissolved_cluster_starts_over_once_that_is_durable() -> None:
    """The process does it; why is for the log."""

    def tell(world: World) -> None:
        world.core.at_start = [effects.Persist(1, (ROW,)), effects.StartOver("this cluster joins another", after=1)]
        world.driver.start()
        assert world.over == []
        world.driver.persisted(1)
        assert world.over == ["this cluster joins another"]

    story(tell)


def test_an_effect_waits_until_its_rows_are_durable() -> None:
    """And for nothing else: what waits for nothing leaves at once."""

    def tell(world: World) -> None:
        world.core.at_start = [effects.Persist(1, (ROW,)), start("later", after=1), start("now")]
        world.driver.start()
        assert world.did == [("launch", "now")]
        world.driver.persisted(1)
        assert world.did == [("launch", "now"), ("launch", "later")]

    story(tell)


def test_effects_leave_in_the_order_of_their_numbers() -> None:
    """One word of the writer may be about several Persists; nothing leaves twice."""

    def tell(world: World) -> None:
        world.core.at_start = [start("one", after=1), start("two", after=2), start("three", after=3)]
        world.driver.start()
        world.driver.persisted(2)
        assert world.did == [("launch", "one"), ("launch", "two")]
        world.driver.persisted(3)
        world.driver.persisted(3)
        assert world.did == [("launch", "one"), ("launch", "two"), ("launch", "three")]

    story(tell)


def test_what_is_durable_already_holds_nothing_up() -> None:
    """A turn that wrote nothing waits for earlier rows, and those are there."""

    def tell(world: World) -> None:
        world.driver.start()
        world.driver.persisted(5)
        world.core.says = lambda event: [start("x", after=5)]
        world.driver.handle(events.Woke())
        assert world.did == [("launch", "x")]

    story(tell)


def test_the_core_hears_of_its_rows_before_what_waits_for_them_leaves() -> None:
    """So that what it counts is never behind what others see."""

    def tell(world: World) -> None:
        world.core.at_start = [start("x", after=1)]
        world.driver.start()
        seen: list[int] = []

        def says(event: Event) -> list[Effect]:
            seen.append(len(world.did))
            return []

        world.core.says = says
        world.driver.persisted(1)
        assert world.core.heard == [events.Persisted(1)]
        assert seen == [0]
        assert world.did == [("launch", "x")]

    story(tell)


def test_a_message_to_itself_comes_back_as_an_event() -> None:
    """After the turn that sent it, not within it; also one that waited."""

    def tell(world: World) -> None:
        world.core.at_start = [effects.Send(NODE, ACK), effects.Send(NODE, ACK, after=1)]
        world.driver.start()
        assert world.core.heard == [events.MessageReceived(NODE, ACK)]
        world.driver.persisted(1)
        assert world.core.heard[-2:] == [events.Persisted(1), events.MessageReceived(NODE, ACK)]

    story(tell)


def test_a_halt_is_told_with_its_reason() -> None:
    """The process ends; why is for the operator."""

    def tell(world: World) -> None:
        world.core.says = lambda event: [effects.Halt("an entry of a kind nobody knows")]
        world.driver.start()
        world.driver.handle(events.Woke())

    assert story(tell).halted == ["an entry of a kind nobody knows"]


# ---- events


def test_an_event_within_a_turn_waits_for_its_end() -> None:
    """The core is never entered twice: what a process says while it is being started comes right after."""

    def tell(world: World) -> None:
        depth: list[int] = []

        def says(event: Event) -> list[Effect]:
            depth.append(1)
            assert len(depth) == 1
            if isinstance(event, events.Woke):
                world.driver.handle(events.ProcessLost("x", "gone"))
            depth.pop()
            return []

        world.core.says = says
        world.driver.start()
        world.driver.handle(events.Woke())
        assert world.core.heard == [events.Woke(), events.ProcessLost("x", "gone")]

    story(tell)


def test_a_disk_that_answers_within_the_turn() -> None:
    """Its word is an event as any other, after the turn."""

    def tell(world: World) -> None:
        world.core.says = lambda event: (
            [effects.Persist(1, (ROW,)), start("x", after=1)] if isinstance(event, events.Woke) else []
        )
        world.submit = lambda n, rows: world.driver.persisted(n)  # type: ignore[method-assign]
        world.driver.start()
        world.driver.handle(events.Woke())
        assert world.core.heard == [events.Woke(), events.Persisted(1)]
        assert world.did == [("launch", "x")]

    story(tell)


# ---- the timer


def test_there_is_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set anew, once for all events of a turn of the loop, for when the core wants to be woken; an older one is
    cancelled."""

    async def tell(world: World) -> None:
        handles: list[tuple[float, asyncio.TimerHandle]] = []
        loop = asyncio.get_running_loop()
        call_later = loop.call_later

        def recorded(delay: float, *args: Any) -> asyncio.TimerHandle:
            handles.append((delay, call_later(delay, *args)))
            return handles[-1][1]

        monkeypatch.setattr(loop, "call_later", recorded)
        world.core.wakeup_us = 5 * SECOND_US
        world.driver.start()
        await asyncio.sleep(0)
        world.boot_us = 2 * SECOND_US
        world.driver.handle(events.Woke())
        world.driver.handle(events.Woke())
        await asyncio.sleep(0)
        world.core.wakeup_us = SECOND_US  # passed already
        world.driver.persisted(1)
        await asyncio.sleep(0)
        assert [delay for delay, _ in handles] == [5, 3, 0]
        assert [handle.cancelled() for _, handle in handles] == [True, True, False]
        world.driver.close()
        assert handles[-1][1].cancelled()

    story(tell)


def test_the_timer_wakes_the_core() -> None:
    """Again and again, as long as it asks for it."""

    async def tell(world: World) -> None:
        woken = asyncio.Event()

        def says(event: Event) -> list[Effect]:
            if world.core.heard.count(events.Woke()) == 3:
                world.core.wakeup_us = FAR_US
                woken.set()
            return []

        world.core.says = says
        world.core.wakeup_us = 0
        world.driver.start()
        await asyncio.wait_for(woken.wait(), timeout=10)
        assert world.core.heard == [events.Woke()] * 3

    story(tell)


# ---- a defect


DEFECT = AssertionError("follower becomes leader:\na defect")
LINE = "a defect: AssertionError: follower becomes leader: a defect; the agent ends, jobs go on"


def fail(*_: object) -> list[Effect]:
    raise DEFECT


def test_a_defect_in_the_core_ends_the_agent() -> None:
    """Memory and disk differ by then: nothing more is handled, written or done, also of what waited for a write or
    stood in the inbox; the operator gets a line, the log the traceback."""

    async def tell(world: World) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: world.did.append(("escaped", context)))
        world.core.at_start = [effects.Persist(1, (ROW,)), start("held", after=1)]
        world.driver.start()
        waiting = asyncio.ensure_future(world.driver.propose(commands.RunJob("job")))
        await asyncio.sleep(0)

        def says(event: Event) -> list[Effect]:
            world.driver.handle(events.ProcessLost("x", "gone"))
            return fail()

        world.core.says, world.core.wakeup_us = says, 0
        with capture_logs() as lines:
            world.driver.handle(events.Woke())
        heard = list(world.core.heard)
        world.driver.persisted(1)
        world.driver.handle(events.Woke())
        await asyncio.sleep(0.02)
        assert world.core.heard == heard
        assert [type(one) for one in heard] == [events.Proposed, events.Woke]
        assert (world.did, world.written, world.halted) == ([], [1], [LINE])
        assert [(one["log_level"], one["exc_info"]) for one in lines] == [("error", DEFECT)]
        assert isinstance(await waiting, OutcomeUnknown)

    story(tell)


def test_a_defect_at_the_start_ends_it_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """No event reaches it any more."""

    def tell(world: World) -> None:
        monkeypatch.setattr(world.core, "start", fail)
        world.driver.start()
        world.driver.handle(events.Woke())
        assert (world.core.heard, world.halted) == ([], [LINE])

    story(tell)


def test_a_defect_in_saying_when_to_wake_up_ends_it_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a timer it would sleep for ever."""

    async def tell(world: World) -> None:
        monkeypatch.setattr(world.core, "next_wakeup", fail)
        world.driver.start()
        await asyncio.sleep(0)
        world.driver.handle(events.Woke())
        assert (world.core.heard, world.halted) == ([], [LINE])

    story(tell)


@pytest.mark.parametrize(
    ("performs", "effect"),
    [
        ("submit", effects.Persist(2, (ROW,))),
        ("connect", effects.Connect("c", 0, (), frozenset())),
        ("send", effects.Send(OTHER, ACK)),
        ("led_by", effects.Alarm("led", "by another")),
    ],
)
def test_an_effect_that_fails_ends_it_there(monkeypatch: pytest.MonkeyPatch, performs: str, effect: Effect) -> None:
    """What would have followed is not done: it may show what was not written."""

    def tell(world: World) -> None:
        world.driver.start()
        monkeypatch.setattr(world, performs, fail)
        world.core.leader = OTHER
        world.core.says = lambda event: [effect, start("x", after=1)]
        world.driver.handle(events.Woke())
        world.driver.persisted(1)
        assert (world.core.heard, world.did, world.halted) == ([events.Woke()], [], [LINE])

    story(tell)


@pytest.mark.parametrize(
    ("performs", "effect"),
    [
        ("launch", start("y")),
        ("adopt", effects.AdoptProcess("y", 7, 8)),
        ("signal", effects.SignalProcess("y", True)),
        ("forget", effects.ForgetProcess("y")),
    ],
)
def test_what_the_system_refuses_of_one_process_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, performs: str, effect: Effect
) -> None:
    """No descriptor left, a full disk: the world's fault, and the rest of the turn is done."""

    def refused(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def tell(world: World) -> None:
        world.driver.start()
        with monkeypatch.context() as patch, capture_logs() as lines:
            patch.setattr(world, performs, refused)
            world.core.says = lambda event: [effect, effects.Send(OTHER, ACK)]
            world.driver.handle(events.Woke())
        assert (world.did, world.halted) == ([("send", OTHER, ACK)], [])
        assert [one["effect"] for one in lines] == [type(effect).__name__]
        world.core.says = lambda event: []
        world.driver.handle(events.Woke())
        assert len(world.core.heard) == 2

    story(tell)


# ---- the end


def test_after_close_nothing_happens() -> None:
    """No event reaches the core, no effect leaves, no timer wakes it; open calls end."""

    async def tell(world: World) -> None:
        world.core.at_start = [start("x", after=1)]
        world.driver.start()
        waiting = asyncio.ensure_future(world.driver.propose(commands.RunJob("job")))
        await asyncio.sleep(0)
        world.driver.close()
        world.driver.persisted(1)
        world.driver.handle(events.Woke())
        assert len(world.core.heard) == 1
        assert world.did == []
        assert isinstance(await waiting, OutcomeUnknown)

    story(tell)


def test_a_close_within_a_turn_ends_it_there() -> None:
    """A halt closes the driver: events that wait are not handled any more."""

    def tell(world: World) -> None:
        def says(event: Event) -> list[Effect]:
            world.driver.handle(events.ProcessLost("x", "gone"))
            world.driver.close()
            return []

        world.core.says = says
        world.driver.start()
        world.driver.handle(events.Woke())
        assert world.core.heard == [events.Woke()]

    story(tell)


def test_the_network_hears_who_leads() -> None:
    """Once for each change, whatever event brought it."""

    def tell(world: World) -> None:
        world.driver.start()
        for leader in ("", OTHER, OTHER, "", NODE):
            world.core.leader = leader
            world.driver.handle(events.Woke())
        assert world.did == [("led by", OTHER), ("led by", ""), ("led by", NODE)]

    story(tell)
