"""The embedded ledger: proposes entries, hears what is committed and at which fence (docs/ARCHITECTURE.md, the seam).

Nothing outside ledger, log, voter, election, replication, following and roster knows how an entry becomes committed; an
external ledger can take this one's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from meshcron import entries
from meshcron.core.effects import Alarm
from meshcron.core.election import Clocks, Election
from meshcron.core.following import Following
from meshcron.core.replication import Replication
from meshcron.core.roster import Health
from meshcron.core.timing import Timing
from meshcron.core.turn import Turn
from meshcron.core.voter import Committed, Voter
from meshcron.entries import ENTRY_BYTES_MAX, Entry
from meshcron.errors import Conflict, NotLeader, TooLarge
from meshcron.messages import Append, Appended, Forgotten, PreVote, PreVoteReply, TakeOver, Vote, VoteReply
from meshcron.rows import Loaded
from meshcron.vocabulary import FIRST, VOCABULARY, Vocabulary

LedgerMessage = PreVote | PreVoteReply | Vote | VoteReply | Append | Appended | TakeOver | Forgotten

UPGRADE_ALL = "upgrade every agent; the cluster follows by itself"


class Ledger:
    """Term, vote and log of one agent, and its part in replicating the log."""

    def __init__(
        self,
        node_id: str,
        timing: Timing,
        loaded: Loaded,
        applied: tuple[int, int, int],
        *,
        priority_of: Callable[[str], int],
        mark_cluster_us: Callable[[], int],
        vocabulary: Vocabulary = VOCABULARY,
        protocol: Callable[[], int] = lambda: FIRST,
    ) -> None:
        """`protocol`: what the cluster speaks now. Raises NewerProtocol."""
        self._vocabulary = vocabulary
        self._protocol = protocol
        self._voter = Voter(node_id, timing, vocabulary, loaded.ballot, loaded.log, applied)
        self._election = Election(self._voter, priority_of, mark_cluster_us)
        self._replication = Replication(self._voter)
        self._following = Following(self._voter)
        self.has_forgotten = False
        """Its log ends before what it has acknowledged: it must neither vote nor be counted any more."""
        self._lost_leader = True
        """Whether its leader was silent for so long, when last looked, that others may have a new one."""
        known = frozenset(member.node_id for member in loaded.members if member.voter)
        if known:
            self._voter.rosters.append((applied[0], known))
        for row in loaded.log:
            if row.index > applied[0]:
                self._voter.note(row.index, vocabulary.decode(row.body))

    # what others may know

    @property
    def term(self) -> int:
        """The highest term this agent knows of."""
        return self._voter.term

    @property
    def leads(self) -> bool:
        """Whether this agent leads in `term`."""
        return self._voter.role == "leader"

    @property
    def role(self) -> str:
        """follower, asking, candidate or leader."""
        return self._voter.role

    @property
    def leader(self) -> str:
        """Node id of this term's leader, "" while none is heard: one that we lost may be none any more, and nothing
        that is sent to it arrives."""
        return "" if self._lost_leader else self._voter.leader

    @property
    def first_index(self) -> int:
        """As leader: index of the term's first entry; the state is current once that is applied."""
        return self._voter.first_index

    @property
    def voters(self) -> frozenset[str]:
        """Whose votes and copies count."""
        return self._voter.voters

    @property
    def votes(self) -> bool:
        """Whether this agent is a voter, as far as its own log tells."""
        return self._voter.votes

    def stand_back(self, voters: frozenset[str]) -> None:
        """Our log has missed that others vote now, and goes on elsewhere: ask nobody for votes."""
        self._voter.rosters = [(self._voter.commit_index, voters)]

    @property
    def commit_index(self) -> int:
        """The last entry known to be committed."""
        return self._voter.commit_index

    @property
    def last_index(self) -> int:
        """The last entry of the log."""
        return self._voter.log.last_index

    @property
    def last_term(self) -> int:
        """The term of that entry."""
        return self._voter.log.last_term

    @property
    def syncing(self) -> bool:
        """True while entries are on their way to the disk: a good moment to gather more."""
        return self._voter.syncing

    def has_lost_leader(self, now_boot_us: int) -> bool:
        """Whether no leader was heard within the time that keeps a voter sticky."""
        voter = self._voter
        if voter.role == "leader":
            return False
        return not voter.leader or now_boot_us - voter.heard_boot_us >= voter.timing.sticky_us

    # time

    def start(self, turn: Turn) -> None:
        """The first call."""
        self._election.start(turn)

    def recover(self) -> None:
        """An operator's word: this agent alone votes from here on. Before `start`; its first entry says so to all."""
        self._voter.rosters.append((self._voter.log.last_index, frozenset({self._voter.node_id})))

    def form(self, turn: Turn) -> None:
        """Become the first and only voter of a new cluster; its first entry must be Formed."""
        self._voter.rosters = [(0, frozenset({self._voter.node_id}))]
        self._election.start(turn)

    def next_wakeup(self, now_boot_us: int) -> int | None:
        """On the suspend-counting clock."""
        wishes = [self._election.next_wakeup(), self._replication.next_wakeup(now_boot_us)]
        if self.has_committed():
            wishes.append(now_boot_us)
        return min((wish for wish in wishes if wish is not None), default=None)

    def check_lease(self, turn: Turn) -> str:
        """Step down if we must, before anything else happens in this turn; the reason, or ""."""
        why = self._replication.why_step_down(turn)
        if why:
            self._voter.become("follower")
            self._voter.leader = ""
            turn.at_once(Alarm("stepped_down", f"no longer leader of term {self.term}: {why}"))
            self._election.heard_leader(turn)
        return why

    def woke(self, turn: Turn) -> None:
        """Timers."""
        self._lost_leader = self.has_lost_leader(turn.now.boot_us)
        self._election.woke(turn)
        self._replication.count_copies(turn.now.boot_us)

    def gone(self, node_id: str, turn: Turn) -> None:
        """Our own evidence that a process is gone."""
        self._election.gone(node_id, turn)

    def won(self) -> Clocks | None:
        """Once, when a majority has voted for us: call `lead`, then propose the term's first entry."""
        if not self._election.won:
            return None
        self._election.won = False
        return self._election.clocks() if self._voter.role == "candidate" else None

    def lead(self, turn: Turn) -> None:
        """Begin the term just won."""
        self._lost_leader = False
        self._replication.lead(turn)

    # messages

    def message(self, sender: str, message: LedgerMessage, turn: Turn) -> bool:
        """What other voters say. True where a living leader was heard."""
        match message:
            case PreVote():
                self._election.pre_vote(sender, message, turn)
            case PreVoteReply():
                self._election.pre_vote_reply(sender, message, turn)
            case Vote():
                self._election.vote(sender, message, turn)
            case VoteReply():
                self._election.vote_reply(sender, message, turn)
            case Append():
                if self._following.append(sender, message, turn):
                    self._election.heard_leader(turn)
                    self._lost_leader = False
                    return True
            case Appended():
                self._replication.appended(sender, message, turn)
            case TakeOver():
                self._election.take_over(sender, message, turn)
            case Forgotten():
                self.has_forgotten = self.has_forgotten or self._following.has_forgotten(sender, message)
        return False

    def send(self, turn: Turn, others: frozenset[str], cluster_us: int) -> None:
        """As leader: give each holder of the log what it lacks. Once a turn, at its end."""
        if self._voter.role == "leader":
            self._replication.follow(set(others) - {self._voter.node_id}, turn)
            self._replication.send(turn, cluster_us)

    def turn_closed(self, n: int, boot_us: int) -> None:
        """Learn the number of the Persist that carries what this turn wrote."""
        self._voter.turn_closed(n, boot_us)

    def persisted(self, n: int, now_boot_us: int) -> None:
        """Everything up to Persist n is durable here: count our own vote and copy."""
        self._voter.persisted(n)
        self._election.persisted(n)
        self._replication.count_copies(now_boot_us)

    # entries

    def propose(self, entry: Entry, turn: Turn) -> int:
        """Append an entry; it is committed when `take_committed` gives it back, on every agent. Returns its index.

        Raises NotLeader, TooLarge, Conflict (of a later protocol than the cluster speaks); none changes anything.
        """
        return self.propose_all((entry,), turn)

    def propose_all(self, some: Sequence[Entry], turn: Turn) -> int:
        """The same for entries that belong together: all of them, or none. Returns the last one's index."""
        bodies = [self._body(entry, turn) for entry in some]
        return [self._voter.append(entry, body, turn) for entry, body in zip(some, bodies, strict=True)][-1]

    def _body(self, entry: Entry, turn: Turn) -> bytes:
        """What an entry takes in the log, which may take it."""
        if self._voter.role != "leader" or self._replication.is_handing_over(turn.now.boot_us):
            raise NotLeader("this agent does not lead")
        needed, spoken = self._vocabulary.needs(entry), self._protocol()
        if needed > spoken:
            raise Conflict("protocol", f"this needs protocol {needed}, the cluster speaks {spoken}", UPGRADE_ALL)
        body = entries.encode(entry)
        if len(body) > ENTRY_BYTES_MAX:
            raise TooLarge("body", f"the change takes {len(body)} bytes", f"at most {ENTRY_BYTES_MAX}")
        return body

    def can_propose(self, now_boot_us: int) -> bool:
        """Whether `propose` would take an entry."""
        return self._voter.role == "leader" and not self._replication.is_handing_over(now_boot_us)

    def waiting_entries(self) -> list[Entry]:
        """Entries in the log that are not applied yet."""
        return self._voter.waiting_entries()

    def has_committed(self) -> bool:
        """True while `take_committed` has something to give."""
        return self._voter.has_committed()

    def take_committed(self) -> Committed:
        """The next committed entry, in order, once each."""
        return self._voter.take_committed()

    def cut(self, turn: Turn) -> None:
        """Forget what nobody needs any more."""
        self._voter.cut(turn)

    # snapshots

    def holds(self, index: int, term: int) -> bool:
        """Whether our log has this entry: then it has all before it as well."""
        return self._voter.log.term_at(index) == term

    def installed(self, index: int, term: int, crc: int, voters: frozenset[str]) -> None:
        """A snapshot took the place of catalog and log."""
        self._voter.reset(index, term, crc, voters)

    def snapshot_sent(self, node_id: str, *, arrived: bool) -> None:
        """One of ours was taken over, or not."""
        self._replication.snapshot_sent(node_id, arrived=arrived)

    # who votes

    def roster_may_change(self) -> bool:
        """Whether the last change is committed, and an entry of our own term."""
        voter = self._voter
        return self.leads and voter.roster_is_committed() and voter.commit_index >= voter.first_index

    def lag(self, node_id: str) -> int | None:
        """How many entries a follower lacks; None = it holds no log yet."""
        one = self._replication.progress(node_id)
        return None if one is None or not one.match_index else self.last_index - one.match_index

    def hand_over_to(self, priorities: Mapping[str, int], health: Mapping[str, Health], stable_us: int) -> str:
        """The caught-up voter of strictly higher priority than ours that should lead; "" = none."""
        mine = priorities[self._voter.node_id]
        better = [
            (priorities[one], one)
            for one in self.voters
            if one in health and priorities.get(one, 0) > mine and self.lag(one) == 0
            if health[one].stable_us >= stable_us
        ]
        return max(better)[1] if better else ""

    def heir(self, health: Mapping[str, Health]) -> str:
        """The caught-up voter that could lead in our place; "" = none."""
        able = [one for one in self.voters if one in health and self.lag(one) == 0 and health[one].stable_us]
        return max(able, key=lambda one: (health[one].stable_us, one), default="")

    def hand_over(self, to: str, turn: Turn) -> None:
        """Ask it to stand; nothing is proposed until it has won or had its time."""
        self._replication.hand_over(to, turn)
