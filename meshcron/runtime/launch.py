"""From a Launch to what is handed to the kernel: words, environment, working directory, user. Starts nothing.

Whatever can be known to be wrong beforehand is refused here, with the remedy, so that "not started" means that nothing
ran. It reads the machine's users and looks for files, on this machine's own disks only; it changes nothing.
"""

from __future__ import annotations

import errno
import os
import pwd
import re
import resource
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshcron.errors import InvalidRequest
from meshcron.model import Launch, Limits
from meshcron.runtime.network_mounts import NetworkMounts
from meshcron.runtime.open_files import lowering
from meshcron.runtime.process_table import ENV_MARK
from meshcron.runtime.trampoline import PLAIN, SHELL, SWITCHED, job_script

ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER_PATH = "/usr/local/bin:/usr/bin:/bin"
"""The PATH of a job, as login gives it (Debian's login.defs: ENV_SUPATH, ENV_PATH, without the games)."""

WORD_BYTES_MAX = 128 * 1024 - 1
"""The longest single argument or environment string Linux takes (MAX_ARG_STRLEN, 32 pages, with its NUL)."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class RunAsPolicy:
    """Which users the jobs of an agent may run as.

    `allowed` are user names. Root is never among them unless it is listed, even where the agent itself runs as root;
    any other agent's own user always is.
    """

    allowed: tuple[str, ...] = ()

    def allows(self, user: str, own: str) -> bool:
        """Whether a job may name `user` on an agent that runs as `own`."""
        return user in self.allowed or (user == own and user != "root")


@dataclass(frozen=True, slots=True)
class User:
    """One line of the machine's user database."""

    name: str
    uid: int
    gid: int
    home: str

    @staticmethod
    def own() -> User:
        """The user this agent runs as; one without a name (a container's arbitrary uid) gets its number."""
        uid = os.geteuid()
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return User(str(uid), uid, os.getegid(), "/")
        return User(entry.pw_name, uid, os.getegid(), entry.pw_dir)

    def environment(self) -> dict[str, str]:
        """What every process of this user's jobs finds in its environment, as cron sets it."""
        path = ROOT_PATH if self.uid == 0 else USER_PATH
        return {"HOME": self.home, "LOGNAME": self.name, "PATH": path, "SHELL": SHELL, "USER": self.name}


@dataclass(frozen=True, slots=True)
class Tools:
    """Where the helpers are on this machine; "" = not installed. Looked for once, in a PATH no job can change."""

    setpriv: str
    prlimit: str
    nice: str

    @staticmethod
    def found() -> Tools:
        """What this machine has (util-linux: setpriv, prlimit; coreutils: nice)."""
        return Tools(*(shutil.which(name, path=ROOT_PATH) or "" for name in ("setpriv", "prlimit", "nice")))


@dataclass(frozen=True, slots=True)
class Plan:
    """What to spawn. `script` is for descriptor 3, `payload` for descriptor 0; empty = none.

    `uid` is the job's user; `gid` its group where that is another user than the agent's: the output is to be theirs.
    """

    argv: list[str]
    env: dict[str, str]
    script: bytes
    payload: bytes
    uid: int
    gid: int | None
    mark: bytes
    """`ENV_MARK`'s entry in the job's environment as /proc shows it; empty = none."""


