"""What a group of rows comes to: for each key the last word, and for the log its final shape.

Pure. Writing a batch leaves the tables as writing its rows one by one would (a property test says so), in a handful of
statements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshcron.rows import Drop, DropHistory, ExecutionRow, LogCut, LogRow, Row
from meshcron.store.shapes import SHAPES, Key, KeyedRow


class LogChange:
    """What becomes of the log: cut back to before `rows`, then `rows`, then all up to `cut` forgotten."""

    __slots__ = ("cut", "rows", "truncate_from")

    def __init__(self) -> None:
        self.truncate_from: int | None = None
        """The lowest index written: whatever stood there or behind it is void."""
        self.rows: list[LogRow] = []
        self.cut: int | None = None

    def append(self, row: LogRow) -> None:
        """A row voids every row from its own index on: a follower learns that its tail was never committed."""
        while self.rows and self.rows[-1].index >= row.index:
            self.rows.pop()
        self.rows.append(row)
        if self.truncate_from is None or row.index < self.truncate_from:
            self.truncate_from = row.index


class Batch:
    """Rows taken together. `puts` holds for each table and key the row to write, or None for one to remove."""

    __slots__ = ("history", "log", "puts")

    def __init__(self) -> None:
        self.puts: dict[str, dict[Key, KeyedRow | None]] = {}
        self.history: dict[int, DropHistory] = {}
        """By job: what goes once everything is put."""
        self.log = LogChange()

    def add(self, row: Row) -> bool:
        """Take a row. False: it can only be written after this batch."""
        match row:
            case LogRow():
                return self._append(row)
            case LogCut():
                self.log.cut = max(row.index, self.log.cut or 0)
            case ExecutionRow():
                return self._put_execution(row)
            case Drop():
                return self._drop(row)
            case DropHistory():
                return self._drop_history(row)
            case _:
                self._put(row)
        return True

    def _append(self, row: LogRow) -> bool:
        if self.log.cut is not None and row.index <= self.log.cut:
            return False
        self.log.append(row)
        return True

    def _put(self, row: KeyedRow) -> None:
        shape = SHAPES[type(row)]
        self.puts.setdefault(shape.table, {})[shape.key(row)] = row

    def _put_execution(self, row: ExecutionRow) -> bool:
        if row.execution.uid in self.history:
            return False
        self.puts.setdefault("executions", {})[row.execution.id] = row
        return True

    def _drop(self, drop: Drop) -> bool:
        if drop.table == "executions" and self.history:
            return False  # one of them may count among the newest
        self.puts.setdefault(drop.table, {}).update(dict.fromkeys(drop.keys))
        return True

    def _drop_history(self, drop: DropHistory) -> bool:
        if drop.uid in self.history:
            return False
        self.history[drop.uid] = drop
        return True


def fold(rows: Iterable[Row]) -> Iterator[Batch]:
    """The batches, nearly always one, that together do what the rows do in their order."""
    batch = Batch()
    for row in rows:
        if not batch.add(row):
            yield batch
            batch = Batch()
            batch.add(row)
    yield batch
