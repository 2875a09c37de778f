"""Leader: which ticks are due, what becomes of late and overlapping ones, arming ahead (PROTOCOL 6, API.md Jobs).

Every decision becomes an entry; the catalog checks it again when it is applied. Until then the job is `_undecided` and
left alone.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec.structs import replace

from meshcron import entries
from meshcron.core import schedule as grammar
from meshcron.core.clocks import ClusterClock
from meshcron.core.schedule import Schedule
from meshcron.core.selector import Candidate, Selected, select
from meshcron.core.state import JobState, State
from meshcron.entries import UNCHANGED, Entry, Intent
from meshcron.model import SECOND_US, Instant, Job, Trigger
from meshcron.rows import OwedRow, Row

RECENT_US = 10 * SECOND_US
"""A tick decided within this of its time runs, merely late; older ones are missed, catch_up decides (PROTOCOL 7)."""

START_WINDOW_US = 120 * SECOND_US
"""How long after its commit an intent may still be accepted (PROTOCOL 6, start_by)."""

SLICE = 100
"""Jobs decided in one turn: at up to 150 us each (croniter) that is under the 20 ms of a turn (PROTOCOL 8)."""

CATCH_UP_MOST = 100
"""`catch_up: all` makes up at most so many ticks (API.md, Jobs)."""

COUNT_MOST = 10_000
"""How far missed ticks of a range are counted one by one."""

SPREAD_HISTORY = 10
"""A job's history is pruned when it exceeds its limit by a tenth, and at least this many: pruning has its price too."""

INTENTS_BYTES_MAX = 200_000
"""Of one Intents entry, below the 256 KiB of an entry."""

OVERLAP = "overlap: the last run is still open"
OVERLAP_WAITING = "overlap: one run waits already"

RESEAT_STEP_US = 3 * 3600 * SECOND_US
"""A fixed-time job keeps its cursor over a backward step below 3 h (PROTOCOL 7)."""


def next_tick(schedule: Schedule, job: Job, after_wall_us: int) -> int:
    """The first tick of a job after an instant within its starts_at and expires_at; 0 = never."""
    if job.disabled:
        return 0
    tick = schedule.next_after(max(after_wall_us, job.starts_at_wall_us - 1))
    if tick is None or (job.expires_at_wall_us and tick > job.expires_at_wall_us):
        return 0
    return tick


def _cut(intents: list[Intent]) -> Iterator[list[Intent]]:
    """Pieces that each fit into one entry."""
    some: list[Intent] = []
    size = 0
    for intent in intents:
        size += len(msgspec.json.encode(intent))
        if some and size > INTENTS_BYTES_MAX:
            yield some
            some, size = [], len(msgspec.json.encode(intent))
        some.append(intent)
    if some:
        yield some


