"""Reaping what nobody waits for: a subreaper inherits the orphans of its jobs, and each would stay a zombie."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from meshcron.runtime.process_table import children

UNCLAIMED_SECONDS = 5.0
"""A child of the agent's own session that nobody has waited for in so long is nobody's. Whoever starts a process in
the agent waits on its pidfd, or in a thread: that takes a turn of the loop at most."""

BEHIND_SECONDS = 1.0
"""How often what stands behind one that is left alone is looked at: that takes some 10 us a process of the machine."""


class Reaper:
    """Reaps the children that ended. `ended` is told each pid and answers whether it saw to it itself, then `unsure`,
    whether it may turn out to be known yet: that one is left for a later look.

    Any other one of another session than the agent's, as all descendants of a job are, is an orphan. One of the agent's
    own session is somebody's who waits for it, unless it stays: a script that became the agent has left it (`x & exec
    meshcron up`), or it descends from such a one.
    """

    def __init__(self, ended: Callable[[int], bool], unsure: Callable[[int], bool], now: Callable[[], float]) -> None:
        """`now` counts seconds."""
        self._ended = ended
        self._unsure = unsure
        self._now = now
        self._alone: dict[tuple[int, int], float] = {}
        """Those of the agent's own session that have ended, by pid and start: since when each is left alone."""
        self._behind_at = 0.0

    def look(self) -> bool:
        """Reap. False when the agent has no children at all."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
            if found is None:
                return True
            if self._ended(found.si_pid):
                continue
            if self._unsure(found.si_pid):
                return True
            if os.getsid(found.si_pid) == os.getsid(0):
                # The kernel shows this one first until somebody has waited for it.
                if self._now() >= self._behind_at:
                    self._behind_at = self._now() + BEHIND_SECONDS
                    with suppress(OSError):  # no descriptor left to look with: at the next look
                        self._look_behind()
                return True
            os.waitpid(found.si_pid, os.WNOHANG)

    def _look_behind(self) -> None:
        """See to all children that ended, and to those of the agent's own session once they turn out nobody's."""
        now, own, before = self._now(), os.getsid(0), self._alone
        self._alone = {}
        for stat in children():
            if stat.state != "Z" or self._ended(stat.pid) or self._unsure(stat.pid):
                continue
            which = stat.pid, stat.start
            since = before.get(which, now)
            if stat.session == own and now - since < UNCLAIMED_SECONDS:
                self._alone[which] = since
            else:
                os.waitpid(stat.pid, os.WNOHANG)
