"""From a launch to a process, with a kernel that answers when the story wants it to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from meshcron.core.events import Event, ProcessLost, ProcessNotStarted
from meshcron.model import Launch, Limits
from meshcron.runtime import process_starts
from meshcron.runtime.launch import Plan, Planner, RunAsPolicy, Tools, User
from meshcron.runtime.output import OutputFile
from meshcron.runtime.process_folder import Folders
from meshcron.runtime.process_record import Process
from meshcron.runtime.process_spawner import Outcome, Spawned
from meshcron.runtime.process_starts import UNDER_WAY_MAX, Starts

PID = 5_000_000
"""Above any pid that the kernel gives."""


class FakeSpawner:
    """Writes down what is to be started."""

    def __init__(self, done: Callable[[str, Outcome], None], wall_clock_us: Callable[[], int]) -> None:
        self.done = done
        self.wanted: list[str] = []
        self.closed = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        pass

    def spawn(self, execution_id: str, plan: Plan, folder: str) -> None:
        self.wanted.append(execution_id)

    def close(self) -> None:
        self.closed = True
        for execution_id in self.wanted:
            self.done(execution_id, spawned())


def spawned() -> Spawned:
    return Spawned(PID, 1, os.open(os.devnull, os.O_RDONLY), 7)


class Stage:
    """Starts with an audience."""

    def __init__(self, folder: Path) -> None:
        folders = Folders(folder)
        folders.start()
        self.events: list[Event] = []
        self.processes: list[tuple[str, int, bool | None]] = []
        self.starts = Starts(
            folders, lambda path: OutputFile.open(f"{path}/output", 65536), self.take, self.events.append, lambda: 0
        )
        self.starts.start(asyncio.get_running_loop(), Planner(RunAsPolicy(), User.own(), Tools.found()))
        self.kernel: Any = self.starts._spawner

    def take(self, process: Process, wall_us: int, stop: bool | None) -> None:
        assert process.child
        self.processes.append((process.execution_id, wall_us, stop))
        process.output.close()
        os.close(process.pidfd)

    def launch(self, execution_id: str) -> None:
        self.starts.launch(
            Launch(
                execution_id=execution_id,
                command="true",
                shell=True,
                env={},
                cwd="",
                run_as_user="",
                payload="",
                nice=0,
                limits=Limits(),
            )
        )

    async def handed_over(self, count: int) -> None:
        """Until so many starts have been asked of the kernel."""
        async with asyncio.timeout(10):
            while len(self.kernel.wanted) < count:  # noqa: ASYNC110 - turns of the loop are what is waited for
                await asyncio.sleep(0)


Play = Callable[[Callable[[Stage], Awaitable[None]]], None]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Tell a story, then close; every descriptor is closed with it."""
    monkeypatch.setattr(process_starts, "Spawner", FakeSpawner)

    def perform(story: Callable[[Stage], Awaitable[None]]) -> None:
        async def main() -> None:
            before = open_descriptors()
            stage = Stage(tmp_path / "executions")
            await story(stage)
            stage.starts.close()
            assert open_descriptors() == before

        asyncio.run(main())

    return perform


def test_a_launch_becomes_a_process(play: Play) -> None:
    """It is open from the launch on, until somebody takes its process over."""

    async def story(stage: Stage) -> None:
        stage.launch("a")
        assert "a" in stage.starts
        await stage.handed_over(1)
        assert "a" in stage.starts
        stage.kernel.done(stage.kernel.wanted.pop(), spawned())
        assert "a" not in stage.starts
        assert (stage.processes, stage.events) == ([("a", 7, None)], [])

    play(story)


@pytest.mark.parametrize(("stops", "handed_over"), [([False], False), ([False, True, False], True)])
def test_a_stop_that_comes_too_early_for_a_pid_waits_for_it(play: Play, stops: list[bool], handed_over: bool) -> None:
    """The kernel may just have made the process: it is stopped as soon as it has a pid, by force if any asked so."""

    async def story(stage: Stage) -> None:
        stage.launch("a")
        await stage.handed_over(1)
        for force in stops:
            stage.starts.stop("a", force=force)
        stage.kernel.done(stage.kernel.wanted.pop(), spawned())
        assert stage.processes == [("a", 7, handed_over)]

    play(story)


