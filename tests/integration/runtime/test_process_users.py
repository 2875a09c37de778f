"""run_as_user: another user with its groups, and an environment that never reaches root."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshcron.model import Limits
from meshcron.runtime.launch import RunAsPolicy, User

Play = Callable[..., None]
Stage = Any

NOBODY = RunAsPolicy(("nobody",))

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can become another user")


@as_root
def test_the_job_is_that_user_with_its_groups(play: Play) -> None:
    """Every id, its groups and no others, no capability, no way back."""
    user = pwd.getpwnam("nobody")
    groups = set(os.getgrouplist("nobody", user.pw_gid))

    async def story(stage: Stage) -> None:
        status = await stage.output("cat /proc/self/status", run_as_user="nobody")
        seen = {line.split(":")[0]: line.split(":")[1].split() for line in status.splitlines()}
        assert seen["Uid"] == [str(user.pw_uid)] * 4
        assert seen["Gid"] == [str(user.pw_gid)] * 4
        assert {int(group) for group in seen["Groups"]} == groups
        assert {seen[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert seen["NoNewPrivs"] == ["1"]

    play(story, NOBODY)


@as_root
def test_supplementary_groups_come_along(play: Play) -> None:
    """A user in further groups has them."""
    own = {entry.pw_name: entry for entry in pwd.getpwall()}
    found = next((g for g in grp.getgrall() for name in g.gr_mem if name in own and own[name].pw_uid != 0), None)
    if found is None:
        pytest.skip("no user of this machine is in a supplementary group")
    name = next(member for member in found.gr_mem if member in own)

    async def story(stage: Stage) -> None:
        assert str(found.gr_gid) in (await stage.output("id -G", run_as_user=name, cwd="/")).split()

    play(story, RunAsPolicy((name,)))


@as_root
def test_the_usual_variables_are_that_users(play: Play) -> None:
    """HOME, USER, LOGNAME, SHELL and PATH, and where the home is not there, / as the working directory."""
    user = pwd.getpwnam("nobody")
    home = user.pw_dir if Path(user.pw_dir).is_dir() else "/"

    async def story(stage: Stage) -> None:
        lines = (await stage.output("pwd; env", run_as_user="nobody", env={"A": "b c"})).splitlines()
        assert lines[0] == home
        seen = dict(line.split("=", 1) for line in lines[1:])
        for noise in ("PWD", "SHLVL", "_"):
            seen.pop(noise, None)
        assert seen == {
            "A": "b c",
            "HOME": user.pw_dir,
            "LOGNAME": "nobody",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "SHELL": "/bin/sh",
            "USER": "nobody",
        }

    play(story, NOBODY)


@pytest.fixture
def trap() -> Iterator[Path]:
    """A folder that everybody may enter, with programs that write down who ran them."""
    folder = Path(tempfile.mkdtemp(prefix="meshcron-trap-"))
    folder.chmod(0o755)
    caught = folder / "caught"
    caught.touch()
    caught.chmod(0o666)
    for name in ("setpriv", "sh", "prlimit", "nice", "start-up"):
        script = folder / name
        script.write_text(f"#!/bin/sh\nid -u >> {caught}\n")
        script.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def proc(pid: int, name: str) -> list[bytes]:
    return Path(f"/proc/{pid}/{name}").read_bytes().split(b"\0")


def child(pid: int, name: str) -> int:
    """The pid of the only child of a process, once that runs the program of this name; else 0."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    names = [Path(f"/proc/{number}/comm").read_text().strip() for number in children]
    return int(children[0]) if names == [name] else 0


@as_root
def test_the_environment_never_reaches_root(play: Play, trap: Path) -> None:
    """A library that every program of the job must load, a PATH with its own setpriv and sh, a start-up file: none of
    them is applied to a process of root, and all of them are in the job's environment."""
    hostile = {
        "BASH_ENV": f"{trap}/start-up",
        "ENV": f"{trap}/start-up",
        "GLIBC_TUNABLES": "glibc.malloc.check=3",
        "IFS": "/",
        "LD_LIBRARY_PATH": str(trap),
        "LD_PRELOAD": f"{trap}/no-such.so",
        "PATH": f"{trap}:/usr/bin:/bin",
        "PS4": "`id -u`",
        "SHELLOPTS": "xtrace",
        "X": f"'; id -u >> {trap}/caught; '",
    }

    async def story(stage: Stage) -> None:
        trampoline = (await stage.started("setpriv; exec sleep 30", run_as_user="nobody", env=hostile, nice=1)).pid
        await stage.until(lambda: child(trampoline, "sleep"))
        own = {"IFS", "SHELLOPTS"}  # what shells set for themselves, whoever starts them
        wanted = {f"{name}={value}".encode() for name, value in hostile.items() if name not in own}
        assert wanted <= set(proc(child(trampoline, "sleep"), "environ"))
        assert not [pair for pair in proc(trampoline, "environ") if os.fsencode(trap) in pair]
        assert not [word for word in proc(trampoline, "cmdline") if os.fsencode(trap) in word]
        assert set((trap / "caught").read_text().split()) == {str(pwd.getpwnam("nobody").pw_uid)}
        stage.processes.signal("a", force=True)
        # The loader complained on behalf of the job's own programs.
        assert "no-such.so" in (await stage.ended()).output_tail

    play(story, NOBODY)


