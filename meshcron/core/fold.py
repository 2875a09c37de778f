"""What all parts of the catalog share while one entry is folded in: the state, the rows to write, what changed."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from meshcron.core.answers import forget_answers
from meshcron.core.state import JobState, State
from meshcron.errors import MeshcronError
from meshcron.model import Execution, Status, execution_id
from meshcron.rows import Drop, ExecutionRow, MetaRow, OwedRow, Row


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


class Fold:
    """One entry at a time: `begin`, then the parts add to `rows` and `applied`."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.rows: list[Row] = []
        self.applied = Applied()
        self.index = 0
        self.told: set[str] = set()
        """Runs whose open executions know by this entry that one of them has failed."""

    def begin(self, index: int) -> None:
        """The next entry."""
        self.rows, self.applied, self.index, self.told = [], Applied(), index, set()

    def roster_changed(self) -> None:
        """Who is a member or votes has changed."""
        self.state.roster_index = self.index
        self.rows.append(MetaRow("roster", str(self.index)))

    def drop_tokens_of(self, node_ids: frozenset[str]) -> None:
        """Members are gone: their own local tokens, too."""
        for token in [token for token in self.state.token_map.values() if token.node_id in node_ids]:
            del self.state.token_map[token.id]
            self.rows.append(Drop("tokens", (token.id,)))

    def owe(self, row: OwedRow) -> None:
        """A run is owed."""
        self.state.add_owed(row)
        self.rows.append(row)
        self.applied.touched.add(row.uid)

    def drop_owed(self, key: str) -> None:
        """An owed run is decided."""
        self.state.remove_owed(key)
        self.rows.append(Drop("owed", (key,)))

    def record_skip(
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
        node_id: str = "",
        owed_key: str = "",
    ) -> None:
        """A final record of ticks that ran nowhere (or not on that agent). `owed_key`: of the owed run that it ends; of
        those of one run several may end in one entry, retries that have moved even on one agent."""
        state.recorded += 1
        member = self.state.member_of(node_id)
        ended = f"{run_id}#{self.index}|{owed_key}" if owed_key else f"{run_id}#{self.index}"
        record = Execution(
            id=execution_id(self.state.cluster, ended, node_id, attempt),
            node_id=node_id,
            agent=member.name if member else "",
            uid=state.uid,
            run_id=run_id,
            index=self.index,
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
        self.rows.append(ExecutionRow(record))
        self.applied.closed.append(record)

    def record_owed(self, state: JobState, row: OwedRow, reason: str, status: Status = Status.SKIPPED) -> None:
        """The final record of an owed run that nobody will run, where it would have run."""
        at = row.scheduled_wall_us
        self.record_skip(
            state, at, at, 1, reason, row.run_id, row.trigger, row.attempt, status, row.node_id, owed_key=row.key
        )

    def ask_stop(self, execution: Execution, *, kill: bool) -> None:
        """An execution's agent is told to stop it."""
        wanted = "kill" if kill or execution.stop == "kill" else "leave"
        asked = replace(execution, stop=wanted)
        self.state.add_open(asked)
        self.rows.append(ExecutionRow(asked))
        self.applied.stopping.append(asked)

    def clock(self, cluster_us: int, wall_us: int, offset_us: int) -> object:
        """The clocks as an entry carries them; cluster time never falls."""
        self.state.clock = max(cluster_us, self.state.clock[0]), wall_us, offset_us, self.state.epoch
        self.write_clock()
        self.rows += forget_answers(self.state, self.state.clock[0])
        return None

    def write_clock(self) -> None:
        """They are kept."""
        self.rows.append(MetaRow("clock", " ".join(map(str, self.state.clock))))

    def lived_in(self) -> None:
        """Somebody uses this cluster."""
        if not self.state.lived_in:
            self.state.lived_in = True
            self.rows.append(MetaRow("lived_in", "1"))

    def count(self, state: JobState, final: Execution) -> None:
        """The last attempt decides the run: fail, then ok = success."""
        if final.status is Status.SUCCESS:
            state.success_count += 1
            state.last_success_wall_us = final.finished_wall_us
        elif final.status is not Status.SKIPPED:
            state.error_count += 1
            state.last_error_wall_us = final.finished_wall_us or final.scheduled_wall_us
        state.last_status = final.status.value

    def count_failed(self, state: JobState, retry: OwedRow) -> None:
        """A run whose next attempt does not come stays failed; if it was lost, its result may still take that back."""
        state.error_count += 1
        state.last_status = Status.FAILED.value
        late = self.state.owed.get(f"late|{retry.key.removeprefix('retry|')}")
        if late is not None:
            self.owe(replace(late, attempt=1))
