"""Who leads: bully order says who tries first, a majority of durable votes decides (PROTOCOL 4).

Safety is Raft's (Ongaro & Ousterhout, figure 2 and sections 5.2, 5.4.1, 9.6): one durable vote a term, for a log at
least as complete as one's own. Everything else here (rank, answers, evidence, stickiness) only says when to try.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

from msgspec import Struct

from meshcron.core.effects import Send
from meshcron.core.turn import Turn
from meshcron.core.voter import Voter
from meshcron.messages import PreVote, PreVoteReply, TakeOver, Vote, VoteReply

Rank = tuple[int, str]
"""(priority, node id): the higher one tries first."""


class Clocks(Struct, frozen=True):
    """What voters tell a new leader: high-water marks of cluster time and wall clocks, by node id."""

    marks_cluster_us: dict[str, int]
    walls_us: dict[str, int]


class Election:
    """Timers and votes of one voter."""

    def __init__(self, voter: Voter, priority_of: Callable[[str], int], mark_cluster_us: Callable[[], int]) -> None:
        self._voter = voter
        self._priority_of = priority_of
        self._mark_cluster_us = mark_cluster_us
        self._due_boot_us = 0
        self._tries = 0
        self._granted: set[str] = set()
        self._deaf = False
        """A bully answered and did nothing for a whole timeout: its next answer is not waited for."""
        self._bully: Rank | None = None
        self._gone = ""
        """The leader of which we have evidence that its process is gone."""
        self._hand_over = False
        self._marks: dict[str, int] = {}
        self._walls: dict[str, int] = {}
        self.won = False
        """Set when a majority has voted for us; whoever begins to lead clears it."""

    # when

    def start(self, turn: Turn) -> None:
        """The first call. A voter alone stands at once; the others listen first."""
        self._voter.heard_boot_us = turn.now.boot_us
        self._set_timer(turn)
        self._stand_alone(turn)

    def _stand_alone(self, turn: Turn) -> None:
        if self._voter.voters == {self._voter.node_id}:
            self._stand(turn)

    def next_wakeup(self) -> int | None:
        """On the suspend-counting clock: when to try, or to try again."""
        return self._due_boot_us if self._voter.votes and self._voter.role != "leader" else None

    def woke(self, turn: Turn) -> None:
        """Try once the timer says so."""
        if not self._voter.votes or self._voter.role == "leader" or turn.now.boot_us < self._due_boot_us:
            return
        self._set_timer(turn)
        if self._voter.role == "candidate" and self._voter.node_id not in self._granted:
            return  # our own vote is still on its way to a slow disk
        if self._voter.voters == {self._voter.node_id}:
            self._stand(turn)
        else:
            self._ask(turn)

    def heard_leader(self, turn: Turn) -> None:
        """The leader of our term has spoken."""
        self._voter.heard_boot_us = turn.now.boot_us
        self._gone = ""
        self._bully = None
        self._deaf = False
        self._tries = 0
        self._set_timer(turn)

    def gone(self, node_id: str, turn: Turn) -> None:
        """Our own evidence: its host closed our connection and refuses new ones."""
        if node_id != self._voter.leader or self._voter.role != "follower":
            return
        self._gone = node_id
        delay_us = self._place() * self._voter.timing.stand_us + self._dice(self._voter.timing.stand_us // 2)
        self._due_boot_us = min(self._due_boot_us, turn.now.boot_us + delay_us)

    def _set_timer(self, turn: Turn) -> None:
        timing = self._voter.timing
        wait_us = timing.sticky_us + self._place() * timing.rank_us + self._dice(timing.jitter_us)
        self._due_boot_us = turn.now.boot_us + wait_us

    def _place(self) -> int:
        """0 for the highest rank among the voters."""
        mine = self.rank(self._voter.node_id)
        return sum(self.rank(other) > mine for other in self._voter.voters)

    def _dice(self, below_us: int) -> int:
        """Different on each voter and each try, and the same when a seed is replayed."""
        self._tries += 1
        return crc32(f"{self._voter.node_id}|{self._voter.term}|{self._tries}".encode()) % below_us

    def rank(self, node_id: str) -> Rank:
        """Bully's order."""
        return self._priority_of(node_id), node_id

    def _lost_leader(self, turn: Turn) -> bool:
        """Whether this voter has itself lost the leader."""
        voter = self._voter
        if voter.role == "leader":
            return False
        if not voter.leader or self._gone == voter.leader:
            return True
        return turn.now.boot_us - voter.heard_boot_us >= voter.timing.sticky_us

    # asking: would you vote for me?

    def _ask(self, turn: Turn) -> None:
        voter = self._voter
        voter.become("asking")
        self._granted = {voter.node_id}
        self._bully = None
        message = PreVote(term=voter.term + 1, last_index=voter.log.last_index, last_term=voter.log.last_term)
        for other in sorted(voter.voters - {voter.node_id}):
            turn.at_once(Send(other, message))

    def pre_vote(self, sender: str, message: PreVote, turn: Turn) -> None:
        """Somebody wants to stand."""
        voter = self._voter
        theirs = message.last_term, message.last_index
        ours = voter.log.last_term, voter.log.last_index
        lost = self._lost_leader(turn)
        granted = message.term > voter.term and theirs >= ours and lost
        standing = False
        if voter.votes and granted and ours >= theirs and self.rank(voter.node_id) > self.rank(sender):
            standing = True
            self._due_boot_us = min(self._due_boot_us, turn.now.boot_us + voter.timing.stand_us)
        term = message.term if granted else voter.term
        turn.at_once(Send(sender, PreVoteReply(term=term, granted=granted, standing=standing)))

    def pre_vote_reply(self, sender: str, message: PreVoteReply, turn: Turn) -> None:
        """Count who would vote for us; let a bully stand first. Nobody but voters was asked."""
        voter = self._voter
        if sender not in voter.voters:
            return
        if not message.granted:
            if message.term > voter.term:
                voter.enter_term(message.term, turn)
            return
        if voter.role != "asking" or message.term != voter.term + 1:
            return
        if message.standing and not self._deaf:
            self._bully = self.rank(sender)
            self._deaf = True
            voter.become("follower")
            self._set_timer(turn)
            return
        self._granted.add(sender)
        if voter.is_majority(self._granted):
            self._stand(turn)

    # standing: vote for me

    def _stand(self, turn: Turn) -> None:
        voter = self._voter
        voter.enter_term(voter.term + 1, turn, voter.node_id)
        voter.vote_persist = -1
        self._granted = set()
        self._marks = {voter.node_id: self._mark_cluster_us()}
        self._walls = {voter.node_id: turn.now.wall_us}
        self._set_timer(turn)
        message = Vote(
            term=voter.term,
            last_index=voter.log.last_index,
            last_term=voter.log.last_term,
            hand_over=self._hand_over,
        )
        self._hand_over = False
        for other in sorted(voter.voters - {voter.node_id}):
            turn.after_writes(Send(other, message))

    def persisted(self, n: int) -> None:
        """Our own vote counts once it is durable."""
        voter = self._voter
        if voter.role == "candidate" and 0 < voter.vote_persist <= n:
            self._count(voter.node_id)

    def vote(self, sender: str, message: Vote, turn: Turn) -> None:
        """Somebody stands. A vote is durable before it is said."""
        voter = self._voter
        if message.term > voter.term and not message.hand_over and not self._lost_leader(turn):
            return  # sticky: our leader lives, whatever the term
        if message.term < voter.term:
            turn.at_once(Send(sender, VoteReply(term=voter.term, granted=False)))
            return
        if message.term > voter.term:
            voter.enter_term(message.term, turn)
        complete = (message.last_term, message.last_index) >= (voter.log.last_term, voter.log.last_index)
        granted = complete and voter.voted_for in ("", sender) and voter.role != "leader"
        if granted and not voter.voted_for:
            voter.enter_term(voter.term, turn, sender)
            self._set_timer(turn)
        reply = VoteReply(
            term=voter.term, granted=granted, mark_cluster_us=self._mark_cluster_us(), wall_us=turn.now.wall_us
        )
        turn.after_writes(Send(sender, reply))

    def vote_reply(self, sender: str, message: VoteReply, turn: Turn) -> None:
        """Count a vote of our term. Nobody but voters was asked."""
        voter = self._voter
        if sender not in voter.voters:
            return
        if message.term > voter.term:
            voter.enter_term(message.term, turn)
        elif voter.role == "candidate" and message.term == voter.term and message.granted:
            self._marks[sender], self._walls[sender] = message.mark_cluster_us, message.wall_us
            self._count(sender)

    def _count(self, node_id: str) -> None:
        self._granted.add(node_id)
        if self._voter.node_id in self._granted and self._voter.is_majority(self._granted):
            self.won = True

    def clocks(self) -> Clocks:
        """What the votes of the election just won said about time."""
        return Clocks(dict(self._marks), dict(self._walls))

    def take_over(self, sender: str, message: TakeOver, turn: Turn) -> None:
        """The leader asks us to stand in its place: at once, and nobody is sticky."""
        voter = self._voter
        if sender == voter.leader and message.term == voter.term and voter.votes and voter.role == "follower":
            self._hand_over = True
            self._stand(turn)
