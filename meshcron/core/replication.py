"""The replicated log as its leader drives it: append, count durable copies, commit.

This is the embedded ledger behind the seam of DESIGN.md: the rest of the core proposes entries and hears what was
committed. Here the only voter is this agent; its own vote and its own copy still count only once they are durable
(PROTOCOL 5), and entries of earlier terms commit only with one of the own term (Raft section 5.4.2).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from msgspec import Struct

from meshcron import entries
from meshcron.chain import chain
from meshcron.core.turn import Turn
from meshcron.entries import ENTRY_BYTES_MAX, Entry
from meshcron.errors import NotLeader, TooLarge
from meshcron.rows import BallotRow, LogCut, LogRow

KEPT_ENTRIES = 10_000
"""How many applied entries the log keeps, for followers that lag (PROTOCOL 5)."""


class Committed(Struct, frozen=True):
    """An entry that will never change, with what the catalog records about it."""

    index: int
    term: int
    crc: int
    entry: Entry


@dataclass
class Candidate:
    """Asks for a vote: its own, which counts once it is durable."""


@dataclass
class Leader:
    """Leads in `Ledger.term`; `first_index` is its own first entry."""

    first_index: int


class Ledger:
    """Term, vote and log of one voter."""

    def __init__(self, node_id: str, ballot: BallotRow, log: list[LogRow], applied: tuple[int, int, int]) -> None:
        index, term, crc = applied
        self.node_id = node_id
        self.term = max(ballot.term, term)
        self.role: Candidate | Leader = Candidate()
        self.commit_index = index
        self.last_index, self.last_crc = index, crc
        self._first_kept = log[0].index if log else index + 1
        self._pending: deque[Committed] = deque()
        for row in log:
            if row.index > index:
                self._pending.append(Committed(row.index, row.term, row.crc, entries.decode(row.body)))
                self.last_index, self.last_crc = row.index, row.crc
        self._durable_index = self.last_index
        self._unsynced: deque[tuple[int, int]] = deque()
        self._vote_number = 0
        self._touched = False

    # becoming leader

    def stand(self, turn: Turn) -> None:
        """Open a new term and vote for ourselves in it."""
        self.term += 1
        self.role = Candidate()
        turn.write(BallotRow(self.term, self.node_id))
        self._vote_number = -1

    def elected_by(self, n: int) -> bool:
        """True when Persisted(n) made our own vote durable: a majority of one."""
        return isinstance(self.role, Candidate) and 0 < self._vote_number <= n

    def lead(self, first: Entry, turn: Turn) -> None:
        """Begin the term with its first entry."""
        self.role = Leader(self.last_index + 1)
        self.propose(first, turn)

    # the log

    def propose(self, entry: Entry, turn: Turn) -> int:
        """Append an entry; it is committed when `take_committed` gives it back. Returns its index.

        Raises NotLeader, TooLarge; neither changes anything.
        """
        if not isinstance(self.role, Leader):
            raise NotLeader("this agent does not lead")
        body = entries.encode(entry)
        if len(body) > ENTRY_BYTES_MAX:
            raise TooLarge("body", f"the change takes {len(body)} bytes", f"at most {ENTRY_BYTES_MAX}")
        index = self.last_index + 1
        crc = chain(self.last_crc, index, self.term, body)
        turn.write(LogRow(index, self.term, crc, body))
        self._pending.append(Committed(index, self.term, crc, entry))
        self.last_index, self.last_crc = index, crc
        self._touched = True
        return index

    def turn_closed(self, n: int) -> None:
        """Learn the number of the Persist that carries what this turn wrote."""
        if self._vote_number == -1:
            self._vote_number = n
        if self._touched:
            self._unsynced.append((n, self.last_index))
            self._touched = False

    def persisted(self, n: int) -> None:
        """Everything up to Persist n is durable here: count our own copy, commit what a majority (of one) has."""
        while self._unsynced and self._unsynced[0][0] <= n:
            self._durable_index = self._unsynced.popleft()[1]
        if isinstance(self.role, Leader) and self._durable_index >= self.role.first_index:
            self.commit_index = self._durable_index

    @property
    def syncing(self) -> bool:
        """True while entries of ours are on their way to the disk: a good moment to gather more."""
        return bool(self._unsynced)

    def waiting_entries(self) -> list[Entry]:
        """Entries in the log that are not applied yet."""
        return [committed.entry for committed in self._pending]

    def has_committed(self) -> bool:
        """True while `take_committed` has something to give."""
        return bool(self._pending) and self._pending[0].index <= self.commit_index

    def take_committed(self) -> Committed:
        """The next committed entry, in order, once each."""
        return self._pending.popleft()

    def cut(self, applied_index: int, turn: Turn) -> None:
        """Forget old entries in bulk, so that the cut costs little per entry."""
        if applied_index - self._first_kept > 2 * KEPT_ENTRIES:
            self._first_kept = applied_index - KEPT_ENTRIES + 1
            turn.write(LogCut(self._first_kept - 1))
