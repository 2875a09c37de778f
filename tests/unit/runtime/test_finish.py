"""How a process ends: by what comes first."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from meshcron.runtime.finish import START_OVER, Finish


def code_after(*happens: Callable[[Finish], object]) -> tuple[int, str]:
    """What the process is told to end with, and why, when this happens one after the other."""

    async def story() -> tuple[int, str]:
        finish = Finish(asyncio.get_running_loop())
        finish.listen()
        finish.listen()
        before = finish.decided
        for one in happens:
            one(finish)
        code = await asyncio.wait_for(finish.code(), 5)
        assert (before, finish.decided) == (False, True)
        return code, finish.failure

    return asyncio.run(story())


def halt(finish: Finish) -> None:
    finish.halt("the disk is gone")


def start_over(finish: Finish) -> None:
    finish.start_over("its cluster was dissolved")


def interrupt(_: Finish) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate(_: Finish) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("ask", [terminate, interrupt])
def test_whoever_asks_gets_a_clean_end(ask: Callable[[Finish], None]) -> None:
    """TERM of a service manager, INT of a terminal: exit code 0."""
    assert code_after(ask) == (0, "")


@pytest.mark.parametrize(
    ("first", "second", "ends_with"),
    [
        (halt, start_over, (1, "the disk is gone")),
        (start_over, halt, (START_OVER, "")),
        (halt, halt, (1, "the disk is gone")),
        (start_over, start_over, (START_OVER, "")),
    ],
)
def test_what_comes_first_counts(
    first: Callable[[Finish], None], second: Callable[[Finish], None], ends_with: tuple[int, str]
) -> None:
    """A process on its way out is not turned round, and its reason is not written over."""
    assert code_after(first, second) == ends_with


def test_a_second_term_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is impatient, also where the end was the agent's own idea: at once, and not as a failure."""
    left: list[int] = []

    def leave(code: int) -> None:
        left.append(code)
        raise SystemExit  # nothing of the handler runs after it

    monkeypatch.setattr(os, "_exit", leave)

    async def story() -> None:
        finish = Finish(asyncio.get_running_loop())
        finish.listen()
        finish.halt("the disk is gone")
        terminate(finish)
        await asyncio.sleep(5)  # the signal ends it at once

    with pytest.raises(SystemExit):
        asyncio.run(story())
    assert left == [0]
