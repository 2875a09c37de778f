"""Real commands: how they are started, what they find, how their end is told."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import signal as signals
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshcron.core.events import ProcessEnded, ProcessLost, ProcessNotStarted, ProcessStarted
from meshcron.model import Limits
from meshcron.runtime import process, process_reaper
from meshcron.runtime.output import OutputFile
from meshcron.runtime.process_starts import UNDER_WAY_MAX
from meshcron.runtime.process_table import ProcessStat, children, process_stat
from tests.integration.agent.real_agent import until_there

Play = Callable[..., None]
Stage = Any

LONG_SECONDS = 60
"""No test here waits so long."""


def own_fds() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def zombies() -> list[int]:
    """Children of ours that ended and were not reaped."""
    stats = [process_stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [stat.pid for stat in stats if stat and stat.parent == os.getpid() and stat.state == "Z"]


@pytest.mark.parametrize(
    ("command", "exit_code", "signal"),
    [
        ("true", 0, None),
        ("exit 3", 3, None),
        ("exit 255", 255, None),
        ("no-such-program-anywhere", 127, None),
        ("kill -KILL $$", None, 9),
        ("kill -TERM $$", None, 15),
        ("kill -SEGV $$", None, 11),
        ("kill -INT $$", None, 2),
        ("kill -PIPE $$", None, 13),
        ("kill -TERM 0; sleep 9", None, 15),
        ("exit 200", 200, None),
    ],
)
def test_an_ending_has_the_exit_code_or_the_signal(
    play: Play, command: str, exit_code: int | None, signal: int | None
) -> None:
    """However a command ends, the ending says how; the trampoline survives a signal to its whole group."""

    async def story(stage: Stage) -> None:
        ending = await stage.run(command)
        assert (ending.exit_code, ending.signal) == (exit_code, signal)

    play(story)


def test_an_exit_that_looks_like_a_death_is_told_from_one(play: Play) -> None:
    """`exit 143` is what a JVM does on TERM: an exit, where the shell of this machine can tell."""

    async def story(stage: Stage) -> None:
        if not stage.processes._shell_reports:
            pytest.skip("this machine's /bin/sh does not report deaths")
        assert (await stage.run("exit 143")).exit_code == 143
        assert (await stage.run("kill -TERM $$", "b")).signal == 15

    play(story)


def test_a_trampoline_killed_is_a_known_ending(play: Play) -> None:
    """The kernel (out of memory) or a person kills the trampoline itself: we are its parent, so we know."""

    async def story(stage: Stage) -> None:
        started = await stage.started("echo ready; exec sleep 30")
        await stage.until(lambda: stage.processes.read_output("a", 0, 100)[0])
        os.kill(started.pid, 9)
        assert (await stage.ended()).signal == 9
        os.killpg(started.pid, 9)  # the command it left behind

    play(story)


def test_an_output_that_cannot_be_read_holds_no_ending_up(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad sector under the end of it: how it ended is known all the same, and the record says why there is none."""

    def bad(_: OutputFile) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(OutputFile, "tail", bad)

    async def story(stage: Stage) -> None:
        ending = await stage.run("echo hi; exit 3")
        assert ending.exit_code == 3
        assert ending.output_tail == "(meshcron cannot read the end of this output: Input/output error)"

    play(story)


