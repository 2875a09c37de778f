"""Specs: the part of a job's definition that reaches a process, told to an agent once, kept by digest (PROTOCOL 6)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from meshcron.core.turn import Turn
from meshcron.messages import Order
from meshcron.model import SECOND_US, Job, Launch, Spec
from meshcron.rows import Drop, SpecRow

SPEC_KEPT_US = 3600 * SECOND_US
"""A Spec that no order needed for so long is dropped; the next order brings it again."""

SPEC_LOOK_US = 60 * SECOND_US


def spec_of(job: Job, uid: int, revision: int) -> Spec:
    """The part of a definition that reaches a process."""
    return Spec(
        uid=uid,
        revision=revision,
        job=job.name,
        command=job.command,
        shell=job.shell,
        env=job.env,
        cwd=job.cwd,
        run_as_user=job.run_as_user,
        payload=job.payload,
        success_exit_codes=job.success_exit_codes,
        nice=job.nice,
        limits=job.limits,
    )


def spec_digest(spec: Spec) -> str:
    """The name under which an agent keeps a Spec."""
    return hashlib.sha256(msgspec.json.encode(spec)).hexdigest()[:32]


def launch_of(order: Order, spec: Spec, agent: str) -> Launch:
    """What is to be started, on the agent of that name."""
    scheduled = datetime.fromtimestamp(order.scheduled_wall_us // SECOND_US, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    env = {
        **(spec.env or {}),
        **(order.env or {}),
        "MESHCRON_JOB": spec.job,
        "MESHCRON_RUN": order.run_id,
        "MESHCRON_EXECUTION": order.execution_id,
        "MESHCRON_SCHEDULED_AT": scheduled,
        "MESHCRON_ATTEMPT": str(order.attempt),
        "MESHCRON_AGENT": agent,
    }
    return Launch(
        execution_id=order.execution_id,
        command=spec.command,
        shell=spec.shell,
        env=env,
        cwd=spec.cwd,
        run_as_user=spec.run_as_user,
        payload=spec.payload,
        nice=spec.nice,
        limits=spec.limits,
    )


class Specs:
    """Those that this agent has been told."""

    def __init__(self, rows: Iterable[SpecRow]) -> None:
        self._specs = {row.digest: msgspec.json.decode(row.spec, type=Spec) for row in rows}
        self._used: dict[str, int] = {}
        """When each was last needed in this session, on our own clock."""
        self._looked_boot_us = 0

    def __contains__(self, digest: str) -> bool:
        return digest in self._specs

    def __getitem__(self, digest: str) -> Spec:
        return self._specs[digest]

    def keep(self, digest: str, spec: Spec, turn: Turn) -> None:
        """One that an order brought along."""
        self._specs[digest] = spec
        turn.write(SpecRow(digest, msgspec.json.encode(spec).decode()))

    def woke(self, needed: Iterable[str], turn: Turn) -> None:
        """Once a minute, drop those that no order has named for long: they hold commands and environments of jobs long
        gone. `needed`: digests of orders that are not over."""
        now_us = turn.now.boot_us
        if now_us < self._looked_boot_us + SPEC_LOOK_US:
            return
        self._looked_boot_us = now_us
        self._used.update(dict.fromkeys(needed, now_us))
        stale = [one for one in self._specs if now_us - self._used.setdefault(one, now_us) > SPEC_KEPT_US]
        for digest in stale:
            del self._specs[digest], self._used[digest]
        if stale:
            turn.write(Drop("specs", tuple(stale)))
