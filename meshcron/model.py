"""What the cluster talks about: jobs, executions, members, tokens. Frozen values, no behaviour beyond deriving a name.

Times are integers in microseconds: `_wall_us` is wall time since the Unix epoch, `_cluster_us` is cluster time (never
steps, never falls; PROTOCOL 7), a plain `_us` is a duration or, where a docstring says so, an instant.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Literal

from msgspec import Struct

SECOND_US = 1_000_000
"""Microseconds in a second."""

OUTPUT_TAIL_BYTES = 4096
"""How much of an execution's output its record carries; the rest stays on the agent that ran it (PROTOCOL 6)."""

JOB_BYTES_MAX = 64 * 1024
"""A job definition as JSON; a larger one is refused with 413 (PROTOCOL 5)."""


class Instant(Struct, frozen=True):
    """One reading of both clocks of a machine.

    `boot_us` counts suspension and never falls (CLOCK_BOOTTIME): timeouts and cluster time stand on it. `wall_us` is
    the machine's wall clock and may step.
    """

    boot_us: int
    wall_us: int


class Status(StrEnum):
    """The states of an execution. The first two are open, the others final (promise P2)."""

    ARMED = "armed"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    TIMEOUT = "timeout"
    KILLED = "killed"
    LOST = "lost"
    SKIPPED = "skipped"

    @property
    def final(self) -> bool:
        """True when nothing more happens to an execution in this state, except that `lost` may turn into the truth."""
        return self not in OPEN_STATUSES


OPEN_STATUSES = frozenset({Status.ARMED, Status.RUNNING})

_ENDED = {
    Status.SUCCESS: "its exit code is one of success",
    Status.FAILED: "another exit code, a signal, or it could not start",
    Status.TIMEOUT: "it ran for too long",
    Status.KILLED: "somebody asked",
}
_UNSTARTED = {
    Status.SKIPPED: "stopped, or late",
    Status.LOST: "its agent is silent, gone, or does not know, or the cluster was recovered",
}

STATUS_CHANGES: dict[tuple[Status | None, Status], str] = {
    (None, Status.ARMED): "Intents, or a call to run",
    (None, Status.SKIPPED): "it runs nowhere, for a reason",
    (None, Status.LOST): "nobody can know whether it ran",
    (Status.ARMED, Status.RUNNING): "Started",
    **{(old, new): why for old in (Status.ARMED, Status.RUNNING) for new, why in (_ENDED | _UNSTARTED).items()},
    **{(Status.LOST, new): f"after all {why}" for new, why in _ENDED.items()},
    (Status.LOST, Status.SKIPPED): "after all it was never started",
}
"""Every change of an execution's status in the catalog, and what it means; None = no record. docs/PROTOCOL.md shows it.
What is not here is not applied. Records go with their history."""

Trigger = Literal["schedule", "manual", "parent", "retry", "catch_up", "reboot"]
Concurrency = Literal["allow", "forbid", "queue", "replace"]
CatchUp = Literal["skip", "latest", "all"]
OnLost = Literal["lost", "rerun"]
When = Literal["success", "failure", "always"]
Role = Literal["local", "viewer", "operator", "editor", "admin"]
RANKS: tuple[Role, ...] = ("local", "viewer", "operator", "editor", "admin")
"""Weakest first; a role may do all that the ones before it may. `local` is the own token of an agent that only runs
jobs: it sees the agents and who leads, no job."""
ROLES = RANKS[1:]
"""What a person's token may be."""


class Limits(Struct, frozen=True, omit_defaults=True):
    """Resource limits of a job's processes; 0 = the agent's own limit."""

    memory_bytes: int = 0
    processes: int = 0


class History(Struct, frozen=True, omit_defaults=True):
    """How much of a job's past is kept: the newer `runs` records, none older than `days` days."""

    runs: int = 100
    days: int = 30


