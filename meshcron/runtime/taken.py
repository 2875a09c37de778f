"""Calls that were taken from other agents: no copy of a write is done again, however late it comes.

Nothing here goes by time: an agent that was suspended, and a copy that lay in a queue meanwhile, know nothing of each
other's clocks. An agent numbers its calls upward, over all its starts; what is forgotten of them is remembered as a
number, and no write up to it is done any more.
"""

from __future__ import annotations

from collections import Counter, deque

from msgspec import Struct

from meshcron.messages import Reply

OPEN_MAX = 256
"""Calls of one agent that wait for their answer: four times the callers of the busiest benchmark, and with bodies of
the largest size 112 MiB."""

KEPT_MAX = 8192
"""Answers kept. A lost one is asked for again within 4 s; a leader gives less than 2,000 a second."""

KEPT_BYTES_MAX = 8 * 1024 * 1024
"""And of their bodies so many bytes."""

Key = tuple[str, str]
"""(node id of the asking agent, its call id)."""


class Kept(Struct, frozen=True):
    """An answered write."""

    key: Key
    size: int
    """Of the answer's body."""


class Taken:
    """What is being answered, and what was. Bounded by OPEN_MAX for each member and by KEPT_MAX in all."""

    def __init__(self) -> None:
        self._replies: dict[Key, Reply | None] = {}
        """None: the answer is still being made."""
        self._open: Counter[str] = Counter()
        self._kept: deque[Kept] = deque()
        self._kept_bytes = 0
        self._forgotten: dict[str, str] = {}
        """For each agent the highest call id that is not remembered any more."""

    def __contains__(self, key: Key) -> bool:
        return key in self._replies

    def reply_to(self, key: Key) -> Reply | None:
        """What was said to a call that is remembered; None while it is being answered."""
        return self._replies[key]

    def may_be_done(self, key: Key) -> bool:
        """Whether a write that is not remembered may have come before: as late a copy is not done."""
        sender, call_id = key
        return call_id <= self._forgotten.get(sender, "")

    def is_full(self, sender: str) -> bool:
        """Whether this agent has to wait for an answer before it asks more."""
        return self._open[sender] >= OPEN_MAX

    def begin(self, key: Key) -> None:
        """This call is being answered from now on."""
        self._replies[key] = None
        self._open[key[0]] += 1

    def end(self, key: Key) -> None:
        """It is answered, and may come again and be answered anew: it only reads."""
        del self._replies[key]
        self._close(key[0])

    def keep(self, key: Key, reply: Reply) -> None:
        """It is answered, and each copy that still comes is answered with this."""
        self._replies[key] = reply
        self._close(key[0])
        kept = Kept(key, sum(map(len, reply.payload)))
        self._kept.append(kept)
        self._kept_bytes += kept.size
        while len(self._kept) > KEPT_MAX or self._kept_bytes > KEPT_BYTES_MAX:
            oldest = self._kept.popleft()
            self._kept_bytes -= oldest.size
            del self._replies[oldest.key]
            self.forget(oldest.key)

    def forget(self, key: Key) -> None:
        """No copy of this write is done from now on, nor of an older one that is not remembered."""
        sender, call_id = key
        self._forgotten[sender] = max(call_id, self._forgotten.get(sender, ""))

    def _close(self, sender: str) -> None:
        self._open[sender] -= 1
        if not self._open[sender]:
            del self._open[sender]
