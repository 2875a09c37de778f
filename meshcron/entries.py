"""The records of the replicated log. An entry carries every decision; applying it asks no clock, no die (PROTOCOL 5).

Each applies as nothing where what it assumed no longer holds; then the leader decides again.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from meshcron.messages import ResultItem, StartedItem
from meshcron.model import Job, Member, Token, Trigger

ENTRY_BYTES_MAX = 256 * 1024
"""An entry as JSON, checked before it enters the log (PROTOCOL 5, Sizes)."""

UNCHANGED = -1
"""In `next_wall_us`: this entry does not touch the job's cursor."""


class Once(Struct, frozen=True, array_like=True):
    """What makes a repeated call the same call: with a key that was answered less than ten minutes before, an entry
    applies as nothing and is answered with the first answer (PROTOCOL 6)."""

    key: str
    cluster_us: int


class Noop(Struct, frozen=True, tag="noop"):
    """First entry of a term. Carries cluster time and the wall clock it was read beside."""

    cluster_us: int
    wall_us: int
    wall_offset_us: int


class Formed(Struct, frozen=True, tag="formed"):
    """First entry of a cluster: its id, its first member and that member's and the admin's tokens."""

    cluster: str
    member: Member
    tokens: tuple[Token, ...]


class Recovered(Struct, frozen=True, tag="recovered"):
    """An operator brought the cluster back from what was left of it: this member alone votes, the others that may hold
    the log are members no more. What was open is lost, and so is every tick up to an instant, for it may have run
    (PROTOCOL 2, recover)."""

    member: Member
    until_wall_us: int
    generation: int = 0


class MemberPut(Struct, frozen=True, tag="member_put", omit_defaults=True):
    """A member is added, or its committed facts change. `tokens`: its own local token. `replaces`: the number of a
    silent member whose name it takes, and which leaves with that, at `cluster_us`; -1 = none. A voter only loses its
    name, and leaves once its seat is gone."""

    member: Member
    tokens: tuple[Token, ...] = ()
    replaces: int = -1
    once: Once | None = None
    cluster_us: int = 0


class MemberStarted(Struct, frozen=True, tag="member_started", kw_only=True):
    """A start of a member: each of these `@reboot` jobs is owed a run on it. Applies as nothing where that start, or a
    later one, is known."""

    number: int
    start: int
    cluster_us: int
    wall_us: int
    uids: tuple[int, ...]


class MemberRemove(Struct, frozen=True, tag="member_remove"):
    """A member has left or was removed; what is open on it is lost. It is no voter any more by then."""

    number: int
    cluster_us: int
    call: str = ""


class Roster(Struct, frozen=True, tag="roster"):
    """Who votes from this entry on, by node id (Raft, section 6: it holds as soon as it stands in a log)."""

    voters: tuple[str, ...]


class HandOver(Struct, frozen=True, tag="hand_over"):
    """The leader makes way for a voter of higher priority. In the log, so that every leader knows when the last one
    was."""

    to: str
    cluster_us: int


class Dissolve(Struct, frozen=True, tag="dissolve"):
    """This cluster, still without a job, ends; its members join another one of the same key. Applies as nothing once it
    has a job."""

    into: str


class Config(Struct, frozen=True, tag="config"):
    """From here on the cluster speaks this protocol (vocabulary.py). It only rises."""

    protocol: int


class JobPut(Struct, frozen=True, tag="job_put", kw_only=True, omit_defaults=True):
    """Create or replace a job. Assumes that the job's revision (0 = none) and cursor are as the leader saw them."""

    job: Job
    seen_revision: int
    seen_cursor_wall_us: int
    wall_us: int
    cursor_wall_us: int
    next_wall_us: int
    """First tick of the new definition after the cursor, 0 = never."""
    call: str = ""
    once: Once | None = None


class JobDelete(Struct, frozen=True, tag="job_delete", omit_defaults=True):
    """Delete a job. Assumes its revision."""

    uid: int
    seen_revision: int
    call: str = ""
    once: Once | None = None


class Intent(Struct, frozen=True, array_like=True):
    """Launch one attempt of one run on `targets`. Without targets: one `skipped` record with `reason`."""

    uid: int
    revision: int
    epoch: int
    tick_wall_us: int
    attempt: int
    trigger: Trigger
    due_cluster_us: int
    start_by_cluster_us: int
    targets: tuple[int, ...]
    next_wall_us: int = UNCHANGED
    run_id: str = ""
    """"" = the run of (uid, epoch, tick)."""
    owed_key: str = ""
    """The owed row this intent consumes; it applies as nothing without that row."""
    reason: str = ""
    env: dict[str, str] | None = None
    down: tuple[int, ...] = ()
    """Members that should run it and are known to be down: each gets a `skipped` record."""


