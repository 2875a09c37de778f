"""What callers write: JSON objects become a Job, the parameters of a run, a token. Syntax only; no clock, no cluster.

Both dialects are read at once (API.md, point 9). Where a body says one thing under two names, as a client does that
changed one field of an answer and sent all of it back, the name whose value differs from the stored job counts.
Unknown keys, counters and whatever else the server computes are ignored.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from msgspec import Struct

from meshcron.api import fields, views
from meshcron.api.bodies import JsonObject, merge_patch
from meshcron.api.fields import Check
from meshcron.errors import InvalidRequest, TooLarge
from meshcron.model import JOB_BYTES_MAX, ROLES, History, Job, Limits, Role

RETRIES_MAX = 1000
"""More attempts than this are a schedule, not a retry."""

BACKOFF_MAX = 100.0
"""Factor from one retry delay to the next."""

MEMORY_BYTES_MAX = 2**50
"""1 PiB: only there so that the number fits every place it goes to."""

PROCESSES_MAX = 2**22
"""Linux's own limit on process ids."""

NICE_MAX = 19
"""Linux's own. Nothing below 0: no job gets a better priority than its agent (runtime/launch.py)."""

HISTORY_RUNS_MAX = 100_000
HISTORY_DAYS_MAX = 3660
"""How much of a job's past may be asked for: ten years."""

RUN_ENV_BYTES_MAX = 16 * 1024
"""Names and values that a manual run adds: they travel with every order of the run."""

WITHOUT_SCHEDULE = "@manually"
"""The schedule of a job that is given none because it runs after its parents."""

EXECUTORS = ("shell",)
"""Executors this version can run."""

Changes = dict[str, Any]
"""Field of Job -> its new value."""


def _limits(value: object, path: str) -> Limits:
    found = fields.members(value, path)
    return Limits(
        memory_bytes=fields.whole(0, MEMORY_BYTES_MAX)(found.get("memory", 0), f"{path}.memory"),
        processes=fields.whole(0, PROCESSES_MAX)(found.get("processes", 0), f"{path}.processes"),
    )


def _history(value: object, path: str) -> History:
    found = fields.members(value, path)
    kept = History()
    return History(
        runs=fields.whole(1, HISTORY_RUNS_MAX)(found.get("runs", kept.runs), f"{path}.runs"),
        days=fields.whole(1, HISTORY_DAYS_MAX)(found.get("days", kept.days), f"{path}.days"),
    )


def _exit_codes(value: object, path: str) -> tuple[int, ...]:
    codes = fields.items(value, path, fields.whole(0, 255))
    if not codes:
        raise InvalidRequest(path, "is empty: no run could ever succeed", "[0]")
    return codes


def _parents(value: object, path: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(fields.items(value, path, fields.name)))


def _parent(value: object, path: str) -> tuple[str, ...]:
    return () if value == "" else (fields.name(value, path),)


def _payload_base64(value: object, path: str) -> str:
    encoded = fields.text(value, path)
    try:
        return fields.text(base64.b64decode(encoded, validate=True).decode(), path)
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidRequest(path, "is not text in base64", 'send plain text as "payload" of the job') from None


def _env_line(value: object, path: str) -> dict[str, str]:
    if isinstance(value, dict):
        return fields.env(value, path)
    pairs = [pair.partition("=") for pair in fields.text(value, path).split(",") if pair]
    if any(not equals for _, equals, _ in pairs):
        raise InvalidRequest(path, "holds a part without =", '"A=1,B=2", or "env" of the job as an object')
    return fields.env({key: item for key, _, item in pairs}, path)


