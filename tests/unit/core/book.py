"""A catalog fed by hand, entry by entry: after each one the rows on its disk must come to the state in memory."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Literal

import msgspec

from meshcron import entries
from meshcron.core.catalog import Catalog
from meshcron.core.fold import Applied
from meshcron.core.state import State
from meshcron.core.voter import Committed
from meshcron.entries import UNCHANGED, Entry, Intent
from meshcron.messages import ResultItem, ResultKind
from meshcron.model import SECOND_US, Execution, Job, Trigger
from meshcron.rows import OwedRow
from tests.unit.core.disk import CLUSTER, START_WALL_US, TOKEN, Disk, contents, ending, member, second, shown


class Book:
    """A catalog with its rows on a disk, fed as a log would."""

    def __init__(self, members: int = 1) -> None:
        self.disk = Disk()
        self.state = State()
        self.index = 0
        self.said: list[Entry] = []
        self.wrote: list[list[bytes]] = []
        """The rows of each entry, in an order of their own."""
        self._catalog = Catalog(self.state)
        self.apply(entries.Formed(CLUSTER, member(1), (TOKEN,)))
        for number in range(2, members + 1):
            self.apply(entries.MemberPut(member(number)))

    def apply(self, entry: Entry) -> Applied:
        """Fold one entry in, as it comes from the log: as bytes."""
        self.index += 1
        self.said.append(entry)
        decoded = entries.decode(entries.encode(entry))
        assert decoded == entry
        applied, written = self._catalog.apply(Committed(self.index, 1, self.index, decoded))
        self.disk.write(written)
        self.wrote.append(sorted(msgspec.msgpack.encode(row) for row in written))
        assert contents(State.load(self.disk.load())) == contents(self.state)
        self._check_recorded()
        return applied

    def _check_recorded(self) -> None:
        """A job counts each of its records; what is pruned by age is not looked at."""
        kept = Counter(one.uid for one in self.disk.executions() if one.status.final)
        pruned = {entry.uid for entry in self.said if isinstance(entry, entries.Prune)}
        for uid in self.state.jobs.keys() - pruned:
            recorded = self.state.jobs[uid].recorded
            assert recorded == kept[uid], f"job {uid} counts {recorded} records and has {kept[uid]}"

    def restart(self) -> None:
        """Go on with nothing but what the disk holds."""
        self.state = State.load(self.disk.load())
        self._catalog = Catalog(self.state)

    # entries with what the leader saw filled in

    def put(self, name: str = "job", *, cursor: int = 0, **fields: Any) -> Applied:
        """A job whose cursor stands at second `cursor`, its next tick a second later."""
        old = self.state.named(name)
        return self.apply(
            entries.JobPut(
                job=Job(**{"name": name, "schedule": "* * * * * *", "command": "true", **fields}),
                seen_revision=old.revision if old else 0,
                seen_cursor_wall_us=old.cursor_wall_us if old else 0,
                wall_us=second(cursor),
                cursor_wall_us=second(cursor),
                next_wall_us=second(cursor + 1),
            )
        )

    def intent(
        self,
        tick: int,
        name: str = "job",
        *,
        trigger: Trigger = "schedule",
        attempt: int = 1,
        targets: tuple[int, ...] = (1,),
        moves: bool = True,
        revision: int = 0,
        epoch: int = 0,
        run_id: str = "",
        owed_key: str = "",
        reason: str = "",
        env: dict[str, str] | None = None,
    ) -> Intent:
        """The decision to launch the tick of second `tick`; with `moves` it takes the cursor along."""
        job = self.state.named(name)
        assert job is not None
        return Intent(
            job.uid,
            revision or job.revision,
            epoch,
            second(tick),
            attempt,
            trigger,
            second(tick),
            second(tick + 120),
            targets,
            second(tick + 1) if moves else UNCHANGED,
            run_id,
            owed_key,
            reason,
            env,
        )

    def launch(self, tick: int, name: str = "job", **how: Any) -> Applied:
        return self.apply(self.intents(self.intent(tick, name, **how)))

    def launch_owed(self, key: str, **how: Any) -> Applied:
        """Launch what is owed under this key."""
        return self.apply(self.intents(self.owed_intent(key, **how)))

    def owed_intent(self, key: str, **how: Any) -> Intent:
        """The decision to launch what is owed under this key."""
        row = self.state.owed[key]
        name = self.state.jobs[row.uid].job.name
        return self.intent(
            (row.scheduled_wall_us - START_WALL_US) // SECOND_US,
            name,
            trigger=row.trigger,  # type: ignore[arg-type] # rows hold it as text
            attempt=row.attempt,
            moves=False,
            run_id=row.run_id,
            owed_key=key,
            env=json.loads(row.env) if row.env else None,
            **how,
        )

    def queue(
        self,
        tick: int,
        kind: Literal["queued", "replace"] = "queued",
        *,
        name: str = "job",
        moves: bool = True,
        epoch: int = 0,
    ) -> Applied:
        """The tick of second `tick` waits for the open run; without `moves` a person asked for it."""
        job = self.state.named(name)
        assert job is not None
        return self.apply(
            entries.Queued(
                uid=job.uid,
                revision=job.revision,
                epoch=epoch,
                tick_wall_us=second(tick),
                next_wall_us=second(tick + 1) if moves else UNCHANGED,
                kind=kind,
                trigger="schedule" if moves else "manual",
            )
        )

    def intents(self, *items: Intent) -> entries.Intents:
        return entries.Intents(second(0), second(0), 0, items, "a call")

    def end(self, execution: Execution, kind: ResultKind = "ended", *, success: bool = True, at: int = 50) -> Applied:
        """The final word about an execution, committed at second `at`."""
        item = ResultItem(
            execution_id=execution.id,
            kind=kind,
            success=success and kind == "ended",
            started_wall_us=second(at - 1),
            ending=ending(0 if success else 1, finished_wall_us=second(at)) if kind in ("ended", "timeout") else None,
        )
        return self.apply(entries.Results(second(at), (item,)))

    # what came of it

    @property
    def owed(self) -> list[OwedRow]:
        """The runs that must still be decided, by key; not the results that may still come."""
        return [row for _, row in sorted(self.state.owed.items()) if row.kind != "late"]

    @property
    def records(self) -> list[tuple[int, str, str]]:
        """What the history shows: (second of the tick, status, reason), oldest first."""
        return [shown(one) for one in self.disk.executions()]

    def uid(self, name: str = "job") -> int:
        job = self.state.named(name)
        assert job is not None
        return job.uid