class Intents(Struct, frozen=True, tag="intents", omit_defaults=True):
    """Decisions to launch, each with its job's new cursor (an intent whose `next_wall_us` is given moves the cursor to
    its tick)."""

    cluster_us: int
    wall_us: int
    wall_offset_us: int
    items: tuple[Intent, ...]
    call: str = ""
    once: Once | None = None


class Started(Struct, frozen=True, tag="started"):
    """Processes that run. Lazily logged, never waited for."""

    items: tuple[StartedItem, ...]


class Results(Struct, frozen=True, tag="results"):
    """Final words about executions, with the instant from which retries count."""

    cluster_us: int
    items: tuple[ResultItem, ...]
    sender: str = ""
    """The agent whose outbox they came from; it is acknowledged once this is applied."""


class Skip(Struct, frozen=True, tag="skip", kw_only=True, omit_defaults=True):
    """Ticks of one job that do not run, from first to last, for one reason. Moves the cursor to the last."""

    uid: int
    revision: int
    epoch: int
    from_wall_us: int
    to_wall_us: int
    count: int
    reason: str
    next_wall_us: int
    lost: bool = False
    """Whether they ran is unknown: recorded as `lost`, not as `skipped`."""


class Queued(Struct, frozen=True, tag="queued", kw_only=True, omit_defaults=True):
    """A tick that waits until the open run of its job is final (`queue`), or until that was killed (`replace`)."""

    uid: int
    revision: int
    epoch: int
    tick_wall_us: int
    next_wall_us: int
    kind: Literal["queued", "replace"]
    trigger: Trigger = "schedule"
    run_id: str = ""
    owed_key: str = ""
    """The owed row whose place it takes (a child's); it applies as nothing without that row."""
    env: dict[str, str] | None = None
    node_id: str = ""
    """Of the agent whose start it is for (`@reboot`)."""
    call: str = ""
    once: Once | None = None


class Reseat(Struct, frozen=True, tag="reseat"):
    """New cursors after a change of the clock epoch: (uid, revision, epoch, cursor, next)."""

    items: tuple[tuple[int, int, int, int, int], ...]


class StopEntry(Struct, frozen=True, tag="stop", omit_defaults=True):
    """Stop executions: `kill` also ends what runs. What is owed to `run_ids`, and the retries of the executions, become
    `skipped: stopped`."""

    execution_ids: tuple[str, ...]
    run_ids: tuple[str, ...]
    kill: bool
    call: str = ""
    once: Once | None = None


class Pause(Struct, frozen=True, tag="pause", omit_defaults=True):
    """Scheduling stops (or goes on) at a wall instant, on the whole cluster."""

    paused: bool
    wall_us: int
    call: str = ""
    once: Once | None = None


class Prune(Struct, frozen=True, tag="prune", omit_defaults=True):
    """Forget all but the newest final executions of one job, and older ones than an instant; `clear` also zeroes its
    counters."""

    uid: int
    keep_newest: int
    before_wall_us: int = 0
    clear: bool = False
    call: str = ""
    once: Once | None = None


class TokenPut(Struct, frozen=True, tag="token_put", omit_defaults=True):
    token: Token
    call: str = ""
    once: Once | None = None


class TokenRevoke(Struct, frozen=True, tag="token_revoke", omit_defaults=True):
    id: str
    call: str = ""
    once: Once | None = None


class ClockStep(Struct, frozen=True, tag="clock_step"):
    """The wall clocks stepped by more than 30 s. Changes `wall_offset` only; backward opens a new clock epoch."""

    cluster_us: int
    wall_us: int
    from_offset_us: int
    to_offset_us: int


Entry = (
    Noop
    | Formed
    | Recovered
    | MemberPut
    | MemberStarted
    | MemberRemove
    | Roster
    | HandOver
    | Dissolve
    | Config
    | JobPut
    | JobDelete
    | Intents
    | Started
    | Results
    | Skip
    | Queued
    | Reseat
    | StopEntry
    | Pause
    | Prune
    | TokenPut
    | TokenRevoke
    | ClockStep
)

Repeatable = MemberPut | JobPut | JobDelete | Intents | Queued | StopEntry | Pause | Prune | TokenPut | TokenRevoke
"""Entries that answer a call."""

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """An entry as the bytes that are logged, chained and sent."""
    return _encoder.encode(entry)


def decode(body: bytes) -> Entry:
    """The entry of logged bytes. Raises msgspec.ValidationError for a kind this version does not know."""
    return _decoder.decode(body)
