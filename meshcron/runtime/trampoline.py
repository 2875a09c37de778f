"""The shell script between the agent and a job's process, and what it leaves behind.

A restarted agent is no parent of its jobs and can never wait() for them, so a small shell runs each command as its
child and writes down how it ended (PROTOCOL 6, Runner). Its argument vector names the execution's folder, by which a
later session finds it; its standard error is the status file, its standard output the job's output.

The status file is only appended to: a folder, and the file in it, serve one execution after another (see
`process_folder`). A line `CODE EXECUTION_ID` ends the part of one execution; whatever the shell itself said stands
before it.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SHELL = "/bin/sh"

STATUS_READ_BYTES = 4096
"""How much of the end of a status file is looked at: an execution's part is a line or two."""

_TRAPS = "trap : HUP INT QUIT PIPE ALRM TERM USR1 USR2"
"""Set last: until then a signal ends the trampoline, and nothing ran. A handler, not '': in the job it is back at the
default, and the trampoline outlives a signal to the whole group."""

_REPORT = 'echo "$s ${0##*/}" >&2; exit "$s"'

PLAIN = (
    f'umask 077; if cd -- "$1"; then shift; unset OLDPWD; {_TRAPS}; ( exec "$@" 2>&1 ); s=$?; else s=126; fi; {_REPORT}'
)
"""Arguments: folder, working directory, command words. The job's environment is the trampoline's own."""

SWITCHED = f"umask 077; {_TRAPS}; ( . /proc/self/fd/3 ); s=$?; {_REPORT}"
"""Argument: folder. Everything about the job is in the script that comes as descriptor 3 (`job_script`)."""

JOB_SCRIPT_FD = 3

_AMBIGUOUS = frozenset({signal.SIGINT, signal.SIGPIPE})
"""Deaths no shell reports (dash's jobs.c leaves these two out): 128 + one of them is taken for the signal."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended: exactly one of the two is set."""

    code: int | None
    signal: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """What a status file says about one execution. `code` None: the trampoline has not finished, or never will."""

    code: int | None
    said: str
    """What the shell (or setpriv) itself had to say: a failure to start, or the name of the signal of a death."""


def job_script(env: Mapping[str, str], folders: Sequence[str], words: Sequence[str]) -> bytes:
    """The shell script that turns a trampoline's child into the job: environment, working directory, exec.

    It is read by a process that already has the job's user, so that nothing in `env` ever reaches one with more
    rights; it comes through a descriptor, so that `ps` shows none of it. `folders` are tried in order; the complaint
    about the last one goes to the job's output.
    """
    exports = "\n".join(f"command export {name}={shlex.quote(value)}" for name, value in env.items())
    tries = [f"cd -- {shlex.quote(folder)} 2>/dev/null" for folder in folders[:-1]]
    cd = " || ".join([*tries, f"cd -- {shlex.quote(folders[-1])}", "exit 126"])
    # `command` keeps a name the shell holds read-only (bash: UID) from ending the script.
    lines = ["exec 2>&1 3<&-", "{", ":", exports, "} 2>/dev/null", cd, "unset OLDPWD", "exec " + shlex.join(words), ""]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def read_status(path: Path, execution_id: str) -> Status:
    """What the status file at `path` holds about the execution; a file that is not there says nothing."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - STATUS_READ_BYTES))
            return parse_status(file.read(), execution_id)
    except FileNotFoundError:
        return Status(None, "")


def parse_status(data: bytes, execution_id: str) -> Status:
    """The last execution's part of a status file; it counts only if its line carries `execution_id`."""
    parts = _END_LINE.split(data.decode(errors="replace"))
    # parts: text, code, id, text, code, id, ..., text after the last end line
    if len(parts) >= 4 and parts[-2] == execution_id:
        return Status(int(parts[-3]), parts[-4].strip())
    return Status(None, parts[-1].strip())


_END_LINE = re.compile(r"^([0-9]{1,3}) ([A-Za-z0-9_-]+)\n", re.MULTILINE)


def exit_of(waited: int | None, status: Status, shell_reports: bool) -> Exit | None:
    """How a command ended; None when nobody can know.

    `waited` is the trampoline's wait status where this agent was its parent, `status` what its file says. A shell's
    `$?` is 128 + n both for `exit` and for a death by signal n. A shell that reports deaths (`shell_reports_deaths`;
    dash does) said so when it was one; of another shell, a code that names a signal is taken for it.
    """
    if waited is not None and os.WIFSIGNALED(waited):
        return Exit(None, os.WTERMSIG(waited))
    if status.code is None:
        # The trampoline came to nothing by itself (setpriv refused, no memory): it said why, nobody's signal.
        return None if waited is None else Exit(os.WEXITSTATUS(waited), None)
    try:
        number = signal.Signals(status.code - 128)
    except ValueError:
        return Exit(status.code, None)
    if status.said or not shell_reports or number in _AMBIGUOUS:
        return Exit(None, int(number))
    return Exit(status.code, None)


def shell_reports_deaths() -> bool:
    """Whether this machine's /bin/sh names the signal that killed a child. Runs it once: 3 ms, at the start only."""
    probe = [SHELL, "-c", "( exec /bin/sh -c 'kill -9 $$' 2>&1 ); :"]
    done = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, env={}, check=False)
    return bool(done.stderr)
