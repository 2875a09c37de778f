"""Handing a plan to the kernel: one posix_spawn, which forks nothing of the agent.

It is libc's own, called so that the interpreter is free meanwhile: posix_spawn waits until the kernel has let the child
run up to its exec, on a busy machine for milliseconds, and os.posix_spawn keeps every other thread waiting as well.
(Popen with a user or a preexec function falls back to fork: 4 to 13 ms, measured.)
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Self

from meshcron.runtime.launch import Plan
from meshcron.runtime.trampoline import JOB_SCRIPT_FD

_PR_SET_CHILD_SUBREAPER = 36

_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80
"""Flags of posix_spawnattr_setflags (spawn.h of glibc and of musl)."""

_OPAQUE_BYTES = 1024
"""Room for libc's own structures: the largest of them, glibc's posix_spawnattr_t, has 336."""

_DEFAULTS = [number for number in signal.Signals if number not in (signal.SIGKILL, signal.SIGSTOP)]
"""All of them: Python ignores SIGPIPE and SIGXFSZ, nohup SIGHUP, and a shell cannot undo what it inherits ignored."""

_waiting = ctypes.CDLL(None)
"""libc for what waits: the interpreter is let go during a call."""

_libc = ctypes.PyDLL(None)
"""libc for what does not: letting the interpreter go and taking it back would cost more than the call."""


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

    Returns when it has been exec'ed; other threads run meanwhile. Raises OSError when that failed: then nothing ran.
    """
    payload = _memory_file("payload", plan.payload) if plan.payload else -1
    script = -1
    try:
        script = _memory_file("job", plan.script) if plan.script else -1
        with _FileActions() as actions:
            if plan.payload:
                actions.dup2(payload, 0)
            else:
                actions.open(0, os.devnull, os.O_RDONLY, 0)
            actions.open(1, f"{folder}/output", os.O_WRONLY | os.O_APPEND, 0)
            actions.open(2, f"{folder}/status", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            if plan.script:
                actions.dup2(script, JOB_SCRIPT_FD)
            environment = (f"{name}={value}" for name, value in plan.env.items())
            return _posix_spawn(plan.argv, environment, actions)
    finally:
        for fd in (payload, script):
            if fd >= 0:
                os.close(fd)


def _posix_spawn(argv: Sequence[str], environment: Iterable[str], actions: _FileActions) -> int:
    pid = ctypes.c_int()
    words, variables = _vector(argv), _vector(environment)
    path = os.fsencode(argv[0])
    _check(_waiting.posix_spawn(ctypes.byref(pid), path, actions.pointer, _ATTRIBUTES, words, variables))
    return pid.value


def _vector(texts: Iterable[str]) -> ctypes.Array[ctypes.c_char_p]:
    """A NULL-terminated array of C strings. No text has a NUL in it: launch.py refuses those."""
    encoded = [os.fsencode(text) for text in texts]
    return (ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)


def _check(code: int) -> None:
    """These calls return the number of their error instead of setting errno."""
    if code:
        raise OSError(code, os.strerror(code))


class _FileActions:
    """What becomes of the child's descriptors, in order (posix_spawn_file_actions_init(3))."""

    def __init__(self) -> None:
        self.pointer = ctypes.create_string_buffer(_OPAQUE_BYTES)

    def __enter__(self) -> Self:
        _check(_libc.posix_spawn_file_actions_init(self.pointer))
        return self

    def __exit__(self, *_: object) -> None:
        _libc.posix_spawn_file_actions_destroy(self.pointer)

    def open(self, fd: int, path: str, flags: int, mode: int) -> None:
        """The child opens a file as `fd`."""
        _check(_libc.posix_spawn_file_actions_addopen(self.pointer, fd, os.fsencode(path), flags, mode))

    def dup2(self, ours: int, fd: int) -> None:
        """The child gets a descriptor of ours as `fd`."""
        _check(_libc.posix_spawn_file_actions_adddup2(self.pointer, ours, fd))


def _attributes() -> ctypes.Array[ctypes.c_char]:
    """A session of its own, no signal blocked, every signal at its default: the same for each spawn."""
    attributes = ctypes.create_string_buffer(_OPAQUE_BYTES)
    none, defaults = ctypes.create_string_buffer(_OPAQUE_BYTES), ctypes.create_string_buffer(_OPAQUE_BYTES)
    _libc.sigemptyset(none)
    _libc.sigemptyset(defaults)
    for number in _DEFAULTS:
        _libc.sigaddset(defaults, int(number))
    _check(_libc.posix_spawnattr_init(attributes))
    _check(_libc.posix_spawnattr_setsigmask(attributes, none))
    _check(_libc.posix_spawnattr_setsigdefault(attributes, defaults))
    _check(_libc.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETSID | _SETSIGDEF | _SETSIGMASK)))
    return attributes


_ATTRIBUTES = _attributes()


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