def test_an_exit_status_that_cannot_be_read_is_a_loss(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays so: whoever waited for it would hold its slot for ever."""

    def bad(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(process, "ending_of", bad)

    async def story(stage: Stage) -> None:
        stage.launch("true")
        lost = await stage.event(ProcessLost)
        assert lost.why == "its process is gone, and its exit status cannot be read: Input/output error"

    play(story)


def test_what_runs_on_as_somebody_else_holds_no_ending_up(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo -b`, where the file system tells of no writers: the group is asked, and may not be signalled."""

    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(OutputFile, "has_writers", lambda _: None)
    monkeypatch.setattr(os, "killpg", forbidden)

    async def story(stage: Stage) -> None:
        assert (await stage.run("exit 3")).exit_code == 3

    play(story)


def test_started_names_the_process_for_good(play: Play) -> None:
    """Pid and start time are those of the session leader the kernel knows; then comes the ending, and nothing else."""

    async def story(stage: Stage) -> None:
        before = time.time_ns() // 1000
        started = await stage.started("read line; exit 5", payload="x\n")
        stat = process_stat(started.pid)
        ending = await stage.ended()
        assert before <= started.started_wall_us <= ending.finished_wall_us <= time.time_ns() // 1000
        if stat:  # it may have ended already
            assert (stat.session, stat.start) == (started.pid, started.process_start)
        assert [type(event) for event in stage.events] == [ProcessStarted, ProcessEnded]

    play(story)


def test_the_environment_is_the_jobs_and_nothing_else(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job sees cron's few variables and its own; of the agent's environment it sees nothing."""
    monkeypatch.setenv("AGENT_SECRET", "x")
    user = pwd.getpwuid(os.geteuid())
    hostile = 'it\'s "$HOME" `id`\n\\ end'

    async def story(stage: Stage) -> None:
        lines = (await stage.output("env -0 | tr '\\n\\0' '\\t\\n'", env={"A": hostile, "EMPTY": ""})).splitlines()
        seen = dict(line.split("=", 1) for line in lines)
        assert seen.pop("A") == hostile.replace("\n", "\t")
        assert seen.pop("PATH").startswith("/usr/local/")
        for noise in ("PWD", "SHLVL", "_"):  # the shell's own
            seen.pop(noise, None)
        assert seen == {
            "EMPTY": "",
            "HOME": user.pw_dir,
            "LOGNAME": user.pw_name,
            "SHELL": "/bin/sh",
            "USER": user.pw_name,
        }

    play(story)


def test_a_job_overrides_the_usual_variables(play: Play) -> None:
    """PATH and HOME in a job's environment are what it gets."""

    async def story(stage: Stage) -> None:
        assert await stage.output('echo "$PATH $HOME"', env={"PATH": "/bin", "HOME": "/x"}) == "/bin /x\n"

    play(story)


def test_a_job_inherits_no_descriptors_signals_or_terminal(play: Play) -> None:
    """Nothing of the agent: three descriptors, no ignored or blocked signal, a session of its own, umask 077."""
    inherited = os.dup(2)
    os.set_inheritable(inherited, True)

    async def story(stage: Stage) -> None:
        fds = await stage.output("ls /proc/self/fd")
        assert fds.split() == ["0", "1", "2", "3"]  # 3: the folder ls itself reads
        masks = await stage.output("grep -E '^Sig(Ign|Blk)' /proc/self/status", "b")
        libc_own = 1 << 31 | 1 << 32  # glibc's posix_spawn leaves the two signals it uses itself ignored
        assert [int(mask, 16) & ~libc_own for mask in masks.split()[1::2]] == [0, 0]
        session = await stage.output("cut -d' ' -f6 /proc/$$/stat; umask", "c")
        trampoline = [event for event in stage.events if isinstance(event, ProcessStarted)][-1]
        assert session.split() == [str(trampoline.pid), "0077"]

    try:
        play(story)
    finally:
        os.close(inherited)


def test_stdin_is_the_payload_or_empty(play: Play) -> None:
    """A payload arrives whole, binary-safe and from its beginning; without one there is an end of file at once."""
    payload = "first\nänd \x01\n" + "x" * 60_000

    async def story(stage: Stage) -> None:
        assert await stage.output("cat", payload="first\nänd \x01\n") == "first\nänd \x01\n"
        assert await stage.output("cat < /dev/stdin | wc -c", "b", payload=payload) == f"{len(payload.encode())}\n"
        assert await stage.output("cat; echo end", "c") == "end\n"

    play(story)


def test_the_working_directory(play: Play, tmp_path: Path) -> None:
    """Home unless the job says otherwise; a folder with spaces and quotes is only a name."""
    odd = tmp_path / "it's a -folder"
    odd.mkdir()
    home = pwd.getpwuid(os.geteuid()).pw_dir
    usual = home if Path(home).is_dir() else "/"

    async def story(stage: Stage) -> None:
        assert await stage.output("pwd") == f"{usual}\n"
        assert await stage.output("pwd; echo ${OLDPWD-none}", "b", cwd=str(odd)) == f"{odd}\nnone\n"

    play(story)


def test_without_a_shell_words_are_words(play: Play) -> None:
    """shell = false: no expansion, no builtins, the program from the job's own PATH."""

    async def story(stage: Stage) -> None:
        assert await stage.output("printf '%s,' '$HOME' a\\ b *", shell=False) == "$HOME,a b,*,"
        assert (await stage.run("false", "b", shell=False)).exit_code == 1
        assert (await stage.run("/bin/sh -c 'exit 9'", "c", shell=False)).exit_code == 9

    play(story)


@pytest.mark.parametrize(
    ("command", "fields", "words"),
    [
        ("echo \0", {}, "NUL"),
        ("echo " + "x" * 200_000, {}, "131071 bytes"),
        ("true", {"env": {"BIG": "x" * 200_000}}, "131071 bytes"),
        ("true", {"env": {f"BIG{n}": "x" * 100_000 for n in range(40)}}, "too long together"),
        ("true", {"env": {"A=B": "x"}}, "no variable's name"),
        ("true", {"env": {"BASH_FUNC_x%%": "() { :; }"}}, "no variable's name"),
        ("true", {"env": {"A": "\0"}}, "NUL"),
        ("true", {"env": {"A": "\ud800"}}, "surrogate"),
        ("true", {"cwd": "/no/such/folder"}, "no folder '/no/such/folder'"),
        ("true", {"cwd": "/etc/passwd"}, "no folder"),
        ("true", {"cwd": "/\0"}, "no folder"),
        ("no-such-program", {"shell": False}, "no program 'no-such-program'"),
        ("./no-such", {"shell": False, "cwd": "/"}, "no program './no-such'"),
        ("echo 'open", {"shell": False}, "quotation"),
        ("  ", {"shell": False}, "empty"),
        ("true", {"run_as_user": "no-such-user"}, "may not run jobs as 'no-such-user'"),
        ("true", {"run_as_user": "root"}, "may not run jobs as 'root'"),
        ("true", {"execution_id": "../x"}, "no execution id"),
    ],
)
def test_what_cannot_run_is_refused_with_a_reason(play: Play, command: str, fields: dict[str, Any], words: str) -> None:
    """Nothing ran, nothing is left in the folder, and the reason names what to do."""

    async def story(stage: Stage) -> None:
        execution_id = fields.get("execution_id", "a")
        why = await stage.refused(command, **fields)
        assert words in why
        assert stage.events == [ProcessNotStarted(execution_id, why)]
        assert not list((stage.folder / "open").iterdir())

    play(story)


def test_a_failed_spawn_leaves_nothing(play: Play) -> None:
    """The disk of the data directory gave out (here: somebody made its folder a file): not started, with the error."""

    async def story(stage: Stage) -> None:
        (stage.folder / "open").rmdir()
        (stage.folder / "open").write_text("in the way")
        assert "Not a directory" in await stage.refused("true")

    play(story)


def test_niceness_and_limits_bind_the_job_only(play: Play) -> None:
    """The job is nice and small, its trampoline is neither; a limit above the agent's own is lowered to it."""

    async def story(stage: Stage) -> None:
        gigabyte = 1024**3
        command = "ulimit -v; ulimit -H -v; cut -d' ' -f19 /proc/$$/stat; cut -d' ' -f19 /proc/$PPID/stat"
        seen = await stage.output(command, nice=7, limits=Limits(memory_bytes=gigabyte))
        assert seen.split() == [str(gigabyte // 1024)] * 2 + ["7", str(os.getpriority(os.PRIO_PROCESS, 0))]
        hungry = "dd if=/dev/zero of=/dev/null bs=400M count=1"
        assert (await stage.run(hungry, "b", limits=Limits(memory_bytes=100_000_000))).exit_code == 1
        assert (await stage.run(hungry, "c")).exit_code == 0

    play(story)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root is not bound by RLIMIT_NPROC")
def test_a_limit_that_would_not_bind_is_refused(play: Play) -> None:
    """The kernel ignores RLIMIT_NPROC for root; a fork bomb behind a limit that does nothing would be a lie."""

    async def story(stage: Stage) -> None:
        assert "run_as_user" in await stage.refused("true", limits=Limits(processes=50))

    play(story)


def test_background_children_are_not_waited_for(play: Play) -> None:
    """`sleep 30 & echo done` is over at once. What stays can still be stopped, and its output is still bounded."""

    async def story(stage: Stage) -> None:
        began = time.monotonic()
        ending = await stage.run("sh -c 'sleep 30; :' & echo $!")
        assert time.monotonic() - began < 5
        child = int(ending.output_tail)
        assert process_stat(child) is not None
        stage.processes.signal("a", force=True)
        await stage.until(lambda: process_stat(child) is None)

    play(story)


def test_an_id_is_started_once(play: Play, tmp_path: Path) -> None:
    """P1: a second launch of a running id changes nothing; of one that is over it is lost, and nothing runs."""
    trace = tmp_path / "trace"

    async def story(stage: Stage) -> None:
        command = f"echo x >> {trace}; cat"
        stage.launch(command)
        stage.launch(command)
        await stage.ended()
        stage.launch(command)
        await stage.event(ProcessLost)
        assert trace.read_text() == "x\n"
        assert [type(event) for event in stage.events] == [ProcessStarted, ProcessEnded, ProcessLost]

    play(story)


def test_one_that_waits_for_its_turn_can_be_stopped(play: Play, tmp_path: Path) -> None:
    """Stopped between the launch and the spawn: not started, and said so."""

    async def story(stage: Stage) -> None:
        stage.launch(f"touch {tmp_path}/ran")
        stage.processes.signal("a", force=False)
        assert stage.events == [ProcessNotStarted("a", "stopped before it was started")]
        assert (await stage.run("true", "b")).exit_code == 0
        assert not (tmp_path / "ran").exists()

    play(story)


def test_a_burst_is_started_in_slices(play: Play) -> None:
    """Fifty at once do not hold the loop: it turns while they are started, and all end well."""

    async def story(stage: Stage) -> None:
        names = [f"e{number}" for number in range(50)]
        for name in names:
            stage.launch("true", name)
        seen = 0
        while seen < len(names):
            await asyncio.sleep(0)
            now = sum(isinstance(event, ProcessStarted) for event in stage.events)
            assert now - seen <= UNDER_WAY_MAX
            seen = now
        for name in names:
            assert (await stage.ended(name)).exit_code == 0

    play(story)


def test_nothing_leaks(play: Play) -> None:
    """Hundreds of executions, refused, killed and forgotten ones among them, leave no descriptor, zombie or file."""

    async def story(stage: Stage) -> None:
        await stage.run("true", "first")
        stage.processes.forget("first")
        before = own_fds()
        for number in range(200):
            stage.launch("exit 1" if number % 3 else "\0", f"e{number}", payload="x" * (number % 2))
        for number in range(200):
            if number % 3:
                await stage.ended(f"e{number}")
            stage.processes.forget(f"e{number}")
        assert own_fds() == before
        started = {event.pid for event in stage.events if isinstance(event, ProcessStarted)}
        assert len(started) >= 100
        assert not started & set(zombies())
        await stage.until(lambda: not zombies())  # what an earlier test left may end in this instant
        assert not list((stage.folder / "kept").iterdir())

    play(story)


async def orphaned(stage: Stage) -> int:
    """The pid of a daemon whose job is over."""
    there = stage.folder.with_name("there")
    daemon = f"echo $$; touch {there}; exec sleep {LONG_SECONDS} >/dev/null 2>&1"
    return int((await stage.run(f"(setsid sh -c '{daemon}' &) ; {until_there(there)}")).output_tail)


def test_orphans_are_reaped(play: Play) -> None:
    """A daemon that a job left becomes the agent's child; when it ends, long after the job, no zombie stays."""

    async def story(stage: Stage) -> None:
        orphan = await orphaned(stage)
        stat = process_stat(orphan)
        assert stat is not None
        assert stat.parent == os.getpid()
        os.kill(orphan, signals.SIGKILL)
        await stage.until(lambda: process_stat(orphan) is None)

    play(story)


def test_a_child_that_nobody_waits_for_keeps_no_other_from_being_reaped(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script left it before it became the agent (`sleep 3 & exec meshcron up`): the kernel shows it first for ever.
    Orphans go meanwhile, and at last it goes, too, and what it left; not what somebody waits for."""
    monkeypatch.setattr(process_reaper, "UNCLAIMED_SECONDS", LONG_SECONDS)
    left = os.posix_spawn("/bin/sh", ["sh", "-c", "sleep 0.1 & exit 3"], {})

    async def story(stage: Stage) -> None:
        orphan = await orphaned(stage)
        os.kill(orphan, signals.SIGKILL)
        await stage.until(lambda: process_stat(orphan) is None)
        assert process_stat(left) is not None
        monkeypatch.setattr(process_reaper, "UNCLAIMED_SECONDS", 3.0)
        other = await asyncio.create_subprocess_exec("/bin/sh", "-c", "sleep 1; exit 7")
        await stage.until(lambda: process_stat(left) is None and not zombies())
        assert await other.wait() == 7
        assert (await stage.run("exit 5", "b")).exit_code == 5

    play(story)


def test_what_was_there_before_the_first_job_is_reaped(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that runs nothing looks, too, as long as it has children."""
    monkeypatch.setattr(process_reaper, "UNCLAIMED_SECONDS", 0.5)
    left = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})

    async def story(stage: Stage) -> None:
        await stage.until(lambda: process_stat(left) is None)

    play(story)


def test_without_a_descriptor_the_children_are_looked_at_again(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the table of processes: whatever else is watched goes on, and so does this."""
    monkeypatch.setattr(process_reaper, "UNCLAIMED_SECONDS", 0.5)
    refusals = [OSError(errno.EMFILE, "Too many open files")]

    def seen() -> list[ProcessStat]:
        if refusals:
            raise refusals.pop()
        return children()

    monkeypatch.setattr(process_reaper, "children", seen)
    left = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})

    async def story(stage: Stage) -> None:
        await stage.until(lambda: process_stat(left) is None)
        assert not refusals

    play(story)


def test_others_may_start_processes_too(play: Play) -> None:
    """Reaping orphans takes nobody's exit status away: a child of the agent's own session belongs to who started it."""

    async def story(stage: Stage) -> None:
        stage.launch("sleep 0.5")
        other = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 7")
        await stage.ended()
        assert await other.wait() == 7

    play(story)


def test_folders_are_private(play: Play) -> None:
    """Nobody but the agent's user may look: folders 0700, files 0600."""

    async def story(stage: Stage) -> None:
        await stage.run("echo secret")
        modes = {path.relative_to(stage.folder): path.stat().st_mode & 0o777 for path in stage.folder.rglob("*")}
        assert stage.folder.stat().st_mode & 0o777 == 0o700
        assert modes == {
            Path("open"): 0o700,
            Path("kept"): 0o700,
            Path("spare"): 0o700,
            Path("open/a"): 0o700,
            Path("open/a/output"): 0o600,
            Path("open/a/status"): 0o600,
        }

    play(story)
