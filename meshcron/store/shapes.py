"""How the rows of meshcron/rows.py lie in tables: names, keys and the two conversions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import astuple

from meshcron.model import Execution, Member, Token
from meshcron.rows import (
    BallotRow,
    CallRow,
    ExecutionRow,
    JobRow,
    JobStateRow,
    MarkRow,
    MemberRow,
    MetaRow,
    OwedRow,
    SeenRow,
    SpecRow,
    TokenRow,
)

SqlValue: TypeAlias = int | float | str | bytes | None
Key: TypeAlias = str | int | tuple[int, int]
KeyedRow: TypeAlias = (
    BallotRow
    | MarkRow
    | MetaRow
    | JobRow
    | JobStateRow
    | ExecutionRow
    | OwedRow
    | CallRow
    | MemberRow
    | TokenRow
    | SeenRow
    | SpecRow
)

ONLY = 1
"""The key of a table that holds one row."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One table. `columns` begin with the `keys` columns of its key."""

    table: str
    columns: tuple[str, ...]
    keys: int
    key: Callable[[Any], Key]
    values: Callable[[Any], tuple[SqlValue, ...]]
    """A row as its columns."""
    rows: Callable[[Iterable[Sequence[Any]]], list[Any]]
    """Rows from their columns. Raises msgspec.ValidationError."""

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that name a row."""
        return self.columns[: self.keys]


def execution_values(execution: Execution) -> tuple[SqlValue, ...]:
    """An execution as its columns."""
    values = list(astuple(execution))
    values[_STATUS] = execution.status.value  # a str itself: sqlite3 would look for an adapter first
    values[_ENV] = None if execution.env is None else msgspec.json.encode(execution.env).decode()
    return tuple(values)


def executions_from(found: Iterable[Sequence[Any]]) -> list[Execution]:
    """Executions from their columns. Raises msgspec.ValidationError, msgspec.DecodeError."""
    fields = Execution.__struct_fields__
    named = [dict(zip(fields, values, strict=True)) for values in found]
    for one in named:
        if one["env"] is not None:
            one["env"] = msgspec.json.decode(one["env"])
    return msgspec.convert(named, list[Execution], strict=False)


_EXECUTION_COLUMNS = tuple("idx" if name == "index" else name for name in Execution.__struct_fields__)
_STATUS = _EXECUTION_COLUMNS.index("status")
_ENV = _EXECUTION_COLUMNS.index("env")


def _flat(table: str, kind: type[msgspec.Struct], keys: int) -> Shape:
    """A table whose row is an array-like Struct: its fields are the columns."""
    first, second = (*kind.__struct_fields__, "")[:2]

    def key(row: Any) -> Key:
        return getattr(row, first) if keys == 1 else (getattr(row, first), getattr(row, second))

    def rows(found: Iterable[Sequence[Any]]) -> list[Any]:
        return msgspec.convert(list(found), list[kind], strict=False)  # type: ignore[valid-type]

    columns = tuple('"order"' if name == "order" else name for name in kind.__struct_fields__)
    return Shape(table, columns, keys, key, astuple, rows)


def _only(table: str, kind: type[msgspec.Struct]) -> Shape:
    """A table of one row."""

    def rows(found: Iterable[Sequence[Any]]) -> list[Any]:
        named = [dict(zip(kind.__struct_fields__, values[1:], strict=True)) for values in found]
        return msgspec.convert(named, list[kind], strict=False)  # type: ignore[valid-type]

    columns = ("id", *kind.__struct_fields__)
    return Shape(table, columns, 1, lambda _: ONLY, lambda row: (ONLY, *astuple(row)), rows)


def _members(found: Iterable[Sequence[Any]]) -> list[MemberRow]:
    named = [dict(zip(Member.__struct_fields__, values, strict=True)) for values in found]
    return [MemberRow(member) for member in msgspec.convert(named, list[Member], strict=False)]


def _tokens(found: Iterable[Sequence[Any]]) -> list[TokenRow]:
    named = [dict(zip(Token.__struct_fields__, values, strict=True)) for values in found]
    return [TokenRow(token) for token in msgspec.convert(named, list[Token], strict=False)]


def _executions(found: Iterable[Sequence[Any]]) -> list[ExecutionRow]:
    return [ExecutionRow(execution) for execution in executions_from(found)]


SHAPES: dict[type[KeyedRow], Shape] = {
    BallotRow: _only("ballot", BallotRow),
    MarkRow: _only("mark", MarkRow),
    MetaRow: _flat("meta", MetaRow, 1),
    JobRow: _flat("jobs", JobRow, 2),
    JobStateRow: _flat("job_states", JobStateRow, 1),
    ExecutionRow: Shape(
        "executions",
        _EXECUTION_COLUMNS,
        1,
        lambda row: row.execution.id,
        lambda row: execution_values(row.execution),
        _executions,
    ),
    OwedRow: _flat("owed", OwedRow, 1),
    CallRow: _flat("calls", CallRow, 1),
    MemberRow: Shape(
        "members",
        Member.__struct_fields__,
        1,
        lambda row: row.member.node_id,
        lambda row: astuple(row.member),
        _members,
    ),
    TokenRow: Shape(
        "tokens",
        Token.__struct_fields__,
        1,
        lambda row: row.token.id,
        lambda row: astuple(row.token),
        _tokens,
    ),
    SeenRow: _flat("seen", SeenRow, 1),
    SpecRow: _flat("specs", SpecRow, 1),
}

BY_TABLE: dict[str, Shape] = {shape.table: shape for shape in SHAPES.values()}

CATALOG: tuple[str, ...] = ("meta", "jobs", "job_states", "executions", "owed", "members", "tokens", "calls")
"""The tables that are a function of the log: what a snapshot holds, in the order in which it holds them."""
