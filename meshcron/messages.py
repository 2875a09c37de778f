"""One Struct a message between agents, and one tagged union of them all.

An agent talks to itself with the same messages: the single-agent path and the mesh path are one path. Messages that
concern executions carry many of them, so that ten thousand ticks in one second are a handful of messages.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from meshcron.model import Ending, Spec


class Fence(Struct, frozen=True, order=True, array_like=True):
    """(generation, term): an order with a lower fence than the highest an agent has stored is stale."""

    generation: int = 0
    term: int = 0


class Order(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Run one execution. `digest` names the Spec it needs."""

    execution_id: str
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


class Run(Struct, frozen=True, tag="run"):
    """Leader to agents: these executions are yours. Repeated until acknowledged."""

    fence: Fence
    cluster_us: int
    orders: tuple[Order, ...]
    specs: tuple[Spec, ...] = ()


AckState = Literal["accepted", "known", "stale", "late", "refused", "need_spec", "not_now"]


class Ack(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An agent's answer to one order (PROTOCOL 6, RunAck)."""

    execution_id: str
    state: AckState
    known: str = ""
    """With state `known`: accepted, waiting, starting, running, ended, late, refused, stopped."""
    why: str = ""
    mark_cluster_us: int = 0
    """With state `not_now`: the agent's high-water mark of cluster time."""


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


Message = Run | RunAck | StartedReport | Result | ResultAck | Stop | StopAck
