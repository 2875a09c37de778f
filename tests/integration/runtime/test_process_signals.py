"""TERM to the group, KILL of everything: with processes that do not want to end."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshcron.core.events import ProcessEnded
from meshcron.runtime.process_table import Table, process_stat

Play = Callable[..., None]
Stage = Any


async def written(stage: Stage, path: Path, count: int = 1) -> list[int]:
    """The pids that a job wrote into a file, once it has written that many."""

    def lines() -> list[str]:
        return path.read_text().split("\n")[:-1] if path.exists() else []

    await stage.until(lambda: len(lines()) >= count)
    return [int(line) for line in lines()]


def alive(pid: int) -> bool:
    stat = process_stat(pid)
    return stat is not None and stat.state != "Z"


def test_term_reaches_the_whole_group(play: Play, tmp_path: Path) -> None:
    """The shell, its child and its grandchild end by TERM, and the ending says TERM."""
    pids = tmp_path / "pids"

    async def story(stage: Stage) -> None:
        await stage.started(f"(sleep 60 & echo $! >> {pids}; wait) & echo $! >> {pids}; wait")
        family = await written(stage, pids, 2)
        stage.processes.signal("a", force=False)
        ending = await stage.ended()
        assert (ending.exit_code, ending.signal) == (None, 15)
        await stage.until(lambda: not any(alive(pid) for pid in family))

    play(story)


def test_a_term_that_came_too_early_is_repeated(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """TERM before the trampoline has its command, a command an instant later: it ends of a TERM all the same."""
    lost: list[int] = []
    found, sent = Table.job, os.killpg

    def job(table: Table, pid: int) -> int:
        return found(table, pid) if lost else 0

    def killpg(pid: int, number: int) -> None:
        if lost:
            sent(pid, number)
        else:  # on the trampoline
            lost.append(number)

    async def story(stage: Stage) -> None:
        await stage.started("sleep 60")
        monkeypatch.setattr(Table, "job", job)
        monkeypatch.setattr(os, "killpg", killpg)
        stage.processes.signal("a", force=False)
        ending = await stage.ended()
        assert (ending.exit_code, ending.signal) == (None, 15)

    play(story)


def test_a_job_may_end_well_on_term(play: Play, tmp_path: Path) -> None:
    """A job that cleans up on TERM has its own exit code and its last words."""
    pids = tmp_path / "pids"

    async def story(stage: Stage) -> None:
        await stage.started(f"trap 'echo bye; exit 4' TERM; echo $$ >> {pids}; while :; do sleep 0.05; done")
        await written(stage, pids)
        stage.processes.signal("a", force=False)
        ending = await stage.ended()
        assert ending.exit_code == 4
        assert ending.output_tail.endswith("bye\n")  # its shell may report the death of `sleep` before that

    play(story)


def test_one_that_ignores_term_is_killed(play: Play, tmp_path: Path) -> None:
    """TERM changes nothing; KILL ends it and all of its group."""
    pids = tmp_path / "pids"

    async def story(stage: Stage) -> None:
        await stage.started(f"trap '' TERM; sleep 60 & echo $! >> {pids}; wait; sleep 60")
        family = await written(stage, pids)
        stage.processes.signal("a", force=False)
        time.sleep(0.2)  # noqa: ASYNC251 - the loop has nothing to do: nothing may happen
        assert all(alive(pid) for pid in family)
        stage.processes.signal("a", force=True)
        ending = await stage.ended()
        assert (ending.exit_code, ending.signal) == (None, 9)
        await stage.until(lambda: not any(alive(pid) for pid in family))

    play(story)


def test_a_stopped_job_hears_term(play: Play, tmp_path: Path) -> None:
    """Somebody stopped the whole group (SIGSTOP); TERM must end it all the same."""
    pids = tmp_path / "pids"

    async def story(stage: Stage) -> None:
        await stage.started(f"echo $$ >> {pids}; kill -STOP 0; sleep 60")
        (pid,) = await written(stage, pids)
        await stage.until(lambda: (process_stat(pid) or pytest.fail("it ended")).state == "T")
        stage.processes.signal("a", force=False)
        assert (await stage.ended()).signal == 15

    play(story)


@pytest.mark.parametrize(
    "escape",
    [
        pytest.param("setsid sleep 60 & echo $! >> PIDS; wait", id="its parent lives"),
        pytest.param("(setsid sh -c 'echo $$ >> PIDS; exec sleep 60' &); sleep 60", id="its parent is gone"),
        pytest.param(
            "(setsid sh -c 'echo $$ >> PIDS; exec sleep 60' >/dev/null 2>&1 &); sleep 60", id="and it writes elsewhere"
        ),
        pytest.param(
            "(setsid sh -c '(setsid sh -c \"echo \\$\\$ >> PIDS; exec sleep 60\" >/dev/null &)' &); sleep 60",
            id="twice",
        ),
    ],
)
def test_kill_finds_what_left_the_group(play: Play, tmp_path: Path, escape: str) -> None:
    """A grandchild in a session of its own, double forks included, does not outlive a KILL (FAULTS 34)."""
    pids = tmp_path / "pids"

    async def story(stage: Stage) -> None:
        await stage.started(escape.replace("PIDS", str(pids)), env={"MESHCRON_EXECUTION": "17-x"})
        (escaped,) = await written(stage, pids)
        stage.processes.signal("a", force=True)
        assert (await stage.ended()).signal == 9
        await stage.until(lambda: process_stat(escaped) is None)

    play(story)


def test_what_term_orphaned_is_still_found(play: Play, tmp_path: Path) -> None:
    """TERM ends the parent of a silent, unmarked daemon; the KILL after the grace must still find the daemon."""
    pids = tmp_path / "pids"

    async def story(stage: Stage) -> None:
        deaf = f"trap '' TERM; echo $$ >> {pids}; sleep 60 & wait; wait"
        daemon = 'env -i /usr/bin/setsid /bin/sh -c "$DEAF" >/dev/null 2>&1'
        await stage.started(f"({daemon} & wait) & trap '' TERM; sleep 60 & wait; wait; sleep 60", env={"DEAF": deaf})
        (escaped,) = await written(stage, pids)
        stage.processes.signal("a", force=False)
        time.sleep(0.1)  # noqa: ASYNC251 - the grace
        stage.processes.signal("a", force=True)
        await stage.ended()
        await stage.until(lambda: process_stat(escaped) is None)

    play(story)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[float]]:
    """From now on no descriptor is left to read the table of processes with, for three looks; when each was."""

    def begin() -> list[float]:
        looks: list[float] = []
        taken = Table.taken

        def refused() -> Table:
            looks.append(time.monotonic())
            if len(looks) > 3:
                return taken()
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(Table, "taken", refused)
        return looks

    return begin


@pytest.mark.parametrize("force", [False, True])
def test_without_a_descriptor_the_group_is_signalled_all_the_same(
    play: Play, tmp_path: Path, blind: Callable[[], list[float]], force: bool
) -> None:
    """Nobody asks a second time. What left the group is killed once it can be found."""
    pids = tmp_path / "pids"

    async def story(stage: Stage) -> None:
        await stage.started(f"echo $$ >> {pids}; setsid sh -c 'echo $$ >> {pids}; exec sleep 60' & wait; sleep 60")
        command, escaped = await written(stage, pids, 2)
        looks = blind()
        stage.processes.signal("a", force=force)
        assert len(looks) == 1
        assert (await stage.ended()).signal == (9 if force else 15)
        assert not alive(command)
        if force:
            await stage.until(lambda: process_stat(escaped) is None)
            assert len(looks) > 3
        else:
            os.kill(escaped, signal.SIGKILL)

    play(story)


def test_without_a_descriptor_a_term_that_came_too_early_is_repeated_later(
    play: Play, monkeypatch: pytest.MonkeyPatch, blind: Callable[[], list[float]]
) -> None:
    """Whether the trampoline had a command then shows only once there are descriptors."""
    sent, numbers = os.killpg, list[int]()

    def killpg(pid: int, number: int) -> None:
        if looks[3:]:
            sent(pid, number)
        else:  # on the trampoline
            numbers.append(number)

    looks: list[float] = []

    async def story(stage: Stage) -> None:
        nonlocal looks
        await stage.started("sleep 60")
        looks = blind()
        monkeypatch.setattr(os, "killpg", killpg)
        stage.processes.signal("a", force=False)
        ending = await stage.ended()
        assert (ending.exit_code, ending.signal) == (None, 15)
        assert numbers == [signal.SIGTERM, signal.SIGCONT]

    play(story)


def test_others_are_left_alone(play: Play, tmp_path: Path) -> None:
    """A KILL of one execution touches no other, however alike they are."""
    pids = tmp_path / "pids"

    async def story(stage: Stage) -> None:
        for name in ("a", "b"):
            await stage.started(f"setsid sleep 60 & echo $! >> {pids}; wait", name, env={"MESHCRON_EXECUTION": name})
            await written(stage, pids, 1 if name == "a" else 2)
        of_a, of_b = await written(stage, pids, 2)
        stage.processes.signal("a", force=True)
        await stage.ended("a")
        await stage.until(lambda: process_stat(of_a) is None)
        assert alive(of_b)
        assert not [event for event in stage.events if isinstance(event, ProcessEnded) and event.execution_id == "b"]

    play(story)


def test_a_fork_bomb_ends(play: Play, tmp_path: Path) -> None:
    """A group that forks as fast as it can (bounded here) is killed in one go: groups are signalled as a whole."""
    pids = tmp_path / "pids"

    async def story(stage: Stage) -> None:
        bomb = "f() { [ $1 -gt 0 ] || { sleep 60; return; }; f $(($1 - 1)) & f $(($1 - 1)) & wait; }; f 6"
        started = await stage.started(f"echo $$ >> {pids}; {bomb}")
        await written(stage, pids)
        stage.processes.signal("a", force=True)
        assert (await stage.ended()).signal == 9

        def members() -> list[int]:
            stats = [process_stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
            return [stat.pid for stat in stats if stat and stat.session == started.pid]

        await stage.until(lambda: not members())

    play(story)


def test_a_signal_for_a_stranger_is_nothing(play: Play) -> None:
    """An unknown execution, or one that ended and left nothing: no event, no harm."""

    async def story(stage: Stage) -> None:
        stage.processes.signal("never", force=True)
        await stage.run("true")
        stage.processes.signal("a", force=True)
        assert len(stage.events) == 2

    play(story)
