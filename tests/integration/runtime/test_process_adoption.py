"""Jobs outlive the agent: a first session in a process of its own is killed -9, a second one here finds its jobs."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshcron.core.events import ProcessEnded, ProcessLost, ProcessStarted
from meshcron.runtime.launch import RunAsPolicy
from meshcron.runtime.output import OutputFile
from meshcron.runtime.process import START_LATE_TICKS
from meshcron.runtime.process_table import process_stat

Play = Callable[..., None]
Stage = Any

DEADLINE_SECONDS = 20.0

FIRST_SESSION = """
import asyncio, json, sys, time
from pathlib import Path
from meshcron.core.events import ProcessStarted
from meshcron.model import Launch, Limits
from meshcron.runtime.launch import RunAsPolicy
from meshcron.runtime.process import Processes

def emit(event):
    if isinstance(event, ProcessStarted):
        print(event.pid, event.process_start, event.started_wall_us, flush=True)

async def main(folder, command, user):
    processes = Processes(Path(folder), emit, policy=RunAsPolicy((user,)), wall_clock_us=lambda: time.time_ns() // 1000)
    processes.start()
    launch = Launch(execution_id="a", command=command, shell=True, env={"MESHCRON_EXECUTION": "a"}, cwd="/",
                    run_as_user=user, payload="", nice=0, limits=Limits())
    processes.launch(launch)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class FirstSession:
    """An agent that started one job and was killed -9."""

    def __init__(self, folder: Path, command: str, user: str = "") -> None:
        self.agent = subprocess.Popen(
            [sys.executable, "-c", FIRST_SESSION, str(folder), command, user], stdout=subprocess.PIPE, text=True
        )
        assert self.agent.stdout
        self.pid, self.start, self.started_wall_us = (int(word) for word in self.agent.stdout.readline().split())

    def wait(self) -> None:
        """Until its job is over; whoever inherited it may leave it a zombie."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (stat := process_stat(self.pid)) and stat.start == self.start and stat.state != "Z":
            assert time.monotonic() < deadline, "its job goes on"
            time.sleep(0.01)

    def die(self) -> None:
        assert self.agent.stdout
        self.agent.kill()
        self.agent.wait()
        self.agent.stdout.close()


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Callable[..., FirstSession]]:
    """Play the first session up to its death; what it started is killed behind the test."""
    sessions: list[FirstSession] = []

    def perform(command: str, user: str = "") -> FirstSession:
        session = FirstSession(tmp_path / "executions", command, user)
        sessions.append(session)
        session.die()
        return session

    yield perform
    for session in sessions:
        stat = process_stat(session.pid)
        if stat and stat.start == session.start:
            os.killpg(session.pid, signal.SIGKILL)


def test_a_running_job_is_adopted(play: Play, first: Callable[..., FirstSession], tmp_path: Path) -> None:
    """It goes on through the death of the agent; the next session hears how it ended, and has its whole output."""
    go = tmp_path / "go"
    session = first(f"echo one; while [ ! -e {go} ]; do sleep 0.02; done; echo two; exit 3")

    async def story(stage: Stage) -> None:
        stage.processes.adopt("a", session.pid, session.start)
        started = await stage.event(ProcessStarted)
        assert (started.pid, started.process_start) == (session.pid, session.start)
        assert abs(started.started_wall_us - session.started_wall_us) < 1_000_000
        go.touch()
        before = go.stat().st_mtime_ns // 1000  # of the clock that the end is stamped with: it stands for milliseconds
        ending = await stage.ended()
        assert (ending.exit_code, ending.signal, ending.output_tail) == (3, None, "one\ntwo\n")
        assert before <= ending.finished_wall_us <= time.time_ns() // 1000
        assert len(stage.events) == 2

    play(story)


def test_one_whose_pid_was_not_written_down_is_found(
    play: Play, first: Callable[..., FirstSession], tmp_path: Path
) -> None:
    """`starting` was durable, the pid was not: it is found by its folder."""
    session = first("sleep 60")

    async def story(stage: Stage) -> None:
        stage.processes.adopt("a", 0, 0)
        started = await stage.event(ProcessStarted)
        assert (started.pid, started.process_start) == (session.pid, session.start)
        stage.processes.signal("a", force=False)
        ending = await stage.ended()
        assert (ending.exit_code, ending.signal) == (None, 15)

    play(story)


@pytest.mark.parametrize(("late", "found"), [(-1, False), (3, True), (START_LATE_TICKS + 1, False)])
def test_one_whose_start_could_not_be_asked_for_is_found(
    play: Play, first: Callable[..., FirstSession], late: int, found: bool
) -> None:
    """The moment before its fork was written down: what began right after that is it, and nothing else."""
    session = first("sleep 60")

    async def story(stage: Stage) -> None:
        stage.processes.adopt("a", session.pid, session.start - late)
        if not found:
            await stage.event(ProcessLost)
            return
        started = await stage.event(ProcessStarted)
        assert (started.pid, started.process_start) == (session.pid, session.start)

    play(story)


def test_without_a_descriptor_it_is_looked_for_later(
    play: Play, first: Callable[..., FirstSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks a second time: the job is found once there are descriptors again, and none is lost by it."""
    session = first("sleep 60")

    async def story(stage: Stage) -> None:
        await asyncio.sleep(0)
        before = open_descriptors()
        opened = OutputFile.open

        def refused(*_: object) -> OutputFile:
            monkeypatch.setattr(OutputFile, "open", opened)
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(OutputFile, "open", refused)
        stage.processes.adopt("a", session.pid, session.start)
        assert (stage.events, open_descriptors()) == ([], before)
        started = await stage.event(ProcessStarted)
        assert (started.pid, started.process_start) == (session.pid, session.start)
        stage.processes.signal("a", force=True)
        assert (await stage.ended()).signal == 9

    play(story)


def test_one_that_ended_meanwhile_is_known(play: Play, first: Callable[..., FirstSession]) -> None:
    """It ended while no agent ran: the status file tells how and when, and the folder since when it ran."""
    session = first("echo out; exit 4")
    session.wait()
    ended_by = time.time_ns() // 1000
    time.sleep(0.05)

    async def story(stage: Stage) -> None:
        stage.processes.adopt("a", session.pid, session.start)
        event = await stage.event(ProcessEnded)
        assert (event.ending.exit_code, event.ending.output_tail) == (4, "out\n")
        assert session.started_wall_us - 1_000_000 < event.started_wall_us <= event.ending.finished_wall_us <= ended_by
        assert stage.events == [event]
        stage.processes.forget("a")
        assert stage.processes.output_path("a").read_text() == "out\n"

    play(story)


def test_a_death_while_no_agent_ran_is_known_too(play: Play, first: Callable[..., FirstSession]) -> None:
    """The job died of a signal then: the trampoline wrote that down."""
    session = first("kill -SEGV $$")
    session.wait()

    async def story(stage: Stage) -> None:
        stage.processes.adopt("a", session.pid, session.start)
        assert (await stage.ended()).signal == 11

    play(story)


def test_without_process_and_status_it_is_lost(play: Play, first: Callable[..., FirstSession]) -> None:
    """Power failed, or somebody killed the trampoline too: nobody can know, and nobody pretends to."""
    session = first("sleep 60")
    os.killpg(session.pid, signal.SIGKILL)
    session.wait()

    async def story(stage: Stage) -> None:
        stage.processes.adopt("a", session.pid, session.start)
        assert stage.events == [ProcessLost("a", "its process is gone and left no exit status")]

    play(story)


def test_an_adopted_trampoline_killed_by_others_is_lost(play: Play, first: Callable[..., FirstSession]) -> None:
    """No parent of it, we cannot know its death; but our own KILL we know."""
    session = first("sleep 60")

    async def story(stage: Stage) -> None:
        stage.processes.adopt("a", session.pid, session.start)
        await stage.event(ProcessStarted)
        os.killpg(session.pid, signal.SIGKILL)
        await stage.event(ProcessLost)

    play(story)


def test_our_own_kill_of_an_adopted_one_is_an_ending(
    play: Play, first: Callable[..., FirstSession], tmp_path: Path
) -> None:
    """KILL takes the trampoline along, before it can write; and what left the group, though not our descendant and
    silent: the environment names its execution."""
    pids = tmp_path / "pids"
    session = first(f"(setsid sh -c 'echo $$ >> {pids}; exec sleep 60' >/dev/null 2>&1 &); sleep 60")

    async def story(stage: Stage) -> None:
        stage.processes.adopt("a", session.pid, session.start)
        await stage.until(lambda: pids.exists() and pids.read_text().endswith("\n"))
        stage.processes.signal("a", force=True)
        assert (await stage.ended()).signal == 9
        escaped = int(pids.read_text())
        await stage.until(lambda: process_stat(escaped) is None)

    play(story)


def test_a_pid_used_again_is_nobody(play: Play, first: Callable[..., FirstSession]) -> None:
    """The number written down is another's by now: not adopted, and above all not signalled."""
    session = first("exit 0")
    session.wait()
    stranger = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)

    async def story(stage: Stage) -> None:
        stat = process_stat(stranger.pid)
        assert stat
        status = stage.folder / "open/a/status"
        status.write_text("")  # as if its end had not been written
        stage.processes.adopt("a", stranger.pid, session.start)  # its start differs
        stage.processes.adopt("a", stranger.pid, stat.start)  # after a reboot even that may agree
        assert [type(event) for event in stage.events] == [ProcessLost, ProcessLost]
        stage.processes.signal("a", force=True)
        assert stranger.poll() is None

    try:
        play(story)
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_that_names_the_folder_is_not_enough(
    play: Play, first: Callable[..., FirstSession], tmp_path: Path
) -> None:
    """Any user can start something with the right words; only the real trampoline writes the status file."""
    session = first("exit 0")
    session.wait()
    folder = tmp_path / "executions/open/a"
    impostor = subprocess.Popen(["/bin/sh", "-c", "sleep 60; :", str(folder)], start_new_session=True)

    async def story(stage: Stage) -> None:
        (folder / "status").write_text("")
        stage.processes.adopt("a", 0, 0)
        assert [type(event) for event in stage.events] == [ProcessLost]

    try:
        play(story)
    finally:
        os.killpg(impostor.pid, signal.SIGKILL)
        impostor.wait()


