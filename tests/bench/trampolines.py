"""Processes started by a bare loop: what this machine can do, without an agent."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

TRAMPOLINE = '/bin/sh -c "$1"; echo $? >"$0"'
"""A shell that runs a shell and writes its exit status to a file: the least that outlives its agent."""

IN_FLIGHT = 64
"""As many as an agent has slots."""


class Spawner:
    """Starts processes with nothing but a null device."""

    def __init__(self) -> None:
        self._null = os.open(os.devnull, os.O_RDWR)
        self._actions = [(os.POSIX_SPAWN_DUP2, self._null, fd) for fd in (0, 1, 2)]

    def close(self) -> None:
        os.close(self._null)

    def start(self, argv: list[str]) -> None:
        os.posix_spawn(argv[0], argv, {"PATH": "/usr/bin:/bin"}, file_actions=self._actions, setsid=True)

    def rate(self, commands: Sequence[list[str]], in_flight: int = IN_FLIGHT) -> float:
        """Processes a second when so many are kept in flight."""
        began, running = time.perf_counter(), 0
        for argv in commands:
            self.start(argv)
            running += 1
            if running == in_flight:
                os.waitpid(-1, 0)
                running -= 1
        for _ in range(running):
            os.waitpid(-1, 0)
        return len(commands) / (time.perf_counter() - began)

    def starts_of(self, commands: Sequence[list[str]]) -> list[float]:
        """Seconds until each of some processes wanted at one instant has started."""
        began = time.perf_counter()
        took = []
        for argv in commands:
            self.start(argv)
            took.append(time.perf_counter() - began)
        for _ in commands:
            os.waitpid(-1, 0)
        return took


def trampolines(folder: Path, count: int, command: str) -> list[list[str]]:
    """Commands of so many trampolines with status files of their own. Nothing is removed before the bench ends: ext4
    makes files slowly where many were removed in the last minutes."""
    folder.mkdir(parents=True)
    return [["/bin/sh", "-c", TRAMPOLINE, str(folder / str(number)), command] for number in range(count)]


def trampoline_rate(folder: Path, count: int, command: str) -> float:
    """Trampolines a second at IN_FLIGHT, each running `command` in a shell."""
    spawner = Spawner()
    try:
        return spawner.rate(trampolines(folder, count, command))
    finally:
        spawner.close()
