"""MESHCRON_FAIL: which step is which, the n-th time of it, and what cannot be asked for."""

from __future__ import annotations

import os
import signal

import pytest

from meshcron import entries
from meshcron.core.effects import Effect, Publish, Send
from meshcron.core.events import Event, MessageReceived, Woke
from meshcron.errors import StartRefused
from meshcron.messages import Append, Fence, LogHead, ResultAck, Run, RunAck, StartedReport
from meshcron.runtime.failpoint import STEPS, failpoint
from tests.unit.runtime.scripted import NODE, World, story

FENCE = Fence(0, 1)


def append(entry: entries.Entry) -> Send:
    """What a leader sends of an entry."""
    beat = {"term": 1, "prev_index": 0, "prev_term": 0, "commit_index": 0, "sent_boot_us": 0, "cluster_us": 0}
    return Send(NODE, Append(**beat, heads=(LogHead(1, 1, 0),), payload=(entries.encode(entry),)))


REACHED: dict[str, list[Event | Effect]] = {
    "intent": [append(entries.Intents(0, 0, 0, ()))],
    "run": [Publish("all", Run(FENCE, 0, ())), Send(NODE, Run(FENCE, 0, ()))],
    "run_ack": [MessageReceived(NODE, RunAck(FENCE, ()))],
    "started": [MessageReceived(NODE, StartedReport(()))],
    "result_ack": [Send(NODE, ResultAck((), 0))],
}
OTHERS: list[Event | Effect] = [
    *(Woke(), append(entries.Noop(0, 0, 0)), Send(NODE, RunAck(FENCE, ()))),
    *(MessageReceived(NODE, Run(FENCE, 0, ())), MessageReceived(NODE, ResultAck((), 0))),
]


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Instead of an end."""
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *words: calls.append(words))
    return calls


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_reached(step: str, killed: list[tuple[int, int]]) -> None:
    """By its own events and effects and no others, and only the n-th time counts."""
    for what in REACHED[step]:
        passing = failpoint({"MESHCRON_FAIL": f"{step}:2"})
        assert passing
        others = [other for name, found in REACHED.items() if name != step for other in found]
        for passed in (what, *others, *OTHERS):
            passing(passed)
        assert killed == []
        passing(what)
        passing(what)
        assert killed == [(os.getpid(), signal.SIGKILL)]
        killed.clear()


def test_it_is_told_before_anything_is_done() -> None:
    """Whoever is killed at a step has not taken it."""
    told: list[tuple[object, int, int]] = []

    def tell(world: World) -> None:
        world.driver._passing = lambda what: told.append((what, len(world.core.heard), len(world.did)))
        order = Publish("all", Run(FENCE, 0, ()))
        world.core.says = lambda event: [order]
        world.driver.start()
        world.driver.handle(Woke())
        assert told == [(Woke(), 0, 0), (order, 1, 0)]

    story(tell)


@pytest.mark.parametrize(
    "text", ["intent", "intent:", "intent:0", "intent:-1", "intent:x", "commit:1", ":1", "intent:1:2"]
)
def test_what_cannot_be_asked_for_is_refused(text: str) -> None:
    """At the start, with the steps there are."""
    with pytest.raises(StartRefused, match="intent, run, run_ack, started, result_ack"):
        failpoint({"MESHCRON_FAIL": text})


def test_nothing_is_asked_for() -> None:
    """Then there is nothing to tell."""
    assert failpoint({}) is None
    assert failpoint({"MESHCRON_FAIL": " "}) is None
