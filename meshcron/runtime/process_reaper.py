"""Reaping what nobody waits for: a subreaper inherits the orphans of its jobs, and each would stay a zombie."""

from __future__ import annotations

import os
from collections.abc import Callable


def reap(ended: Callable[[int], bool], unsure: Callable[[int], bool]) -> bool:
    """Reap the children that ended: `ended` is told each pid and answers whether it saw to it itself, then `unsure`,
    whether it may turn out to be known yet: that one is left for a later call.

    Any other one is an orphan if it is of another session than the agent's, as all descendants of a job are; one of the
    agent's own session was started by somebody who waits for it. False when the agent has no children at all.
    """
    session = os.getsid(0)
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        if found is None:
            return True
        if ended(found.si_pid):
            continue
        if unsure(found.si_pid) or os.getsid(found.si_pid) == session:
            return True  # the kernel shows this one first until its owner has waited for it
        os.waitpid(found.si_pid, os.WNOHANG)