_JOB: dict[str, tuple[str, Check[Any]]] = {
    "name": ("name", fields.name),
    "schedule": ("schedule", fields.line()),
    "command": ("command", fields.text),
    "displayname": ("displayname", fields.line()),
    "timezone": ("timezone", fields.timezone),
    "owner": ("owner", fields.line()),
    "owner_email": ("owner_email", fields.email),
    "run_as_user": ("run_as_user", fields.account),
    "disabled": ("disabled", fields.flag),
    "tags": ("tags", fields.tags),
    "metadata": ("metadata", fields.texts),
    "processors": ("processors", fields.configs),
    "executor": ("executor", fields.choice(*EXECUTORS)),
    "concurrency": ("concurrency", fields.choice("allow", "forbid", "queue", "replace")),
    "on_lost": ("on_lost", fields.choice("lost", "rerun")),
    "retries": ("retries", fields.whole(0, RETRIES_MAX)),
    "retry_delay": ("retry_delay_us", fields.duration),
    "retry_backoff": ("retry_backoff", fields.number(1, BACKOFF_MAX)),
    "retry_on": ("retry_on", fields.choice("same", "other")),
    "timeout": ("timeout_us", fields.duration),
    "env": ("env", fields.env),
    "cwd": ("cwd", fields.line(4096)),
    "shell": ("shell", fields.flag),
    "payload": ("payload", fields.text),
    "success_exit_codes": ("success_exit_codes", _exit_codes),
    "nice": ("nice", fields.whole(0, NICE_MAX)),
    "limits": ("limits", _limits),
    "history": ("history", _history),
    "catch_up": ("catch_up", fields.choice("skip", "latest", "all")),
    "start_deadline": ("start_deadline_us", fields.deadline),
    "parent_jobs": ("parent_jobs", _parents),
    "when": ("when", fields.choice("success", "failure", "always")),
    "starts_at": ("starts_at_wall_us", fields.instant),
    "expires_at": ("expires_at_wall_us", fields.instant),
    "ephemeral": ("ephemeral", fields.flag),
}
"""Key of a job in JSON -> field of Job, and the check that reads it."""

_CONFIG: dict[str, tuple[str, Check[Any]]] = {
    "command": ("command", fields.text),
    "shell": ("shell", fields.flag_word),
    "env": ("env", _env_line),
    "cwd": ("cwd", fields.line(4096)),
    "su": ("run_as_user", fields.account),
    "timeout": ("timeout_us", fields.duration),
    "payload": ("payload", _payload_base64),
}
"""The same for the members of `executor_config` that have a field of their own."""

_MAPS = ("tags", "metadata", "processors", "env", "limits", "history", "executor_config")
"""Keys whose members RFC 7396 merges one by one."""

_BLANK = Job(name="", schedule="")


def job_form(body: JsonObject, stored: Job | None = None, name: str | None = None) -> Job:
    """The job that a body describes, anew: what it does not mention is at its default.

    `stored` is the job it replaces, `name` the name in the path. Raises InvalidRequest, TooLarge.
    """
    given = {key: value for key, value in body.items() if value is not None}
    changes = _changes(given, stored)
    changes.setdefault("name", name)
    return _whole_job(msgspec.structs.replace(_BLANK, **changes), name)


def job_patch(body: JsonObject, stored: Job) -> Job:
    """`stored` with the changes of a body (RFC 7396): null = back to the default, what is not mentioned stays."""
    shown = views.definition(stored)
    given: JsonObject = {}
    for key, value in body.items():
        if value is not None:
            given[key] = merge_patch(shown[key], value) if key in _MAPS and isinstance(value, dict) else value
    changes = _changes(given, stored) | _resets(body)
    return _whole_job(msgspec.structs.replace(stored, **changes), stored.name)


def run_form(body: JsonObject) -> dict[str, str] | None:
    """What a manual run adds to the environment of its job, None for nothing."""
    given = body.get("env")
    if given is None:
        return None
    env = fields.env(given, "env")
    if sum(len(key) + len(value.encode()) for key, value in env.items()) > RUN_ENV_BYTES_MAX:
        raise TooLarge("env", f"is larger than {RUN_ENV_BYTES_MAX} bytes", "pass a file name instead")
    return env or None


class TokenForm(Struct, frozen=True):
    """A token as somebody asked for it. `expires_in_us` counts from now; 0 = never."""

    name: str
    role: Role
    expires_wall_us: int
    expires_in_us: int


def token_form(body: JsonObject) -> TokenForm:
    """The token that a body asks for: `name`, `role`, and `expires_at` or `expires_in`."""
    given = {key: value for key, value in body.items() if value is not None}
    for key in ("name", "role"):
        if key not in given:
            raise InvalidRequest(key, "is missing", "a name and one of " + ", ".join(ROLES))
    if "expires_at" in given and "expires_in" in given:
        raise InvalidRequest("expires_in", "stands beside expires_at", "send one of the two")
    expires_in_us = fields.duration(given.get("expires_in", 0), "expires_in")
    if "expires_in" in given and not expires_in_us:
        # 0 is never here: whoever asks for no time at all must not get a key for all time.
        raise InvalidRequest(
            "expires_in", "is no time at all", "such as 90d; leave it out for a token that never expires"
        )
    role: Any = fields.choice(*ROLES)(given["role"], "role")
    return TokenForm(
        name=fields.name(given["name"], "name"),
        role=role,
        expires_wall_us=fields.instant(given.get("expires_at", ""), "expires_at"),
        expires_in_us=expires_in_us,
    )


