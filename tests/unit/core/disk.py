"""The disk that these tests' machines write to, and the few values that all their stories share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from meshcron import rows
from meshcron.core.state import State
from meshcron.model import SECOND_US, Ending, Execution, Member, Token
from meshcron.rows import BallotRow, Loaded, MarkRow
from meshcron.store.shapes import BY_TABLE, SHAPES

NODE = "a" * 32
CLUSTER = "c" * 32

START_WALL_US = 1_800_000_000 * SECOND_US
"""08:00:00 UTC on a day in January 2027."""

BOOT_US = 1_000 * SECOND_US

TOKEN = Token(id="t1", name="admin", role="admin", sha256="00", created_wall_us=START_WALL_US)


def second(n: float) -> int:
    """The wall instant `n` seconds after the start of the story."""
    return START_WALL_US + int(n * SECOND_US)


def ending(code: int | None = 0, *, signal: int | None = None, finished_wall_us: int = START_WALL_US) -> Ending:
    return Ending(
        exit_code=code,
        signal=signal,
        finished_wall_us=finished_wall_us,
        output_tail="said so",
        output_bytes=7,
        output_truncated=False,
    )


def member(number: int) -> Member:
    return Member(node_id="abcdefgh"[number - 1] * 32, name=f"agent{number}", number=number)


def shown(one: Execution) -> tuple[int, str, str]:
    return (one.scheduled_wall_us - START_WALL_US) // SECOND_US, one.status.value, one.reason


class Disk:
    """What is durable, by table and key as the store's tables have them."""

    def __init__(self) -> None:
        self.log: dict[int, rows.LogRow] = {}
        self.tables: dict[str, dict[Any, Any]] = defaultdict(dict)

    def write(self, some: Sequence[rows.Row]) -> None:
        for row in some:
            match row:
                case rows.LogRow():
                    self.log = {index: kept for index, kept in self.log.items() if index < row.index}
                    self.log[row.index] = row
                case rows.LogCut():
                    self.log = {index: kept for index, kept in self.log.items() if index > row.index}
                case rows.Drop():
                    for key in row.keys:
                        self.tables[row.table].pop(key, None)
                case rows.DropHistory():
                    self._drop_history(row)
                case _:
                    shape = SHAPES[type(row)]
                    self.tables[shape.table][shape.key(row)] = row

    def _drop_history(self, row: rows.DropHistory) -> None:
        final = [one for one in self.executions() if one.uid == row.uid and one.status.final]
        for at, one in enumerate(reversed(final)):
            if at >= row.keep_newest or (one.finished_wall_us or one.scheduled_wall_us) < row.before_wall_us:
                del self.tables["executions"][one.id]

    def executions(self) -> list[Execution]:
        """Every execution, oldest first."""
        found: list[Execution] = [row.execution for row in self.tables["executions"].values()]
        return sorted(found, key=lambda one: (one.index, one.id))

    def load(self) -> Loaded:
        """As an agent reads it at a start: each table in the order of its keys."""

        def table(name: str) -> list[Any]:
            assert name in BY_TABLE
            return [self.tables[name][key] for key in sorted(self.tables[name])]

        return Loaded(
            ballot=self.tables["ballot"].get(1, BallotRow(0, "")),
            log=[self.log[index] for index in sorted(self.log)],
            meta={row.key: row.value for row in table("meta")},
            jobs=table("jobs"),
            job_states=table("job_states"),
            open_executions=[one for one in self.executions() if not one.status.final],
            owed=table("owed"),
            members=[row.member for row in table("members")],
            tokens=[row.token for row in table("tokens")],
            calls=table("calls"),
            seen=table("seen"),
            specs=table("specs"),
            mark=self.tables["mark"].get(1, MarkRow(0, 0, 0)),
        )


def contents(state: State) -> dict[str, object]:
    """All that a state holds; an index that counts nothing is as good as none."""
    held = {}
    for name, value in vars(state).items():
        held[name] = {k: v for k, v in value.items() if v} if isinstance(value, defaultdict) else value
    return held
