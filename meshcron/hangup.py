"""HUP before there is an agent that could obey it: noted, not the end of the process.

Its default is to end it, and systemd takes that for a wish: a reload in the first second of a start would leave the
machine without an agent. A handler, unlike an ignored signal, is not inherited by what the agent starts.
"""

from __future__ import annotations

import signal

_noted: list[int] = []


def hold() -> None:
    """From now on a HUP is noted, until somebody else handles it."""
    signal.signal(signal.SIGHUP, lambda number, frame: _noted.append(number))  # noqa: ARG005 - signal's call


def held() -> bool:
    """Whether one has come since the last call."""
    came = bool(_noted)
    _noted.clear()
    return came