@as_root
def test_odd_values_arrive_as_they_are(play: Play) -> None:
    """Quotes, newlines, every byte: the environment of another user's job is the same as of one's own."""
    value = 'it\'s "$HOME" `id` \\ \n\t ü \udcff\udc81\udc88 \x01 end'

    async def story(stage: Stage) -> None:
        command = 'printf %s "$V" | od -An -v -tx1 | tr -d " \\n"'
        for number, fields in enumerate(({}, {"run_as_user": "nobody"})):
            seen = await stage.output(command, f"e{number}", env={"V": value}, **fields)
            assert bytes.fromhex(seen) == value.encode("utf-8", "surrogateescape")

    play(story, NOBODY)


@as_root
def test_a_name_the_shell_holds_read_only_does_no_harm(play: Play) -> None:
    """bash refuses UID and PPID, dash an OPTIND that is no number: the job runs all the same."""

    async def story(stage: Stage) -> None:
        env = {"UID": "5", "PPID": "7", "ZED": "z"}
        assert await stage.output('echo "$ZED"', run_as_user="nobody", env=env) == "z\n"

    play(story, NOBODY)


@as_root
def test_its_streams_are_its_own(play: Play) -> None:
    """It may open /dev/stdout and /dev/stderr, read its payload again, and has no other descriptor."""

    async def story(stage: Stage) -> None:
        command = "cat /dev/stdin; echo out >> /dev/stdout; echo err >> /dev/stderr; ls /proc/self/fd"
        seen = await stage.output(command, run_as_user="nobody", payload="in\n")
        assert seen.split() == ["in", "out", "err", "0", "1", "2", "3"]

    play(story, NOBODY)


@as_root
def test_secrets_are_not_in_ps(play: Play) -> None:
    """No process of an execution shows the environment or the payload in its arguments."""

    async def story(stage: Stage) -> None:
        shown = (
            "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null | grep -c SESAME-[0-9] || :"
        )
        for number, user in enumerate(("", "nobody")):
            fields = {"env": {"TOKEN": "SESAME-1"}, "payload": "SESAME-2", "run_as_user": user}
            assert await stage.output(shown, f"e{number}", **fields) == "0\n"

    play(story, NOBODY)


@as_root
def test_endings_limits_and_signals_work_for_it_too(play: Play) -> None:
    """Exit codes, deaths, niceness, a limit on processes that now binds, a folder it may not enter, TERM and KILL."""

    async def story(stage: Stage) -> None:
        nobody: dict[str, Any] = {"run_as_user": "nobody"}
        assert (await stage.run("exit 6", "exit", **nobody)).exit_code == 6
        assert (await stage.run("kill -9 $$", "death", **nobody)).signal == 9
        limits = Limits(memory_bytes=2**30, processes=77)
        command = "ulimit -v; grep 'Max processes' /proc/self/limits; nice"
        seen = (await stage.output(command, "limits", nice=3, limits=limits, **nobody)).split()
        assert seen == [str(2**20), "Max", "processes", "77", "77", "processes", "3"]
        closed = await stage.run("echo ran", "closed", cwd="/root", **nobody)
        assert closed.exit_code == 126
        assert "/root" in closed.output_tail
        assert "ran" not in closed.output_tail
        await stage.started("sleep 60", "term", **nobody)
        stage.processes.signal("term", force=False)
        assert (await stage.ended("term")).signal == 15
        await stage.started("trap '' TERM; setsid sleep 60", "kill", **nobody)
        stage.processes.signal("kill", force=True)
        assert (await stage.ended("kill")).signal == 9

    play(story, NOBODY)


@as_root
def test_a_user_that_is_not_there(play: Play) -> None:
    """Listed but unknown on this machine: refused, with what to do."""

    async def story(stage: Stage) -> None:
        assert "no user 'ghost' on this machine" in await stage.refused("true", run_as_user="ghost")

    play(story, RunAsPolicy(("ghost",)))


@as_root
def test_an_output_is_its_users_own(play: Play) -> None:
    """What one user could open is never handed to the job of another; to the next job of that user it is."""

    async def story(stage: Stage) -> None:
        def output(name: str) -> tuple[int, int]:
            stat = (stage.folder / "open" / name / "output").stat()
            return stat.st_ino, stat.st_uid

        await stage.run("true", "a", run_as_user="nobody")
        of_nobody = output("a")
        assert of_nobody[1] == pwd.getpwnam("nobody").pw_uid
        stage.processes.forget("a")
        await stage.run("true", "b")
        assert output("b")[0] != of_nobody[0]
        assert output("b")[1] == 0
        await stage.run("true", "c", run_as_user="nobody")
        assert output("c") == of_nobody

    play(story, NOBODY)


def test_naming_the_agents_own_user_changes_nothing(play: Play) -> None:
    """run_as_user = the agent's own user is always allowed (unless that is root) and runs as it would without."""
    own = User.own().name

    async def story(stage: Stage) -> None:
        assert await stage.output("id -un", run_as_user=own) == own + "\n"

    play(story, RunAsPolicy((own,)))
