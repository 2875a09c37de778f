"""Calls to the core: each is answered once, and a repeated one with the first answer."""

from __future__ import annotations

import asyncio

import pytest

from meshcron import commands
from meshcron.core import effects, events
from meshcron.errors import NoLeader, NotLeader, UnknownJob
from meshcron.runtime.driver import IDEMPOTENT_US
from tests.unit.runtime.scripted import World, story

RUN = commands.RunJob("job")


def answers(world: World, outcome: object = True) -> None:
    """Have the core answer each call at once."""
    world.core.says = lambda event: (
        [effects.Answer(event.call_id, outcome)] if isinstance(event, events.Proposed) else []
    )


def test_a_call_is_answered_with_its_outcome() -> None:
    """A value or one of our errors: both are returned."""

    async def tell(world: World) -> None:
        world.driver.start()
        answers(world, "done")
        assert await world.driver.propose(RUN) == "done"
        refused = UnknownJob("job")
        answers(world, refused)
        assert await world.driver.propose(RUN) is refused

    story(tell)


def test_calls_without_a_key_are_calls_of_their_own() -> None:
    """Each reaches the core, under an id of its own."""

    async def tell(world: World) -> None:
        world.driver.start()
        answers(world)
        await world.driver.propose(RUN)
        await world.driver.propose(RUN)
        ids = [event.call_id for event in world.core.heard if isinstance(event, events.Proposed)]
        assert len(set(ids)) == 2

    story(tell)


def test_a_repeated_call_gets_the_first_answer() -> None:
    """Within ten minutes, by its key; also while the first is still on its way (PROTOCOL 6)."""

    async def tell(world: World) -> None:
        world.driver.start()
        calls = [asyncio.ensure_future(world.driver.propose(RUN, "key")) for _ in range(3)]
        await asyncio.sleep(0)
        (proposed,) = world.core.heard
        assert isinstance(proposed, events.Proposed)
        world.core.says = lambda event: [effects.Answer(proposed.call_id, "first")]
        world.driver.handle(events.Woke())
        assert await asyncio.gather(*calls) == ["first"] * 3
        world.boot_us += IDEMPOTENT_US - 1
        assert await world.driver.propose(RUN, "key") == "first"

    story(tell)


def test_after_ten_minutes_a_key_is_a_new_call() -> None:
    """And other keys are other calls all the time."""

    async def tell(world: World) -> None:
        world.driver.start()
        answers(world)
        await world.driver.propose(RUN, "key")
        await world.driver.propose(RUN, "another")
        world.boot_us += IDEMPOTENT_US + 1
        await world.driver.propose(RUN, "key")
        assert len(world.core.heard) == 3

    story(tell)


@pytest.mark.parametrize("refusal", [NoLeader("starting"), NotLeader("another one leads")])
def test_a_call_that_stored_nothing_may_be_repeated(refusal: Exception) -> None:
    """After a 503 the same key is tried anew: there is no first answer to repeat."""

    async def tell(world: World) -> None:
        world.driver.start()
        answers(world, refusal)
        assert await world.driver.propose(RUN, "key") is refusal
        answers(world, "done")
        assert await world.driver.propose(RUN, "key") == "done"
        answers(world, "twice")
        assert await world.driver.propose(RUN, "key") == "done"

    story(tell)


def test_a_call_after_the_end_is_refused() -> None:
    """It does not hang: nobody is there to answer."""

    async def tell(world: World) -> None:
        world.driver.start()
        world.driver.close()
        assert isinstance(await asyncio.wait_for(world.driver.propose(RUN), timeout=10), NoLeader)

    story(tell)


def test_who_stops_waiting_stops_nobody_else() -> None:
    """A client that hangs up leaves the call, and whoever repeats it, alone."""

    async def tell(world: World) -> None:
        world.driver.start()
        first = asyncio.ensure_future(world.driver.propose(RUN, "key"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        again = asyncio.ensure_future(world.driver.propose(RUN, "key"))
        await asyncio.sleep(0)
        (proposed,) = world.core.heard
        assert isinstance(proposed, events.Proposed)
        world.core.says = lambda event: [effects.Answer(proposed.call_id, "done")]
        world.driver.handle(events.Woke())
        assert await again == "done"

    story(tell)


def test_who_repeats_a_call_and_hangs_up_stops_nobody_either() -> None:
    """The first caller still gets its answer."""

    async def tell(world: World) -> None:
        world.driver.start()
        first = asyncio.ensure_future(world.driver.propose(RUN, "key"))
        await asyncio.sleep(0)
        again = asyncio.ensure_future(world.driver.propose(RUN, "key"))
        await asyncio.sleep(0)
        again.cancel()
        await asyncio.sleep(0)
        (proposed,) = world.core.heard
        assert isinstance(proposed, events.Proposed)
        world.core.says = lambda event: [effects.Answer(proposed.call_id, "done")]
        world.driver.handle(events.Woke())
        assert await first == "done"

    story(tell)


def test_an_answer_that_nobody_waits_for() -> None:
    """A second one, or one to a call of another life, is dropped."""

    async def tell(world: World) -> None:
        world.driver.start()
        world.core.says = lambda event: (
            [effects.Answer(event.call_id, 1), effects.Answer(event.call_id, 2), effects.Answer("nobody's", 3)]
            if isinstance(event, events.Proposed)
            else []
        )
        assert await world.driver.propose(RUN) == 1

    story(tell)
