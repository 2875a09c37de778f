"""A group of rows, folded and written in a handful of statements, against the same rows taken one by one."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcron.chain import chain
from meshcron.model import Execution, Member, Status, Token
from meshcron.rows import (
    BallotRow,
    CallRow,
    Drop,
    DropHistory,
    ExecutionRow,
    JobRow,
    JobStateRow,
    LogCut,
    LogRow,
    MarkRow,
    MemberRow,
    MetaRow,
    OwedRow,
    Row,
    SeenRow,
    SpecRow,
    TokenRow,
)
from meshcron.store.batch import fold
from meshcron.store.log import LogBase, read_base, write_log
from meshcron.store.queries import schema
from meshcron.store.shapes import BY_TABLE, SHAPES
from meshcron.store.statements import write_rows

SMALL = st.integers(0, 3)
TEXT = st.text(alphabet="ab\0é😀", max_size=3)


def names(prefix: str) -> st.SearchStrategy[str]:
    return st.integers(0, 2).map(lambda n: f"{prefix}{n}")


EXECUTIONS = st.builds(
    lambda number, uid, status, index, finished, tail: ExecutionRow(
        Execution(
            id=f"e{number}",
            uid=uid,
            run_id="r",
            index=index,
            revision=1,
            attempt=1,
            trigger="schedule",
            scheduled_wall_us=5,
            due_cluster_us=0,
            start_by_cluster_us=0,
            status=status,
            finished_wall_us=finished,
            output_tail=tail,
            env={"A": tail} if finished else None,
        )
    ),
    st.integers(0, 7),
    st.integers(1, 2),
    st.sampled_from([Status.ARMED, Status.RUNNING, Status.SUCCESS, Status.LOST]),
    st.integers(1, 4),
    st.integers(0, 9),
    TEXT,
)
PUTS: st.SearchStrategy[Row] = st.one_of(
    EXECUTIONS,
    st.builds(BallotRow, SMALL, TEXT),
    st.builds(MarkRow, SMALL, SMALL, SMALL),
    st.builds(MetaRow, names("k"), TEXT),
    st.builds(JobRow, SMALL, SMALL, TEXT, TEXT, st.booleans(), st.booleans(), SMALL),
    st.builds(JobStateRow, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, TEXT, SMALL),
    st.builds(lambda key, text: OwedRow(key, 1, "retry", "r", 1, "retry", 1, 2, "n", text), names("o"), TEXT),
    st.builds(lambda key, n, text: CallRow(key, n, n, "job", text), names("c"), SMALL, TEXT),
    st.builds(lambda key, n: MemberRow(Member(node_id=key, name="m", number=n, voter=n > 1)), names("m"), SMALL),
    st.builds(
        lambda key, n: TokenRow(Token(id=key, name="t", role="admin", sha256="s", created_wall_us=n)), names("t"), SMALL
    ),
    st.builds(lambda key, n, b: SeenRow(key, "s", n, n, n, n, n, b, "o", "r"), names("s"), SMALL, st.booleans()),
    st.builds(SpecRow, names("d"), TEXT),
)
DROPS: st.SearchStrategy[Row] = st.one_of(
    st.builds(lambda keys: Drop("executions", tuple(keys)), st.lists(st.integers(0, 7).map(lambda n: f"e{n}"))),
    st.builds(lambda keys: Drop("jobs", tuple(keys)), st.lists(st.tuples(SMALL, SMALL))),
    st.builds(lambda keys: Drop("job_states", tuple(keys)), st.lists(SMALL)),
    st.builds(lambda keys: Drop("meta", tuple(keys)), st.lists(names("k"))),
    st.builds(lambda keys: Drop("owed", tuple(keys)), st.lists(names("o"))),
    st.builds(lambda keys: Drop("calls", tuple(keys)), st.lists(names("c"))),
    st.builds(lambda keys: Drop("seen", tuple(keys)), st.lists(names("s"))),
    st.builds(DropHistory, st.integers(1, 2), st.integers(0, 3), st.integers(0, 9)),
)
ROWS = st.lists(st.one_of(PUTS, DROPS), max_size=25)


def one_by_one(rows: list[Row]) -> dict[str, dict[Any, Any]]:
    """What the rows mean, said as plainly as possible."""
    tables: dict[str, dict[Any, Any]] = {}
    for row in rows:
        match row:
            case Drop():
                for key in row.keys:
                    tables.setdefault(row.table, {}).pop(key, None)
            case DropHistory():
                kept = tables.setdefault("executions", {})
                for gone in past(row, [found.execution for found in kept.values()]):
                    del kept[gone.id]
            case LogRow() | LogCut():
                raise AssertionError
            case _:
                shape = SHAPES[type(row)]
                tables.setdefault(shape.table, {})[shape.key(row)] = row
    return {table: rows for table, rows in tables.items() if rows}


def past(drop: DropHistory, executions: list[Execution]) -> list[Execution]:
    final = [one for one in executions if one.uid == drop.uid and one.status.final]
    newest = sorted(final, key=lambda one: (one.index, one.id), reverse=True)[: drop.keep_newest]
    kept = [one for one in newest if (one.finished_wall_us or one.scheduled_wall_us) >= drop.before_wall_us]
    return [one for one in final if one not in kept]


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(schema())
    return connection


def write(connection: sqlite3.Connection, rows: list[Row]) -> None:
    end = LogBase()
    for batch in fold(rows):
        write_rows(connection, batch)
        end = write_log(connection, end, batch.log)


def contents(connection: sqlite3.Connection) -> dict[str, dict[Any, Any]]:
    found = {}
    for shape in BY_TABLE.values():
        sql = f"SELECT {', '.join(shape.columns)} FROM {shape.table}"
        rows = shape.rows(connection.execute(sql).fetchall())
        if rows:
            found[shape.table] = {shape.key(row): row for row in rows}
    return found


@settings(max_examples=400)
@given(st.lists(ROWS, max_size=3))
def test_a_group_is_its_rows_in_their_order(groups: list[list[Row]]) -> None:
    """Whatever is put, put again, dropped or pruned, in one group or several: the last word on each key stands."""
    connection = database()
    for rows in groups:
        write(connection, rows)
    assert contents(connection) == one_by_one([row for rows in groups for row in rows])
    connection.close()


def test_one_batch_where_nothing_conflicts() -> None:
    """The common case, a leader's second of work, is one pass."""
    rows: list[Row] = [MetaRow("k", "1"), Drop("meta", ("k",)), MetaRow("k", "2"), DropHistory(1, 3), DropHistory(2, 3)]
    assert len(list(fold(rows))) == 1


