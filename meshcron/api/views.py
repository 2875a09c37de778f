"""What the API shows: values of the model as objects that JSON can hold, under the reference's keys and the later."""

from __future__ import annotations

import base64

import ujson

from meshcron.api.moments import NEVER, duration_text, instant_text
from meshcron.commands import JobView
from meshcron.model import OUTPUT_TAIL_BYTES, Execution, Job, Status, Token, run_group
from meshcron.service import AgentView, Explained, MemberView

Shown = dict[str, object]

MEMBER_STATUS = {1: "alive", 2: "leaving", 3: "left", 4: "failed"}
"""serf's numbers in words."""

PROTOCOL = {
    "ProtocolMin": 1,
    "ProtocolMax": 2,
    "ProtocolCur": 2,
    "DelegateMin": 2,
    "DelegateMax": 4,
    "DelegateCur": 4,
}
"""serf's protocol versions as the reference shows them: clients expect integers, nobody speaks serf here."""


def encode(value: object, pretty: bool = False) -> bytes:
    """A value as JSON in ASCII: compact, or indented. Raises OverflowError for what JSON cannot say.

    The one place that sets ujson's options: it escapes slashes and lets NaN through unless told otherwise.
    """
    return ujson.dumps(value, escape_forward_slashes=False, allow_nan=False, indent=2 if pretty else 0).encode("ascii")


def job(view: JobView) -> Shown:
    """A job as GET shows it: its definition and what the cluster knows of it. Reads back as input unchanged."""
    shown = definition(view.job)
    shown["success_count"] = view.success_count
    shown["error_count"] = view.error_count
    shown["last_success"] = instant_text(view.last_success_wall_us)
    shown["last_error"] = instant_text(view.last_error_wall_us)
    shown["status"] = view.last_status
    shown["next"] = NEVER if view.next_wall_us is None else instant_text(view.next_wall_us)
    shown["dependent_jobs"] = view.dependents
    return shown


def definition(job: Job) -> Shown:
    """The part of a job that a person wrote, under both dialects' names (API.md, point 9)."""
    return {
        "id": job.name,
        "name": job.name,
        "displayname": job.displayname,
        "schedule": job.schedule,
        "timezone": job.timezone,
        "command": job.command,
        "owner": job.owner,
        "owner_email": job.owner_email,
        "run_as_user": job.run_as_user,
        "disabled": job.disabled,
        "tags": job.tags or {},
        "metadata": job.metadata or {},
        "retries": job.retries,
        "retry_delay": duration_text(job.retry_delay_us),
        "retry_backoff": job.retry_backoff,
        "retry_on": job.retry_on,
        "parent_job": job.parent_jobs[0] if job.parent_jobs else "",
        "parent_jobs": job.parent_jobs,
        "when": job.when,
        "processors": job.processors or {},
        "concurrency": job.concurrency,
        "on_lost": job.on_lost,
        "catch_up": job.catch_up,
        "start_deadline": duration_text(job.start_deadline_us),
        "executor": job.executor,
        "executor_config": executor_config(job),
        "timeout": duration_text(job.timeout_us),
        "env": job.env or {},
        "cwd": job.cwd,
        "shell": job.shell,
        "payload": job.payload,
        "success_exit_codes": job.success_exit_codes,
        "nice": job.nice,
        "limits": {"memory": job.limits.memory_bytes, "processes": job.limits.processes},
        "history": {"runs": job.history.runs, "days": job.history.days},
        "ephemeral": job.ephemeral,
        "starts_at": instant_text(job.starts_at_wall_us),
        "expires_at": instant_text(job.expires_at_wall_us),
    }


def executor_config(job: Job) -> dict[str, str]:
    """The later dialect's place for what a process needs; texts only, nothing that is at its default but `shell`."""
    config = {"command": job.command, "shell": "true" if job.shell else "false"}
    if job.env and not any("," in key + value for key, value in job.env.items()):
        config["env"] = ",".join(f"{key}={value}" for key, value in job.env.items())
    if job.cwd:
        config["cwd"] = job.cwd
    if job.run_as_user:
        config["su"] = job.run_as_user
    if job.timeout_us:
        config["timeout"] = duration_text(job.timeout_us)
    if job.payload:
        config["payload"] = base64.b64encode(job.payload.encode()).decode()
    config.update(job.executor_config or {})
    return config