class Scheduler:
    """Decides ticks as they fall due within the horizon, in slices."""

    def __init__(self, state: State, clock: ClusterClock, horizon_us: int) -> None:
        self._state = state
        self._clock = clock
        # Ticks fall on whole seconds: half a second off, arming does not compete with what starts then.
        self._horizon_us = horizon_us - min(horizon_us // 6, SECOND_US // 2)
        self.candidates: list[Candidate] = []
        """The live members; the agent keeps it current."""
        self.failed: frozenset[str] = frozenset()
        """Node ids by the ring's verdict, those of members this leader has never heard among them."""
        self._schedules: dict[int, tuple[int, Schedule]] = {}
        self._heap: list[tuple[int, int]] = []
        self._heaped: dict[int, int] = {}
        """The tick of each job that stands in the heap: once each."""
        self._owed_heap: list[tuple[int, str]] = []
        self._undecided: dict[int, int] = {}
        self._held_owed: dict[int, set[str]] = {}
        self._reseat: list[int] = []
        self._reboot: list[int] = []
        self._start_run = ""
        self.more = False

    # what changed

    def lead(self, start_run: str) -> None:
        """Take over: every job is looked at anew. `start_run` names this start of the agent for @reboot jobs."""
        self._start_run = start_run
        self._undecided.clear()
        self._fill_heap()
        self._held_owed.clear()
        self._owed_heap = [(row.due_cluster_us, key) for key, row in self._state.owed.items()]
        heapq.heapify(self._owed_heap)
        self._reboot = [uid for uid, state in self._state.jobs.items() if self._is_reboot(state)]
        self._reseat = [uid for uid, state in self._state.jobs.items() if state.epoch != self._state.epoch]

    def _is_reboot(self, state: JobState) -> bool:
        """Asked of every job at once, so that only what looks like it is parsed."""
        return "@reboot" in state.job.schedule.lower() and self.schedule_of(state).kind == "reboot"

    def _fill_heap(self) -> None:
        self._heaped = {uid: state.next_wall_us for uid, state in self._state.jobs.items() if state.next_wall_us}
        self._heap = [(tick, uid) for uid, tick in self._heaped.items()]
        heapq.heapify(self._heap)

    def _push(self, tick: int, uid: int) -> None:
        if self._heaped.get(uid) != tick:
            self._heaped[uid] = tick
            heapq.heappush(self._heap, (tick, uid))

    def _pop(self) -> tuple[int, int]:
        tick, uid = heapq.heappop(self._heap)
        if self._heaped.get(uid) == tick:
            del self._heaped[uid]
        return tick, uid

    def touched(self, uids: set[int]) -> None:
        """An entry about these jobs was applied, or applied as nothing."""
        for uid in uids:
            state = self._state.jobs.get(uid)
            if state is None:
                self._schedules.pop(uid, None)
                self._undecided.pop(uid, None)
                continue
            if self._undecided.get(uid, 0) <= self._state.applied[0]:
                self._undecided.pop(uid, None)
            if state.next_wall_us:
                self._push(state.next_wall_us, uid)
            for key in self._held_owed.pop(uid, ()):
                heapq.heappush(self._owed_heap, (0, key))

    def owed(self, rows: list[Row]) -> None:
        """New owed runs among the rows of an applied entry."""
        for row in rows:
            if isinstance(row, OwedRow):
                heapq.heappush(self._owed_heap, (row.due_cluster_us, row.key))

    def clock_stepped(self) -> None:
        """A new clock epoch: cursors are set anew, in slices."""
        self._reseat = [uid for uid, state in self._state.jobs.items() if state.epoch != self._state.epoch]
        self._fill_heap()

    def schedule_of(self, state: JobState) -> Schedule:
        """The parsed schedule of a job; its @every phase is the job's creation."""
        known = self._schedules.get(state.uid)
        if known is None or known[0] != state.revision:
            parsed = grammar.parse(
                state.job.schedule,
                timezone=state.job.timezone,
                name=state.job.name,
                anchor_us=state.created_wall_us,
            )
            known = self._schedules[state.uid] = state.revision, parsed
        return known[1]

    # when

    def next_wakeup(self, now: Instant) -> int | None:
        """On the suspend-counting clock: when the next tick comes within the horizon or is due."""
        if self._reseat or (not self._state.paused and (self.more or self._reboot)):
            return now.boot_us
        wishes: list[int] = []
        self._drop_stale()
        if self._heap and not self._state.paused:
            tick, uid = self._heap[0]
            ahead_us = self._horizon_us if self._may_arm(self._state.jobs[uid]) else 0
            wishes.append(self._clock.boot_us(tick - ahead_us - self._clock.offset_us))
        if self._owed_heap and not self._state.paused:
            wishes.append(self._clock.boot_us(self._owed_heap[0][0]))
        return min(wishes, default=None)

    def _drop_stale(self) -> None:
        while self._heap and not self._current(*self._heap[0]):
            self._pop()

    def _current(self, tick: int, uid: int) -> bool:
        state = self._state.jobs.get(uid)
        return state is not None and state.next_wall_us == tick and uid not in self._undecided

    def _may_arm(self, state: JobState) -> bool:
        """Armed ahead is what allows overlap, or has nothing open."""
        return state.job.concurrency == "allow" or not self._state.is_busy(state)

    # deciding

    def decide(self, now: Instant) -> list[tuple[set[int], Entry]]:
        """Entries to propose now, at most a slice; `more` says whether there is more to do at once."""
        self.more = False
        proposals: list[tuple[set[int], Entry]] = []
        if self._reseat:
            proposals.append(self._reseat_some(now))
        if self._state.paused:
            return proposals
        intents: list[Intent] = []
        self._decide_reboots(now, intents, proposals)
        self._decide_owed(now, intents, proposals)
        self._decide_ticks(now, intents, proposals)
        cut = _cut(intents)
        return proposals + [({intent.uid for intent in some}, self.intents_entry(now, some)) for some in cut]

    def proposed(self, uids: set[int], index: int) -> None:
        """The entry about these jobs stands in the log at `index`: leave them alone until it is applied."""
        for uid in uids:
            self._undecided[uid] = index

    def intents_entry(self, now: Instant, intents: list[Intent], call: str = "") -> entries.Intents:
        """Intents stamped with the clocks."""
        return entries.Intents(self._clock.cluster_us(now), now.wall_us, self._clock.offset_us, tuple(intents), call)

    def _decide_ticks(self, now: Instant, intents: list[Intent], proposals: list[tuple[set[int], Entry]]) -> None:
        wall_us = self._clock.wall_us(now)
        blocked: list[tuple[int, int]] = []
        done = 0
        while self._heap and self._heap[0][0] - self._horizon_us <= wall_us:
            tick, uid = self._pop()
            if not self._current(tick, uid):
                continue
            state = self._state.jobs[uid]
            if tick > wall_us and not self._may_arm(state):
                blocked.append((tick, uid))
                continue
            proposals.extend(({uid}, entry) for entry in self._decide_tick(state, tick, now, intents))
            done += 1
            if done >= SLICE:
                self.more = True
                break
        for tick, uid in blocked:
            self._push(tick, uid)

    def _decide_tick(self, state: JobState, tick: int, now: Instant, intents: list[Intent]) -> list[Entry]:
        """What becomes of one tick, and of those missed after it."""
        wall_us = self._clock.wall_us(now)
        if tick <= self._state.recovered_wall_us:
            return [self._skip(state, tick, self._state.recovered_wall_us, "recovered", lost=True)]
        if until := next((until for since, until in self._state.pauses if since <= tick <= until), 0):
            return [self._skip(state, tick, min(until, wall_us), "paused")]
        once = self.schedule_of(state).kind == "at"  # "late by less than start_deadline: runs" (API.md, @at)
        recent_us = state.job.start_deadline_us if once else min(RECENT_US, state.job.start_deadline_us)
        if wall_us - tick > recent_us:
            return self._decide_missed(state, tick, now, intents)
        if not self._may_arm(state):
            return self._decide_overlap(state, tick)
        intents.append(self._intent(state, tick, now, "schedule"))
        return []

    def _decide_overlap(self, state: JobState, tick: int) -> list[Entry]:
        """A tick is due while the job still runs (PROTOCOL 6: forbid, queue, replace)."""
        policy = state.job.concurrency
        if policy == "queue" and not self._state.has_owed("queued", state.uid):
            return [self._queue(state, tick, "queued")]
        if policy == "replace" and not self._state.has_owed("replace", state.uid):
            return [self.stop_for(state), self._queue(state, tick, "replace")]
        return [self._skip(state, tick, tick, OVERLAP if policy == "forbid" else OVERLAP_WAITING)]

    def stop_for(self, state: JobState) -> entries.StopEntry:
        """Make way for a run that replaces what a job has open: executions, and retries that wait."""
        waiting = {row.run_id for row in self._state.owed_to(state.uid) if row.kind == "retry"}
        return entries.StopEntry(tuple(sorted(state.open_ids)), tuple(sorted(waiting)), kill=True)

    def _queue(self, state: JobState, tick: int, kind: str) -> entries.Queued:
        return entries.Queued(
            uid=state.uid,
            revision=state.revision,
            epoch=state.epoch,
            tick_wall_us=tick,
            next_wall_us=next_tick(self.schedule_of(state), state.job, tick),
            kind="queued" if kind == "queued" else "replace",
        )

    def _decide_missed(self, state: JobState, tick: int, now: Instant, intents: list[Intent]) -> list[Entry]:
        """Ticks that nobody could run in time: the catch-up policy says which are made up, the rest is one range."""
        schedule, wall_us = self.schedule_of(state), self._clock.wall_us(now)
        last = schedule.latest_before(wall_us, tick - 1) or tick
        if state.job.expires_at_wall_us:
            last = max(tick, min(last, schedule.latest_before(state.job.expires_at_wall_us, tick - 1) or tick))
        made_up = self._ticks_to_make_up(state, schedule, tick, last, wall_us)
        if not made_up:
            older = self._last_missed(state, schedule, tick, last, wall_us)
            return [self._skip(state, tick, older, "missed: nobody could run it in time")]
        first = made_up[0]
        if first == tick and not self._may_arm(state):
            return self._decide_overlap(state, tick)
        if first == tick:
            intents.append(self._intent(state, tick, now, "catch_up"))
            return []
        before = schedule.latest_before(first - 1, tick - 1) or tick
        return [self._skip(state, tick, before, "missed: a later tick makes up for it")]

    def _last_missed(self, state: JobState, schedule: Schedule, tick: int, last: int, wall_us: int) -> int:
        """The last tick that is too old to run merely late."""
        recent_us = min(RECENT_US, state.job.start_deadline_us)
        if wall_us - last > recent_us:
            return last
        return schedule.latest_before(wall_us - recent_us - 1, tick - 1) or tick

    def _ticks_to_make_up(self, state: JobState, schedule: Schedule, tick: int, last: int, wall_us: int) -> list[int]:
        """The missed ticks that run after all, oldest first; recent ones count as such for `latest`."""
        oldest = wall_us - state.job.start_deadline_us
        recent = wall_us - last <= min(RECENT_US, state.job.start_deadline_us)
        if state.job.catch_up == "skip" or last < oldest:
            return []
        if state.job.catch_up == "latest":
            return [] if recent else [last]
        ticks = [last]
        while len(ticks) < CATCH_UP_MOST:
            before = schedule.latest_before(ticks[-1] - 1, tick - 1)
            if before is None or before < oldest:
                break
            ticks.append(before)
        return ticks[::-1]

    def skip_paused(self, state: JobState, wall_us: int) -> entries.Skip:
        """What a pause has swallowed so far."""
        return self._skip(state, state.next_wall_us, wall_us, "paused")

    def _skip(self, state: JobState, from_us: int, to_us: int, reason: str, *, lost: bool = False) -> entries.Skip:
        schedule = self.schedule_of(state)
        last = schedule.latest_before(to_us, from_us - 1) or from_us
        count = 1 if last == from_us else schedule.count_between(from_us - 1, last, COUNT_MOST) or 0
        return entries.Skip(
            uid=state.uid,
            revision=state.revision,
            epoch=state.epoch,
            from_wall_us=from_us,
            to_wall_us=last,
            count=count,
            reason=reason,
            next_wall_us=next_tick(schedule, state.job, last),
            lost=lost,
        )

    def _intent(self, state: JobState, tick: int, now: Instant, trigger: Trigger) -> Intent:
        due_cluster_us = tick - self._clock.offset_us
        return self.build_intent(
            state,
            now,
            tick_wall_us=tick,
            due_cluster_us=due_cluster_us,
            trigger=trigger,
            next_wall_us=next_tick(self.schedule_of(state), state.job, tick),
        )

    def build_intent(
        self,
        state: JobState,
        now: Instant,
        *,
        tick_wall_us: int,
        due_cluster_us: int,
        trigger: Trigger,
        attempt: int = 1,
        next_wall_us: int = UNCHANGED,
        run_id: str = "",
        owed_key: str = "",
        env: dict[str, str] | None = None,
        retry_node: str = "",
    ) -> Intent:
        """An intent with its targets and its start_by. `retry_node`: which agent the attempt before it ran on."""
        targets, down = self._targets(state, retry_node) if attempt > 1 else select(state.job.tags, self.candidates)
        cluster_us = self._clock.cluster_us(now)
        window_us = max(due_cluster_us, cluster_us) + START_WINDOW_US
        scheduled = trigger in ("schedule", "catch_up")
        start_by = min(due_cluster_us + state.job.start_deadline_us, window_us) if scheduled else window_us
        return Intent(
            state.uid,
            state.revision,
            state.epoch,
            tick_wall_us,
            attempt,
            trigger,
            due_cluster_us,
            start_by,
            targets,
            next_wall_us,
            run_id,
            owed_key,
            "" if targets or down else "no agent matches its tags",
            env,
            down,
        )

    def _targets(self, state: JobState, node_id: str) -> Selected:
        """Where a retry runs: on the same agent, or where `retry_on` says so (or the agent is no member any more) on
        another one that matches."""
        member = self._state.member_of(node_id)
        same = [one for one in self.candidates if one.node_id == node_id]
        if member is not None and not same:
            # Not heard yet is not dead, unless it has been waited for long enough.
            same = [Candidate(member.number, {}, {}, failed=node_id in self.failed, node_id=node_id)]
        others = [one for one in self.candidates if one.node_id != node_id and not one.failed]
        if same and state.job.retry_on == "same":
            return select(None, same)
        targets, down = select(state.job.tags, others)
        if not targets and same:
            return select(None, same)
        return Selected(targets[:1], down[:1] if not targets else ())

    # owed runs, @reboot, reseating

    def _decide_owed(self, now: Instant, intents: list[Intent], proposals: list[tuple[set[int], Entry]]) -> None:
        cluster_us = self._clock.cluster_us(now)
        while self._owed_heap and self._owed_heap[0][0] <= cluster_us:
            if len(intents) >= SLICE:
                self.more = True
                return
            _, key = heapq.heappop(self._owed_heap)
            row = self._state.owed.get(key)
            state = self._state.jobs.get(row.uid) if row else None
            if row is None or state is None or row.kind in ("join", "late"):
                continue
            alone = not state.open_ids if row.kind == "retry" else self._may_arm(state)
            waits = not alone and state.job.concurrency != "allow"
            # `touched` puts it back: when it may run, and where the entry applied as nothing.
            self._held_owed.setdefault(row.uid, set()).add(key)
            if row.uid in self._undecided or (waits and row.kind != "child"):
                continue
            if waits:
                proposals += [({row.uid}, entry) for entry in self._decide_child(state, row, now, intents)]
            else:
                intents.append(self._owed_intent(state, row, now))

    def _owed_intent(self, state: JobState, row: OwedRow, now: Instant) -> Intent:
        return self.build_intent(
            state,
            now,
            tick_wall_us=row.scheduled_wall_us,
            due_cluster_us=max(row.due_cluster_us, self._clock.cluster_us(now)),
            trigger=row.trigger,  # type: ignore[arg-type] # our own rows
            attempt=row.attempt,
            run_id=row.run_id,
            owed_key=row.key,
            env=json.loads(row.env) if row.env else None,
            retry_node=row.node_id,
        )

    def _decide_child(self, state: JobState, row: OwedRow, now: Instant, intents: list[Intent]) -> list[Entry]:
        """Its parent has ended and it still runs itself: forbid, queue and replace hold as for a tick."""
        policy = state.job.concurrency
        kind: Literal["queued", "replace"] = "replace" if policy == "replace" else "queued"
        if policy == "forbid" or self._state.has_owed(kind, state.uid):
            reason = OVERLAP if policy == "forbid" else OVERLAP_WAITING
            intents.append(replace(self._owed_intent(state, row, now), targets=(), down=(), reason=reason))
            return []
        queued = entries.Queued(
            uid=state.uid,
            revision=state.revision,
            epoch=state.epoch,
            tick_wall_us=row.scheduled_wall_us,
            next_wall_us=UNCHANGED,
            kind=kind,
            trigger="parent",
            run_id=row.run_id,
            owed_key=row.key,
        )
        return [self.stop_for(state), queued] if policy == "replace" else [queued]

    def _decide_reboots(self, now: Instant, intents: list[Intent], proposals: list[tuple[set[int], Entry]]) -> None:
        some, self._reboot = self._reboot[:SLICE], self._reboot[SLICE:]
        self.more = self.more or bool(self._reboot)
        for uid in some:
            state = self._state.jobs.get(uid)
            if state is None or state.job.disabled:
                continue
            tick, run_id = self._clock.wall_us(now) // SECOND_US * SECOND_US, f"{uid}-b{self._start_run}"
            policy = state.job.concurrency
            kind: Literal["queued", "replace"] = "replace" if policy == "replace" else "queued"
            if self._may_arm(state) or policy == "forbid" or self._state.has_owed(kind, uid):
                intent = self.build_intent(
                    state,
                    now,
                    tick_wall_us=tick,
                    due_cluster_us=self._clock.cluster_us(now),
                    trigger="reboot",
                    run_id=run_id,
                )
                if not self._may_arm(state):
                    intent = replace(intent, targets=(), down=(), reason=OVERLAP)
                intents.append(intent)
                continue
            if policy == "replace":
                proposals.append(({uid}, self.stop_for(state)))
            queued = entries.Queued(
                uid=uid,
                revision=state.revision,
                epoch=state.epoch,
                tick_wall_us=tick,
                next_wall_us=UNCHANGED,
                kind=kind,
                trigger="reboot",
                run_id=run_id,
            )
            proposals.append(({uid}, queued))

    def _reseat_some(self, now: Instant) -> tuple[set[int], Entry]:
        """New cursors in a new clock epoch: wildcard jobs go on from the new time, fixed-time ones keep a cursor that
        lies less than 3 h ahead."""
        some, self._reseat = self._reseat[:SLICE], self._reseat[SLICE:]
        wall_us = self._clock.wall_us(now)
        items: list[tuple[int, int, int, int, int]] = []
        for uid in some:
            state = self._state.jobs.get(uid)
            if state is None:
                continue
            schedule = self.schedule_of(state)
            keeps = schedule.follows_wall_clock and state.cursor_wall_us - wall_us < RESEAT_STEP_US
            cursor = state.cursor_wall_us if keeps else min(state.cursor_wall_us, wall_us)
            items.append((uid, state.revision, self._state.epoch, cursor, next_tick(schedule, state.job, cursor)))
        return {item[0] for item in items}, entries.Reseat(tuple(items))
