"""Calls to the core: each is answered once."""

from __future__ import annotations

import asyncio

from meshcron import commands
from meshcron.core import effects, events
from meshcron.errors import NoLeader, UnknownJob
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


def test_the_key_of_a_call_reaches_the_core() -> None:
    """Whether it is a repeated one stands in the log; here nothing is remembered."""

    async def tell(world: World) -> None:
        world.driver.start()
        answers(world, "done")
        for key in ("", "key", "key"):
            assert await world.driver.propose(RUN, key) == "done"
        assert [event.key for event in world.core.heard if isinstance(event, events.Proposed)] == ["", "key", "key"]

    story(tell)


def test_a_call_after_the_end_is_refused() -> None:
    """It does not hang: nobody is there to answer."""

    async def tell(world: World) -> None:
        world.driver.start()
        world.driver.close()
        assert isinstance(await asyncio.wait_for(world.driver.propose(RUN), timeout=10), NoLeader)

    story(tell)


def test_who_hangs_up_leaves_his_call_alone() -> None:
    """It is in the core's hands: its answer finds nobody, and that is all."""

    async def tell(world: World) -> None:
        world.driver.start()
        first = asyncio.ensure_future(world.driver.propose(RUN))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        (proposed,) = world.core.heard
        assert isinstance(proposed, events.Proposed)
        world.core.says = lambda event: [effects.Answer(proposed.call_id, "done")]
        world.driver.handle(events.Woke())
        answers(world, "more")
        assert await world.driver.propose(RUN) == "more"

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
