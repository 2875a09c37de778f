"""Until an agent can be used: what it waits for, what it says meanwhile, when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from meshcron import commands
from meshcron.core import events
from meshcron.errors import StartRefused
from meshcron.model import Token
from meshcron.runtime import readiness
from meshcron.runtime.credentials import ADMIN_FILE, admin_token, local_token
from meshcron.runtime.finish import Finish
from meshcron.runtime.readiness import READY_LOOK_SECONDS, WAITING_LOOK_SECONDS, Readiness
from meshcron.runtime.standing import Standing
from tests.unit.core.disk import NODE
from tests.unit.core.lab import Lab
from tests.unit.runtime.test_standing import FACTS


def wait(
    folder: Path, agent: object, handle: Callable[[Any], None], why_not_ready: Callable[[], str | None], local: Token
) -> list[str]:
    """Wait until it is ready; returns what was announced. `why_not_ready` may end it as a story goes."""
    announced: list[str] = []

    async def story() -> None:
        finish = Finish(asyncio.get_running_loop())
        driver, standing = SimpleNamespace(handle=handle), SimpleNamespace(why_not_ready=why_not_ready)
        ready = Readiness(folder, cast("Any", agent), cast("Any", driver), cast("Any", standing), local)
        async with asyncio.timeout(10):
            await ready.wait(finish, lambda: announced.append("here"))

    asyncio.run(story())
    return announced


def of_lab(lab: Lab) -> Callable[[], str | None]:
    return Standing(lab.agent, FACTS, lab.now).why_not_ready


def test_a_leader_makes_its_local_token_known_first(tmp_path: Path) -> None:
    """Whoever starts an agent uses that token in the next moment. It is asked for once. Nobody waits for others
    here, so nothing is announced on the way: main announces what is ready."""
    lab, local, asked = Lab().start(), local_token(tmp_path, NODE, 7), list[events.Event]()

    def handle(event: events.Event) -> None:
        asked.append(event)
        lab.give(event)

    assert lab.agent.state.token_by_hash(local.sha256) is None
    assert wait(tmp_path, lab.agent, handle, of_lab(lab), local) == []
    assert lab.agent.state.token_by_hash(local.sha256) == local
    assert asked == [events.Proposed("local token", commands.PutToken(local))]


@pytest.mark.parametrize("known", [True, False])
def test_an_admin_token_that_opens_no_door_is_not_left_lying(tmp_path: Path, known: bool) -> None:
    """A newcomer that joined made one for a cluster that never was; the one that formed it keeps its own."""
    lab = Lab().start()
    admin, local = admin_token(tmp_path, 7), local_token(tmp_path, NODE, 7)
    if known:
        lab.ask(commands.PutToken(replace(admin, id="first", name="first")))
    wait(tmp_path, lab.agent, lab.give, of_lab(lab), local)
    assert (tmp_path / ADMIN_FILE).exists() is known


def stuck(*, alone: bool) -> SimpleNamespace:
    """An agent that leads nobody and knows no leader."""
    return SimpleNamespace(stands_alone=alone, leading=False, holds_log=False, state=Lab().start().agent.state)


@pytest.mark.parametrize(
    ("patience", "announced", "pause"), [(0.0, ["here"], WAITING_LOOK_SECONDS), (1e6, [], READY_LOOK_SECONDS)]
)
def test_a_member_that_waits_for_others_can_be_asked_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, announced: list[str], pause: float
) -> None:
    """It is announced before it is ready, and not again then; no patience runs out. One for whom all goes well is ready
    at once; who waits for long costs little."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(readiness, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(readiness, "ANNOUNCE_SECONDS", patience)
    monkeypatch.setattr(readiness, "READY_SECONDS", 0.0)
    looks = iter([*["no leader"] * 5, None])
    assert wait(tmp_path, stuck(alone=False), print, lambda: next(looks), local_token(tmp_path, NODE, 7)) == announced
    assert next(looks, "no more") == "no more"
    assert pauses == [pause] * 5


def test_a_disk_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent alone waits for nothing else."""
    monkeypatch.setattr(readiness, "READY_SECONDS", 0.01)
    with pytest.raises(StartRefused, match=rf"{tmp_path}: its disk did not answer within 0.01 s"):
        wait(tmp_path, stuck(alone=True), print, lambda: "no leader", local_token(tmp_path, NODE, 7))


@pytest.mark.parametrize("ending", ["halt", "start_over"])
def test_an_end_meanwhile_ends_the_wait(tmp_path: Path, ending: str) -> None:
    """A failure with its reason; an agent that begins again says nothing."""

    async def story() -> None:
        finish = Finish(asyncio.get_running_loop())
        standing = SimpleNamespace(why_not_ready=lambda: "no leader")
        local = local_token(tmp_path, NODE, 7)
        ready = Readiness(tmp_path, cast("Any", stuck(alone=False)), cast("Any", None), cast("Any", standing), local)
        waiting = asyncio.ensure_future(ready.wait(finish, lambda: pytest.fail("it is not ready")))
        await asyncio.sleep(0)
        getattr(finish, ending)("the key is another one")
        async with asyncio.timeout(5):
            await waiting

    if ending == "start_over":
        asyncio.run(story())
        return
    with pytest.raises(StartRefused, match="the key is another one"):
        asyncio.run(story())
