"""The log's way to the others: the leader appends and counts durable copies (Raft, 5.3, 5.4.2).

An own copy counts once it is durable here, a follower's once it said so; an entry of an earlier term commits only with
one of the own term. A follower too far behind what is kept gets a snapshot.
"""

from __future__ import annotations

from msgspec import Struct

from meshcron.core.effects import Alarm, Send, SendSnapshot
from meshcron.core.second_copy import SecondCopy
from meshcron.core.turn import Turn
from meshcron.core.voter import Voter
from meshcron.messages import Append, Appended, Forgotten, LogHead, TakeOver
from meshcron.rows import LogRow

APPEND_BYTES = 300 * 1024
"""Entries in one Append: with an entry of at most 256 KiB it stays under the 512 KiB of a message (PROTOCOL 5)."""

IN_FLIGHT_MAX = 16
"""Appends with entries on their way to one follower: enough to fill a LAN while it fsyncs."""


AWAY_BEATS = 3
"""A follower that has answered nothing for so many times `append_us` is away: nothing is in flight to it."""


class Progress(Struct):
    """What the leader knows of one follower."""

    next_index: int
    match_index: int = 0
    """Durable there."""
    matched_boot_us: int = 0
    """When we learnt that; an answer to what was sent before may be older."""
    forgotten_index: int = 0
    """It had acknowledged so much, and its log ends before it: it is not counted, and gets nothing but this news."""
    acked_sent_us: int = 0
    """Our clock when we sent the last append it has answered."""
    heard_boot_us: int = 0
    beat_boot_us: int = 0
    """When the last append without entries went to it: one does every `append_us`, however many with some go besides.
    An answer to entries waits for the follower's disk, and the lease should not."""
    told_commit: int = 0
    """Whoever forwarded a write answers it once it knows this: not worth an idle append's time."""
    in_flight: list[int] = []
    """The last entry of each append that is not known to be durable there. Whatever the follower answers says how far
    it is, also to an append without entries; where one with some was lost, it refuses what follows."""
    snapshot: bool = False
    """A snapshot is on its way: no entries until it has arrived or failed."""
    arrived: bool = False
    """It has been taken over: the next answer that goes beyond what we knew is about it."""
    arrived_beat_us: int = 0
    """When the last append went to it before we heard so; at the next one it has the snapshot, or has died with it."""


