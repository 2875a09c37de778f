"""The agent's log: lines on standard error, as text or JSON."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog

STDERR_FD = 2


class LogFile:
    """Where log lines go. What cannot be written is lost: the terminal was closed, the disk under the log is full. An
    agent that stopped leading over its log would be the worse trade."""

    def __init__(self, fd: int = STDERR_FD) -> None:
        self._fd = fd

    def write(self, text: str) -> int:
        """Write a line whole, past every buffer, so that a failure leaves nothing behind to fail again."""
        left = text.encode("utf-8", "backslashreplace")
        with suppress(OSError):
            while left:
                left = left[os.write(self._fd, left) :]
        return len(text)

    def flush(self) -> None:
        """Nothing to do: see `write`."""


def configure_logs(level: str, form: str) -> None:
    """From now on log lines of at least this level go to standard error; `form` is "text" or "json"."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", LogFile())),
    )
