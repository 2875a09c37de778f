"""apply(entry): the deterministic state of jobs and open runs, and the rows that mirror it on disk.

No clock, no die, no schedule is asked here: the entry says everything. What the entry assumed is checked again; where
it no longer holds, the entry applies as nothing and the leader decides again (PROTOCOL 5).
"""

from __future__ import annotations

import hashlib
import json
from typing import assert_never

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from meshcron import entries
from meshcron.commands import JobAnswer, StopAnswer
from meshcron.core.answers import first_answer, forget_answers, keep_answer, outcome_of
from meshcron.core.state import JobState, State, job_row
from meshcron.core.voter import Committed
from meshcron.entries import UNCHANGED, Intent
from meshcron.errors import Conflict, MeshcronError, NotFound, UnknownExecution, UnknownJob
from meshcron.messages import ResultItem
from meshcron.model import SECOND_US, Execution, Job, Member, Status, execution_id
from meshcron.rows import Drop, DropHistory, ExecutionRow, MemberRow, MetaRow, OwedRow, Row, TokenRow

RERUNS_MAX = 10
"""How often `on_lost: rerun` may run one tick again: a job that kills its agent must not do so for ever."""


RETRY_DELAY_MAX_US = 30 * 86_400 * SECOND_US
"""A retry that waits for longer than a month is one that nobody waits for."""

LATE_MAX = 1000
"""So many lost executions may still turn into the truth; of older ones the record stays as it is."""

_execution_encoder = msgspec.json.Encoder()
_execution_decoder = msgspec.json.Decoder(Execution)

HOLD_DOWN_US = 300 * SECOND_US
"""After a hand-over there is none for so long; on a relapse twice as long each time (PROTOCOL 4)."""

HOLD_DOWN_MAX_US = 3600 * SECOND_US


PAUSES_MAX = 100
"""So many pauses may follow each other before the ticks of the first are decided, which takes a second or two."""

FAR_WALL_US = 1 << 62
"""Later than any tick."""


class DecideAgain(MeshcronError):
    """What the entry assumed no longer held. Nothing was stored; the leader takes the call up once more."""


class Applied(Struct):
    """What one entry changed, for the machines that act on it. (msgspec gives each its own empty list and set.)"""

    outcome: object = None
    """The answer to the call that proposed it; an error where it applied as nothing."""
    opened: list[Execution] = []
    stopping: list[Execution] = []
    closed: list[Execution] = []
    touched: set[int] = set()
    """Jobs whose next tick, open runs or owed runs may have changed."""


