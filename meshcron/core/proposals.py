"""Leader: turns what somebody asks (commands.py) into entries that carry the decision, or refuses.

Nothing changes here: the entries are checked again when they are applied.
"""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from meshcron import commands, entries
from meshcron.core import schedule as grammar
from meshcron.core.clocks import ClusterClock
from meshcron.core.intents import Intents
from meshcron.core.overlap import judge, make_way
from meshcron.core.scheduler import Scheduler, next_tick
from meshcron.core.state import JobState, State
from meshcron.entries import UNCHANGED, Entry
from meshcron.errors import Conflict, InvalidRequest, NotFound, PreconditionFailed, UnknownExecution, UnknownJob
from meshcron.model import Instant, Job


class Proposals:
    """What a command becomes, given the committed state."""

    def __init__(self, state: State, clock: ClusterClock, scheduler: Scheduler, intents: Intents) -> None:
        self._state = state
        self._clock = clock
        self._scheduler = scheduler
        self._intents = intents

    def entries_for(
        self, command: commands.Command, now: Instant, call: str, once: entries.Once | None = None
    ) -> list[Entry]:
        """The entries to append; the last one answers the call, once.

        Raises InvalidRequest, UnknownJob, UnknownExecution, PreconditionFailed, Conflict.
        """
        *before, last = self._entries_for(command, now, call)
        return [*before, replace(last, once=once) if once else last]

    def proposed(self, entry: Entry) -> None:
        """One of these entries stands in the log."""
        if isinstance(entry, entries.Intents):
            self._intents.decided(entry.items)

    def _entries_for(self, command: commands.Command, now: Instant, call: str) -> list[Entry]:
        match command:
            case commands.PutJob():
                return self._put_job(command, now, call)
            case commands.DeleteJob():
                state = self._job(command.name, command.if_revision)
                return [entries.JobDelete(state.uid, state.revision, call)]
            case commands.RunJob():
                return self._run_job(command, now, call)
            case commands.StopRun():
                return [self._stop_run(command, call)]
            case commands.SetPaused():
                return [entries.Pause(command.paused, self._clock.wall_us(now), call)]
            case commands.ClearHistory():
                return [entries.Prune(self._job(command.name).uid, 0, 0, True, call)]
            case commands.PutToken():
                return [entries.TokenPut(command.token, call)]
            case commands.RemoveMember():
                return [self._remove_member(command.name)]
            case commands.RevokeToken():
                return [entries.TokenRevoke(command.id, call)]
            case _:
                assert_never(command)

    def _job(self, name: str, if_revision: int | None = None) -> JobState:
        state = self._state.named(name)
        if state is None:
            raise UnknownJob(name)
        if if_revision is not None and state.revision != if_revision:
            raise PreconditionFailed(f"{name!r} is at revision {state.revision}, not {if_revision}")
        return state

    def _remove_member(self, name: str) -> entries.MemberPut:
        """It is marked; the leader then gives its seat away and removes it (stewardship.py)."""
        member = next((one for one in self._state.members.values() if name in (one.name, one.node_id)), None)
        if member is None:
            raise NotFound("member", name)
        if len(self._state.members) == 1:
            raise Conflict("name", f"{member.name!r} is the last member", "end it and delete its data directory")
        return entries.MemberPut(replace(member, leaving=True))

    # jobs

    def _put_job(self, command: commands.PutJob, now: Instant, call: str) -> list[Entry]:
        job, old, wall_us = command.job, self._state.named(command.job.name), self._clock.wall_us(now)
        revision = old.revision if old else 0
        if command.if_revision is not None and command.if_revision != revision:
            what = f"is at revision {revision}" if old else "does not exist"
            raise PreconditionFailed(f"{job.name!r} {what}")
        self._check_parents(job)
        schedule = grammar.parse(
            job.schedule,
            timezone=job.timezone,
            name=job.name,
            anchor_us=old.created_wall_us if old else wall_us,
        )
        cursor = max(wall_us, old.cursor_wall_us) if old else wall_us
        if schedule.kind == "at" and (old is None or old.job.schedule != job.schedule):
            # "Late by less than start_deadline: runs" (API.md): the instant may lie a little behind us. But not behind
            # what is decided: a run of that instant may have been, and it would be that run once more (P1).
            decided = old.cursor_wall_us if old else 0
            cursor = max(decided, wall_us - job.start_deadline_us)
            if old and schedule.next_after(decided) is None:
                why = "the ticks up to that time are decided already"
                raise InvalidRequest("schedule", why, "a later time, or a run by hand")
        found: list[Entry] = []
        seen_cursor = old.cursor_wall_us if old else 0
        if old and self._state.paused and 0 < old.next_wall_us <= wall_us:
            # The pause has swallowed ticks of the definition that goes: they are recorded before it does.
            paused = self._scheduler.skip_paused(old, wall_us)
            seen_cursor = paused.to_wall_us
            found.append(paused)
        put = entries.JobPut(
            job=job,
            seen_revision=revision,
            seen_cursor_wall_us=seen_cursor,
            wall_us=wall_us,
            cursor_wall_us=cursor,
            next_wall_us=next_tick(schedule, job, cursor),
            call=call,
        )
        return [*found, put]

    def undecided_tick(self, command: commands.Command, now: Instant) -> bool:
        """Whether a tick of the job that is about to change is due and not decided yet, or its cursor is of an earlier
        clock epoch: that comes first."""
        if not isinstance(command, commands.PutJob):
            return False
        old = self._state.named(command.job.name)
        if old is None:
            return False
        due = 0 < old.next_wall_us <= self._clock.wall_us(now) and not self._state.paused
        return due or old.epoch != self._state.epoch

    def _check_parents(self, job: Job) -> None:
        for parent in job.parent_jobs:
            if self._state.named(parent) is None and parent != job.name:
                raise InvalidRequest("parent_job", f"no job named {parent!r}", "create the parent first")
        above = list(job.parent_jobs)
        seen: set[str] = set()
        while above:
            name = above.pop()
            if name == job.name:
                raise InvalidRequest("parent_job", "the job would run after itself", "remove one link of the circle")
            if name not in seen and (parent_state := self._state.named(name)):
                seen.add(name)
                above.extend(parent_state.job.parent_jobs)

    # runs

    def _run_job(self, command: commands.RunJob, now: Instant, call: str) -> list[Entry]:
        state = self._job(command.name)
        verdict = judge(self._state, state)
        if verdict.what == "run":
            return [self._manual(state, command, now, call)]
        if verdict.what == "skip":
            if state.job.concurrency == "forbid":
                why = f"{command.name!r} is still running and forbids a second run"
                raise Conflict("concurrency", why, "wait, kill it, or choose another concurrency")
            raise Conflict("concurrency", f"one run of {command.name!r} waits already", "wait for it to start")
        queued = entries.Queued(
            uid=state.uid,
            revision=state.revision,
            epoch=state.epoch,
            tick_wall_us=self._clock.wall_us(now),
            next_wall_us=UNCHANGED,
            kind=verdict.what,
            trigger="manual",
            env=command.env,
            call=call,
        )
        return list(make_way(self._state, state, queued))

    def _manual(self, state: JobState, command: commands.RunJob, now: Instant, call: str) -> entries.Intents:
        intent = self._intents.build(
            state,
            now,
            tick_wall_us=self._clock.wall_us(now),
            due_cluster_us=self._clock.cluster_us(now),
            trigger="manual",
            env=command.env,
        )
        return self._intents.entry(now, [intent], call)

    def _stop_run(self, command: commands.StopRun, call: str) -> entries.StopEntry:
        """One entry: a run has at most one execution open for each member, some 2,600 at 35 bytes."""
        if id_ := command.execution_id:
            one = self._state.open.get(id_) or self._state.owed.get(f"retry|{id_}")
            if one is None or one.run_id != command.run_id:
                raise UnknownExecution(id_)
            return entries.StopEntry((id_,), (), kill=True, call=call)
        found = tuple(
            sorted(execution.id for execution in self._state.open.values() if execution.run_id == command.run_id)
        )
        owed = any(row.run_id == command.run_id for row in self._state.owed.values())
        if not found and not owed:
            raise UnknownExecution(command.run_id)
        return entries.StopEntry(found, (command.run_id,), kill=True, call=call)