@pytest.mark.parametrize("after", ["an execution of that job", "another drop of it", "a drop by id"])
def test_history_is_counted_where_it_stands(after: str, build: Any) -> None:
    """The newest three are those there at that moment: what comes later waits for the next batch."""
    rows: dict[str, Row] = {
        "an execution of that job": build.execution(1),
        "another drop of it": DropHistory(1, 2),
        "a drop by id": Drop("executions", ("x",)),
    }
    assert len(list(fold([build.execution(2), DropHistory(1, 3), rows[after]]))) == 2
    assert len(list(fold([build.execution(2), DropHistory(1, 3), build.execution(3, uid=2)]))) == 1


class Log:
    """The log as a list, and the operations a core may ask for."""

    def __init__(self) -> None:
        self.base = LogBase()
        self.rows: list[LogRow] = []

    def append(self, index: int, body: bytes) -> LogRow:
        self.rows = [row for row in self.rows if row.index < index]
        before = self.rows[-1].crc if self.rows else self.base.crc
        row = LogRow(index, 1, chain(before or 0, index, 1, body), body)
        self.rows.append(row)
        return row

    def cut(self, index: int) -> LogCut:
        gone = [row for row in self.rows if row.index <= index]
        if gone:
            self.base = LogBase(gone[-1].index, gone[-1].term, gone[-1].crc)
        self.rows = self.rows[len(gone) :]
        return LogCut(index)

    @property
    def last(self) -> int:
        return self.rows[-1].index if self.rows else self.base.index


@settings(max_examples=300)
@given(st.data())
def test_the_log_is_cut_back_and_cut_off_in_order(data: st.DataObject) -> None:
    """A follower's tail is replaced, entries are appended and forgotten, in groups of any size."""
    connection, log, end = database(), Log(), LogBase()
    for _ in range(data.draw(st.integers(1, 3), label="groups")):
        rows: list[Row] = []
        for _ in range(data.draw(st.integers(0, 8), label="rows")):
            if data.draw(st.booleans(), label="append"):
                index = data.draw(st.integers(log.base.index + 1, log.last + 1), label="index")
                rows.append(log.append(index, data.draw(st.binary(max_size=3))))
            else:
                rows.append(log.cut(data.draw(st.integers(0, log.last), label="cut")))
        for batch in fold(rows):
            end = write_log(connection, end, batch.log)
    assert [LogRow(*found) for found in connection.execute("SELECT * FROM log ORDER BY idx")] == log.rows
    assert read_base(connection) == log.base
    assert end.index == log.last
    connection.close()