def execution_status(found: Execution) -> str:
    """Its state in a word. An armed one with a reason waits: its time has come, and it cannot start yet."""
    return "waiting" if found.status is Status.ARMED and found.reason else str(found.status)


def execution(found: Execution, job_name: str, output: str | None = None, output_limit: int | None = None) -> Shown:
    """An execution: the reference's six keys, Dkron's later ones, and what only meshcron knows (API.md, point 11).

    `output` is the text to show where more than the recorded tail is at hand. `output_limit` keeps its last bytes, on
    a character boundary.
    """
    whole = found.output_bytes <= OUTPUT_TAIL_BYTES if output is None else True
    text = found.output_tail if output is None else output
    shown_output = text if output_limit is None else last_bytes(text, output_limit)
    started, finished = found.started_wall_us, found.finished_wall_us
    return {
        "id": found.public_id,
        "job_name": job_name,
        "started_at": instant_text(started),
        "finished_at": instant_text(finished),
        "success": found.status is Status.SUCCESS,
        "output": shown_output,
        "output_truncated": found.output_truncated or not whole or len(shown_output) < len(text),
        "node_name": found.agent,
        "group": run_group(found.run_id),
        "run_id": found.run_id,
        "attempt": found.attempt,
        "status": execution_status(found),
        "reason": found.reason,
        "trigger": found.trigger,
        "exit_code": found.exit_code,
        "signal": found.signal,
        "scheduled_at": instant_text(found.scheduled_wall_us),
        "scheduled_until": instant_text(found.until_wall_us),
        "count": found.count,
        "lateness_ms": (started - found.scheduled_wall_us) // 1000 if started else 0,
        "duration_ms": (finished - started) // 1000 if started and finished else 0,
    }


def last_bytes(text: str, most: int) -> str:
    """The end of a text, at most so many bytes of UTF-8, cut between characters."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= most:
        return text
    return encoded[len(encoded) - most :].decode("utf-8", "ignore")


def member(found: MemberView) -> Shown:
    """A member under the names that serf gives its fields, and ours (API.md, point 12)."""
    return {
        "Name": found.name,
        "Addr": found.address,
        "Port": found.port,
        "Tags": found.tags,
        "Status": found.status,
        **PROTOCOL,
        "id": found.node_id,
        "statusText": MEMBER_STATUS.get(found.status, "unknown"),
        "voter": found.voter,
        "leader": found.leader,
        "version": found.version,
        "clock_skew_ms": found.clock_skew_ms,
        "running": found.running,
        "facts": found.facts,
    }


def status(agent: AgentView, members: list[MemberView]) -> Shown:
    """The status page: `serf` in strings as Dkron's clients expect, `mesh` typed (API.md, point 13)."""
    counts = {word: sum(m.status == number for m in members) for number, word in MEMBER_STATUS.items()}
    mesh: Shown = {
        "cluster": agent.cluster,
        "fingerprint": agent.fingerprint,
        "leader": agent.leader,
        "term": agent.term,
        "generation": agent.generation,
        "protocol": agent.protocol,
        "members": len(members),
        "voters": sum(m.voter for m in members),
        **counts,
        "commit_index": agent.commit_index,
        "applied_index": agent.applied_index,
        "jobs": agent.jobs,
        "open_executions": agent.open_executions,
        "paused": agent.paused,
        "encrypted": agent.encrypted,
    }
    return {
        "agent": {"name": agent.name, "version": agent.version},
        "serf": {key: _word(value) for key, value in mesh.items()},
        "tags": agent.tags,
        "mesh": mesh | {"started_at": instant_text(agent.started_wall_us), "warnings": agent.warnings},
    }


def token(found: Token) -> Shown:
    """A token without its hash."""
    return {
        "id": found.id,
        "name": found.name,
        "role": found.role,
        "created_at": instant_text(found.created_wall_us),
        "expires_at": instant_text(found.expires_wall_us),
        "node_id": found.node_id,
    }


def explained(found: Explained) -> Shown:
    """A schedule in words and its next ticks."""
    return {
        "schedule": found.schedule,
        "timezone": found.timezone,
        "words": found.words,
        "next": [instant_text(wall_us) for wall_us in found.next_wall_us],
    }


def _word(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
