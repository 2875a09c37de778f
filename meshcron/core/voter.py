"""What election and replication share: term, vote, log, commit, and who votes. Raft's state (figure 2) of one agent."""

from __future__ import annotations

from collections import deque
from typing import Literal

from msgspec import Struct

from meshcron import entries
from meshcron.core.log import Log
from meshcron.core.timing import Timing
from meshcron.core.turn import Turn
from meshcron.entries import Entry
from meshcron.rows import BallotRow, LogCut, LogRow
from meshcron.vocabulary import Vocabulary

Role = Literal["follower", "asking", "candidate", "leader"]
"""`asking` = pre-vote: would you vote for me?"""

ROLE_CHANGES: dict[tuple[Role, Role], str] = {
    ("follower", "asking"): "election timer, or evidence that the leader's process is gone",
    ("follower", "candidate"): "TakeOver, or the only voter",
    ("asking", "follower"): "a bully answers, a leader is heard, a higher term",
    ("asking", "candidate"): "a majority would vote",
    ("candidate", "asking"): "no majority in time",
    ("candidate", "leader"): "a majority of durable votes, the own one among them",
    ("candidate", "follower"): "a leader, a higher term",
    ("leader", "follower"): "lease lost, disk mute for 1 s, no voter any more, a higher term",
}
"""Every change of role that there is, and what brings it about. docs/PROTOCOL.md shows it."""


class Committed(Struct, frozen=True):
    """An entry that will never change, with what the catalog records about it."""

    index: int
    term: int
    crc: int
    entry: Entry


