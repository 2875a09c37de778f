"""What is handed to the kernel, and what is refused before."""

from __future__ import annotations

import errno
import pwd
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from meshcron.errors import InvalidRequest
from meshcron.model import Launch, Limits
from meshcron.runtime.launch import Planner, RunAsPolicy, Tools, User, why_not
from meshcron.runtime.network_mounts import NetworkMounts
from meshcron.runtime.trampoline import PLAIN, SWITCHED

ROOT = User("root", 0, 0, "/root")
ALICE = User("alice", 1000, 1000, "/home/alice")
TOOLS = Tools("/usr/bin/setpriv", "/usr/bin/prlimit", "/usr/bin/nice")
FOLDER = "/var/lib/meshcron/open/a"


def launch(command: str = "date", **fields: Any) -> Launch:
    usual: dict[str, Any] = {"env": {}, "cwd": "/", "run_as_user": "", "payload": "", "nice": 0, "limits": Limits()}
    return Launch(execution_id="a", command=command, **({"shell": True} | usual | fields))


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one more user, bob."""

    def getpwnam(name: str) -> pwd.struct_passwd:
        if name != "bob":
            raise KeyError(name)
        return pwd.struct_passwd(("bob", "x", 1001, 1002, "", "/nowhere/bob", "/bin/zsh"))

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)


def test_an_own_job_is_a_trampoline_with_the_jobs_environment() -> None:
    """No other user: the trampoline has the job's environment, and the words stand in its arguments."""
    plan = Planner(RunAsPolicy(), ALICE, TOOLS).plan(launch(env={"A": "b", "MESHCRON_EXECUTION": "7-x"}), FOLDER)
    assert plan.argv == ["/bin/sh", "-c", PLAIN, FOLDER, "/", "/bin/sh", "-c", "date"]
    assert plan.env == {
        "A": "b",
        "HOME": "/home/alice",
        "LOGNAME": "alice",
        "MESHCRON_EXECUTION": "7-x",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "SHELL": "/bin/sh",
        "USER": "alice",
    }
    assert (plan.script, plan.payload, plan.mark) == (b"", b"", b"MESHCRON_EXECUTION=7-x")
    assert (plan.uid, plan.gid) == (1000, None)


@pytest.mark.usefixtures("users")
def test_another_users_job_has_nothing_of_the_job_in_arguments_or_environment() -> None:
    """Command and environment are in the script, which only a process of that user reads."""
    planner = Planner(RunAsPolicy(("bob",)), ROOT, TOOLS)
    plan = planner.plan(launch("echo $LD_PRELOAD", run_as_user="bob", env={"LD_PRELOAD": "x.so"}, cwd=""), FOLDER)
    assert plan.argv[0] == TOOLS.setpriv
    assert {"--reuid=1001", "--regid=1002", "--init-groups", "--no-new-privs"} < set(plan.argv)
    assert plan.argv[-4:] == ["/bin/sh", "-c", SWITCHED, FOLDER]
    assert "LD_PRELOAD" not in plan.env
    assert not any("LD_PRELOAD" in word for word in plan.argv)
    assert plan.script.decode().splitlines()[-3:] == [
        "cd -- / || exit 126",
        "unset OLDPWD",
        "exec /bin/sh -c 'echo $LD_PRELOAD'",
    ]
    assert (plan.uid, plan.gid) == (1001, 1002)


def test_root_is_never_allowed_unless_listed() -> None:
    """Not even where the agent is root; any other agent's own user is."""
    assert not RunAsPolicy().allows("root", own="root")
    assert RunAsPolicy(("root",)).allows("root", own="root")
    assert RunAsPolicy().allows("alice", own="alice")
    assert not RunAsPolicy().allows("bob", own="alice")
    assert RunAsPolicy(("bob",)).allows("bob", own="alice")


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    ("own", "tools", "user", "words"),
    [
        (ROOT, TOOLS, "carol", "may not run jobs as 'carol' (list it"),
        (ROOT, TOOLS, "ghost", "no user 'ghost' on this machine (create it"),
        (ALICE, TOOLS, "bob", "the agent runs as 'alice' and cannot become 'bob' (run it as root)"),
        (ROOT, Tools("", "", ""), "bob", "setpriv is missing on this machine (install util-linux)"),
    ],
)
def test_a_user_that_cannot_be_had_is_refused_with_the_remedy(own: User, tools: Tools, user: str, words: str) -> None:
    """Not listed, not there, not root, no setpriv: each says what to do."""
    planner = Planner(RunAsPolicy(("bob", "ghost")), own, tools)
    with pytest.raises(InvalidRequest) as refusal:
        planner.plan(launch(run_as_user=user), FOLDER)
    assert words in str(refusal.value)
    assert refusal.value.field == "run_as_user"


