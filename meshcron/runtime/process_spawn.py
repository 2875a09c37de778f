"""Handing a plan to the kernel: one posix_spawn, which forks nothing of the agent and stalls its loop the least.

(Popen with a user or a preexec function falls back to fork: 4 to 13 ms; LIMITS 7.)
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress

from meshcron.runtime.launch import Plan
from meshcron.runtime.trampoline import JOB_SCRIPT_FD

_PR_SET_CHILD_SUBREAPER = 36

_DEFAULTS = [number for number in signal.Signals if number not in (signal.SIGKILL, signal.SIGSTOP)]
"""All of them: Python ignores SIGPIPE and SIGXFSZ, nohup SIGHUP, and a shell cannot undo what it inherits ignored."""


def become_subreaper() -> None:
    """Have orphaned descendants become the agent's children, so that they can be found, and reaped (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def guard_descriptors() -> None:
    """See that a spawn hands on what it is told to, no more and no less.

    No descriptor above 2 that the agent itself was started with is inherited. And 0 to JOB_SCRIPT_FD are taken, so
    that no file of a spawn is opened as one of them and then run over.
    """
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only, no paths
        if int(name) > 2:
            with suppress(OSError):  # the one that listed them
                os.set_inheritable(int(name), False)
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= JOB_SCRIPT_FD:
        pass
    os.close(fd)


def spawn(plan: Plan, folder: str) -> int:
    """Start the trampoline of `plan` in its own session, with the files of `folder`; returns its pid.

    Returns when it has been exec'ed. Raises OSError when that failed: then nothing ran.
    """
    payload = _memory_file("payload", plan.payload) if plan.payload else -1
    script = -1
    try:
        script = _memory_file("job", plan.script) if plan.script else -1
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_DUP2, payload, 0) if plan.payload else (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, f"{folder}/output", os.O_WRONLY | os.O_APPEND, 0),
            (os.POSIX_SPAWN_OPEN, 2, f"{folder}/status", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
        ]
        if plan.script:
            actions.append((os.POSIX_SPAWN_DUP2, script, JOB_SCRIPT_FD))
        return os.posix_spawn(
            plan.argv[0], plan.argv, plan.env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULTS
        )
    finally:
        for fd in (payload, script):
            if fd >= 0:
                os.close(fd)


def _memory_file(name: str, data: bytes) -> int:
    """A file without a name or a place on disk, to be read from its beginning: it may hold secrets."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
    except OSError:
        os.close(fd)
        raise
    return fd