class Job(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A definition, as a person wrote it. It knows nothing of its runs."""

    name: str
    schedule: str
    command: str = ""
    displayname: str = ""
    timezone: str = ""
    owner: str = ""
    owner_email: str = ""
    run_as_user: str = ""
    disabled: bool = False
    tags: dict[str, str] | None = None
    metadata: dict[str, str] | None = None
    processors: dict[str, dict[str, str]] | None = None
    executor: str = "shell"
    executor_config: dict[str, str] | None = None
    """Only keys that no field of ours holds (`command`, `env`, `cwd`, `timeout`, `shell`, `payload`, `su` do)."""
    concurrency: Concurrency = "allow"
    on_lost: OnLost = "lost"
    retries: int = 0
    retry_delay_us: int = 0
    retry_backoff: float = 1.0
    retry_on: Literal["same", "other"] = "same"
    timeout_us: int = 0
    """0 = none."""
    env: dict[str, str] | None = None
    cwd: str = ""
    shell: bool = True
    """False: the command is split as a shell splits words and run without one."""
    payload: str = ""
    """Written to the process's standard input."""
    success_exit_codes: tuple[int, ...] = (0,)
    nice: int = 0
    limits: Limits = Limits()
    catch_up: CatchUp = "latest"
    start_deadline_us: int = 3600 * SECOND_US
    parent_jobs: tuple[str, ...] = ()
    when: When = "success"
    starts_at_wall_us: int = 0
    expires_at_wall_us: int = 0
    ephemeral: bool = False
    history: History = History()


class Spec(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What an agent needs to run one revision of a job: the part of the definition that reaches a process."""

    uid: int
    revision: int
    job: str
    command: str
    shell: bool = True
    env: dict[str, str] | None = None
    cwd: str = ""
    run_as_user: str = ""
    payload: str = ""
    success_exit_codes: tuple[int, ...] = (0,)
    nice: int = 0
    limits: Limits = Limits()


class Launch(Struct, frozen=True, kw_only=True):
    """Everything `runtime/process.py` needs to run one execution; made by the runner from a Spec and an order."""

    execution_id: str
    command: str
    shell: bool
    env: dict[str, str]
    """The whole job-visible environment besides the few variables every process gets (PATH, HOME, ...)."""
    cwd: str
    run_as_user: str
    payload: str
    nice: int
    limits: Limits


class Ending(Struct, frozen=True, kw_only=True):
    """How a process ended and what it left. Exactly one of `exit_code` and `signal` is set."""

    exit_code: int | None
    signal: int | None
    finished_wall_us: int
    """When it ended, by this machine's wall clock (for a process that ended while the agent was down: when its status
    was written)."""
    output_tail: str
    """The last OUTPUT_TAIL_BYTES of its output, cut on a character boundary; undecodable bytes become U+FFFD."""
    output_bytes: int
    """How much it wrote in all, before any cap."""
    output_truncated: bool
    """True when the file kept by the agent holds less than the process wrote."""


class Member(Struct, frozen=True, kw_only=True):
    """An agent as the cluster knows it (committed facts only; endpoints, tags and load are soft state)."""

    node_id: str
    name: str
    number: int
    """The roster number: small, never reused; intents name their targets by it."""
    public_key: str = ""
    """CURVE, Z85: what every connection of this member is checked against."""
    priority: int = 100
    eligible: bool = True
    """False: `voter = never`, it neither votes nor holds the log."""
    voter: bool = True
    leaving: bool = False
    """It was asked to go: it gets no new runs, and its seat to another one."""
    started: int = 0
    """The number of its last start of which `@reboot` jobs were told."""


class Token(Struct, frozen=True, kw_only=True):
    """A key to the API. Only its SHA-256 is stored."""

    id: str
    name: str
    role: Role
    sha256: str
    created_wall_us: int
    expires_wall_us: int = 0
    """0 = never."""
    node_id: str = ""
    """Set on an agent's own local token: valid only on that agent."""


class Execution(Struct, frozen=True, kw_only=True):
    """One attempt of a run on one agent; or, with `count` > 1 and no agent, a range of ticks skipped for one reason."""

    id: str
    """The cluster's own id: hash(cluster, run, target node id, attempt). Never shown; `public_id` is."""
    uid: int
    run_id: str
    index: int
    """The log index of the entry that made it: orders executions."""
    revision: int
    attempt: int
    trigger: Trigger
    scheduled_wall_us: int
    due_cluster_us: int
    start_by_cluster_us: int
    node_id: str = ""
    agent: str = ""
    status: Status = Status.ARMED
    reason: str = ""
    started_wall_us: int = 0
    finished_wall_us: int = 0
    exit_code: int | None = None
    signal: int | None = None
    output_tail: str = ""
    output_bytes: int = 0
    output_truncated: bool = False
    until_wall_us: int = 0
    """Of a range: its last tick."""
    count: int = 1
    """Of a range: how many ticks, 0 where counting was not cheap."""
    env: dict[str, str] | None = None
    """What a manual run adds to the job's environment."""
    stop: str = ""
    """"leave" or "kill" once somebody asked to stop it: the leader repeats that order until the agent answers."""
    run_failed: bool = False
    """An execution of the same run on another agent has failed for good (decides what children the run has)."""

    @property
    def public_id(self) -> str:
        """The id people and clients see: looks like Dkron's, stable from the intent on, unlike for every attempt."""
        return f"{self.scheduled_wall_us // SECOND_US}{self.index % 10**9:09d}-{self.agent or 'none'}"


def execution_id(cluster: str, run_id: str, node_id: str, attempt: int) -> str:
    """The id under which at most one process ever starts (P1)."""
    return hashlib.sha256(f"{cluster}|{run_id}|{node_id}|{attempt}".encode()).hexdigest()[:32]


def run_group(run_id: str) -> int:
    """The run as a 63-bit integer, for clients that expect Dkron's `group`."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], "big") >> 1
