"""What this agent says of itself to the API: its place in the cluster, its members, whether it can take writes."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from msgspec import Struct

from meshcron import __version__
from meshcron.commands import PutJob
from meshcron.core import schedule as grammar
from meshcron.core.agent import Agent
from meshcron.model import SECOND_US, Execution, Instant, Status
from meshcron.service import AgentView, Explained, MemberView

ALIVE = 1
"""Serf's number for a member that is heard."""

WAITING_US = SECOND_US
"""So long after its time an execution may be starting, and the record of that be on its way to the disk."""


class Facts(Struct, frozen=True, kw_only=True):
    """What does not change while the agent runs."""

    node_id: str
    name: str
    fingerprint: str
    address: str
    port: int
    slots: int
    machine: dict[str, str]
    started_wall_us: int
    warnings: tuple[str, ...]


def machine_facts(host: str) -> dict[str, str]:
    """What can be selected of a machine besides the user's tags (API.md, Jobs, `tags`)."""
    return {
        "meshcron.host": host,
        "meshcron.os": platform.system().lower(),
        "meshcron.arch": platform.machine(),
    }


class Standing:
    """Answers from the core's committed state; changes nothing."""

    def __init__(self, agent: Agent, facts: Facts, now: Callable[[], Instant]) -> None:
        self._agent = agent
        self._facts = facts
        self._now = now

    def agent_view(self) -> AgentView:
        """This agent and its place in the cluster."""
        state, facts = self._agent.state, self._facts
        return AgentView(
            name=facts.name,
            version=__version__,
            tags=self._agent.tags,
            cluster=state.cluster,
            fingerprint=facts.fingerprint,
            term=self._agent.ledger.term,
            generation=0,
            leader=facts.name if self._agent.leading else "",
            commit_index=self._agent.ledger.commit_index,
            applied_index=state.applied[0],
            jobs=len(state.jobs),
            open_executions=len(state.open),
            paused=state.paused,
            encrypted=True,
            started_wall_us=facts.started_wall_us,
            warnings=facts.warnings,
        )

    def member_views(self) -> Sequence[MemberView]:
        """Every member, by name: the one agent."""
        facts = self._facts
        return [
            MemberView(
                node_id=member.node_id,
                name=member.name,
                address=facts.address,
                port=facts.port,
                tags=self._agent.tags,
                facts=facts.machine,
                status=ALIVE,
                voter=member.voter,
                leader=self._agent.leading,
                version=__version__,
                running=self._agent.runner.running,
            )
            for member in sorted(self._agent.state.members.values(), key=lambda member: member.name)
        ]

    def why_not_ready(self) -> str | None:
        """None while this agent can take writes."""
        return None if self._agent.leading else "no leader yet: this agent is starting"

    def why_waiting(self, execution: Execution) -> str:
        """Why an execution whose time has come has not started; "" where it is not ours to say, or not so."""
        agent, slots = self._agent, self._facts.slots
        if execution.status is not Status.ARMED or execution.stop or execution.node_id != self._facts.node_id:
            return ""
        late_us = agent.clock.cluster_us(self._now()) - execution.due_cluster_us
        if late_us < WAITING_US or agent.runner.running < slots:
            return ""
        return f"all {slots} slots of {execution.agent} are in use"

    def check_job(self, command: PutJob) -> None:
        """Refuse a schedule that is wrong or never fires. Raises InvalidSchedule."""
        job, now = command.job, self._now()
        schedule = grammar.parse(job.schedule, timezone=job.timezone, name=job.name, anchor_us=now.wall_us)
        old = self._agent.state.job_view(job.name)
        if old is None or old.job.schedule != job.schedule:
            # An instant that lies a little behind us still runs, late by less than start_deadline (API.md, @at).
            grammar.check_fires(schedule, now.wall_us - (job.start_deadline_us if schedule.kind == "at" else 0))

    def explain(self, schedule: str, timezone: str, name: str, count: int) -> Explained:
        """A schedule in words and its next ticks. Raises InvalidSchedule."""
        now = self._now()
        parsed = grammar.parse(schedule, timezone=timezone, name=name, anchor_us=now.wall_us)
        found = grammar.explain(parsed, now.wall_us, count)
        return Explained(schedule, found.timezone, found.words, tuple(found.next_us))