class Voter:
    """Changed by election.py and replication.py only."""

    def __init__(
        self,
        node_id: str,
        timing: Timing,
        vocabulary: Vocabulary,
        ballot: BallotRow,
        rows: list[LogRow],
        applied: tuple[int, int, int],
    ) -> None:
        self.node_id = node_id
        self.timing = timing
        self._vocabulary = vocabulary
        self.term = max(ballot.term, applied[1], rows[-1].term if rows else 0)
        self.voted_for = ballot.voted_for if ballot.term == self.term else ""
        self._role: Role = "follower"
        self.leader = ""
        """Node id of this term's leader, as far as it was heard."""
        self.heard_boot_us = 0
        """When the leader was last heard, or the timer was set anew."""
        self.log = Log.load(rows, applied)
        self.commit_index = applied[0]
        self.applied_index = applied[0]
        self.durable_index = self.log.last_index
        self.first_index = 0
        """As leader: the index of this term's first entry."""
        self.vote_persist = 0
        """Number of the Persist with our own vote; -1 = in this turn's."""
        self.rosters: list[tuple[int, frozenset[str]]] = []
        """Who votes, by the index of the entry that said so; the last one counts, committed or not (Raft, 6)."""
        self._decoded: dict[int, Entry] = {}
        self._unsynced: deque[tuple[int, int, int]] = deque()
        self._touched = False

    # who votes

    @property
    def voters(self) -> frozenset[str]:
        """Those whose votes and copies count; empty before the cluster is formed or joined."""
        return self.rosters[-1][1] if self.rosters else frozenset()

    @property
    def votes(self) -> bool:
        """Whether this agent is a voter: in its last roster, or in one that is still in force because no later one is
        committed. Whoever is being removed may be the only one that can be elected, to commit just that (Ongaro's
        dissertation, 4.2.2); it counts as none of the majority."""
        for index, roster in reversed(self.rosters):
            if self.node_id in roster:
                return True
            if index <= self.commit_index:
                break
        return False

    def is_majority(self, some: set[str] | frozenset[str]) -> bool:
        """Whether these are more than half of the voters."""
        return 2 * len(self.voters & some) > len(self.voters)

    # term and log

    @property
    def role(self) -> Role:
        """What this agent is in its term."""
        return self._role

    def become(self, role: Role) -> None:
        """Take another role; one that ROLE_CHANGES does not list is a defect, and the agent ends rather than go on."""
        if role != self._role:
            assert (self._role, role) in ROLE_CHANGES, f"{self._role} becomes {role}"
            self._role = role

    def enter_term(self, term: int, turn: Turn, vote: str = "") -> None:
        """Go to a higher term, or vote in this one; durable before anybody learns of it."""
        assert term > self.term or (term == self.term and not self.voted_for), "a term or a vote is taken back"
        if term > self.term:
            self.leader = ""
            self.become("candidate" if vote == self.node_id else "follower")
        self.term, self.voted_for = term, vote
        turn.write(BallotRow(term, vote))

    def append(self, entry: Entry, body: bytes, turn: Turn) -> int:
        """Our own next entry, as leader."""
        row = self.log.append(self.term, body)
        # As all others read it: two equal values may be written differently (msgspec leaves out what is the very
        # object of a default), and our rows of the entry must be theirs.
        self._decoded[row.index] = self._vocabulary.decode(body)
        self.note(row.index, entry)
        turn.write(row)
        self._touched = True
        return row.index

    def take(self, row: LogRow, turn: Turn) -> bool:
        """The leader's next entry; False where it does not continue our chain. Raises NewerProtocol."""
        if not self.log.take(row):
            return False
        entry = self._vocabulary.decode(row.body)
        self._decoded[row.index] = entry
        self.note(row.index, entry)
        turn.write(row)
        self._touched = True
        return True

    def truncate(self, first: int) -> None:
        """Another leader's log differs from here on; what follows is not committed."""
        assert first > self.commit_index, "a committed entry would be taken back"
        self.log.truncate(first)
        self.rosters = [one for one in self.rosters if one[0] < first]
        self._decoded = {index: entry for index, entry in self._decoded.items() if index < first}
        self.durable_index = min(self.durable_index, first - 1)
        self._unsynced = deque((n, min(index, first - 1), boot_us) for n, index, boot_us in self._unsynced)

    def note(self, index: int, entry: Entry) -> None:
        """An entry stands in the log: if it says who votes, that holds from now on."""
        if isinstance(entry, entries.Formed | entries.Recovered):
            self.rosters.append((index, frozenset({entry.member.node_id})))
        elif isinstance(entry, entries.Roster):
            self.rosters.append((index, frozenset(entry.voters)))

    def roster_is_committed(self) -> bool:
        """Whether the next change of the roster may begin."""
        return not self.rosters or self.rosters[-1][0] <= self.commit_index

    # what is durable

    def turn_closed(self, n: int, boot_us: int) -> None:
        """Learn the number of the Persist that carries what this turn wrote."""
        if self.vote_persist == -1:
            self.vote_persist = n
        if self._touched:
            self._unsynced.append((n, self.log.last_index, boot_us))
            self._touched = False

    def persisted(self, n: int) -> None:
        """Everything up to Persist n is durable here."""
        while self._unsynced and self._unsynced[0][0] <= n:
            self.durable_index = max(self.durable_index, self._unsynced.popleft()[1])

    @property
    def syncing(self) -> bool:
        """Whether entries of ours are on their way to the disk."""
        return bool(self._unsynced)

    def syncing_since_us(self) -> int | None:
        """Since when the oldest of them is."""
        return self._unsynced[0][2] if self._unsynced else None

    # what is committed

    def has_committed(self) -> bool:
        """True while `take_committed` has something to give."""
        return self.applied_index < self.commit_index

    def take_committed(self) -> Committed:
        """The next committed entry, in order, once each."""
        self.applied_index += 1
        row = self.log.row(self.applied_index)
        entry = self._decoded.pop(row.index, None) or self._vocabulary.decode(row.body)
        return Committed(row.index, row.term, row.crc, entry)

    def waiting_entries(self) -> list[Entry]:
        """Entries in the log that are not applied yet."""
        rows = self.log.after(self.applied_index, 1 << 40)
        return [self._decoded.get(row.index) or self._vocabulary.decode(row.body) for row in rows]

    def cut(self, turn: Turn) -> None:
        """Forget old entries in bulk, so that the cut costs little per entry."""
        base = self.log.cut(self.applied_index)
        if base is not None:
            turn.write(LogCut(base))

    def reset(self, index: int, term: int, crc: int, voters: frozenset[str]) -> None:
        """A snapshot stands for everything up to an entry."""
        self.log.reset(index, term, crc)
        self.rosters = [(index, voters)]
        self._decoded.clear()
        self._unsynced.clear()
        self.commit_index = self.applied_index = index
        self.durable_index = 0
        self._touched = True  # durable with the Persist that installs it
