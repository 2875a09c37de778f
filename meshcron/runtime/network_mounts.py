"""Which paths lie on another machine's disk. Whoever asks the kernel about one of those waits for as long as that
machine is away, which may be for ever, so the agent's loop never does.
"""

from __future__ import annotations

import re
import time
from collections import deque
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

REMOTE_TYPES = re.compile(r"(nfs4?|cifs|smb3|smbfs|ceph|9p|afs|lustre|gpfs|beegfs|glusterfs|autofs|fuse(\..*)?)\Z")
"""As mountinfo(5) spells types of file systems: those with a server, those of programs (sshfs), and what mounts when it
is looked at."""

KNOWN_SECONDS = 1.0
"""For so long what was read of the mounts counts: a burst of starts reads it once."""

LINKS_MAX = 40
"""The kernel follows no more in a path (path_resolution(7))."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


class NetworkMounts:
    """Tells paths apart without touching any that it says are remote."""

    def __init__(self, mounts: Path = MOUNTS) -> None:
        self._mounts = mounts
        self._points: frozenset[str] = frozenset()
        self._known_until = 0.0

    def hold(self, path: str | Path) -> bool:
        """Whether an absolute path, its symbolic links followed, leads to or through such a file system."""
        self._read_again()
        if not self._points:
            return False
        at, rest, links = "/", deque(str(path).split("/")), 0
        while rest:
            part = rest.popleft()
            if part in {"", "."}:
                continue
            if part == "..":
                at = str(Path(at).parent)
                continue
            there = Path(at, part)
            if str(there) in self._points:
                return True
            target = _link(there)
            links += bool(target)
            if not target or links > LINKS_MAX:
                at = str(there)
                continue
            at = "/" if target.startswith("/") else at
            rest.extendleft(reversed(target.split("/")))
        return False

    def _read_again(self) -> None:
        now = time.monotonic()
        if now < self._known_until:
            return
        try:
            said = self._mounts.read_bytes().decode("utf-8", "surrogateescape")
        except OSError:  # no descriptor left, or no /proc: what was known is the best there is
            return
        self._known_until = now + KNOWN_SECONDS
        types: dict[str, str] = {}
        for line in said.split("\n"):  # no other sign ends a line there
            mount, _, source = line.partition(" - ")
            if len(parts := mount.split(" ")) > 4:
                types[_ESCAPED.sub(_plain, parts[4])] = source.partition(" ")[0]  # the last one lies on top
        # A root from another machine is where the agent itself lies: nothing goes without it.
        self._points = frozenset(point for point, kind in types.items() if REMOTE_TYPES.match(kind)) - {"/"}


def _link(path: Path) -> str:
    """Where a symbolic link leads, "" for anything else."""
    try:
        return str(path.readlink())
    except (OSError, ValueError):  # no link, or nothing there; a NUL in it
        return ""


def _plain(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 8))
