"""Real trampolines, started beside the loop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from meshcron.model import Launch, Limits
from meshcron.runtime import process_spawner
from meshcron.runtime.launch import Plan, Planner, RunAsPolicy, Tools, User
from meshcron.runtime.output import OutputFile
from meshcron.runtime.process_spawner import Outcome, Spawned, Spawner
from meshcron.runtime.process_table import process_stat

STARTS = 60

LIBC_SIGNALS = 0b11 << 31
"""32 and 33, glibc's own (signal(7)): it has a child ignore them."""


def plan(folder: Path, command: str) -> Plan:
    launch = Launch(
        execution_id=folder.name,
        command=command,
        shell=True,
        env={"WORD": "grün"},
        cwd="/",
        run_as_user="",
        payload="",
        nice=0,
        limits=Limits(),
    )
    folder.mkdir()
    OutputFile.open(f"{folder}/output", 65536).close()
    return Planner(RunAsPolicy(), User.own(), Tools.found()).plan(launch, str(folder))


async def outcomes(folder: Path, command: str, names: list[str]) -> dict[str, Outcome]:
    """How each of some starts went; each is told once, in the loop's thread."""
    told: Counter[str] = Counter()
    found: dict[str, Outcome] = {}
    everything = asyncio.Event()
    loop = asyncio.get_running_loop()

    def done(execution_id: str, outcome: Outcome) -> None:
        assert asyncio.get_running_loop() is loop
        told[execution_id] += 1
        found[execution_id] = outcome
        if len(found) == len(names):
            everything.set()

    spawner = Spawner(done, lambda: 42)
    spawner.start(asyncio.get_running_loop())
    for name in names:
        spawner.spawn(name, plan(folder / name, command), str(folder / name))
    async with asyncio.timeout(20):
        await everything.wait()
    spawner.close()
    assert told == Counter(names)
    return found


def test_many_starts_are_told_as_the_kernel_has_them(tmp_path: Path) -> None:
    """Each has its own session and the start time that /proc shows, whether it had to be asked or not."""
    names = [f"{number}" for number in range(STARTS)]
    found = asyncio.run(outcomes(tmp_path, "exec sleep 60", names))
    for outcome in found.values():
        assert isinstance(outcome, Spawned)
        stat = process_stat(outcome.pid)
        assert stat is not None
        assert (stat.start, stat.session, outcome.wall_us) == (outcome.start, outcome.pid, 42)
        signal.pidfd_send_signal(outcome.pidfd, signal.SIGKILL)
        os.killpg(outcome.pid, signal.SIGKILL)
        os.waitpid(outcome.pid, 0)
        os.close(outcome.pidfd)


def test_a_start_that_cannot_be_asked_for_is_taken_from_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor is left for /proc: the moment before the fork does. From 0 on every timeout would have passed."""
    monkeypatch.setattr(process_spawner, "_TICK_NS", 1)
    monkeypatch.setattr(process_spawner, "process_stat", lambda _pid: None)
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    (outcome,) = asyncio.run(outcomes(tmp_path, "true", ["a"])).values()
    assert isinstance(outcome, Spawned)
    os.waitpid(outcome.pid, 0)
    os.close(outcome.pidfd)
    assert before <= outcome.start <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_a_trampoline_has_its_words_its_environment_and_default_signals(tmp_path: Path) -> None:
    """As text of any kind; and no signal is ignored or blocked that Python ignores."""
    command = 'echo "$WORD"; grep -E "^Sig(Blk|Ign)" /proc/self/status'
    (outcome,) = asyncio.run(outcomes(tmp_path, command, ["a"])).values()
    assert isinstance(outcome, Spawned)
    assert os.waitpid(outcome.pid, 0)[1] == 0
    os.close(outcome.pidfd)
    word, _, blocked, _, ignored = (tmp_path / "a" / "output").read_text().split()
    assert (word, int(blocked, 16), int(ignored, 16) & ~LIBC_SIGNALS) == ("grün", 0, 0)


@pytest.mark.parametrize("program", ["/nowhere/sh", "/proc/self/status"])
def test_what_cannot_be_executed_says_why(tmp_path: Path, program: str) -> None:
    """The kernel's own error."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Outcome] = loop.create_future()
        spawner = Spawner(lambda _, outcome: told.set_result(outcome), lambda: 0)
        spawner.start(loop)
        good = plan(tmp_path / "a", "true")
        bad = Plan([program], good.env, b"", b"", good.uid, None, b"")
        spawner.spawn("a", bad, str(tmp_path / "a"))
        outcome = await asyncio.wait_for(told, 20)
        assert isinstance(outcome, OSError)
        assert outcome.errno
        assert outcome.strerror == os.strerror(outcome.errno)
        spawner.close()

    asyncio.run(story())


def test_closing_waits_for_what_was_asked_for(tmp_path: Path) -> None:
    """A start under way has happened when `close` returns, and its descriptor has an owner."""

    async def story() -> list[Outcome]:
        found: list[Outcome] = []
        spawner = Spawner(lambda _, outcome: found.append(outcome), lambda: 0)
        spawner.start(asyncio.get_running_loop())
        for number in range(10):
            folder = tmp_path / f"{number}"
            spawner.spawn(folder.name, plan(folder, "true"), str(folder))
        spawner.close()
        return found

    found = asyncio.run(story())
    assert len(found) == 10
    for outcome in found:
        assert isinstance(outcome, Spawned)
        os.waitpid(outcome.pid, 0)
        os.close(outcome.pidfd)
