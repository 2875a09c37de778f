"""What an agent keeps on disk, one Struct a table row. The core says which rows to write; `store/` writes them.

A `Put…`-less row is an upsert by its key; `Drop` removes by key. Rows of the catalog are a function of the log; the
runner's own rows (Seen, Mark) and the ballot are this agent's alone and never part of a snapshot.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from meshcron.model import Execution, Member, Token


class LogRow(Struct, frozen=True, array_like=True):
    """One entry of the replicated log. `body` is the entry as JSON; `crc` chains over all entries before it."""

    index: int
    term: int
    crc: int
    body: bytes


class LogCut(Struct, frozen=True):
    """Forget the log up to and including `index`: the catalog's rows stand for it."""

    index: int


class BallotRow(Struct, frozen=True):
    """Term and vote: durable before anybody learns of them."""

    term: int
    voted_for: str


class MetaRow(Struct, frozen=True, array_like=True):
    """The catalog's own scalars by name: applied index, term and chain CRC, clock, pause."""

    key: str
    value: str


class JobRow(Struct, frozen=True, array_like=True):
    """A job's definition at one revision, as JSON. `hidden` = deleted, kept while executions are open."""

    uid: int
    revision: int
    name: str
    definition: str
    current: bool
    hidden: bool
    created_wall_us: int


class JobStateRow(Struct, frozen=True, array_like=True):
    """What the cluster knows of a job besides its definition. `next_wall_us` 0 = never."""

    uid: int
    epoch: int
    cursor_wall_us: int
    next_wall_us: int
    success_count: int
    error_count: int
    last_success_wall_us: int
    last_error_wall_us: int
    last_status: str
    recorded: int
    """Finished executions kept: when it passes the job's `history.runs`, the leader prunes."""


class ExecutionRow(Struct, frozen=True):
    """An execution, open or final."""

    execution: Execution


class OwedRow(Struct, frozen=True, array_like=True):
    """A run that must still be decided: a retry, a child, a queued or replacing run, that of an agent's start
    (`reboot`). `join`: a child that waits for its other parents. `late`: an execution recorded as lost, whose result
    may still come (`env` = the Execution)."""

    key: str
    uid: int
    kind: Literal["retry", "child", "queued", "replace", "reboot", "join", "late"]
    run_id: str
    attempt: int
    trigger: str
    scheduled_wall_us: int
    due_cluster_us: int
    node_id: str
    env: str
    """JSON of the extra environment, "" when none."""


class CallRow(Struct, frozen=True, array_like=True):
    """What a call was answered with that may be repeated, for ten minutes after its entry. `answer` is JSON."""

    key: str
    entry_index: int
    cluster_us: int
    kind: str
    """Which answer: job, stop, paused, member, token."""
    answer: str


class MemberRow(Struct, frozen=True):
    """A member of the roster."""

    member: Member


class TokenRow(Struct, frozen=True):
    """A token of the API."""

    token: Token


class SeenRow(Struct, frozen=True, array_like=True):
    """What this agent knows of an execution it was ordered to run (PROTOCOL 6, Runner). `order` is the Order as JSON,
    `result` the ResultItem as JSON once there is one (the outbox)."""

    execution_id: str
    state: str
    session: int
    start_by_cluster_us: int
    pid: int
    process_start: int
    started_wall_us: int
    acknowledged: bool
    order: str
    result: str


class SpecRow(Struct, frozen=True, array_like=True):
    """A Spec this agent has accepted an order for, by digest."""

    digest: str
    spec: str


class MarkRow(Struct, frozen=True):
    """The runner's high-water mark of cluster time, and the highest fence it has obeyed."""

    cluster_us: int
    generation: int
    term: int
    cluster: str = ""
    """In which cluster; "" = none that it was told of."""


Table = Literal["jobs", "job_states", "executions", "owed", "members", "tokens", "calls", "seen", "specs", "meta"]


class Drop(Struct, frozen=True):
    """Remove the rows with these keys. Keys: jobs (uid, revision), owed, calls, seen, specs and meta text,
    executions text id."""

    table: Table
    keys: tuple[str | int | tuple[int, int], ...]


class DropHistory(Struct, frozen=True):
    """Remove final executions of one job: all but the `keep_newest` newest by index, and those of them whose last
    instant (`finished_wall_us`, else `scheduled_wall_us`) lies before `before_wall_us`. Open ones are never touched."""

    uid: int
    keep_newest: int
    before_wall_us: int = 0


Row = (
    LogRow
    | LogCut
    | BallotRow
    | MetaRow
    | JobRow
    | JobStateRow
    | ExecutionRow
    | OwedRow
    | CallRow
    | MemberRow
    | TokenRow
    | SeenRow
    | SpecRow
    | MarkRow
    | Drop
    | DropHistory
)


class Loaded(Struct, kw_only=True):
    """Everything an agent reads at start, in key order; made by `store/`, taken by the core."""

    ballot: BallotRow
    log: list[LogRow]
    """Entries after the applied index, and as far before it as they are kept."""
    meta: dict[str, str]
    jobs: list[JobRow]
    job_states: list[JobStateRow]
    open_executions: list[Execution]
    owed: list[OwedRow]
    members: list[Member]
    tokens: list[Token]
    calls: list[CallRow]
    seen: list[SeenRow]
    specs: list[SpecRow]
    mark: MarkRow
