"""What this agent says of itself to the API: its place in the cluster, its members, whether it can take writes."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from meshcron import __version__
from meshcron.commands import PutJob
from meshcron.core import schedule as grammar
from meshcron.core.agent import Agent
from meshcron.messages import MemberInfo, generation_number
from meshcron.model import SECOND_US, Execution, Instant, Status
from meshcron.service import AgentView, Explained, MemberView

ALIVE = 1
LEAVING = 2
FAILED = 4
"""Serf's numbers for a member that is heard, for one that was asked to go, and for one that is not heard."""

WAITING_US = SECOND_US
"""So long after its time an execution may be starting, and the record of that be on its way to the disk."""


class Facts(Struct, frozen=True, kw_only=True):
    """What does not change while the agent runs."""

    node_id: str
    name: str
    fingerprint: str
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

    def __init__(
        self,
        agent: Agent,
        facts: Facts,
        now: Callable[[], Instant],
        refused: Callable[[], Mapping[tuple[str, str], int]] = dict,
    ) -> None:
        """`refused`: how often somebody was not let in, by (where, why)."""
        self._agent = agent
        self._facts = facts
        self._now = now
        self._refused = refused

    def agent_view(self) -> AgentView:
        """This agent and its place in the cluster."""
        agent, facts = self._agent, self._facts
        names = {one.node_id: one.name for one in agent.roster()}
        beat = agent.membership.beat_of(agent.leader)
        state = agent.state if agent.holds_log else None  # what is left of it elsewhere is old
        return AgentView(
            name=facts.name,
            version=__version__,
            tags=agent.tags,
            cluster=agent.cluster,
            fingerprint=facts.fingerprint,
            term=max(agent.ledger.term, beat.fence.term if beat else 0),
            generation=generation_number(agent.generation),
            protocol=agent.protocol,
            leader=names.get(agent.leader, ""),
            commit_index=agent.ledger.commit_index,
            applied_index=state.applied[0] if state else 0,
            jobs=len(state.jobs) if state else 0,
            open_executions=len(state.open) if state else 0,
            paused=bool(state and state.paused),
            encrypted=True,
            started_wall_us=facts.started_wall_us,
            warnings=facts.warnings,
            refused=self._refused(),
        )

    def member_views(self) -> Sequence[MemberView]:
        """Every member, by name, as committed and as last heard here."""
        agent, now = self._agent, self._now()
        missing = None if agent.is_led(now) else agent.missing(now)
        return [self._member_view(one, missing, now) for one in sorted(agent.roster(), key=lambda one: one.name)]

    def _member_view(self, member: MemberInfo, missing: frozenset[str] | None, now: Instant) -> MemberView:
        """`missing`: who has failed as far as this agent can tell, where nobody leads."""
        agent, facts = self._agent, self._facts
        own = member.node_id == facts.node_id
        beat = agent.membership.beat_of(member.node_id)
        endpoint = member.endpoint
        unheard = beat is None and agent.holds_log  # any other one hears few, and takes the leader's word
        failed = member.node_id in agent.membership.failed or unheard
        if missing is not None:  # the last leader's word may be old
            failed = member.node_id in missing or (failed and not agent.is_heard(member.node_id, now))
        return MemberView(
            node_id=member.node_id,
            name=member.name,
            address=agent.endpoint.host if own else endpoint.host if endpoint else "",
            port=agent.endpoint.mesh_port if own else endpoint.mesh_port if endpoint else 0,
            tags=agent.tags if own else beat.profile.tags if beat else {},
            facts=facts.machine if own else beat.profile.facts if beat else {},
            status=FAILED if failed and not own else LEAVING if member.leaving else ALIVE,
            voter=member.voter,
            leader=member.node_id == agent.leader,
            version=__version__ if own else beat.profile.version if beat else "",
            running=agent.runner.running if own else beat.running if beat else 0,
            clock_skew_ms=0 if own or not beat else self._skew_ms(member.node_id, beat.wall_us, now),
        )

    def _skew_ms(self, node_id: str, wall_us: int, now: Instant) -> int:
        """How far a member's wall clock is ahead of ours."""
        return (wall_us + self._agent.membership.silent_us(node_id, now.boot_us) - now.wall_us) // 1000

    def why_not_ready(self) -> str | None:
        """None while writes are taken: here, or by a leader this agent knows."""
        agent, now = self._agent, self._now()
        if agent.refused:
            return agent.refused
        if agent.is_led(now):
            return None
        if agent.remembers:
            gone = "if that is gone for good, start with an empty data directory"
            return f"this agent is looking for the cluster that it was a member of; {gone}"
        if not agent.cluster:
            return "this agent is looking for a cluster"
        return self._without_majority(now) or "no leader at the moment"

    def _without_majority(self, now: Instant) -> str:
        """Who is missing, and what to do, where the voters that are heard are no majority; "" where they are one."""
        agent, gone = self._agent, self._agent.missing(now)
        voters = [one for one in agent.roster() if one.voter]
        missing = [one for one in voters if one.node_id in gone]
        if not missing or 2 * (len(voters) - len(missing)) > len(voters):
            return ""
        names = ", ".join(sorted(one.name for one in missing))
        silent_us = min(agent.membership.silent_us(one.node_id, now.boot_us) for one in missing)
        remedy = "meshcron recover" if agent.holds_log else "meshcron recover on an agent that holds the log"
        return (
            f"no majority of the voters: {names} not heard for {silent_us // SECOND_US} s; "
            f"if they are gone for good: {remedy}"
        )

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
