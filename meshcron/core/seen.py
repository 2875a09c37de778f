"""What an agent knows of one execution, from the order on: its states, and what brings each about (PROTOCOL 6)."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from meshcron.messages import Order, ResultItem
from meshcron.rows import SeenRow

SeenState = Literal["accepted", "starting", "running", "ended", "late", "stopped"]

SEEN_CHANGES: dict[tuple[SeenState | None, SeenState], str] = {
    (None, "accepted"): "Run",
    (None, "late"): "Run, too late or below the mark",
    (None, "stopped"): "Stop, before its Run",
    ("accepted", "starting"): "due, and a slot is free",
    ("accepted", "stopped"): "Stop",
    ("accepted", "ended"): "no slot in time, or the agent was away",
    ("starting", "running"): "the process runs",
    ("starting", "ended"): "it could not start, was too short to be seen, or its fate is unknown",
    ("running", "ended"): "the process ended, or its fate is unknown",
}
"""Every change of what an agent knows of an execution, and what brings it about; None = nothing. docs/PROTOCOL.md shows
it. A row whose state has no way on (DEAD) is forgotten once nothing can ask for it any more."""

DEAD: frozenset[SeenState] = frozenset({new for _, new in SEEN_CHANGES} - {old for old, _ in SEEN_CHANGES})


class Seen(Struct):
    """What this agent knows of one execution."""

    execution_id: str
    state: SeenState
    session: int
    start_by_cluster_us: int
    pid: int = 0
    process_start: int = 0
    started_wall_us: int = 0
    acknowledged: bool = False
    order: Order | None = None
    result: ResultItem | None = None
    ending_as: Literal["", "timeout", "killed"] = ""
    sent_boot_us: int = 0

    def become(self, state: SeenState) -> None:
        """Go on to another state; one that SEEN_CHANGES does not list is a defect, and the agent ends, its processes
        do not."""
        if state != self.state:
            assert (self.state, state) in SEEN_CHANGES, f"{self.execution_id}: {self.state} becomes {state}"
            self.state = state

    def row(self) -> SeenRow:
        """As it is written down."""
        return SeenRow(
            self.execution_id,
            self.state,
            self.session,
            self.start_by_cluster_us,
            self.pid,
            self.process_start,
            self.started_wall_us,
            self.acknowledged,
            msgspec.json.encode(self.order).decode() if self.order else "",
            msgspec.json.encode(self.result).decode() if self.result else "",
        )

    @staticmethod
    def from_row(row: SeenRow) -> Seen:
        """As an earlier session wrote it down."""
        return Seen(
            row.execution_id,
            row.state,  # type: ignore[arg-type] # our own rows
            row.session,
            row.start_by_cluster_us,
            row.pid,
            row.process_start,
            row.started_wall_us,
            row.acknowledged,
            msgspec.json.decode(row.order, type=Order) if row.order else None,
            msgspec.json.decode(row.result, type=ResultItem) if row.result else None,
        )
