"""Takes down every change of state that the code makes, from the tables of docs/PROTOCOL.md."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from meshcron.core.catalog import Catalog
from meshcron.core.catalog_members import standing
from meshcron.core.fold import Applied
from meshcron.core.runner import Runner
from meshcron.core.seen import Seen
from meshcron.core.state import State
from meshcron.core.voter import Committed, Voter
from meshcron.rows import ExecutionRow, Row

Change = tuple[str | None, str | None]


class Changes:
    """What was seen, by the name of its table; one that leaves a state as it is, is none."""

    def __init__(self) -> None:
        self.seen: dict[str, set[Change]] = {"role": set(), "seen": set(), "status": set(), "standing": set()}

    def add(self, table: str, old: str | None, new: str | None) -> None:
        if old != new:
            self.seen[table].add((old, new))

    def applied(self, state: State, before: State_, rows: list[Row]) -> None:
        """An entry is applied: what it has made of members, and of executions by their rows."""
        statuses, members = before
        after = members_of(state)
        for node_id in members.keys() | after.keys():
            self.add("standing", members.get(node_id), after.get(node_id))
        for row in rows:
            if isinstance(row, ExecutionRow):
                execution = row.execution
                self.add("status", statuses.get(execution.id), execution.status)
                statuses[execution.id] = execution.status


State_ = tuple[dict[str, str], dict[str, str | None]]
"""The status of each execution that may still change, the standing of each member."""


def members_of(state: State) -> dict[str, str | None]:
    return {member.node_id: standing(member) for member in state.members.values()}


def before_of(state: State) -> State_:
    statuses: dict[str, str] = {id_: execution.status for id_, execution in state.open.items()}
    lost = {key.removeprefix("late|"): "lost" for key in state.owed if key.startswith("late|")}
    return statuses | lost, members_of(state)


@contextmanager
def watched() -> Iterator[Changes]:
    """While this lasts, whatever any agent of this process does."""
    found = Changes()
    patch = pytest.MonkeyPatch()
    become, turn, remember, apply = Voter.become, Seen.become, Runner._remember, Catalog.apply

    def role(voter: Voter, new: Any) -> None:
        found.add("role", voter.role, new)
        become(voter, new)

    def seen(one: Seen, new: Any) -> None:
        found.add("seen", one.state, new)
        turn(one, new)

    def remembered(runner: Runner, one: Seen, its_turn: Any) -> None:
        known = runner._seen.get(one.execution_id)
        found.add("seen", known.state if known else None, one.state)
        remember(runner, one, its_turn)

    def applied(catalog: Catalog, committed: Committed) -> tuple[Applied, list[Row]]:
        state = catalog._fold.state
        before = before_of(state)
        changed, rows = apply(catalog, committed)
        found.applied(state, before, rows)
        return changed, rows

    patch.setattr(Voter, "become", role)
    patch.setattr(Seen, "become", seen)
    patch.setattr(Runner, "_remember", remembered)
    patch.setattr(Catalog, "apply", applied)
    try:
        yield found
    finally:
        patch.undo()
