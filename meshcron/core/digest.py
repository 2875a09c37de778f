"""Whether all that hold the log hold the same rows: a running digest of what the entries came to (PROTOCOL 5).

Each 60 s the leader names an index, and everybody's heartbeats say the digest there. Who sees that a majority of the
voters agrees on another one than its own has computed something else, whatever the cause, and begins anew.
"""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct, msgpack

from meshcron.messages import Heartbeat
from meshcron.model import SECOND_US
from meshcron.rows import MetaRow, Row

COMPARE_US = 60 * SECOND_US
"""How often rows are compared (PROTOCOL 5)."""

BEGIN_EVERY = 100_000
"""The digest begins anew with each entry whose index is a multiple of this. Another build of meshcron may write other
rows for the same entries: a digest that two builds had a part in is void until then."""

KEPT = 2048
"""Digests of so many last entries can be told: a follower hears of the index when it is already past it."""

KEY = "digest"
"""Of its row in `meta`; with the catalog's rows it goes into snapshots."""

_encode = msgpack.Encoder().encode


class Verdict(Struct, frozen=True):
    """What a comparison shows."""

    differ: frozenset[str] = frozenset()
    """Node ids of the voters whose digest is another one than ours."""
    odd: bool = False
    """A majority of the voters agrees on another one."""


class Digest:
    """The digest of one holder of the log, and the index at which it is compared."""

    def __init__(self, build: str, meta: Mapping[str, str], applied_index: int) -> None:
        """`build`: which version of meshcron computes. `meta`: as it was loaded."""
        self._build = build
        self.asked_index = 0
        """Where the leader wants to compare; 0 = nowhere yet."""
        self._asked_boot_us = 0
        self.load(meta, applied_index)

    def load(self, meta: Mapping[str, str], applied_index: int) -> None:
        """Go on from rows that were read, or that a snapshot brought."""
        index, crc, build = (*meta.get(KEY, "").split(" ", 2), "", "", "")[:3]
        self._index = applied_index
        self._is_valid = not applied_index or (index == str(applied_index) and build == self._build)
        self._crc = int(crc) if self._is_valid and applied_index else 0
        self._kept: deque[int] = deque([self._crc if self._is_valid else 0], maxlen=KEPT)

    def add(self, index: int, rows: Sequence[Row]) -> None:
        """The next applied entry and all that it came to, in whatever order."""
        if index % BEGIN_EVERY == 0:
            self._crc, self._is_valid = 0, True
        some = sum([zlib.crc32(_encode(row)) for row in rows])
        self._crc = zlib.crc32(some.to_bytes(8, "big"), self._crc) or 1
        self._index = index
        self._kept.append(self._crc if self._is_valid else 0)

    def row(self) -> MetaRow:
        """As it is written down, with the rows of the last entry."""
        return MetaRow(KEY, f"{self._index} {self._crc} {self._build if self._is_valid else ''}")

    def at(self, index: int) -> int:
        """The digest after an entry; 0 = not known (not yet, no more, or void)."""
        back = self._index - index
        return self._kept[-1 - back] if index and 0 <= back < len(self._kept) else 0

    # comparing

    def name_index(self, now_boot_us: int) -> None:
        """As the leader: where to compare."""
        if now_boot_us - self._asked_boot_us >= COMPARE_US:
            self._asked_boot_us, self.asked_index = now_boot_us, self._index

    @property
    def told(self) -> int:
        """The digest at the index where the leader compares."""
        return self.at(self.asked_index)

    def differs_from(self, beat: Heartbeat) -> bool:
        """Whether somebody's digest is another one than ours: mostly it is not, and there is nothing to judge."""
        return beat.digest not in (0, self.told) and beat.digest_index == self.asked_index and bool(self.told)

    def judge(self, beats: Collection[Heartbeat], voters: frozenset[str]) -> Verdict:
        """Compare with what other voters say (`beats`: their last ones, of the same build only)."""
        ours = self.told
        if not ours:
            return Verdict()
        said = {one.profile.node_id: one.digest for one in beats if one.digest_index == self.asked_index and one.digest}
        others = Counter(digest for digest in said.values() if digest != ours)
        odd = any(2 * count > len(voters) for count in others.values())
        return Verdict(frozenset(node_id for node_id, digest in said.items() if digest != ours), odd)
