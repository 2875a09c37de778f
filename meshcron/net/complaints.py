"""Log lines that a peer can cause, at most one a minute of a kind and sender: nobody fills our disk from outside."""

from __future__ import annotations

from collections.abc import Callable

import structlog

SILENCE_SECONDS = 60.0

REMEMBERED_MAX = 1000
"""Senders remembered, beyond which all share one line: at a gate anybody may be a sender."""

log = structlog.get_logger("meshcron.net")


class Complaints:
    """Says what is wrong with a sender, now and then."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._silent_until: dict[tuple[str, str], float] = {}

    def say(self, what: str, sender: str = "", why: str = "") -> None:
        """Log it, unless the same was said of the same sender within a minute."""
        now = self._clock()
        if len(self._silent_until) >= REMEMBERED_MAX:
            self._silent_until = {whom: until for whom, until in self._silent_until.items() if until > now}
        known = len(self._silent_until) < REMEMBERED_MAX or (what, sender) in self._silent_until
        whom = (what, sender if known else "others")
        if self._silent_until.get(whom, now) <= now:
            self._silent_until[whom] = now + SILENCE_SECONDS
            more = {"sender": whom[1], "why": why}
            log.warning(what, **{name: value for name, value in more.items() if value})
