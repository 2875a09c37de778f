"""What the core asks of the world: imperative, frozen, small. Events (events.py) are how the world answers.

An effect with `after` = n leaves only when Persist number n (and all before it) is durable; `after` = 0 may leave at
once: it shows nothing that is not durable already. The driver keeps that order; the simulator crashes in between.
"""

from __future__ import annotations

from msgspec import Struct

from meshcron.messages import Hello, MemberInfo, Message
from meshcron.model import Launch
from meshcron.rows import Row


class Persist(Struct, frozen=True):
    """Write these rows in this order, durably, all or nothing. Answered by the event Persisted(n).

    Groups may be committed together, in the order of their numbers, never out of it.
    """

    n: int
    rows: tuple[Row, ...]
    applied_index: int = 0
    """The last entry of the log that they make the catalog show; 0 = none."""


class Send(Struct, frozen=True):
    """Hand a message to one agent; to the agent itself it comes back as MessageReceived."""

    to: str
    message: Message
    after: int = 0


class Publish(Struct, frozen=True):
    """Hand a message to every agent that listens to a topic, this one excepted. It may reach none of them."""

    topic: str
    message: Message


class SendSnapshot(Struct, frozen=True):
    """Bring the catalog as it stands on our disk to an agent that lacks too much of the log. Ends with the event
    SnapshotSent; there it arrives as SnapshotArrived."""

    to: str
    term: int


class InstallSnapshot(Struct, frozen=True):
    """Put the snapshot that just arrived in the place of catalog and log, all or nothing. Counts as Persist `n` and is
    answered by Persisted(n)."""

    n: int
    index: int
    term: int
    crc: int


class Knock(Struct, frozen=True):
    """Say Hello at a gate. An answer comes back as KnockAnswered."""

    host: str
    port: int
    hello: Hello


class Connect(Struct, frozen=True):
    """From now on these are the members: let them in, and dial those that are to be heard (`dial`)."""

    cluster: str
    generation: int
    members: tuple[MemberInfo, ...]
    dial: frozenset[str]


class StartOver(Struct, frozen=True):
    """This agent's cluster is dissolved or goes on without it, or its disk has forgotten what it promised: set its
    database aside and begin as a newcomer."""

    why: str
    after: int = 0


class Answer(Struct, frozen=True):
    """The outcome of a Proposed call: a value, or one of our errors."""

    call_id: str
    outcome: object
    after: int = 0


class StartProcess(Struct, frozen=True):
    """Start a process, once. Ends as ProcessStarted then ProcessEnded, or as ProcessNotStarted."""

    launch: Launch
    after: int = 0


class AdoptProcess(Struct, frozen=True):
    """Find out what became of a process that an earlier session of this agent started or was about to start.

    `pid` 0 = the session ended before it could write the pid down: look for the process by its folder. Ends as
    ProcessStarted (it lives: adopted) then ProcessEnded, as ProcessEnded (its status was found), or as ProcessLost.
    """

    execution_id: str
    pid: int
    process_start: int


class SignalProcess(Struct, frozen=True):
    """TERM to the whole group of a process; with `force` KILL, its escaped grandchildren included."""

    execution_id: str
    force: bool


class ForgetProcess(Struct, frozen=True):
    """The outcome is committed: keep the output for `output`, release all else."""

    execution_id: str
    after: int = 0


class Alarm(Struct, frozen=True):
    """Tell the operator. `code` is a stable word, `text` a sentence with the remedy."""

    code: str
    text: str


class Halt(Struct, frozen=True):
    """The agent cannot go on and must exit with this reason."""

    why: str


Effect = (
    Persist
    | Send
    | Publish
    | SendSnapshot
    | InstallSnapshot
    | Knock
    | Connect
    | StartOver
    | Answer
    | StartProcess
    | AdoptProcess
    | SignalProcess
    | ForgetProcess
    | Alarm
    | Halt
)