class Catalog:
    """The one writer of `State`."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._rows: list[Row] = []
        self._applied = Applied()
        self._index = 0

    def apply(self, committed: Committed) -> tuple[Applied, list[Row]]:
        """Fold one committed entry into the state. Returns what changed and the rows to write."""
        self._rows, self._applied, self._index = [], Applied(), committed.index
        try:
            self._applied.outcome = self._answered(committed.entry)
        except MeshcronError as refused:
            self._applied.outcome = refused
        self.state.applied = committed.index, committed.term, committed.crc
        self._rows.append(MetaRow("applied", f"{committed.index} {committed.term} {committed.crc}"))
        return self._applied, self._rows

    def _answered(self, entry: entries.Entry) -> object:
        """What the entry's call is answered with; a repeated one changes nothing."""
        once = entry.once if isinstance(entry, entries.Repeatable) else None
        if once is None:
            return self._fold(entry)
        if known := first_answer(self.state, once):
            return outcome_of(known)
        outcome = self._fold(entry)
        self._rows += keep_answer(self.state, once, self._index, outcome)
        return outcome

    def _fold(self, entry: entries.Entry) -> object:  # noqa: C901, PLR0912 - one arm a kind of entry
        if self.state.dissolved:
            raise DecideAgain("this cluster is dissolved")
        match entry:
            case entries.Noop():
                return self._clock(entry.cluster_us, entry.wall_us, entry.wall_offset_us)
            case entries.Formed():
                return self._formed(entry)
            case entries.Recovered():
                return self._recovered(entry)
            case entries.MemberPut():
                return self._member_put(entry)
            case entries.MemberRemove():
                return self._member_remove(entry)
            case entries.Roster():
                return self._roster(entry)
            case entries.HandOver():
                return self._hand_over(entry)
            case entries.Dissolve():
                return self._dissolve(entry)
            case entries.Config():
                return self._config(entry)
            case entries.JobPut():
                return self._job_put(entry)
            case entries.JobDelete():
                return self._job_delete(entry)
            case entries.Intents():
                return self._intents(entry)
            case entries.Started():
                return self._started(entry)
            case entries.Results():
                return self._results(entry)
            case entries.Skip():
                return self._skip(entry)
            case entries.Queued():
                return self._queued(entry)
            case entries.Reseat():
                return self._reseat(entry)
            case entries.StopEntry():
                return self._stop(entry)
            case entries.Pause():
                return self._pause(entry)
            case entries.Prune():
                return self._prune(entry)
            case entries.TokenPut():
                return self._token_put(entry)
            case entries.TokenRevoke():
                return self._token_revoke(entry)
            case entries.ClockStep():
                return self._clock_step(entry)
            case _:
                assert_never(entry)

    # clock, members, tokens, pause

    def _clock(self, cluster_us: int, wall_us: int, offset_us: int) -> object:
        self.state.clock = max(cluster_us, self.state.clock[0]), wall_us, offset_us, self.state.epoch
        self._write_clock()
        self._rows += forget_answers(self.state, self.state.clock[0])
        return None

    def _write_clock(self) -> None:
        self._rows.append(MetaRow("clock", " ".join(map(str, self.state.clock))))

    def _clock_step(self, entry: entries.ClockStep) -> object:
        backward = entry.to_offset_us < entry.from_offset_us
        self.state.clock = entry.cluster_us, entry.wall_us, entry.to_offset_us, self.state.epoch + backward
        self._write_clock()
        if backward and self.state.pauses:
            # The same wall time comes again: what was paused then is not now, but for a pause that goes on.
            now_us = entry.cluster_us + entry.to_offset_us
            self.state.pauses = ((min(self.state.pauses[-1][0], now_us), 0),) if self.state.paused else ()
            self._write_pauses()
        return None

    def _formed(self, entry: entries.Formed) -> object:
        if self.state.cluster:
            raise DecideAgain("the cluster is formed")
        self.state.cluster = entry.cluster
        self.state.members[entry.member.number] = entry.member
        self.state.token_map.update({token.id: token for token in entry.tokens})
        self._rows += [MetaRow("cluster", entry.cluster), MemberRow(entry.member)]
        self._rows += [TokenRow(token) for token in entry.tokens]
        self.state.last_number = entry.member.number
        self._rows.append(MetaRow("number", str(entry.member.number)))
        self._roster_changed()
        return None

    def _roster_changed(self) -> None:
        self.state.roster_index = self._index
        self._rows.append(MetaRow("roster", str(self._index)))

    def _member_put(self, entry: entries.MemberPut) -> Member:
        member = entry.member
        old = self.state.members.get(member.number)
        by_node = next((one for one in self.state.members.values() if one.node_id == member.node_id), None)
        named = next((one for one in self.state.members.values() if one.name == member.name), None)
        if self.state.dissolved or (old and old.node_id != member.node_id):
            raise DecideAgain("the number is taken")
        if by_node and (by_node.number != member.number or by_node.public_key != member.public_key):
            raise Conflict("node_id", "a node id never changes its number or key", "start with an empty data directory")
        if named and named.node_id != member.node_id:
            self._rename_silent(named, entry.replaces)
        self.state.members[member.number] = replace(member, voter=old.voter if old else False)
        self.state.last_number = max(self.state.last_number, member.number)
        self._rows += [MemberRow(self.state.members[member.number]), MetaRow("number", str(self.state.last_number))]
        for token in entry.tokens:
            self.state.token_map[token.id] = token
            self._rows.append(TokenRow(token))
        self._roster_changed()
        return self.state.members[member.number]

    def _rename_silent(self, old: Member, replaced: int) -> None:
        """A silent member loses its name to a newcomer; an old voter keeps its seat until a learner takes it."""
        if replaced != old.number:
            raise Conflict("name", f"a member named {old.name!r} is there", "choose another name with --name")
        renamed = replace(old, name=f"{old.name}~{old.number}")
        self.state.members[old.number] = renamed
        self._rows.append(MemberRow(renamed))

    def _member_remove(self, entry: entries.MemberRemove) -> Member:
        member = self.state.members.get(entry.number)
        if member is None:
            raise NotFound("member", str(entry.number))
        if member.voter:
            raise DecideAgain("a voter leaves in two steps")
        del self.state.members[entry.number]
        self._rows.append(Drop("members", (member.node_id,)))
        for token in [token for token in self.state.token_map.values() if token.node_id == member.node_id]:
            del self.state.token_map[token.id]
            self._rows.append(Drop("tokens", (token.id,)))
        self._roster_changed()
        open_there = sorted(id_ for id_, one in self.state.open.items() if one.node_id == member.node_id)
        items = tuple(ResultItem(execution_id=id_, kind="lost", reason="its agent was removed") for id_ in open_there)
        self._results(entries.Results(entry.cluster_us, items))
        return member

    def _roster(self, entry: entries.Roster) -> object:
        for number, member in self.state.members.items():
            votes = member.node_id in entry.voters
            if votes != member.voter:
                self.state.members[number] = replace(member, voter=votes)
                self._rows.append(MemberRow(self.state.members[number]))
        self._roster_changed()
        return None

    def _hand_over(self, entry: entries.HandOver) -> object:
        last_us, hold_us = self.state.hand_over
        if entry.cluster_us < last_us + hold_us:
            raise DecideAgain("the last hand-over was too short ago")
        relapse = bool(last_us) and entry.cluster_us < last_us + 2 * hold_us
        hold_us = min(HOLD_DOWN_MAX_US, 2 * hold_us) if relapse else HOLD_DOWN_US
        self.state.hand_over = entry.cluster_us, hold_us
        self._rows.append(MetaRow("hand_over", f"{entry.cluster_us} {hold_us}"))
        return None

    def _dissolve(self, entry: entries.Dissolve) -> object:
        if not self.state.is_virgin():
            raise DecideAgain("the cluster is lived in")
        self.state.dissolved = entry.into
        self._rows.append(MetaRow("dissolved", entry.into))
        return None

    def _config(self, entry: entries.Config) -> object:
        if entry.protocol <= self.state.protocol:
            raise DecideAgain("the cluster speaks that already")
        self.state.protocol = entry.protocol
        self._rows.append(MetaRow("protocol", str(entry.protocol)))
        return None

    def _recovered(self, entry: entries.Recovered) -> object:
        others = tuple(
            sorted(old.node_id for old in self.state.members.values() if old.node_id != entry.member.node_id)
        )
        self.state.members = {entry.member.number: entry.member}
        self.state.recovered_wall_us = entry.until_wall_us
        self._rows += [MemberRow(entry.member), Drop("members", others)]
        self._roster_changed()
        self._rows.append(MetaRow("recovered", str(entry.until_wall_us)))
        for row in [row for _, row in sorted(self.state.owed.items()) if row.kind not in ("join", "late")]:
            self._lose_owed(row)
        items = tuple(ResultItem(execution_id=id_, kind="lost", reason="recovered") for id_ in sorted(self.state.open))
        return self._results(entries.Results(self.state.clock[0], items))

    def _lose_owed(self, row: OwedRow) -> None:
        """A run that waited may have been decided in the part of the log that is gone: whether it ran is unknown."""
        self._drop_owed(row.key)
        state = self.state.jobs.get(row.uid)
        if state is None:
            return
        at = row.scheduled_wall_us
        self._record_skip(state, at, at, 1, "recovered", row.run_id, row.trigger, row.attempt, status=Status.LOST)
        self._rows.append(state.state_row())

    def _token_put(self, entry: entries.TokenPut) -> object:
        clash = next((old for old in self.state.token_map.values() if old.name == entry.token.name), None)
        if clash is not None and clash.id != entry.token.id:
            raise Conflict("name", f"a token named {entry.token.name!r} exists", "choose another name or revoke it")
        self.state.token_map[entry.token.id] = entry.token
        self._rows.append(TokenRow(entry.token))
        if not entry.token.node_id:
            self._lived_in()  # a person's token; an agent's own local one says nothing
        return entry.token

    def _token_revoke(self, entry: entries.TokenRevoke) -> object:
        token = self.state.token_map.pop(entry.id, None)
        if token is None:
            raise NotFound("token", entry.id)
        self._rows.append(Drop("tokens", (entry.id,)))
        return token

    def _pause(self, entry: entries.Pause) -> bool:
        if entry.paused and not self.state.paused:
            self.state.paused = True
            self.state.pauses = (*self._undecided_pauses(), (entry.wall_us, 0))
            for execution in list(self.state.open.values()):
                if execution.status is Status.ARMED and execution.trigger != "manual":
                    self._ask_stop(execution, kill=False)
        elif not entry.paused and self.state.paused:
            self.state.paused = False
            *before, (since, _) = self.state.pauses
            self.state.pauses = (*before, (since, entry.wall_us))
        self._write_pauses()
        self._applied.touched |= set(self.state.jobs)
        return self.state.paused

    def _undecided_pauses(self) -> tuple[tuple[int, int], ...]:
        """Pauses that have swallowed ticks which nobody has decided yet."""
        if not self.state.pauses:
            return ()
        first = min((job.next_wall_us for job in self.state.jobs.values() if job.next_wall_us), default=FAR_WALL_US)
        return tuple(one for one in self.state.pauses if one[1] >= first)[-PAUSES_MAX:]

    def _write_pauses(self) -> None:
        instants = " ".join(f"{since} {until}" for since, until in self.state.pauses)
        self._rows.append(MetaRow("pause", f"{int(self.state.paused)} {instants}".rstrip()))

    # jobs

    def _job_put(self, entry: entries.JobPut) -> JobAnswer:
        old = self.state.named(entry.job.name)
        if (old.revision if old else 0) != entry.seen_revision:
            raise DecideAgain("the job changed meanwhile")
        if old and old.cursor_wall_us != entry.seen_cursor_wall_us:
            raise DecideAgain("a tick was decided meanwhile")
        self._lived_in()
        state = self._replaced(old, entry) if old else self._created(entry)
        self.state.add_job(state)
        self._rows += [job_row(state), state.state_row()]
        if state.job.disabled:
            self._stop_armed(state)
            self._drop_owed_of(state)
        self._applied.touched.add(state.uid)
        still_open = sorted(self.state.open[id_].public_id for id_ in state.open_ids) if state.job.disabled else []
        return JobAnswer(
            self.state.view(state),
            created=old is None,
            holds_from_wall_us=entry.next_wall_us,
            open_executions=tuple(still_open),
        )

    def _lived_in(self) -> None:
        if not self.state.lived_in:
            self.state.lived_in = True
            self._rows.append(MetaRow("lived_in", "1"))

    def _created(self, entry: entries.JobPut) -> JobState:
        return JobState(
            entry.job,
            self._index,
            self._index,
            entry.wall_us,
            self.state.epoch,
            entry.cursor_wall_us,
            entry.next_wall_us,
        )

    def _replaced(self, old: JobState, entry: entries.JobPut) -> JobState:
        if any(self.state.open[id_].revision == old.revision for id_ in old.open_ids):
            self.state.revisions[old.uid, old.revision] = old.job
            self._rows.append(job_row(old, current=False))
        else:
            self._rows.append(Drop("jobs", ((old.uid, old.revision),)))
        self.state.remove_job(old.uid)
        return replace(
            old,
            job=entry.job,
            revision=self._index,
            epoch=self.state.epoch,
            cursor_wall_us=entry.cursor_wall_us,
            next_wall_us=entry.next_wall_us,
        )

    def _job_delete(self, entry: entries.JobDelete) -> JobAnswer:
        state = self.state.jobs.get(entry.uid)
        if state is None or state.revision != entry.seen_revision:
            raise DecideAgain("the job changed meanwhile")
        view = self.state.view(state)
        if view.dependents:
            names = ", ".join(view.dependents)
            raise Conflict("name", f"other jobs run after {state.job.name!r}: {names}", "delete or change them first")
        still_open = tuple(sorted(self.state.open[id_].public_id for id_ in state.open_ids))
        self.state.remove_job(state.uid)
        self._rows += [DropHistory(state.uid, 0)]
        self._drop_owed_of(state, quietly=True)
        self._stop_armed(state)
        if state.open_ids:
            self.state.hidden[state.uid] = state
            self._rows.append(job_row(state, hidden=True))
        else:
            self._forget(state)
        self._applied.touched.add(state.uid)
        return JobAnswer(view, open_executions=still_open)

    def _forget(self, state: JobState) -> None:
        self.state.hidden.pop(state.uid, None)
        revisions = [key for key in self.state.revisions if key[0] == state.uid]
        for key in revisions:
            del self.state.revisions[key]
        keys: tuple[tuple[int, int], ...] = (*revisions, (state.uid, state.revision))
        self._rows += [Drop("jobs", keys), Drop("job_states", (state.uid,))]

    def _prune(self, entry: entries.Prune) -> object:
        state = self.state.jobs.get(entry.uid)
        if state is None:
            raise UnknownJob(str(entry.uid))
        state.recorded = min(state.recorded, entry.keep_newest)
        if entry.clear:
            for row in [row for row in self.state.owed.values() if row.uid == entry.uid and row.kind == "late"]:
                self._drop_owed(row.key)
            state.success_count = state.error_count = 0
            state.last_success_wall_us = state.last_error_wall_us = 0
            state.last_status = ""
        self._rows += [DropHistory(entry.uid, entry.keep_newest, entry.before_wall_us), state.state_row()]
        return JobAnswer(self.state.view(state))

    # decisions about ticks

    def _intents(self, entry: entries.Intents) -> object:
        self._clock(entry.cluster_us, entry.wall_us, entry.wall_offset_us)
        outcome: object = DecideAgain("the job changed meanwhile")
        for item in entry.items:
            state = self.state.jobs.get(item.uid)
            if state is None or not self._holds(state, item):
                continue
            run_id = item.run_id or (
                f"{item.uid}-m{self._index}"
                if item.trigger == "manual"
                else f"{item.uid}-{item.epoch}-{item.tick_wall_us // SECOND_US}"
            )
            owed = self.state.owed[item.owed_key] if item.owed_key else None
            if item.owed_key:
                self._drop_owed(item.owed_key)
            self._launch(state, item, run_id, owed)
            self._move(state, item.tick_wall_us, item.next_wall_us)
            outcome = JobAnswer(self.state.view(state), run_id=run_id) if entry.call else None
        return outcome

    def _holds(self, state: JobState, item: Intent) -> bool:
        """Whether what the leader assumed of this intent is still so."""
        if item.owed_key and item.owed_key not in self.state.owed:
            return False
        if item.next_wall_us != UNCHANGED and not self._tick_holds(state, item.revision, item.epoch, item.tick_wall_us):
            return False
        if item.targets and not any(number in self.state.members for number in item.targets):
            return False
        if item.revision != state.revision or (self.state.paused and item.trigger != "manual"):
            return False
        if state.job.concurrency == "allow" or not (item.targets or item.down):
            return True
        return not (state.open_ids if item.attempt > 1 else self.state.is_busy(state))

    def _tick_holds(self, state: JobState, revision: int, epoch: int, tick_wall_us: int) -> bool:
        return state.revision == revision and state.epoch == epoch and tick_wall_us > state.cursor_wall_us

    def _move(self, state: JobState, cursor_wall_us: int, next_wall_us: int) -> None:
        if next_wall_us != UNCHANGED:
            state.cursor_wall_us, state.next_wall_us = cursor_wall_us, next_wall_us
        self._rows.append(state.state_row())
        self._applied.touched.add(state.uid)

    def _launch(self, state: JobState, item: Intent, run_id: str, owed: OwedRow | None) -> None:
        for number in item.targets:
            member = self.state.members.get(number)
            if member is None:
                continue  # it left meanwhile; _holds has seen that somebody is left
            # Retries of two agents may meet on a third one: there each goes by what it repeats.
            moved = owed is not None and owed.kind == "retry" and owed.node_id != member.node_id
            repeats = f"{run_id}|{owed.key}" if owed is not None and moved else run_id
            execution = Execution(
                id=execution_id(self.state.cluster, repeats, member.node_id, item.attempt),
                uid=item.uid,
                run_id=run_id,
                index=self._index,
                revision=item.revision,
                attempt=item.attempt,
                trigger=item.trigger,
                scheduled_wall_us=item.tick_wall_us,
                due_cluster_us=item.due_cluster_us,
                start_by_cluster_us=item.start_by_cluster_us,
                node_id=member.node_id,
                agent=member.name,
                env=item.env,
            )
            self.state.add_open(execution)
            self._rows.append(ExecutionRow(execution))
            self._applied.opened.append(execution)
        for number in item.down:
            self._record_skip(
                state,
                item.tick_wall_us,
                item.tick_wall_us,
                1,
                "agent down",
                run_id,
                item.trigger,
                item.attempt,
                member=self.state.members.get(number),
            )
        if not item.targets and not item.down:
            at = item.tick_wall_us
            self._record_skip(state, at, at, 1, item.reason, run_id, item.trigger, item.attempt)
        if owed is not None and owed.kind == "retry" and not item.targets:
            self._count_failed(state, owed)

    def _record_skip(
        self,
        state: JobState,
        from_wall_us: int,
        to_wall_us: int,
        count: int,
        reason: str,
        run_id: str,
        trigger: str,
        attempt: int = 1,
        status: Status = Status.SKIPPED,
        member: Member | None = None,
    ) -> None:
        """A final record of ticks that ran nowhere (or not on that member)."""
        state.recorded += 1
        node_id = member.node_id if member else ""
        record = Execution(
            id=execution_id(self.state.cluster, f"{run_id}#{self._index}", node_id, attempt),
            node_id=node_id,
            agent=member.name if member else "",
            uid=state.uid,
            run_id=run_id,
            index=self._index,
            revision=state.revision,
            attempt=attempt,
            trigger=trigger,  # type: ignore[arg-type]
            scheduled_wall_us=from_wall_us,
            due_cluster_us=0,
            start_by_cluster_us=0,
            status=status,
            reason=reason,
            until_wall_us=to_wall_us,
            count=count,
        )
        self._rows.append(ExecutionRow(record))
        self._applied.closed.append(record)

    def _skip(self, entry: entries.Skip) -> object:
        state = self.state.jobs.get(entry.uid)
        if state is None or not self._tick_holds(state, entry.revision, entry.epoch, entry.from_wall_us):
            raise DecideAgain("the job changed meanwhile")
        run_id = f"{entry.uid}-{entry.epoch}-{entry.from_wall_us // SECOND_US}"
        self._record_skip(
            state,
            entry.from_wall_us,
            entry.to_wall_us,
            entry.count,
            entry.reason,
            run_id,
            "schedule",
            status=Status.LOST if entry.lost else Status.SKIPPED,
        )
        self._move(state, entry.to_wall_us, entry.next_wall_us)
        return None

    def _queued(self, entry: entries.Queued) -> object:
        state = self.state.jobs.get(entry.uid)
        if state is None or state.revision != entry.revision or self.state.has_owed(entry.kind, entry.uid):
            raise DecideAgain("the job changed meanwhile")
        scheduled = entry.next_wall_us != UNCHANGED
        if scheduled and not self._tick_holds(state, entry.revision, entry.epoch, entry.tick_wall_us):
            raise DecideAgain("the tick is decided")
        if entry.owed_key and entry.owed_key not in self.state.owed:
            raise DecideAgain("what was owed is decided")
        if entry.owed_key:
            self._drop_owed(entry.owed_key)
        run_id = entry.run_id or (
            f"{entry.uid}-{entry.epoch}-{entry.tick_wall_us // SECOND_US}"
            if scheduled
            else f"{entry.uid}-m{self._index}"
        )
        self._owe(
            OwedRow(
                f"{entry.kind}|{entry.uid}",
                entry.uid,
                entry.kind,
                run_id,
                1,
                entry.trigger,
                entry.tick_wall_us,
                0,
                "",
                json.dumps(entry.env) if entry.env else "",
            )
        )
        self._move(state, entry.tick_wall_us, entry.next_wall_us)
        return JobAnswer(self.state.view(state), run_id=run_id)

    def _reseat(self, entry: entries.Reseat) -> object:
        for uid, revision, epoch, cursor_wall_us, next_wall_us in entry.items:
            state = self.state.jobs.get(uid)
            if state is None or state.revision != revision or epoch != self.state.epoch or state.epoch >= epoch:
                continue
            state.epoch = epoch
            self._move(state, cursor_wall_us, next_wall_us)
        return None

    # owed runs

    def _owe(self, row: OwedRow) -> None:
        self.state.add_owed(row)
        self._rows.append(row)
        self._applied.touched.add(row.uid)

    def _drop_owed(self, key: str) -> None:
        self.state.remove_owed(key)
        self._rows.append(Drop("owed", (key,)))

    def _drop_owed_of(self, state: JobState, *, quietly: bool = False) -> None:
        """Owed runs of a job that is stopped, disabled or deleted become `skipped` (but for a deleted one, whose
        records go too)."""
        for row in [row for row in self.state.owed.values() if row.uid == state.uid]:
            self._skip_owed(state, row, quietly=quietly)

    def _skip_owed(self, state: JobState, row: OwedRow, *, quietly: bool = False) -> None:
        self._drop_owed(row.key)
        self._applied.touched.add(row.uid)
        if row.kind not in ("join", "late") and not quietly:
            self._record_skip(
                state,
                row.scheduled_wall_us,
                row.scheduled_wall_us,
                1,
                "stopped",
                row.run_id,
                row.trigger,
                row.attempt,
            )
            if row.kind == "retry":
                self._count_failed(state, row)
            self._rows.append(state.state_row())

    # stopping

    def _stop_armed(self, state: JobState) -> None:
        for id_ in sorted(state.open_ids):
            execution = self.state.open[id_]
            if execution.status is Status.ARMED:
                self._ask_stop(execution, kill=False)

    def _ask_stop(self, execution: Execution, *, kill: bool) -> None:
        wanted = "kill" if kill or execution.stop == "kill" else "leave"
        asked = replace(execution, stop=wanted)
        self.state.add_open(asked)
        self._rows.append(ExecutionRow(asked))
        self._applied.stopping.append(asked)

    def _stop(self, entry: entries.StopEntry) -> StopAnswer:
        found = [self.state.open[id_] for id_ in entry.execution_ids if id_ in self.state.open]
        owed = [row for row in self.state.owed.values() if row.run_id in entry.run_ids and row.kind != "late"]
        if entry.call and not found and not owed:
            raise UnknownExecution(" ".join(entry.run_ids))
        for execution in found:
            self._ask_stop(execution, kill=entry.kill)
        for row in owed:
            if state := self.state.job_state(row.uid):
                self._skip_owed(state, row)
        public_ids = tuple(execution.public_id for execution in found)
        return StopAnswer(entry.run_ids[0] if entry.run_ids else "", public_ids)

    # outcomes

    def _started(self, entry: entries.Started) -> object:
        for item in entry.items:
            execution = self.state.open.get(item.execution_id)
            if execution is not None and execution.status is Status.ARMED:
                running = replace(execution, status=Status.RUNNING, started_wall_us=item.started_wall_us)
                self.state.add_open(running)
                self._rows.append(ExecutionRow(running))
        return None

    def _results(self, entry: entries.Results) -> object:
        states: dict[int, JobState] = {}
        for item in entry.items:
            execution = self.state.open.get(item.execution_id)
            if execution is None:
                self._came_late(item, states, entry.cluster_us)
                continue
            final = finished(execution, item)
            self.state.remove_open(execution)
            self._applied.closed.append(final)
            self._applied.touched.add(final.uid)
            if hidden := self.state.hidden.get(final.uid):
                self._rows.append(Drop("executions", (final.id,)))
                if not hidden.open_ids:
                    self._forget(hidden)
                continue
            self._rows.append(ExecutionRow(final))
            state = self.state.jobs[final.uid]
            states[state.uid] = state
            self._drop_unnamed_revision(state, final.revision)
            again = self._owe_again(state, final, entry.cluster_us)
            if final.status is Status.LOST:
                self._expect_late(final, counted=not again)
            if not again:
                self._count(state, final)
                self._run_ended(state, final, entry.cluster_us)
            state.recorded += 1
        self._rows += [state.state_row() for state in states.values()]
        for state in states.values():
            self._end_ephemeral(state)
        return None

    def _end_ephemeral(self, state: JobState) -> None:
        """A job that was made for one success goes with it, once nothing of it is open and no other job follows it."""
        job = state.job
        done = job.ephemeral and state.last_status == Status.SUCCESS.value and not self.state.is_busy(state)
        if done and not self.state.children.get(job.name):
            self._job_delete(entries.JobDelete(state.uid, state.revision))

    def _expect_late(self, lost: Execution, *, counted: bool) -> None:
        """`lost` means unknown: should its agent come back with a result, that is the truth. `counted`: the loss stands
        among the job's errors (kept as the row's attempt)."""
        late = [row for row in self.state.owed.values() if row.kind == "late"]
        if len(late) >= LATE_MAX:
            self._drop_owed(min(late, key=lambda row: (row.scheduled_wall_us, row.key)).key)
        text = _execution_encoder.encode(lost).decode()
        at = lost.scheduled_wall_us
        self._owe(
            OwedRow(f"late|{lost.id}", lost.uid, "late", lost.run_id, int(counted), "", at, 0, lost.node_id, text)
        )

    def _came_late(self, item: ResultItem, states: dict[int, JobState], cluster_us: int) -> None:
        """A result of what was recorded as lost: the record becomes the truth, and says so. Nothing is run after it:
        that was decided when it was lost. But a rerun that still waits is not needed after a success."""
        row = self.state.owed.get(f"late|{item.execution_id}")
        if row is None or item.kind == "lost":
            return
        self._drop_owed(row.key)
        state = self.state.jobs.get(row.uid)
        if state is None:
            return
        lost = _execution_decoder.decode(row.env)
        told = finished(lost, item)
        final = replace(told, reason="; ".join(part for part in (told.reason, f"was lost: {lost.reason}") if part))
        self._rows.append(ExecutionRow(final))
        rerun = self.state.owed.get(f"retry|{lost.id}")
        if rerun is not None and final.status is Status.SUCCESS:
            self._drop_owed(rerun.key)
            self._applied.touched.add(state.uid)
            self._count_late(state, final)
            self._run_ended(state, final, cluster_us)
        elif row.attempt:
            state.error_count = max(0, state.error_count - 1)
            self._count_late(state, final)
        states[state.uid] = state

    def _count_late(self, state: JobState, final: Execution) -> None:
        """What ended last is shown as the last, not what was heard of last."""
        shown, success_us, error_us = state.last_status, state.last_success_wall_us, state.last_error_wall_us
        self._count(state, final)
        if max(success_us, error_us) > (final.finished_wall_us or final.scheduled_wall_us):
            state.last_status = shown
        state.last_success_wall_us = max(state.last_success_wall_us, success_us)
        state.last_error_wall_us = max(state.last_error_wall_us, error_us)

    def _drop_unnamed_revision(self, state: JobState, revision: int) -> None:
        if revision == state.revision or (state.uid, revision) not in self.state.revisions:
            return
        if not any(self.state.open[id_].revision == revision for id_ in state.open_ids):
            del self.state.revisions[state.uid, revision]
            self._rows.append(Drop("jobs", ((state.uid, revision),)))

    def _owe_again(self, state: JobState, final: Execution, cluster_us: int) -> bool:
        """Whether another attempt follows: after a failure within `retries`, after a loss with `on_lost: rerun`."""
        job = state.job
        failed = final.status in {Status.FAILED, Status.TIMEOUT} and final.attempt <= job.retries
        rerun = final.status is Status.LOST and job.on_lost == "rerun" and final.attempt <= RERUNS_MAX
        if job.disabled or final.stop == "kill" or not (failed or rerun):
            return False
        delay_us = _retry_delay_us(job, final.attempt) if failed else 0
        attempt = final.attempt + 1
        self._owe(
            OwedRow(
                f"retry|{final.id}",
                final.uid,
                "retry",
                final.run_id,
                attempt,
                "retry",
                final.scheduled_wall_us,
                cluster_us + delay_us,
                final.node_id,
                json.dumps(final.env) if final.env else "",
            )
        )
        return True

    def _count_failed(self, state: JobState, retry: OwedRow) -> None:
        """A run whose next attempt does not come stays failed; if it was lost, its result may still take that back."""
        state.error_count += 1
        state.last_status = Status.FAILED.value
        late = self.state.owed.get(f"late|{retry.key.removeprefix('retry|')}")
        if late is not None:
            self._owe(replace(late, attempt=1))

    def _count(self, state: JobState, final: Execution) -> None:
        """The last attempt decides the run: fail, then ok = success."""
        if final.status is Status.SUCCESS:
            state.success_count += 1
            state.last_success_wall_us = final.finished_wall_us
        elif final.status is not Status.SKIPPED:
            state.error_count += 1
            state.last_error_wall_us = final.finished_wall_us or final.scheduled_wall_us
        state.last_status = final.status.value

    def _run_ended(self, state: JobState, final: Execution, cluster_us: int) -> None:
        """Children start once no execution of the parent's run is open or owed."""
        failed = final.run_failed or final.status is not Status.SUCCESS
        if self.state.run_open.get(final.run_id):
            if failed:
                self._tell_siblings(final.run_id, state)
            return
        if final.status is Status.SKIPPED or self.state.retrying_runs.get(final.run_id):
            return
        for uid in sorted(self.state.children.get(state.job.name, ())):
            child = self.state.jobs[uid]
            if not child.job.disabled and child.job.when in ("always", "failure" if failed else "success"):
                self._owe_child(child, state.job, final, cluster_us)

    def _tell_siblings(self, run_id: str, state: JobState) -> None:
        for id_ in sorted(state.open_ids):
            execution = self.state.open[id_]
            if execution.run_id == run_id and not execution.run_failed:
                told = replace(execution, run_failed=True)
                self.state.add_open(told)
                self._rows.append(ExecutionRow(told))

    def _owe_child(self, child: JobState, parent: Job, final: Execution, cluster_us: int) -> None:
        """A child of several parents waits until each of them has ended a run since it last started."""
        join_key = f"join|{child.uid}"
        done = set(json.loads(self.state.owed[join_key].env)) if join_key in self.state.owed else set()
        done = {*done, parent.name} & set(child.job.parent_jobs)
        if len(done) < len(set(child.job.parent_jobs)):
            self._owe(OwedRow(join_key, child.uid, "join", "", 0, "", 0, 0, "", json.dumps(sorted(done))))
            return
        if join_key in self.state.owed:
            self._drop_owed(join_key)
        digest = hashlib.sha256(f"{final.run_id}|{self._index}".encode()).hexdigest()[:16]
        run_id = f"{child.uid}-c{digest}"
        self._owe(
            OwedRow(
                f"child|{run_id}", child.uid, "child", run_id, 1, "parent", final.finished_wall_us, cluster_us, "", ""
            )
        )


