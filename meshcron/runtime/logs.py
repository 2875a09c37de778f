"""The agent's log: lines on standard error, as text or JSON; and what it tells who started it, on standard output."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

STDOUT_FD = 1
STDERR_FD = 2

NOTICE = "this log could not be written for a while"
"""What is said once it can be written again, with how many lines were lost."""


class LogFile:
    """Where log lines go. What cannot be written at once is lost: nobody reads the pipe, the terminal was closed, the
    disk under the log is full. An agent that stopped leading over its log would be the worse trade."""

    def __init__(self, fd: int = STDERR_FD, notice: Callable[[int], str] | None = None) -> None:
        """`notice` makes a line that says how many were lost; without it that is not said."""
        self._fd = fd
        self._notice = notice
        self._ready = select.poll()
        self._ready.register(fd, select.POLLOUT)
        self._alone = threading.Lock()
        self._lost = 0
        self._cut = False

    def write(self, text: str) -> int:
        """Write a line whole, past every buffer, so that a failure leaves nothing behind to fail again. The first one
        after some were lost follows a line that says how many."""
        with self._alone:  # two threads would find the same room in a pipe
            if self._lost and self._notice and self._takes_more() and self._written(self._notice(self._lost)):
                self._lost = 0
            if not self._written(text):
                self._lost += 1
        return len(text)

    def flush(self) -> None:
        """Nothing to do: see `write`."""

    def _written(self, text: str) -> bool:
        data = left = b"\n" * self._cut + text.encode("utf-8", "backslashreplace")
        with suppress(OSError):
            # A pipe that has room at all takes PIPE_BUF bytes without waiting (pipe(7)), a socket more. O_NONBLOCK
            # would hold for everybody who shares the descriptor with us.
            while left and self._takes_more():
                left = left[os.write(self._fd, left[: select.PIPE_BUF]) :]
        if len(left) < len(data):
            self._cut = bool(left)
        return not left

    def _takes_more(self) -> bool:
        return any(event & select.POLLOUT for _, event in self._ready.poll(0))


def without_waiting(fd: int) -> int:
    """A descriptor for the same place whose writes never wait where `fd` is a terminal's: that has room for a letter
    and waits with the line all the same. Any other is `fd` itself."""
    try:
        return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no terminal, or another user's
        return fd


def print_line(text: str) -> None:
    """A line on standard output; lost where it cannot be written, like one of the log."""
    LogFile(without_waiting(STDOUT_FD)).write(f"{text}\n")


def to_terminal() -> bool:
    """Whether a person reads what `print_line` says."""
    return os.isatty(STDOUT_FD)


def configure_logs(level: str, form: str) -> None:
    """From now on log lines of at least this level go to standard error; `form` is "text" or "json". What libraries log
    takes the same way, in a form of its own."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=os.isatty(STDERR_FD))
    )
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        renderer,
    ]

    def notice(lines_lost: int) -> str:
        told: Any = {"event": NOTICE, "lines_lost": lines_lost}
        for processor in processors:  # not as a line of its own through structlog, which is writing one just now
            told = processor(None, "warning", told)
        return f"{told}\n"

    file = cast("TextIO", LogFile(without_waiting(STDERR_FD), notice))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file),
    )
    logging.lastResort = logging.StreamHandler(file)
    logging.lastResort.setLevel(logging.WARNING)  # as Python's own, which writes to sys.stderr