def test_what_was_not_handed_over_can_be_withdrawn(play: Play) -> None:
    """Only so many starts are under way; one behind them is stopped before anything ran, and its id is free."""

    async def story(stage: Stage) -> None:
        for number in range(UNDER_WAY_MAX + 2):
            stage.launch(f"{number}")
        await stage.handed_over(UNDER_WAY_MAX)
        waiting = f"{UNDER_WAY_MAX}"
        stage.starts.stop(waiting, force=False)
        assert stage.events == [ProcessNotStarted(waiting, "stopped before it was started")]
        assert waiting not in stage.starts
        stage.kernel.done(stage.kernel.wanted[0], OSError(11, "no"))
        await stage.handed_over(UNDER_WAY_MAX + 1)
        assert stage.kernel.wanted.pop(0) == "0"
        assert stage.kernel.wanted[-1] == f"{UNDER_WAY_MAX + 1}"

    play(story)


def test_what_the_kernel_refuses_was_not_started(play: Play) -> None:
    """The reason is told, and the folder is not left behind for a restarted agent to wonder about."""

    async def story(stage: Stage) -> None:
        stage.launch("a")
        await stage.handed_over(1)
        stage.kernel.done(stage.kernel.wanted.pop(), OSError(12, "Cannot allocate memory"))
        assert stage.events == [ProcessNotStarted("a", "cannot be started: Cannot allocate memory")]
        assert "a" not in stage.starts

    play(story)


def test_nothing_starts_with_the_output_of_another(play: Play, tmp_path: Path) -> None:
    """Somebody has written into the spare output that it gets."""

    async def story(stage: Stage) -> None:
        spare = tmp_path / "executions" / "open" / "spare"
        stage.starts._folders.take("spare", os.geteuid())
        (spare / "output").write_text("of another")
        stage.starts._folders.retire("spare", empty=True, owner=os.geteuid())
        stage.launch("a")
        await stage.handed_over(1)
        assert (tmp_path / "executions" / "open" / "a" / "output").read_text() == ""
        assert not spare.exists()

    play(story)


def test_an_id_is_started_once(play: Play) -> None:
    """Its folder is there: something ran, or may have run, under this id."""

    async def story(stage: Stage) -> None:
        stage.launch("a")
        await stage.handed_over(1)
        stage.kernel.done(stage.kernel.wanted.pop(), spawned())
        stage.launch("a")
        while not stage.events:  # noqa: ASYNC110 - turns of the loop are what is waited for
            await asyncio.sleep(0)
        assert stage.events == [ProcessLost("a", "it was started before, and is not started twice")]
        assert stage.kernel.wanted == []

    play(story)


def test_an_unknown_child_may_be_of_a_start_under_way(play: Play) -> None:
    """It may be until all starts that were under way at first sight are reported; later ones cannot have made it."""

    async def story(stage: Stage) -> None:
        assert not stage.starts.may_have_made(PID + 1)
        for name in ("a", "b"):
            stage.launch(name)
        await stage.handed_over(2)
        assert stage.starts.may_have_made(PID + 1)
        stage.launch("c")
        await stage.handed_over(3)
        stage.kernel.done("a", OSError(11, "no"))
        assert stage.starts.may_have_made(PID + 1)
        stage.kernel.done("b", OSError(11, "no"))
        assert not stage.starts.may_have_made(PID + 1)
        assert stage.starts.may_have_made(PID + 2)
        del stage.kernel.wanted[:2]

    play(story)


def test_closing_lets_go_of_what_is_under_way(play: Play) -> None:
    """It runs on for the next session; nobody is told, no descriptor stays open, nothing more is started."""

    async def story(stage: Stage) -> None:
        for number in range(UNDER_WAY_MAX + 1):
            stage.launch(f"{number}")
        await stage.handed_over(UNDER_WAY_MAX)
        stage.starts.close()
        stage.kernel.wanted.clear()
        await asyncio.sleep(0)
        assert (stage.kernel.wanted, stage.processes, stage.events) == ([], [], [])

    play(story)