def _changes(given: JsonObject, stored: Job | None) -> Changes:
    """The fields of a job that a body sets, both dialects read and told apart."""
    changes: Changes = {}
    for key, (field, check) in _JOB.items():
        if key in given:
            changes[field] = _absent_if_empty(check(given[key], key))
    if "parent_job" in given:
        parent = _parent(given["parent_job"], "parent_job")
        # An answer shows the first of several parents as `parent_job`: sent back unchanged it is no wish for just one.
        if parent != changes.get("parent_jobs", ())[:1] or "parent_jobs" not in changes:
            _settle(changes, "parent_jobs", parent, stored, "parent_job", "parent_jobs")
    if "executor_config" in given:
        _read_config(changes, fields.members(given["executor_config"], "executor_config"), stored)
    return changes


def _read_config(changes: Changes, config: JsonObject, stored: Job | None) -> None:
    own: dict[str, str] = {}
    for key, value in config.items():
        path = f"executor_config.{key}"
        if key not in _CONFIG:
            own[key] = fields.scalar(value, path)
            continue
        field, check = _CONFIG[key]
        word = value if isinstance(value, dict) else fields.scalar(value, path)
        found = _absent_if_empty(check(word, path))
        _settle(changes, field, found, stored, path, "run_as_user" if key == "su" else key)
    changes["executor_config"] = own or None


def _absent_if_empty(value: object) -> object:
    """Job has None for an empty map, so that equal jobs are equal however they were written."""
    return None if value == {} else value


def _settle(changes: Changes, field: str, value: object, stored: Job | None, path: str, other: str) -> None:
    """Set a field from its second name, unless the first says something else and is the one that was edited."""
    if field not in changes or changes[field] == value:
        changes[field] = value
        return
    if stored is not None:
        kept = getattr(stored, field)
        before = (kept, kept[:1]) if isinstance(kept, tuple) else (kept,)
        if value in before:
            return
        if changes[field] in before:
            changes[field] = value
            return
    raise InvalidRequest(path, f"says something else than {other}", "send one of the two, or the same in both")


def _resets(body: JsonObject) -> Changes:
    """The fields that a patch puts back to their default by naming them null."""
    config = body.get("executor_config", {})
    keys = [_JOB[key][0] for key, value in body.items() if value is None and key in _JOB]
    if isinstance(config, dict):
        keys += [_CONFIG[key][0] for key, value in config.items() if value is None and key in _CONFIG]
    if config is None:
        keys.append("executor_config")
    if "parent_job" in body and body["parent_job"] is None:
        keys.append("parent_jobs")
    return {field: getattr(_BLANK, field) for field in keys}


def _whole_job(job: Job, name: str | None) -> Job:
    """What can only be said of all fields together."""
    if not job.name:
        raise InvalidRequest("name", "is missing", 'e.g. "name": "backup"')
    if name is not None and job.name != name:
        raise InvalidRequest("name", f"is not the name in the path, {name!r}", "a job cannot be renamed")
    if not job.schedule.strip():
        if not job.parent_jobs:
            raise InvalidRequest("schedule", "is missing", 'e.g. "0 30 * * * *", "@every 10s", or a parent_job')
        job = msgspec.structs.replace(job, schedule=WITHOUT_SCHEDULE)
    if not job.command.strip():
        raise InvalidRequest("command", "is missing", 'e.g. "command": "/usr/bin/date"')
    if job.name in job.parent_jobs:
        raise InvalidRequest("parent_jobs", "names the job itself", "a job cannot wait for itself")
    if 0 < job.expires_at_wall_us <= job.starts_at_wall_us:
        raise InvalidRequest("expires_at", "is not after starts_at", "or the job could never run")
    _check_size(job)
    return job


def _check_size(job: Job) -> None:
    size = len(msgspec.json.encode(job))
    if size <= JOB_BYTES_MAX:
        return
    sizes = {key: len(views.encode(value)) for key, value in views.definition(job).items() if key != "executor_config"}
    largest = max(sizes, key=lambda key: sizes[key])
    raise TooLarge(largest, f"makes the job {size} bytes", f"a whole job takes at most {JOB_BYTES_MAX}")