class Replication:
    """What a leader knows of everyone's progress."""

    def __init__(self, voter: Voter) -> None:
        self._voter = voter
        self._progress: dict[str, Progress] = {}
        self._second = SecondCopy()
        self._led_boot_us = 0
        self._handing_until_us = 0
        self._heir = ""
        """Who is asked to stand once it has all of our log."""

    # leading

    def lead(self, turn: Turn) -> None:
        """A new term is ours. Its first entry is proposed next."""
        voter = self._voter
        voter.become("leader")
        voter.leader = voter.node_id
        voter.first_index = voter.log.last_index + 1
        self._led_boot_us = turn.now.boot_us
        self._handing_until_us, self._heir = 0, ""
        self._progress.clear()
        self._second = SecondCopy()

    def follow(self, others: set[str], turn: Turn) -> None:
        """Who else holds the log: the voters and the learners."""
        for node_id in self._progress.keys() - others:
            del self._progress[node_id]
        for node_id in sorted(others - self._progress.keys()):
            # An added follower is taken as heard now: its first append has not had time to be answered.
            self._progress[node_id] = Progress(self._voter.log.last_index + 1, acked_sent_us=turn.now.boot_us)

    def progress(self, node_id: str) -> Progress | None:
        """What is known of a follower."""
        return self._progress.get(node_id)

    def next_wakeup(self, now_boot_us: int) -> int | None:
        """On the suspend-counting clock: the next idle append, the end of the lease, or of the wait for a learner."""
        if self._voter.role != "leader":
            return None
        beat = min((one.beat_boot_us for one in self._progress.values()), default=None)
        wishes = [] if beat is None else [max(now_boot_us, beat + self._voter.timing.append_us)]
        if (waited := self._second.next_wakeup()) is not None:
            wishes.append(waited)
        if self._needs_others():
            wishes.append(self._lease_until_us())
            since = self._voter.syncing_since_us()
            if since is not None:
                wishes.append(since + self._voter.timing.fsync_us)
        return min(wishes, default=None)

    def _lease_until_us(self) -> int:
        """Until when a majority, ourselves among it, is known to have heard us. Counts from the sending."""
        voter = self._voter
        others = sorted(
            (max(one.acked_sent_us, self._led_boot_us) for id_, one in self._progress.items() if id_ in voter.voters),
            reverse=True,
        )
        needed = len(voter.voters) // 2 + (voter.node_id not in voter.voters)  # besides ourselves
        if needed == 0:
            return 1 << 62
        if len(others) < needed:
            return self._led_boot_us + voter.timing.lease_us
        return others[needed - 1] + voter.timing.lease_us

    def _needs_others(self) -> bool:
        return self._voter.voters != {self._voter.node_id}

    def why_step_down(self, turn: Turn) -> str:
        """Why this leader must stop now; "" = it need not. Asked before anything is read from a socket."""
        voter, now_us = self._voter, turn.now.boot_us
        if voter.role != "leader":
            return ""
        if self._needs_others() and now_us > self._lease_until_us():
            return "no majority has answered within the lease"
        since = voter.syncing_since_us()
        if since is not None and now_us - since > voter.timing.fsync_us and self._needs_others():
            return "its own disk does not answer"
        if not voter.votes and voter.roster_is_committed():
            return "it is no voter any more"
        return ""

    def is_handing_over(self, now_boot_us: int) -> bool:
        """While a successor was asked to stand, nothing new is proposed."""
        return now_boot_us < self._handing_until_us

    def hand_over(self, to: str, turn: Turn) -> None:
        """Ask a voter to stand in our place as soon as it has our whole log, and propose nothing meanwhile."""
        self._handing_until_us, self._heir = turn.now.boot_us + self._voter.timing.sticky_us, to
        self._ask_heir(turn)

    def _ask_heir(self, turn: Turn) -> None:
        # What this turn proposed before the hand-over, or an earlier one did, may be on its way still. Asked without
        # it, the heir would stand with a shorter log than the others and be refused.
        one = self._progress.get(self._heir)
        if one is not None and one.match_index >= self._voter.log.last_index and self.is_handing_over(turn.now.boot_us):
            turn.at_once(Send(self._heir, TakeOver(self._voter.term)))
            self._heir = ""

    def send(self, turn: Turn, cluster_us: int) -> None:
        """What each follower lacks; to those that lack nothing, that we still lead."""
        voter, now_us = self._voter, turn.now.boot_us
        for node_id, one in self._progress.items():
            idle = now_us - one.beat_boot_us >= voter.timing.append_us
            if one.forgotten_index:
                if idle:
                    one.beat_boot_us = now_us
                    turn.at_once(Send(node_id, Forgotten(term=voter.term, match_index=one.forgotten_index)))
                continue
            if self._is_away(one, now_us):
                one.in_flight = []  # its place keeps up with our log: when it is back, its answer says where to go on
            if not one.snapshot and self._lacks_log(one):
                one.snapshot, one.in_flight = True, []
                turn.at_once(SendSnapshot(node_id, voter.term))
            if one.snapshot:
                if idle:
                    self._append(node_id, one, (), turn, cluster_us)
                continue
            while one.next_index <= voter.log.last_index and len(one.in_flight) < IN_FLIGHT_MAX:
                rows = voter.log.after(one.next_index - 1, APPEND_BYTES)
                self._append(node_id, one, rows, turn, cluster_us)
                one.in_flight.append(one.next_index - 1)
            if idle or voter.commit_index > one.told_commit:
                self._append(node_id, one, (), turn, cluster_us)

    def _is_away(self, one: Progress, now_boot_us: int) -> bool:
        return now_boot_us - one.heard_boot_us > AWAY_BEATS * self._voter.timing.append_us

    def _lacks_log(self, one: Progress) -> bool:
        return self._voter.log.term_at(one.next_index - 1) is None

    def _append(self, to: str, one: Progress, rows: tuple[LogRow, ...], turn: Turn, cluster_us: int) -> None:
        voter = self._voter
        previous = 0 if one.snapshot else one.next_index - 1
        message = Append(
            term=voter.term,
            prev_index=previous,
            prev_term=0 if one.snapshot else voter.log.term_at(previous) or 0,
            commit_index=voter.commit_index,
            sent_boot_us=turn.now.boot_us,
            cluster_us=cluster_us,
            heads=tuple(LogHead(row.index, row.term, row.crc) for row in rows),
            payload=tuple(row.body for row in rows),
        )
        if not rows:
            one.beat_boot_us = turn.now.boot_us
        one.told_commit = voter.commit_index
        one.next_index += len(rows)
        # A leader's Append need not wait for its own write: its own copy counts at Persisted only (PROTOCOL 5).
        turn.at_once(Send(to, message))

    def appended(self, sender: str, message: Appended, turn: Turn) -> None:
        """A follower's answer."""
        voter, one = self._voter, self._progress.get(sender)
        if voter.role != "leader" or one is None:
            return
        if message.term > voter.term:
            voter.enter_term(message.term, turn)
            return
        if message.term != voter.term:
            return
        if self._has_lost(one, message):
            self._disown(sender, one, turn)
        if one.forgotten_index:
            return
        one.heard_boot_us = turn.now.boot_us
        one.acked_sent_us = max(one.acked_sent_us, message.sent_boot_us)
        if one.snapshot:
            # Our log may have been cut beyond it meanwhile: then `send` finds that it lacks the log still.
            reaches = one.arrived or message.match_index >= voter.log.base_index
            if message.ok and reaches and message.match_index > one.match_index:
                one.snapshot = one.arrived = False
                self._matched(one, message.match_index, turn)
                one.next_index = message.match_index + 1
            elif one.arrived and 0 <= message.last_index < voter.log.base_index:
                # A snapshot that is not yet durable is in its log already. It started anew without: send another one.
                one.snapshot = one.arrived = message.sent_boot_us <= one.arrived_beat_us
            return
        if message.ok:
            self._matched(one, min(message.match_index, voter.log.last_index), turn)
            one.next_index = max(one.next_index, one.match_index + 1)
            one.in_flight = [last for last in one.in_flight if last > one.match_index]
            self.count_copies(turn.now.boot_us)
            self._ask_heir(turn)
        else:
            one.next_index = max(1, one.match_index + 1, min(one.next_index - 1, message.match_index + 1))
            one.in_flight = []

    @staticmethod
    def _matched(one: Progress, index: int, turn: Turn) -> None:
        if index > one.match_index:
            one.match_index, one.matched_boot_us = index, turn.now.boot_us

    @staticmethod
    def _has_lost(one: Progress, message: Appended) -> bool:
        """Within a term a follower's log never ends before what it has acknowledged to that term's leader: only other
        entries of ours could cut it, and those follow. So what it answers to an append that was sent after we knew
        proves a loss; an answer to an earlier one may only be late."""
        return 0 <= message.last_index < one.match_index and message.sent_boot_us > one.matched_boot_us

    def _disown(self, node_id: str, one: Progress, turn: Turn) -> None:
        """Its copies are gone, and with them perhaps a vote: nothing that it says counts in this term any more."""
        one.forgotten_index, one.match_index = one.match_index, 0
        one.beat_boot_us = 0
        text = f"the agent {node_id[:8]} has lost entries that it had acknowledged: look at its disk; it joins anew"
        turn.at_once(Alarm("amnesia", text))

    def snapshot_sent(self, node_id: str, *, arrived: bool) -> None:
        """It was taken over, and its receiver will say how far it stands; or not, and the next append finds out."""
        if one := self._progress.get(node_id):
            one.snapshot = one.snapshot and arrived
            one.arrived, one.arrived_beat_us = one.snapshot, one.beat_boot_us

    def count_copies(self, now_boot_us: int) -> None:
        """Commit what a majority of the voters holds durably, from the first entry of our own term on."""
        voter = self._voter
        if voter.role != "leader":
            return
        matches = sorted(self._durable_at(node_id) for node_id in voter.voters)
        if not matches:
            return
        index = matches[(len(matches) - 1) // 2]
        index = self._with_second(index, now_boot_us)
        if index > voter.commit_index and voter.log.term_at(index) == voter.term:
            voter.commit_index = index

    def _with_second(self, index: int, now_boot_us: int) -> int:
        """The same, and where we vote alone no further than a living learner's copies go, for a moment."""
        living = [one.match_index for one in self._progress.values() if not self._is_away(one, now_boot_us)]
        if self._needs_others() or not any(living):
            self._second.forget()
            return index
        return self._second.reaches(index, max(living), self._voter.log.last_index, now_boot_us)

    def _durable_at(self, node_id: str) -> int:
        if node_id == self._voter.node_id:
            return self._voter.durable_index
        one = self._progress.get(node_id)
        return one.match_index if one else 0