def test_nothing_is_asked_of_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be away, and the agent with it: whether folder and program are there the job finds out."""

    def hang(*_: object, **__: object) -> None:
        raise AssertionError("here the agent would stand still")

    monkeypatch.setattr(NetworkMounts, "hold", lambda _, path: str(path).startswith("/home/alice"))
    monkeypatch.setattr(Path, "is_dir", hang)
    monkeypatch.setattr(shutil, "which", hang)
    planner = Planner(RunAsPolicy(), ALICE, TOOLS)
    for cwd, folder in {"": "/home/alice", "far": "/home/alice/far"}.items():
        plan = planner.plan(launch("bin/tool -x", shell=False, cwd=cwd), FOLDER)
        assert plan.argv[-3:] == [folder, f"{folder}/bin/tool", "-x"]


def test_limits_only_ever_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller of what is asked and the agent's own hard limit; a niceness below the agent's is not given."""
    planner = Planner(RunAsPolicy(), ALICE, TOOLS)

    def wrapping(hard: int, **fields: Any) -> list[str]:
        monkeypatch.setattr(resource, "getrlimit", lambda _which: (hard, hard))
        return planner.plan(launch(**fields), FOLDER).argv[5:-3]

    limits = Limits(memory_bytes=1000, processes=10)
    none = resource.RLIM_INFINITY
    assert wrapping(none, limits=limits) == [TOOLS.prlimit, "--as=1000", "--nproc=10", "--"]
    assert wrapping(500, limits=limits) == [TOOLS.prlimit, "--as=500", "--nproc=10", "--"]
    assert wrapping(5, limits=limits) == [TOOLS.prlimit, "--as=5", "--nproc=5", "--"]
    assert wrapping(none, nice=5) == [TOOLS.nice, "-n", "5"]
    assert wrapping(none, nice=-5) == []
    both = wrapping(none, nice=5, limits=Limits(memory_bytes=7))
    assert both == [TOOLS.nice, "-n", "5", TOOLS.prlimit, "--as=7", "--"]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"nice": 3}, "nice", "install coreutils"),
        ({"limits": Limits(memory_bytes=1)}, "limits", "install util-linux"),
    ],
)
def test_a_missing_helper_is_named(fields: dict[str, Any], field: str, words: str) -> None:
    """What lowers limits is not installed: refused, not run without."""
    with pytest.raises(InvalidRequest) as refusal:
        Planner(RunAsPolicy(), ALICE, Tools("", "", "")).plan(launch(**fields), FOLDER)
    assert refusal.value.field == field
    assert words in str(refusal.value)


def test_processes_of_root_cannot_be_limited() -> None:
    """The kernel would ignore it."""
    with pytest.raises(InvalidRequest, match="run_as_user"):
        Planner(RunAsPolicy(), ROOT, TOOLS).plan(launch(limits=Limits(processes=5)), FOLDER)


@pytest.mark.parametrize(
    ("cwd", "home", "folder"),
    [
        ("", "here", "{home}"),
        ("", "gone", "/"),
        ("", "", "/"),
        ("/usr", "here", "/usr"),
        ("below", "here", "{home}/below"),
    ],
)
def test_where_a_job_runs(tmp_path: Path, cwd: str, home: str, folder: str) -> None:
    """Home, / where there is none, what it asks for; a relative folder is one of its home."""
    (tmp_path / "here/below").mkdir(parents=True)
    path = str(tmp_path / home) if home else ""
    plan = Planner(RunAsPolicy(), User("alice", 1000, 1000, path), TOOLS).plan(launch(cwd=cwd), FOLDER)
    assert plan.argv[4] == folder.format(home=path)


def test_without_a_shell_the_program_is_looked_for(tmp_path: Path) -> None:
    """In the job's PATH, or by its path from the job's folder; always handed on with its folder."""
    program = tmp_path / "exit"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    def plan(command: str, **fields: Any) -> list[str]:
        return Planner(RunAsPolicy(), ALICE, TOOLS).plan(launch(command, shell=False, **fields), FOLDER).argv[5:]

    assert plan("exit 'a b' $c", env={"PATH": str(tmp_path)}) == [str(program), "a b", "$c"]
    assert plan("./exit", cwd=str(tmp_path)) == [str(program)]
    with pytest.raises(InvalidRequest, match="no program 'exit'"):
        plan("exit", env={"PATH": "/"})


def test_an_error_of_the_kernel_becomes_a_sentence() -> None:
    """With the file and the remedy where there is one."""
    assert why_not(OSError(errno.E2BIG, "Argument list too long")).endswith("use the payload)")
    assert "ulimit -n" in why_not(OSError(errno.EMFILE, "Too many open files"))
    assert (
        why_not(PermissionError(errno.EACCES, "Permission denied", "/x")) == "cannot be started: Permission denied: /x"
    )
    assert why_not(InvalidRequest("cwd", "no folder", "create it")) == "cwd: no folder (create it)"
