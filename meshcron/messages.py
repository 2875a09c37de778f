"""One Struct a message between agents, and one tagged union of them all.

An agent talks to itself with the same messages: the single-agent path and the mesh path are one path. Messages that
concern executions carry many of them, so that ten thousand ticks in one second are a handful of messages. On the wire
a message is JSON; what stands in a field named `payload` (bytes) travels in frames of its own behind it.
"""

from __future__ import annotations

from typing import Literal
from zlib import crc32

from msgspec import Struct

from meshcron.model import Ending, Spec, Token


class Fence(Struct, frozen=True, order=True, array_like=True):
    """(generation, term): an order with a lower fence than the highest an agent has stored is stale."""

    generation: int = 0
    term: int = 0


_NUMBER_SHIFT = 32


def next_generation(after: int, node_id: str) -> int:
    """The generation that a recovery by this agent opens after another one: (number + 1, whose it is) as one integer
    that compares alike and fits 63 bits. Two agents that recover one cluster apart open two generations."""
    return generation_number(after) + 1 << _NUMBER_SHIFT | crc32(node_id.encode())


def generation_number(generation: int) -> int:
    """How often the cluster was recovered: what people are shown."""
    return generation >> _NUMBER_SHIFT


class Order(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Run one execution. `digest` names the Spec it needs."""

    execution_id: str
    node_id: str
    """Whose it is: a published Run carries the orders of many agents."""
    uid: int
    revision: int
    digest: str
    run_id: str
    attempt: int
    scheduled_wall_us: int
    due_cluster_us: int
    start_by_cluster_us: int
    wait_until_cluster_us: int
    """An accepted execution may wait for a free slot until then, within one session of the agent."""
    timeout_us: int = 0
    env: dict[str, str] | None = None
    start_id: str = ""
    """The newest start of that agent that the sender has heard; another one does not obey. "" = it heard none."""


class Run(Struct, frozen=True, tag="run"):
    """Leader to agents: these executions are yours. Repeated until acknowledged."""

    fence: Fence
    cluster_us: int
    orders: tuple[Order, ...]
    specs: tuple[Spec, ...] = ()


AckState = Literal["accepted", "known", "stale", "late", "need_spec", "not_now"]


class Ack(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An agent's answer to one order (PROTOCOL 6, RunAck)."""

    execution_id: str
    state: AckState
    known: str = ""
    """With state `known`: accepted, starting, running, ended, late, stopped."""


class RunAck(Struct, frozen=True, tag="run_ack"):
    """Agent to leader: the answers to a Run."""

    fence: Fence
    acks: tuple[Ack, ...]


class StartedItem(Struct, frozen=True):
    execution_id: str
    started_wall_us: int


class StartedReport(Struct, frozen=True, tag="started"):
    """Agent to leader: these processes run. Never waited for, never acknowledged."""

    items: tuple[StartedItem, ...]


ResultKind = Literal["ended", "timeout", "killed", "failed", "lost", "skipped"]


class ResultItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The final word of an agent about one execution, kept in its outbox until acknowledged."""

    execution_id: str
    kind: ResultKind
    reason: str = ""
    started_wall_us: int = 0
    success: bool = False
    ending: Ending | None = None


class Result(Struct, frozen=True, tag="result"):
    """Agent to leader: outcomes. Repeated until acknowledged."""

    items: tuple[ResultItem, ...]


class ResultAck(Struct, frozen=True, tag="result_ack"):
    """Leader to agent: these outcomes are committed; the outbox may forget them."""

    execution_ids: tuple[str, ...]
    cluster_us: int


class StopItem(Struct, frozen=True, kw_only=True):
    execution_id: str
    kill: bool
    """False: only what has not started is stopped; a running process is left alone."""
    start_by_cluster_us: int


class Stop(Struct, frozen=True, tag="stop"):
    """Leader to agent: stop or kill these executions. Written down even for an unknown id, so that a later copy of
    its Run starts nothing."""

    fence: Fence
    cluster_us: int
    items: tuple[StopItem, ...]


class StopAckItem(Struct, frozen=True):
    execution_id: str
    state: Literal["not_started", "running", "ended"]


class StopAck(Struct, frozen=True, tag="stop_ack"):
    """Agent to leader: what a Stop met."""

    items: tuple[StopAckItem, ...]


# who is there: heartbeats on PUB, admission at the gate (PROTOCOL 1-3)


class Endpoint(Struct, frozen=True, array_like=True):
    """Where an agent listens. Soft state: it may be another one after each start."""

    host: str
    gate_port: int
    mesh_port: int
    pub_port: int


class Profile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent says of itself. Nothing in it is trusted for more than its own tags and address."""

    node_id: str
    name: str
    public_key: str
    """CURVE, Z85. At the gate it is what the newcomer will be known by; a node id never changes its key."""
    endpoint: Endpoint
    tags: dict[str, str]
    facts: dict[str, str]
    session: int
    """The number of this start: a message of a lower one is old (PROTOCOL 1)."""
    priority: int = 100
    eligible: bool = True
    """False: `voter = never`, this agent neither votes nor holds the log."""
    version: str = ""
    protocol: int = 1
    """The highest that it speaks (vocabulary.py)."""
    start_id: str = ""
    """Random, another one for each start: two with one number are two copies of a data directory. "" = not told."""


class Heartbeat(Struct, frozen=True, tag="heartbeat", kw_only=True):
    """Each agent to all that listen: I live. Shows nothing durable and never waits."""

    profile: Profile
    fence: Fence
    """The highest the sender knows of; its own, where it leads."""
    leader: str
    """Node id of whom it takes for the leader, "" when it knows none."""
    cluster_us: int
    """The leader's stamp of cluster time; 0 from anybody else."""
    wall_us: int
    running: int
    """Executions that hold a slot."""
    applied_index: int
    """0 where the sender does not hold the log."""
    roster_index: int
    """The last roster change it knows of."""
    protocol: int = 1
    """What the cluster speaks, as far as the sender knows; its profile tells what the sender could."""
    digest_index: int = 0
    """Where rows are compared, as the leader has named it; `digest`: the sender's there (core/digest), 0 = none."""
    digest: int = 0
    suspects: tuple[str, ...] = ()
    """Node ids it has not heard for too long."""
    failed: tuple[str, ...] = ()
    """The leader's verdict; from anybody else empty."""


class Hello(Struct, frozen=True, tag="hello"):
    """At a gate: who knocks, and to which cluster it belongs already ("" = none yet)."""

    profile: Profile
    cluster: str
    generation: int
    virgin: bool = True
    """Its cluster has no job yet: it may dissolve into another one of the same key."""
    token: Token | None = None
    """Its own local token (the hash), committed with its admission."""
    echo: str = ""
    """What the gate said last (`Wait.nonce`): a Hello that hung in a queue cannot know it."""
    remembers: str = ""
    """Of one that belongs to none yet: the cluster whose orders it obeyed before this start, under this node id."""


class MemberInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A member for those who do not hold the log: committed facts, and where it was last heard."""

    node_id: str
    name: str
    number: int
    public_key: str
    voter: bool
    priority: int = 100
    eligible: bool = True
    leaving: bool = False
    """It was asked to go."""
    endpoint: Endpoint | None = None
    """None where the sender has not heard it in this session."""


class Welcome(Struct, frozen=True, tag="welcome", kw_only=True):
    """A gate's answer to a member: the cluster as it stands."""

    profile: Profile
    cluster: str
    generation: int
    roster_index: int
    members: tuple[MemberInfo, ...]
    leader: str
    last_index: int = 0
    """Of the answerer's log, with its term: an operator's `recover` looks for the newest one. 0 = it holds none."""
    last_term: int = 0


class Wait(Struct, frozen=True, tag="wait"):
    """A gate's answer: try again, and do not form a cluster of your own while one is there."""

    profile: Profile
    cluster: str
    """"" = the answering agent is looking for a cluster too."""
    why: str
    virgin: bool = True
    gates: tuple[Endpoint, ...] = ()
    """Who can do more for it: the answering agent has no say in who becomes a member."""
    led: bool = False
    """Its cluster has a leader."""
    nonce: str = ""
    """Knock again with this in `Hello.echo`: it shows that you speak now."""
    remembers: str = ""
    """Of one that looks for a cluster: as in Hello."""


class Refused(Struct, frozen=True, tag="refused"):
    """A gate's answer: no, for this reason; a person has to act."""

    why: str
    is_copy: bool = False
    """Another start of the same data directory lives: the agent that hears this must end."""
    cluster: str = ""
    """Set where the answerer's cluster was recovered without the one who knocked, in this generation."""
    generation: int = 0


class Admit(Struct, frozen=True, tag="admit"):
    """A member's gate to the leader: this one knocked; commit it as a member."""

    profile: Profile
    token: Token | None = None
    roster_index: int = -1
    """The last roster change that the gate knew of; older than a removal, it lets nobody in. -1 = an older build."""


class RosterNews(Struct, frozen=True, tag="roster_news", kw_only=True):
    """A voter to an agent that does not hold the log: the members as of an index."""

    fence: Fence
    cluster: str
    roster_index: int
    members: tuple[MemberInfo, ...]


# the log and its leader (PROTOCOL 4, 5; Raft figure 2)


class PreVote(Struct, frozen=True, tag="pre_vote", kw_only=True):
    """Would you vote for me in this term? Grants nothing, changes no term."""

    term: int
    last_index: int
    last_term: int


class PreVoteReply(Struct, frozen=True, tag="pre_vote_reply", kw_only=True):
    """`standing`: I am higher, my log is as complete and I stand myself: wait one timeout (bully's ANSWER)."""

    term: int
    """The term that was asked about; where not granted, the answerer's own."""
    granted: bool
    standing: bool = False


class Vote(Struct, frozen=True, tag="vote", kw_only=True):
    """Vote for me in this term. `hand_over`: the leader itself asked me to stand."""

    term: int
    last_index: int
    last_term: int
    hand_over: bool = False


class VoteReply(Struct, frozen=True, tag="vote_reply", kw_only=True):
    """Sent once the vote is durable. Carries the clocks a new leader goes on from (PROTOCOL 7)."""

    term: int
    granted: bool
    mark_cluster_us: int = 0
    wall_us: int = 0


class LogHead(Struct, frozen=True, array_like=True):
    """An entry without its body; the bodies are the message's payload."""

    index: int
    term: int
    crc: int


class Append(Struct, frozen=True, tag="append", kw_only=True):
    """The leader's entries after (prev_index, prev_term); without entries: I lead still."""

    term: int
    prev_index: int
    prev_term: int
    commit_index: int
    sent_boot_us: int
    """The leader's own clock; comes back in Appended, for the lease."""
    cluster_us: int
    heads: tuple[LogHead, ...] = ()
    payload: tuple[bytes, ...] = ()


class Appended(Struct, frozen=True, tag="appended", kw_only=True):
    """`ok`: durable here up to `match_index`. Not ok: `match_index` is where to try next."""

    term: int
    ok: bool
    match_index: int
    sent_boot_us: int
    last_index: int = -1
    """Where the sender's log ends; it shows nothing durable and proves nothing but a loss. -1 = not told."""


class Forgotten(Struct, frozen=True, tag="forgotten", kw_only=True):
    """The leader of a term to a follower that has acknowledged `match_index` in it and whose log ends before it: it
    has lost what was counted on, and may have lost a vote, too (PROTOCOL 2, Amnesia)."""

    term: int
    match_index: int


class TakeOver(Struct, frozen=True, tag="take_over"):
    """The leader to a caught-up voter: stand now; I have stopped."""

    term: int


class SnapshotChunk(Struct, frozen=True, tag="snapshot_chunk", kw_only=True):
    """A piece of the catalog for one that is too far behind the log; `number` from 0, the last one says so."""

    term: int
    index: int
    number: int
    table: str
    sha256: str
    last: bool
    payload: tuple[bytes, ...] = ()


class SnapshotWanted(Struct, frozen=True, tag="snapshot_wanted"):
    """Receiver to sender: the next chunk I lack."""

    index: int
    number: int


# asking another agent (PROTOCOL 9)


class Call(Struct, frozen=True, tag="call", kw_only=True):
    """An HTTP request that another agent must answer. Its token is checked again there: no agent's word counts."""

    call_id: str
    """Rises from call to call and from start to start of the agent that asks: what is forgotten is not done again."""
    method: str
    path: str
    headers: dict[str, str]
    session: int = 0
    """Of the agent that is asked, as its asker knows it: no other session answers. 0 = not known; such a write is sent
    only once."""
    payload: tuple[bytes, ...] = ()


class Reply(Struct, frozen=True, tag="reply", kw_only=True):
    """A piece of the answer, numbered from 0. `applied_index`: the asker shows a write only once it has applied that
    itself."""

    call_id: str
    number: int
    last: bool
    status: int = 0
    """Of HTTP, in the first piece; 0 there: what became of the call is not known (any more)."""
    headers: dict[str, str] = {}
    applied_index: int = 0
    payload: tuple[bytes, ...] = ()


GateMessage = Hello | Welcome | Wait | Refused

MeshMessage = (
    Run
    | RunAck
    | StartedReport
    | Result
    | ResultAck
    | Stop
    | StopAck
    | Heartbeat
    | Admit
    | RosterNews
    | PreVote
    | PreVoteReply
    | Vote
    | VoteReply
    | Append
    | Appended
    | TakeOver
    | Forgotten
    | SnapshotChunk
    | SnapshotWanted
    | Call
    | Reply
)

Message = MeshMessage | GateMessage
