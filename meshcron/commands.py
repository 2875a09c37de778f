"""What may be asked of the cluster: the one vocabulary of writes, spoken by the API and understood by the leader.

A command is a request; the leader turns it into entries (entries.py) which carry every decision already taken.
"""

from __future__ import annotations

from msgspec import Struct

from meshcron.model import Job, Token


class PutJob(Struct, frozen=True, tag="put_job"):
    """Create or replace a job. `if_revision` None = whatever is there; 0 = only if there is none."""

    job: Job
    if_revision: int | None = None
    run_on_create: bool = False
    actor: str = ""


class DeleteJob(Struct, frozen=True, tag="delete_job"):
    """Delete a job and its history; stops what is armed, leaves running processes."""

    name: str
    if_revision: int | None = None
    actor: str = ""


class RunJob(Struct, frozen=True, tag="run_job"):
    """Run a job now, because somebody asked; `env` adds parameters to this run."""

    name: str
    env: dict[str, str] | None = None
    actor: str = ""


class StopRun(Struct, frozen=True, tag="stop_run"):
    """Kill what runs of one run, stop what is armed, give up what is owed. With `execution_id` only that execution, and
    its retry."""

    run_id: str
    execution_id: str = ""
    actor: str = ""


class SetPaused(Struct, frozen=True, tag="set_paused"):
    """Pause or resume scheduling on the whole cluster."""

    paused: bool
    actor: str = ""


class ClearHistory(Struct, frozen=True, tag="clear_history"):
    """Forget the finished executions and the counters of one job."""

    name: str
    actor: str = ""


class PutToken(Struct, frozen=True, tag="put_token"):
    """Add a token (its hash; the secret itself never travels)."""

    token: Token
    actor: str = ""


class RevokeToken(Struct, frozen=True, tag="revoke_token"):
    """Remove a token by its id."""

    id: str
    actor: str = ""


class RemoveMember(Struct, frozen=True, tag="remove_member"):
    """A member leaves for good, or is removed: a voter's seat is given to another one first, and what is open on
    it may end within ten minutes. Answered once that has begun; it is over when the member is gone from the list."""

    name: str
    actor: str = ""


Command = PutJob | DeleteJob | RunJob | StopRun | SetPaused | ClearHistory | PutToken | RevokeToken | RemoveMember


class JobView(Struct, frozen=True):
    """A job with what the cluster knows of it, at one committed index."""

    job: Job
    uid: int
    revision: int
    created_wall_us: int
    next_wall_us: int | None
    success_count: int
    error_count: int
    last_success_wall_us: int
    last_error_wall_us: int
    last_status: str
    """Status of the last finished run, "" when none."""
    open_runs: int
    dependents: tuple[str, ...] = ()


class JobAnswer(Struct, frozen=True):
    """Outcome of PutJob, DeleteJob, RunJob, ClearHistory: the job as it now is (of DeleteJob: as it was)."""

    view: JobView
    created: bool = False
    run_id: str = ""
    holds_from_wall_us: int = 0
    """Of an edit: the first tick it holds for."""
    open_executions: tuple[str, ...] = ()
    """Of a delete, disable or stop: public ids of executions still open when it answered, of very many the first."""


class StopAnswer(Struct, frozen=True):
    """Outcome of StopRun: the executions that were open."""

    run_id: str
    public_ids: tuple[str, ...]
