"""Logs of all kinds of entries, drawn at random and mostly sensible: for the properties of state and catalog."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from meshcron import entries
from meshcron.core.state import JobState
from meshcron.messages import ResultKind, StartedItem
from meshcron.model import SECOND_US, Execution, Token
from meshcron.rows import OwedRow
from tests.unit.core.book import Book
from tests.unit.core.disk import START_WALL_US, member, second

NAMES = ("a", "b", "c")
POLICIES = ("allow", "forbid", "queue", "replace")
WHENS = ("success", "failure", "always")
KINDS: tuple[ResultKind, ...] = ("ended", "ended", "ended", "timeout", "killed", "failed", "lost", "skipped")

Draw = st.DataObject


class RandomLog:
    """A book of two members, written on by one random step after another."""

    def __init__(self, data: Draw) -> None:
        self.book = Book(members=2)
        self._data = data

    def write(self, steps: int) -> None:
        acts = [self._put, self._launch, self._launch, self._launch_owed, self._launch_owed, self._end, self._end]
        acts += [self._end, self._started, self._delete, self._stop, self._pause, self._prune, self._skip, self._queue]
        acts += [self._step_clock, self._reseat, self._token, self._noop, self._change_roster]
        for _ in range(steps):
            self._of(acts)()

    def _of(self, some: Any) -> Any:
        return self._data.draw(st.sampled_from(some))

    def _chance(self) -> bool:
        return bool(self._data.draw(st.booleans()))

    def _job(self) -> JobState | None:
        jobs = sorted(self.book.state.jobs.items())
        return self._of(jobs)[1] if jobs else None

    def _open(self) -> Execution | None:
        found = sorted(self.book.state.open.items())
        return self._of(found)[1] if found else None

    @staticmethod
    def _cursor(job: JobState) -> int:
        return (job.cursor_wall_us - START_WALL_US) // SECOND_US

    # jobs

    def _put(self) -> None:
        name = self._of(NAMES)
        old = self.book.state.named(name)
        parents = tuple(other for other in NAMES if other < name and self.book.state.named(other) and self._chance())
        self.book.put(
            name,
            cursor=self._cursor(old) if old else 0,
            command=self._of(("true", "false")),
            disabled=self._of((False, False, True)),
            concurrency=self._of(POLICIES),
            retries=self._of((0, 2)),
            retry_delay_us=self._of((0, SECOND_US)),
            on_lost=self._of(("lost", "rerun")),
            parent_jobs=parents,
            when=self._of(WHENS),
        )

    def _delete(self) -> None:
        if job := self._job():
            stale = self._of((0, 0, 1))
            self.book.apply(entries.JobDelete(job.uid, job.revision - stale))

    # ticks

    def _launch(self) -> None:
        job = self._job()
        if job is None:
            return
        trigger = self._of(("schedule", "manual"))  # a tick takes the cursor along, or it would be decided twice
        intent = self.book.intent(
            self._cursor(job) + self._of((1, 1, 2, 0)),
            job.job.name,
            epoch=job.epoch,
            targets=self._of(((), (1,), (2,), (1, 2))),
            reason="nobody",
            trigger=trigger,
            moves=trigger == "schedule",
            env=self._of((None, {"A": "1"})),
        )
        self.book.apply(self.book.intents(intent))

    def _launch_owed(self) -> None:
        rows: list[OwedRow] = [row for row in self.book.owed if row.kind != "join"]
        if rows:
            self.book.launch_owed(self._of(rows).key, targets=self._of(((1,), (1, 2))))

    def _skip(self) -> None:
        if job := self._job():
            first = self._cursor(job) + 1
            self.book.apply(
                entries.Skip(
                    uid=job.uid,
                    revision=job.revision,
                    epoch=job.epoch,
                    from_wall_us=second(first),
                    to_wall_us=second(first + 3),
                    count=4,
                    reason="missed",
                    next_wall_us=second(first + 4),
                    lost=self._chance(),
                )
            )

    def _queue(self) -> None:
        if job := self._job():
            tick = self._cursor(job) + self._of((0, 1))
            self.book.queue(
                tick, self._of(("queued", "replace")), name=job.job.name, moves=self._chance(), epoch=job.epoch
            )

    def _reseat(self) -> None:
        if job := self._job():
            cursor = self._cursor(job) - self._of((0, 60))
            self.book.apply(
                entries.Reseat(
                    ((job.uid, job.revision, self.book.state.epoch, second(cursor), second(cursor + 1)),),
                )
            )

    # executions

    def _end(self) -> None:
        if execution := self._open():
            self.book.end(execution, self._of(KINDS), success=self._chance())

    def _started(self) -> None:
        if execution := self._open():
            self.book.apply(entries.Started((StartedItem(execution.id, second(1)),)))

    def _stop(self) -> None:
        execution = self._open()
        ids = (execution.id,) if execution else ()
        runs = {row.run_id for row in self.book.state.owed.values()} | ({execution.run_id} if execution else set())
        some = (self._of(sorted(runs)),) if runs and self._chance() else ()
        self.book.apply(entries.StopEntry(ids, some, kill=self._chance(), call=self._of(("", "x"))))

    # the cluster

    def _pause(self) -> None:
        self.book.apply(entries.Pause(self._chance(), second(self.book.index)))

    def _prune(self) -> None:
        if job := self._job():
            self.book.apply(entries.Prune(job.uid, self._of((0, 1, 3)), clear=self._chance()))

    def _step_clock(self) -> None:
        offset = self.book.state.clock[2]
        to = offset + self._of((-60, 60)) * SECOND_US
        self.book.apply(entries.ClockStep(second(self.book.index), second(self.book.index), offset, to))

    def _noop(self) -> None:
        self.book.apply(entries.Noop(second(self.book.index), second(self.book.index), self.book.state.clock[2]))

    def _change_roster(self) -> None:
        change = self._of((2, 3))
        self.book.apply(
            self._of(
                (
                    entries.MemberPut(replace(member(change), priority=self.book.index), (self._local_token(change),)),
                    entries.MemberPut(replace(member(change), name="agent1"), replaces=self._of((-1, 1))),
                    entries.MemberRemove(change, second(self.book.index)),
                    entries.Roster((member(1).node_id, member(change).node_id)),
                    entries.Roster((member(1).node_id,)),
                    entries.HandOver(member(change).node_id, second(60 * self.book.index)),
                )
            )
        )

    @staticmethod
    def _local_token(number: int) -> Token:
        node_id = member(number).node_id
        return Token(
            id=f"local{number}", name=f"local{number}", role="admin", sha256="11", created_wall_us=1, node_id=node_id
        )

    def _token(self) -> None:
        id_ = self._of(("t1", "t2", "t3"))
        if self._chance():
            self.book.apply(
                entries.TokenPut(
                    Token(id=id_, name=self._of(("n1", "n2")), role="viewer", sha256="00", created_wall_us=1)
                )
            )
        else:
            self.book.apply(entries.TokenRevoke(id_))
