"""One agent in virtual time: a disk that delays and forgets, processes that outlive crashes, clocks that step.

Everything random comes from one seed. A crash may fall between any two effects.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise

import msgspec

from meshcron import commands, rows
from meshcron.chain import chain
from meshcron.core import effects, events
from meshcron.core import schedule as grammar
from meshcron.core.agent import Agent
from meshcron.core.effects import Effect
from meshcron.core.events import Event, SnapshotArrived
from meshcron.core.settings import Settings
from meshcron.model import SECOND_US, Ending, Execution, Instant, Job
from meshcron.rows import BallotRow, Loaded, LogRow, MarkRow

START_WALL_US = 1_800_000_000 * SECOND_US
NODE = "a" * 32


class Disk:
    """What is durable: rows by table and key, as SQLite would hold them."""

    def __init__(self) -> None:
        self.log: dict[int, LogRow] = {}
        self.last_index = 0
        self.offered: tuple[dict[str, Execution], int] = ({}, 0)
        self.tables: dict[str, dict[object, rows.Row]] = defaultdict(dict)
        self.executions: dict[str, Execution] = {}
        self.ballot = BallotRow(0, "")
        self.mark = MarkRow(0, 0, 0)
        self.taken: set[str] = set()
        """Every execution that ever had a `seen` row: one group may write and forget it."""
        self.left: dict[int, int] = {}
        """By term: how far the log went when the next one was entered. One group may write entries of a term and cut
        them off in a later one; their acknowledgement is late then, and no lie."""

    def write(self, some: tuple[rows.Row, ...]) -> None:
        for row in some:
            self._write(row)

    def _write(self, row: rows.Row) -> None:  # noqa: C901, PLR0912 - one arm a kind of row
        match row:
            case rows.LogRow():
                last = self.last_index or row.index - 1
                assert row.index <= last + 1, "the log has a gap"
                for index in range(row.index, last + 1):
                    del self.log[index]
                self.log[row.index] = row
                self.last_index = row.index
            case rows.LogCut():
                self.log = {index: kept for index, kept in self.log.items() if index > row.index}
            case rows.BallotRow():
                before = self.ballot
                again = row.term == before.term and before.voted_for in ("", row.voted_for)
                assert row.term > before.term or again, f"2: a second vote in term {row.term}"
                if row.term > before.term:
                    self.left[before.term] = self.last_index
                self.ballot = row
            case rows.MarkRow():
                fence, old = (row.generation, row.term), (self.mark.generation, self.mark.term)
                if self.mark.cluster in ("", row.cluster):
                    assert row.cluster_us >= self.mark.cluster_us, "the mark of cluster time fell"
                    assert fence >= old, "9: the fence fell"
                self.mark = row
            case rows.MetaRow():
                self.tables["meta"][row.key] = row
            case rows.JobRow():
                self.tables["jobs"][row.uid, row.revision] = row
            case rows.JobStateRow():
                self.tables["job_states"][row.uid] = row
            case rows.ExecutionRow():
                self.executions[row.execution.id] = row.execution
            case rows.OwedRow():
                self.tables["owed"][row.key] = row
            case rows.CallRow():
                self.tables["calls"][row.key] = row
            case rows.MemberRow():
                self.tables["members"][row.member.node_id] = row
            case rows.TokenRow():
                self.tables["tokens"][row.token.id] = row
            case rows.SeenRow():
                self.tables["seen"][row.execution_id] = row
                self.taken.add(row.execution_id)
            case rows.SpecRow():
                self.tables["specs"][row.digest] = row
            case rows.Drop():
                for key in row.keys:
                    if row.table == "executions":
                        self.executions.pop(str(key), None)
                    else:
                        self.tables[row.table].pop(key, None)
            case rows.DropHistory():
                self._drop_history(row)

    def install(self, snapshot: SnapshotArrived) -> None:
        """A snapshot in the place of catalog and log."""
        executions, index = self.offered
        assert index == snapshot.index
        kept = {name: self.tables[name] for name in ("seen", "specs")}
        self.tables = defaultdict(dict, kept)
        self.executions = dict(executions)
        self.log.clear()
        self.last_index = snapshot.index
        catalog = snapshot.catalog
        self.write(tuple(rows.MetaRow(key, value) for key, value in catalog.meta.items()))
        self.write((*catalog.jobs, *catalog.job_states, *catalog.owed, *catalog.calls))
        self.write(tuple(rows.MemberRow(member) for member in catalog.members))
        self.write(tuple(rows.TokenRow(token) for token in catalog.tokens))

    def says_of(self, execution_id: str) -> str:
        """The state of an execution as its agent has written it down; "" = it has not."""
        row = self.tables["seen"].get(execution_id)
        return row.state if isinstance(row, rows.SeenRow) else ""

    def is_whole(self) -> bool:
        """Whether the chain of checksums holds, as the store looks at it before each start (store/log.py)."""
        kept = [self.log[index] for index in sorted(self.log)]
        return all(
            row.index == before.index + 1 and row.crc == chain(before.crc, row.index, row.term, row.body)
            for before, row in pairwise(kept)
        )

    def _drop_history(self, row: rows.DropHistory) -> None:
        final = [one for one in self.executions.values() if one.uid == row.uid and one.status.final]
        final.sort(key=lambda one: (one.index, one.id), reverse=True)
        for at, one in enumerate(final):
            ended = one.finished_wall_us or one.scheduled_wall_us
            if at >= row.keep_newest or ended < row.before_wall_us:
                del self.executions[one.id]

    def load(self) -> Loaded:
        """As an agent reads it at start."""

        def table(name: str) -> list[rows.Row]:
            return [self.tables[name][key] for key in sorted(self.tables[name], key=str)]

        meta = {row.key: row.value for row in table("meta") if isinstance(row, rows.MetaRow)}
        return Loaded(
            ballot=self.ballot,
            log=[self.log[index] for index in sorted(self.log)],
            meta=meta,
            jobs=table("jobs"),  # type: ignore[arg-type]
            job_states=table("job_states"),  # type: ignore[arg-type]
            open_executions=sorted(
                (one for one in self.executions.values() if not one.status.final), key=lambda one: one.id
            ),
            owed=table("owed"),  # type: ignore[arg-type]
            members=[row.member for row in table("members") if isinstance(row, rows.MemberRow)],
            tokens=[row.token for row in table("tokens") if isinstance(row, rows.TokenRow)],
            calls=table("calls"),  # type: ignore[arg-type]
            seen=table("seen"),  # type: ignore[arg-type]
            specs=table("specs"),  # type: ignore[arg-type]
            mark=self.mark,
        )


class World:
    """A seed's whole run."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.boot_us = 1_000_000_000
        self.wall_shift_us = START_WALL_US - self.boot_us
        self.disk = Disk()
        self.starts: Counter[str] = Counter()
        self.started_for: dict[str, int] = {}
        self.alive: dict[str, int] = {}
        self.ended: dict[str, Ending] = {}
        self.queue: list[tuple[int, int, int, Callable[[], None]]] = []
        self.order = 0
        self.session = 0
        self._agent: Agent | None = None
        self.answers: dict[str, object] = {}
        self.records: dict[str, set[str]] = defaultdict(set)
        self.events = 0
        self.crash_chance = 0.0
        self.settled_us = 0
        self._pid = 100

    # time

    @property
    def is_up(self) -> bool:
        """Whether the agent runs."""
        return self._agent is not None

    @property
    def agent(self) -> Agent:
        """The one that runs; there has to be one."""
        assert self._agent is not None, "the agent is down"
        return self._agent

    def now(self) -> Instant:
        return Instant(self.boot_us, self.boot_us + self.wall_shift_us)

    def later(self, delay_us: int, act: Callable[[], None], session: int = -1) -> None:
        """Have something happen; with a session only while that session of the agent lives."""
        self.order += 1
        heapq.heappush(self.queue, (self.boot_us + delay_us, self.order, session, act))

    def run_for(self, seconds: float) -> None:
        until = self.boot_us + int(seconds * SECOND_US)
        while True:
            wake = self.agent.next_wakeup(self.now()) if self.is_up else until
            head = self.queue[0][0] if self.queue else until
            when = max(self.boot_us, min(wake, head))
            if when > until:
                break
            self.boot_us = when
            if self.queue and head <= when:
                _, _, session, act = heapq.heappop(self.queue)
                if session in (-1, self.session):
                    act()
            elif self.is_up:
                # A turn takes time: without it a machine that asks to be woken at once would stop the clock.
                self.boot_us += 20
                self.give(events.Woke())
            if when >= until:
                break
        self.boot_us = max(self.boot_us, until)

    # the agent

    def start(self) -> None:
        self.session += 1
        settings = Settings(
            node_id=NODE,
            name="one",
            session=self.session,
            tags={"role": "web"},
            facts={},
            slots=4,
            horizon_us=3 * SECOND_US,
            cluster="c" * 32,
            tokens=(),
        )
        self.durable = 0
        self.held: list[Effect] = []
        self.disk_free_us = self.boot_us
        self._agent = Agent(settings, self.disk.load())
        self.perform(self.agent.start(self.now()))

    def crash(self) -> None:
        """All that was not persisted is gone; processes run on."""
        self._agent = None
        self.session += 1

    def give(self, event: Event) -> None:
        if self._agent is None:
            return
        self.events += 1
        wanted = self.agent.handle(event, self.now())
        self.agent.check()
        self.perform(wanted)
        if isinstance(event, events.Persisted) and self._agent is not None:
            self.durable = max(self.durable, event.n)
            ready = [effect for effect in self.held if effect.after <= self.durable]  # type: ignore[union-attr]
            self.held = [effect for effect in self.held if effect.after > self.durable]  # type: ignore[union-attr]
            self.perform(ready)

    def perform(self, wanted: list[Effect]) -> None:
        for effect in wanted:
            if self._agent is None:
                return
            if self.crash_chance and self.random.random() < self.crash_chance:
                self.crash()
                return
            if getattr(effect, "after", 0) > self.durable:
                self.held.append(effect)
            else:
                self.do(effect)

    def do(self, effect: Effect) -> None:
        session = self.session
        match effect:
            case effects.Persist():
                # One disk, in order: a group is durable some time after the one before it.
                delay = self.random.choice((150, 200, 400, 3_000, 60_000))
                self.disk_free_us = max(self.disk_free_us, self.boot_us) + delay

                def durable(n: int = effect.n, some: tuple[rows.Row, ...] = effect.rows) -> None:
                    self.disk.write(some)
                    if self.crash_chance and self.random.random() < self.crash_chance:
                        self.crash()  # durable, and nobody was told
                        return
                    self.give(events.Persisted(n))

                self.later(self.disk_free_us - self.boot_us, durable, session)
            case effects.Send():
                self.later(5, lambda: self.give(events.MessageReceived(NODE, effect.message)), session)
            case effects.Answer():
                self.answers[effect.call_id] = effect.outcome
            case effects.StartProcess():
                self.spawn(effect.launch.execution_id)
            case effects.AdoptProcess():
                self.later(50, lambda: self.adopt(effect.execution_id), session)
            case effects.SignalProcess():
                self.later(1000, lambda: self.end(effect.execution_id, None, 15), -1)
            case effects.ForgetProcess() | effects.Alarm():
                pass
            case effects.Halt():
                raise AssertionError(effect.why)

    # processes

    def spawn(self, execution_id: str) -> None:
        self.starts[execution_id] += 1
        assert self.starts[execution_id] == 1, f"P1: {execution_id} started twice"
        assert self.disk.says_of(execution_id) == "starting", "8: a start that was not written down as one"
        self._pid += 1
        self.alive[execution_id] = self._pid
        session, pid = self.session, self._pid
        self.later(
            300,
            lambda: self.give(events.ProcessStarted(execution_id, pid, self.boot_us // 10_000, self.now().wall_us)),
            session,
        )
        code = 0 if self.random.random() < 0.8 else 1
        self.later(self.random.choice((500, 2_000, 800_000, 4 * SECOND_US)), lambda: self.end(execution_id, code, None))

    def end(self, execution_id: str, code: int | None, signal: int | None) -> None:
        if execution_id not in self.alive:
            return
        del self.alive[execution_id]
        ending = Ending(
            exit_code=code,
            signal=signal,
            finished_wall_us=self.now().wall_us,
            output_tail="",
            output_bytes=0,
            output_truncated=False,
        )
        self.ended[execution_id] = ending
        self.later(400, lambda: self.give(events.ProcessEnded(execution_id, ending)), self.session)

    def adopt(self, execution_id: str) -> None:
        if execution_id in self.alive:
            pid = self.alive[execution_id]
            self.give(events.ProcessStarted(execution_id, pid, self.boot_us // 10_000, self.now().wall_us))
        elif execution_id in self.ended:
            self.give(events.ProcessEnded(execution_id, self.ended[execution_id], self.now().wall_us))
        else:
            self.give(events.ProcessLost(execution_id, "no process and no status"))

    # people

    def ask(self, call_id: str, command: commands.Command) -> None:
        self.give(events.Proposed(call_id, command))

    def put(self, job: Job) -> None:
        self.ask(f"put-{job.name}-{self.order}", commands.PutJob(job))


def unaccounted_ticks(disk: Disk, uid: int, until_wall_us: int) -> list[int]:
    """Ticks of a job up to an instant that have no record, or more than one, on the disk."""
    state_row = disk.tables["job_states"][uid]
    assert isinstance(state_row, rows.JobStateRow)
    job_row = next(row for row in disk.tables["jobs"].values() if isinstance(row, rows.JobRow) and row.uid == uid)
    job = msgspec.json.decode(job_row.definition, type=Job)
    schedule = grammar.parse(job.schedule, name=job.name, anchor_us=job_row.created_wall_us)
    runs: Counter[str] = Counter()
    ranges: list[tuple[int, int]] = []
    singles: dict[int, set[str]] = defaultdict(set)
    for one in disk.executions.values():
        if one.uid != uid or one.trigger not in ("schedule", "catch_up", "retry"):
            continue
        if one.count != 1 or (one.until_wall_us and one.until_wall_us != one.scheduled_wall_us):
            ranges.append((one.scheduled_wall_us, one.until_wall_us))
        else:
            singles[one.scheduled_wall_us].add(one.run_id)
            runs[one.run_id] += 1
    wrong: list[int] = []
    tick = schedule.next_after(job_row.created_wall_us)
    while tick is not None and tick <= until_wall_us:
        records = len(singles.get(tick, ())) + sum(first <= tick <= last for first, last in ranges)
        if records != 1:
            wrong.append(tick)
        tick = schedule.next_after(tick)
    return wrong