def _retry_delay_us(job: Job, attempt: int) -> int:
    """How long the attempt after this one waits, never over RETRY_DELAY_MAX_US, whatever the backoff comes to."""
    try:
        return int(min(RETRY_DELAY_MAX_US, job.retry_delay_us * job.retry_backoff ** (attempt - 1)))
    except OverflowError:
        return RETRY_DELAY_MAX_US if job.retry_delay_us else 0


def finished(execution: Execution, item: ResultItem) -> Execution:
    """An execution as its agent's final word makes it."""
    status = {
        "ended": Status.SUCCESS if item.success else Status.FAILED,
        "timeout": Status.TIMEOUT,
        "killed": Status.KILLED,
        "failed": Status.FAILED,
        "lost": Status.LOST,
        "skipped": Status.SKIPPED,
    }[item.kind]
    final = replace(
        execution,
        status=status,
        reason=item.reason,
        started_wall_us=item.started_wall_us or execution.started_wall_us,
    )
    if item.ending is None:
        return final
    return replace(
        final,
        finished_wall_us=item.ending.finished_wall_us,
        exit_code=item.ending.exit_code,
        signal=item.ending.signal,
        output_tail=item.ending.output_tail,
        output_bytes=item.ending.output_bytes,
        output_truncated=item.ending.output_truncated,
    )
