"""Leader: which ticks are due, what becomes of late and overlapping ones, arming ahead (PROTOCOL 6, API.md Jobs).

Every decision becomes an entry; the catalog checks it again when it is applied. Until then the job is `_undecided` and
left alone.
"""

from __future__ import annotations

import heapq
import json

from msgspec.structs import replace

from meshcron import entries
from meshcron.core import missed
from meshcron.core import schedule as grammar
from meshcron.core.clocks import ClusterClock
from meshcron.core.intents import INTENTS_BYTES_MAX, Intents
from meshcron.core.overlap import judge, make_way, may_run
from meshcron.core.pieces import json_bytes, pieces
from meshcron.core.schedule import Schedule
from meshcron.core.state import JobState, State
from meshcron.entries import UNCHANGED, Entry, Intent
from meshcron.model import SECOND_US, Instant, Job, Trigger
from meshcron.rows import OwedRow, Row

SLICE = 100
"""Jobs decided in one turn: at up to 150 us each (croniter) that is under the 20 ms of a turn (PROTOCOL 8). Missed
ticks that are looked for or counted one by one are charged like jobs."""

COUNT_MOST = 100
"""How far missed ticks of a range are counted one by one; there is no count of more (PROTOCOL 6: where it is cheap)."""

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


class Scheduler:
    """Decides ticks as they fall due within the horizon, in slices."""

    def __init__(self, state: State, clock: ClusterClock, intents: Intents, horizon_us: int) -> None:
        self._state = state
        self._clock = clock
        self._intents = intents
        # Ticks fall on whole seconds: half a second off, arming does not compete with what starts then.
        self._horizon_us = horizon_us - min(horizon_us // 6, SECOND_US // 2)
        self._schedules: dict[int, tuple[int, Schedule]] = {}
        self._heap: list[tuple[int, int]] = []
        self._heaped: dict[int, int] = {}
        """The tick of each job that stands in the heap: once each."""
        self._owed_heap: list[tuple[int, str]] = []
        self._undecided: dict[int, int] = {}
        self._held_owed: dict[int, set[str]] = {}
        self._reseat: list[int] = []
        self._spent = 0
        """What this turn has decided, in jobs (SLICE)."""
        self.more = False

    # what changed

    def lead(self) -> None:
        """Take over: every job is looked at anew."""
        self._undecided.clear()
        self._fill_heap()
        self._held_owed.clear()
        self._owed_heap = [(row.due_cluster_us, key) for key, row in self._state.owed.items()]
        heapq.heapify(self._owed_heap)
        self._reseat = [uid for uid, state in self._state.jobs.items() if state.epoch != self._state.epoch]

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
        if self._reseat or (self.more and not self._state.paused):
            return now.boot_us
        wishes: list[int] = []
        self._drop_stale()
        if self._heap and not self._state.paused:
            tick, uid = self._heap[0]
            ahead_us = self._horizon_us if may_run(self._state, self._state.jobs[uid]) else 0
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
        self._spent = 0
        self._decide_owed(now, intents, proposals)
        self._decide_ticks(now, intents, proposals)
        cut = pieces(intents, json_bytes, INTENTS_BYTES_MAX)
        return proposals + [({intent.uid for intent in some}, self._intents.entry(now, some)) for some in cut]

    def proposed(self, uids: set[int], index: int) -> None:
        """The entry about these jobs stands in the log at `index`: leave them alone until it is applied."""
        for uid in uids:
            self._undecided[uid] = index

    def _decide_ticks(self, now: Instant, intents: list[Intent], proposals: list[tuple[set[int], Entry]]) -> None:
        wall_us = self._clock.wall_us(now)
        blocked: list[tuple[int, int]] = []
        while self._heap and self._heap[0][0] - self._horizon_us <= wall_us:
            tick, uid = self._pop()
            if not self._current(tick, uid):
                continue
            state = self._state.jobs[uid]
            if tick > wall_us and not may_run(self._state, state):
                blocked.append((tick, uid))
                continue
            proposals.extend(({uid}, entry) for entry in self._decide_tick(state, tick, now, intents))
            self._spent += 1
            if self._spent >= SLICE:
                self.more = True
                break
        for tick, uid in blocked:
            self._push(tick, uid)

    def _decide_tick(self, state: JobState, tick: int, now: Instant, intents: list[Intent]) -> list[Entry]:
        """What becomes of one tick, and of those missed after it."""
        wall_us = self._clock.wall_us(now)
        until_us, index = self._state.recovered
        if tick <= until_us and state.uid < index:
            return [self._skip(state, tick, until_us, "recovered", lost=True)]
        if until := next((until for since, until in self._state.pauses if since <= tick <= until), 0):
            return [self._skip(state, tick, min(until, wall_us), "paused")]
        if wall_us - tick > missed.recent_us(state.job, self.schedule_of(state)):
            return self._decide_missed(state, tick, now, intents)
        return self._run_or_wait(state, tick, now, intents, "schedule")

    def _run_or_wait(
        self, state: JobState, tick: int, now: Instant, intents: list[Intent], trigger: Trigger
    ) -> list[Entry]:
        """A tick runs, unless the job still does (PROTOCOL 6: forbid, queue, replace)."""
        verdict = judge(self._state, state)
        if verdict.what == "run":
            self._launch(self._tick_intent(state, tick, now, trigger), intents)
            return []
        if verdict.what == "skip":
            return [self._skip(state, tick, tick, verdict.reason)]
        queued = entries.Queued(
            uid=state.uid,
            revision=state.revision,
            epoch=state.epoch,
            tick_wall_us=tick,
            next_wall_us=next_tick(self.schedule_of(state), state.job, tick),
            kind=verdict.what,
        )
        return list(make_way(self._state, state, queued))

    def _decide_missed(self, state: JobState, tick: int, now: Instant, intents: list[Intent]) -> list[Entry]:
        """Ticks that nobody could run in time: the catch-up policy says which are made up, the rest is one range."""
        job, schedule, wall_us = state.job, self.schedule_of(state), self._clock.wall_us(now)
        last = missed.last_due(job, schedule, tick, wall_us)
        made_up = missed.made_up(job, schedule, tick, last, wall_us)
        self._spent += len(made_up)
        if not made_up:
            older = missed.last_missed(job, schedule, tick, last, wall_us)
            return [self._skip(state, tick, older, "missed: nobody could run it in time")]
        if made_up[0] == tick:
            return self._run_or_wait(state, tick, now, intents, "catch_up")
        before = schedule.latest_before(made_up[0] - 1, tick - 1) or tick
        return [self._skip(state, tick, before, "missed: a later tick makes up for it")]

    def skip_paused(self, state: JobState, wall_us: int) -> entries.Skip:
        """What a pause has swallowed so far."""
        return self._skip(state, state.next_wall_us, wall_us, "paused")

    def _skip(self, state: JobState, from_us: int, to_us: int, reason: str, *, lost: bool = False) -> entries.Skip:
        schedule = self.schedule_of(state)
        last = schedule.latest_before(to_us, from_us - 1) or from_us
        count = 1 if last == from_us else schedule.count_between(from_us - 1, last, COUNT_MOST) or 0
        if schedule.kind == "cron":
            self._spent += count or COUNT_MOST
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

    def _launch(self, intent: Intent, intents: list[Intent]) -> None:
        intents.append(intent)
        self._intents.decided((intent,))

    def _tick_intent(self, state: JobState, tick: int, now: Instant, trigger: Trigger) -> Intent:
        return self._intents.build(
            state,
            now,
            tick_wall_us=tick,
            due_cluster_us=tick - self._clock.offset_us,
            trigger=trigger,
            next_wall_us=next_tick(self.schedule_of(state), state.job, tick),
        )

    # owed runs, reseating

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
            alone = not state.open_ids if row.kind == "retry" else may_run(self._state, state)
            waits = not alone and state.job.concurrency != "allow"
            # `touched` puts it back: when it may run, and where the entry applied as nothing.
            self._held_owed.setdefault(row.uid, set()).add(key)
            comes_anew = row.kind in ("child", "reboot")
            if row.uid in self._undecided or (waits and not comes_anew):
                continue
            if waits:
                proposals += [({row.uid}, entry) for entry in self._decide_waiting(state, row, now, intents)]
            else:
                self._launch(self._owed_intent(state, row, now), intents)

    def _owed_intent(self, state: JobState, row: OwedRow, now: Instant) -> Intent:
        return self._intents.build(
            state,
            now,
            tick_wall_us=row.scheduled_wall_us,
            due_cluster_us=max(row.due_cluster_us, self._clock.cluster_us(now)),
            trigger=row.trigger,  # type: ignore[arg-type] # our own rows
            attempt=row.attempt,
            run_id=row.run_id,
            owed_key=row.key,
            env=json.loads(row.env) if row.env else None,
            node_id=row.node_id,
        )

    def _decide_waiting(self, state: JobState, row: OwedRow, now: Instant, intents: list[Intent]) -> list[Entry]:
        """A child whose parent has ended, or the run of a start, and the job still runs: as for a tick."""
        verdict = judge(self._state, state)
        if verdict.what == "skip":
            intent = self._owed_intent(state, row, now)
            intents.append(replace(intent, targets=(), down=(), reason=verdict.reason))
            return []
        assert verdict.what != "run", "it waits for what is over"
        queued = entries.Queued(
            uid=state.uid,
            revision=state.revision,
            epoch=state.epoch,
            tick_wall_us=row.scheduled_wall_us,
            next_wall_us=UNCHANGED,
            kind=verdict.what,
            trigger=row.trigger,  # type: ignore[arg-type] # our own rows
            run_id=row.run_id,
            owed_key=row.key,
            node_id=row.node_id,
        )
        return list(make_way(self._state, state, queued))

    def _reseat_some(self, now: Instant) -> tuple[set[int], Entry]:
        """New cursors in a new clock epoch: wildcard jobs go on from the new time, fixed-time ones keep theirs over a
        step of less than 3 h."""
        some, self._reseat = self._reseat[:SLICE], self._reseat[SLICE:]
        wall_us = self._clock.wall_us(now)
        items: list[tuple[int, int, int, int, int]] = []
        for uid in some:
            state = self._state.jobs.get(uid)
            if state is None:
                continue
            schedule = self.schedule_of(state)
            keeps = schedule.follows_wall_clock and self._state.stepped_us < RESEAT_STEP_US
            cursor = state.cursor_wall_us if keeps else min(state.cursor_wall_us, wall_us)
            items.append((uid, state.revision, self._state.epoch, cursor, next_tick(schedule, state.job, cursor)))
        return {item[0] for item in items}, entries.Reseat(tuple(items))