class Planner:
    """Knows this agent's user, its policy and its tools."""

    def __init__(self, policy: RunAsPolicy, own: User, tools: Tools, open_files: int | None = None) -> None:
        """`open_files`: the soft limit on open files that jobs get; None = the agent's own."""
        self._policy = policy
        self._own = own
        self._tools = tools
        self._network = NetworkMounts()
        self._first = "" if open_files is None else lowering(open_files)
        self._vector_bytes_max = os.sysconf("SC_ARG_MAX")

    def plan(self, launch: Launch, folder: str) -> Plan:
        """What to spawn for `launch`, with `folder` as the execution's own.

        Raises InvalidRequest naming the remedy where it is certain that the command cannot run.
        """
        user = self._user(launch.run_as_user)
        env = user.environment() | launch.env
        _check_texts(launch, env)
        folders = self._folders(launch.cwd, user.home)
        words = [*self._wrapping(launch, user), *self._words(launch, env, folders[0])]
        mark = f"{ENV_MARK}={env[ENV_MARK]}" if env.get(ENV_MARK) else ""
        self._check_size([*words, *(f"{name}={value}" for name, value in env.items())])
        payload = _bytes("payload", launch.payload)
        if user is self._own:
            argv = [SHELL, "-c", self._first + PLAIN, folder, folders[0], *words]
            return Plan(argv, env, b"", payload, user.uid, None, mark.encode())
        argv = [*self._switch(user), SHELL, "-c", self._first + SWITCHED, folder]
        script = job_script(env, folders, words)
        return Plan(argv, user.environment(), script, payload, user.uid, user.gid, mark.encode())

    def _user(self, name: str) -> User:
        if not name:
            return self._own
        if not self._policy.allows(name, self._own.name):
            raise InvalidRequest(
                "run_as_user", f"this agent may not run jobs as {name!r}", "list it in the agent's run_as setting"
            )
        if name == self._own.name:
            return self._own
        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError):
            raise InvalidRequest(
                "run_as_user", f"no user {name!r} on this machine", "create it, or choose machines that have it by tag"
            ) from None
        if self._own.uid != 0:
            raise InvalidRequest(
                "run_as_user", f"the agent runs as {self._own.name!r} and cannot become {name!r}", "run it as root"
            )
        if not self._tools.setpriv:
            raise InvalidRequest("run_as_user", "setpriv is missing on this machine", "install util-linux")
        return User(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)

    def _switch(self, user: User) -> list[str]:
        """Become `user` for good, with all its groups and nothing else (FAULTS 4, Execution: no_new_privs)."""
        return [
            self._tools.setpriv,
            f"--reuid={user.uid}",
            f"--regid={user.gid}",
            "--init-groups",
            "--inh-caps=-all",
            "--no-new-privs",
            "--",
        ]

    def _wrapping(self, launch: Launch, user: User) -> list[str]:
        """Programs before the command that lower its niceness and limits. They only ever lower: never more than the
        agent's own hard limit, never a better priority than the agent's."""
        words: list[str] = []
        if launch.nice > 0:
            words += [self._tool("nice", "nice", self._tools.nice), "-n", str(launch.nice)]
        if launch.limits != Limits():
            words += self._limits(launch.limits, user)
        return words

    def _limits(self, limits: Limits, user: User) -> list[str]:
        words = [self._tool("limits", "prlimit", self._tools.prlimit)]
        if limits.memory_bytes:
            words.append(f"--as={_lowered(resource.RLIMIT_AS, limits.memory_bytes)}")
        if limits.processes:
            if user.uid == 0:
                # The kernel does not hold root to RLIMIT_NPROC (fork.c, copy_process): better refused than ignored.
                raise InvalidRequest("limits.processes", "does not bind root", "give the job a run_as_user")
            words.append(f"--nproc={_lowered(resource.RLIMIT_NPROC, limits.processes)}")
        return [*words, "--"]

    def _folders(self, cwd: str, home: str) -> tuple[str, ...]:
        """Where the job runs: what it asks for, or else its user's home, or / where that is not there (`nobody`)."""
        if not cwd:
            return (home, "/") if home and self._may_be_there(Path(home)) else ("/",)
        path = Path(home or "/") / cwd
        if not self._may_be_there(path):
            why = f"no folder {cwd!r} on this machine"
            raise InvalidRequest("cwd", why, "create it, or choose machines that have it")
        return (str(path),)

    def _may_be_there(self, path: Path) -> bool:
        """False where it is certain that this is no folder. On another machine's disk the job itself finds out."""
        try:
            return self._network.hold(path) or path.is_dir()
        except ValueError:  # a NUL in it
            return False

    def _words(self, launch: Launch, env: Mapping[str, str], folder: str) -> list[str]:
        if launch.shell:
            return [SHELL, "-c", launch.command]
        try:
            words = shlex.split(launch.command)
        except ValueError as error:
            raise InvalidRequest("command", f"cannot be split into words: {error}", "close the quotation") from None
        if not words:
            raise InvalidRequest("command", "is empty", "name a program")
        return [self._program(words[0], env.get("PATH", ""), folder), *words[1:]]

    def _program(self, name: str, path: str, folder: str) -> str:
        """The file of a program named without a shell: with its folder, so that no shell takes it for a builtin."""
        named = Path(folder, name)
        if "/" in name and self._network.hold(named):
            return str(named)
        found = shutil.which(named if "/" in name else name, path=path)
        if found is None:
            where = f"searched in {folder} and PATH={path}"
            raise InvalidRequest("command", f"no program {name!r} on this machine", where)
        return str(Path(folder, found))

    @staticmethod
    def _tool(field: str, name: str, path: str) -> str:
        if not path:
            package = "coreutils" if name == "nice" else "util-linux"
            raise InvalidRequest(field, f"{name} is missing on this machine", f"install {package}")
        return path

    def _check_size(self, strings: Sequence[str]) -> None:
        sizes = [len(os.fsencode(text)) for text in strings]
        if max(sizes) > WORD_BYTES_MAX:
            raise InvalidRequest(
                "command", f"one word or variable of it has more than {WORD_BYTES_MAX} bytes", "use the payload for it"
            )
        # A quarter of what the kernel takes is left for the trampoline's own words and the pointers.
        if sum(sizes) > self._vector_bytes_max * 3 // 4:
            raise InvalidRequest("command", "command and environment are too long together", "use the payload")


def _lowered(which: int, wanted: int) -> int:
    hard = resource.getrlimit(which)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _check_texts(launch: Launch, env: Mapping[str, str]) -> None:
    _bytes("command", launch.command)
    if "\0" in launch.command:
        raise InvalidRequest("command", "has a NUL character", "no program can be given one; use the payload")
    for name, value in env.items():
        if not _NAME.match(name):
            raise InvalidRequest(
                "env", f"{name!r} is no variable's name", "letters, digits and _ only: sh drops others"
            )
        if "\0" in value:
            raise InvalidRequest("env", f"{name} has a NUL character", "no environment can hold one; use the payload")
        _bytes("env", value)


def _bytes(field: str, text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidRequest(field, "has half a surrogate pair", "it cannot be written as UTF-8") from None


_REMEDIES = {
    errno.E2BIG: "command and environment are too long; use the payload",
    errno.EAGAIN: "the agent may start no more processes; raise its limit (ulimit -u, TasksMax)",
    errno.EMFILE: "the agent has too many files open; raise its limit (ulimit -n, LimitNOFILE)",
    errno.ENOSPC: "the disk of the agent's data directory is full; make room",
    errno.EDQUOT: "the disk quota of the agent's user is used up; make room",
}
"""What an operator can do about the errors of a spawn."""


def why_not(error: Exception) -> str:
    """The sentence for the record of an execution that was not started because of `error`, with the remedy."""
    if not isinstance(error, OSError):
        return str(error)
    why = "cannot be started: " + (error.strerror or type(error).__name__)
    if error.filename:
        why += f": {os.fsdecode(error.filename)}"
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{why} ({remedy})" if remedy else why
