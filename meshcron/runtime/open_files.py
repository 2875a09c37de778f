"""The limit on open files: the agent's is raised, its jobs get the one that the agent was started with.

The usual soft limit of 1024 is for programs that wait with select(2), which fails beyond it, and for those that close
every descriptor up to the limit: a job may be one. The agent needs more: two for each process, one for each connection.
"""

from __future__ import annotations

import os
import resource

OPEN_FILES_WANTED = 65_536
"""For the 10,000 processes that `slots` may allow, their outputs, and twice as many connections."""


STANDARD_FD_MAX = 2
"""Standard error; see stdin(3)."""


def raise_limit(wanted: int = OPEN_FILES_WANTED) -> int:
    """Raise this process's soft limit to `wanted` or as near as it may; returns what it was. Never lowers it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < reachable:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    return soft


def fill_standard() -> None:
    """Give /dev/null to what is closed of standard input, output and error. The next file opened would be one of them:
    lines of the log would go into it."""
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= STANDARD_FD_MAX:
        pass
    os.close(fd)


def share(parts: int, most: int) -> int:
    """One of so many parts of what this process may still open, at least 1 and at most `most`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = most * parts if soft == resource.RLIM_INFINITY else soft - len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only
    return max(1, min(most, free // parts))


def lowering(soft: int) -> str:
    """The shell's words that give a job this soft limit."""
    return f"ulimit -S -n {'unlimited' if soft == resource.RLIM_INFINITY else soft}; "
