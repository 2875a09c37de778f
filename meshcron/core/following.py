"""The log's way from a leader to this follower: what it takes over, and what it says is durable here (Raft, 5.3)."""

from __future__ import annotations

from meshcron.core.effects import Alarm, Send
from meshcron.core.turn import Turn
from meshcron.core.voter import Voter
from meshcron.messages import Append, Appended, Forgotten
from meshcron.rows import LogRow


class Following:
    """What a voter or learner does with the words of whoever leads."""

    def __init__(self, voter: Voter) -> None:
        self._voter = voter

    def has_forgotten(self, sender: str, message: Forgotten) -> bool:
        """Whether the leader of our term is right: we have acknowledged what our log does not hold."""
        voter = self._voter
        leads = message.term == voter.term and voter.leader in ("", sender) and voter.role != "leader"
        return leads and message.match_index > voter.log.last_index

    def append(self, sender: str, message: Append, turn: Turn) -> bool:
        """The leader of our term speaks. Returns False where it is none, or an old one."""
        voter = self._voter
        if len(message.heads) != len(message.payload):
            return False
        if message.term < voter.term:
            self._answer(sender, message, ok=False, match=0, turn=turn)
            return False
        if message.term > voter.term:
            voter.enter_term(message.term, turn)
        if voter.role == "leader":
            turn.at_once(Alarm("two_leaders", f"{sender} says that it leads in our own term {voter.term}: a defect"))
            return False
        voter.become("follower")
        voter.leader = sender
        if message.prev_index == 0 and not message.heads and voter.log.last_index:
            # It keeps us calm while a snapshot comes, and must hear once that is there: all have what is committed.
            self._answer(sender, message, ok=True, match=voter.commit_index, turn=turn)
            return True
        conflict = self._conflict(message)
        if conflict is not None:
            self._answer(sender, message, ok=False, match=conflict, turn=turn)
            return True
        if not self._take(message, turn):
            return True
        match = message.prev_index + len(message.heads)
        voter.commit_index = max(voter.commit_index, min(message.commit_index, match))
        self._answer(sender, message, ok=True, match=match, turn=turn)
        return True

    def _conflict(self, message: Append) -> int | None:
        """Where the leader should try next, when our log does not hold what its entries follow."""
        voter, previous = self._voter, message.prev_index
        if previous <= voter.commit_index:
            return None  # committed entries are the same everywhere
        if previous > voter.log.last_index:
            return voter.log.last_index
        term = voter.log.term_at(previous)
        if term == message.prev_term:
            return None
        first = previous
        while first - 1 > voter.commit_index and voter.log.term_at(first - 1) == term:
            first -= 1
        return first - 1

    def _take(self, message: Append, turn: Turn) -> bool:
        voter = self._voter
        for head, body in zip(message.heads, message.payload, strict=True):
            if head.index <= voter.commit_index:
                continue
            if voter.log.term_at(head.index) == head.term:
                continue
            if head.index <= voter.log.last_index:
                voter.truncate(head.index)
            if not voter.take(LogRow(head.index, head.term, head.crc, body), turn):
                turn.at_once(Alarm("log_chain", f"entry {head.index} of the leader does not continue our log"))
                return False
        return True

    def _answer(self, to: str, message: Append, *, ok: bool, match: int, turn: Turn) -> None:
        voter = self._voter
        if turn.rows:
            turn.after_writes(Send(to, self._answer_of(message, ok=ok, match=match)))
            return
        durable = min(match, voter.durable_index) if ok else match
        turn.at_once(Send(to, self._answer_of(message, ok=ok, match=durable)))

    def _answer_of(self, message: Append, *, ok: bool, match: int) -> Appended:
        voter = self._voter
        return Appended(
            term=voter.term,
            ok=ok,
            match_index=match,
            sent_boot_us=message.sent_boot_us,
            last_index=voter.log.last_index,
        )