def test_nothing_of_it_is_there(play: Play) -> None:
    """`starting` was durable, and then nothing came: no folder, no process."""

    async def story(stage: Stage) -> None:
        stage.processes.adopt("a", 0, 0)
        assert [type(event) for event in stage.events] == [ProcessLost]

    play(story)


def test_a_status_of_an_earlier_execution_is_not_taken_for_ones_own(play: Play) -> None:
    """Folders are used again: the line of the execution before says nothing about this one."""

    async def story(stage: Stage) -> None:
        await stage.run("exit 5", "before")
        stage.processes.forget("before")
        started = await stage.started("sleep 60")
        assert "5 before" in (stage.folder / "open/a/status").read_text()
        stage.processes.close()
        stage.processes.adopt("a", started.pid, started.process_start)
        assert [type(event) for event in stage.events].count(ProcessEnded) == 1
        os.killpg(started.pid, signal.SIGKILL)
        await stage.event(ProcessLost)

    play(story)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can become another user")
def test_a_job_of_another_user_is_adopted(play: Play, first: Callable[..., FirstSession]) -> None:
    """The trampoline has the job's user, and is recognised all the same."""
    session = first("sleep 60", "nobody")

    async def story(stage: Stage) -> None:
        stage.processes.adopt("a", 0, 0)
        assert (await stage.event(ProcessStarted)).pid == session.pid
        stage.processes.signal("a", force=False)
        assert (await stage.ended()).signal == 15

    play(story, RunAsPolicy(("nobody",)))


def test_close_leaves_them_running(play: Play) -> None:
    """A graceful end of the agent is no end of its jobs, and holds no descriptor of them."""

    async def story(stage: Stage) -> None:
        before = open_descriptors()
        started = await stage.started("sleep 60")
        stage.processes.close()
        assert open_descriptors() == before
        stat = process_stat(started.pid)
        assert stat
        assert stat.state != "Z"
        stage.processes.adopt("a", started.pid, started.process_start)
        assert len(stage.events) == 2

    play(story)
