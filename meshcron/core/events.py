"""What happened, as the core hears it: past tense, frozen, small. Effects (effects.py) are what it asks in return."""

from __future__ import annotations

from msgspec import Struct

from meshcron.commands import Command
from meshcron.messages import Endpoint, GateMessage, Hello, Message
from meshcron.model import Ending
from meshcron.rows import Loaded


class Woke(Struct, frozen=True):
    """The instant named by `next_wakeup()` came, or the driver's re-check found it passed."""


class Proposed(Struct, frozen=True):
    """Somebody asks for a change; answered by the effect Answer with the same `call_id` (random, from the shell).
    `key`: the same within ten minutes is the same call, and gets the first answer; "" = a call of its own."""

    call_id: str
    command: Command
    key: str = ""


class Persisted(Struct, frozen=True):
    """Persist number n and all before it are durable."""

    n: int


class MessageReceived(Struct, frozen=True):
    """A message from an agent whose identity the transport has verified."""

    sender: str
    message: Message


class HigherGeneration(Struct, frozen=True):
    """A member that lives in a higher generation than ours has sent something."""

    sender: str
    generation: int


class PeerGone(Struct, frozen=True):
    """Evidence that an agent's process is gone: its host closed our connection and refuses new ones (PROTOCOL 4)."""

    node_id: str


class Found(Struct, frozen=True):
    """A gate may be at this address: by mDNS, by --join, or because it was there before. Trusted for nothing else.
    `node_id` "" = nobody said whose it is. `joined`: the operator named it."""

    host: str
    port: int
    node_id: str = ""
    joined: bool = False


class HelloHeard(Struct, frozen=True):
    """Somebody knocked at our gate; the answer is `Agent.answer`'s."""

    hello: Hello


class KnockAnswered(Struct, frozen=True):
    """What a gate said to us."""

    host: str
    port: int
    message: GateMessage


class SnapshotSent(Struct, frozen=True):
    """A snapshot of ours was taken over, or not."""

    to: str
    arrived: bool


class SnapshotArrived(Struct, frozen=True):
    """A whole snapshot from an agent whose identity the transport has verified: the catalog at an entry."""

    sender: str
    leader_term: int
    index: int
    term: int
    crc: int
    catalog: Loaded
    """Its log, ballot and runner's rows are empty."""


class TagsChanged(Struct, frozen=True):
    """The operator changed this agent's tags."""

    tags: dict[str, str]


class EndpointChanged(Struct, frozen=True):
    """This machine has another address."""

    endpoint: Endpoint


class ProcessStarted(Struct, frozen=True):
    """A process runs. `process_start` is the kernel's start time of it in clock ticks since boot: with the pid it
    names the process for good."""

    execution_id: str
    pid: int
    process_start: int
    started_wall_us: int


class ProcessNotStarted(Struct, frozen=True):
    """It could not be started, for certain: nothing ran. `why` is for the record."""

    execution_id: str
    why: str


class ProcessEnded(Struct, frozen=True):
    """A process ended and how is known."""

    execution_id: str
    ending: Ending
    started_wall_us: int = 0
    """Known only for one found ended after a restart; 0 otherwise."""


class ProcessLost(Struct, frozen=True):
    """No process, no status: what became of it cannot be known."""

    execution_id: str
    why: str


Event = (
    Woke
    | Proposed
    | Persisted
    | MessageReceived
    | HigherGeneration
    | PeerGone
    | Found
    | HelloHeard
    | KnockAnswered
    | SnapshotSent
    | SnapshotArrived
    | TagsChanged
    | EndpointChanged
    | ProcessStarted
    | ProcessNotStarted
    | ProcessEnded
    | ProcessLost
)
